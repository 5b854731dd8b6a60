"""`dynamic_shapes`: torch.export's vocabulary, read against the call that it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.export import Dim

from .._describe import describe, listed
from .._errors import InputError, compose
from ..adapters.schema import CallSchema
from ..adapters.tree import Container, Node, StaticLeaf, TensorLeaf, leaves

_HINTS = {"AUTO": "Dim.AUTO", "DYNAMIC": "Dim.DYNAMIC", "STATIC": "Dim.STATIC"}


@dataclass(frozen=True)
class Place:
    """A dimension of a tensor whose size is ``times * variable + plus``.

    Attributes:
        tensor: The how-many-eth tensor of the flat call.
        dim: Its dimension.
        times: The factor, from 1.
        plus: What is added.
    """

    tensor: int
    dim: int
    times: int = 1
    plus: int = 0


@dataclass(frozen=True)
class Variable:
    """A size that may change, with all that changes along.

    Attributes:
        name: The name of its `Dim`; the dimension (``x[0]``) where it has none.
        now: What it is in the first input.
        least: The smallest that was declared.
        most: The largest, if there is one.
        strict: Whether the file must take it; with ``Dim.AUTO`` it may turn out to be fixed.
        places: The dimensions.
    """

    name: str
    now: int
    least: int
    most: int | None
    strict: bool
    places: tuple[Place, ...]

    def allows(self, size: int) -> bool:
        """Whether a size was declared."""
        return self.least <= size and (self.most is None or size <= self.most)


def read_shapes(schema: CallSchema, flat: Sequence[Tensor], given: Any) -> tuple[Variable, ...]:
    """What ``dynamic_shapes`` declares of a call.

    Args:
        schema: The structure of the call.
        flat: Its tensors.
        given: What the user wrote.

    Raises:
        InputError: It is not torch.export's vocabulary, or does not fit the call; every fault by its path.
    """
    paths = [path for path, leaf in leaves(schema.arguments) if not isinstance(leaf, StaticLeaf)]
    reader = _Reader(flat, paths)
    reader.arguments(schema.arguments, given)
    found = reader.variables() if not reader.wrong else []
    if reader.wrong:
        ranks = [tensor.dim() for tensor in flat]
        example = next((path for path, rank in zip(paths, ranks, strict=True) if rank), paths[0])
        argument = example.split("[")[0].split(".")[0]
        raise InputError(
            compose(
                "dynamic_shapes does not fit the inputs",
                differences=reader.wrong,
                instead=f'dynamic_shapes={{"{argument}": {{0: torch.export.Dim("batch")}}}}, and None for an argument '
                "without dynamic sizes\n(Dim, Dim.AUTO, Dim.DYNAMIC, Dim.STATIC, an int or None for each dimension, "
                "nested as the arguments are)",
                page="inputerror",
            )
        )
    return tuple(found)


def read_specs(schema: CallSchema, flat: Sequence[Tensor], given: Any) -> list[dict[int, Any]]:
    """What ``dynamic_shapes`` says of each tensor of a call, by dimension, as torch.export takes it for flat tensors.

    Args:
        schema: The structure of the call.
        flat: Its tensors.
        given: What the user wrote, which fits the call, see `read_shapes`.
    """
    reader = _Reader(flat, [path for path, leaf in leaves(schema.arguments) if not isinstance(leaf, StaticLeaf)])
    reader.arguments(schema.arguments, given)
    return [{place.dim: spec for place, spec in reader.specs if place.tensor == index} for index in range(len(flat))]


@dataclass
class _Declared:
    """A variable as far as it is read."""

    sizes: dict[str, int] = field(default_factory=dict)
    least: int = 0
    most: int | None = None
    strict: bool = True
    places: list[Place] = field(default_factory=list)


class _Reader:
    """Reads the vocabulary down the structure of a call.

    Attributes:
        wrong: What does not fit, by its path in ``dynamic_shapes``.
        specs: What was read.
    """

    def __init__(self, flat: Sequence[Tensor], paths: Sequence[str]) -> None:
        self._flat = flat
        self._paths = paths
        self._next = 0
        self._named: dict[str, _Declared] = {}
        self._unnamed: dict[tuple[int, int, int, int | None, bool], tuple[str, _Declared]] = {}
        self.wrong: list[str] = []
        self.specs: list[tuple[Place, Any]] = []

    def arguments(self, node: Container, given: Any) -> None:
        """Reads what was written for all arguments: a dict by name, or a tuple by position."""
        if not isinstance(given, (Mapping, tuple, list)):
            self.wrong.append(f"dynamic_shapes: expected a dict by argument or a tuple, got {_spell(given)}")
            return
        self._container(node, given, "dynamic_shapes")

    def variables(self) -> list[Variable]:
        """The variables, those with a name first."""
        found = []
        for name, each in self._named.items():
            if len(set(each.sizes.values())) > 1:
                said = listed(f"{size} by {place}" for place, size in each.sizes.items())
                self.wrong.append(f"Dim({name!r}): the inputs give it {len(set(each.sizes.values()))} sizes: {said}")
                continue
            found.append(self._variable(name, each))
        found += [self._variable(name, each) for name, each in self._unnamed.values()]
        return found

    def _variable(self, name: str, each: _Declared) -> Variable:
        now = next(iter(each.sizes.values()))
        least = max([each.least, *(-(place.plus // place.times) for place in each.places if place.plus < 0)])
        found = Variable(name, now, least, each.most, each.strict, tuple(each.places))
        if not found.allows(now):
            most = "" if each.most is None else f" to {each.most}"
            self.wrong.append(f"{name}: is {now} in the inputs, and declared from {least}{most}")
        return found

    def _node(self, node: Node, given: Any, path: str) -> None:
        if isinstance(node, TensorLeaf):
            tensor = self._next
            self._next += 1
            self._tensor(tensor, given, path)
        elif isinstance(node, Container):
            if given is None:
                self._skip(node)
            else:
                self._container(node, given, path)
        elif given is not None and given != {} and given != ():
            self.wrong.append(f"{path}: expected None, since there is no tensor, got {_spell(given)}")

    def _container(self, node: Container, given: Any, path: str) -> None:
        names = node.names or tuple(range(len(node.children)))
        if isinstance(given, Mapping) and node.names:
            unknown = [name for name in given if name not in names]
            self.wrong += [f"{path}[{name!r}]: there is {listed(map(repr, names))}" for name in unknown]
            for name, child in zip(names, node.children, strict=True):
                below = f"{path}[{name!r}]"
                if name not in given and _has_tensors(child):
                    self.wrong.append(f"{below}: is missing; write None if its sizes are fixed")
                    self._skip(child)
                else:
                    self._node(child, given.get(name), below)
        elif (isinstance(given, (tuple, list)) and node.kind != "dict") or path == "dynamic_shapes":
            if len(given) > len(names):
                self.wrong.append(f"{path}: expected {len(names)} entries, got {len(given)}")
            for index, child in enumerate(node.children):
                if index >= len(given) and _has_tensors(child):
                    self.wrong.append(f"{path}[{index}]: is missing; write None if its sizes are fixed")
                    self._skip(child)
                else:
                    self._node(child, given[index] if index < len(given) else None, f"{path}[{index}]")
        else:
            wanted = "a dict" if node.kind == "dict" else "a tuple or a list"
            self.wrong.append(f"{path}: expected {wanted}, as the argument is, got {_spell(given)}")
            self._skip(node)

    def _skip(self, node: Node) -> None:
        self._next += sum(not isinstance(leaf, StaticLeaf) for _, leaf in leaves(node))

    def _tensor(self, tensor: int, given: Any, path: str) -> None:
        shape = self._flat[tensor].shape
        if given is None:
            return
        if isinstance(given, Mapping):
            for dim, spec in given.items():
                if type(dim) is not int or not 0 <= dim < len(shape):
                    self.wrong.append(f"{path}[{dim!r}]: expected a dimension from 0 to {len(shape) - 1}")
                else:
                    self._dimension(Place(tensor, dim), shape[dim], spec, f"{path}[{dim}]")
        elif isinstance(given, (tuple, list)) and len(given) == len(shape):
            for dim, spec in enumerate(given):
                self._dimension(Place(tensor, dim), shape[dim], spec, f"{path}[{dim}]")
        elif isinstance(given, (tuple, list)):
            self.wrong.append(f"{path}: expected {len(shape)} dimensions, got {len(given)}")
        else:
            self.wrong.append(f"{path}: expected a dict by dimension, a tuple or None, got {_spell(given)}")

    def _dimension(self, place: Place, size: int, spec: Any, path: str) -> None:
        if spec is None:
            return
        self.specs.append((place, spec))
        if type(spec) is int:
            if spec != size:
                self.wrong.append(f"{path}: expected {size}, as the input has it, got {spec}")
        elif isinstance(spec, Dim):
            self._named_dimension(place, size, spec, path)
        elif isinstance(spec, type(Dim.AUTO)):
            if spec.type.name == "STATIC":
                return
            # What torch.export finds out of hints, that dimensions belong together, is taken from the sizes.
            key = size, place.dim, spec.min or 0, spec.max, spec.type.name == "DYNAMIC"
            name = f"{self._paths[place.tensor]}[{place.dim}]"
            declared = self._unnamed.setdefault(key, (name, _Declared({path: size}, *key[2:])))[1]
            declared.places.append(place)
        else:
            self.wrong.append(f"{path}: expected {', '.join(['Dim(...)', *_HINTS.values()])}, an int or None, "
                              f"got {_spell(spec)}")  # fmt: skip

    def _named_dimension(self, place: Place, size: int, spec: Any, path: str) -> None:
        root: Any = spec
        steps: list[Callable[[int], int]] = []
        while hasattr(root, "root"):  # 2 * batch + 1
            steps.append(root.fn)
            root = root.root

        def at(value: int) -> int:
            for step in reversed(steps):
                value = step(value)
            return int(value)

        plus, times = at(0), at(1) - at(0)
        if (size - plus) % times:
            self.wrong.append(f"{path}: is {size} in the input, which {spec.__name__} can't be")
            return
        declared = self._named.setdefault(root.__name__, _Declared())
        declared.sizes[path] = (size - plus) // times
        declared.least = max(declared.least, root.min)
        if type(root.max) is int:  # without an end it is torch's own infinity
            declared.most = root.max if declared.most is None else min(declared.most, root.max)
        declared.places.append(Place(place.tensor, place.dim, times, plus))


def _has_tensors(node: Node) -> bool:
    return any(not isinstance(leaf, StaticLeaf) for _, leaf in leaves(node))


def _spell(given: Any) -> str:
    return repr(given) if isinstance(given, (int, float, str, bool)) else describe(given)
