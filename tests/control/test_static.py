"""`static`: a number in eager mode, a check in a trace."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj


class Call(nn.Module):
    def __init__(self, fn: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Any:
        return self.fn(x)


def by_width(x: Tensor) -> Tensor:
    return x * hj.static(x.shape[1], reason="the {width}")


def line_of(fn: Callable[..., Any], text: str) -> int:
    rows, first = inspect.getsourcelines(fn)
    return first + next(i for i, row in enumerate(rows) if text in row)


def test_eager() -> None:
    """A tensor becomes its number, anything else is returned as it is."""
    assert hj.static(torch.tensor(3), reason="r") == 3
    assert hj.static(torch.tensor([[2.5]]), reason="r") == 2.5
    assert hj.static(torch.tensor(True), reason="r") is True
    value = object()
    assert hj.static(value, reason="r") is value
    assert by_width(torch.ones(2, 4)).tolist() == [[4.0] * 4] * 2


def test_a_guard_in_the_export(tmp_path: Path) -> None:
    """Another value raises at run time with the line and both values, in a plain load too."""
    exported = hj.export(Call(by_width).eval(), torch.ones(2, 4), check_inputs=[torch.ones(7, 4)])
    path = tmp_path / "m.pt"
    exported.save(path)
    line = line_of(by_width, "static(")
    for loaded in (exported, hj.load(path)):
        assert torch.equal(loaded(torch.ones(3, 4)), torch.full((3, 4), 4.0))
        with pytest.raises(hj.GuardError) as error:
            loaded(torch.ones(2, 5))
        assert f"{Path(__file__).name}:{line}: static (the {{width}}), captured 4, got 5; write" in str(error.value)
    plain = torch.jit.load(path)  # type: ignore[no-untyped-call]
    with pytest.raises(torch.jit.Error, match=rf"frozen at .*test_static\.py:{line}.*captured 4, got 5"):
        plain(torch.ones(2, 5))


def test_the_report_has_it() -> None:
    """The value, the reason and the line are in the report, once."""
    report = hj.export(Call(by_width).eval(), torch.ones(2, 4)).report
    (entry,) = report.statics
    assert (entry.value, entry.reason) == ("4", "the {width}")
    assert Path(entry.file).name == "test_static.py" and entry.line == line_of(by_width, "static(")


@pytest.mark.parametrize(
    ("make", "first", "same", "other"),
    [
        (lambda x: x.sum() > 0, 1.0, 2.0, -1.0),
        (lambda x: x.sum(), 2.0, 2.0, 3.0),
        (lambda x: x.sum().half(), 0.1, 0.1, 0.2),
        (lambda x: x.sum().long(), 2.0, 2.5, 3.0),
        (lambda x: x.sum().to(torch.uint8), 2.0, 2.5, 3.0),
        (lambda x: x.sum().reshape(1, 1), 2.0, 2.0, 3.0),
        (lambda x: x.sum(), float("nan"), float("nan"), 1.0),
        (lambda x: x.sum(), float("inf"), float("inf"), -float("inf")),
        (lambda x: x.sum(), -0.0, 0.0, 1.0),
        (lambda x: x.sum(), -3.0, -3.0, 3.0),
        (lambda x: x.sum() > 0, -1.0, -2.0, 1.0),
    ],
)
def test_kinds_of_numbers(make: Callable[[Tensor], Tensor], first: float, same: float, other: float) -> None:
    """Booleans, integers and floats of every kind are guarded, NaN and the infinities too."""
    model = Call(lambda x: torch.ones(2) * float(hj.static(make(x), reason="r")) + x * 0).eval()
    exported = hj.export(model, torch.tensor([first]), check_inputs=[torch.tensor([same])])
    with pytest.raises(hj.GuardError, match=r"static \(r\), captured"):
        exported(torch.tensor([other]))


def test_a_value_that_no_input_reaches() -> None:
    """A parameter's value, and one made in forward, are taken too."""
    weight = nn.Parameter(torch.tensor(2.0))
    model = Call(lambda x: x * hj.static(weight, reason="w") * hj.static(torch.tensor(3), reason="c")).eval()
    model.weight = weight
    exported = hj.export(model, torch.ones(2))
    assert exported(torch.ones(1)).tolist() == [6.0]
    assert [entry.value for entry in exported.report.statics] == ["2.0", "3"]


def test_python_values_are_recorded() -> None:
    """A Python value is recorded and needs no guard."""
    exported = hj.export(Call(lambda x: x * hj.static(2, reason="chosen")).eval(), torch.ones(2))
    assert [(entry.value, entry.reason) for entry in exported.report.statics] == [("2", "chosen")]
    assert "RaiseException" not in exported.code


@pytest.mark.parametrize("reason", ["", "  ", None, 3])
def test_it_needs_a_reason(reason: Any) -> None:
    """No reason, or none that can be read, is refused."""
    with pytest.raises(hj.InputError, match="static needs a reason"):
        hj.static(1, reason=reason)


@pytest.mark.parametrize("value", [torch.ones(2), torch.ones(0), torch.ones(1, 3)], ids=str)
def test_one_element_only(value: Tensor) -> None:
    """A tensor of several elements, or of none, is refused with its shape and the line."""
    with pytest.raises(hj.InputError, match=r"expected one element, got float32\[") as error:
        hj.static(value, reason="r")
    assert "test_static.py:" in str(error.value)


def test_complex_numbers_are_refused() -> None:
    """A complex number has two parts to say it about."""
    with pytest.raises(hj.InputError, match="got complex64"):
        hj.static(torch.tensor(1j), reason="r")


def test_braces_in_paths(tmp_path: Path) -> None:
    """Braces in a file's name and in the reason are text."""
    path = tmp_path / "a{0}{}b.py"
    code = "import hybridjit as hj\ndef fn(x):\n    return x * hj.static(x.shape[0], reason='{a} %s {}')\n"
    path.write_text(code)
    names: dict[str, Any] = {}
    exec(compile(code, str(path), "exec"), names)
    exported = hj.export(Call(names["fn"]).eval(), torch.ones(2))
    with pytest.raises(hj.GuardError) as error:
        exported(torch.ones(3))
    assert "a{0}{}b.py:3: static ({a} %s {}), captured 2, got 3" in str(error.value)


def test_modules_in_training_mode() -> None:
    """A module that `static` was called on may stay in training mode, with its children, and is reported."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.0))).eval()
    model[1].train()
    with pytest.raises(hj.InputError, match=r"training: 1, 1\.0"):
        hj.export(model, torch.ones(3, 2))
    assert hj.static(model[1], reason="Monte Carlo dropout") is model[1]
    (entry,) = hj.export(model, torch.ones(3, 2)).report.statics
    assert (entry.value, entry.reason) == ("training=True", "Monte Carlo dropout")
    assert entry.module_path == "1" and model[1].training
    with pytest.raises(hj.InputError, match="training"):
        hj.export(copy.deepcopy(model), torch.ones(3, 2))  # another model, of which nobody said it


def test_in_a_submodule() -> None:
    """The report and the message name the module that was running."""
    model = nn.Sequential(nn.Identity(), Call(by_width)).eval()
    exported = hj.export(model, torch.ones(2, 4))
    assert exported.report.statics[0].module_path == "1"
    with pytest.raises(hj.GuardError, match="in 1: static"):
        exported(torch.ones(2, 3))
