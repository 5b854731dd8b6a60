"""Where the devices that a traced model names come from: a tensor that it asked, or its own source.

In a trace both are the same constant. Here the model's calls are seen, and what they say is written into the
trace at once: the device of the tensor that was asked, or `MEANT`, a device that no model names.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .. import _torch
from .._describe import listed
from .._sites import Site, user_site
from . import record
from .calls import call_at

if TYPE_CHECKING:
    import dis

MEANT = torch.device("cpu", 0)
"""The CPU, where the model names it itself or has stored it; `Placement` makes it ``cpu`` again."""


@dataclass(frozen=True)
class Asked:
    """Something about devices that a trace can't tell.

    Attributes:
        what: ``"value"`` for a question with a Python answer (``x.is_cuda``), ``"type"`` for ``x.device.type``,
            ``"stored"`` for a ``torch.device`` that no tensor of this call gave.
        says: The expression.
        site: Where.
    """

    what: str
    says: str
    site: Site


class DeviceOrigins(TorchFunctionMode):
    """Watches a trace for devices.

    A device that a tensor gives is known by its identity: equal ones are made anew each time.

    Args:
        guarding: Whether answers that Python code goes on with are checked in the graph.

    Attributes:
        asked: What can't follow, or may not be meant, in order.
    """

    def __init__(self, guarding: bool = True) -> None:
        super().__init__()
        self._guarding = guarding
        self.asked: list[Asked] = []
        self._given: dict[int, tuple[torch.device, _torch.Value]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if _torch.tracing_state() is None:
            return func(*args, **kwargs)
        if name == "__get__":
            return self._get(func, args, sys._getframe(1))
        given = _device_argument(name, args, kwargs)
        before = _torch.known_value(args[0]) if given is not None and name in ("to", "cpu") else None
        result = call_at(sys._getframe(1), func, args, kwargs)
        if name == "get_device":
            self._freeze("x.get_device()", args[0], "aten::get_device", result)
        elif isinstance(result, torch.device) and (source := self.source_of(args[0] if args else None)) is not None:
            self._given[id(result)] = result, source  # torch.device(x.device)
        elif given is not None and isinstance(result, Tensor):
            self._write(result, given)
            if name in ("to", "cpu") and result is args[0]:
                return _apart(result, before)
        return result

    def _get(self, func: Any, args: Any, caller: FrameType) -> Any:
        result = call_at(caller, func, args, {})
        attribute = getattr(getattr(func, "__self__", None), "__name__", "")
        if isinstance(result, torch.device):
            source = _torch.known_value(args[0])
            if source is not None and source.node().kind() != "prim::Constant":
                self._given[id(result)] = result, source
            self._type_asked(args[0], result.type, caller)
        elif attribute in _QUESTIONS:
            self._freeze(f"x.{attribute}", args[0], f"prim::{attribute}", result)
        return result

    def _freeze(self, says: str, tensor: Tensor, operator: str, answer: object, names: Sequence[str] = ()) -> None:
        """Notes an answer that Python code goes on with, and checks in the graph that it is the same.

        Args:
            says: The question.
            tensor: Of which it was asked.
            operator: What asks it in the graph; empty for whether the device is of one of some types.
            answer: The answer.
            names: These types.
        """
        if not self._note("value", says) or not self._guarding or (value := _torch.known_value(tensor)) is None:
            return
        graph, truth = _torch.current_graph(), _torch.type_named("BoolType")
        if operator:
            got = _torch.insert(graph, operator, [value], _torch.type_named(_TYPES[type(answer)]))
        else:
            asked = [_torch.insert_is_on(graph, value, name) for name in names]
            got = functools.reduce(
                lambda one, other: _torch.insert(graph, "aten::__or__", [one, other], truth),
                [_torch.insert_bool(graph, each) for each in asked],
            )
        same = _torch.insert(
            graph, "aten::eq", [got, _torch.insert_constant(graph, answer)], _torch.type_named("BoolType")
        )
        text = (
            f"hybridjit: value frozen at {self.asked[-1].site}: {says} captured {answer}, got {{}}; "
            "write hybridjit.device_dependent(x, cpu=..., default=...)"
        )
        _torch.insert_raise_unless(graph, same, text, [got])

    def _type_asked(self, tensor: Tensor, answer: str, caller: FrameType) -> None:
        """Notes that the type of a tensor's device goes to Python code; what it is compared with there is checked."""
        compared = _type_questions(caller.f_code).get(caller.f_lasti)
        if compared is None:
            return
        for names in compared:
            self._freeze(f"x.device.type in {listed(map(repr, names))}", tensor, "", answer in names, names)
        if not compared:
            self._note("type", "x.device.type")

    def _note(self, what: str, says: str) -> bool:
        site = user_site(record.current().names)
        if not site.library:  # torch's own code is right on every device
            self.asked.append(Asked(what, says, site))
        return not site.library

    def source_of(self, device: object) -> _torch.Value | None:
        """The graph value of the tensor that gave a device, ``None`` if none did."""
        known = self._given.get(id(device))
        return None if known is None or not _torch.is_in_scope(known[1]) else known[1]

    def _write(self, result: Tensor, given: Any) -> None:
        """Writes into the operation that made a tensor where its device comes from."""
        made = _torch.known_value(result)
        if made is None:
            return
        if isinstance(given, Tensor):
            source = _torch.known_value(given)
        elif isinstance(given, torch.device):
            source = self.source_of(given)
            if source is None and given.type == "cpu":
                self._note("stored", f'torch.device("{given}")')
        else:
            source = None
            if given == "cpu" and given is not sys.intern("cpu"):  # put together, not written so in the source
                self._note("stored", f'"{given}"')
        _torch.write_device(made, source, MEANT)


def _apart(result: Tensor, before: _torch.Value | None) -> Tensor:
    """Tells a copy from its original, which the tracer takes for the copy from here on: here they are one tensor."""
    made = _torch.value_of(result)
    with _torch.paused_tracing():
        copy: Tensor = torch.ops.aten.alias(result)
    _torch.bind_value(copy, made)
    if before is not None:
        _torch.bind_value(result, before)
    return copy


def _device_argument(name: str, args: Any, kwargs: Any) -> Any:
    """What a call is given for a device: a ``torch.device``, text, a tensor to be like; ``None`` for nothing.

    By keyword everywhere, by position in ``to`` alone: a further call that takes one by position must be entered here,
    or its device counts as unnamed. The graph's side of it is `export.operators`.
    """
    if name == "cpu":
        return "cpu"
    if name == "to" and len(args) > 1 and isinstance(args[1], (Tensor, torch.device, str)):
        return args[1]
    given = kwargs.get("device")
    if given is None and name == "new_tensor":
        given = args[0]
    return given if isinstance(given, (Tensor, torch.device, str)) else None


_QUESTIONS = ("is_cuda", "is_cpu", "is_xpu", "is_mps", "is_mtia", "is_xla", "is_meta")
_TYPES: dict[type, str] = {bool: "BoolType", int: "IntType"}


@functools.lru_cache(maxsize=256)
def _type_questions(code: CodeType) -> dict[int, tuple[tuple[str, ...], ...]]:
    """Where code asks for ``x.device.type``, by the place of ``.device``, and the texts that it compares it with.

    In the same expression, or by a variable that it is put into.
    """
    import dis  # by whoever asks, not by everyone who imports this

    steps = [step for step in dis.get_instructions(code) if step.opname not in ("CACHE", "EXTENDED_ARG")]
    found = {}
    for index, (one, after) in enumerate(itertools.pairwise(steps)):
        if (one.argval, after.argval) != ("device", "type"):
            continue
        rest = steps[index + 2 : index + 4]
        texts = [_compared(rest)]
        if rest and rest[0].opname == "STORE_FAST":
            loads = [
                at for at, step in enumerate(steps) if step.opname == "LOAD_FAST" and step.argval == rest[0].argval
            ]
            texts = [_compared(steps[at + 1 : at + 3]) for at in loads]
        found[one.offset] = tuple(dict.fromkeys(each for each in texts if each))
    return found


def _compared(steps: Sequence[dis.Instruction]) -> tuple[str, ...]:
    """What is compared with the text before two instructions: ``== "cpu"``, ``not in ("cpu", "mps")``."""
    if len(steps) < 2 or steps[0].opname != "LOAD_CONST" or steps[1].opname not in ("COMPARE_OP", "CONTAINS_OP"):
        return ()
    held = steps[0].argval
    texts = (held,) if isinstance(held, str) else held if isinstance(held, (tuple, frozenset)) else ()
    return tuple(sorted(each for each in texts if isinstance(each, str)))


_current: ContextVar[DeviceOrigins | None] = ContextVar("hybridjit_origins", default=None)


@contextlib.contextmanager
def following(guarding: bool = True) -> Iterator[DeviceOrigins]:
    """Watches for devices within the body, which makes one trace; see `DeviceOrigins`."""
    origins = DeviceOrigins(guarding)
    token = _current.set(origins)
    try:
        with origins:
            yield origins
    finally:
        _current.reset(token)


def source_of(device: object) -> _torch.Value | None:
    """The graph value of the tensor that gave a device in the trace under way, ``None`` if none is known."""
    origins = _current.get()
    return None if origins is None else origins.source_of(device)
