"""`branches="auto"`: the modules that need branches, found by tracing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from .._errors import CaptureError
from .._sites import Site
from ..adapters.inputs import Inputs
from .branches import BranchingError, Finder, parent
from .capture import Captured, capture
from .report import Finding
from .state import ModelState


def capture_found(
    model: nn.Module, inputs: Inputs, expected: Any, state: ModelState, restore: Callable[[], None]
) -> Captured:
    """Traces a model, again for as long as it finds modules in which a tensor's truth would be frozen.

    The innermost module around each such place gets branches. One that can't have them (its paths
    return different structures, say) leaves it to the module around it, up to the model itself.

    Args:
        model: The model, ready.
        inputs: The call to trace.
        expected: What the model gives for it in eager mode.
        state: Its state.
        restore: Puts the model back between two traces.
    """
    names = {id(module): name for name, module in model.named_modules()}
    chosen: dict[str, Site] = {}
    plain: dict[str, tuple[Site, CaptureError]] = {}
    while True:
        finder = Finder(names)
        try:
            with finder:
                captured = capture(model, inputs, expected, state, list(chosen))
        except BranchingError as error:
            site = chosen.pop(error.path)
            plain[error.path] = site, error.error
            around = parent(error.path)
            if around is not None and around not in plain:
                chosen[around] = site
        else:
            new = {path: site for site, path in finder.found.items() if path not in chosen and path not in plain}
            if not new:
                break
            chosen |= new
        restore()
    return dataclasses.replace(captured, findings=(*captured.findings, *_said(chosen, plain)))


def _said(chosen: Mapping[str, Site], plain: Mapping[str, tuple[Site, CaptureError]]) -> list[Finding]:
    said = []
    for path, site in chosen.items():
        text = f"branches='auto': the ifs of {path or 'the model'} stay ifs in the file"
        said.append(Finding("HJ003", "note", text, site.file, site.line, path))
    for path, (site, error) in plain.items():
        if any(path == each or path.startswith(f"{each}.") or not each for each in chosen):
            continue  # the module around it has branches instead
        text = f"branches='auto': {path or 'the model'} can't have branches: {str(error).splitlines()[0]}"
        said.append(Finding("HJ004", "warning", text, site.file, site.line, path, "hj.cond around this if"))
    return said
