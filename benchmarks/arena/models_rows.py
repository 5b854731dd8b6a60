"""Models that go through the rows of a tensor, the steps of a text or the nodes of each graph."""

import torch

from hybridjit import Inputs

from .cases import Case, case
from .make import configured, ids, library, mask
from .models_audio import _WAVES, _waves
from .models_graphs import _batches, _graphs, _sequential


@case("transformers")
def rwkv() -> Case:
    """A recurrence in Python, one step for each token."""
    settings = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 32}
    model = configured("RwkvForCausalLM", "RwkvConfig", **settings)

    def call(batch: int, length: int) -> Inputs:
        return Inputs(input_ids=ids(batch, length), use_cache=False)

    return Case(model, call(2, 6), {"longer": call(1, 9), "shorter": call(2, 3), "one token": call(1, 1)})


@case("transformers")
def wav2vec2_speaker() -> Case:
    """Means over as much of each sound as its mask has."""
    settings = {"tdnn_dim": (16, 16, 16), "tdnn_kernel": (3, 3, 1), "tdnn_dilation": (1, 2, 1), "num_labels": 3}
    return _waves(configured("Wav2Vec2ForXVector", "Wav2Vec2Config", **_WAVES, **settings, xvector_output_dim=8))


@case("transformers")
def decision() -> Case:
    """Turns of states, actions and rewards, interleaved."""
    settings = {"state_dim": 5, "act_dim": 3, "hidden_size": 32, "max_ep_len": 50, "n_layer": 2, "n_head": 4}
    model = configured("DecisionTransformerModel", "DecisionTransformerConfig", **settings)

    def call(batch: int, length: int, *padded: int) -> Inputs:
        return Inputs(
            states=torch.randn(batch, length, 5),
            actions=torch.randn(batch, length, 3),
            rewards=torch.randn(batch, length, 1),
            returns_to_go=torch.randn(batch, length, 1),
            timesteps=torch.arange(length).repeat(batch, 1),
            attention_mask=mask(batch, length, *padded),
        )

    return Case(model, call(1, 6), {"longer": call(1, 11), "padded": call(2, 6, 0, 3), "one": call(1, 1)})


@case("torch_geometric")
def lstm_aggregation() -> Case:
    """The nodes of each graph as a sequence, as long as the largest graph."""
    aggregation = library("torch_geometric.nn").LSTMAggregation(8, 8)
    return _batches(_sequential("x, edges, batch", (aggregation, "x, batch -> x")))


@case("torch_geometric")
def set_transformer() -> Case:
    aggregation = library("torch_geometric.nn").SetTransformerAggregation(8, num_seed_points=2, heads=2)
    return _batches(_sequential("x, edges, batch", (aggregation, "x, batch -> x")))


@case("torch_geometric")
def attentive_fp() -> Case:
    model = library("torch_geometric.nn").AttentiveFP(8, 8, 3, 4, 2, 2).eval()

    def call(*counts: int) -> Inputs:
        x, edges, batch = _graphs(*counts)
        return Inputs(x, edges, torch.randn(edges.shape[1], 4), batch)

    return Case(model, call(7, 5), {"one graph": call(9), "three": call(4, 8, 3), "other edges": call(7, 5)})
