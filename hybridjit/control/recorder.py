"""What happens inside the blocks of a trace: which tensors are made in them, what may not leave or change."""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from typing_extensions import Protocol

from .. import _torch
from .._describe import describe
from .._errors import CaptureError, compose
from .._sites import user_site
from . import record
from .calls import at_line_of, name_values
from .structure import tensors_of


@dataclass(frozen=True)
class Call:
    """One operation that ran.

    Attributes:
        func: What was called.
        result: What it gave.
        touched: The memory that it made, gave a view of, or changed.
        made: The memory that it made.
    """

    func: Any
    result: Any
    touched: frozenset[int] = frozenset()
    made: frozenset[int] = frozenset()


class Path(Protocol):
    """One run of a function whose Python ``if``s become branches."""

    @property
    def supposes(self) -> bool:
        """Whether what it does is what eager mode does elsewhere, and not on the example."""

    def call(self, func: Any, args: Any, run: Callable[[], Call]) -> Any:
        """Gives what the operation gave in an earlier run, or runs it."""

    def own_memory(self, storage: int) -> None:
        """Ends the run, to begin it again with memory of its own, if an earlier run made that which is to change."""


@dataclass(eq=False)
class Frame:
    """One block under construction.

    Attributes:
        says: What the block is, for messages: ``true_fn (tall at model.py:41)``.
        path: The path that runs in it, or ``None``.
        storages: Memory that was made in it.
        made: Tensors that were made in it.
        exposed: Tensors from outside whose memory NumPy got, and what it held.
        ends: Whether nothing follows the block, so that it may change whatever it likes.
        erased: How often what a path had recorded into it was taken out again, for the path to begin anew.
        rebound: Of a block that ends: the tensors that are known by another value since, and the one before.
    """

    says: str
    path: Path | None = None
    ends: bool = False
    erased: int = 0
    rebound: list[tuple[Tensor, Any]] = field(default_factory=list)
    storages: list[int] = field(default_factory=list)
    made: list[weakref.ref[Tensor]] = field(default_factory=list)
    exposed: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class Recorder(TorchFunctionMode):
    """Watches every operation of a trace while blocks or paths are recorded.

    One for all nested blocks, so that an operation costs the same at any depth.

    Attributes:
        frames: The blocks under construction, the innermost last; the first is the trace itself.
        decided: The predicates that are known to hold, or not to, where recording goes on.
        repeating: Whether what runs is in the graph already, and runs aside for another example.
        told_eager: How often code on a side that the example does not take was told that nothing is traced.
        raised_within: How often what a side of a branch raised was taken for what all around it does.
        lenient: Whether what the example raises ends but the side of the branch that it is on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = [Frame("the trace")]
        self.decided: dict[Any, bool] = {}
        self.repeating: bool = False
        self.told_eager: int = 0
        self.raised_within: int = 0
        self.lenient: bool = False
        self._depths: dict[int, int] = {}
        self._example: Frame | None = None
        self._grad = torch.is_grad_enabled()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        state = _torch.tracing_state()
        if state is None:  # an example is computed
            return self._run_example(func, args, kwargs)
        caller = sys._getframe(1)
        try:
            return self.through_path(func, args, lambda: self._run(func, args, kwargs, caller))
        except Exception:
            _torch.resume_tracing(state)
            raise

    def _run_example(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        if self._example is not None:
            given = {id(tensor) for tensor in tensors_of((args, kwargs))}
            self._example.made += [weakref.ref(each) for each in tensors_of(result) if id(each) not in given]
        return result

    def through_path(self, func: Any, args: Any, run: Callable[[], Call]) -> Any:
        """Runs something as one operation of the path under way, if there is one."""
        path = self.frames[-1].path
        return run().result if path is None else path.call(func, args, run)

    @property
    def on_path(self) -> bool:
        """Whether a path is under way."""
        return self.frames[-1].path is not None

    def whole(self, run: Callable[[], Any]) -> Any:
        """Runs what a path takes for one operation: none of those that it is made of is another."""
        frame = self.frames[-1]
        path, frame.path = frame.path, None
        try:
            return run()
        finally:
            frame.path = path

    def _run(self, func: Any, args: Any, kwargs: Any, caller: FrameType) -> Call:
        frame, depth = self.frames[-1], self._floor
        if not depth and frame.path is None:
            return Call(func, at_line_of(caller)(func, args, kwargs))
        given = tensors_of((args, kwargs))
        keys = {id(tensor): _torch.storage_key(tensor) for tensor in given}
        name = getattr(func, "__name__", str(func))
        in_place = _torch.is_in_place(func)
        for tensor in given[:1] if in_place else tensors_of(kwargs.get("out")):
            if frame.path is not None and self._depth(keys[id(tensor)]) < depth:
                # Before it runs: the example's data are still whole, and the path may begin again.
                frame.path.own_memory(keys[id(tensor)])
        before = [(_version(tensor), _torch.known_value(tensor)) for tensor in given]
        name_values(given, [value for _, value in before], caller)
        result = at_line_of(caller)(func, args, kwargs)
        new = isinstance(result, Tensor) and id(result) not in keys
        if new and self._grad and not torch.is_grad_enabled() and result.is_floating_point():
            # A trace has no operation for no_grad. Whether the file's inputs need a gradient, the example's don't say.
            result = at_line_of(caller)(Tensor.detach, (result,), {})
        touched = set()
        for tensor, (version, value) in zip(given, before, strict=True):
            if _version(tensor) != version:
                touched.add(keys[id(tensor)])
                if frame.ends and value is not None:
                    frame.rebound.append((tensor, value))
                if self._depth(keys[id(tensor)]) < depth:
                    self._refuse_write(tensor, name, frame)
        if name in _EXPOSES and depth and self._depth(keys[id(given[0])]) < depth:
            with _torch.paused_tracing():
                frame.exposed.append((given[0], given[0].detach().clone()))
        values = {id(tensor): value for tensor, (_, value) in zip(given, before, strict=True)}
        made = set()
        for tensor in tensors_of(result):
            key = _torch.storage_key(tensor)
            touched.add(key)
            if id(tensor) in values:
                if in_place or values[id(tensor)] is None:
                    continue
                # The tracer takes the argument for the result, which is known inside this block only.
                made_here = _torch.known_value(tensor)
                _torch.bind_value(tensor, values[id(tensor)])
                if tensor is not result or made_here is None or name == "__get__":
                    continue
                result = tensor = renamed(tensor, made_here)
            frame.made.append(weakref.ref(tensor))
            # Memory that no argument has is new, though a tensor that is gone may have had it before; a
            # getter (x.grad) alone gives what was there.
            if key not in keys.values() and name != "__get__":
                self._depths[key] = depth
                frame.storages.append(key)
                made.add(key)
        return Call(func, result, frozenset(touched), frozenset(made))

    @property
    def supposes(self) -> bool:
        """Whether a side of a branch is being recorded that the example does not take."""
        return any(frame.path is not None and frame.path.supposes for frame in self.frames)

    @property
    def depth(self) -> int:
        """In how many blocks recording goes on."""
        return len(self.frames) - 1

    @property
    def _floor(self) -> int:
        """The depth that memory must have for a change to be allowed."""
        return max(index for index, frame in enumerate(self.frames) if not frame.ends)

    def _depth(self, storage: int) -> int:
        return self._depths.get(storage, 0)

    def _refuse_write(self, tensor: Tensor, operation: str, frame: Frame) -> NoReturn:
        with _torch.paused_tracing():
            got = describe(tensor)
        raise CaptureError(
            compose(
                f"{frame.says} changes a tensor in place that was made outside of it",
                where=str(user_site(record.current().names)),
                differences=[f"{operation} changes {got}"],
                instead="return the new value, and only read what comes from outside:\n"
                "y = hj.cond(p, lambda: y + 1, lambda: y)",
                page="branches-that-write",
            )
        )

    @contextlib.contextmanager
    def block(self, says: str, *, ends: bool = False) -> Iterator[Frame]:
        """Opens the frame of a block."""
        frame = Frame(says, ends=ends)
        self.frames.append(frame)
        try:
            yield frame
            for tensor, held in frame.exposed:
                with _torch.paused_tracing():
                    same = torch.equal(tensor.detach().nan_to_num(), held.nan_to_num())
                if not same:
                    self._refuse_write(tensor, "numpy", frame)
        finally:
            self.frames.pop()
            for tensor, value in reversed(frame.rebound):
                _torch.bind_value(tensor, value)  # what follows in the graph does not follow this block
            for key in frame.storages:
                if self._depth(key) > self.depth:
                    del self._depths[key]

    @contextlib.contextmanager
    def example_of(self, frame: Frame) -> Iterator[None]:
        """Runs the body eagerly, and takes what it makes for made in a frame: the later rounds of a loop."""
        before, self._example = self._example, frame
        try:
            with _torch.paused_tracing():
                yield
        finally:
            self._example = before

    def leniently(self, run: Callable[[], Any]) -> Any:
        """Runs what the example's data contradict and have raise: there the other sides of branches count, too."""
        before, self.lenient = self.lenient, True
        try:
            return run()
        finally:
            self.lenient = before

    @contextlib.contextmanager
    def assuming(self, pred: Tensor, holds: bool) -> Iterator[None]:
        """Knows within the body that a predicate holds, or does not."""
        before = self.decided
        self.decided = before | {decision(pred): holds}
        try:
            yield
        finally:
            self.decided = before

    @contextlib.contextmanager
    def repeat(self) -> Iterator[None]:
        """Knows that the body does what is in the graph already."""
        before, self.repeating = self.repeating, True
        try:
            yield
        finally:
            self.repeating = before

    def disown(self, storages: Iterable[int]) -> None:
        """Takes memory for made outside of the innermost block."""
        for key in storages:
            self._depths.pop(key, None)

    def adopt(self, tensors: Sequence[Tensor], inner: Frame | None = None) -> None:
        """Takes tensors for made in the innermost block, though no operation made them there."""
        frame, depth = self.frames[-1], self.depth
        for tensor in tensors:
            with _torch.unwatched():
                key = _torch.storage_key(tensor)
            if depth and (inner is None or key in inner.storages):
                self._depths[key] = depth
                frame.storages.append(key)
            frame.made.append(weakref.ref(tensor))

    def seal(self, frame: Frame) -> None:
        """Makes tensors that outlive their block raise when they are used outside of it.

        Those that autograd alone keeps have no name left, so that nobody can use them.
        """
        graph = _torch.current_graph()
        for reference in frame.made:
            tensor = reference()
            if tensor is not None and sys.getrefcount(tensor) > 2:
                text = f"hybridjit: a tensor made inside {frame.says} is used outside of it; return it instead"
                _torch.bind_value(tensor, _torch.insert_unusable(graph, text))


def renamed(tensor: Tensor, value: Any) -> Tensor:
    """The same data under another name: what ``x.contiguous()`` gives, which is ``x`` itself where it is contiguous."""
    with _torch.paused_tracing(), _torch.unwatched():
        made: Tensor = tensor.detach() if tensor.is_leaf else torch.ops.aten.alias(tensor)
    _torch.bind_value(made, value)
    return made


def _version(tensor: Tensor) -> int:
    with _torch.unwatched():  # each of the modes below would be asked
        return 0 if tensor.is_inference() else tensor._version


def decision(pred: Tensor) -> tuple[object, int]:
    """What two predicates have in common that can't differ at run time."""
    with _torch.unwatched():
        return _torch.expression(_torch.value_of(pred)), _version(pred)


_EXPOSES = ("numpy", "__array__", "__dlpack__")
"""What gives a tensor's memory to code that torch does not see."""

_active = threading.local()


def active() -> Recorder | None:
    """The recorder of the running trace, if one watches it."""
    found: Recorder | None = getattr(_active, "recorder", None)
    return found


@contextlib.contextmanager
def watching() -> Iterator[Recorder]:
    """Watches the running trace; within it, blocks and paths share one recorder."""
    if (found := active()) is not None:
        yield found
        return
    recorder = Recorder()
    _active.recorder = recorder
    try:
        with recorder:
            yield recorder
    finally:
        _active.recorder = None


class Recording(Protocol):
    """What takes something for one operation of a path: the recorder of a trace, or a run along a path elsewhere."""

    @property
    def on_path(self) -> bool:
        """Whether a path is under way."""

    def through_path(self, func: Any, args: Any, run: Callable[[], Call]) -> Any:
        """Runs something as one operation of the path, if there is one."""

    def whole(self, run: Callable[[], Any]) -> Any:
        """Runs it so that none of the operations that it is made of is one of the path."""


def recording() -> Recording | None:
    """What records paths right now: in a trace, in torch.export or AOT."""
    return active() or getattr(_active, "along", None)


@contextlib.contextmanager
def going_along(run: Recording) -> Iterator[None]:
    """Has a run along a path outside of a trace be what `recording` gives."""
    before, _active.along = getattr(_active, "along", None), run
    try:
        yield
    finally:
        _active.along = before


def as_one_operation(func: Any, args: Any, run: Callable[[], Any]) -> Any:
    """Runs something that writes into the graph itself, so that a path gives its result again."""
    found = recording()
    if found is None:
        return run()
    return found.through_path(func, args, lambda: Call(func, found.whole(run)))
