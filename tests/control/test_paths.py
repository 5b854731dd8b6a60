"""Runs along paths: their limit, loops over tensors, and functions that do not do the same again."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import CaptureError
from hybridjit._sites import Site
from hybridjit.control.paths import refuse_while
from hybridjit.control.runs import copied
from tests.control.checks import check, kinds, lines, traced

UP, DOWN = torch.arange(1.0, 4.0), -torch.arange(1.0, 4.0)


@hj.branch_if_tracing
def many(x: Tensor, ifs: int) -> Tensor:
    for k in range(ifs):
        x = x * 2 if x.sum() > k else x - 1
    return x


def test_the_limit_of_paths() -> None:
    """64 paths are recorded; more are refused with the line of each if and how many paths it parts."""
    module = torch.jit.trace(lambda x: many(x, 6), UP.clone(), check_trace=False)
    assert kinds(module.graph)["prim::If"] == 63
    assert torch.equal(module(DOWN), many(DOWN, 6))
    with pytest.raises(CaptureError) as error:
        traced(lambda x: many(x, 7), UP)
    line = many.__wrapped__.__code__.co_firstlineno + 3  # type: ignore[attr-defined]
    assert lines(error) == [
        "many has more than 64 paths",
        f"  at tests/control/test_paths.py:{line}",
        f"  - tests/control/test_paths.py:{line}: an if that parts 64 paths",
        "  write instead: a function of its own with @branch_if_tracing around each if, so that its paths meet again "
        "before the next one, or hj.cond",
        "  see docs/errors.md#too-many-paths",
    ]


@hj.branch_if_tracing
def endless(x: Tensor) -> Tensor:
    n = x.sum() * 0
    while x.abs().sum() > 1 and n < 5:
        x, n = x / 2, n + 1
    return x  # fmt: skip


def test_a_while_over_a_tensor_is_refused() -> None:
    """With the condition as written, and the loop to write."""
    with pytest.raises(CaptureError) as error:
        traced(endless, UP)
    line = endless.__wrapped__.__code__.co_firstlineno + 4  # type: ignore[attr-defined]
    what, where, *rest = lines(error)
    assert what == "a while loop over a tensor's value can't be unrolled into paths"
    assert re.fullmatch(rf"  at tests/control/test_paths.py:({line}|{line - 1}|{line + 1})", where)
    assert rest == [
        "  - while x.abs().sum() > 1 and n < 5:",
        "  write instead: state = hj.while_loop(",
        "        lambda state: x.abs().sum() > 1 and n < 5,  # in terms of state",
        "        lambda state: (...,),  # the loop's body, returns the new state",
        "        (state,),",
        "    )",
        "  see docs/errors.md#loops-over-tensors",
    ]


def test_other_loops_are_not_refused() -> None:
    """A while that counts, and a line that is no while, have an end."""
    refuse_while(Site(__file__, 1))
    refuse_while(Site("<notebook>", 3))

    @hj.branch_if_tracing
    def counted(x: Tensor) -> Tensor:
        n = 0
        while n < 3:
            x = x + n if x.sum() > 0 else x - n
            n += 1
        return x

    check(counted, UP, DOWN)


def test_a_function_that_does_not_do_the_same_again() -> None:
    """A cache filled by the first run makes the second another one, which is refused."""
    box: dict[str, Any] = {}

    class Cache:
        value: Any = None

    def forward(x: Tensor) -> Tensor:
        @hj.branch_if_tracing
        def path(x: Tensor) -> Tensor:
            if Cache.value is None:
                Cache.value = x.exp()
            y = x * 2
            return y if y.sum() > 0 else -y

        return path(x)

    assert not box
    with pytest.raises(CaptureError) as error:
        traced(forward, UP)
    what, where, *rest = lines(error)
    assert what.endswith("path does not do the same when it runs again")
    assert where.startswith("  at tests/control/test_paths.py:")
    assert rest == [
        "  - first exp, then mul",
        "  write instead: a function that does the same on the same tensors: no caches that its first run fills, "
        "no iterator that its first run uses up",
        "  see docs/errors.md#paths-that-differ",
    ]


def test_a_predicate_of_several_elements_is_torchs_own_error() -> None:
    """An if over many elements raises what it raises in eager mode."""
    several = hj.branch_if_tracing(lambda x: x + 1 if x > 0 else x)
    for attempt in (several, lambda x: traced(several, x)):
        with pytest.raises(RuntimeError, match="Boolean value of Tensor with more than one value is ambiguous"):
            attempt(UP)


def test_a_constants_truth_is_no_branch() -> None:
    """A tensor that the trace takes for a constant is decided where it stands."""
    flag = torch.tensor(True)
    forward = hj.branch_if_tracing(lambda x: x + 1 if flag else x)
    module = torch.jit.trace(forward, UP.clone(), check_trace=False)
    assert kinds(module.graph) == {"prim::Constant": 2, "aten::add": 1}


def test_what_the_model_catches() -> None:
    """An except clause around an if, also a bare one, does not end the search for paths."""

    @hj.branch_if_tracing
    def caught(x: Tensor) -> Tensor:
        try:
            if x.sum() > 0:
                raise ValueError("up")
            y = x * 3
        except Exception:
            y = x * 5
        return y

    check(caught, UP, DOWN)


def test_a_generator_and_a_sorted_list() -> None:
    """Paths of Python code that compares tensors: sorting, any, all, max, filter."""

    @hj.branch_if_tracing
    def ordered(x: Tensor) -> Any:
        parts = sorted([x[0], x[1] * -1], key=lambda v: v)
        best = max(parts)
        some = any(v > 1 for v in parts)
        return best * 10 if some and all(v < 3 for v in parts) else best - 10

    check(ordered, UP, DOWN, torch.tensor([5.0, -0.5, 0]))


def test_containers_of_an_earlier_run_are_copied() -> None:
    """A list that an operation gave is each run's own; a size and a tensor are handed on."""
    parts = [UP, (DOWN, {"a": UP})]
    again = copied(parts)
    assert again is not parts and again[0] is UP and again[1][1]["a"] is UP
    assert copied(UP) is UP and copied(UP.shape) is not None

    @hj.branch_if_tracing
    def changed(x: Tensor) -> Tensor:
        rows = list(x.split(1))
        first = x.split(1)
        rows.pop()
        if x.sum() > 0:
            rows.append(first[0] * 2)
        else:
            rows.insert(0, first[1] * 3)
        return torch.cat(rows)

    check(changed, UP, DOWN)


@pytest.mark.parametrize("what", ["cond", "scan", "while", "scripted", "branching"])
def test_what_stands_before_an_if_is_one_operation(what: str) -> None:
    """A branch, a loop, a scripted piece and a decorated function are given again, not recorded again."""

    @hj.script_if_tracing
    def scripted(x: Tensor) -> Tensor:
        return x * 2 if bool(x.sum() > 1) else x

    @hj.branch_if_tracing
    def path(x: Tensor) -> Tensor:
        @hj.branch_if_tracing
        def branching(x: Tensor) -> Tensor:
            return x * 2 if x.sum() > 1 else x

        made: dict[str, Any] = {
            "cond": lambda: hj.cond(x.sum() > 1, lambda: x * 2, lambda: x),
            "scan": lambda: hj.scan(lambda c, v: (c + v, c), x.sum(), x)[1],
            "while": lambda: hj.while_loop(lambda y: y.sum() > 1, lambda y: (y / 2,), (x,))[0],
            "scripted": lambda: scripted(x),
            "branching": lambda: branching(x),
        }
        y = made[what]()
        y = y + 1 if y.sum() > 0 else y - 1
        return y * 3 if y.max() > 2 else y

    check(path, UP, DOWN, UP / 10)
    module = torch.jit.trace(path, UP.clone(), check_trace=False)
    loops = {"scan": 1, "while": 1}.get(what, 0)
    assert kinds(module.graph)["prim::Loop"] == loops


class Selected:
    """What a selection gives, as graph libraries return it: no pytree."""

    def __init__(self, chosen: Tensor, scores: list[Tensor]) -> None:
        self.chosen = chosen
        self.scores = scores


def test_a_result_is_an_object() -> None:
    """An object of the model's own class that holds tensors is a result like any other."""

    @hj.branch_if_tracing
    def select(x: Tensor) -> Selected:
        if x.sum() > 0:
            return Selected(x * 2, [x + 1])
        return Selected(x * 3, [x - 1])

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            found = select(x)
            return found.chosen + found.scores[0]

    model, x = Model().eval(), torch.ones(3)
    traced = torch.jit.trace(model, x)
    for each in (x, -x):
        torch.testing.assert_close(traced(each), model(each))


@hj.branch_if_tracing
def broadcast(x: Tensor, y: Tensor) -> Tensor:
    if x.shape[0] == y.shape[0] or y.shape[0] == 1:
        return x + y
    elif y.shape[0] == 3:
        raise ValueError("three")
    else:
        raise KeyError("others")


@hj.branch_if_tracing
def in_turn(x: Tensor, y: Tensor) -> Tensor:
    for at in range(2):
        if x.shape[at] == y.shape[at] or x.shape[at] == 1 or y.shape[at] == 1:
            continue
        raise ValueError("they do not fit")
    return x + y


@pytest.mark.parametrize("fn", [broadcast, in_turn])
def test_what_is_asked_before_a_side_raises(fn: Any) -> None:
    """Where the example would raise on a side that it does not take, the other answers there count, too."""
    x = torch.ones(2, 4)
    module = torch.jit.trace(lambda x, y: fn(x, y), (x, 2 * x), check_trace=False)
    for shape in ((2, 4), (1, 4), (3, 4), (4, 4), (2, 1), (1, 1), (5, 1)):
        y = torch.rand(shape)
        try:
            expected = fn(x, y)
        except (ValueError, KeyError, RuntimeError) as error:
            says = f"{type(error).__name__}: {error}" if not isinstance(error, RuntimeError) else "size of tensor"
            with pytest.raises((RuntimeError, torch.jit.Error), match=re.escape(says)):
                module(x, y)
        else:
            torch.testing.assert_close(module(x, y), expected)


def test_what_an_attempt_left_is_forgotten() -> None:
    """A side that was tried with another example, and is none, leaves nothing behind; see `Ends`."""

    class Fills(nn.Module):
        def forward(self, x: Tensor, found: dict[str, Tensor]) -> Tensor:
            if x.sum() > 0:
                found["y"] = x * 2
            else:
                if x.shape[0] < 3:
                    raise ValueError("few")
                found["y"] = x * 3
            return found["y"] + found["x"]

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Fills()

        def forward(self, x: Tensor) -> Any:
            return self.part(x, {"x": x + 1})

    model, few, many = Model().eval(), torch.ones(2), -torch.ones(5)
    for given, other in ((few, many), (many, few)):
        exported = hj.export(model, given, branches="auto", check_inputs=[other])
        for x in (few, many, -many):
            torch.testing.assert_close(exported(x), model(x))
        with pytest.raises(hj.GuardError, match="few"):
            exported(-few)
