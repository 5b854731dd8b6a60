"""What may not leave a block, or change in one; what names and lines a graph keeps."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import CaptureError
from hybridjit.control.recorder import active, decision, watching
from tests.control.checks import check, lines, traced

UP, DOWN = torch.ones(3), -torch.ones(3)


def in_cond(change: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def forward(x: Tensor) -> Any:
        y = x * 2

        def side() -> Tensor:
            change(y)
            return y + 0

        return hj.cond(x.sum() > 0, side, lambda: y), y

    return forward


def in_loop(change: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    def forward(x: Tensor) -> Any:
        y = x * 2

        def body(i: Any, c: Tensor) -> Tensor:
            change(y)
            return c + y

        return hj.fori_loop(0, x.shape[0], body, x)

    return forward


def after_a_loop(change: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """A loop of no rounds gives back what it got, which stays a tensor from outside."""

    def forward(x: Tensor) -> Any:
        y = x * 2

        def side() -> Tensor:
            hj.fori_loop(0, 0, lambda i, c: c, y)
            change(y)
            return y + 0

        return hj.cond(x.sum() > 0, side, lambda: y), y

    return forward


def add_assigned(y: Tensor) -> None:
    y += 1


CHANGES: dict[str, Callable[[Tensor], Any]] = {
    "add_": add_assigned,
    "__setitem__": lambda y: y.__setitem__(0, 5),
    "mul_": lambda y: y[1:].mul_(2),
    "zero_": lambda y: y.detach().zero_(),
    "copy_": lambda y: y.view(1, 3).copy_(torch.zeros(1, 3)),
    "add": lambda y: torch.add(y.detach(), 1, out=y.detach()),
    "relu_": lambda y: torch.relu_(y),
}


@pytest.mark.parametrize("place", [in_cond, in_loop, after_a_loop], ids=lambda place: str(place.__name__))
@pytest.mark.parametrize("name", CHANGES)
def test_a_write_to_a_captured_tensor_is_refused(name: str, place: Callable[..., Any]) -> None:
    """In place, by index, through a view or as ``out=``, with the operation and what to write."""
    with pytest.raises(CaptureError) as error:
        traced(place(CHANGES[name]), UP)
    what, where, row, *rest = lines(error)
    assert re.fullmatch(
        r"(true_fn|the body of a loop) \((side|body) at tests/control/test_recorder.py:\d+\) "
        "changes a tensor in place that was made outside of it",
        what,
    )
    assert where.startswith("  at tests/control/test_recorder.py:")
    assert re.fullmatch(rf"  - {name} changes float32\[.*\] cpu", row)
    assert rest == [
        "  write instead: return the new value, and only read what comes from outside:",
        "    y = hj.cond(p, lambda: y + 1, lambda: y)",
        "  see docs/errors.md#branches-that-write",
    ]


def test_a_side_may_change_what_it_made() -> None:
    """In place, through views, and in a branch or a loop of its own what is that one's own."""

    def forward(x: Tensor) -> Any:
        def side() -> Tensor:
            y = x.clone()
            y += 1
            y[0] = 7
            y[1:].mul_(2)
            row = hj.map(lambda v: (v * 2).add_(1), y)
            return row.sub_(1)

        return hj.cond(x.sum() > 0, side, lambda: (x * 3).neg_())

    check(forward, UP, DOWN)


def test_a_write_before_and_after_a_branch() -> None:
    """What the code around a branch changes in place is seen in it, and a result may be changed after it."""

    def forward(x: Tensor) -> Any:
        y = x * 2
        y[0] = 9
        z = hj.cond(y.sum() > 8, lambda: y + 1, lambda: y)
        z.add_(1)
        return z, y

    check(forward, UP, DOWN)


def kept(box: list[Tensor], value: Tensor, result: Tensor) -> Tensor:
    box.append(value)
    return result


def smuggled_list(x: Tensor) -> Any:
    box: list[Tensor] = []
    y = hj.cond(x.sum() > 0, lambda: kept(box, x * 2, x), lambda: x)
    return y + box[0]


def smuggled_attribute(x: Tensor) -> Any:
    holder: Any = nn.Module()

    def side() -> Tensor:
        holder.kept = x * 2
        return x

    return hj.cond(x.sum() > 0, side, lambda: x) + holder.kept


def smuggled_nonlocal(x: Tensor) -> Any:
    last = x

    def body(i: Any, y: Tensor) -> Tensor:
        nonlocal last
        last = y + i
        return last * 2

    return hj.fori_loop(0, 2, body, x) + last


@pytest.mark.parametrize("fn", [smuggled_list, smuggled_attribute], ids=lambda f: str(f.__name__))
def test_a_tensor_that_leaves_a_side_by_the_back_door_is_refused(fn: Callable[[Tensor], Any]) -> None:
    """One side leaves it behind, the other does not."""
    with pytest.raises(
        CaptureError, match=r"leave different things behind[^~]+(box: differs|holder\.kept: float32\[3\] cpu or None)"
    ):
        traced(fn, UP)


@pytest.mark.parametrize("fn", [smuggled_nonlocal], ids=lambda f: str(f.__name__))
def test_a_tensor_that_leaves_by_the_back_door_raises(fn: Callable[[Tensor], Any]) -> None:
    """It can't be known outside, and the file says so when it is used."""
    loaded = traced(fn, UP)
    for x in (UP, DOWN):
        with pytest.raises(RuntimeError) as error:
            loaded(x)
        assert re.search(
            r"hybridjit: a tensor made inside (true_fn|the body of a loop) "
            r"\(\S+ at tests/control/test_recorder.py:\d+\) is used outside of it; return it instead",
            str(error.value),
        )


def test_a_tensor_that_leaves_and_is_not_used() -> None:
    """The last of something, which nobody reads, does no harm, and leaves no trace in the graph."""
    box: list[Any] = [None]

    def body(i: Any, y: Tensor) -> Tensor:
        box[0] = y * 2
        return y + i

    forward = lambda x: hj.fori_loop(0, 2, body, x)  # noqa: E731
    check(forward, UP, DOWN)
    module = torch.jit.trace(forward, UP.clone(), check_trace=False)
    assert "hybridjit: " not in str(module.graph).replace("/hybridjit/", "")
    assert "DictConstruct" not in str(module.graph)


def test_a_log_of_each_round() -> None:
    """A list that grows with each round has as many items as the example has rounds: it is refused, read or not."""
    box: list[Tensor] = []
    with pytest.raises(hj.CaptureError, match="box: is changed"):
        torch.jit.trace(lambda x: hj.fori_loop(0, 2, lambda i, y: kept(box, y * 2, y + i), x), UP.clone())


def test_names_and_lines_survive() -> None:
    """A value is called as in the source, and a node knows the line of the model that it comes from."""

    def forward(image: Tensor) -> Tensor:
        brightness = image.sum()

        def bright() -> Tensor:
            dimmed = image / brightness
            return dimmed.sqrt()

        return hj.cond(brightness > 1, bright, lambda: image)

    module = torch.jit.trace(forward, UP.clone(), check_trace=False)
    text = str(module.graph)
    start = forward.__code__.co_firstlineno
    assert re.search(rf"%brightness .* = aten::sum\(%image\S*, .*test_recorder.py:{start + 1}:", text)
    assert re.search(rf"%dimmed .* = aten::div\(%image\S*, %brightness\).*test_recorder.py:{start + 4}:", text)
    assert re.search(rf"aten::sqrt\(%dimmed\).*test_recorder.py:{start + 5}:", text)
    assert "dimmed = torch.div(image, brightness)" in module.code


def test_an_operation_that_raises_leaves_the_trace_as_it_was() -> None:
    """What a side catches, and an index that raised, do not show in what follows."""

    def forward(x: Tensor) -> Any:
        def side() -> Tensor:
            try:
                return x[99]
            except IndexError:
                return x[0]

        return hj.cond(x.sum() > 0, side, lambda: x[1]), x[-1]

    check(forward, UP * torch.arange(3.0), DOWN)


def test_nothing_is_watched_outside_of_blocks() -> None:
    """A recorder lives as long as the outermost branch; after an error in it too."""
    assert active() is None
    with watching() as outer, watching() as inner:
        assert inner is outer is active()
    assert active() is None
    with pytest.raises(CaptureError):
        traced(in_cond(CHANGES["add_"]), UP)
    assert active() is None
    check(lambda x: hj.cond(x.sum() > 0, lambda: x + 1, lambda: x), UP, DOWN)


def test_the_same_sizes_make_the_same_decision() -> None:
    """Comparisons of one size are one decision; of tensors, and of another size, they are their own."""
    found: list[Any] = []
    ask: Any = decision

    def forward(x: Tensor) -> Tensor:
        found.extend(ask(p) for p in (x.shape[0] > 2, x.shape[0] > 2, x.shape[0] > 3, x.sum() > 2, x.sum() > 2))
        return x

    torch.jit.trace(forward, UP.clone(), check_trace=False)
    assert found[0] == found[1]
    assert len(set(found)) == 4


def test_threads_record_their_own_traces() -> None:
    """Traces in several threads at once do not meet."""
    found: dict[int, Any] = {}

    def run(number: int) -> None:
        found[number] = torch.jit.trace(
            lambda x: hj.cond(x.sum() > 0, lambda: x + number, lambda: x - number), UP.clone(), check_trace=False
        )

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, module in found.items():
        assert torch.equal(module(DOWN), DOWN - number)
    assert len(found) == 6
