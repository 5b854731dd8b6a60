"""`script_if_tracing`: a control-flow piece keeps its control flow in a trace."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable
from dataclasses import replace
from types import FunctionType
from typing import Any, TypeVar

from torch import Tensor, nn
from typing_extensions import ParamSpec

from .. import _torch
from .._describe import describe, place, qualified
from .._errors import CaptureError, compose
from .._sites import user_site
from . import record
from .branch import Twins, branch_if_tracing, captures
from .compile import compile_piece
from .points import note_scripted
from .recorder import as_one_operation
from .structure import tensors_of
from .targets import check_function
from .values import lift_result, lower_argument, number_type
from .wrapper import make_wrapper

P = ParamSpec("P")
R = TypeVar("R")


def script_if_tracing(fn: Callable[P, R]) -> Callable[P, R]:
    """Compiles a function with TorchScript when it is called in a trace, and only then.

    In eager mode this is just ``fn``::

        def script_if_tracing(fn):
            return fn

    While `torch.jit.trace` or `hybridjit.export` records, ``fn`` is compiled (once) and goes into
    the graph **with** its ``if``, ``for`` and ``while``, where plain tracing would keep the one
    path that the example took. An ``int``, ``float`` or ``bool`` parameter given a traced size
    stays dynamic, and so does an ``int``, ``float`` or ``bool`` result, which the traced code
    around gets as a tensor of no dimensions. An optional result, and the length of a list in the
    result, are checked at run time, since the traced code around them cannot change with them.

    Args:
        fn: A function, or a method of an ``nn.Module``, in TorchScript's subset of Python.
            Numbers and text from outside it are compiled in (and compiled again if they change);
            tensors from outside become inputs. Keyword-only parameters may have defaults.

    Returns:
        A function of the same signature. ``torch.jit.script``, ``torch.compile`` and
        ``torch.export`` see through it to ``fn``.

    Raises:
        InputError: ``fn`` is no function (at decoration).
        CaptureError: ``fn`` does not compile, with the line and what to write instead (in a trace).

    Example:
        >>> import torch, hybridjit as hj
        >>> @hj.script_if_tracing
        ... def at_most(boxes: torch.Tensor, n: int) -> torch.Tensor:
        ...     if boxes.shape[0] > n:
        ...         boxes = boxes[:n]
        ...     return boxes
        >>> at_most(torch.zeros(5, 4), 3).shape
        torch.Size([3, 4])
        >>> traced = torch.jit.trace(lambda x: at_most(x, 3), torch.zeros(5, 4))
        >>> traced(torch.zeros(2, 4)).shape
        torch.Size([2, 4])
    """
    check_function("script_if_tracing", fn)
    assert isinstance(fn, FunctionType)
    piece = _Piece(fn)
    wrapper = make_wrapper(fn, captures, piece.on_capture)
    functools.update_wrapper(wrapper, fn)
    setattr(wrapper, _torch.SCRIPT_IF_TRACING_MARK, True)
    # Where torch looks in: TorchScript for the source, and Dynamo, which is given branches.
    vars(wrapper)["__original_fn"] = branch_if_tracing(fn)
    return wrapper


class _Piece:
    """One decorated function: its signature, and what a call in a trace does."""

    def __init__(self, fn: FunctionType) -> None:
        self.fn = fn
        self.twins = Twins(fn)
        self.lock = threading.RLock()

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.fn)

    def on_capture(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Records a call, once if it is part of a path that runs again."""
        if _torch.tracing_state() is None:
            if _torch.dynamo_traces():
                from . import splits

                return splits.run(self.twins, args, kwargs)
            return as_one_operation(self.fn, args, lambda: self.lower(args, kwargs))
        return as_one_operation(self.fn, args, lambda: self.call(args, kwargs))

    def lower(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Records a call where torch.export or AOT does."""
        from .lower_script import compiled_piece, run_piece

        seen = record.current()
        site = user_site(seen.names)
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        if seen.plain or (next(iter(arguments), "") == "self" and not isinstance(arguments["self"], nn.Module)):
            return self.fn(*args, **kwargs)
        owner = self._take_owner(arguments)
        with self.lock:
            compiled = compiled_piece(self.fn, owner, self._numbers(arguments))
        if compiled is None:
            return self.fn(*args, **kwargs)
        own = seen.names.get(id(owner), site.module_path)
        piece = record.ScriptedPiece(qualified(self.fn), replace(site, module_path=own))
        if piece not in seen.scripted:
            seen.scripted.append(piece)
        return run_piece(self.fn, *compiled, owner, arguments, self.result_hint)

    def _numbers(self, arguments: dict[str, Any]) -> dict[str, str]:
        """The types of the numbers given to unannotated parameters."""
        inferred = {name: number_type(arguments[name]) for name in self.unannotated if name in arguments}
        return {name: type_ for name, type_ in inferred.items() if type_}

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Records a call into the running trace, and returns example results bound to it."""
        fn = self.fn
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = dict(bound.arguments)
        site = user_site(record.current().names)
        owner = self._take_owner(arguments)
        with self.lock:
            compiled, captured = compile_piece(fn, owner, self._numbers(arguments))
        arguments.update(captured)
        graph = _torch.current_graph()
        inputs: list[Any] = []
        examples: dict[str, Any] = {}
        where = f"{qualified(fn)}, called at {site}"
        for name, type_ in compiled.parameters:
            value, example = lower_argument(graph, arguments[name], type_, f"{where}: argument {name}")
            inputs.append(value)
            examples[name] = example
        known: list[Tensor] = tensors_of(examples)
        for path in compiled.attributes:
            attribute = functools.reduce(getattr, path.split("."), owner)
            type_ = list(compiled.graph.inputs())[len(inputs)].type()
            value, _ = lower_argument(graph, attribute, type_, f"{where}: self.{path}")
            inputs.append(value)
            known += tensors_of(attribute)
        own = record.current().names.get(id(owner), site.module_path)  # a method is part of its own module
        note_scripted(compiled.graph, own)
        (output,) = _torch.insert_graph(graph, compiled.graph, inputs)
        with _torch.paused_tracing(), _torch.unoptimized():
            result = compiled.run(**examples)
        record.current().scripted.append(record.ScriptedPiece(qualified(fn), replace(site, module_path=own)))
        return lift_result(graph, result, output, compiled.result, self.result_hint, known, fn)

    @functools.cached_property
    def unannotated(self) -> list[str]:
        """The parameters that TorchScript would take for tensors, whatever they get."""
        parameters = self.signature.parameters.values()
        return [each.name for each in parameters if each.annotation is inspect.Parameter.empty]

    @functools.cached_property
    def result_hint(self) -> Any:
        """The annotation of the result, to give NamedTuples their own class again."""
        try:
            return inspect.get_annotations(self.fn, eval_str=True).get("return")
        except (NameError, TypeError, SyntaxError):  # names that exist for a type checker only
            return None

    def _take_owner(self, arguments: dict[str, Any]) -> nn.Module | None:
        """Takes ``self`` out of the arguments of a method."""
        first = next(iter(self.signature.parameters), None)
        if first not in ("self", "cls"):
            return None
        owner = arguments.pop(first)
        if isinstance(owner, nn.Module):
            return owner
        code = self.fn.__code__
        raise CaptureError(
            compose(
                f"{qualified(self.fn)} can't be scripted: its {first!r} is no nn.Module",
                where=place(code.co_filename, code.co_firstlineno),
                differences=[
                    f"{first}: expected an nn.Module, got {describe(owner)}",
                    "pitfall: a method of a class that is no nn.Module",
                ],
                instead="a function that takes what it needs of self as arguments:\n"
                "@script_if_tracing\ndef piece(x: Tensor, threshold: float) -> Tensor: ...",
                page="scripting-pitfalls",
            )
        )
