"""A compiled piece run operation by operation, its branches and loops as `cond` and `while_loop`.

TorchScript knows what `torch.export` must be told: which ``if`` and which loop hang on data. One whose outcome is
known while it is recorded takes its side, or is unrolled; every other becomes torch's own operator.
"""

from __future__ import annotations

import contextlib
import linecache
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._describe import place
from .._errors import CaptureError, HybridJitError, UnsupportedError, compose
from .._sites import Site, user_site
from . import lower, record
from .arithmetic import ENUMERATIONS, OPERATORS, WRITERS, as_number, as_scalar, as_tensor, moved, new_tensor
from .operators import Argument, operator_of
from .results import ScriptedRaise, truth
from .scout import SYMBOLIC

Env = dict[int, Any]
_FOREVER = 2**63 - 1
_UNROLLED = 512
"""How many rounds of a loop are recorded one by one, where how many there are is known."""


class Unset:
    """Stands for a value that TorchScript knows nobody reads."""


class Part:
    """A side of a branch or a part of a loop, as messages name it."""

    def __init__(self, name: str, site: tuple[str, int], run: Callable[..., Any]) -> None:
        self.__name__: str = name
        self.run: Callable[..., Any] = run
        self.__code__: SimpleNamespace = SimpleNamespace(co_filename=site[0], co_firstlineno=site[1])

    def __call__(self, *args: Any) -> Any:
        """Runs it."""
        return self.run(*args)


class Interpreter:
    """Runs one compiled piece.

    Args:
        name: What the piece is called.
        site: Where it is defined, for operations that have no line of their own.
    """

    def __init__(self, name: str, site: tuple[str, int]) -> None:
        self.name = name
        self.site = site

    def run(self, graph: _torch.Graph, inputs: Sequence[Any]) -> Any:
        """Runs a graph of one result."""
        env = {value.unique(): given for value, given in zip(graph.inputs(), inputs, strict=True)}
        (result,) = self._block(list(graph.nodes()), [each for each in graph.outputs()], env)
        return result

    def _block(self, nodes: Sequence[Any], results: Sequence[Any], env: Env) -> list[Any]:
        """Runs operations one after another, and gives what is left of them."""
        for index, node in enumerate(nodes):
            if node.kind() == "prim::If":
                pred = env[node.inputsAt(0).unique()]
                if not _is_known(pred) and _leaves_unset(node):
                    return self._split(node, pred, nodes[index + 1 :], results, env)
                outputs = self._if(node, pred, env)
            elif node.kind() == "prim::Loop":
                outputs = self._loop(node, env)
            else:
                outputs = self._operation(node, [env[value.unique()] for value in node.inputs()])
            env.update({value.unique(): each for value, each in zip(node.outputs(), outputs, strict=True)})
        return [env[value.unique()] for value in results]

    def _side(self, node: Any, index: int, env: Env) -> list[Any]:
        block = list(node.blocks())[index]
        return self._block(list(block.nodes()), list(block.outputs()), dict(env))

    def _if(self, node: Any, pred: Any, env: Env) -> list[Any]:
        if _is_known(pred):
            return self._side(node, 0 if pred else 1, env)
        if _is_logic(node):  # `and`, `or`, and what a `break` leaves behind
            holds, fails = self._side(node, 0, env), self._side(node, 1, env)
            either, both, no = (OPERATORS[f"aten::__{name}__"] for name in ("or", "and", "not"))
            return [either(both(pred, one), both(no(pred), other)) for one, other in zip(holds, fails, strict=True)]
        self._refuse_list_writes(node, "an if")
        return self._lowered(node, pred, lambda index: self._side(node, index, env))

    def _split(self, node: Any, pred: Any, rest: Sequence[Any], results: Sequence[Any], env: Env) -> list[Any]:
        """Runs what follows an ``if`` in each of its sides, where only one of them sets what follows needs."""

        def side(index: int) -> list[Any]:
            own = dict(env)
            given = self._side(node, index, own)
            own.update({value.unique(): each for value, each in zip(node.outputs(), given, strict=True)})
            return self._block(rest, results, own)

        self._refuse_list_writes(node, "an if", rest)
        return self._lowered(node, pred, side)

    def _loop(self, node: Any, env: Env) -> list[Any]:
        trips, going, *carried = (env[value.unique()] for value in node.inputs())
        (block,) = node.blocks()
        inside = list(block.inputs())
        nodes, results = list(block.nodes()), list(block.outputs())

        def body(index: Any, values: Sequence[Any]) -> list[Any]:
            own = dict(env)
            own.update({value.unique(): each for value, each in zip(inside, (index, *values), strict=True)})
            return self._block(nodes, results, own)

        index = 0
        while _is_known(going) and isinstance(trips, int):  # what is known to happen is recorded as it happens
            if not going or index >= trips:
                return list(carried)
            if index == _UNROLLED:
                break
            going, *carried = body(index, carried)
            index += 1
        return self._rounds(node, index, trips, going, carried, body)

    def _rounds(self, node: Any, index: int, trips: Any, going: Any, carried: list[Any], body: Any) -> list[Any]:
        """A loop whose number of rounds only the data tell."""
        self._refuse_list_writes(node, "a loop")
        if any(each is Unset for each in carried):
            raise self._refused(
                node,
                ["the loop is left by a return"],
                "a variable that is set before the loop, a break, and the return after it",
            )
        counts = not (isinstance(trips, int) and trips == _FOREVER)
        start = torch.full((), index, dtype=torch.int64)
        if isinstance(going, SYMBOLIC):
            going = as_tensor(going)

        def goes_on(at: Any, go: Any, *_: Any) -> Any:
            if not counts:
                return go
            inside = at < trips
            return inside if go is True else inside & go

        def step(at: Any, go: Any, *values: Any) -> tuple[Any, ...]:
            after, *given = body(at.item() if counts else 0, values)
            return (at + 1, as_tensor(after) if isinstance(after, SYMBOLIC) else after, *given)

        parts = (Part("its condition", self._place(node), goes_on), Part("its body", self._place(node), step))
        with self._explaining(node):
            found = lower.lower_while_loop(*parts, (start, going, *carried), "scripted loop", self._written(node))
            return list(found)[2:]

    def _lowered(self, node: Any, pred: Any, side: Callable[[int], list[Any]]) -> list[Any]:
        """A branch that only the data decide."""
        site = self._place(node)
        sides = (
            Part("the side where it holds", site, lambda: tuple(side(0))),
            Part("the side where it does not", site, lambda: tuple(side(1))),
        )
        with self._explaining(node):
            return list(lower.lower_cond(pred, *sides, (), "scripted if", self._written(node)))

    @contextlib.contextmanager
    def _explaining(self, node: Any) -> Iterator[None]:
        """Names the line of the piece in what is refused in the body."""
        try:
            yield
        except (CaptureError, UnsupportedError) as error:
            if self.name in str(error):  # told already, of something within
                raise
            rows = [row.strip() for row in str(error).splitlines()]
            instead = str(error).partition("write instead: ")[2].partition("\n  see ")[0]
            told = [rows[0], *(row.removeprefix("- ") for row in rows if row.startswith("- "))]
            raise self._refused(node, told, instead, type(error)) from error

    def _operation(self, node: Any, values: list[Any]) -> list[Any]:
        kind = node.kind()
        made = _STRUCTURES.get(kind)
        try:
            if made is not None:
                given = made(node, values)
            elif kind == "prim::RaiseException":
                raise ScriptedRaise(values[0], place(*self._place(node)))
            elif (found := _QUESTIONS.get(kind)) is not None:
                given = found(*values)
            else:
                given = self._call(node, values)
        except (HybridJitError, ScriptedRaise):
            raise
        except Exception as error:
            row = next((row.strip() for row in str(error).splitlines() if row.strip()), "")
            instead = (
                "tensors whose sizes hang on no data at this line (a mask and torch.where rather than x[mask]), or "
                'format="torchscript"'
            )
            raise self._refused(node, [f"{type(error).__name__}: {row}"], instead) from error
        if len(list(node.outputs())) == 1 and kind not in ("prim::ListUnpack", "prim::TupleUnpack"):
            return [given]
        return list(given) if isinstance(given, (tuple, list)) else []

    def _call(self, node: Any, values: list[Any]) -> Any:
        """Calls an operator: torch's on tensors, else ours on numbers, text and lists."""
        operator, arguments = operator_of(node)
        takes = any(each.holds_tensors for each in arguments)
        overload = node.schema().partition("(")[0].partition(".")[2]
        ours = OPERATORS.get(f"{node.kind()}.{overload}") or OPERATORS.get(node.kind())
        if not takes and ours is not None:
            return _typed(node, ours(*values))
        if node.kind() == "aten::to" and overload.startswith("prim"):
            return moved(*values)
        by_tensor = _with_tensor(node, operator, arguments, values)
        if by_tensor is not None:
            return by_tensor
        positional, named = [], {}
        for each, value in zip(arguments, values, strict=True):
            if not each.holds_tensors and isinstance(value, Tensor):
                value = as_scalar(value)
            elif each.name in ENUMERATIONS and isinstance(value, int):
                value = ENUMERATIONS[each.name][value]
            if each.by_keyword:
                named[each.name] = value
            else:
                positional.append(value)
        return operator(*positional, **named)

    def _refuse_list_writes(self, node: Any, what: str, rest: Sequence[Any] = ()) -> None:
        """Refuses to change a list from outside: a branch or loop of torch's carries tensors alone."""
        inside = [each for part in (node, *rest) for each in (part, *_within(part))]
        own = {value.unique() for each in inside for value in each.outputs()}
        for each in inside:
            if each.kind() in WRITERS and each.inputsAt(0).unique() not in own:
                raise self._refused(
                    each,
                    [f"{what} whose outcome the data decide changes a list that was made outside of it"],
                    "a tensor of the largest size, and how much of it is filled:\n"
                    "kept = torch.zeros(n, dtype=torch.bool)  # and in the loop:\n"
                    "kept = kept.index_fill(0, best, 1)",
                    UnsupportedError,
                )

    def _place(self, node: Any) -> tuple[str, int]:
        file, line, _ = _torch.source_of(node)
        return (file, line) if line and not file.startswith("<") else self.site

    def _written(self, node: Any) -> Site:
        """Where a branch or loop is written, and the module that calls the piece."""
        return Site(*self._place(node), user_site(record.current().names).module_path)

    def _refused(
        self, node: Any, rows: Sequence[str], instead: str, kind: type[HybridJitError] = CaptureError
    ) -> HybridJitError:
        file, line = self._place(node)
        code = linecache.getline(file, line).strip()
        return kind(
            compose(
                f"{self.name} can't be exported with its control flow",
                where=place(file, line),
                differences=[*([code] if code else []), *rows],
                instead=instead,
                page="scripting-pitfalls",
            )
        )


def _within(node: Any) -> list[Any]:
    """The operations in the blocks of one."""
    return [each for block in node.blocks() for each in _torch.every_node(block)]


def _is_known(pred: Any) -> bool:
    """Whether a condition has one outcome, whatever the data."""
    return truth(pred) is not None


_LOGIC = {
    f"aten::{name}" for name in ("lt", "le", "gt", "ge", "eq", "ne", "__and__", "__or__", "__not__", "add", "sub")
}


def _is_logic(node: Any) -> bool:
    """Whether the sides of an ``if`` only compare numbers, so that both can be computed."""
    numbers = ("BoolType", "IntType", "FloatType")
    for block in node.blocks():
        if any(_torch.kind(value.type()) != "BoolType" for value in block.outputs()):
            return False
        for each in block.nodes():
            if each.kind() != "prim::Constant" and (
                each.kind() not in _LOGIC or any(_torch.kind(value.type()) not in numbers for value in each.inputs())
            ):
                return False
    return bool(list(node.outputs()))


def _leaves_unset(node: Any) -> bool:
    """Whether a side of an ``if`` gives a value that is none."""
    for block in node.blocks():
        for value in block.outputs():
            made = value.node()
            if made.kind() == "prim::Uninitialized" or (made.kind() == "prim::If" and _leaves_unset(made)):
                return True
    return False


def _typed(node: Any, given: Any) -> Any:
    """A number that is in a tensor as that of its type: an int as a size, others as a tensor of their dtype."""
    outputs = list(node.outputs())
    if isinstance(given, Tensor) and len(outputs) == 1:
        kind = _torch.kind(outputs[0].type())
        return as_number(given, kind) if kind in ("IntType", "FloatType", "BoolType") else given
    return given


def _with_tensor(node: Any, operator: Any, arguments: Sequence[Argument], values: Sequence[Any]) -> Tensor | None:
    """An operation with a number that is in a tensor, as that on two tensors; ``None`` where there is none."""
    scalars = [i for i, each in enumerate(arguments) if each.type == "Scalar" and isinstance(values[i], Tensor)]
    if scalars != [1] or arguments[0].type != "Tensor" or not hasattr(operator.overloadpacket, "Tensor"):
        return None
    tensor, number = values[0], values[1]
    python = {torch.bool: True, torch.int64: 1}.get(number.dtype, 1.0)
    number = number.to(torch.result_type(tensor, python)).to(tensor.device)
    named = {each.name: value for each, value in zip(arguments[2:], values[2:], strict=True)}
    result: Tensor = operator.overloadpacket(
        tensor, number, **{k: v for k, v in named.items() if k == "alpha" and v != 1}
    )
    return result


def _constant(node: Any, values: Sequence[Any]) -> Any:
    return node.output().toIValue()


def _pack(node: Any, values: Sequence[Any]) -> Any:
    pairs = iter(values)
    return dict(zip(pairs, pairs, strict=True))


_STRUCTURES: dict[str, Callable[[Any, Sequence[Any]], Any]] = {
    "prim::Constant": _constant,
    "prim::Uninitialized": lambda node, values: Unset,
    "prim::ListConstruct": lambda node, values: list(values),
    "prim::TupleConstruct": lambda node, values: tuple(values),
    "prim::DictConstruct": _pack,
    "prim::ListUnpack": lambda node, values: _unpacked(node, values[0]),
    "prim::TupleUnpack": lambda node, values: list(values[0]),
    "prim::TupleIndex": lambda node, values: values[0][values[1]],
    "prim::unchecked_cast": lambda node, values: values[0],
    "prim::unchecked_unwrap_optional": lambda node, values: values[0],
    "aten::_unwrap_optional": lambda node, values: values[0],
    "prim::NumToTensor": lambda node, values: as_tensor(values[0]),
    "prim::Print": lambda node, values: [],
}


def _unpacked(node: Any, values: Any) -> list[Any]:
    given, wanted = list(values), len(list(node.outputs()))
    if len(given) != wanted:
        raise ValueError(f"a list of {wanted} is unpacked, and has {len(given)}")
    return given


_QUESTIONS: dict[str, Callable[..., Any]] = {
    **{kind: OPERATORS[kind] for kind in ("aten::Int", "aten::Float", "aten::Bool", "aten::item", "aten::IntImplicit")},
    **{kind: OPERATORS[kind] for kind in ("aten::FloatImplicit", "aten::ScalarImplicit")},
    "aten::size": lambda tensor, *dim: tensor.shape[dim[0]] if dim else list(tensor.shape),
    "aten::len": lambda value: value.shape[0] if isinstance(value, Tensor) else len(value),
    "aten::numel": lambda tensor: tensor.numel(),
    "aten::dim": lambda tensor: tensor.dim(),
    "aten::is_floating_point": lambda tensor: tensor.is_floating_point(),
    "aten::tensor": new_tensor,
    "aten::as_tensor": new_tensor,
    "prim::dtype": lambda tensor: tensor.dtype,
    "prim::device": lambda tensor: tensor.device,
    "prim::layout": lambda tensor: tensor.layout,
    "prim::is_cuda": lambda tensor: tensor.is_cuda,
    "prim::requires_grad": lambda tensor: tensor.requires_grad,
}
"""What is asked of a tensor, or made of a number."""
