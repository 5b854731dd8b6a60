"""`Exported`: a verified file as a callable; `load` reads one back."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._errors import ArchiveError, GuardError, InputError, compose
from ..adapters.inputs import Inputs
from ..adapters.schema import CallSchema, ValueSchema
from . import archive
from .report import Report

_GUARD = re.compile(r"hybridjit: (value frozen at .*)")


@dataclass(frozen=True)
class Exported:
    """An exported model: the re-loaded file, with the model's own argument and result types.

    It owns its parameters and buffers; the model it came from may change or go.

    Attributes:
        module: The raw ``ScriptModule``, of flat tensors, as C++ sees it.
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
    _file: Path | None = field(default=None, repr=False)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the file on the model's own arguments.

        Args:
            *args: As the model takes them, of the captured structure.
            **kwargs: Likewise.

        Returns:
            The model's own result type.

        Raises:
            InputError: The structure, or a static value, is not the captured one.
            GuardError: A value that is frozen in the file has another value for this input.
        """
        flat = self._call.flatten(Inputs(*args, **kwargs))
        try:
            result = self.module(*flat)
        except _torch.JitError as error:
            guard = _GUARD.search(str(error))
            if guard is None:
                raise
            raise GuardError(f"{guard[1]}\n  see docs/errors.md#guarderror") from error
        return self._result.unflatten((result,) if isinstance(result, Tensor) else tuple(result))

    @property
    def code(self) -> str:
        """The TorchScript source of the file's ``forward``."""
        return _torch.script_code(self.module)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file: at every moment there is the old file or the new one, whole.

        Args:
            path: Where to; the suffix must not be another format's (``.pt2``, ``.onnx``).

        Raises:
            ArchiveError: The suffix is another format's, or the file can't be written.
        """
        target = Path(path)
        archive.check_suffix(target)
        if self._file is not None and self._file.exists():  # a copy may outlive the folder
            archive.write_atomically(self._file, target)
            return
        with tempfile.TemporaryDirectory(prefix="hybridjit-") as folder:
            again = Path(folder) / "module.pt"
            _torch.save_script(self.module, again, {})
            archive.append_metadata(again, metadata_of(self.report, self._call, self._result))
            archive.write_atomically(again, target)


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


def own_folder(exported: Exported, folder: Path) -> None:
    """Ties a temporary folder's life to an `Exported`."""
    weakref.finalize(exported, remove_folder, str(folder))


def remove_folder(folder: str) -> None:
    """Removes a temporary folder and what is in it."""
    shutil.rmtree(folder, ignore_errors=True)


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
        InputError: The device is none.

    Example:
        >>> import os, tempfile, torch, hybridjit as hj
        >>> path = os.path.join(tempfile.mkdtemp(), "linear.pt")
        >>> hj.export(torch.nn.Linear(2, 1).eval(), torch.zeros(3, 2)).save(path)
        >>> hj.load(path).report.ok
        True
    """
    try:
        where = None if device is None else torch.device(device)
        if where is not None:
            if where.type == "meta":
                raise RuntimeError("expected a device that holds values, got meta")
            torch.empty(0, device=where)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            compose(
                "load takes a device",
                differences=[str(error).splitlines()[0]],
                instead='load(path, device="cpu")',
                page="inputerror",
            )
        ) from None
    source = Path(path)
    module, metadata = archive.read(source, where)
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
    return Exported(module, str(metadata["format"]), report, call, result)
