"""What several captures tell of the values that left them."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit._sites import Site
from hybridjit.adapters.inputs import Inputs
from hybridjit.export.capture import capture
from hybridjit.export.kinds import BOOL, ITEM
from hybridjit.export.leaks import Leak
from hybridjit.export.programs import difference
from hybridjit.export.state import ModelState
from hybridjit.export.survey import (
    Seen,
    disjoint,
    exonerated,
    inseparable,
    occurrences,
    same_program,
    values_of,
)


class Scaled(nn.Module):
    """One value that matters, and one that is only looked at."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shown = y.max().item()
        assert shown < 1000
        return x * x.max().item()


def seen(name: str, *inputs: float, model: nn.Module | None = None) -> Seen:
    chosen = model or Scaled()
    tensors = tuple(torch.tensor([value, 1.0]) for value in inputs)
    with torch.no_grad():
        return Seen(name, capture(chosen, Inputs(*tensors), chosen(*tensors), ModelState(chosen)))


def lines(found: object) -> list[int]:
    """The lines of occurrences, counted from the function's own."""
    first = Scaled.forward.__code__.co_firstlineno
    return [each[0][2] - first for each in found]  # type: ignore[attr-defined]


def test_programs_are_grouped() -> None:
    """Captures that compute the same are one group, the first one's first."""
    groups = same_program([seen("a", 2.0, 3.0), seen("b", 5.0, 3.0), seen("c", 2.0, 7.0)])
    assert [[each.name for each in group] for group in groups] == [["a", "c"], ["b"]]
    one, other = (group[0].program for group in groups)
    assert difference(one, one) == "" and difference(one, other).startswith("a constant: ")


def test_a_value_without_a_part_is_exonerated() -> None:
    """One that differs between captures of one program has no part in it; the input that shows it is named."""
    innocent = exonerated(same_program([seen("a", 2.0, 3.0), seen("b", 5.0, 3.0), seen("c", 2.0, 7.0)]))
    assert lines(innocent) == [1] and list(innocent.values()) == ["c"]


def test_without_evidence_nobody_is_exonerated() -> None:
    """One capture tells nothing, and neither does one in which all values are the same."""
    assert exonerated(same_program([seen("a", 2.0, 3.0)])) == {}
    assert exonerated(same_program([seen("a", 2.0, 3.0), seen("b", 2.0, 3.0)])) == {}


def test_a_value_to_go_by_is_guilty() -> None:
    """Captures of two values that Python code may go by are apart, though they compute the same: a third may not."""

    class Stepped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * (x.max().item() // 10)

    model = Stepped()
    groups = same_program([seen(name, value, model=model) for name, value in (("a", 11.0), ("b", 12.0), ("c", 25.0))])
    assert [len(group) for group in groups] == [1, 1, 1]
    assert groups[0][0].program == groups[1][0].program
    assert exonerated(groups) == {}
    (values,) = values_of(groups[0]).values()
    assert values == (11.0,)


def test_programs_that_nothing_tells_apart() -> None:
    """A part that differs without any value having left is found: no guard could stand for it."""

    class Hidden(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            type(self).calls += 1
            return x * self.calls

    model = Hidden()
    groups = same_program([seen("a", 1.0, model=model), seen("b", 1.0, model=model)])
    assert len(groups) == 2 and inseparable(groups)
    assert not inseparable(same_program([seen("a", 2.0, 3.0), seen("b", 5.0, 3.0)]))


def test_occurrences_count() -> None:
    """The second value at one line is another one than the first; so is one of another kind."""
    site = Site("model.py", 3)
    found = occurrences([Leak(ITEM, site, 1.0), Leak(ITEM, site, 2.0), Leak(BOOL, site, True)])
    assert [(key[0], count) for key, count in found] == [(ITEM.what, 0), (ITEM.what, 1), (BOOL.what, 0)]


@pytest.mark.parametrize(
    ("one", "other", "apart"), [((1, 2), (3,), True), ((1, 2), (2,), False), ((), (3,), False), ((1,), (True,), True)]
)
def test_disjoint(one: tuple[object, ...], other: tuple[object, ...], apart: bool) -> None:
    """Only what has values on both sides, and none in common, tells anything apart."""
    assert disjoint(one, other) is apart


def test_a_product_is_not_exonerated() -> None:
    """Two sizes that change together, their product the same, have a part in it all the same."""

    class Area(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / float(x[0].item() * x[1].item())

    def looked_at(name: str, *values: float) -> Seen:
        model, x = Area(), torch.tensor(values)
        with torch.no_grad():
            return Seen(name, capture(model, Inputs(x), model(x), ModelState(model)))

    groups = same_program([looked_at("a", 4.0, 3.0), looked_at("b", 2.0, 6.0), looked_at("c", 8.0, 6.0)])
    guarded = [each for each in groups[0][0].by_occurrence() if each not in exonerated(groups)]
    # Of the two factors both are needed: guarding one of them lets the other pass.
    assert len(guarded) == 2


class Checks(nn.Module):
    """Asks a number only to refuse some of them, beside one that it goes by."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape.numel() == 0:
            raise ValueError("no elements")
        return x * sum([1, 2, 4, 8, 16, 32][: operator.index(x.shape[0])])


def test_what_only_a_check_asks_is_innocent() -> None:
    """A number of which the model makes nothing but an error is not guarded where another one passed."""
    model = Checks().eval()
    exported = hj.export(model, torch.ones(3, 4))
    for x in (torch.ones(3, 4), torch.ones(3, 9)):
        torch.testing.assert_close(exported(x), model(x))
    with pytest.raises(hj.GuardError, match="captured 3"):
        exported(torch.ones(2, 4))
