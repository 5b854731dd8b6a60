"""`script_if_tracing` under torch.export: the pieces' branches and loops as torch's own operators."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from functorch.compile import aot_function, make_boxed_func  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.export import Dim

import hybridjit as hj


class Program(nn.Module):
    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Any:
        return self.fn(x)


class Found(NamedTuple):
    value: Tensor
    rounds: int
    gap: float


@hj.script_if_tracing
def sides(x: Tensor, n: int) -> Tensor:
    if x.shape[0] == 0:
        return x.new_zeros(0, 2)
    if x.sum() > 0:
        y = x * 2
        n = n + 1
    else:
        y = x - n
    return y * (0.5 if n > 2 else 1.5)


@hj.script_if_tracing
def at_most(x: Tensor, n: int) -> Tensor:
    if x.shape[0] > n:
        x = x[:n]
    return x


@hj.script_if_tracing
def root(x: Tensor) -> Found:
    y = x.clone()
    rounds = 0
    gap = 1.0
    while gap > 1e-3 and rounds < 50:
        new = 0.5 * (y + x / y)
        gap = float((new - y).abs().max())
        y = new
        rounds += 1
    return Found(y, rounds, gap)


@hj.script_if_tracing
def counted(x: Tensor) -> Tensor:
    y = x
    for i in range(int(x.max())):
        y = y + i
        if y.sum() > 100:
            break
    kept: list[Tensor] = []
    for i in range(3):
        kept.append(y[i % 2])
    return torch.stack(kept)


@hj.script_if_tracing
def spread(x: Tensor, threshold: float, extra: Tensor | None = None) -> Tensor:
    order = x[:, 0].argsort(dim=0, descending=True, stable=True)
    rows = x[order]
    alive = torch.ones(rows.shape[0], dtype=torch.bool)
    kept = torch.zeros(rows.shape[0], dtype=torch.bool)
    while bool(alive.any()):
        best = alive.int().argmax()
        kept = kept | (torch.arange(rows.shape[0]) == best)
        alive = alive & ((rows - rows[best]).abs().sum(1) > threshold)
    found = order[kept]
    return found if extra is None else found + extra


@hj.script_if_tracing
def scaled(x: Tensor) -> tuple[Tensor, list[Tensor]]:
    best = float(x.max())
    if best > 1.0:
        best = best * 2
    low = min(best, 4.0)
    halves = [x / low, x + best]
    return x * best, halves


@hj.script_if_tracing
def grows(x: Tensor) -> Tensor:
    kept = [x[:0]]
    while x.numel() > 0:
        kept.append(x[:1])
        x = x[x < x.max()]
    return torch.cat(kept)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.layer(x)
        return x[:, :2]


def ramp(rows: int, columns: int = 2, start: float = 0.5) -> Tensor:
    return start + torch.arange(rows * columns, dtype=torch.float32).reshape(rows, columns) * 0.7 % 1.9


PIECES: dict[str, tuple[Callable[[], nn.Module], list[Tensor]]] = {
    "sides": (lambda: Program(lambda x: sides(x, 2)), [ramp(3), -ramp(5), ramp(0), ramp(1)]),
    "sizes": (lambda: Program(lambda x: at_most(x, 3).relu()), [ramp(5), ramp(2), ramp(9), ramp(1), ramp(0)]),
    "while": (lambda: Program(root), [ramp(3), ramp(5) * 90, torch.ones(2, 2)]),
    "for and break": (lambda: Program(counted), [ramp(3) * 5, -ramp(5), ramp(3) * 40]),
    "a mask": (lambda: Program(lambda x: spread(x, 1.0)), [ramp(5), ramp(1), ramp(0), ramp(19)]),
    "numbers": (lambda: Program(scaled), [ramp(3), ramp(5) * 4, ramp(2) / 9]),
    "a method": (lambda: Head(), [ramp(3, 4), -ramp(3, 4), ramp(7, 4)]),
}


@pytest.mark.parametrize("name", PIECES)
@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_pieces(name: str, format: str) -> None:
    """A file of a piece gives what eager mode gives, on the sides, at the rounds and sizes that no example took."""
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    build, (first, *others) = PIECES[name]
    model = build().eval()
    exported = hj.export(model, first, format=format, check_inputs=others[:1])
    assert [piece.name for piece in exported.report.scripted]
    if format == "onnx":
        assert "made by torch.export" in exported.report.findings[-1].message
    for x in others:
        with torch.no_grad():
            torch.testing.assert_close(exported(x), model(x))


def test_operators() -> None:
    """What hangs on data is a branch or a loop of torch's own in the program; what does not is unrolled."""
    shapes = ({0: Dim.AUTO},)
    program = torch.export.export(Program(counted), (ramp(3) * 5,), dynamic_shapes=(shapes[0],), strict=False)
    assert len(re.findall(r"higher_order\.while_loop\(", str(program))) == 1
    assert "higher_order.cond" not in str(program)  # `and`, and the condition of the break, are plain logic
    program = torch.export.export(Program(lambda x: sides(x, 2)), (ramp(3),), dynamic_shapes=shapes, strict=False)
    assert "higher_order.cond" in str(program)


@hj.script_if_tracing
def turned(x: Tensor) -> Tensor:
    if x.sum() > 0:
        return x * x
    return x.sin()


def test_gradients() -> None:
    """A piece in a program that AOT makes, with its backward, has eager mode's gradients on the other side, too."""
    compiled = aot_function(lambda x: turned(x).sum(), lambda graph, _: make_boxed_func(graph))
    for sign in (1.0, -1.0):
        x = (sign * ramp(3)).requires_grad_()
        (wanted,) = torch.autograd.grad(turned(x).sum(), x)
        (got,) = torch.autograd.grad(compiled(x), x)
        torch.testing.assert_close(got, wanted)


def test_fake_tensors() -> None:
    """On fake tensors a piece gives the size that only data tell as one that is not known."""
    from torch._subclasses.fake_tensor import FakeTensorMode  # what users of fake tensors have
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    with FakeTensorMode(shape_env=ShapeEnv()):
        found = spread(torch.empty(4, 2), 1.0)
    assert isinstance(found.shape[0], torch.SymInt)


def test_growing_list_is_refused_with_its_line() -> None:
    """A loop that appends as often as the data say is refused, with the line of the piece and what to write."""
    with pytest.raises(hj.UnsupportedError) as caught:
        hj.export(Program(grows).eval(), ramp(4, 1)[:, 0], format="pt2")
    text = str(caught.value)
    line = inspect.unwrap(grows).__code__.co_firstlineno + 4
    assert f"test_lower_script.py:{line}" in text
    assert "kept.append(x[:1])" in text and "a mask" not in text
    assert "write instead: a tensor of the largest size" in text


@hj.script_if_tracing
def checked(x: Tensor) -> Tensor:
    assert bool(x.sum() > 0), "nothing there"
    return x * 2


def test_a_raise_stays() -> None:
    """A raise on one side of a branch is an assertion in the program, with its message."""
    exported = hj.export(Program(checked).eval(), ramp(3), format="pt2")
    torch.testing.assert_close(exported(ramp(5)), ramp(5) * 2)
    with pytest.raises(Exception, match="nothing there"):
        exported(-ramp(5))


def test_python_where_torchscript_does_not_compile() -> None:
    """A piece that TorchScript does not compile runs as Python, whose sizes torch.export may fix."""

    @hj.script_if_tracing
    def piece(x: Tensor, *rest: Tensor) -> Tensor:
        return sum((each for each in rest), x) if x.shape[1] == 2 else x

    exported = hj.export(Program(lambda x: piece(x, x)).eval(), ramp(3), format="pt2")
    torch.testing.assert_close(exported(ramp(5)), ramp(5) * 2)
