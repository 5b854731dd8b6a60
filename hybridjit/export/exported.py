"""`Exported`: a verified file as a callable; `load` reads one back."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

import torch
from torch import Tensor, nn

from .. import _torch
from .._describe import describe
from .._errors import ArchiveError, GuardError, HybridJitError, InputError, compose
from ..adapters.inputs import Inputs
from ..control.guards import said_by_guard
from . import archive
from .atomic import write_atomically
from .devices import Runner, device_named, present
from .entries import FORWARD, Entries, Entry, signature_with_flags
from .formats import FORMATS, SUFFIXES, format_named
from .opened import Opened, Waiting
from .typed import Result

if TYPE_CHECKING:
    from .coverage import Points
    from .report import Report
    from .tensors import Kinds

_FIXED = re.compile(r"^(Guard failed: .*|Expected input .*|Runtime assertion failed.*|.*invalid dimensions.*)", re.M)
"""What the other formats say where a size is none that the file is for."""


@dataclass(frozen=True)
class Exported(Generic[Result]):
    """An exported model: the re-loaded file, with the model's own argument and result types.

    It owns its parameters and buffers; the model it came from may change or go. To a type checker a call gives what the
    model's ``forward`` is annotated with: ``Exported[Boxes]``. Without an annotation, and from `load`, that is ``Any``.

    Attributes:
        module: The raw ``ScriptModule``, of flat tensors, as C++ sees it; for another format its ``ExportedProgram``,
            ONNX ``ModelProto`` or compiled package; of several programs or packages a dict by name. Whoever changes
            it (moves it, trains it) changes what this computes, not what `save` writes: that is what was verified.
        format: ``"torchscript"``, ``"pt2"``, ``"onnx"`` or ``"aoti"``.
        report: What was found and verified.
        others: Where several formats were asked for, the others by name; ``report.verdicts`` compares them all.

    Example:
        >>> import torch, hybridjit as hj
        >>> exported = hj.export(torch.nn.Linear(2, 1).eval(), torch.zeros(3, 2))
        >>> exported(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """

    _opened: Any = field(repr=False)
    format: str
    report: Report
    _entries: Entries = field(repr=False)
    _file: archive.KeptFile = field(repr=False, compare=False)
    _points: Points = field(default_factory=dict, repr=False, compare=False)
    _runner: Runner | None = field(default=None, repr=False, compare=False)
    others: Mapping[str, Exported[Result]] = field(default_factory=dict, repr=False, compare=False)
    _kinds: Kinds | None = field(default=None, repr=False, compare=False)

    @property
    def module(self) -> Any:
        """The raw ``ScriptModule``, of flat tensors, as C++ sees it; see above."""
        return self._opened.module if isinstance(self._opened, (Opened, Waiting)) else self._opened

    def __call__(self, /, *args: Any, **kwargs: Any) -> Result:
        """Runs the file on the model's own arguments.

        Args:
            *args: As the model takes them, of a captured structure.
            **kwargs: Likewise; and the flags that are attributes of the model.

        Returns:
            The model's own result type.

        Raises:
            InputError: The structure, a static value, or the combination of flags is none that was captured.
            GuardError: A value that is frozen in the file has another value for this input, or a branch is taken
                that raised when it was recorded: the model's own validation, say.
        """
        result: Result = self._run(FORWARD, Inputs(*args, **kwargs))
        return result

    def _run(self, point: str, inputs: Inputs) -> Any:
        entry, flat = self._entries.choose(point, inputs)
        try:
            return self._run_entry(entry, flat)
        except GuardError:
            for other in self._entries.alike(entry):
                with contextlib.suppress(GuardError):
                    return self._run_entry(other, flat)
            raise

    def _run_entry(self, entry: Entry, flat: Sequence[Tensor]) -> Any:
        try:
            method = self._opened.method(entry.method) if isinstance(self._opened, Opened) else None
            result = entry.run(self._runner or self._opened, flat, method)
        except (_torch.JitError, RuntimeError, AssertionError) as error:
            if isinstance(error, HybridJitError):
                raise
            text = said_by_guard(str(error))
            if not text and self._runner and (fixed := _FIXED.search(str(error))):
                text = fixed[1].rstrip()
            if not text:
                raise
            raise GuardError(f"{text}\n  see docs/errors.md#guarderror") from error
        return entry.result.unflatten(result)

    @property
    def _runs(self) -> nn.Module:
        """What runs the file."""
        module: nn.Module = self._runner or self.module
        return module

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The methods that were exported with ``methods=``."""
        entries = vars(self).get("_entries")  # absent while a copy is made
        if entries is None or name == FORWARD or name not in entries.points():
            there = f"; its methods are {', '.join(entries.points())}" if entries else ""
            there = "; it is called itself: exported(...)" if name == FORWARD else there
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}{there}", name=name, obj=self
            )

        def method(*args: Any, **kwargs: Any) -> Any:
            return self._run(name, Inputs(*args, **kwargs))

        first = entries.of(name)[0]
        method.__name__ = method.__qualname__ = name
        vars(method)["__signature__"] = signature_with_flags(first)
        return method

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._entries.points()} - {FORWARD})

    @property
    def code(self) -> str:
        """The TorchScript source of the file's ``forward``, and of its other methods; of another format its graph."""
        return _torch.script_code(self.module) if self._runner is None else format_named(self.format).code(self.module)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the file: at every moment there is the old file or the new one, whole.

        Its bytes are those that were verified, or loaded, whatever was called or changed since: calls
        that count in a buffer, ``load(path, device=...)``, ``.module.to(...)``.

        Args:
            path: Where to; the suffix must not be another format's (``.pt2`` and ``.onnx`` for TorchScript). A link
                is followed, and the mode of a file that is there stays.

        Raises:
            ArchiveError: The suffix is another format's, or the file can't be written.
            InputError: ``path`` is no path.
        """
        target = _path(path, "save", f'exported.save("model{SUFFIXES[self.format][0]}")')
        archive.check_suffix(target, self.format)
        write_atomically(self._file, target)

    def save_triton(self, path: str | os.PathLike[str], *, version: int = 1) -> None:
        """Writes the file as a model of a Triton Inference Server's repository, with its ``config.pbtxt``.

        ``forward`` is served: its tensors under the names of the model's arguments, sizes -1 where verified calls
        have different ones. What is added at the end of the configuration stays when the model is saved there again.

        Args:
            path: The model's folder in the repository; its name is the model's.
            version: The version, from 1: the folder that the file goes into.

        Raises:
            UnsupportedError: Triton can't serve it: the format, flags, a scalar, a dtype.
            ArchiveError: A configuration for other tensors is there, or the files can't be written.
            InputError: ``path`` is no path, ``version`` no version.

        Example:
            >>> import os, tempfile, torch, hybridjit as hj
            >>> exported = hj.export(torch.nn.Linear(2, 1).eval(), torch.zeros(3, 2))
            >>> models = tempfile.mkdtemp()
            >>> exported.save_triton(os.path.join(models, "linear"))
            >>> sorted(os.listdir(os.path.join(models, "linear")))
            ['1', 'config.pbtxt']
        """
        from .triton import write_model  # seldom wanted

        write_model(self, self._entries, self._kinds, _path(path, "save_triton", 'save_triton("models/name")'), version)


def is_taken(name: str) -> bool:
    """Whether an exported model, or its script module, has something else by that name than a method of the model."""
    return (
        hasattr(Exported, name)
        or name in Exported.__dataclass_fields__
        or hasattr(_torch.LoadedModule, name)
        or (name in ("model", "training"))
    )


def metadata_of(report: Report, entries: Entries, points: Points, kinds: Kinds | None = None) -> dict[str, Any]:
    """The JSON data that travels in the file; on its top level the schemas of the first entry, and its tensors."""
    from .coverage import points_to_json

    first = next(iter(entries)).to_json()
    return {
        "version": archive.VERSION,
        "format": report.format,
        **{name: first[name] for name in ("input_schema", "output_schema", "output_names")},
        "entries": [entry.to_json() for entry in entries] if len(entries) > 1 or next(iter(entries)).flags else [],
        "points": points_to_json(points),
        **({"tensors": kinds.to_json()} if kinds else {}),
        "report": report.to_json(),
    }


def _entries_of(metadata: Mapping[str, Any]) -> Entries:
    """The entries that `metadata_of` wrote; of a file with but one, that."""
    rows = metadata.get("entries") or [{**metadata, "point": FORWARD, "method": FORWARD, "flags": [], "keyed": False}]
    return Entries(tuple(Entry.from_json(row) for row in rows))


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
                    differences=["expected another device, got meta: TorchScript reads no tensors without memory"],
                    instead=instead,
                    page="inputerror",
                )
            )
    source = _path(path, "load", 'load("model.pt")')
    module, metadata, kept = archive.read(source, where, open_as)
    report, entries, points, kinds = _parts_of(metadata, source)
    runner = None
    if metadata["format"] != "torchscript":
        module, runner = module.raw, module.runner
    return Exported(module, str(metadata["format"]), report, entries, kept, points, runner, _kinds=kinds)


def peek(path: str | os.PathLike[str]) -> tuple[Report, Entries]:
    """Reads what a file tells of itself, without opening the program in it: nothing that runs it is needed.

    Args:
        path: A file that `Exported.save` wrote.

    Raises:
        ArchiveError: The file is missing, truncated, altered, or not hybridjit's.
        InputError: ``path`` is no path.
    """
    source = _path(path, "peek", 'peek("model.pt")')
    _, metadata, _ = archive.read(source, None, lambda path, metadata, device: None)
    report, entries, *_ = _parts_of(metadata, source)
    return report, entries


def _parts_of(metadata: Mapping[str, Any], source: Path) -> tuple[Report, Entries, Points, Kinds | None]:
    """What `metadata_of` wrote.

    Raises:
        ArchiveError: It is not that.
    """
    from .coverage import points_from_json
    from .report import Report
    from .tensors import Kinds

    try:
        report = Report.from_json(metadata["report"])
        kinds = Kinds.from_json(metadata["tensors"]) if "tensors" in metadata else None
        return report, _entries_of(metadata), points_from_json(metadata.get("points", {})), kinds
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


def open_as(path: Path, metadata: Mapping[str, Any], device: torch.device | None) -> Any:
    """What a file holds, by the format that its metadata tell."""
    format = metadata.get("format", "torchscript")
    if format == "torchscript":
        return Opened(path, device)
    if format not in FORMATS:
        raise archive.broken(path, f"it says that it is of format {format!r}, which there is not")
    if format == "aoti" and path.suffix.lower() not in SUFFIXES[format]:  # machine code, which no .pt may be
        raise archive.broken(path, f"it says that it is of format {format!r}, whose suffix is another")
    return format_named(metadata["format"]).load(path, metadata, device)
