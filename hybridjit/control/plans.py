"""How the functions under `branch_if_tracing` are rewritten for Dynamo: their source found, changed and compiled."""

from __future__ import annotations
import __future__

import ast
import builtins
import functools
import linecache
from collections.abc import Iterator
from types import CodeType, FunctionType

import torch

from .._sites import Site
from . import loops
from .cond import cond, switch
from .names import Function, called
from .rewrite import rewrite
from .truths import Refused


class Plan:
    """How the functions of one piece of code are rewritten.

    Attributes:
        chosen: The numbers of the places at which a tensor's truth is asked.
        reasons: Why some of them can't be rewritten.
        code: The new code; ``None`` where the source is not at hand.
    """

    def __init__(self, fn: FunctionType) -> None:
        self.fn = fn
        self.old: CodeType = fn.__code__
        self.number: int = len(plans)
        self.chosen: set[int] = set()
        self.reasons: dict[int, str] = {}
        self.lines: dict[int, int] = {}
        self.code = self._write() if definition(self.old) else None
        plans.append(self)

    def choose(self, site: int) -> None:
        """Adds a place."""
        self.chosen.add(site)
        self.code = self._write()

    def _write(self) -> CodeType:
        while True:
            found = definition(self.old)
            assert found is not None
            try:
                meant, chosen = _meant(self.fn, found[0]), self.chosen - self.reasons.keys()
                made, self.lines = rewrite(found[0], chosen, meant, self.number)
            except Refused as refused:
                self.reasons[refused.site] = refused.reason
            else:
                return compiled(made, self.old, found[1])

    def site(self, number: int) -> Site:
        """Where a place is."""
        return Site(self.old.co_filename, self.lines.get(number, self.old.co_firstlineno))


plans: list[Plan] = []
_known: dict[tuple[CodeType, str], Plan] = {}


def plan_of(fn: FunctionType) -> Plan:
    """The plan for a function, and all others of the same code."""
    key = (fn.__code__, fn.__code__.co_filename)
    if key not in _known:
        _known[key] = Plan(fn)
    return _known[key]


_FUTURES = functools.reduce(
    int.__or__, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)


@functools.lru_cache(maxsize=64)
def _sources(source: str, file: str) -> tuple[CodeType, ...]:
    """The code of every function in a file."""

    def inside(code: CodeType) -> Iterator[CodeType]:
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield constant
                yield from inside(constant)

    try:
        return tuple(inside(compile(source, file, "exec", dont_inherit=True)))
    except (SyntaxError, ValueError):  # a notebook cell with magic commands, say
        return ()


def definition(code: CodeType) -> tuple[Function, str] | None:
    """The syntax tree of a function and the name of the class around it; ``None`` if the file holds another now."""
    source = "".join(linecache.getlines(code.co_filename))
    if code not in _sources(source, code.co_filename):
        return None
    found: list[tuple[Function, str]] = []

    def look(node: ast.AST, owner: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.Lambda)):
                name = "<lambda>" if isinstance(child, ast.Lambda) else child.name
                decorators = [] if isinstance(child, ast.Lambda) else child.decorator_list
                line = min([child.lineno, *(each.lineno for each in decorators)])
                if (line, name) == (code.co_firstlineno, code.co_name):
                    found.append((child, owner))
            look(child, child.name if isinstance(child, ast.ClassDef) else owner)

    look(ast.parse(source), "")
    return found[0] if len(found) == 1 else None


def compiled(made: ast.FunctionDef, old: CodeType, owner: str) -> CodeType:
    """The code of a rewritten function; private names are spelled as in the class around it."""
    free = sorted({*old.co_freevars, "_hj"})
    (outer,) = ast.parse(f"def outer({', '.join(free)}): pass").body
    assert isinstance(outer, ast.FunctionDef)
    made.decorator_list, made.returns = [], None
    made.name = "_hj_made"  # its own name in it is the one of its module
    if hasattr(made, "type_params"):
        made.type_params = []
    for arg in ast.walk(made.args):
        if isinstance(arg, ast.arg):
            arg.annotation = None
    made.args.defaults = [ast.Constant(None) for _ in made.args.defaults]
    made.args.kw_defaults = [each and ast.Constant(None) for each in made.args.kw_defaults]
    outer.body = [made]
    whole: ast.stmt = outer
    if owner:
        whole = ast.parse(f"class {owner}: pass").body[0]
        assert isinstance(whole, ast.ClassDef)
        whole.body = [outer]
    flags = old.co_flags & _FUTURES
    module = ast.fix_missing_locations(ast.Module([whole], []))
    code: CodeType = compile(module, old.co_filename, "exec", flags=flags, dont_inherit=True)
    queue = [code]
    while queue[0].co_name != made.name:
        queue = [*queue[1:], *(each for each in queue[0].co_consts if isinstance(each, CodeType))]
    return queue[0].replace(co_name=old.co_name)


_AT_ONCE = (all, any, list, max, min, set, sorted, sum, tuple, torch.cond)
_SPELLED = {
    "bool": bool,
    "torch.is_nonzero": torch.is_nonzero,
    "enumerate": enumerate,
    "zip": zip,
    "reversed": reversed,
}


def _meant(fn: FunctionType, definition: Function) -> set[str]:
    """The functions that a function calls and that the rewriting knows, as it spells them."""
    at_once = (*_AT_ONCE, cond, switch, loops.while_loop, loops.fori_loop, loops.scan, loops.map)
    found = set()
    for name in called(definition):
        root, *rest = name.split(".")
        value = None if root in fn.__code__.co_freevars else fn.__globals__.get(root, getattr(builtins, root, None))
        for each in rest:
            value = getattr(value, each, None)
        itself = _SPELLED.get(name, torch.is_nonzero)
        if value is not None and any(value is each for each in (itself, *at_once)):
            found.add(name)
    return found
