"""`branch_if_tracing` under torch.export: the paths become torch's own branches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj


class Steps(nn.Module):
    """Ifs of several kinds around submodules."""

    flag: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.register_buffer("flag", torch.ones(()))

    @hj.branch_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        if x.sum() > 0 and not x.max() > 50:
            return h + 1
        if x.min() < -2:
            return self.second(h) * 2
        return h * 2 if self.flag > 0 else self.first(h)


INPUTS = [sign * scale * torch.rand(2, 3) for sign in (1, -1) for scale in (0.5, 5, 100)]


def exported(model: nn.Module, *args: Tensor, **options: Any) -> Any:
    return torch.export.export(model, args, strict=False, **options)


@pytest.mark.parametrize("first", [INPUTS[0], INPUTS[3]])
def test_every_path(first: Tensor) -> None:
    """Whichever input was captured, the program takes every path, and its parameters are the model's own."""
    model = Steps()
    program = exported(model, first)
    assert sorted(program.graph_signature.parameters) == sorted(name for name, _ in model.named_parameters())
    run: Any = program.module()
    for flag in (1.0, -1.0):
        with torch.no_grad():
            model.flag.fill_(flag)
            run.flag.fill_(flag)
        for x in INPUTS:
            torch.testing.assert_close(run(x), model(x))


def test_the_prefix_is_recorded_once() -> None:
    """What comes before an if is not in its sides again."""

    class Prefix(nn.Module):
        @hj.branch_if_tracing
        def forward(self, x: Tensor) -> Tensor:
            y = x.exp().sin()
            if y.sum() > 0:
                return y + 1
            return y - 1

    program = exported(Prefix(), torch.ones(3))
    sides = [str(module.graph) for name, module in program.graph_module.named_children() if "graph" in name]
    assert len(sides) == 2
    assert not any("aten.sin" in side for side in sides) and "aten.sin" in str(program.graph)
    for x in (torch.ones(3), torch.full((3,), 1.4)):
        torch.testing.assert_close(program.module()(x), Prefix()(x))


def test_random_numbers_are_drawn_once() -> None:
    """A side goes on with the numbers that its predicate saw."""

    class Noise(nn.Module):
        @hj.branch_if_tracing
        def forward(self, x: Tensor) -> Tensor:
            noise = torch.rand_like(x)
            if noise.sum() > 1.5:
                return noise
            return -noise

    run = exported(Noise(), torch.ones(3)).module()
    for _ in range(20):
        noise = run(torch.ones(3))
        assert bool(noise.sum() > 1.5) if noise[0] >= 0 else bool(-noise.sum() <= 1.5)


def test_dynamic_sizes() -> None:
    """Paths and dynamic sizes go together."""

    class Scales(nn.Module):
        @hj.branch_if_tracing
        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                return x * x.shape[0]
            return x - 1

    model = Scales()
    program = exported(model, INPUTS[0], dynamic_shapes=({0: torch.export.Dim("n", min=1, max=9)},))
    for count in (1, 5):
        for x in (torch.rand(count, 3), -torch.rand(count, 3) * 5):
            torch.testing.assert_close(program.module()(x), model(x))


def test_a_decided_predicate_stays_decided() -> None:
    """The same tensor asked again parts no further paths."""

    class Twice(nn.Module):
        @hj.branch_if_tracing
        def forward(self, x: Tensor) -> Tensor:
            positive = x.sum() > 0
            if positive:
                x = x + 1
            if positive:
                x = x * 2
            return x

    program = exported(Twice(), torch.ones(3))
    assert str(program.graph_module).count("torch.ops.higher_order.cond") == 1
    for x in (torch.ones(3), -torch.ones(3)):
        torch.testing.assert_close(program.module()(x), Twice()(x))


@hj.branch_if_tracing
def shrink(x: Tensor) -> Tensor:
    while x.sum() > 0:
        x = x - 1
    return x


@hj.branch_if_tracing
def writes(x: Tensor) -> Tensor:
    y = x * 2
    if x.sum() > 0:
        y[0] = 1
    return y


seen: list[int] = []


@hj.branch_if_tracing
def remembers(x: Tensor, kept: list[int]) -> Tensor:
    if x.sum() > 0:
        kept.append(1)
    return x + 1


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (shrink, "a while loop over a tensor's value can't be unrolled into paths"),
        (writes, "in place"),
        (lambda x: remembers(x, seen), "the paths of a function leave different things behind"),
    ],
)
def test_refused_by_name(fn: Any, message: str) -> None:
    """What no branch can be is refused, as in a trace."""

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return fn(x)  # type: ignore[no-any-return]

    with pytest.raises(hj.CaptureError, match=message):
        exported(Model(), torch.ones(3))


def test_dynamo_refuses() -> None:
    """Where Dynamo reads the function, a while over a tensor is refused in the same words."""
    with pytest.raises(Exception, match="a while loop over a tensor's value can't be unrolled into paths"):
        torch.compile(shrink, fullgraph=True, backend="eager")(INPUTS[0])


class Sized(nn.Module):
    """Asks for sizes in every way there is."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Linear(4, 2), nn.Linear(4, 2)

    @hj.branch_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        if not x.shape[0]:
            return x.new_zeros(0, 2) + 1
        if x.shape[0] > 4 or x.numel() == 4:
            x = x[:4]
        found = x[x[:, 0] > 0]
        if found.shape[0] == 0:
            return self.small(x)
        return self.large(found)


@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_ifs_on_sizes(format: str) -> None:
    """An `if` on a size is a branch in a file, at 0, at 1, and where the size hangs on data."""
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = Sized().eval()
    first, *others = [sign * torch.rand(rows, 4) for rows in (3, 0, 1, 4, 9) for sign in (1, -1)]
    exported = hj.export(model, first, format=format, check_inputs=others[:3])
    for x in others:
        with torch.no_grad():
            torch.testing.assert_close(exported(x), model(x))
    assert torch.SymInt.__gt__.__module__ != Sized.__module__ and "lower_paths" not in repr(torch.SymBool.__bool__)


@hj.branch_if_tracing
def appends(x: Tensor, items: list[Tensor]) -> Tensor:
    items.append(x)
    return x * 2 if x.sum() > 0 else x - 1


@hj.script_if_tracing
def scaled(x: Tensor, n: int) -> Tensor:
    return x * n if bool(x.sum() > 0) else x - n


def by_function(x: Tensor, items: list[Tensor]) -> Tensor:
    return appends(x, items)


def by_cond(x: Tensor, items: list[Tensor]) -> Tensor:
    def side(y: Tensor) -> Tensor:
        items.append(x)
        return y * 3 if x.sum() > 4 else y

    return hj.cond(x.sum() > 0, lambda: side(x * 2), lambda: side(x - 1))


def by_script(x: Tensor, items: list[Tensor]) -> Tensor:
    items.append(x)
    return scaled(x, 3)


def by_loop(x: Tensor, items: list[Tensor]) -> Tensor:
    items.append(x)
    (halved,) = hj.while_loop(lambda y: y.sum() > 1, lambda y: (y / 2,), (x,))
    return hj.fori_loop(0, 3, lambda i, y: y + i, halved) + hj.map(lambda row: row * 2, x)


@pytest.mark.parametrize("before", [by_function, by_cond, by_script, by_loop])
def test_branches_and_loops_before_an_if(before: Any) -> None:
    """Each is one operation of the path, and what it leaves behind is there once on each of the later ones."""

    class Model(nn.Module):
        @hj.branch_if_tracing
        def forward(self, x: Tensor) -> Tensor:
            items: list[Tensor] = []
            y: Tensor = before(x, items)
            return y + 10 * len(items) + items[0] if x.mean() > 1 else y

    inputs = [torch.full((3,), value) for value in (1.0, -1.0, 5.0)]
    for first in inputs:
        program: Any = exported(Model(), first.clone()).module()
        for x in inputs:
            torch.testing.assert_close(program(x), Model()(x), rtol=0, atol=0)
