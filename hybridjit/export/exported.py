"""`Exported`: a verified file as a callable; `load` reads one back."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._describe import describe
from .._errors import ArchiveError, GuardError, InputError, compose
from ..adapters.inputs import Inputs
from ..adapters.schema import CallSchema, ValueSchema
from . import archive
from .devices import device_named, present
from .report import Report

_GUARD = re.compile(r"^\w*Error: (?:KeyError: )?hybridjit: (.*)", re.MULTILINE | re.DOTALL)
"""At the end of TorchScript's traceback; before it, the line that raises is quoted."""


@dataclass(frozen=True)
class Exported:
    """An exported model: the re-loaded file, with the model's own argument and result types.

    It owns its parameters and buffers; the model it came from may change or go.

    Attributes:
        module: The raw ``ScriptModule``, of flat tensors, as C++ sees it. Whoever changes it (moves it,
            trains it) changes what this computes, not what `save` writes: that is what was verified.
        format: ``"torchscript"``.
        report: What was found and verified.

    Example:
        >>> import torch, hybridjit as hj
        >>> exported = hj.export(torch.nn.Linear(2, 1).eval(), torch.zeros(3, 2))
        >>> exported(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """

    module: _torch.ScriptModule
    format: str
    report: Report
    _call: CallSchema = field(repr=False)
    _result: ValueSchema = field(repr=False)
    _file: archive.KeptFile = field(repr=False, compare=False)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Runs the file on the model's own arguments.

        Args:
            *args: As the model takes them, of the captured structure.
            **kwargs: Likewise.

        Returns:
            The model's own result type.

        Raises:
            InputError: The structure, or a static value, is not the captured one.
            GuardError: A value that is frozen in the file has another value for this input, or a branch is taken
                that raised when it was recorded: the model's own validation, say.
        """
        flat = self._call.flatten(Inputs(*args, **kwargs))
        try:
            result = self.module(*flat)
        except (_torch.JitError, RuntimeError) as error:
            guard = _GUARD.search(str(error))
            if guard is None:
                raise
            raise GuardError(f"{guard[1].rstrip()}\n  see docs/errors.md#guarderror") from error
        return self._result.unflatten((result,) if isinstance(result, Tensor) else tuple(result))

    @property
    def code(self) -> str:
        """The TorchScript source of the file's ``forward``."""
        return _torch.script_code(self.module)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file: at every moment there is the old file or the new one, whole.

        Its bytes are those that were verified, or loaded, whatever was called or changed since: calls
        that count in a buffer, ``load(path, device=...)``, ``.module.to(...)``.

        Args:
            path: Where to; the suffix must not be another format's (``.pt2``, ``.onnx``). A link is
                followed, and the mode of a file that is there stays.

        Raises:
            ArchiveError: The suffix is another format's, or the file can't be written.
            InputError: ``path`` is no path.
        """
        target = _path(path, "save", 'exported.save("model.pt")')
        archive.check_suffix(target)
        archive.write_atomically(self._file, target)


def metadata_of(report: Report, call: CallSchema, result: ValueSchema) -> dict[str, Any]:
    """The JSON data that travels in the file."""
    return {
        "version": archive.VERSION,
        "format": report.format,
        "input_schema": call.to_json(),
        "output_schema": result.to_json(),
        "output_names": result.paths(),
        "report": report.to_json(),
    }


def _path(path: str | os.PathLike[str], what: str, instead: str) -> Path:
    try:
        return Path(path)
    except TypeError:
        raise InputError(
            compose(
                f"{what} takes a path",
                differences=[f"expected text or a path, got {describe(path)}"],
                instead=instead,
                page="inputerror",
            )
        ) from None


def load(path: str | os.PathLike[str], device: torch.device | str | None = None) -> Exported:
    """Reads an exported file back, with the rich call in Python.

    No code of the model is needed, and none is imported: where a result's class is imported
    already it is used, otherwise a NamedTuple or dataclass that looks like it.

    Args:
        path: A file that `Exported.save` wrote.
        device: Where parameters and buffers go, ``"cuda"`` say; where they were saved from if absent.

    Returns:
        The same as `export` returned.

    Raises:
        ArchiveError: The file is missing, truncated, altered, or not hybridjit's.
        InputError: The device is none, or is not there; ``path`` is no path.

    Example:
        >>> import os, tempfile, torch, hybridjit as hj
        >>> path = os.path.join(tempfile.mkdtemp(), "linear.pt")
        >>> hj.export(torch.nn.Linear(2, 1).eval(), torch.zeros(3, 2)).save(path)
        >>> hj.load(path).report.ok
        True
    """
    where = None
    if device is not None:
        instead = f'load(path, device="cpu")\n{present()}'
        where = device_named(device, "load takes a device", instead)
        if where.type == "meta":
            raise InputError(
                compose(
                    "load takes a device that holds values",
                    differences=["expected another device, got meta"],
                    instead=instead,
                    page="inputerror",
                )
            )
    source = _path(path, "load", 'load("model.pt")')
    module, metadata, kept = archive.read(source, where)
    try:
        report = Report.from_json(metadata["report"])
        call = CallSchema.from_json(metadata["input_schema"])
        result = ValueSchema.from_json(metadata["output_schema"])
    except (KeyError, TypeError, AttributeError, ValueError, AssertionError) as error:
        raise ArchiveError(
            compose(
                f"{source.name} has metadata that can't be read",
                where=str(source),
                differences=[f"{type(error).__name__}: {error}"],
                instead="the file as save wrote it; export it again",
                page="archiveerror",
            )
        ) from error
    return Exported(module, str(metadata["format"]), report, call, result, kept)
