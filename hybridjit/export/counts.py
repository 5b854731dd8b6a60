"""What code goes by of how many turns a loop took: Python has those of the example, whatever the loop in a file does.

A list that is filled in the turns may be handed to torch, which goes by what is in it. All else that is done with it
may go by how long it is: it is asked for that, cut at a place, handed to another function, returned.
"""

from __future__ import annotations

import ast
import functools
import operator
import sys
from collections import deque
from collections.abc import Collection, Iterator
from enum import IntEnum
from types import CellType, CodeType, FrameType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any, cast

from torch import Tensor, nn

from .._sites import Line
from ..control.names import Comprehension, Function, parameters
from .limits import unread
from .until import end_of
from .validation import parsed


class Asked(IntEnum):
    """What code asks of how many turns there were; the greater includes the smaller."""

    NOTHING = 0
    WHETHER_ANY = 1
    HOW_MANY = 2


def asked_at(line: Line) -> Asked:
    """What the code around the loops at a line asks of how many turns they took, as far as their text tells."""
    code = _code(line[0])
    loops = [each for each in code.loops if _begins(each, line[1])]
    return max(map(code.asked_of_loop, loops), default=Asked.HOW_MANY)  # none: what is in that line is no loop


def functions_in(file: str) -> list[Function]:
    """The functions of a file, those in others too."""
    return _code(file).functions


def asked_of(code: CodeType, line: int, names: Collection[str]) -> Asked:
    """What a function asks, after a loop at a line, of how long lists and tuples in some of its variables are."""
    tree = _code(code.co_filename)
    functions = [each for each in tree.functions if _first(each) == code.co_firstlineno]
    loops = [each for each in tree.loops if _begins(each, line)]
    found = [
        tree.asked_of_name(each, name, max((tree.replaced(loop, name) for loop in loops), default=_NEVER))
        for each in functions
        for name in names
    ]
    return max(found, default=Asked.HOW_MANY)


class Growing:
    """What a function has besides tensors that is another after each turn of a loop in it.

    Args:
        frame: Where the loop is.
        counters: Variables of it by which nothing goes but how the loop ends.
    """

    def __init__(self, frame: FrameType, counters: Collection[str] = ()) -> None:
        self._frame = frame
        self._counters = {*counters, *unread((frame.f_code.co_filename, frame.f_lineno))}
        self._line = frame.f_lineno
        self._lengths: list[dict[str, int]] = []
        self._states: list[dict[str, object]] = []

    def look(self) -> None:
        """Looks at it, after a turn."""
        held = {name: value for name, value in self._frame.f_locals.items() if name not in self._counters}
        lists = {name: value for name, value in held.items() if isinstance(value, (list, tuple))}
        self._lengths.append({name: len(value) for name, value in lists.items()})
        own = {name: _state(value, _DEPTH) for name, value in held.items() if name not in lists}
        parts = {f"{name}[{at}]": _state(part, _DEPTH) for name in lists for at, part in enumerate(lists[name])}
        space, code = self._frame.f_globals, self._frame.f_code
        used = {name: space[name] for name in code.co_names if name in space}
        shared = {f"global {name}": _state(value, _DEPTH) for name, value in used.items()}
        self._states.append({**own, **parts, **shared})

    def asked(self) -> Asked:
        """What the function may go by of how many turns there were."""
        if any(map(_differ, self._states, self._states[1:])):
            return Asked.HOW_MANY
        lists = {
            name
            for one, other in zip(self._lengths, self._lengths[1:], strict=False)
            for name in one.keys() & other.keys()
            if one[name] != other[name]
        }
        return asked_of(self._frame.f_code, self._line, lists) if lists else Asked.NOTHING


def _differ(one: dict[str, object], other: dict[str, object]) -> bool:
    return any(one[name] != other[name] for name in one.keys() & other.keys())


def _state(value: object, depth: int) -> object:
    """What there is in a value besides tensors, so many containers and objects deep."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Tensor) or not depth:
        return None
    if isinstance(value, (list, tuple, deque)):
        return [_state(each, depth - 1) for each in value]
    if isinstance(value, dict):
        return {str(key): _state(each, depth - 1) for key, each in value.items()}
    if isinstance(value, nn.Module):
        return [{name: _state(each, 2) for name, each in vars(part).items()} for part in value.modules()]
    if isinstance(value, MethodType):
        return _state(value.__self__, depth) if not isinstance(value.__self__, nn.Module) else None
    if isinstance(value, FunctionType):
        cells = [each.cell_contents for each in value.__closure__ or () if each != _EMPTY]
        return [_state(each, depth - 1) for each in (*cells, *(value.__defaults__ or ()), vars(value))]
    if isinstance(value, type):
        return {name: each for name, each in vars(value).items() if type(each) in _PLAIN}
    if isinstance(value, ModuleType):
        return None
    if isinstance(value, GeneratorType):
        return _state(dict(value.gi_frame.f_locals) if value.gi_frame else {}, depth)
    if isinstance(value, Iterator):
        return operator.length_hint(value, 0), repr(value) if type(value).__module__ == "itertools" else ""
    if isinstance(value, (set, frozenset)):
        return len(value)
    if hasattr(type(value), "tobytes"):  # of NumPy, or of the standard library's arrays
        return cast("Any", value).tobytes()
    names = [*getattr(value, "__dict__", ()), *(str(name) for name in getattr(value, "__slots__", ()))]
    return {name: _state(getattr(value, name, None), depth - 1) for name in names}


_NEVER = sys.maxsize
_PLAIN = (bool, int, float, complex, str, bytes)
_DEPTH = 3
_EMPTY = CellType()


class _Code:
    """The syntax tree of a file, which can be gone up as well."""

    def __init__(self, file: str) -> None:
        tree = parsed(file)
        self._above = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        every = [tree, *self._above]
        self.loops = [each for each in every if isinstance(each, _LOOPS)]
        self.functions = [each for each in every if isinstance(each, Function)]
        self._joining = _joining(tree)
        self._open: set[tuple[ast.AST, str]] = set()  # what is being asked of already

    def asked_of_loop(self, loop: ast.AST) -> Asked:
        """What is asked of how many turns a loop took: of what it gives, and of lists that it fills."""
        function = self._function(loop)
        found = Asked.NOTHING if isinstance(loop, (ast.For, ast.While)) else self._asked(loop)
        if not all(map(_goes_on, _over(loop))):
            return Asked.HOW_MANY
        for each in ast.walk(loop):
            if isinstance(each, (ast.Yield, ast.YieldFrom)):  # whoever goes through them may count
                return Asked.HOW_MANY
            if not isinstance(each, ast.Call) or not isinstance(each.func, ast.Attribute):
                continue
            if each.func.attr in _FILLING:
                of = each.func.value
                name = of.id if isinstance(of, ast.Name) else ""
                own = self.asked_of_name(function, name, self.replaced(loop, name)) if name else Asked.HOW_MANY
                found = max(found, own)
        return found

    def replaced(self, loop: ast.AST, name: str) -> int:
        """The line from which on a variable does not have what a loop put into it: ``rows = torch.stack(rows)``."""
        node = loop
        while not isinstance(node, Function | ast.Module):
            above = self._above[node]
            for field in ("body", "orelse"):
                block = getattr(above, field, None)
                ahead = block[block.index(node) + 1 :] if isinstance(block, list) and node in block else []
                for later in [] if isinstance(above, ast.Try) else ahead:  # an exception passes what is ahead
                    targets = later.targets if isinstance(later, ast.Assign) else []
                    if [ast.unparse(each) for each in targets] == [name]:
                        return int(later.end_lineno or later.lineno)
                    if any(isinstance(each, (ast.Break, ast.Continue)) for each in ast.walk(later)):
                        break
            node = above
        return _NEVER

    def asked_of_name(self, function: ast.AST, name: str, until: int = _NEVER) -> Asked:
        """What a function asks of how long a variable of its own is, up to a line."""
        if (function, name) in self._open:
            return Asked.NOTHING
        given = parameters(function) if isinstance(function, Function) else []
        shared = [each for each in ast.walk(function) if isinstance(each, (ast.Global, ast.Nonlocal))]
        others = [each for statement in shared for each in statement.names]
        if name in (*given, *others) or name not in self._own(function):
            return Asked.HOW_MANY
        self._open.add((function, name))
        found = Asked.NOTHING
        for each in ast.walk(function):
            if (
                isinstance(each, ast.Name)
                and each.id == name
                and isinstance(each.ctx, ast.Load)
                and each.lineno <= until
            ):
                own = self._function(each) is function
                found = max(found, self._asked(each) if own else Asked.HOW_MANY)
        self._open.discard((function, name))
        return found

    def _own(self, function: ast.AST) -> Iterator[str]:
        """The variables that a function sets itself, and none in it."""
        for each in ast.walk(function):
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store) and self._function(each) is function:
                yield each.id

    def _function(self, node: ast.AST) -> ast.AST:
        """The innermost function around a node, or the module."""
        while not isinstance(node, Function | ast.Module):
            node = self._above[node]
        return node

    def _asked(self, node: ast.AST) -> Asked:
        """What is asked of how many parts a value has, by what is done with it."""
        above = self._above[node]
        if isinstance(above, ast.Starred) and isinstance(self._above[above], (ast.List, ast.Tuple)):
            return self._asked(self._above[above])
        if isinstance(above, ast.keyword):
            node, above = above, self._above[above]
        if isinstance(above, (ast.List, ast.Tuple)) and self._is_joined(above):
            return Asked.NOTHING  # torch takes no lists in it: by then it is a tensor
        if isinstance(above, ast.Call) and node is not above.func:
            return self._asked_by_call(above)
        if isinstance(above, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr)):
            targets = above.targets if isinstance(above, ast.Assign) else [above.target]
            if not all(isinstance(each, ast.Name) for each in targets):
                return Asked.HOW_MANY
            function = self._function(above)
            found = [self.asked_of_name(function, each.id) for each in targets if isinstance(each, ast.Name)]
            return max([*found, self._asked(above) if isinstance(above, ast.NamedExpr) else Asked.NOTHING])
        if isinstance(above, ast.Subscript) and node is above.value:
            cut = isinstance(above.slice, ast.Slice)  # whether that has any goes by how many there are in all
            if not all(map(_is_near, _bounds(above.slice))) or (cut and self._asked(above)):
                return Asked.HOW_MANY
            return Asked.NOTHING
        if isinstance(above, ast.comprehension):
            made = self._above[above]
            return self._asked(made) if isinstance(made, (ast.ListComp, ast.GeneratorExp)) else Asked.HOW_MANY
        if isinstance(above, ast.BinOp) and isinstance(above.op, ast.Add):
            return self._asked(above)
        if isinstance(above, (ast.If, ast.While, ast.IfExp)) and node is above.test:
            return Asked.WHETHER_ANY
        if isinstance(above, ast.UnaryOp) and isinstance(above.op, ast.Not):
            return Asked.WHETHER_ANY
        if isinstance(above, ast.IfExp):
            return self._asked(above)
        fills = isinstance(above, ast.Attribute) and above.attr in ("append", "extend") and self._is_called(above)
        return Asked.NOTHING if fills or isinstance(above, ast.Expr) else Asked.HOW_MANY

    def _asked_by_call(self, call: ast.Call) -> Asked:
        name = ast.unparse(call.func)
        if name in self._joining or name.endswith("rnn.pad_sequence"):
            return Asked.NOTHING
        if name in ("list", "tuple", "reversed"):
            return self._asked(call)
        tested = self._above[call]
        empty = name == "len" and isinstance(tested, ast.Compare) and _asks_whether_any(tested, call)
        return Asked.WHETHER_ANY if empty else Asked.HOW_MANY

    def _is_joined(self, parts: ast.List | ast.Tuple) -> bool:
        call = self._above[parts]
        return isinstance(call, ast.Call) and parts in call.args and ast.unparse(call.func) in self._joining

    def _is_called(self, node: ast.AST) -> bool:
        above = self._above[node]
        return isinstance(above, ast.Call) and above.func is node


@functools.lru_cache(maxsize=64)
def _code(file: str) -> _Code:
    return _Code(file)


_LOOPS = (ast.For, ast.While, *Comprehension)
_FILLING = ("append", "extend", "insert", "appendleft", "setdefault")
_JOIN = ("stack", "cat", "concat", "concatenate", "hstack", "vstack", "dstack", "column_stack")


def _joining(tree: ast.Module) -> set[str]:
    """The names under which a file calls what makes one tensor of those in a list, whatever their number."""
    found = {f"torch.{name}" for name in _JOIN}  # and not `sum`, which makes a number of numbers
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("torch", "torch.nn.utils.rnn"):
            found |= {each.asname or each.name for each in node.names if each.name in (*_JOIN, "pad_sequence")}
    return found


def _begins(loop: ast.AST, line: int) -> bool:
    """Whether what a loop goes through, or what it ends by, is at a line."""
    end = end_of(loop) if isinstance(loop, (ast.For, ast.While)) else None
    tests = [*_over(loop), *([end.test] if end else [])]
    return any(each.lineno <= line <= (each.end_lineno or each.lineno) for each in tests)


def _over(loop: ast.AST) -> list[ast.expr]:
    """What a loop goes through."""
    return [loop.iter] if isinstance(loop, ast.For) else [each.iter for each in getattr(loop, "generators", ())]


def _goes_on(over: ast.expr) -> bool:
    """Whether a loop over something ends with that, and not before: with what stands beside it, say."""
    if not isinstance(over, ast.Call):
        return isinstance(over, (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp))
    if isinstance(over.func, ast.Name):
        every = over.args
        through = {"range": [], "reversed": every, "enumerate": every[:1], "zip": every}.get(over.func.id, [over])
        return all(each is not over and _goes_on(each) for each in through)
    return isinstance(over.func, ast.Attribute) and not ast.unparse(over.func).startswith(("itertools.", "it."))


def _first(function: ast.AST) -> int:
    """The line that the code of a function begins at."""
    marks = getattr(function, "decorator_list", [])
    return min(getattr(each, "lineno", 0) for each in (function, *marks))


def _bounds(index: ast.expr) -> list[ast.expr]:
    if not isinstance(index, ast.Slice):
        return [index]
    return [each for each in (index.lower, index.upper, index.step) if each is not None]


def _is_near(index: ast.expr) -> bool:
    """Whether a place is among those that any loop of more than one turn has, as in ``rows[-1]``."""
    number = index.operand if isinstance(index, ast.UnaryOp) else index
    return isinstance(number, ast.Constant) and type(number.value) is int and number.value < 2


def _asks_whether_any(test: ast.Compare, length: ast.expr) -> bool:
    """Whether a length is compared with nothing but none: ``len(rows) > 0``."""
    if test.left is not length or len(test.ops) != 1 or not isinstance(test.comparators[0], ast.Constant):
        return False
    with_none = isinstance(test.ops[0], (ast.Gt, ast.Eq, ast.NotEq, ast.LtE)) and test.comparators[0].value == 0
    return with_none or (isinstance(test.ops[0], (ast.GtE, ast.Lt)) and test.comparators[0].value == 1)
