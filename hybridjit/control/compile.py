"""Compiling a piece: names from outside it made part of it, and torch's errors made readable."""

from __future__ import annotations

import ast
import copy
import inspect
import re
import weakref
from types import FunctionType
from typing import Any

from torch import Tensor, nn

from .. import _torch
from .._describe import place, qualified, short_path
from .._errors import CaptureError, compose
from .pitfalls import find_pitfall

_functions: weakref.WeakKeyDictionary[FunctionType, dict[Any, _torch.Compiled]] = weakref.WeakKeyDictionary()
_methods: weakref.WeakKeyDictionary[Any, dict[Any, _torch.Compiled]] = weakref.WeakKeyDictionary()


def compile_piece(fn: FunctionType, owner: nn.Module | None) -> tuple[_torch.Compiled, dict[str, Any]]:
    """Compiles a function once, and a method once per trace and module.

    Numbers and text that ``fn`` uses from outside are compiled in: a change of one compiles
    again. Tensors from outside become further arguments. A method is not kept past the trace,
    because the module it was compiled for may change.

    Args:
        fn: The undecorated function.
        owner: Its ``self``, for a method of a module.

    Returns:
        The compiled piece, and its further arguments by name.
    """
    constants, tensors = _captured(fn)
    key: Any = (tuple(sorted((name, repr(value)) for name, value in constants.items())), tuple(tensors))
    if owner is None:
        kept = _functions.setdefault(fn, {})
    else:
        kept = _methods.setdefault(_torch.tracing_state(), {})
        key = (fn, id(owner), key)
    if key not in kept:
        kept[key] = _compile(fn, owner, constants, tuple(tensors))
    return kept[key], tensors


def _compile(
    fn: FunctionType, owner: nn.Module | None, constants: dict[str, Any], tensors: tuple[str, ...]
) -> _torch.Compiled:
    try:
        parsed = _torch.parse(fn)
        definition = parsed.ast.body[0]
        _torch.without_keyword_defaults(definition)
        _Outside(constants).visit(definition)
        for name in tensors:
            definition.args.kwonlyargs.append(
                ast.arg(name, lineno=definition.lineno, col_offset=definition.col_offset)
            )
            definition.args.kw_defaults.append(None)
        if owner is None:
            return _torch.compile_function(fn, parsed)
        reached = _reached_modules(fn, owner)
        return _torch.compile_method(fn, owner, parsed, lambda module: id(module) in reached)
    except CaptureError:
        raise
    except Exception as error:
        raise _explain(fn, owner, error) from error


class _Outside(ast.NodeTransformer):
    """Writes numbers and text from outside the function into it, where they are read."""

    def __init__(self, constants: dict[str, Any]) -> None:
        self.constants = constants

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self.constants or not isinstance(node.ctx, ast.Load):
            return node
        literal = ast.parse(repr(self.constants[node.id]), mode="eval").body
        for part in ast.walk(literal):
            ast.copy_location(part, node)
        return literal


def _captured(fn: FunctionType) -> tuple[dict[str, Any], dict[str, Any]]:
    """The names that a function reads from outside: those that hold constants, those that hold tensors."""
    constants: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    outside = inspect.getclosurevars(fn)
    for name, value in {**outside.globals, **outside.nonlocals}.items():
        if _is_constant(value):
            constants[name] = value
        elif isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, nn.Module):
            raise _closed_over_module(fn, name, value)
    return constants, tensors


def _is_constant(value: Any) -> bool:
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        return bool(value) and all(_is_constant(item) for item in value)
    if isinstance(value, float):
        return value == value and abs(value) != float("inf")  # the others have no literal
    return type(value) in (int, bool, str)


def _closed_over_module(fn: FunctionType, name: str, value: nn.Module) -> CaptureError:
    code = fn.__code__
    return CaptureError(
        compose(
            f"{qualified(fn)} can't be scripted: it uses the module {name!r} from outside",
            where=place(code.co_filename, code.co_firstlineno),
            differences=[f"{name}: {type(value).__name__}"],
            instead=f"make it a method of the module that owns {name!r}, and call self.{name}:\n"
            f"@script_if_tracing\ndef {fn.__name__}(self, ...): ...",
            page="scripting-pitfalls",
        )
    )


def _reached_modules(fn: FunctionType, owner: nn.Module) -> set[int]:
    """The submodules that a method calls or iterates over, itself or by other methods of ``self``."""
    reached: set[int] = set()
    seen: set[Any] = set()

    def look(method: Any) -> None:
        method = inspect.unwrap(getattr(method, "__func__", method))
        if method in seen or not isinstance(method, FunctionType):
            return
        seen.add(method)
        for chain in _self_chains(copy.deepcopy(_torch.parse(method).ast)):
            value: Any = owner
            for name in chain:
                value = getattr(value, name, None)
            if isinstance(value, nn.Module):
                reached.update(id(module) for module in value.modules())
            elif inspect.ismethod(value) and value.__self__ is owner:
                look(value)

    look(fn)
    return reached


def _self_chains(tree: ast.AST) -> list[list[str]]:
    """Every longest ``self.a.b`` in a syntax tree, as ``["a", "b"]``."""
    chains = []

    class Chains(ast.NodeVisitor):
        def visit_Attribute(self, node: ast.Attribute) -> None:
            names = [node.attr]
            inner: ast.expr = node.value
            while isinstance(inner, ast.Attribute):
                names.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id == "self":
                chains.append(names[::-1])
            else:
                self.generic_visit(node)

    Chains().visit(tree)
    return chains


_PLACE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_HERE = re.compile(r"^(?P<code>.*)\n\s*~+\s*(?:\.\.\.\s*)*<--- HERE", re.MULTILINE)


def _explain(fn: FunctionType, owner: nn.Module | None, error: Exception) -> CaptureError:
    """Turns torch's compile error into one with the line, the pitfall and the text to write."""
    text = str(error).strip()
    # torch appends the call chain; the first place is where it went wrong.
    location = _PLACE.search(text)
    code = fn.__code__
    where = place(code.co_filename, code.co_firstlineno)
    if location:
        where = f"{short_path(location['file'])}:{location['line']}"
    shown = _HERE.search(text)
    line = shown["code"].strip() if shown else ""
    pitfall = find_pitfall(text, line)
    reason = next((row.strip() for row in text.splitlines() if row.strip()), type(error).__name__)
    differences = [line] if line else []
    differences.append(f"TorchScript says: {reason}")
    if pitfall:
        differences.append(f"pitfall: {pitfall.name}")
    kind = "method" if owner is not None else "function"
    return CaptureError(
        compose(
            f"{qualified(fn)} can't be scripted: TorchScript does not compile this {kind}",
            where=where,
            differences=differences,
            instead=pitfall.instead
            if pitfall
            else "the line in TorchScript's subset of Python, or leave the function undecorated if none "
            "of its ifs and loops depends on a tensor or a size",
            page="scripting-pitfalls",
        )
    )
