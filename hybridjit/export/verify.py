"""Running the file and the model on the same inputs, and comparing everything."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .._describe import describe
from .._errors import InputError, compose
from ..adapters.inputs import Inputs, as_inputs
from .devices import device_list, device_of
from .entries import FORWARD, Entries, Entry
from .exported import Exported, load

if TYPE_CHECKING:
    from .checks import Run
    from .report import Report


def verify(
    exported_or_path: Exported | str | os.PathLike[str],
    model: nn.Module,
    check_inputs: Iterable[Any],
    devices: Sequence[torch.device | str] | None = None,
    *,
    methods: Mapping[str, Any] | None = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> Report:
    """Compares an exported file with the model: later, elsewhere, on another device.

    Each call is compared for every combination of flags that the file has and the call does not choose.

    Args:
        exported_or_path: What `export` or `load` returned, or the path of a file.
        model: The model it was exported from, in eval mode.
        check_inputs: Calls to compare on, each as `export` takes its ``inputs``.
        devices: Where to compare; the model's own device if absent.
        methods: Calls of the further methods of the file, as `export` takes them.
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
    # By whoever verifies: code that only imports decorators does not wait for them.
    from .capture import check_ready, unwrapped
    from .checks import File, check_on
    from .coverage import Coverage
    from .outline import outlined
    from .plan import read_methods
    from .report import Report
    from .state import ModelState, alone

    exported = exported_or_path
    check_tolerances(rtol, atol)
    model, notes = unwrapped(model, "verify")
    check_ready(model, "verify")
    inputs = named_calls(check_inputs)
    further = read_methods(model, methods, lambda name: False)
    if not inputs and not further:
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
    runs = _runs(exported._entries, {FORWARD: inputs, **further})
    coverage = Coverage(exported._points)
    file = File(exported._runs, rtol, atol, coverage)
    places = device_list(devices) or [device_of(model, inputs)]
    with alone():
        state = ModelState(model)
        try:
            checks = [c for place in places for c in check_on(place, model, runs, file, state=state)]
        finally:
            state.restore(thorough=True)
    report = Report(
        exported.report.model,
        exported.format,
        tuple(checks),
        tuple(notes),
        branches=coverage.branches(checks),
        torch_version=str(torch.__version__),
        entries=exported.report.entries,
    )
    return outlined(report, model)


def _runs(entries: Entries, points: Mapping[str, Mapping[str, Inputs]]) -> list[Run]:
    """What to compare: each call on every entry that it fits.

    Raises:
        InputError: A call fits none, or the file has no such method.
    """
    from .checks import Run

    missing = [point for point, calls in points.items() if calls and point not in entries.points()]
    if missing:
        raise InputError(
            compose(
                f"the file has no method {', '.join(missing)}",
                differences=[f"there is {point}" for point in entries.points()],
                instead=f"export(..., methods={{{missing[0]!r}: (image,)}})",
                page="inputerror",
            )
        )
    found: dict[str, tuple[Entry, dict[str, Inputs]]] = {}
    for point, calls in points.items():
        for name, inputs in calls.items():
            for entry, call in entries.matching(point, inputs, name):
                found.setdefault(entry.title, (entry, {}))[1][name] = call
    alone = len(entries) == 1
    return [
        Run(entry, calls, "" if alone else entry.title, alike=entries.alike(entry)) for entry, calls in found.values()
    ]


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
