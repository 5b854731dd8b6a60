"""`script_if_tracing` under torch.export and AOT: the compiled piece with its branches and loops as torch's own."""

from __future__ import annotations

import functools
from types import FunctionType
from typing import Any, get_args

from torch import Tensor, nn

from .. import _torch
from .._describe import qualified
from .._errors import CaptureError
from .arithmetic import as_number
from .compile import compile_piece
from .interpret import Interpreter
from .points import CONTROL
from .values import field_hints, inner_hint


def compiled_piece(
    fn: FunctionType, owner: nn.Module | None, numbers: dict[str, str]
) -> tuple[_torch.Compiled, dict[str, Any]] | None:
    """Compiles a piece, if there is anything to do that running it as Python would not do.

    Args:
        fn: The undecorated function.
        owner: Its ``self``, for a method of a module.
        numbers: The types of numbers given to unannotated parameters.

    Returns:
        The compiled piece and its further arguments; ``None`` where Python does: no branch and no loop is in it, or
        TorchScript does not compile it.
    """
    try:
        with _torch.unrecorded():
            compiled, captured = compile_piece(fn, owner, numbers)
    except CaptureError:
        return None
    flows = any(node.kind() in CONTROL for node in _torch.every_node(compiled.graph))
    return (compiled, captured) if flows else None


def run_piece(
    fn: FunctionType,
    compiled: _torch.Compiled,
    captured: dict[str, Any],
    owner: nn.Module | None,
    arguments: dict[str, Any],
    hint: Any,
) -> Any:
    """Records a call of a compiled piece.

    Args:
        fn: The undecorated function.
        compiled: The piece.
        captured: Its further arguments.
        owner: Its ``self``, for a method of a module.
        arguments: The others, by name.
        hint: The annotation of the result.

    Returns:
        What it gives.
    """
    given = {**arguments, **captured}
    inputs = [_argument(given[name], type_) for name, type_ in compiled.parameters]
    inputs += [functools.reduce(getattr, path.split("."), owner) for path in compiled.attributes]
    code = fn.__code__
    result = Interpreter(qualified(fn), (code.co_filename, code.co_firstlineno)).run(compiled.graph, inputs)
    return _rebuilt(result, hint)


def _argument(value: Any, type_: _torch.JitType) -> Any:
    """An argument as the piece takes it: numbers of its types, and lists and dicts of its own."""
    kind, inner = _torch.kind(type_), _torch.element_types(type_)
    if kind == "OptionalType":
        return None if value is None else _argument(value, inner[0])
    if kind in ("IntType", "FloatType", "BoolType") and isinstance(value, Tensor):
        return as_number(value, kind)
    if kind == "FloatType" and type(value) is int:
        return float(value)
    if kind == "ListType":
        return [_argument(each, inner[0]) for each in value]
    if kind == "TupleType":
        return tuple(_argument(each, of) for each, of in zip(value, inner, strict=True))
    if kind == "DictType":
        return {key: _argument(each, inner[1]) for key, each in value.items()}
    return value


def _rebuilt(result: Any, hint: Any) -> Any:
    """A result with the NamedTuples that its annotation tells, which are tuples to the compiled piece."""
    if isinstance(result, tuple):
        hint = inner_hint(hint) if type(None) in get_args(hint) else hint
        items = [_rebuilt(*each) for each in zip(result, field_hints(hint, len(result)), strict=True)]
        return hint(*items) if len(getattr(hint, "_fields", ())) == len(items) else tuple(items)
    if isinstance(result, list):
        element = (get_args(hint) or (None,))[0]
        return [_rebuilt(each, element) for each in result]
    return result
