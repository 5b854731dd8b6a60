"""Sizes and values that `dynamic_shapes` declares, and what a file must do at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import hybridjit as hj
from hybridjit.export.dynamic import fresh, sized, valued
from hybridjit.export.shapes import Place, Variable

BATCH = {"x": {0: Dim("batch")}}


class Lambda(nn.Module):
    def __init__(self, fn: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Any:
        return self.fn(x)


def export(fn: Callable[[Tensor], Any], dynamic_shapes: Any = BATCH, first: Tensor | None = None, **given: Any) -> Any:
    first = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)) if first is None else first
    return hj.export(Lambda(fn).eval(), (first,), dynamic_shapes=dynamic_shapes, **given)


def test_sizes_one_by_one_and_together() -> None:
    """The smallest, 0, 1, an odd one, a prime and a large one, each alone and jointly; what is related stays so."""
    variables = (
        Variable("n", 3, 0, None, True, (Place(0, 0), Place(1, 0, 2, 1))),
        Variable("m", 4, 2, 9, True, (Place(0, 1),)),
    )
    found = {each.name: each for each in sized((torch.rand(3, 4), torch.rand(7)), variables)}
    alone = {name: each for name, each in found.items() if "," not in name}
    assert list(alone) == ["n=0", "n=1", "n=5", "n=24", "m=2", "m=5", "m=7", "m=9"]
    assert {"m=2, n=0", "m=9, n=24"} <= set(found)
    for each in found.values():
        x, y = each.flat
        assert y.shape[0] == 2 * x.shape[0] + 1 and 2 <= x.shape[1] <= 9


def test_sizes_have_a_limit() -> None:
    """A size that would take many times the memory of the first input is left out."""
    variables = (Variable("n", 300, 0, None, True, (Place(0, 0), Place(0, 1), Place(0, 2))),)
    large = torch.empty(1).expand(300, 300, 300)
    assert all(each.sizes["n"] < 600 for each in sized((large[:2, :2, :2].clone(),), variables))


def test_fresh_sizes_are_others() -> None:
    """Each time it is asked there are sizes that were not there before."""
    variables = (Variable("n", 3, 0, None, True, (Place(0, 0),)),)
    flat = (torch.rand(3, 4),)
    first = {each.name for each in sized(flat, variables)}
    again = [{each.name for each in fresh(flat, variables, count)} for count in range(3)]
    assert all(names - first - set().union(*again[:index]) for index, names in enumerate(again))


def test_values() -> None:
    """Floating point takes all values, integers only those that they have, since they may be indices."""
    x, tokens = torch.rand(2, 3), torch.tensor([5, 7])
    found = {each.name: each.flat for each in valued((x, tokens))}
    assert set(found) == {f"values: {kind}" for kind in ("zeros", "all equal", "negative", "huge", "NaN", "infinity")}
    assert found["values: NaN"][0].isnan().sum() == 1 and found["values: infinity"][0].isinf().sum() == 1
    assert found["values: all equal"][1].tolist() == [5, 5]
    assert all(flat[1].max() <= 7 and flat[1].min() >= 0 for flat in found.values())


def test_what_was_verified_is_said() -> None:
    """The report has the sizes on one line; without `dynamic_shapes` it says that none were declared."""
    exported = export(lambda x: x.sum(1))
    assert "verified at batch 0, 1, 3, 5, 24; values zeros, all equal" in str(exported.report)
    plain = hj.export(Lambda(lambda x: x * 2).eval(), torch.ones(2), check_inputs=[torch.ones(3)])
    line = "verified on 2 calls, no other sizes declared; what is frozen for others is guarded"
    assert line in str(plain.report).splitlines()
    assert line[9:] in plain.report.to_markdown() and line[9:] in plain.report.to_html()
    assert hj.Report.from_json(plain.report.to_json()) == plain.report


def test_a_path_that_needs_another_size_is_captured() -> None:
    """A branch on a declared size is taken from an input of that size, and holds at sizes that were not captured."""
    exported = export(lambda x: x * 2 if x.shape[0] > 4 else x + 1)
    assert exported(torch.ones(50, 4)).sum() == 400 and exported(torch.ones(2, 4)).sum() == 16


def by_numpy(x: Tensor) -> Tensor:
    import numpy as np

    return x * float(np.asarray(x.shape)[0])


def test_declared_but_frozen() -> None:
    """A declared size that the file stops at is an error with the line, however many of them were captured."""
    with pytest.raises(hj.VerificationError) as error:
        export(by_numpy)
    assert "declared dynamic, but the model runs, the file raises" in str(error.value)
    assert "test_dynamic.py:" in str(error.value) and "write the torch function of the same name" in str(error.value)


def test_auto_may_be_fixed() -> None:
    """`Dim.AUTO` that turns out to be fixed is a finding with the line, `Dim.DYNAMIC` an error."""
    report = export(by_numpy, {"x": {0: Dim.AUTO}}).report
    [finding] = [each for each in report.findings if each.code == "HJ302"]
    assert finding.file.endswith("test_dynamic.py") and finding.line == by_numpy.__code__.co_firstlineno + 3
    assert finding.fix == "the torch function of the same name"
    with pytest.raises(hj.VerificationError, match="declared dynamic, but"):
        export(by_numpy, {"x": {0: Dim.DYNAMIC}})


def test_wrong_at_a_declared_size() -> None:
    """What a plain trace gets wrong at a declared size is refused."""
    with pytest.raises(hj.VerificationError, match="batch=5"):
        export(lambda x: x * len(x), on_frozen="ignore")


def test_what_the_model_refuses_is_listed() -> None:
    """A size that the eager model does not take is no fault of the file."""

    def forward(x: Tensor) -> Tensor:
        if x.shape[0] == 0:
            raise ValueError("no rows")
        return x.amax(0)

    report = export(forward).report
    [finding] = [each for each in report.findings if each.code == "HJ301"]
    assert "batch=0 (ValueError: no rows)" in finding.message
    assert all(check.input != "batch=0" for check in report.checks)


def largest(x: Tensor) -> Tensor:
    import numpy as np

    return x * float(np.asarray(x).max())


def test_values_may_stop_at_a_guard() -> None:
    """Values are not declared: a file may stop at them, but not be wrong."""
    report = export(largest, {"x": None}).report
    assert report.ok and "values" not in report.scope
    with pytest.raises(hj.VerificationError, match="values: negative"):
        export(largest, {"x": None}, on_frozen="ignore")


def test_flags() -> None:
    """Every combination of flags is verified at the declared sizes."""

    class Flagged(nn.Module):
        def forward(self, x: Tensor, double: bool = False) -> Tensor:
            return x * 2 if double else x

    flags = {"double": (False, True)}
    exported = hj.export(Flagged().eval(), torch.ones(3, 4), flags=flags, dynamic_shapes=BATCH)
    seen = {check.entry for check in exported.report.checks if check.input == "batch=24"}
    assert seen == {"forward(double=False)", "forward(double=True)"}


def test_another_device() -> None:
    """The declared sizes are verified on every device."""
    exported = export(torch.relu, devices=["cpu", "meta"])
    assert {check.device for check in exported.report.checks if check.input == "batch=24"} == {"cpu", "meta"}
