"""torch.export's vocabulary for sizes, read against a call."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.export import Dim

import hybridjit as hj
from hybridjit.adapters.schema import CallSchema
from hybridjit.export.shapes import Place, Variable, read_shapes

X, Y = torch.ones(3, 4), torch.ones(7)


def forward(x: Tensor, y: dict[str, list[Tensor]], scale: float = 1.0) -> None: ...


def read(given: Any, *args: Any) -> dict[str, Variable]:
    schema, flat = CallSchema.of(inspect.signature(forward), hj.Inputs(*(args or (X, {"a": [Y]}))))
    return {each.name: each for each in read_shapes(schema, flat, given)}


def test_names_and_places() -> None:
    """A `Dim` has all its places, derived ones with their factor; bounds are taken along."""
    batch = Dim("batch", min=2, max=9)
    found = read({"x": {0: batch, 1: Dim.STATIC}, "y": {"a": [(2 * batch + 1,)]}})
    assert found == {"batch": Variable("batch", 3, 2, 9, True, (Place(0, 0), Place(1, 0, 2, 1)))}


@pytest.mark.parametrize("given", [({0: 3}, None), {"x": None, "y": {"a": [None]}}, ((None, 4), {"a": ({},)})])
def test_nothing_dynamic(given: object) -> None:
    """`None`, an int that is the size, and an empty dict declare nothing; by name or by position."""
    assert read(given) == {}


def test_hints() -> None:
    """Equal sizes at one dimension change together; what is `AUTO` may turn out to be fixed."""
    found = read(({0: Dim.AUTO, 1: Dim.DYNAMIC(min=2)}, {"a": [{0: Dim.AUTO}]}), X, {"a": [torch.ones(3)]})
    assert found["x[0]"].places == (Place(0, 0), Place(1, 0))
    assert not found["x[0]"].strict and found["x[1]"].strict and found["x[1]"].least == 2


def test_a_derived_size_stays_possible() -> None:
    """No size is declared at which a derived one would be negative."""
    n = Dim("n")
    assert read({"x": {0: n - 2, 1: n - 1}, "y": None})["n"].least == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (3, "dynamic_shapes: expected a dict by argument or a tuple, got 3"),
        ({"x": None, "y": None, "z": None}, "dynamic_shapes['z']: there is 'x', 'y'"),
        ({"x": None}, "dynamic_shapes['y']: is missing; write None if its sizes are fixed"),
        ((None,), "dynamic_shapes[1]: is missing; write None if its sizes are fixed"),
        ((None, None, None, None), "dynamic_shapes: expected 2 entries, got 4"),
        ({"x": {0: "batch"}, "y": None}, "dynamic_shapes['x'][0]: expected Dim(...), Dim.AUTO, Dim.DYNAMIC, Dim.STATIC,"
         " an int or None, got 'batch'"),
        ({"x": {0: True}, "y": None}, "an int or None, got True"),
        ({"x": {2: None}, "y": None}, "dynamic_shapes['x'][2]: expected a dimension from 0 to 1"),
        ({"x": {"0": None}, "y": None}, "dynamic_shapes['x']['0']: expected a dimension from 0 to 1"),
        ({"x": (None,), "y": None}, "dynamic_shapes['x']: expected 2 dimensions, got 1"),
        ({"x": Dim("n"), "y": None}, "dynamic_shapes['x']: expected a dict by dimension, a tuple or None, got Dim"),
        ({"x": {0: 5}, "y": None}, "dynamic_shapes['x'][0]: expected 3, as the input has it, got 5"),
        ({"x": None, "y": ()}, "dynamic_shapes['y']: expected a dict, as the argument is, got tuple"),
        ({"x": None, "y": {"a": {0: None}}}, "dynamic_shapes['y']['a']: expected a tuple or a list, as the argument"),
        ({"x": {0: 2 * Dim("n")}, "y": None}, "dynamic_shapes['x'][0]: is 3 in the input, which 2*n can't be"),
        ({"x": (Dim("n"), Dim("n")), "y": None},
         "Dim('n'): the inputs give it 2 sizes: 3 by dynamic_shapes['x'][0], 4 by dynamic_shapes['x'][1]"),
        ({"x": {0: Dim("n", min=4, max=8)}, "y": None}, "n: is 3 in the inputs, and declared from 4 to 8"),
        ({"x": {0: Dim("n", max=2)}, "y": None}, "n: is 3 in the inputs, and declared from 0 to 2"),
    ],
)  # fmt: skip
def test_faults(given: object, says: str) -> None:
    """Each fault is named by its path, with what to write."""
    with pytest.raises(hj.InputError) as error:
        read(given)
    assert says in str(error.value)
    assert 'write instead: dynamic_shapes={"x": {0: torch.export.Dim("batch")}}' in str(error.value)


def test_text_where_there_is_no_tensor() -> None:
    """An argument that holds no tensor has no sizes."""
    with pytest.raises(hj.InputError, match=r"dynamic_shapes\['scale'\]: expected None, since there is no tensor"):
        read({"x": None, "y": None, "scale": {0: Dim.AUTO}}, X, {"a": [Y]}, 2.0)
