"""Random programs, captured and loaded again, against eager mode; and those that were once captured wrong."""

from __future__ import annotations

from collections import Counter
from random import Random

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from torch import Tensor

import hybridjit as hj
from tests.fuzz.compare import Outcome, compare
from tests.fuzz.language import Block, Branching, Cond, Fori, If, Op, Test, Type
from tests.fuzz.programs import Program, generate, programs

EXAMPLES = 220
"""Takes less than a minute on two cores; `python -m benchmarks.fuzz` runs as many as one has time for."""


@hypothesis.settings(max_examples=EXAMPLES, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(programs, st.integers(0, 2**31 - 1))
def test_a_program_is_right_or_refused(program: Program, seed: int) -> None:
    """The loaded file gives what eager mode gives on inputs that take every branch, or says that it can't."""
    outcome = compare(program, seed, gradients=seed % 4 == 0)
    assert not outcome.defect, f"{outcome.kind}: {outcome.detail}"


def test_most_programs_are_right() -> None:
    """The programs are not so odd that nothing is compared: most are right, many sides are taken."""
    outcomes = [compare(generate(Random(f"few-{number}")), number) for number in range(60)]
    kinds = Counter(outcome.kind for outcome in outcomes)
    assert kinds["right"] >= 40
    assert sum(outcome.sides for outcome in outcomes) >= 100


def test_what_programs_leave_behind() -> None:
    """Attributes and items that sides leave behind are right on each path, or refused, or raise."""
    outcomes = [compare(generate(Random(f"1-{number}"), leaving=True), number) for number in range(50)]
    assert not [f"{number}: {each.detail}" for number, each in enumerate(outcomes) if each.defect]
    assert Counter(outcome.kind for outcome in outcomes)["right"] >= 25


ROWS, SCALAR = Type("rows", torch.float32), Type("scalar", torch.float32)
COPY = Op("copy", lambda m, x: x * 1, (1,))


def program(*body: object, results: tuple[int, ...] = (-1,), takes: tuple[Type, ...] = (ROWS,)) -> Program:
    return Program(Block(tuple(body), results), {}, takes)


def side(*body: object, results: tuple[int, ...] = (-1,)) -> Block:
    return Block(tuple(body), results, "bare")


WRONG = Cond(
    Test("sum", 1), (side(Op("up", lambda m, x: x + 1 + (0.5 if hj.is_tracing() else 0), (1,))), side(COPY))
)  # a function that does something else in a trace, which nobody can capture


@pytest.mark.parametrize("seed", range(3))
def test_a_wrong_capture_is_found(seed: int) -> None:
    """The comparison itself can fail: a program that is another one in a trace is wrong."""
    outcome = compare(program(WRONG), seed)
    assert (outcome.kind, outcome.defect) == ("wrong", True)
    assert "result: " in outcome.detail


def test_a_wrong_gradient_is_found() -> None:
    """A value that is right with a gradient that is not is found too."""

    class Half(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, *gradients: Tensor) -> Tensor:
            return gradients[0] / 2

    odd = Op("half", lambda m, x: x * 2 if hj.is_tracing() else Half.apply(x), (1,))
    assert compare(program(odd), 0).kind == "right"
    assert compare(program(odd), 0, gradients=True).kind == "wrong"


def test_a_check_that_does_not_raise_is_found() -> None:
    """An assertion of eager mode that the capture lost is wrong, not lenient."""

    def asserted(m: object, x: Tensor) -> Tensor:
        assert hj.is_tracing() or x.shape[0] < 4, "the check of a program"
        return x * 2

    assert compare(program(Op("asserted", asserted, (1,))), 0).kind == "wrong"


def test_what_is_refused_is_no_defect() -> None:
    """An in-place write to a captured tensor is refused, and a side that fails on the example is loud or right."""
    write = Op("add_", lambda m, x: x.add_(1), (1,))
    assert compare(program(Cond(Test("sum", 1), (side(write), side(COPY)))), 0) == Outcome(
        "refused", compare(program(Cond(Test("sum", 1), (side(write), side(COPY)))), 0).detail, 2
    )
    index = Op("third", lambda m, x: x[2:3] * x[2], (1,))
    kinds = {compare(program(Cond(Test("size", 1, 2), (side(index), side(COPY)))), seed).kind for seed in range(6)}
    assert kinds == {"loud", "right"}


# Programs that were once captured wrong, by the number under which `benchmarks.fuzz --seed 0` found them.
FOUND = {
    "dead loops in nested blocks had no body to load": (6, 50, 3035, 5015, 7045),
    "a loop that raises without rounds could not be printed": (4057, 6023),
    "a module called again on its own result": (7001,),
    "nested decorated functions are made anew by each run": (10010, 10101),
    "a scan asks for sizes before it is one operation of a path": (10708, 10761, 10227),
    "a loop of no rounds gave its block the memory of a tensor from outside": (1578, 5677, 8563),
    "values of a side that was recorded and dropped": (59,),
}


@pytest.mark.parametrize("name", FOUND)
def test_found_before(name: str) -> None:
    """Each is right or refused by now."""
    for number in FOUND[name]:
        outcome = compare(generate(Random(f"0-{number}")), number, gradients=True)
        assert not outcome.defect, f"{number}: {outcome.kind}: {outcome.detail}"
        assert "does not do the same" not in outcome.detail


def test_a_loop_in_a_path_and_a_write_after_it() -> None:
    """The smallest of the last kind: the write is refused, where the graph had been out of order."""
    loop = Fori(0, ("int", 0), (0, 2), Block((), (0, 2)), "list")
    write = Op("add_", lambda m, x: x.add_(2), (2,))
    paths = Branching(side(If(Test("sum", 1), (side(COPY), side(loop, write, COPY)))))
    outcome = compare(program(paths, takes=(ROWS, SCALAR)), 1)
    assert outcome.kind == "refused" and "changes a tensor in place" in outcome.detail
