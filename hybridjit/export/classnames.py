"""The names of a model's classes, which TorchScript writes into a file and has to read again."""

from __future__ import annotations

import contextlib
import keyword
import re
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def readable(model: nn.Module) -> Iterator[None]:
    """Gives classes names of letters and digits within the body.

    A class that was made by ``exec`` or typed in (its module is ``<stdin>``), or that ``type`` made, may be called
    anything. Torch writes such a name, and its reader then refuses the file.
    """
    changed: list[tuple[type, str, str]] = []
    try:
        for owner in {type(module) for module in model.modules()}:
            module, name = ".".join(map(_readable, owner.__module__.split("."))), _readable(owner.__name__)
            if (module, name) != (owner.__module__, owner.__name__):
                changed.append((owner, owner.__module__, owner.__name__))
                owner.__module__, owner.__name__ = module, name
        yield
    finally:
        for owner, module, name in changed:
            owner.__module__, owner.__name__ = module, name


def _readable(name: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z_0-9]*", name) and not keyword.iskeyword(name):
        return name
    return "_" + re.sub(r"[^A-Za-z_0-9]", "_", name)
