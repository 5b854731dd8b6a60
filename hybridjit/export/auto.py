"""`branches="auto"`: the modules that need branches, found by tracing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .._errors import CaptureError
from .._sites import Site
from .branches import BranchingError, parent
from .capture import Captured
from .guarded import Task, capture_guarded
from .leaks import BOOL
from .report import Finding


def capture_found(task: Task, on_frozen: str) -> Captured:
    """Traces a model, again for as long as it finds modules in which a tensor's truth would be frozen.

    The innermost module around each such place gets branches. One that can't have them (its paths
    return different structures, say) leaves it to the module around it, up to the model itself.

    Args:
        task: What to trace.
        on_frozen: What becomes of a value that is frozen nevertheless.
    """
    chosen: dict[str, Site] = {}
    plain: dict[str, tuple[Site, CaptureError]] = {}
    while True:
        try:
            captured = capture_guarded(task, list(chosen), on_frozen)
        except BranchingError as error:
            site = chosen.pop(error.path)
            plain[error.path] = site, error.error
            around = parent(error.path)
            if around is not None and around not in plain:
                chosen[around] = site
        else:
            sites = [leak.site for leak in captured.guarded if leak.kind is BOOL]
            new = {s.module_path: s for s in sites if s.module_path not in chosen and s.module_path not in plain}
            if not new:
                break
            chosen |= new
        task.state.restore()
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
