"""What a model and its file compute on the way, and where they part first."""

from __future__ import annotations

import functools
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from .. import _torch
from .._describe import describe
from .._sites import Site, user_site
from ..adapters.tree import scan
from .compare import compare
from .operators import every_node, is_tensor

_MOST = 256 << 20
"""Bytes of values that are kept of each side; what comes later is not compared."""


@dataclass(frozen=True)
class Event:
    """An operation that the model ran in eager mode.

    Attributes:
        name: Its name: ``torch.mul``, ``torch.nn.functional.relu``.
        site: Where it was called.
        given: The tensors that it took, as they were.
        made: The tensors that it gave.
        after: The operations, by number, that gave what it took.
        numbers: The Python numbers that it took.
    """

    name: str
    site: Site
    given: tuple[Tensor, ...]
    made: tuple[Tensor, ...]
    after: tuple[int, ...] = ()
    numbers: tuple[float, ...] = ()


@dataclass(frozen=True)
class Parting:
    """The first operation of the model whose value the file does not have.

    Attributes:
        event: The operation.
        made: Its value.
        says: What the model has there, and what the file.
        got: What the file has there of the same kind, if it has something.
    """

    event: Event
    made: Tensor
    says: str
    got: Tensor | None = None


class _Watching(TorchFunctionMode):
    """Notes what a model runs."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()
        self._names = names
        self._room = _MOST
        self._makers: dict[int, tuple[weakref.ref[Tensor], int]] = {}
        self.events: list[Event] = []

    def makers(self, values: Sequence[Any]) -> tuple[int, ...]:
        """The operations that gave these tensors, by number."""
        known = [(tensor, self._makers.get(id(tensor))) for tensor in _tensors(values)]
        return tuple(maker[1] for tensor, maker in known if maker is not None and maker[0]() is tensor)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        taken = [*args, *(kwargs or {}).values()]
        given, after = tuple(self._kept(taken)), self.makers(taken)  # before an operation in place
        result = func(*args, **(kwargs or {}))
        made = tuple(self._kept([result]))
        if made:
            name = resolve_name(func) or getattr(func, "__name__", "an operation")
            for tensor in _tensors([result]):
                self._makers[id(tensor)] = weakref.ref(tensor), len(self.events)
            numbers = tuple(each for each in taken if isinstance(each, (int, float)))
            self.events.append(Event(name, user_site(self._names), given, made, after, numbers))
        return result

    def _kept(self, values: Sequence[Any]) -> Iterator[Tensor]:
        for tensor in _tensors(values):
            if self._room > 0 and _is_plain(tensor):
                self._room -= tensor.nbytes
                yield tensor.detach().clone()


def _tensors(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type != "meta"


@dataclass(frozen=True)
class Watched:
    """What a model ran.

    Attributes:
        events: Every operation, in order.
        result: What it gave.
        into: The operations, by number, that the result was made of.
    """

    events: Sequence[Event]
    result: Any
    into: frozenset[int]


def watched(names: Mapping[int, str], run: Callable[[AbstractContextManager[Any]], Any]) -> Watched:
    """What a model runs, in order.

    Args:
        names: ``id(module)`` to module path.
        run: Runs it within a context; what it raises passes.
    """
    watching = _Watching(names)
    result = run(watching)
    tensors: list[Tensor] = []
    scan(result, tensors, "result")
    into: set[int] = set()
    new = list(watching.makers(tensors))
    while new:
        number = new.pop()
        if number not in into:
            into.add(number)
            new += watching.events[number].after
    return Watched(watching.events, result, frozenset(into))


@dataclass
class Values:
    """What a file computed, by the user's lines and by kind.

    Attributes:
        by_line: In the order in which they came.
        full: Whether not all of it was kept.
    """

    by_line: dict[tuple[str, int], list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    full: bool = False

    def at(self, site: Site) -> list[Tensor]:
        """The values of one line."""
        return self.by_line.get((site.file, site.line), [])

    def has(self, tensor: Tensor, site: Site) -> bool:
        """Whether some value is this one; those of the line come first."""
        rest = (each for line, every in self.by_line.items() if line != (site.file, site.line) for each in every)
        return any(same(tensor, each) for each in (*self.at(site), *rest))


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors agree as a check has it."""
    if (one.dtype, one.shape, one.device) != (other.dtype, other.shape, other.device):
        return False
    return torch.equal(one, other) or not compare([""], [one], [other]).differences


_receivers: list[Callable[[Tensor, int], None]] = []


@functools.cache
def _library() -> Any:
    """The operation that hands values out of a file that runs; it says that it writes, or it would be left out."""
    make: Any = torch.library.Library
    library = make("hybridjit", "FRAGMENT")
    library.define("observe(Tensor(a!) value, int number) -> ()")
    library.impl("observe", lambda value, number: _receivers[-1](value, number), "CompositeExplicitAutograd")
    return library


def values_of(module: _torch.ScriptModule, run: Callable[[_torch.ScriptModule], object]) -> Values:
    """What a file computes on the way.

    Args:
        module: A copy of it that has not run yet, which this is the end of.
        run: Runs it; where it raises, the values up to there are told.
    """
    _library()
    lines: list[tuple[str, int]] = []
    for owner in module.modules():
        for graph in _torch.method_graphs(owner).values() if isinstance(owner, _torch.ScriptModule) else ():
            for node in list(every_node(graph)):
                _observe(graph, node, lines)
    found = Values()
    room = _MOST

    def receive(value: Tensor, number: int) -> None:
        nonlocal room
        if room > 0 and _is_plain(value):
            room -= value.nbytes
            found.by_line[lines[number]].append(value.detach().clone())
        found.full |= room <= 0

    _receivers.append(receive)
    try:
        with torch.no_grad(), _torch.unoptimized():
            run(module)
    except (_torch.JitError, RuntimeError):  # it is asked for what it computes before it fails
        pass
    finally:
        _receivers.pop()
    return found


_SILENT = ("prim::Constant", "prim::GetAttr", "prim::Uninitialized", "prim::If", "prim::Loop", "prim::CallMethod")


def _observe(graph: Any, node: Any, lines: list[tuple[str, int]]) -> None:
    if node.kind() in _SILENT:
        return
    file, line, _ = _torch.source_of(node)
    after = node
    for value in node.outputs():
        if file and is_tensor(value):
            number = _torch.insert_constant(graph, len(lines))
            lines.append((file, line))
            number.node().moveAfter(after)
            after = graph.create("hybridjit::observe", [value, number], 0)
            after.insertAfter(number.node())


def first_parting(model: Watched, values: Values) -> Parting | None:
    """The first operation of the model with a value that the file has nowhere.

    Of those that the result was made of, since a file does without the others; only if all these agree, of the rest,
    which may have gone into buffers.

    Args:
        model: What the model ran.
        values: What the file computed.

    Returns:
        ``None`` if there is none, as far as values were kept.
    """
    if not values.by_line:
        return None
    numbers = sorted(range(len(model.events)), key=lambda number: number not in model.into)
    for event in (model.events[number] for number in numbers):
        if any(same(given, made) for given in event.given for made in event.made):
            continue  # it changes nothing, and a file may do without
        for made in event.made:
            if made.numel() and not values.has(made, event.site):
                return None if values.full else _parting(event, made, values.at(event.site))
    return None


def _parting(event: Event, made: Tensor, there: Sequence[Tensor]) -> Parting:
    kind = made.dtype, made.shape, made.device
    alike = [each for each in there if (each.dtype, each.shape, each.device) == kind]
    if alike:
        compared = [compare(["the file's value"], [made], [each]) for each in alike]
        best = min(range(len(alike)), key=lambda index: compared[index].max_abs_error or 0.0)
        return Parting(event, made, f"{describe(made)}: {compared[best].differences[0]}", alike[best])
    if there:
        kinds = ", ".join(dict.fromkeys(describe(each) for each in there))
        return Parting(event, made, f"the model has {describe(made)} there, the file {kinds}")
    return Parting(event, made, f"the model has {describe(made)} there, the file does not run this line")
