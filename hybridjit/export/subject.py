"""What a format other than TorchScript is asked to do, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..adapters.schema import CallSchema, ValueSchema
from .devices import Runner
from .plan import Planned
from .report import Branch, Finding, Guard, Scripted, Static
from .request import Request
from .shapes import Variable
from .sides import Noted
from .state import ModelState


@dataclass(frozen=True)
class Subject:
    """One entry: the model and the call that a format captures.

    Attributes:
        request: What was asked for.
        model: The model, ready.
        state: Its state; the caller puts the model back.
        planned: The method, the flags, which are set on the model, and the calls.
        example: The name of the call that torch.export captures: sizes of 0 and 1 are fixed in what it makes.
        call: The structure of the calls.
        flat: The tensors of the example.
        expected: What the model gives for it in eager mode.
        several: Whether the file has other entries as well.
        from_zero: Whether sizes of 0 and 1 are to be among those that torch.export captures for.
    """

    request: Request
    model: nn.Module
    state: ModelState
    planned: Planned
    example: str
    call: CallSchema
    flat: tuple[Tensor, ...]
    expected: Any
    several: bool = False
    from_zero: bool = False


@dataclass(frozen=True)
class Written:
    """What was captured for an entry, and what was seen on the way.

    Attributes:
        call: The structure of the arguments.
        result: The structure of the result.
        variables: The sizes that may change.
        operations: How many operations the graph has.
        findings: What is to be known about it.
        statics: Values frozen on purpose.
        scripted: Pieces recorded with their control flow.
        guards: Values that must be the captured ones.
        lines: For a size, as ``x.size()[0]``, the line that fixed it.
        metadata: What the format itself wants back of the entry when the file is loaded.
        program: The ``ExportedProgram`` that it comes from, if it does.
        points: The branches and loops of that.
        branches: Otherwise the branches, and what checks of the capture itself took.
    """

    call: CallSchema
    result: ValueSchema
    variables: tuple[Variable, ...] = ()
    operations: int = 0
    findings: tuple[Finding, ...] = ()
    statics: tuple[Static, ...] = ()
    scripted: tuple[Scripted, ...] = ()
    guards: tuple[Guard, ...] = ()
    lines: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    program: Any = None
    points: Sequence[Noted] = ()
    branches: tuple[Branch, ...] = ()


@dataclass(frozen=True)
class CapturedEntry:
    """An entry that goes into a file.

    Attributes:
        name: What its program is called in the file.
        subject: The entry.
        made: What the route made of it.
        written: What was seen on the way.
    """

    name: str
    subject: Subject
    made: Any
    written: Written


@dataclass(frozen=True)
class Loaded:
    """A file that was loaded.

    Attributes:
        raw: What the format's own loader gives.
        runner: What runs it.
    """

    raw: Any
    runner: Runner


class Route(Protocol):
    """A way to a file of some format.

    Attributes:
        name: What messages call it.
        from_zero: Whether it is tried with sizes from 0 on first, of which torch.export knows less.
    """

    name: str
    from_zero: bool

    def capture(self, subject: Subject, specs: Sequence[Mapping[int, Any]]) -> tuple[Any, Written]:
        """Captures an entry of the model, which has its flags set.

        Args:
            subject: The entry.
            specs: For each tensor what is declared of its dimensions, in torch.export's vocabulary.

        Returns:
            What the format packs, and what was seen.

        Raises:
            CaptureError: It can't be captured so.
        """
        ...


class Format(Protocol):
    """A format; a module of this package has these as functions."""

    def check(self, subject: Subject) -> None:
        """Refuses what the format can't hold."""
        ...

    def routes(self, subject: Subject) -> Sequence[Route]:
        """The ways to a file, the best first."""
        ...

    def places(self, home: torch.device) -> list[torch.device] | None:
        """The devices that a file can run on; ``None`` for any."""
        ...

    def pack(self, entries: Sequence[CapturedEntry], path: Path) -> Mapping[str, Any]:
        """Writes a file of all entries with one set of weights.

        Args:
            entries: The entries.
            path: Where to.

        Returns:
            What the format wants back when the file is loaded.
        """
        ...

    def load(self, path: Path, metadata: Mapping[str, Any], device: torch.device | None) -> Loaded:
        """Reads a file."""
        ...

    def append_metadata(self, path: Path, metadata: Mapping[str, Any]) -> None:
        """Adds the metadata to a file, whose other bytes stay what they were."""
        ...

    def code(self, raw: Any) -> str:
        """The file as text."""
        ...
