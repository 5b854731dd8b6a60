"""Small models of several kinds, untrained, whose path or sizes depend on the input."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hybridjit as hj


@dataclass(frozen=True)
class Kind:
    """A model, and what makes an input of it from a number of rows and a scale.

    Attributes:
        name: What it is called.
        build: Makes the model.
        draw: An input: the first is of 4 rows and scale 1, others take other sizes and other branches.
        rows: The rows that inputs may have.
    """

    name: str
    build: Callable[[], nn.Module]
    draw: Callable[[int, float], Tensor]
    rows: tuple[int, ...] = (4, 3, 7, 1, 9)


class Table(nn.Module):
    """Rows of a table, outliers clipped."""

    def __init__(self, columns: int = 6, width: int = 16) -> None:
        super().__init__()
        self.norm, self.first, self.last = nn.BatchNorm1d(columns), nn.Linear(columns, width), nn.Linear(width, 2)

    def forward(self, rows: Tensor) -> Tensor:
        rows = hj.cond(rows.abs().amax() > 2, lambda: rows.clamp(-2, 2), lambda: rows)
        scores: Tensor = self.last(self.first(self.norm(rows)).relu())
        return scores


class Pictures(nn.Module):
    """A convolutional classifier that looks twice at dark pictures."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.again, self.head = nn.Conv2d(width, width, 3, padding=1), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.stem(x)).relu()
        y = hj.cond(x.mean() < 0, lambda: self.again(y).relu(), lambda: y)
        scores: Tensor = self.head(F.max_pool2d(y, 2).mean((2, 3)))
        return scores


class Recurrent(nn.Module):
    """A gated cell over a sequence of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(5, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        def step(state: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
            after: Tensor = self.cell(row, state)
            return after, after.sum(1)

        return hj.scan(step, x.new_zeros(2, 8), x)


class Encoder(nn.Module):
    """A transformer layer that sees what is not padding."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(width, heads, 2 * width, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x, src_key_padding_mask=x[..., 0] > 2)
        return y


@hj.script_if_tracing
def apart(boxes: Tensor, distance: float) -> Tensor:
    """The boxes that are far from every better one, of which the first is best."""
    alive = torch.ones(boxes.shape[0], dtype=torch.bool)
    kept = torch.zeros(boxes.shape[0], dtype=torch.bool)
    while bool(alive.any()):
        best = alive.int().argmax()
        kept = kept | (torch.arange(boxes.shape[0]) == best)
        alive = alive & ((boxes - boxes[best]).abs().sum(1) > distance)
    return boxes[kept]


class Suppression(nn.Module):
    """Non-maximum suppression: how many boxes remain hangs on them."""

    def forward(self, boxes: Tensor) -> Tensor:
        return apart(boxes, 2.0)


class Root(NamedTuple):
    """A square root, and how many rounds it took."""

    value: Tensor
    rounds: int


@hj.script_if_tracing
def newton(x: Tensor) -> Root:
    """Newton's method, until it stands still."""
    y = x + 1
    rounds = 0
    gap = 1.0
    while gap > 1e-4 and rounds < 40:
        new = 0.5 * (y + x / y)
        gap = float((new - y).abs().max())
        y = new
        rounds += 1
    return Root(y, rounds)


class Newton(nn.Module):
    """A piece with a loop, whose rounds are a result as well."""

    def forward(self, x: Tensor) -> Root:
        return newton(x)


class Graph(nn.Module):
    """One round of messages between the nodes that are near one another."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.update = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, nodes: Tensor) -> Tensor:
        near = (nodes[:, None] - nodes[None]).abs().sum(2) < 2
        source, target = near.nonzero().unbind(1)
        sent = self.message(torch.cat((nodes[source], nodes[target]), 1))
        received = torch.zeros_like(nodes).index_add(0, target, sent)
        after: Tensor = self.update(torch.cat((nodes, received), 1))
        return after


class Head(nn.Module):
    """What is done depends on how much there is."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Linear(4, 2), nn.Linear(4, 2)

    @hj.branch_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 0:
            return x.new_zeros(0, 2)
        if x.shape[0] > 4:
            x = x[:4]
        y: Tensor = self.large(x) if x.mean() > 0 else self.small(x)
        return y


class Chosen(nn.Module):
    """One of three networks, by what the input is like."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.networks = nn.ModuleList(nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        which = (x.amax() > 1).long() + (x.amax() > 2).long()
        y: Tensor = hj.switch(which, list(self.networks), (x,))
        return y


class Hourglass(nn.Module):
    """Down and up again, to the size it came from."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, width, 3, 2, 1), nn.Conv2d(3 + width, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        small = self.down(x).relu()
        large = F.interpolate(small, size=x.shape[2:], mode="nearest")
        y: Tensor = self.up(torch.cat((x, large), 1))
        return y


class Codebook(nn.Module):
    """The nearest codes, and whether any is far."""

    def __init__(self, codes: int = 10, width: int = 4) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.randn(codes, width))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        distances = torch.cdist(x, self.codes)
        found = distances.argmin(1)
        nearest = self.codes[found]
        return {"codes": found, "quantized": hj.cond(distances.amin(1).amax() > 2, lambda: x, lambda: nearest)}


class Filter(nn.Module):
    """The rows above the mean, sorted: their number hangs on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.score(x).squeeze(1)
        kept = x[scores >= scores.mean()]
        return kept, kept.sum(1).sort(descending=True).values


def noise(*sizes: int) -> Callable[[int, float], Tensor]:
    """Draws normal numbers of so many rows, and these sizes."""

    def draw(rows: int, scale: float) -> Tensor:
        return scale * torch.randn(rows, *sizes, generator=torch.Generator().manual_seed(rows))

    return draw


KINDS = (
    Kind("table", Table, noise(6)),
    Kind("pictures", Pictures, noise(3, 16, 12)),
    Kind("recurrent", Recurrent, noise(2, 5)),
    Kind("encoder", Encoder, noise(5, 8)),
    Kind("nms", Suppression, noise(4)),
    Kind("newton", Newton, lambda rows, scale: noise(3)(rows, scale).abs() + 0.1),
    Kind("graph", Graph, noise(4)),
    Kind("head", Head, noise(4), (4, 3, 7, 1, 0)),
    Kind("chosen", Chosen, noise(4)),
    Kind("hourglass", Hourglass, noise(3, 16, 12)),
    Kind("codebook", Codebook, noise(4)),
    Kind("filter", Filter, noise(4)),
)
