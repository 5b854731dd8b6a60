"""``export`` and ``verify``: a model from a build function, and a file."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from .._errors import ArchiveError, HybridJitError, VerificationError, compose
from ..export.archive import check_suffix
from ..export.export import export
from ..export.exported import Exported, load
from ..export.formats import SUFFIXES, read_formats
from ..export.report import Report
from ..export.verify import verify
from .progress import Progress
from .target import built
from .usage import FINE, UsageError

_OPTIONS = ("format", "branches", "on_frozen", "devices", "require_coverage", "optimize")
"""Keywords of `export` that the command line has, too; what it says goes before what the function says."""


def export_command(given: Namespace) -> int:
    """Exports what a build function makes, and writes the file once it is verified."""
    try:
        with Progress(given.quiet) as progress:
            exported, written = _exported(given, progress)
    except HybridJitError as error:
        report = getattr(error, "report", None)
        if report is not None:
            _show(report, given, text=False)  # in words the error says the same
        raise
    for path in written:
        progress.note(f"wrote {path} ({path.stat().st_size:,} bytes)")
    _show(exported.report, given)
    return FINE


def _exported(given: Namespace, progress: Progress) -> tuple[Exported, list[Path]]:
    target = Path(given.output)
    _check_folders(target, given.html)
    progress.stage(f"call {given.target}")
    made = built(given.target)
    options = {**made.options, **{name: value for name in _OPTIONS if (value := getattr(given, name))}}
    formats = read_formats(options.get("format", "torchscript"))
    _check_names(target, formats)
    exported = export(made.model, made.inputs, **options)
    every = {exported.format: exported, **exported.others}
    paths = _paths(target, list(every), formats)
    progress.stage("write")
    for name, path in paths.items():
        every[name].save(path)
    return exported, list(paths.values())


def verify_command(given: Namespace) -> int:
    """Compares a file with the model that a build function makes, on its inputs."""
    with Progress(given.quiet) as progress:
        _check_folders(given.html)
        progress.stage(f"load {given.file}")
        exported = load(given.file)
        progress.stage(f"call {given.target}")
        made = built(given.target)
        report = verify(
            exported,
            made.model,
            made.calls(),
            given.devices or made.options.get("devices"),
            methods=made.options.get("methods"),
            rtol=made.options.get("rtol"),
            atol=made.options.get("atol"),
        )
    _show(report, given)
    if not report.ok:
        differences = [f"{check.device} {check.where}: {row}" for check in report.checks for row in check.differences]
        text = f"{Path(given.file).name} gives something else than the model of {given.target}"
        instead = "an export of this model as it is now"
        raise VerificationError(
            compose(text, differences=differences, instead=instead, page="verificationerror"), report
        )
    return FINE


def _check_folders(*paths: str | Path | None) -> None:
    """Refuses before the work what could not be written after it.

    Raises:
        ArchiveError: A folder is missing, or can't be written.
    """
    for path in (path for path in paths if path):
        folder = Path(path).resolve().parent
        if folder.is_dir() and os.access(folder, os.W_OK):
            continue
        reason = "the folder can't be written" if folder.is_dir() else "there is no such folder"
        raise ArchiveError(
            compose(
                f"{Path(path).name} could not be written: {reason}",
                where=str(folder),
                instead="a path in a folder that exists and can be written",
                page="archiveerror",
            )
        )


def _check_names(target: Path, formats: Sequence[str]) -> None:
    """Refuses a name that is another format's, and one name for two files.

    Raises:
        ArchiveError: The suffix is another format's.
        UsageError: Two files would have one name.
    """
    if formats[0] != "auto":
        check_suffix(target, formats[0])
    paths = _paths(target, formats, formats)
    if len(set(paths.values())) < len(paths):
        raise UsageError(
            compose(
                "two of the formats have files of one name",
                differences=[f"{name}: {path}" for name, path in paths.items()],
                instead="two exports, each with its own -o",
            )
        )


def _paths(target: Path, made: Sequence[str], formats: Sequence[str]) -> dict[str, Path]:
    """Where each format's file goes: the first under the name that was given, the others beside it."""
    paths = {}
    for index, name in enumerate(made):
        own = SUFFIXES.get(name, (target.suffix,))  # "auto" itself has none
        asked = index == 0 and tuple(formats) != ("auto",)
        paths[name] = target if asked or target.suffix.lower() in own else target.with_suffix(own[0])
    return paths


def _show(report: Report, given: Namespace, *, text: bool = True) -> None:
    if given.html:
        write_page(given.html, report)
    if given.json:
        print(report.to_json())
    elif text and not given.quiet:
        print(report)


def write_page(path: str, report: Report) -> None:
    """Writes a report's page.

    Raises:
        ArchiveError: It can't be written.
    """
    try:
        Path(path).write_text(report.to_html(), encoding="utf-8")
    except OSError as error:
        raise ArchiveError(
            compose(
                f"{path} could not be written: {error.strerror or error}",
                instead="--html with a path in a folder that exists and can be written",
                page="archiveerror",
            )
        ) from error
