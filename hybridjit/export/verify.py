"""Running the file and the model on the same inputs, and comparing everything."""

from __future__ import annotations

import copy
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .. import _torch
from .._describe import describe, listed
from .._errors import CaptureError, InputError, compose
from ..adapters.inputs import Inputs, as_inputs
from ..adapters.schema import CallSchema, ValueSchema
from ..adapters.tree import build, differences, scan
from .compare import compare
from .exported import Exported, load
from .report import Check, Report
from .state import Contents, ModelState, buffers_of, changed_buffers, kept_random_state

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
        InputError: An argument is not what is expected, or a check input does not fit the file.
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
    inputs = {f"check_inputs[{i}]": as_inputs(each) for i, each in enumerate(check_inputs)}
    if not isinstance(model, nn.Module) or not inputs:
        raise InputError(
            compose(
                "verify takes a model and at least one input",
                differences=[f"model: {describe(model)}", f"check_inputs: {len(inputs)} inputs"],
                instead="verify(exported, model, [(image,)])",
                page="inputerror",
            )
        )
    if not isinstance(exported, Exported):
        exported = load(exported)
    file = File(exported.module, exported._call, exported._result, rtol, atol)
    places = device_list(devices) or [device_of(model, inputs.values())]
    state = ModelState(model)
    try:
        checks = [c for place in places for c in check_on(place, model, inputs, file, state=state)]
    finally:
        state.restore(thorough=True)
    return Report(exported.report.model, exported.format, tuple(checks), torch_version=str(torch.__version__))


def device_list(devices: Sequence[torch.device | str] | None) -> list[torch.device]:
    """The devices as torch's own type.

    Raises:
        InputError: One of them is no device.
    """
    if isinstance(devices, (str, torch.device)):
        devices = [devices]
    try:
        return [torch.device(device) for device in devices or ()]
    except (RuntimeError, TypeError) as error:
        raise InputError(
            compose(
                "devices takes a list of devices",
                differences=[str(error).splitlines()[0]],
                instead='devices=["cpu", "cuda"]',
                page="inputerror",
            )
        ) from None


def device_of(model: nn.Module, inputs: Iterable[Inputs] = ()) -> torch.device:
    """The device of a model's first parameter or buffer, else of the first tensor given to it."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    for each in inputs:
        for tensor in _tensors_of(each):
            return tensor.device
    return torch.device("cpu")


def _tensors_of(inputs: Inputs) -> list[Tensor]:
    tensors: list[Tensor] = []
    scan([list(inputs.args), dict(inputs.kwargs)], tensors, "the inputs")
    return tensors


def moved(inputs: Inputs, device: torch.device | None) -> Inputs:
    """The same call on copies of its tensors, on a device; views of the originals are never handed out."""
    tensors: list[Tensor] = []
    node = scan([list(inputs.args), dict(inputs.kwargs)], tensors, "the inputs")
    copies = iter([t.detach().clone() if device is None else t.detach().to(device, copy=True) for t in tensors])
    args, kwargs = build(node, copies)
    return Inputs(*args, **kwargs)


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
        CaptureError: The model raises.
    """
    own = moved(inputs, device)
    torch.manual_seed(_SEED)
    try:
        with torch.no_grad():
            result = model(*own.args, **own.kwargs)
        return Expectation(result, state.changed_buffers())
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
        model, known = copy.deepcopy(model).to(device), None
        file = replace(file, module=_moved_module(file.module, device))
        state = None
    state = state or ModelState(model)
    before = buffers_of(file.module)
    file_buffers = Contents(tensor for tensor, _ in before.values())
    checks = []
    with kept_random_state(), torch.no_grad():
        for name, each in inputs.items():
            flat = file.call.flatten(moved(each, device))
            expected = (known or {}).get(name) or expect(model, state, each, name, device)
            torch.manual_seed(_SEED)
            try:
                checks.append(_check_one(str(device), name, flat, file, before, expected))
            finally:
                file_buffers.restore()
    return checks


def _moved_module(module: _torch.ScriptModule, device: torch.device) -> _torch.ScriptModule:
    if device.type != "meta":
        return copy.deepcopy(module).to(device)
    with tempfile.TemporaryDirectory(prefix="hybridjit-") as folder:  # a module can't be moved to meta
        path = os.path.join(folder, "module.pt")
        _torch.save_script(module, path, {})
        return _torch.load_script(path, device)


def _check_one(
    device: str, name: str, flat: tuple[Tensor, ...], file: File, before: Any, expected: Expectation
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
    wrong += _compare_buffers(expected.changed, changed_buffers(file.module, before), file.module)
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
