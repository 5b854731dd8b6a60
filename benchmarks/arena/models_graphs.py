"""Graphs of torch_geometric: several in a batch, nodes that pooling drops, edges that it contracts."""

from typing import Any

import torch
from torch import Tensor, nn

from hybridjit import Inputs

from .cases import Case, case
from .make import library


def _graphs(*counts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes, edges both ways without repeats, and which graph each node is of."""
    edges, batch, start = [], [], 0
    for index, count in enumerate(counts):
        upper = torch.triu((torch.rand(count, count) < 0.4).int(), 1)
        upper[torch.arange(count - 1), torch.arange(1, count)] = 1  # none is alone
        pairs = upper.nonzero().t() + start
        edges += [pairs, pairs.flip(0)]
        batch += [index] * count
        start += count
    return torch.randn(start, 8), torch.cat(edges, 1), torch.tensor(batch)


def _sequential(arguments: str, *steps: Any) -> Any:
    """Layers one after the other, by torch_geometric's own container."""
    return library("torch_geometric.nn").Sequential(arguments, list(steps)).eval()


def _batches(model: Any) -> Case:
    return Case(
        model,
        Inputs(*_graphs(7, 5)),
        {
            "one graph": Inputs(*_graphs(9)),
            "four graphs": Inputs(*_graphs(4, 8, 3, 6)),
            "other edges": Inputs(*_graphs(7, 5)),
        },
    )


def _weighted(model: Any) -> Case:
    """With a place for weights of edges, of which there are none."""

    def call(*counts: int) -> Inputs:
        x, edges, batch = _graphs(*counts)
        return Inputs(x, edges, None, batch)

    return Case(
        model,
        call(7, 5),
        {"one graph": call(9), "four graphs": call(4, 8, 3, 6), "other edges": call(7, 5)},
    )


@case("torch_geometric")
def gcn() -> Case:
    nn_ = library("torch_geometric.nn")
    return _batches(
        _sequential(
            "x, edge_index, batch",
            (nn_.GCNConv(8, 16), "x, edge_index -> x"),
            nn.ReLU(),
            (nn_.GCNConv(16, 16), "x, edge_index -> x"),
            (nn_.global_mean_pool, "x, batch -> x"),
            nn.Linear(16, 3),
        )
    )


@case("torch_geometric")
def gat_set2set() -> Case:
    nn_ = library("torch_geometric.nn")
    return _batches(
        _sequential(
            "x, edge_index, batch",
            (nn_.GATv2Conv(8, 8, heads=2), "x, edge_index -> x"),
            nn.ELU(),
            (nn_.aggr.Set2Set(16, processing_steps=2), "x, batch -> x"),
        )
    )


@case("torch_geometric")
def top_k() -> Case:
    nn_ = library("torch_geometric.nn")
    return _weighted(
        _sequential(
            "x, edge_index, weights, batch",
            (nn_.GraphConv(8, 16), "x, edge_index -> x"),
            (
                nn_.TopKPooling(16, ratio=0.5),
                "x, edge_index, weights, batch -> x, edge_index, weights, batch, perm, score",
            ),
            (nn_.GraphConv(16, 16), "x, edge_index -> x"),
            (nn_.global_max_pool, "x, batch -> x"),
        )
    )


@case("torch_geometric")
def sag() -> Case:
    nn_ = library("torch_geometric.nn")
    return _weighted(
        _sequential(
            "x, edge_index, weights, batch",
            (
                nn_.SAGPooling(8, ratio=0.7),
                "x, edge_index, weights, batch -> x, edge_index, weights, batch, perm, score",
            ),
            (nn_.global_add_pool, "x, batch -> x"),
        )
    )


@case("torch_geometric")
def edge_pooling() -> Case:
    """Contracts edges one by one, until none is left between two nodes that are free."""
    nn_ = library("torch_geometric.nn")
    return _batches(
        _sequential(
            "x, edge_index, batch",
            (nn_.EdgePooling(8), "x, edge_index, batch -> x, edge_index, batch, info"),
            (nn_.global_mean_pool, "x, batch -> x"),
        )
    )


@case("torch_geometric")
def asap() -> Case:
    nn_ = library("torch_geometric.nn")
    return _weighted(
        _sequential(
            "x, edge_index, weights, batch",
            (nn_.ASAPooling(8, ratio=0.5), "x, edge_index, weights, batch -> x, edge_index, weights, batch, perm"),
            (nn_.global_mean_pool, "x, batch -> x"),
        )
    )


@case("torch_geometric")
def memory_pooling() -> Case:
    nn_ = library("torch_geometric.nn")
    return _batches(
        _sequential(
            "x, edge_index, batch",
            (nn_.SAGEConv(8, 8), "x, edge_index -> x"),
            (nn_.MemPooling(8, 16, heads=2, num_clusters=3), "x, batch -> x, s"),
        )
    )


@case("torch_geometric")
def sorted_pooling() -> Case:
    nn_ = library("torch_geometric.nn")
    return _batches(
        _sequential(
            "x, edge_index, batch",
            (nn_.GINConv(nn.Linear(8, 8)), "x, edge_index -> x"),
            (nn_.aggr.SortAggregation(k=6), "x, batch -> x"),
        )
    )


@case("torch_geometric")
def graph_unet() -> Case:
    nn_ = library("torch_geometric.nn")
    return _batches(nn_.GraphUNet(8, 16, 4, depth=2, pool_ratios=0.5).eval())


@case("torch_geometric")
def dense_pooling() -> Case:
    """Graphs as a padded block; how many nodes it has room for is said in the call."""
    nn_, utils = library("torch_geometric.nn"), library("torch_geometric.utils")
    model = _sequential(
        "x, edge_index, batch, zero, weights, room",
        (utils.to_dense_batch, "x, batch, zero, room -> d, mask"),
        (utils.to_dense_adj, "edge_index, batch, weights, room -> adj"),
        (nn_.DenseGCNConv(8, 4), "d, adj, mask -> s"),
        (nn_.dense_diff_pool, "d, adj, s, mask -> x, adj, l, e"),
    )
    return Case(
        model,
        Inputs(*_graphs(7, 5), 0.0, None, 8),
        {
            "more room": Inputs(*_graphs(7, 9), 0.0, None, 10),
            "four graphs": Inputs(*_graphs(4, 8, 3, 6), 0.0, None, 8),
            "a graph cut off": Inputs(*_graphs(4, 9), 0.0, None, 8),
        },
    )


@case("torch_geometric")
def graph_transformer() -> Case:
    nn_ = library("torch_geometric.nn")
    model = _sequential(
        "x, edge_index, batch",
        (nn_.GPSConv(8, nn_.GINConv(nn.Linear(8, 8)), heads=2), "x, edge_index, batch -> x"),
        (nn_.GraphNorm(8), "x, batch -> x"),
        (nn_.aggr.SoftmaxAggregation(), "x, batch -> x"),
    )
    return _batches(model)


@case("torch_geometric")
def schnet() -> Case:
    """Atoms: which are near each other is found from their places."""
    nn_ = library("torch_geometric.nn")
    model = nn_.SchNet(
        hidden_channels=16,
        num_filters=16,
        num_interactions=2,
        num_gaussians=8,
        cutoff=4.0,
        interaction_graph=_Near(4.0),
    )

    def call(*counts: int) -> Inputs:
        total = sum(counts)
        batch = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        return Inputs(torch.randint(1, 9, (total,)), torch.rand(total, 3) * 5, batch)

    return Case(model.eval(), call(6, 4), {"one": call(9), "three": call(3, 5, 4), "other places": call(6, 4)})


class _Near(nn.Module):
    """What torch_cluster's radius_graph finds; it is not on PyPI for every torch."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.most = most

    def forward(self, places: Tensor, batch: Tensor) -> tuple[Tensor, Tensor]:
        apart = (places[:, None] - places[None]).pow(2).sum(-1).sqrt()
        near = (apart < self.most) & (batch[:, None] == batch[None]) & ~torch.eye(len(places), dtype=torch.bool)
        edges = near.nonzero().t()
        return edges, (places[edges[0]] - places[edges[1]]).pow(2).sum(-1).sqrt()
