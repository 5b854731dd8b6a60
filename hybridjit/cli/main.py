"""The commands, their options, and how they end."""

from __future__ import annotations

import importlib
import io
import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence

from .._errors import HybridJitError
from ..export.formats import FORMATS
from .usage import FAILED, INTERRUPTED, USAGE, UsageError, UserCodeError

_TARGET = "a function that returns (model, inputs) or (model, inputs, options)"
_FORMATS = f"one or more of {', '.join(FORMATS)}, or auto; torchscript if absent"
_ENDS = "exit status: 0 fine, 1 the export, the verification or the model's code failed, 2 wrong usage, 130 Ctrl-C"


def parser() -> ArgumentParser:
    """What the command line takes."""
    made = ArgumentParser(
        "hybridjit",
        description="Exports PyTorch models that keep their control flow, and verifies them.",
        epilog=_ENDS,
        formatter_class=RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(metavar="command", required=True)

    def command(name: str, what: str, run: str, more: str = "") -> ArgumentParser:
        added = commands.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.{more}",
            epilog=_ENDS,
            formatter_class=RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    options = "\noptions is a dict of further keywords of hybridjit.export: check_inputs, flags, dynamic_shapes, …"
    export = command("export", "export a model to a file, verified", "work:export_command", options)
    export.add_argument("target", metavar="package.module:build", help=_TARGET)
    export.add_argument("-o", "--output", required=True, metavar="FILE", help="the file to write")
    export.add_argument("--format", nargs="+", metavar="FORMAT", choices=(*FORMATS, "auto"), help=_FORMATS)
    export.add_argument("--branches", nargs="+", metavar="NAME", help="submodules whose ifs stay ifs; or auto")
    export.add_argument("--on-frozen", choices=("guard", "error", "ignore"), help="what becomes of frozen values")
    export.add_argument("--require-coverage", action="store_true", help="refuse a branch that no input takes")
    export.add_argument("--optimize", choices=("freeze", "inference"), help="let torch optimize the file")
    verify = command("verify", "compare a file with its model, again or elsewhere", "work:verify_command", options)
    verify.add_argument("file", help="a file that export wrote")
    verify.add_argument("target", metavar="package.module:build", help=_TARGET)
    for each in (export, verify):
        each.add_argument(
            "--device", dest="devices", nargs="+", metavar="DEVICE", help="where to compare: cpu, cuda, …"
        )
        each.add_argument("--quiet", action="store_true", help="print nothing but errors")
    inspect = command("inspect", "tell what is in a file, without the model", "contents:inspect_command")
    inspect.add_argument("file", help="a file that export wrote")
    inspect.add_argument("--code", action="store_true", help="the program in it as well")
    for each in (export, verify, inspect):
        each.add_argument("--html", metavar="PAGE", help="write the report as a page as well")
    doctor = command("doctor", "tell what works here, with a self-test", "doctor:doctor_command")
    for each in (export, verify, inspect, doctor):
        each.add_argument("--json", action="store_true", help="print JSON instead of text")
    explain = command("explain", "explain a finding or an error", "explain:explain_command")
    explain.add_argument("code", nargs="?", help="HJ101, or InputError; what there is if absent")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: What follows the program's name; that of this process if absent.

    Returns:
        The exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # one that has no "…" is no reason to fail
    given = parser().parse_args(arguments)
    if given.__dict__.get("format") and len(given.format) == 1:
        given.format = given.format[0]
    if given.__dict__.get("branches") == ["auto"]:
        given.branches = "auto"
    module, _, name = given.run.partition(":")
    try:
        status: int = getattr(importlib.import_module(f".{module}", __package__), name)(given)
        sys.stdout.flush()
    except UsageError as error:
        return _failed(error, USAGE)
    except (HybridJitError, UserCodeError) as error:
        return _failed(error, FAILED)
    except KeyboardInterrupt:
        # One that came through code run from text leaves Python set on ending by the signal, whatever is returned;
        # the next such run takes that back.
        exec("")
        return _failed("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of the output has seen enough; Python would complain again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return status


def _failed(error: object, status: int) -> int:
    named = f"{type(error).__name__}: " if isinstance(error, HybridJitError) else ""
    print(f"hybridjit: {named}{error}", file=sys.stderr)
    return status
