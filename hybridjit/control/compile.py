"""Compiling a piece: names from outside it made part of it, and torch's errors made readable."""

from __future__ import annotations

import ast
import dis
import functools
import inspect
import linecache
import math
import re
import weakref
from collections.abc import Mapping
from types import CodeType, FunctionType
from typing import Any

from torch import Tensor, nn

from .. import _torch
from .._describe import place, qualified
from .._errors import CaptureError, compose
from .pitfalls import find_pitfall

_functions: weakref.WeakKeyDictionary[FunctionType, dict[Any, _torch.Compiled]] = weakref.WeakKeyDictionary()
_methods: weakref.WeakKeyDictionary[nn.Module, tuple[Any, dict[Any, _torch.Compiled]]]
_methods = weakref.WeakKeyDictionary()


def compile_piece(
    fn: FunctionType, owner: nn.Module | None, inferred: Mapping[str, str]
) -> tuple[_torch.Compiled, dict[str, Any]]:
    """Compiles a function once, and a method once per trace and module.

    Numbers and text that ``fn`` uses from outside are compiled in: a change of one compiles
    again. Tensors from outside become further arguments. A method is not kept past the trace,
    because the module it was compiled for may change.

    Args:
        fn: The undecorated function.
        owner: Its ``self``, for a method of a module.
        inferred: ``int``, ``float`` or ``bool`` for the unannotated parameters that got a number;
            TorchScript would take them for tensors.

    Returns:
        The compiled piece, and its further arguments by name.
    """
    constants, tensors = _captured(fn)
    key: Any = (
        tuple(sorted((name, repr(value)) for name, value in constants.items())),
        tuple(tensors),
        tuple(inferred.items()),
    )
    if owner is None:
        kept = _functions.setdefault(fn, {})
    else:
        # A trace has no identity that outlives it, only an address, which the next may get too.
        now = repr(_torch.tracing_state()), _fingerprint(owner)
        if owner not in _methods or _methods[owner][0] != now:
            _methods[owner] = now, {}
        kept = _methods[owner][1]
        key = fn, key
    if key not in kept:
        kept[key] = _compile(fn, owner, constants, tuple(tensors), inferred)
    return kept[key], tensors


def _fingerprint(owner: nn.Module) -> list[Any]:
    """What a module's compiled methods depend on: all attributes of it and of its submodules."""

    def spell(value: Any) -> Any:
        if _is_constant(value):
            return repr(value)
        if isinstance(value, (list, tuple)):
            return [type(value), *map(spell, value)]
        if isinstance(value, dict):
            return [type(value), *((repr(key), spell(item)) for key, item in value.items())]
        return type(value), id(value)

    return [(path, spell(vars(module))) for path, module in owner.named_modules()]


def _compile(
    fn: FunctionType,
    owner: nn.Module | None,
    constants: dict[str, Any],
    tensors: tuple[str, ...],
    inferred: Mapping[str, str],
) -> _torch.Compiled:
    try:
        parsed = _torch.parse(fn)
        definition = parsed.ast.body[0]
        # TorchScript refuses the defaults of keyword-only parameters; the caller binds them.
        definition.args.kw_defaults = [None] * len(definition.args.kwonlyargs)
        if not _TYPE_COMMENT.search(parsed.source):  # the older spelling, which types every parameter
            _annotate(definition.args, inferred)
        _Outside(constants).visit(definition)
        for name in tensors:
            definition.args.kwonlyargs.append(ast.arg(name, lineno=definition.lineno, col_offset=definition.col_offset))
            definition.args.kw_defaults.append(None)
        if owner is None:
            compiled = _torch.compile_function(fn, parsed)
        else:
            reached = _reached_modules(fn, owner)
            compiled = _torch.compile_method(fn, owner, parsed, lambda module: id(module) in reached)
        _torch.refuse_list_writes(compiled)
        return compiled
    except CaptureError:
        raise
    except _torch.RefusedPieceError as error:
        raise _explain(fn, owner, error, says="") from None
    except Exception as error:
        raise _explain(fn, owner, error) from error


_TYPE_COMMENT = re.compile(r"#\s*type:(?!\s*ignore)")


def _annotate(arguments: ast.arguments, inferred: Mapping[str, str]) -> None:
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if argument.arg in inferred and argument.annotation is None:
            annotation = ast.Name(inferred[argument.arg], ast.Load())
            argument.annotation = ast.copy_location(annotation, argument)


class _Outside(ast.NodeTransformer):
    """Writes numbers and text from outside the function into it, where they are read."""

    def __init__(self, constants: dict[str, Any]) -> None:
        self.constants = constants

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self.constants or not isinstance(node.ctx, ast.Load):
            return node
        literal = ast.parse(_literal(self.constants[node.id]), mode="eval").body
        for part in ast.walk(literal):
            ast.copy_location(part, node)
        return literal


def _literal(value: Any) -> str:
    """Spells a constant so that TorchScript can read it; infinities and NaN have no literal."""
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, tuple):
        return f"({' '.join(_literal(item) + ',' for item in value)})"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return repr(value)


@functools.lru_cache(maxsize=1024)
def _outside_names(code: CodeType) -> frozenset[str]:
    """The names that a function, or a comprehension in it, reads and never sets.

    Attributes do not count, though ``co_names`` has them too.
    """
    read: set[str] = set()
    own: set[str] = {*code.co_varnames, *code.co_cellvars}
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_DEREF", "LOAD_FROM_DICT_OR_DEREF"):
            read.add(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            own |= {*constant.co_varnames, *constant.co_cellvars}
            read |= _outside_names(constant)
    return frozenset(read - own)


def _captured(fn: FunctionType) -> tuple[dict[str, Any], dict[str, Any]]:
    """The names that a function reads from outside: those that hold constants, those that hold tensors."""
    constants: dict[str, Any] = {}
    tensors: dict[str, Any] = {}
    cells = dict(zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True))
    for name in sorted(_outside_names(fn.__code__)):
        if name in cells:
            try:
                value = cells[name].cell_contents
            except ValueError:  # not set yet: TorchScript says so, with the line
                continue
        elif name in fn.__globals__:
            value = fn.__globals__[name]
        else:
            continue
        if _is_constant(value):
            constants[name] = value
        elif isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, nn.Module):
            raise _closed_over_module(fn, name, value)
    return constants, tensors


def _is_constant(value: Any) -> bool:
    if type(value) in (tuple, list):
        return bool(value) and all(_is_constant(item) for item in value)
    return value is None or type(value) in (int, float, bool, str)


def _closed_over_module(fn: FunctionType, name: str, value: nn.Module) -> CaptureError:
    code = fn.__code__
    return CaptureError(
        compose(
            f"{qualified(fn)} can't be scripted: it uses the module {name!r} from outside",
            where=place(code.co_filename, code.co_firstlineno),
            differences=[f"{name}: {type(value).__name__}", "pitfall: a module from outside the function"],
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
        parsed = _torch.parse(method)
        _refuse_writes(fn, method, parsed.ast, parsed.file_lineno)
        for chain in _self_chains(parsed.ast):
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


def _refuse_writes(fn: FunctionType, method: FunctionType, tree: ast.AST, first_line: int) -> None:
    """Refuses ``self.x = …``: the trace could not hand the new value to the module."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or isinstance(node.ctx, ast.Load):
            continue
        if isinstance(node.value, ast.Name) and node.value.id == "self":
            file, line = method.__code__.co_filename, first_line + node.lineno - 1
            code = linecache.getline(file, line).strip()
            text = f"the method assigns self.{node.attr}"
            raise _failure(fn, "method", place(file, line), code, text, says="")


_PLACE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+)')
_HERE = re.compile(r"^(?P<code>.*)\n\s*~+\s*(?:\.\.\.\s*)*<--- HERE", re.MULTILINE)
_MARKED = re.compile(r"^\s*~+", re.MULTILINE)


def _explain(
    fn: FunctionType, owner: nn.Module | None, error: Exception, says: str = "TorchScript says: "
) -> CaptureError:
    """Turns torch's compile error into one with the line, the pitfall and the text to write."""
    text = str(error).strip()
    # torch appends the call chain; the first place is where it went wrong.
    location, shown = _PLACE.search(text), _HERE.search(text)
    if location:
        file, number = location["file"], int(location["line"])
        if shown:  # the number is that of the first marked line, and the last is shown
            number += len(_MARKED.findall(text[location.end() : shown.end()])) - 1
    else:
        file, number = fn.__code__.co_filename, _definition_line(fn)
    line = (shown["code"] if shown else linecache.getline(file, number)).strip()
    kind = "method" if owner is not None else "function"
    return _failure(fn, kind, place(file, number), line, text or type(error).__name__, says)


def _definition_line(fn: FunctionType) -> int:
    """The line of ``def``, below the decorators; of a lambda its only line."""
    file, first = fn.__code__.co_filename, fn.__code__.co_firstlineno
    if fn.__name__ == "<lambda>":
        return first
    following = (linecache.getline(file, number).lstrip() for number in range(first, first + 20))
    return next((first + n for n, line in enumerate(following) if line.startswith("def ")), first)


def _failure(
    fn: FunctionType, kind: str, where: str, line: str, text: str, says: str = "TorchScript says: "
) -> CaptureError:
    pitfall = find_pitfall(text, line)
    reason = next(row.strip() for row in text.splitlines() if row.strip())
    differences = [line] if line else []
    differences.append(says + reason)
    if pitfall:
        differences.append(f"pitfall: {pitfall.name}")
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
