"""Which loops over a traced range can be loops in the file: told by captures that took other numbers of turns."""

from __future__ import annotations

import ast
import dataclasses
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._errors import CaptureError
from .._sites import Line
from .survey import same_program
from .validation import parsed

if TYPE_CHECKING:
    from .guarded import Study
    from .task import Settings


def counts_turns(line: Line) -> bool:
    """Whether the function around a loop decides by how many turns it took: by a list that it fills, say.

    Python has one number of turns, that of the example, whatever the loop in the file does.
    """
    return any(first <= line[1] <= last for first, last in _counting(line[0]))


@functools.lru_cache(maxsize=64)
def _counting(file: str) -> list[tuple[int, int]]:
    found = []
    for function in ast.walk(parsed(file)):
        if not isinstance(function, (ast.FunctionDef, ast.Lambda)):
            continue
        every = list(ast.walk(function))
        tests: list[ast.expr] = [each for each in every if isinstance(each, ast.Compare)]
        tests += [each.test for each in every if isinstance(each, _DECIDING)]
        for loop in every:
            if not isinstance(loop, _LOOPS):
                continue
            inside = set(map(id, ast.walk(loop)))
            asked = {name for test in tests if id(test) not in inside for name in _asked(test)}
            if asked & set(_counted(loop)):
                lines = [each.lineno for each in ast.walk(loop) if isinstance(each, ast.expr)]
                found.append((getattr(loop, "lineno", min(lines)), max(lines)))
    return found


_DECIDING = (ast.If, ast.While, ast.IfExp)
_LOOPS = (ast.For, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def _asked(test: ast.expr) -> Iterator[str]:
    """What a test asks for: a name, or the length of what is called so."""
    for each in ast.walk(test):
        if isinstance(each, ast.Name):
            yield each.id
        elif isinstance(each, ast.Call) and ast.unparse(each.func) == "len" and each.args:
            yield f"len({ast.unparse(each.args[0])})"


def _counted(loop: ast.AST) -> Iterator[str]:
    """What counts a loop's turns: a name that grows by a number, or the length of what is filled."""
    for each in ast.walk(loop):
        if isinstance(each, ast.AugAssign) and isinstance(each.value, ast.Constant):
            yield ast.unparse(each.target)
        elif isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr in _FILLING:
            yield f"len({ast.unparse(each.func.value)})"


_FILLING = ("append", "extend", "insert", "add", "update", "setdefault", "appendleft")


def rolled(study: Study, settings: Settings) -> Settings | None:
    """Settings with those loops that two captures agree on, of which each took other turns.

    Args:
        study: The captures; its probes are made.
        settings: With all loops that might be.

    Returns:
        ``None`` if there are none.
    """
    while settings.rolls:
        try:
            seen = [study.seen(settings, "input"), *study.observed(settings)]
        except CaptureError:
            return None
        sure: frozenset[Line] = frozenset()
        for base in seen:
            if base.name != "input" and (":" not in base.name or not study.alone):
                continue  # of one turn none can be told from what is around it; one of another size has more
            (alike, *_) = same_program([base, *(each for each in seen if each is not base)], turns=True)
            turns = [
                {line: [count for at, count in each.captured.turns if at == line] for line in settings.rolls}
                for each in alike
            ]
            found = {line for line in settings.rolls if any(each[line] != turns[0][line] for each in turns)}
            found -= base.captured.unrolled
            if found == settings.rolls:
                return dataclasses.replace(settings, base=base.name)
            sure = max(sure, frozenset(found), key=len)
        settings = dataclasses.replace(settings, rolls=sure)
    return None
