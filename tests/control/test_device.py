"""`device_dependent` in eager mode and captured; what it does on another device is in tests/devices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from tests.control.checks import kinds, lines, reloaded


def twice(x: Tensor) -> Tensor:
    return x * 2


def plus(x: Tensor) -> Tensor:
    return x + 100


class Model(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return hj.device_dependent(x, cpu=twice, default=plus)


def test_eager_takes_the_function_of_the_device() -> None:
    """The operands' device decides; without a function for it, the default runs."""
    x = torch.ones(2)
    assert hj.device_dependent(x, cpu=twice, cuda=plus).tolist() == [2, 2]
    assert hj.device_dependent(x, cuda=twice, default=plus).tolist() == [101, 101]
    assert hj.device_dependent(x.to("meta"), cpu=plus, meta=twice).device.type == "meta"


def test_first_tensor_decides() -> None:
    """Numbers and containers may be among the operands."""
    got: Any = hj.device_dependent(3, {"x": [torch.ones(2)]}, cpu=lambda n, held: held["x"][0] * n)
    assert got.tolist() == [3, 3]


def test_a_trace_keeps_every_function() -> None:
    """Both functions are in the trace, and the device decides when it runs."""
    loaded = reloaded(torch.jit.trace(Model(), torch.ones(2)))
    assert loaded(torch.ones(3)).tolist() == [2, 2, 2]
    found = kinds(loaded.graph)
    assert (found["prim::If"], found["prim::type"]) == (1, 1)
    on_meta = loaded(torch.ones(3, device="meta"))
    assert on_meta.device.type == "meta"


def test_a_device_that_nobody_thought_of() -> None:
    """Without a default the file raises on another device, and names those that it knows."""

    class Narrow(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return hj.device_dependent(x, cpu=twice, cuda=plus)

    exported = hj.export(Narrow().eval(), torch.ones(2))
    with pytest.raises(hj.GuardError) as error:
        exported(torch.ones(2, device="meta"))
    first = str(error.value).splitlines()[0]
    assert first.startswith(
        "RuntimeError: device_dependent has nothing for this device, only for cpu, cuda (raised at "
    )


def test_within_branches() -> None:
    """It works inside a function whose ifs become branches, and inside `cond`."""

    class Branching(nn.Module):
        @hj.branch_if_tracing
        def forward(self, x: Tensor) -> Tensor:
            y = hj.device_dependent(x, cpu=twice, default=plus)
            if y.sum() > 0:
                return y + 1
            return hj.cond(x.min() < -5, lambda: hj.device_dependent(x, meta=twice, default=plus), lambda: y)

    model = Branching()
    loaded = reloaded(torch.jit.trace(model, torch.ones(2)))
    for x in (torch.ones(3), -torch.ones(2), -torch.full((2,), 9.0)):
        assert torch.equal(loaded(x), model(x))


def test_modules_in_functions() -> None:
    """Functions may use submodules and parameters, which the file holds once."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = hj.device_dependent(x, cpu=self.one, default=self.other)
            return out

    model = Two().eval()
    exported = hj.export(model, torch.ones(1, 2))
    assert torch.equal(exported(torch.ones(3, 2)), model(torch.ones(3, 2)))
    assert len(list(exported.module.parameters())) == 4


def test_export_and_compile_take_the_current_device() -> None:
    """torch.export and Dynamo capture the function for the device of the example alone."""
    program = torch.export.export(Model(), (torch.ones(2),), strict=False)
    assert program.module()(torch.ones(2)).tolist() == [2, 2]
    compiled = torch.compile(Model(), backend="eager", fullgraph=True)
    assert compiled(torch.ones(2)).tolist() == [2, 2]


def test_no_function_for_the_device() -> None:
    """The error lists what is there."""

    def fn(x: Tensor) -> Tensor:
        return hj.device_dependent(x, cuda=twice, mps=plus)

    for run in (lambda: fn(torch.ones(2)), lambda: torch.jit.trace(fn, torch.ones(2))):
        with pytest.raises(hj.UnsupportedError) as error:
            run()
        first, where, *rest = lines(error)
        assert first == "device_dependent has no function for cpu"
        assert where.startswith("  at tests/control/test_device.py:")
        assert rest == [
            "  - expected one of cuda, mps, got cpu",
            "  write instead: hj.device_dependent(x, cpu=..., default=...)",
            "  see docs/errors.md#unsupportederror",
        ]


def test_arguments_are_checked() -> None:
    """Operands without a tensor, and no function, are refused."""
    with pytest.raises(hj.InputError) as error:
        hj.device_dependent(3)
    first, where, *rest = lines(error)
    assert first == "device_dependent takes tensors and a function per device"
    assert where.startswith("  at tests/control/test_device.py:")
    assert rest == [
        "  - operands: expected a tensor among them, got int",
        "  - functions: expected one at least, got none",
        "  write instead: hj.device_dependent(x, cpu=slow, cuda=fast, default=slow)",
        "  see docs/errors.md#inputerror",
    ]
