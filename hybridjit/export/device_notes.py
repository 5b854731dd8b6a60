"""What there is to know of a trace's devices, as findings with the user's line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .. import _torch
from ..control.origins import Asked
from .report import Finding

_QUESTIONS = {
    "value": ("HJ201", "{}: the answer on this device is kept, and the file refuses to run where it is another"),
    "type": ("HJ202", "{}: if Python code goes by it, what it does on this device is kept"),
    "stored": ("HJ203", "{} from outside of the call: what is made there stays on the CPU on every device"),
}
_FIXES = {
    "HJ201": "hybridjit.device_dependent(x, cpu=..., default=...)",
    "HJ202": "hybridjit.device_dependent(x, cpu=..., default=...) for what differs; device=x.device to make tensors",
    "HJ203": 'device=x.device, or device="cpu" where it is meant',
    "HJ204": "device=x.device",
    "HJ205": "a new tensor instead of a write in place, or both on x.device",
    "HJ206": "device=x.device, and one device for a model",
}
_SAYS = {
    "HJ204": "a tensor without a device, or from the CPU, meets those of the inputs: it goes along in the file, "
    "where eager mode raises on another device",
    "HJ205": "a tensor on the CPU, as the model says, meets those of the inputs and can't go along: on another "
    "device the file raises here, as eager mode does",
    "HJ206": "a device of its own, or of a module that neither gets nor holds a tensor: it stays as it is",
}


def of_question(asked: Asked) -> Finding:
    """What was seen while the model ran."""
    code, text = _QUESTIONS[asked.what]
    site, severity = asked.site, "note" if asked.what == "type" else "warning"
    return Finding(code, severity, text.format(asked.says), site.file, site.line, site.module_path, _FIXES[code])


def of_operation(code: str, node: Any, path: str) -> Finding | None:
    """What an operation of the graph does; ``None`` in torch's own code, which is right on every device.

    Args:
        code: ``HJ204``, ``HJ205`` or ``HJ206``.
        node: The operation.
        path: The module path of the graph.
    """
    file, line, library = _torch.source_of(node)
    if library:
        return None
    severity = "note" if code == "HJ204" else "warning"
    return Finding(code, severity, _SAYS[code], file, line, path.removeprefix("model").lstrip("."), _FIXES[code])


def counted(findings: Sequence[Finding | None]) -> list[Finding]:
    """Each finding once, with how often there was one."""
    return [replace(finding, count=count) for finding, count in Counter(findings).items() if finding is not None]
