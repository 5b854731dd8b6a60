"""Several graphs as one ONNX model with one set of weights: flags and methods are inputs, the graphs are branches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._describe import listed
from ..adapters.switch import FlagValue, spell_flags
from .flags import Flag

METHOD = "method"
"""What the input is called that chooses a method, unless an argument is called so."""
WRONG = "hybridjit: "
"""How the name of a node begins that fails where a call is none that the model is for."""
_LABELS = "ai.onnx.ml"


@dataclass(frozen=True)
class Graph:
    """One entry.

    Attributes:
        make: Makes its ``ModelProto``; called once, so that but one is in memory besides the merged one.
        method: The file's method.
        flags: The flags with their values.
        inputs: The names of its arguments.
        outputs: The names of its results.
    """

    make: Callable[[], Any]
    method: str
    flags: tuple[tuple[Flag, FlagValue], ...]
    inputs: Sequence[str]
    outputs: Sequence[str]


Call = tuple[Sequence[str], Sequence[str], Mapping[str, FlagValue]]
"""What the arguments of an entry are called in the merged model, what its results are, and what chooses it."""


def merge(onnx: Any, graphs: Sequence[Graph]) -> tuple[Any, list[Call]]:
    """Merges the graphs of entries.

    An argument that not every method has may be left out of a call, and so may a flag that has a default; a result that
    an entry has not is an empty tensor. ONNX can't raise, so a flag that no entry has makes an index that is out of
    bounds, in a node whose name says why.

    Args:
        onnx: The package.
        graphs: The entries; the first method is that of a call that names none.

    Returns:
        The ``ModelProto``, and how each entry is called.
    """
    return _Merging(onnx, graphs).merged()


class _Merging:
    def __init__(self, onnx: Any, graphs: Sequence[Graph]) -> None:
        self.onnx, self.graphs = onnx, graphs
        self.made = onnx.ModelProto()
        self.methods = list(dict.fromkeys(each.method for each in graphs))
        self.known: dict[object, str] = {}  # initializers by what they hold
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def merged(self) -> tuple[Any, list[Call]]:
        """Does it."""
        sides, takes, gives = [], [], []
        for index, each in enumerate(self.graphs):
            model = each.make()
            if not index:
                self.made.ir_version = model.ir_version
                self.made.producer_name = model.producer_name
            self._opsets(model)
            taken, sizes = self._inputs(each, model.graph)
            given = self._outputs(each, model.graph)
            sides.append((self._side(index, model.graph, taken, given), sizes))
            takes.append([taken.get(name, "") for name in each.inputs])  # what a graph has no use for it does not take
            gives.append([given[name] for name in each.outputs])
        graph = self.made.graph
        graph.name = "hybridjit"
        self._let_out(takes)
        graph.input.extend(self.inputs.values())
        flags = self._flag_inputs()
        method = self._input(METHOD, "STRING", self.methods[0]) if len(self.methods) > 1 else ""
        bodies = [self._complete(*side, gave) for side, gave in zip(sides, gives, strict=True)]
        chosen: list[dict[str, FlagValue]] = []
        for each in self.graphs:
            wanted = {flags[flag.name]: value for flag, value in each.flags}
            chosen.append({method: each.method, **wanted} if method else wanted)
        self._dispatch(bodies, chosen)
        for value in self.outputs.values():
            graph.output.add().CopyFrom(value)
        return self.made, list(zip(takes, gives, chosen, strict=True))

    def _opsets(self, model: Any) -> None:
        known = {each.domain: each for each in self.made.opset_import}
        for each in model.opset_import:
            if each.domain not in known:
                self.made.opset_import.add(domain=each.domain, version=each.version)
            elif known[each.domain].version != each.version:
                raise RuntimeError(
                    f"the graphs are of versions {known[each.domain].version} and {each.version} of ONNX"
                )
        functions = {(each.domain, each.name): each.SerializeToString() for each in self.made.functions}
        for each in model.functions:
            key = each.domain, each.name
            if key not in functions:
                self.made.functions.add().CopyFrom(each)
            elif functions[key] != each.SerializeToString():
                raise RuntimeError(f"the graphs have two functions {each.name}")

    def _inputs(self, entry: Graph, graph: Any) -> tuple[dict[str, str], dict[str, list[int | None]]]:
        """What the arguments are called, by their own names; and the sizes that are fixed, by that."""
        names: dict[str, str] = {}
        for value in graph.input:
            name = value.name
            before = self.inputs.get(name)
            if before is not None and not _alike(before, value):
                name = self._free(f"{entry.method}_{name}", value)
            names[value.name] = name
            known = self.inputs.setdefault(name, self.onnx.ValueInfoProto())
            if not known.name:
                known.CopyFrom(value)
                known.name = name
            for size, other in zip(_dims(known), _dims(value), strict=True):
                if size.WhichOneof("value") == "dim_value" and size != other:
                    size.Clear()
        return names, {
            names[value.name]: [size.dim_value if size.HasField("dim_value") else None for size in _dims(value)]
            for value in graph.input
        }

    def _free(self, name: str, like: Any = None) -> str:
        """A name that nothing has, or, with a value, none but one like it."""
        stem, count = name, 1
        while name in self.inputs and (like is None or not _alike(self.inputs[name], like)):
            count += 1
            name = f"{stem}_{count}"
        return name

    def _outputs(self, entry: Graph, graph: Any) -> dict[str, str]:
        """What the results are called, by their own names: those of one name and dtype are one output."""
        names: dict[str, str] = {}
        for value in graph.output:
            name = stem = value.name
            count = 1
            while name in self.inputs or (name in self.outputs and _dtype(self.outputs[name]) != _dtype(value)):
                count += 1
                name = f"{stem}_{count}"
            names[value.name] = name
            known = self.outputs.get(name)
            if known is None:
                known = self.outputs[name] = self.onnx.ValueInfoProto()
                known.CopyFrom(value)
                known.name = name
            if len(self.graphs) > 1:  # which branch it comes from is not known, so its sizes are not
                known.type.tensor_type.ClearField("shape")
        return names

    def _side(self, index: int, graph: Any, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> Any:
        """A graph as a branch: its own names begin with its number, its initializers are the model's."""
        names = dict(inputs)
        for tensor in initializers(graph):
            names[tensor.name] = self._weight(tensor)
        side = self.onnx.GraphProto()
        side.name = f"side_{index}"
        side.node.extend(graph.node)
        made = {name for node in graph.node for name in node.output}
        for value in graph.output:
            if value.name not in made:  # a branch gives nothing that is outside of it
                side.node.add(op_type="Identity", input=[value.name], output=[f"{value.name}/given"])
        given = {f"{name}/given" if name not in made else name: output for name, output in outputs.items()}
        for node in side.node:
            _rename(node, lambda name: names.get(name) or f"side_{index}/{name}")
        side.output.extend(self.onnx.ValueInfoProto(name=f"side_{index}/{name}") for name in given)
        for value, output in zip(side.output, given.values(), strict=True):
            value.type.tensor_type.elem_type = _dtype(self.outputs[output])
        return side

    def _weight(self, tensor: Any) -> str:
        """The model's initializer that holds what this one does."""
        held = tensor.raw_data if tensor.HasField("raw_data") else _unnamed(tensor)
        key = tensor.data_type, tuple(tensor.dims), tensor.HasField("raw_data"), hashlib.sha256(held).digest()
        if key not in self.known:
            name, names = tensor.name, {*self.known.values()}
            while name in names or name in self.inputs:
                name += "_"
            self.known[key] = name
            self.made.graph.initializer.add().CopyFrom(tensor)
            self.made.graph.initializer[-1].name = name
        return self.known[key]

    def _let_out(self, takes: Sequence[Sequence[str]]) -> None:
        """Gives arguments that not every entry takes a default, of a dimension more than any that is meant."""
        for name, value in self.inputs.items():
            if not all(name in each for each in takes):
                dims = [0] * (len(_dims(value)) + 1)
                value.type.tensor_type.ClearField("shape")
                self.made.graph.initializer.add(name=name, data_type=_dtype(value), dims=dims, raw_data=b"")

    def _complete(self, side: Any, shapes: Mapping[str, Sequence[int | None]], gives: Sequence[str]) -> Any:
        """A branch that checks what sizes only it fixes, and gives something for every output."""
        for name, sizes in shapes.items():
            declared = self.inputs[name]
            rank = None if declared.type.tensor_type.HasField("shape") else len(sizes)
            known = [size.HasField("dim_value") for size in _dims(declared)] or [False] * len(sizes)
            wanted = {dim: size for dim, size in enumerate(sizes) if size is not None and not known[dim]}
            self._check(side, name, wanted, rank)
        given = dict(zip(gives, [value.name for value in side.output], strict=True))
        del side.output[:]
        for output, value in self.outputs.items():
            name = given.get(output) or f"{side.name}/no {output}"
            if output not in given:
                empty = self.onnx.TensorProto(data_type=_dtype(value), dims=[0])
                self._op(side, "Constant", [], name, value=empty)
            side.output.add(name=name).type.tensor_type.elem_type = _dtype(value)
        return side

    def _check(self, side: Any, name: str, sizes: Mapping[int, int], rank: int | None) -> None:
        """Fails where an input has other sizes: the graph takes them for granted."""
        if not sizes and rank is None:
            return
        checked, stem = f"{side.name}/{name} checked", f"{side.name}/{name} sizes "
        body = list(side.node)
        for node in body:
            _rename(node, lambda each: checked if each == name else each, nodes=False)
        del side.node[:]
        shape = self._op(side, "Shape", [name], f"{stem}all")
        right = shape
        if rank is not None:
            self._op(side, "Size", [shape], f"{stem}rank")
            self._op(side, "Equal", [f"{stem}rank", self._ints(rank)], f"{stem}deep")
            zero = self._raises(side, f"{stem}deep", f"{name}.dim() == {rank}")
            right = self._op(side, "Add", [right, zero], f"{stem}as deep")
        if sizes:
            said = " and ".join(f"{name}.size()[{dim}] == {size}" for dim, size in sizes.items())
            self._op(side, "Gather", [right, self._ints(list(sizes))], f"{stem}got")
            self._op(side, "Equal", [f"{stem}got", self._ints(list(sizes.values()))], f"{stem}same")
            right = self._op(side, "Add", [right, self._raises(side, f"{stem}same", said)], f"{stem}right")
        self._op(side, "Reshape", [name, right], checked)
        side.node.extend(body)

    def _raises(self, graph: Any, holds: str, said: str) -> str:
        """A zero where all of some truths hold; elsewhere a node fails, whose name says why."""
        self._op(graph, "Cast", [holds], f"{holds} int", to=self.onnx.TensorProto.INT64)
        self._op(graph, "ReduceMin", [f"{holds} int"], f"{holds} least", keepdims=0)
        self._op(graph, "Sub", [self._ints(1), f"{holds} least"], f"{holds} wrong")
        self._op(graph, "Gather", [self._ints([0]), f"{holds} wrong"], f"{holds} zero", called=f"{WRONG}{said}")
        return f"{holds} zero"

    def _op(self, graph: Any, kind: str, inputs: Sequence[str], output: str, called: str = "", **given: Any) -> str:
        graph.node.append(self.onnx.helper.make_node(kind, inputs, [output], name=called or output, **given))
        return output

    def _ints(self, value: int | list[int]) -> str:
        """A constant."""
        numbers = value if isinstance(value, list) else [value]
        dims = [len(numbers)] if isinstance(value, list) else []
        return self._weight(self.onnx.helper.make_tensor("hybridjit_int", self.onnx.TensorProto.INT64, dims, numbers))

    def _input(self, name: str, kind: str, default: FlagValue | None) -> str:
        """A scalar input, which a call may leave out if it has a default."""
        dtype = getattr(self.onnx.TensorProto, kind)
        taken = {each.name for each in (*self.made.graph.input, *self.made.graph.initializer)}
        while name in taken or name in self.outputs:
            name += "_"
        self.made.graph.input.append(self.onnx.helper.make_tensor_value_info(name, dtype, []))
        if default is not None:
            values = [default.encode() if isinstance(default, str) else default]
            self.made.graph.initializer.append(self.onnx.helper.make_tensor(name, dtype, [], values))
        return name

    def _flag_inputs(self) -> dict[str, str]:
        flags = {flag.name: (flag, value) for each in self.graphs for flag, value in each.flags}
        kinds = {bool: "BOOL", int: "INT64", str: "STRING"}
        return {name: self._input(name, kinds[type(value)], flag.default) for name, (flag, value) in flags.items()}

    def _dispatch(self, sides: Sequence[Any], chosen: Sequence[Mapping[str, FlagValue]]) -> None:
        """Chooses a branch: the first whose method and flags are those of the call."""
        graph, conditions = self.made.graph, []
        for index, wanted in enumerate(chosen):
            terms = [self._is(name, value) for name, value in wanted.items()]
            while len(terms) > 1:
                terms = [self._op(graph, "And", terms[:2], f"choose {index} of {len(terms)}"), *terms[2:]]
            conditions.append(terms[0])
        every = conditions[0]
        for index, other in enumerate(conditions[1:]):
            every = self._op(graph, "Or", [every, other], f"known {index}")
        rows = [f"({spell_flags(each)})" for each in chosen]
        zero = self._raises(graph, every, f"no such combination; there is {listed(rows, most=8)}")
        right = self._op(graph, "Equal", [zero, self._ints(0)], "known")  # so that what fails is needed
        last = sides[-1]
        for index in reversed(range(max(len(sides) - 1, 1))):  # a single one is chosen either way
            holds = conditions[index]
            into = graph if not index else self.onnx.GraphProto(name=f"not {index - 1}")
            if not index:
                holds = self._op(graph, "And", [holds, right], "chosen")
            names = list(self.outputs) if not index else [f"not {index - 1}/{name}" for name in self.outputs]
            node = into.node.add(op_type="If", name=f"choose {index}", input=[holds], output=names)
            for side, key in ((sides[index], "then_branch"), (last, "else_branch")):
                node.attribute.add(name=key, type=self.onnx.AttributeProto.GRAPH).g.CopyFrom(side)
            if index:
                for name, value in zip(names, self.outputs.values(), strict=True):
                    into.output.add(name=name).type.tensor_type.elem_type = _dtype(value)
            last = into

    def _is(self, name: str, value: FlagValue) -> str:
        """Whether an input has a value."""
        graph, output = self.made.graph, f"{name} is {value!r}"
        if any(output in node.output for node in graph.node):
            return output
        if isinstance(value, bool):
            return self._op(graph, "Identity" if value else "Not", [name], output)
        if isinstance(value, int):
            return self._op(graph, "Equal", [name, self._ints(value)], output)
        if not any(each.domain == _LABELS for each in self.made.opset_import):
            self.made.opset_import.add(domain=_LABELS, version=2)
        # Text is compared by its number: Equal takes no text before opset 19.
        labels: dict[str, Any] = {"keys_strings": [value], "values_int64s": [1], "default_int64": 0}
        self._op(graph, "LabelEncoder", [name], f"{output} label", domain=_LABELS, **labels)
        return self._op(graph, "Equal", [f"{output} label", self._ints(1)], output)


def _dims(value: Any) -> Any:
    return value.type.tensor_type.shape.dim


def _dtype(value: Any) -> int:
    return int(value.type.tensor_type.elem_type)


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are of one dtype and number of dimensions."""
    return _dtype(one) == _dtype(other) and len(_dims(one)) == len(_dims(other))


def _unnamed(tensor: Any) -> bytes:
    same = type(tensor)()
    same.CopyFrom(tensor)
    same.name = ""
    return bytes(same.SerializeToString(deterministic=True))


def _graphs(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def initializers(graph: Any) -> Iterator[Any]:
    """The initializers of a graph and of those in it."""
    yield from graph.initializer
    for node in graph.node:
        for inner in _graphs(node):
            yield from initializers(inner)


def _rename(node: Any, name_of: Callable[[str], str], *, nodes: bool = True) -> None:
    """Gives the values of a node other names, and those of the graphs in it, whose initializers are dropped."""
    if nodes:
        node.name = name_of(node.name)
    node.input[:] = [name_of(each) if each else "" for each in node.input]
    node.output[:] = [name_of(each) if each else "" for each in node.output]
    for graph in _graphs(node):
        del graph.initializer[:]
        del graph.value_info[:]  # what a size is called there may be called otherwise in another branch
        for value in (*graph.input, *graph.output):
            value.name = name_of(value.name)
        for inner in graph.node:
            _rename(inner, name_of, nodes=nodes)
