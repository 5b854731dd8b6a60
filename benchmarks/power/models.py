"""The models whose files are broken, each with its check inputs and with further inputs at random."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import hybridjit as hj
from examples.decoder.model import build as build_decoder
from examples.faces.export import check_pictures
from examples.faces.model import DATA, read_image
from examples.faces.model import build as build_faces
from examples.routing.cases import CASES, Case


@dataclass(frozen=True)
class Subject:
    """A model, the calls that its file is made and verified with, and calls that nobody gave.

    Attributes:
        name: What it is called.
        build: Makes it, in eval mode.
        calls: The first input, then the check inputs.
        draw: Draws a further input.
        methods: Calls of further methods.
        further: Calls of these that nobody gave.
        most: How many further inputs are drawn; a slow model takes fewer.
    """

    name: str
    build: Callable[[], nn.Module]
    calls: Callable[[nn.Module], Sequence[Any]]
    draw: Callable[[torch.Generator], Any]
    methods: Mapping[str, Any] = field(default_factory=dict)
    further: Mapping[str, Any] = field(default_factory=dict)
    most: int = 1000

    def export(self, model: nn.Module) -> hj.Exported:
        first, *others = self.calls(model)
        return hj.export(model, first, check_inputs=others, methods=self.methods, devices=["cpu"])


class Pictures(nn.Module):
    """A convolutional network with two results."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.score = nn.Linear(8 * 4, 5)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = nn.functional.relu(self.norm(self.first(images)))
        x = nn.functional.max_pool2d(x, 2)
        x = x + nn.functional.interpolate(self.second(x), size=(x.shape[2], x.shape[3]), mode="nearest")
        pooled = nn.functional.adaptive_avg_pool2d(x, (2, 2)).reshape(images.shape[0], -1)
        return self.score(pooled).softmax(-1), x.amax((2, 3))


class Words(nn.Module):
    """Masked attention over sentences, given and returned as a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.query, self.key, self.value = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 12)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        words, mask = batch["words"], batch["mask"]
        x = self.embed(words)
        places = torch.arange(words.shape[1], device=words.device, dtype=x.dtype)
        x = x + torch.sin(places[:, None] * 0.3 + torch.arange(12, device=words.device) / 7)
        scores = (self.query(x) @ self.key(x).transpose(1, 2)) / 12**0.5
        scores = scores.masked_fill(~mask[:, None], -1e4)
        x = scores.softmax(2) @ self.value(x)
        mean = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        return {"words": x, "mean": mean, "count": mask.sum(1)}


class Signals(nn.Module):
    """A filter along time by `hj.scan`, and a branch for loud signals."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)
        self.loud, self.quiet = nn.Linear(4, 4), nn.Linear(4, 4)

    @hj.branch_if_tracing
    def forward(self, signal: Tensor) -> tuple[Tensor, Tensor]:
        start = signal.new_zeros(signal.shape[1])

        def step(carry: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            carry = torch.tanh(self.mix(carry) + x)
            return carry, carry * 2 - x

        last, every = hj.scan(step, start, signal)
        if signal.abs().sum() > 10:
            return self.loud(every), last
        return self.quiet(every) - 1, last


@hj.script_if_tracing
def windows(x: Tensor, size: int, most: int) -> Tensor:
    """The means of windows along a signal, as many as there are, at most `most`."""
    found = [x[:0]]
    start = 0
    while start < x.shape[0] and len(found) <= most:
        found.append(x[start : start + size].mean(0, keepdim=True))
        start += size
    made = torch.cat(found)
    if made.shape[0] == 0:
        made = torch.zeros([1], dtype=x.dtype, device=x.device)
    return made


class Grid(nn.Module):
    """Places and windows, without weights: takes any floating point."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        height, width = x.shape
        rows = torch.arange(height, device=x.device, dtype=x.dtype)
        columns = torch.arange(width, device=x.device, dtype=x.dtype)
        places = torch.stack((rows[:, None].expand(height, width), columns.expand(height, width)), -1)
        near = (places - places.mean((0, 1))).norm(dim=-1) * x
        return near, windows(x.flatten(), 3, 4), torch.full((height, 2), 0.5, dtype=x.dtype, device=x.device) - x[:, :2]


def whole(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=generator))


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


def draw_pictures(generator: torch.Generator) -> Tensor:
    shape = whole(1, 4, generator), 3, whole(2, 20, generator), whole(2, 20, generator)
    return torch.randn(shape, generator=generator)


def draw_words(generator: torch.Generator) -> dict[str, Tensor]:
    b, n = whole(1, 4, generator), whole(1, 10, generator)
    words = torch.randint(0, 20, (b, n), generator=generator)
    return {"words": words, "mask": torch.rand(b, n, generator=generator) > 0.3}


def draw_signal(generator: torch.Generator) -> Tensor:
    return torch.randn(whole(0, 9, generator), 4, generator=generator)


def draw_grid(generator: torch.Generator) -> Tensor:
    x = torch.rand(whole(0, 7, generator), whole(2, 8, generator), generator=generator)
    return x.double() if whole(0, 3, generator) == 0 else x


def draw_face(generator: torch.Generator) -> Tensor:
    picture = check_pictures()["two faces, half the size"]
    top, left = whole(0, 40, generator), whole(0, 40, generator)
    return picture[:, top : top + whole(60, 160, generator), left : left + whole(60, 160, generator)].contiguous()


def draw_prompt(generator: torch.Generator) -> Tensor:
    return torch.randint(0, 1000, (whole(1, 12, generator),), generator=generator)


def drawn(draw: Callable[[torch.Generator], Any], count: int) -> Callable[[nn.Module], list[Any]]:
    def calls(model: nn.Module) -> list[Any]:
        generator = torch.Generator().manual_seed(3)
        return [draw(generator) for _ in range(count)]

    return calls


def faces_calls(model: nn.Module) -> list[Any]:
    pictures = check_pictures()
    names = "two faces, half the size", "no face left after the second network", "smaller than any face"
    small = read_image(DATA / "astronaut.jpg")[:, ::2, ::2][:, :128, 40:168].contiguous()
    none = pictures["no face left after the first network"]
    return [pictures[names[0]], small, pictures[names[1]][:, :90, :120].contiguous(), none, pictures[names[2]]]


def routed(case: Case) -> Subject:
    def calls(model: nn.Module) -> list[Any]:
        return list(case.inputs(model).values())

    return Subject(case.name, case.build, calls, case.draw)


def words_calls(model: nn.Module) -> list[Any]:
    made = drawn(draw_words, 4)(model)
    return [*made, {"words": made[0]["words"][:0], "mask": made[0]["mask"][:0]}]


def signal_calls(model: nn.Module) -> list[Any]:
    made = drawn(draw_signal, 3)(model)
    return [
        torch.linspace(-1, 1, 12).reshape(3, 4),
        torch.full((5, 4), 2.0) + torch.arange(4),
        *made,
        torch.zeros(0, 4),
    ]


def grid_calls(model: nn.Module) -> list[Any]:
    return [
        torch.rand(3, 5),
        torch.rand(6, 4),
        torch.rand(1, 2),
        torch.rand(4, 3).double(),
        torch.rand(0, 3),
        torch.rand(0, 2).double(),
    ]


def prompts(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [draw_prompt(generator) for _ in range(count)]


PROMPT = torch.arange(5) + 1
SUBJECTS = (
    Subject("faces", build_faces, faces_calls, draw_face, most=30),
    *map(routed, CASES),
    Subject(
        "decoder",
        build_decoder,
        lambda model: [PROMPT, PROMPT[:1], torch.arange(9) * 7],
        draw_prompt,
        {"prefill": [(PROMPT,), (PROMPT[:3],)], "decode": [(torch.tensor([7]),), (PROMPT[:2],)]},
        {"prefill": [(each,) for each in prompts(20)], "decode": [(each[:2],) for each in prompts(20)]},
    ),
    Subject("pictures", functools.partial(seeded, Pictures), drawn(draw_pictures, 4), draw_pictures),
    Subject("words", functools.partial(seeded, Words), words_calls, draw_words),
    Subject("signals", functools.partial(seeded, Signals), signal_calls, draw_signal),
    Subject("grid", functools.partial(seeded, Grid), grid_calls, draw_grid),
)
