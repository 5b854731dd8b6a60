"""Running the file and the model on the same inputs, and comparing everything."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import _torch
from .._describe import describe, listed
from .._errors import CaptureError, HybridJitError, InputError, compose
from ..adapters.inputs import Inputs, as_inputs
from ..adapters.schema import CallSchema, ValueSchema
from ..adapters.tree import build, differences, scan
from .capture import check_ready, unwrapped
from .compare import compare
from .devices import device_list, device_of, moved, moved_model, moved_module
from .exported import Exported, load
from .report import Check, Report
from .state import BufferState, ModelState, alone, kept_random_state

_SEED = 0
"""Model and file draw the same random numbers."""


def verify(
    exported_or_path: Exported | str | os.PathLike[str],
    model: nn.Module,
    check_inputs: Iterable[Any],
    devices: Sequence[torch.device | str] | None = None,
    *,
    rtol: float | None = None,
    atol: float | None = None,
) -> Report:
    """Compares an exported file with the model: later, elsewhere, on another device.

    Args:
        exported_or_path: What `export` or `load` returned, or the path of a file.
        model: The model it was exported from, in eval mode.
        check_inputs: Calls to compare on, each as `export` takes its ``inputs``.
        devices: Where to compare; the model's own device if absent.
        rtol: Relative tolerance; torch's by dtype unless given with ``atol``.
        atol: Absolute tolerance.

    Returns:
        The report of this verification; ``.ok`` is the verdict.

    Raises:
        InputError: An argument is not what is expected, a check input does not fit the file, or the
            model is in training mode.
        CaptureError: The model itself raises on a check input.
        ArchiveError: The file can't be read.

    Example:
        >>> import torch, hybridjit as hj
        >>> model = torch.nn.Linear(2, 1).eval()
        >>> exported = hj.export(model, torch.zeros(3, 2))
        >>> hj.verify(exported, model, [torch.ones(7, 2)]).ok
        True
    """
    exported = exported_or_path
    check_tolerances(rtol, atol)
    model, notes = unwrapped(model, "verify")
    check_ready(model, "verify")
    inputs = named_calls(check_inputs)
    if not inputs:
        raise InputError(
            compose(
                "verify takes at least one input",
                differences=["check_inputs: expected a list of calls, got an empty one"],
                instead="verify(exported, model, [(image,)])",
                page="inputerror",
            )
        )
    if not isinstance(exported, Exported):
        exported = load(exported)
    file = File(exported.module, exported._call, exported._result, rtol, atol)
    places = device_list(devices) or [device_of(model, inputs)]
    with alone():
        state = ModelState(model)
        try:
            checks = [c for place in places for c in check_on(place, model, inputs, file, state=state)]
        finally:
            state.restore(thorough=True)
    version = str(torch.__version__)
    return Report(exported.report.model, exported.format, tuple(checks), tuple(notes), torch_version=version)


def named_calls(check_inputs: Iterable[Any], kwargs: Mapping[str, Any] | None = None) -> dict[str, Inputs]:
    """The calls to check on, by name.

    Args:
        check_inputs: What the user gave.
        kwargs: Keyword arguments for those that are no `Inputs`.

    Raises:
        InputError: It is no list of calls.
    """
    if isinstance(check_inputs, (Tensor, Inputs, str, bytes, Mapping)) or not isinstance(check_inputs, Iterable):
        raise InputError(
            compose(
                "check_inputs takes a list of calls",
                differences=[f"expected a list, got {describe(check_inputs)}"],
                instead="check_inputs=[(image,), (other_image,)]",
                page="inputerror",
            )
        )
    return {f"check_inputs[{i}]": as_inputs(each, kwargs) for i, each in enumerate(check_inputs)}


def check_tolerances(rtol: float | None, atol: float | None) -> None:
    """Refuses tolerances that are no pair of numbers from 0.

    Raises:
        InputError: They are none.
    """
    given = [tolerance for tolerance in (rtol, atol) if tolerance is not None]
    numbers = all(isinstance(each, (int, float)) and not isinstance(each, bool) and each >= 0 for each in given)
    if len(given) == 1 or not numbers:
        raise InputError(
            compose(
                "rtol and atol are numbers from 0, given together, or neither",
                differences=[f"rtol: {rtol!r}", f"atol: {atol!r}"],
                instead="rtol=1e-4, atol=1e-5",
                page="inputerror",
            )
        )


def spell_sizes(call: CallSchema, flat: Sequence[Tensor]) -> str:
    """The tensors of a call, as ``image uint8[3, 512, 512]``."""
    pairs = zip(call.names(), flat, strict=True)
    return listed((f"{name} {describe(tensor).rpartition(' ')[0]}" for name, tensor in pairs), most=3)


@dataclass(frozen=True)
class Expectation:
    """What the model gives for one call.

    Attributes:
        result: Its result.
        changed: The buffers that the call changed, by name, as they were after it.
    """

    result: Any
    changed: dict[str, Tensor]


def expect(model: nn.Module, state: ModelState, inputs: Inputs, name: str, device: torch.device | None) -> Expectation:
    """Runs the model in eager mode, on copies of the inputs, and puts it back.

    Args:
        model: The model.
        state: Its state.
        inputs: The call.
        name: What the call is named in messages.
        device: Where to move the inputs; where they are if absent.

    Raises:
        CaptureError: The model raises; an error of hybridjit's own passes as it is.
    """
    own = moved(inputs, device, name)
    torch.manual_seed(_SEED)
    try:
        with torch.no_grad():
            result = model(*own.args, **own.kwargs)
        return Expectation(_detached(result, state), state.changed_buffers())
    except HybridJitError:  # `static` and the like say themselves what to write
        raise
    except Exception as error:
        text = str(error).strip().splitlines()
        raise CaptureError(
            compose(
                f"the model itself raises on {name}",
                where=type(model).__qualname__,
                differences=[f"{type(error).__name__}: {text[0] if text else ''}", f"{name}: {inputs!r}"],
                instead="an input on which the model runs in eager mode",
                page="captureerror",
            )
        ) from error
    finally:
        state.restore()


def _detached(result: Any, state: ModelState) -> Any:
    """A result that keeps its values when the model is put back: of a buffer that it returns, a copy."""
    tensors: list[Tensor] = []
    node = scan(result, tensors, "result")
    if not any(map(state.owns, tensors)):
        return result
    return build(node, (tensor.clone() if state.owns(tensor) else tensor for tensor in tensors))


@dataclass(frozen=True)
class File:
    """A loaded file, and how it is to be compared.

    Attributes:
        module: The module, of flat tensors.
        call: The structure of its arguments.
        result: The structure of its result.
        rtol: Relative tolerance, ``None`` for torch's.
        atol: Absolute tolerance, likewise.
    """

    module: _torch.ScriptModule
    call: CallSchema
    result: ValueSchema
    rtol: float | None = None
    atol: float | None = None


def check_on(
    device: torch.device,
    model: nn.Module,
    inputs: Mapping[str, Inputs],
    file: File,
    known: Mapping[str, Expectation] | None = None,
    state: ModelState | None = None,
) -> list[Check]:
    """Checks one file on one device, on every input; model and file come back as they were.

    Args:
        device: The device.
        model: The model.
        inputs: The calls, by name.
        file: The file.
        known: What the model gives on its own device, for calls that were run there already.
        state: The model's state, if it was taken already.
    """
    if any(tensor.device != device for tensor in (*model.parameters(), *model.buffers())):
        model, known = moved_model(model, device), None
        file = replace(file, module=moved_module(file.module, device))
        state = None
    state = state or ModelState(model)
    buffers = BufferState(file.module)
    checks = []
    with kept_random_state(), torch.no_grad():
        for name, each in inputs.items():
            flat = file.call.flatten(moved(each, device, name), name)
            expected = (known or {}).get(name) or expect(model, state, each, name, device)
            torch.manual_seed(_SEED)
            try:
                checks.append(_check_one(str(device), name, flat, file, buffers, expected))
            finally:
                buffers.restore()
    return checks


def _check_one(
    device: str, name: str, flat: tuple[Tensor, ...], file: File, buffers: BufferState, expected: Expectation
) -> Check:
    sizes = spell_sizes(file.call, flat)
    expected_flat: list[Tensor] = []
    node = scan(expected.result, expected_flat, "result", file.result.node)
    wrong = [f"structure: {line}" for line in differences(node, file.result.node, "result")]
    started = time.perf_counter()
    try:
        got = file.module(*flat)
    except Exception as error:
        seconds = time.perf_counter() - started
        last = next((row for row in reversed(str(error).splitlines()) if row.strip()), "")
        wrong.append(f"the model runs, the file raises {type(error).__name__}: {last}")
        return Check(device, name, sizes, False, None, None, seconds, tuple(wrong))
    seconds = time.perf_counter() - started
    got_flat = [got] if isinstance(got, Tensor) else list(got)
    paths = [f"result{path}" for path in file.result.paths()]
    compared = compare(paths, expected_flat, got_flat, file.rtol, file.atol)
    wrong += compared.differences
    wrong += _compare_buffers(expected.changed, buffers.changed(), file.module)
    errors = compared.max_abs_error, compared.max_rel_error
    return Check(device, name, sizes, not wrong, *errors, seconds, tuple(wrong))


def _compare_buffers(changed: dict[str, Tensor], in_file: dict[str, Tensor], module: _torch.ScriptModule) -> list[str]:
    """What a call leaves in the buffers must be the same, or the second call is wrong."""
    buffers = dict(module.named_buffers())
    names = sorted({*changed, *(name.removeprefix("model.") for name in in_file)})
    wrong = []
    for name in names:
        after = in_file.get(f"model.{name}", buffers.get(f"model.{name}"))
        if name not in changed:
            wrong.append(f"buffer {name}: the file changes it, the model does not")
        elif after is None:
            wrong.append(f"buffer {name}: the model changes it, the file has no such buffer")
        elif compare([name], [changed[name]], [after]).differences:
            wrong.append(f"buffer {name}: has another value after the call than in the model")
    return wrong
