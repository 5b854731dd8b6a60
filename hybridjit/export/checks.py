"""One file on one device: every entry and every call, against the model in eager mode."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import _torch
from .._describe import describe, listed
from .._errors import CaptureError, HybridJitError, compose
from ..adapters.inputs import Inputs
from ..adapters.schema import CallSchema, ValueSchema
from ..adapters.tree import build, differences, scan
from .compare import compare
from .coverage import Counting, Coverage
from .devices import device_of, moved, moved_model, moved_module
from .entries import FORWARD, Entry, rows_of
from .report import Check
from .stages import stage
from .state import SEED, BufferState, ModelState, kept_random_state
from .tensors import SeenTensors
from .view import method_of

if TYPE_CHECKING:
    from .explain import Failure

RAISES = "the model runs, the file raises"
"""How the difference begins where the file does not run at all."""
UNSTEADY = "the model itself gives something else when it is called again"
"""How the reason begins where there is nothing to compare with."""


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
        replaced: The buffers, by every name, in whose place the call put other tensors.
    """

    result: Any
    changed: dict[str, Tensor]
    replaced: tuple[str, ...] = ()


def expect(
    model: nn.Module,
    state: ModelState,
    inputs: Inputs,
    name: str,
    device: torch.device | None,
    method: str = FORWARD,
    *,
    restore: bool = True,
    seed: int = SEED,
    within: AbstractContextManager[Any] | None = None,
) -> Expectation:
    """Runs the model in eager mode, on copies of the inputs, and puts it back.

    Args:
        model: The model.
        state: Its state.
        inputs: The call.
        name: What the call is named in messages.
        device: Where to move the inputs; where they are if absent.
        method: Which of its methods to run.
        restore: Whether to put it back.
        seed: What the random numbers start from.
        within: What is around the call of the model.

    Raises:
        CaptureError: The model raises; an error of hybridjit's own passes as it is.
    """
    own = moved(inputs, device, name)
    torch.manual_seed(seed)
    try:
        with torch.no_grad(), within or nullcontext():
            result = method_of(model, method)(*own.args, **own.kwargs)
        return Expectation(_detached(result, state), state.changed_buffers(), state.replaced_buffers())
    except HybridJitError:  # `static` and the like say themselves what to write
        raise
    except Exception as error:
        text = str(error).strip().splitlines()
        raise CaptureError(
            compose(
                f"the model itself raises on {name}",
                where=type(model).__qualname__ + (f".{method}" if method != FORWARD else ""),
                differences=[f"{type(error).__name__}: {text[0] if text else ''}", f"{name}: {inputs!r}"],
                instead="an input on which the model runs in eager mode",
                page="captureerror",
            )
        ) from error
    finally:
        if restore:
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
        module: The module, of flat tensors; of a format other than TorchScript what runs the file.
        rtol: Relative tolerance, ``None`` for torch's.
        atol: Absolute tolerance, likewise.
        coverage: Counts which branches the calls take; not at all if absent.
        tensors: Notes what goes in and comes out; not at all if absent.
    """

    module: nn.Module
    rtol: float | None = None
    atol: float | None = None
    coverage: Coverage | None = None
    tensors: SeenTensors | None = None


@dataclass(frozen=True)
class Run:
    """An entry of the file, and the calls to compare it on.

    Attributes:
        entry: The entry.
        calls: The calls, by name.
        title: What the entry is called in the report; empty where the file has but one.
        further: Calls that nobody gave, by name: where the model raises on a device, they are passed over there.
        alike: The entries that take the same calls, with other results: a call is compared on the one whose it gives.
    """

    entry: Entry
    calls: Mapping[str, Inputs]
    title: str
    further: Mapping[str, Inputs] = field(default_factory=dict)
    alike: Sequence[Entry] = ()

    def is_meant(self, result: Any) -> bool:
        """Whether a call with this result is one of the entry, rather than of one that takes the same calls."""
        if not self.alike:
            return True
        paths = ValueSchema(scan(result, [], "result")).paths()
        return self.entry.result.paths() == paths or all(each.result.paths() != paths for each in self.alike)


def check_on(
    device: torch.device,
    model: nn.Module,
    runs: Sequence[Run],
    file: File,
    known: dict[tuple[str, str], Expectation] | None = None,
    state: ModelState | None = None,
) -> list[Check]:
    """Checks one file on one device, every entry on all of its calls; model and file come back as they were.

    Args:
        device: The device.
        model: The model.
        runs: The entries with their calls.
        file: The file.
        known: What the model gives on its own device, by the titles of entry and call, for those that were run;
            added to.
        state: The model's state, if it was taken already.
    """
    calls = sum(len(run.calls) + len(run.further) for run in runs)
    stage(f"check on {device} ({calls} call{'' if calls == 1 else 's'})")
    home = device_of(model, runs[0].calls)
    if home != device or any(tensor.device != device for tensor in (*model.parameters(), *model.buffers())):
        model, known = moved_model(model, device), {}
        file = replace(file, module=moved_module(file.module, device))
        state = None
    known = {} if known is None else known
    state = state or ModelState(model)
    buffers = BufferState(file.module)
    counting = Counting(file.coverage or Coverage({}), file.module)
    checks = []
    stateful = False
    with kept_random_state(), torch.no_grad():
        for run in runs:
            entry = run.entry
            for name, each in {**run.calls, **run.further}.items():
                try:
                    expected = known.get((entry.title, name))
                    if expected is None:
                        with state.switched(entry.attributes):
                            expected = expect(model, state, each, name, device, entry.point)
                        known[entry.title, name] = expected
                except CaptureError:
                    if name in run.calls:
                        raise
                    continue
                if not run.is_meant(expected.result):
                    continue
                flat = entry.call.flatten(moved(each, device, name), name)
                stateful |= bool(expected.changed)
                torch.manual_seed(SEED)
                try:
                    checks.append(check_one(str(device), name, flat, run, file, buffers, expected, counting))
                finally:
                    buffers.restore()
        if stateful and len(runs) > 1:
            checks += check_in_a_row(device, model, runs, file, state, buffers, counting)
        return _with_reasons(device, model, runs, file, state, checks)


def _with_reasons(
    device: torch.device,
    model: nn.Module,
    runs: Sequence[Run],
    file: File,
    state: ModelState,
    checks: list[Check],
) -> list[Check]:
    """The checks, the first one that differs with the operation at which it does and why."""
    failing = next((each for each in checks if each.differences and not each.differences[0].startswith(RAISES)), None)
    if failing is None or device.type == "meta" or not isinstance(file.module, _torch.ScriptModule):
        return checks
    run = next(run for run in runs if run.title == failing.entry)
    name = failing.input.partition(", call ")[0] if failing.input not in run.further else failing.input
    inputs = {**run.calls, **run.further}[name]
    if name != failing.input:
        said = ["the call alone is as the model's: what differs depends on the calls before it, by what they leave"]
    else:
        from .explain import explained  # seldom wanted

        try:
            copy = _torch.moved_script(file.module, device)
            said = explained(_failure(device, model, run, copy, state, inputs, failing))
        except (HybridJitError, RuntimeError, _torch.JitError) as error:  # the verdict stands without its reason
            text = str(error).strip().splitlines()
            said = [f"why can't be told: {type(error).__name__}: {text[0] if text else ''}"]
    reasoned = replace(failing, differences=(*failing.differences, *said))
    return [reasoned if each is failing else each for each in checks]


def _failure(
    device: torch.device,
    model: nn.Module,
    run: Run,
    copy: _torch.ScriptModule,
    state: ModelState,
    inputs: Inputs,
    check: Check,
) -> Failure:
    from .explain import Failure

    entry = run.entry

    def again(flat: Sequence[Tensor], seed: int, within: AbstractContextManager[Any]) -> Any:
        own = entry.call.unflatten(tuple(flat))
        with state.switched(entry.attributes):
            return expect(model, state, own, check.input, device, entry.point, seed=seed, within=within).result

    flat = entry.call.flatten(moved(inputs, device, check.input), check.input)
    names = {id(module): path for path, module in model.named_modules()}

    def call(module: _torch.ScriptModule) -> object:
        torch.manual_seed(SEED)
        return entry.run(module, flat)

    return Failure(names, flat, again, copy, call, check.differences)


def check_in_a_row(
    device: torch.device,
    model: nn.Module,
    runs: Sequence[Run],
    file: File,
    state: ModelState,
    buffers: BufferState,
    counting: Counting,
) -> list[Check]:
    """Checks the calls of a model that keeps state one after the other, each on what those before it left.

    Of each method the first structure, then all again, for each combination of flags. Where the model itself
    raises, because it can't be called in this order, the row ends.

    Args:
        device: The device.
        model: The model.
        runs: The entries with their calls.
        file: The file.
        state: The model's state.
        buffers: The file's.
        counting: Runs the file's methods.
    """
    checks: list[Check] = []
    for row in rows_of([run.entry for run in runs]):
        steps = [(runs[index], name) for index in row for name in runs[index].calls] * 2
        try:
            for number, (run, name) in enumerate(steps, 1):
                with state.switched(run.entry.attributes, put_back=False):
                    try:
                        expected = expect(model, state, run.calls[name], name, device, run.entry.point, restore=False)
                    except CaptureError:
                        break
                flat = run.entry.call.flatten(moved(run.calls[name], device, name), name)
                torch.manual_seed(SEED)
                where = f"{name}, call {number} in a row"
                checks.append(check_one(str(device), where, flat, run, file, buffers, expected, counting))
                if not checks[-1].passed:
                    break  # what follows would differ for the same reason
        finally:
            state.restore()
            buffers.restore()
    return checks


def check_one(
    device: str,
    name: str,
    flat: tuple[Tensor, ...],
    run: Run,
    file: File,
    buffers: BufferState,
    expected: Expectation,
    counting: Counting,
) -> Check:
    """Calls the file, and compares result and buffers with what the model gave."""
    entry = run.entry
    sizes = spell_sizes(entry.call, flat)
    expected_flat: list[Tensor] = []
    node = scan(expected.result, expected_flat, "result", entry.result.node)
    wrong = [f"structure: {line}" for line in differences(node, entry.result.node, "result")]
    method = counting.method(entry.method)
    started = time.perf_counter()
    try:
        got_flat = entry.run(file.module, flat, method)
    except Exception as error:
        seconds = time.perf_counter() - started
        last = next((row for row in reversed(str(error).splitlines()) if row.strip()), "")
        wrong.append(f"{RAISES} {type(error).__name__}: {last}")
        return Check(device, name, sizes, False, None, None, seconds, tuple(wrong), run.title)
    seconds = time.perf_counter() - started
    compared = compare(entry.keys, expected_flat, got_flat, file.rtol, file.atol)
    wrong += compared.differences
    wrong += _compare_buffers(expected.changed, buffers.changed(), file.module)
    errors = compared.max_abs_error, compared.max_rel_error
    check = Check(device, name, sizes, not wrong, *errors, seconds, tuple(wrong), run.title)
    counting.keep(check)
    if file.tensors is not None:
        file.tensors.note(check, flat, got_flat)
    return check


def _compare_buffers(changed: dict[str, Tensor], in_file: dict[str, Tensor], module: nn.Module) -> list[str]:
    """What a call leaves in the buffers must be the same, or the second call is wrong."""
    buffers = dict(module.named_buffers())
    names = sorted({*changed, *(name.removeprefix("model.") for name in in_file)})
    wrong = []
    for name in names:
        after = in_file.get(f"model.{name}", buffers.get(f"model.{name}"))
        if name not in changed:
            wrong.append(f"buffer {name}: the file changes it, the model does not")
        elif after is None:
            continue  # it was not there before the call, as no attribute that a call sets (HJ002)
        elif compare([name], [changed[name]], [after]).differences:
            wrong.append(f"buffer {name}: has another value after the call than in the model")
    return wrong
