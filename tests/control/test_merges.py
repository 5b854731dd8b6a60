"""An ``if`` becomes a function: which can, and that the function around it does what it did."""

from __future__ import annotations

import contextlib
import linecache
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import pytest

from hybridjit.control.merges import mergeable, merged

scale = 3


def plain(a: int) -> Any:
    b = a
    if a > 2:
        b = a + scale
    return a, b


def either(a: int) -> Any:
    if a > 2:
        kind, _unread = "large", a * 2
    elif a > 0:
        kind = "small"
    else:
        kind = "none"
    return kind, a


def in_a_loop(a: int) -> Any:
    total, last = 0, None
    for turn in range(6):
        size = a + turn
        if size % 2 == 1:
            total += size
            last = size
        odd = size if size % 3 == 1 else size - total
        total = total + odd
    return total, last


def nested(a: int) -> Any:
    b, c = a, 0
    if a > 1:
        c = b
        if a > 2:
            b = c + 1
            c = b * 2
        b = b - c
    return b, c


def with_blocks(a: int) -> Any:
    out: list[Any] = []
    with contextlib.suppress(ValueError):
        if a > 2:  # leaves, for who catches it
            for each in range(a):
                if each == 3:  # leaves the loop
                    break
                out.append(each)
            else:
                out.append("all")
        else:
            try:
                out.append(10 // (a - 1))
            except ZeroDivisionError:
                out.append("zero")
        if a == 4:
            raise ValueError
        out.append(a)
    return out


def after_all(a: int) -> Any:
    found = 0
    try:
        found = 12 // a
    except ZeroDivisionError:
        if found == 0:  # leaves nothing
            found = -1
    finally:
        if a > 2:  # leaves nothing
            found = found * 2
    match a:
        case 1:
            if found > 5:
                found = found + 1
        case _:
            pass
    return found


def writes(a: int) -> Any:
    held = {"a": a}
    if a > 2:
        held["b"] = sum(each for each in range(a) if each > held["a"] - 2)  # leaves nothing
    return held


def again(a: int) -> Any:
    b = a
    if a > 2:
        b = again(a - 3)
    return b, again.__name__


class Private:
    __hidden = 5

    def gives(self, a: int, *more: int, **named: int) -> Any:
        b = a
        if a > 2:
            b = self.__hidden + sum(more) + sum(named.values())
        return b


def closure(a: int) -> Any:
    outside = a * 2

    def inside(b: int) -> Any:
        if b > 2:
            b = outside
        return b, outside

    return inside(a)


def lines_of(fn: Callable[..., Any]) -> Iterator[int]:
    """The lines of the ``if``s of a function."""
    code = fn.__code__
    for line in sorted({line for *_, line in code.co_lines() if line}):
        text = linecache.getline(code.co_filename, line)
        if (text.strip().startswith(("if ", "elif ")) or " if " in text) and "# leaves" not in text:
            yield line


@contextlib.contextmanager
def rewritten(fn: Callable[..., Any]) -> Iterator[list[tuple[Any, ...]]]:
    """The function with its ifs as functions, whose arguments are noted."""
    assert isinstance(fn, FunctionType)
    calls: list[tuple[Any, ...]] = []

    def meet(made: Any, *args: Any) -> Any:
        calls.append(args)
        return made(*args)

    old = fn.__code__
    found = mergeable(fn, lines_of(fn))
    fn.__code__ = merged(fn, {line: meet for line in found})
    try:
        yield calls
    finally:
        fn.__code__ = old


@pytest.mark.parametrize(
    "fn", [plain, either, in_a_loop, nested, with_blocks, after_all, writes, again], ids=lambda fn: fn.__name__
)
def test_the_function_does_what_it_did(fn: Callable[[int], Any]) -> None:
    """For each argument, the same result, by way of the functions."""
    assert isinstance(fn, FunctionType)
    expected = [fn(a) for a in range(7)]
    assert mergeable(fn, lines_of(fn)) == set(lines_of(fn))
    with rewritten(fn) as calls:
        assert [fn(a) for a in range(7)] == expected
    assert calls
    count = len(calls)
    assert [fn(a) for a in range(7)] == expected and len(calls) == count


def test_methods_and_private_names() -> None:
    """Defaults, names of classes and further arguments stay what they are."""
    with rewritten(Private.gives) as calls:
        assert Private().gives(1) == 1 and Private().gives(3, 1, c=2) == 8
    assert [len(args) for args in calls] == [5, 5]  # a, b, more, named, self


def test_what_is_not_read_later_is_not_given() -> None:
    """What one side alone sets for itself is no result: the sides must give the same things."""
    given: list[Any] = []

    def meet(made: Any, *args: Any) -> Any:
        given.append(made(*args))
        return given[-1]

    assert isinstance(either, FunctionType)
    old = either.__code__
    either.__code__ = merged(either, {min(lines_of(either)): meet})
    try:
        either(5)
        either(1)
    finally:
        either.__code__ = old
    assert given == [("large",), ("small",)]


def returns(a: int) -> Any:
    if a > 2:
        return 1
    return 2


def breaks(a: int) -> Any:
    for each in range(9):
        if each > a:
            break
        if each == 1:
            continue
    return a


def may_be_unset(a: int) -> Any:
    if a > 2:
        b = 1
    return b if a > 2 else 0  # what it reads may not be set either


def keeps_a_function(a: int) -> Any:
    if a > 2:  # noqa: SIM108
        fn = lambda: a  # noqa: E731
    else:
        fn = int
    a = 0
    return fn()


class Above:
    def gives(self, a: int) -> int:
        return a


class Below(Above):
    def gives(self, a: int) -> int:
        if a > 2:
            a = super().gives(a)
        return a


def looks(a: int) -> Any:
    if a > 2:
        a = 3
    return sorted(locals())


def yields(a: int) -> Any:
    if a > 2:
        a = 3
    yield a


def sets_a_global(a: int) -> Any:
    global scale
    if a > 2:
        scale = 3
    return scale


def deletes(a: int) -> Any:
    b = a
    if a > 2:
        del b
    return a


def binds_within(a: int) -> Any:
    return (b, b + 1) if (b := a) > 2 else (0, 0)


def sets_from_within(a: int) -> Any:
    def inner() -> None:
        nonlocal a
        a = 0

    if a > 2:
        inner()
    return a


def asks_identity(a: int) -> Any:
    flag = False
    if a > 2:
        flag = True
    return a if flag is True and a is not None else 0  # leaves flag


def in_a_comprehension(a: int) -> Any:
    return [each if each > 2 else a for each in range(5)]


def of_an_exception(a: int) -> Any:
    try:
        a = 1 // a
    except ZeroDivisionError as error:
        if a == 0:
            a = len(str(error))
    return a


@pytest.mark.parametrize(
    "fn",
    [
        returns,
        breaks,
        may_be_unset,
        keeps_a_function,
        Below.gives,
        looks,
        yields,
        sets_a_global,
        deletes,
        binds_within,
        sets_from_within,
        asks_identity,
        in_a_comprehension,
        of_an_exception,
    ],
    ids=lambda fn: fn.__qualname__,
)
def test_what_cannot(fn: Any) -> None:
    """An if that leaves its function or loop, or of which a variable is used in ways that a function's is not."""
    lines = list(lines_of(fn))
    assert lines and not mergeable(fn, lines)


def test_without_source() -> None:
    """A function without a file has none."""
    space: dict[str, Any] = {}
    exec("def fn(a):\n    if a > 2:\n        a = 3\n    return a\n", space)
    assert not mergeable(space["fn"], [2])
