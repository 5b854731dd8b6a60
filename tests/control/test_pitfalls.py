"""Every pitfall of scripting either works in a trace or is an error that names it and the way out."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
import typing
from collections.abc import Callable, Iterator
from typing import Any, List  # noqa: UP035
from typing import List as L  # noqa: UP035

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import CaptureError
from hybridjit.control.pitfalls import PITFALLS, find_pitfall

LIMIT = 2
BIAS = torch.tensor([10.0])
CONFIG = {"a": 1}
UP, DOWN = torch.arange(1.0, 6.0) - 2, -torch.ones(2)


class Mode(enum.Enum):
    ADD = 1
    KEEP = 2


@dataclasses.dataclass
class Boxes:
    xy: Tensor


def trace(fn: Callable[..., Any], *inputs: Tensor) -> Callable[..., Any]:
    traced: Callable[..., Any] = torch.jit.trace(fn, inputs, check_trace=False)
    return traced


# --- what works ---------------------------------------------------------------------------------


@hj.script_if_tracing
def typing_list(x: Tensor) -> typing.List[Tensor]:  # noqa: UP006
    out: typing.List[Tensor] = []  # noqa: UP006
    for k in range(2):
        out.append(x[k] if x.sum() > 0 else -x[k])
    return out


@hj.script_if_tracing
def typing_aliases(x: Tensor) -> Tensor:
    a: List[int] = []  # noqa: UP006
    b: L[int] = []  # noqa: UP006
    c: list[int] = []
    for k in range(x.shape[0]):
        a.append(k)
        b.append(k)
        c.append(k)
    return x[a] + x[b] + x[c]


@hj.script_if_tracing
def module_level_values(x: Tensor) -> Tensor:
    return x[:LIMIT] + BIAS if x.shape[0] > LIMIT else x


@hj.script_if_tracing
def mask_assignment(x: Tensor) -> Tensor:
    x = x.clone()
    x[x > 0] = 0
    x[0] += 1
    return x


@hj.script_if_tracing
def clamp_by_tensor(x: Tensor) -> Tensor:
    return x.clamp(min=x.mean()) if x.sum() > 0 else torch.clamp(x, max=x.mean())


@hj.script_if_tracing
def uses_math(x: Tensor) -> Tensor:
    return x * math.ceil(x.shape[0] / 2) + math.sqrt(2.0) + (math.pi if x.sum() > 0 else -math.inf)


@hj.script_if_tracing
def f_string(x: Tensor) -> Tensor:
    if x.shape[0] == 0:
        raise ValueError(f"{x.shape[0]} rows")
    return x + 1


@hj.script_if_tracing
def keyword_only(x: Tensor, *, n: int = 3) -> Tensor:
    return x[:n] if x.shape[0] > n else x + 1


@hj.script_if_tracing
def unannotated(x, n):  # type: ignore[no-untyped-def]
    for k in range(n):
        x = x + k
    return x


@hj.script_if_tracing
def enum_argument(x: Tensor, mode: Mode) -> Tensor:
    if mode == Mode.ADD and x.sum() > 0:
        return x + 1
    return x


@hj.script_if_tracing
def generator_expression(x: Tensor) -> Tensor:
    return x * sum(k for k in range(x.shape[0]))


@hj.script_if_tracing
def optional_first(x: Tensor) -> Tensor:
    best: Tensor | None = None
    for k in range(x.shape[0]):
        best = x[k]
    return x if best is None else best


WORKS: list[Callable[[Tensor], Any]] = [
    lambda x: torch.stack(typing_list(x)),
    typing_aliases,
    module_level_values,
    mask_assignment,
    clamp_by_tensor,
    uses_math,
    f_string,
    keyword_only,
    lambda x: keyword_only(x, n=1),
    lambda x: unannotated(x, 3),
    lambda x: unannotated(x, x.shape[0]),
    lambda x: enum_argument(x, Mode.ADD),
    lambda x: enum_argument(x, Mode.KEEP),
    generator_expression,
    optional_first,
]


@pytest.mark.parametrize("fn", WORKS, ids=range(len(WORKS)))
def test_what_works(fn: Callable[[Tensor], Any]) -> None:
    """A trace of either input is right on the other, which has another size and takes another side."""
    for example, other in ((UP, DOWN), (DOWN, UP)):
        traced = trace(fn, example.clone())
        for x in (example, other):
            torch.testing.assert_close(traced(x.clone()), fn(x.clone()), rtol=0, atol=0)


def test_an_exception_stays_in_the_trace() -> None:
    """A raise in a piece is raised by the trace, with its own message."""
    with pytest.raises(torch.jit.Error, match="0 rows"):
        trace(f_string, UP)(torch.ones(0))


# --- what does not ------------------------------------------------------------------------------


class Module(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.n, self.count = 2, 0
        self.last = torch.zeros(1)
        self.items = [torch.zeros(1)]
        self.layers = nn.ModuleList([nn.Linear(5, 5), nn.Linear(5, 5)])

    def untyped(self, n):  # type: ignore[no-untyped-def]
        return n

    def sets_last(self, x: Tensor) -> Tensor:
        self.last = x  # here
        return x


class Slices(Module):
    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        t = (x, x + 1, x + 2)
        for part in t[: self.n]:  # here
            x = x + part
        return x


class Assigns(Module):
    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        self.last = x  # here
        return x


class Counts(Module):
    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        self.count += 1  # here
        return x


class AssignsNew(Module):
    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        self.fresh = x  # here
        return x


class AssignsByHelper(Module):
    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        return self.sets_last(x)


class Appends(Module):
    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        self.items.append(x)  # here
        return x


class CallsUntyped(Module):
    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        return x + self.untyped(3)  # here


class Indexes(Module):
    @hj.script_if_tracing
    def forward(self, x: Tensor, index: int = 1) -> Tensor:
        return self.layers[index](x)  # here


class CallsSuper(Slices):
    @hj.script_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)  # here


@hj.script_if_tracing
def none_first(x: Tensor) -> Tensor:
    best = None
    for k in range(x.shape[0]):
        best = x[k]  # here
    return x if best is None else best


@hj.script_if_tracing
def float_and_int(x: Tensor) -> Tensor:
    if x.sum() > 0:  # noqa: SIM108
        scale = 1.25
    else:
        scale = 0  # here
    return x * scale


@hj.script_if_tracing
def returns_float_and_int(x: Tensor) -> float:
    if x.sum() > 0:
        return 1.25
    return 0  # here


@hj.script_if_tracing
def float_else_int(x: Tensor) -> Tensor:
    scale = 1.25 if x.sum() > 0 else 0  # here
    return x * scale


@hj.script_if_tracing
def int_then_float(x: Tensor) -> Tensor:
    total = 0
    for _ in range(x.shape[0]):
        total = total + 0.5  # type: ignore[assignment]  # here
    return x * total


@hj.script_if_tracing
def one_branch_only(x: Tensor) -> Tensor:
    if x.sum() > 0:
        y = x + 1  # here
    return y


@hj.script_if_tracing
def empty_list(x: Tensor) -> Tensor:
    sizes = []
    for k in range(x.shape[0]):
        sizes.append(k)  # here
    return x[sizes]


@hj.script_if_tracing
def extended_list(x: Tensor) -> Tensor:
    sizes = []
    for k in range(x.shape[0]):
        sizes += [k]  # here
    return x[sizes]


@hj.script_if_tracing
def empty_dict(x: Tensor) -> Tensor:
    found = {}
    found["a"] = 3  # here
    return x * found["a"]


@hj.script_if_tracing
def legacy_constructor(x: Tensor) -> Tensor:
    return torch.Tensor([1.0, 2.0]) + x.sum()  # here


@hj.script_if_tracing
def imports(x: Tensor) -> Tensor:
    import torch.nn.functional as F  # here

    return F.relu(x)


@hj.script_if_tracing
def formatted(x: Tensor) -> Tensor:
    if x.shape[0] == 0:
        raise ValueError(f"{x.shape[0]:3d} rows")  # here
    return x


@hj.script_if_tracing
def any_number(*xs: Tensor) -> Tensor:  # here
    return xs[0]


@hj.script_if_tracing
def any_keyword(x: Tensor, **more: Tensor) -> Tensor:  # here
    return x


with_lambda = hj.script_if_tracing(lambda x: x + 1)  # here


@hj.script_if_tracing
def lambda_inside(x: Tensor) -> Tensor:
    f = lambda y: y + 1  # here  # noqa: E731
    return f(x)  # type: ignore[no-any-return]


@hj.script_if_tracing
def function_inside(x: Tensor) -> Tensor:
    def inner(y: Tensor) -> Tensor:  # here
        return y + 1

    return inner(x)


@hj.script_if_tracing
def mixed_dict(x: Tensor) -> Tensor:
    found = {"a": x, "n": 3}
    return found["a"]  # type: ignore[return-value]  # here


@hj.script_if_tracing
def bare_dict(x: Tensor, found: dict) -> Tensor:  # type: ignore[type-arg]  # here
    return x


@hj.script_if_tracing
def dataclass_argument(x: Tensor, boxes: Boxes) -> Tensor:  # here
    return x + boxes.xy


@hj.script_if_tracing
def tries(x: Tensor) -> Tensor:
    try:  # here
        return x[0]
    except IndexError:
        return x


@hj.script_if_tracing
def yields(x: Tensor) -> Iterator[Tensor]:
    for k in range(x.shape[0]):
        yield x[k]  # here


@hj.script_if_tracing
def calls_keyword_only(x: Tensor) -> Tensor:
    return keyword_only(x) + 1


@hj.script_if_tracing
def filtered(x: Tensor) -> Tensor:
    return torch.tensor([k for k in range(x.shape[0]) if k > 1])  # here


@hj.script_if_tracing
def walrus(x: Tensor) -> Tensor:
    if (n := x.shape[0]) > 3:  # here
        return x + n
    return x


@hj.script_if_tracing
def uses_set(x: Tensor) -> Tensor:
    return x + len({1, 2})  # here


@hj.script_if_tracing
def sets_global(x: Tensor) -> Tensor:
    global LIMIT  # here
    LIMIT = 3
    return x


@hj.script_if_tracing
def uses_numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy())  # here


@hj.script_if_tracing
def starred(x: Tensor) -> Tensor:
    *_, n = x.shape  # here
    return x * n


@hj.script_if_tracing
def dict_from_outside(x: Tensor) -> Tensor:
    return x * CONFIG["a"]  # here


def helper(x: Tensor) -> Tensor:
    return x[:LIMIT]  # here


@hj.script_if_tracing
def helper_with_number(x: Tensor) -> Tensor:
    return helper(x)


@hj.script_if_tracing
def appends_to_argument(x: Tensor, xs: list[Tensor]) -> Tensor:
    xs.append(x)  # here
    return x


@hj.script_if_tracing
def quoted_union(x: "Tensor | None") -> Tensor:  # noqa: UP037  # here
    return torch.zeros(1) if x is None else x


FAILS: list[tuple[Callable[..., Any], tuple[Any, ...], str, str]] = [
    (none_first, (), "a variable that is None first and a value later", "best: Optional[Tensor] = None"),
    (float_and_int, (), "an int in one branch and a float in the other", "scale = 0.0  # 0.0 for 0"),
    (returns_float_and_int, (), "an int in one branch and a float in the other", "0.0  # for 0"),
    (float_else_int, (), "an int in one branch and a float in the other", "0.0  # for 0"),
    (int_then_float, (), "an int in one place and a float in another", "total = 0.0"),
    (one_branch_only, (), "a variable set in one branch only", "y: Optional[Tensor] = None"),
    (empty_list, (), "an untyped empty list or dict", "sizes: List[int] = []"),
    (extended_list, (), "an untyped empty list or dict", "sizes: List[int] = []"),
    (empty_dict, (), "an untyped empty list or dict", "found: Dict[str, int] = {}"),
    (legacy_constructor, (), "torch.Tensor(...)", "torch.tensor([1.0, 2.0])"),
    (Slices().forward, (), "a tuple sliced by an attribute or a variable", "items: List[Tensor]"),
    (Indexes().forward, (), "a module list indexed by a variable", "for i, layer in enumerate(self.layers):"),
    (imports, (), "an import inside the function", "import torch.nn.functional as F"),
    (formatted, (), "a format in an f-string", '"... {} ...".format(value)'),
    (any_number, (), "*args", "def fn(xs: List[Tensor])"),
    (any_keyword, (), "**kwargs", "def fn(x: Tensor, scale: float = 1.0)"),
    (with_lambda, (), "a lambda", "def fn(x: Tensor) -> Tensor:"),
    (lambda_inside, (), "a lambda", "def fn(x: Tensor) -> Tensor:"),
    (function_inside, (), "a function inside the function", "the inner function at the top of the file"),
    (mixed_dict, (), "mixed values in a dict or list", "class Out(NamedTuple):"),
    (bare_dict, ({},), "a container without element types", "Dict[str, Tensor]"),
    (dataclass_argument, (Boxes(UP),), "a dataclass", "class Boxes(NamedTuple):"),
    (tries, (), "try and except", "if x.shape[0] == 0:"),
    (yields, (), "a generator", "out: List[Tensor] = []"),
    (filtered, (), "a comprehension with an if", "out: List[int] = []"),
    (walrus, (), "the walrus operator", "n = x.shape[0]"),
    (uses_set, (), "a set", "[1, 2]"),
    (sets_global, (), "global", "return the new value"),
    (uses_numpy, (), "NumPy", "the same in torch"),
    (starred, (), "*rest in an assignment", "n = x.shape[-1]"),
    (CallsSuper().forward, (), "super()", "self.helper(x)"),
    (Assigns().forward, (), "a method that assigns self.x", "return the value too"),
    (Counts().forward, (), "a method that assigns self.x", "return the value too"),
    (AssignsNew().forward, (), "a method that assigns self.x", "return the value too"),
    (Appends().forward, (), "a list or dict from outside that is changed in place", "items = list(self.items)"),
    (appends_to_argument, ([],), "a list or dict from outside that is changed in place", "items = list(xs)"),
    (CallsUntyped().forward, (), "an unannotated parameter", "n: int"),
    (quoted_union, (), "a quoted union", "Optional[Tensor]"),
    (
        dict_from_outside,
        (),
        "a value from outside that is no number, text or tensor",
        "a parameter for CONFIG: def fn(x: Tensor, CONFIG: ...)",
    ),
]


@pytest.mark.parametrize(("fn", "more", "name", "instead"), FAILS, ids=[case[0].__qualname__ for case in FAILS])
def test_what_fails(fn: Callable[..., Any], more: tuple[Any, ...], name: str, instead: str) -> None:
    """The error has the line of the pitfall, its text, its name and what to write."""
    with pytest.raises(CaptureError) as error:
        trace(lambda x: fn(x, *more), UP)
    lines, first = inspect.getsourcelines(inspect.unwrap(fn))
    number, text = next((n, line) for n, line in enumerate(lines, first) if "# here" in line)
    message = str(error.value).splitlines()
    assert message[1].endswith(f"test_pitfalls.py:{number}")
    assert message[2] == f"  - {text.strip()}"
    assert f"  - pitfall: {name}" in message
    assert next(line for line in message if "write instead: " in line).startswith(f"  write instead: {instead}")


@pytest.mark.parametrize(
    ("fn", "inner", "name"),
    [
        (
            helper_with_number,
            helper,
            "a number from outside, in a function called from a scripted one",
        ),
        (
            calls_keyword_only,
            inspect.unwrap(keyword_only),
            "a keyword-only default in a function called from a scripted one",
        ),
        (AssignsByHelper().forward, Module.sets_last, "a method that assigns self.x"),
    ],
    ids=["helper", "keyword_only", "method"],
)
def test_what_fails_in_a_called_function(fn: Any, inner: Callable[..., Any], name: str) -> None:
    """The error has a line of the called function, and the name of the decorated one."""
    with pytest.raises(CaptureError) as error:
        trace(lambda x: fn(x), UP)
    message = str(error.value).splitlines()
    assert f"{fn.__qualname__} can't be scripted" in message[0]
    lines, first = inspect.getsourcelines(inner)
    assert int(message[1].rpartition(":")[2]) in range(first, first + len(lines))
    assert f"  - pitfall: {name}" in message


def test_a_message_line_by_line() -> None:
    """What failed, where, the line, torch's reason, the pitfall, what to write, the page."""
    with pytest.raises(CaptureError) as error:
        trace(none_first, UP)
    message = str(error.value).splitlines()
    assert message[0] == (f"{__name__}.none_first can't be scripted: TorchScript does not compile this function")
    assert message[2:] == [
        "  - best = x[k]  # here",
        "  - TorchScript says: Variable 'best' previously had type NoneType but is now being assigned "
        "to a value of type Tensor",
        "  - pitfall: a variable that is None first and a value later",
        "  write instead: best: Optional[Tensor] = None",
        "  see docs/errors.md#scripting-pitfalls",
    ]


def test_an_error_that_is_no_known_pitfall() -> None:
    """Any other compile error has its line, torch's reason and the general ways out."""

    @hj.script_if_tracing
    def unknown(x: Tensor) -> Tensor:
        return x.no_such_method()  # type: ignore[attr-defined, no-any-return]

    with pytest.raises(CaptureError) as error:
        trace(unknown, UP)
    message = str(error.value).splitlines()
    assert "TorchScript says: 'Tensor' object has no attribute or method 'no_such_method'.:" in message[3]
    assert message[4].startswith("  write instead: the line in TorchScript's subset of Python")


def test_a_derived_size_for_an_unannotated_parameter() -> None:
    """What is computed from a size is a tensor to the trace; where that matters, the pitfall is named."""
    with pytest.raises(CaptureError, match="pitfall: an unannotated parameter"):
        trace(lambda x: unannotated(x, x.shape[0] * 2), UP)


def test_placeholders_are_filled() -> None:
    """Names of the case at hand take the place of the marks, and what has no match is nothing."""
    found = find_pitfall("Variable 'a' previously had type NoneType but to a value of type int", "a = 3")
    assert found is not None
    assert found.instead == "a: Optional[int] = None"
    assert find_pitfall("all is well", "x = 1") is None


def test_the_texts_are_short() -> None:
    """A name fits one line of the docs' table, and there is something to write for each."""
    for pitfall in PITFALLS:
        assert len(pitfall.name) < 70
        assert pitfall.instead
