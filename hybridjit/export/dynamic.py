"""Sizes and values at which a file is verified because `dynamic_shapes` declares them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from .._describe import listed
from .._errors import CaptureError, HybridJitError
from ..adapters.inputs import Inputs
from ..adapters.schema import CallSchema
from .checks import RAISES, Expectation
from .probes import prime_from, resized
from .report import Check, Finding
from .shapes import Variable, read_shapes

_MOST = 64
"""How many sizes and values are tried for one entry."""
_SECONDS = 60.0
"""From when on no further ones are; what was left out is in the report."""
_LARGER = 8
"""How many times as many elements as the first input the others may have, if that is not few anyway."""
_FEW = 1 << 16
_AT = re.compile(r"frozen at (.+?):(\d+).*?(?:; write (.*))?$")


@dataclass(frozen=True)
class Sized:
    """A further input of declared sizes, or of other values.

    Attributes:
        name: What it is called: ``batch=1, seq=7``, ``values: zeros``.
        flat: Its tensors.
        strict: Whether the file must take it: its sizes were declared by more than ``Dim.AUTO``.
        sizes: The variables that have another size, by name.
    """

    name: str
    flat: tuple[Tensor, ...]
    strict: bool
    sizes: Mapping[str, int]


def sized(flat: tuple[Tensor, ...], variables: Sequence[Variable]) -> Iterator[Sized]:
    """Inputs of the sizes that were declared: dimension by dimension, then jointly.

    Args:
        flat: The first input's tensors.
        variables: What was declared.
    """
    primes: dict[str, int] = {}
    last = 0
    for variable in variables:  # another one each, so that no two sizes are equal by chance
        last = primes[variable.name] = prime_from(max(variable.now, last) + 1)
    each = {variable.name: _sizes(variable, primes[variable.name]) for variable in variables}
    made: list[dict[str, int]] = [{name: size} for name, sizes in each.items() for size in sizes.values()]
    for kind in ("smallest", "0", "1", "odd", "prime", "large"):
        together = {name: sizes[kind] for name, sizes in each.items() if kind in sizes}
        if len(together) > 1:
            made.append(together)
    yield from _resized(flat, variables, made)


def fresh(flat: tuple[Tensor, ...], variables: Sequence[Variable], count: int) -> Iterator[Sized]:
    """Inputs of sizes that nothing was captured on yet: a file that learned the others by heart fails on them.

    Args:
        flat: The first input's tensors.
        variables: What was declared.
        count: How often it was asked before.
    """
    each: dict[str, list[int]] = {}
    for variable in variables:
        near = variable.now + 7 + 4 * count, prime_from(variable.now + 12 + 6 * count), 2 + count
        each[variable.name] = [size for size in near if variable.allows(size) and size != variable.now]
    made = [{name: size} for name, sizes in each.items() for size in sizes]
    if len(each) > 1 and all(each.values()):
        made += [{name: sizes[0] for name, sizes in each.items()}, {name: sizes[-1] for name, sizes in each.items()}]
    yield from _resized(flat, variables, made)


def _resized(
    flat: tuple[Tensor, ...], variables: Sequence[Variable], every: Sequence[Mapping[str, int]]
) -> Iterator[Sized]:
    most = max(_LARGER * sum(tensor.numel() for tensor in flat), _FEW)
    for sizes in dict.fromkeys(tuple(sorted(each.items())) for each in every):
        changed = resize(flat, variables, dict(sizes), most)
        if changed is not None:
            name = ", ".join(f"{name}={size}" for name, size in sizes)
            strict = all(variable.strict for variable in variables if variable.name in dict(sizes))
            yield Sized(name, changed, strict, dict(sizes))


def _sizes(variable: Variable, prime: int) -> dict[str, int]:
    """Sizes of a variable, by what they are good for; each once, and none that it has already."""
    odd = variable.now + 1 + variable.now % 2
    large = max(2 * variable.now + 3, 24)
    large = large if variable.most is None else min(large, variable.most)
    every = {"smallest": variable.least, "0": 0, "1": 1, "odd": odd, "prime": prime, "large": large}
    once = {size: kind for kind, size in reversed(every.items())}
    return {kind: size for size, kind in reversed(once.items()) if variable.allows(size) and size != variable.now}


def resize(
    flat: tuple[Tensor, ...], variables: Sequence[Variable], sizes: Mapping[str, int], most: int
) -> tuple[Tensor, ...] | None:
    """The first input at other sizes; what belongs together changes together.

    Args:
        flat: The first input's tensors.
        variables: What was declared.
        sizes: The size of each variable that is to change.
        most: How many elements they may have, in all.

    Returns:
        ``None`` if it would have more.
    """
    shapes = [list(tensor.shape) for tensor in flat]
    changes = [
        (place.tensor, place.dim, place.times * sizes[variable.name] + place.plus)
        for variable in variables
        if variable.name in sizes
        for place in variable.places
    ]
    for tensor, dim, size in changes:
        shapes[tensor][dim] = size
    if sum(torch.Size(shape).numel() for shape in shapes) > most:
        return None
    changed = list(flat)
    for tensor, dim, size in changes:
        changed[tensor] = resized(changed[tensor], dim, size)
    return tuple(changed)


def valued(flat: tuple[Tensor, ...]) -> Iterator[Sized]:
    """The first input with other values; integers stay within those that it has, since they may be indices.

    Args:
        flat: The first input's tensors.
    """
    for name, change in _VALUES.items():
        changed = tuple(change(tensor) if tensor.numel() else tensor for tensor in flat)
        if any(one is not other for one, other in zip(flat, changed, strict=True)):
            yield Sized(f"values: {name}", changed, False, {})


def _zeros(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor)


def _equal(tensor: Tensor) -> Tensor:
    return torch.full_like(tensor, tensor.reshape(-1)[0].item())


def _scaled(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor * factor if tensor.is_floating_point() else tensor


def _with(value: float) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        changed = tensor.clone()
        changed.reshape(-1)[0] = value
        return changed if changed.is_contiguous() else torch.full_like(tensor, value)

    return change


_VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros": _zeros,
    "all equal": _equal,
    "negative": _scaled(-1.0),
    "huge": _scaled(1e4),
    "NaN": _with(float("nan")),
    "infinity": _with(float("inf")),
}


@dataclass
class Declared:
    """What `dynamic_shapes` asks of one entry: the inputs, and what came of them.

    Attributes:
        schema: The structure of the call.
        flat: Its tensors.
        variables: The sizes that may change.
        inputs: The inputs that the model takes, by name.
        expected: What it gives for them.
        refused: Those that it refuses, with its words.
        stopped: Those with other values that the file stops at, as it does anywhere that nothing was declared.
        fixed: Those with ``Dim.AUTO`` alone that it stops at.
        left: Those that were not run for want of time.
    """

    schema: CallSchema | None = None
    flat: tuple[Tensor, ...] = ()
    variables: tuple[Variable, ...] = ()
    inputs: dict[str, Inputs] = field(default_factory=dict)
    expected: dict[str, Expectation] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    stopped: dict[str, None] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    _made: dict[str, Sized] = field(default_factory=dict)
    _rounds: int = 0

    @staticmethod
    def of(schema: CallSchema, flat: tuple[Tensor, ...], given: Any) -> Declared:
        """Reads what was declared of a call, and makes the inputs.

        Args:
            schema: The structure of the call.
            flat: Its tensors.
            given: ``dynamic_shapes``; ``None`` declares nothing.

        Raises:
            InputError: It does not fit the call.
        """
        if given is None:
            return Declared()
        variables = read_shapes(schema, flat, given)
        made = Declared(schema, flat, variables)
        # On an accelerator an index made of such a value may end the process rather than raise.
        values = list(valued(flat)) if all(tensor.device.type == "cpu" for tensor in flat) else []
        made.add([*sized(flat, variables), *values][:_MOST])
        return made

    def add(self, every: Sequence[Sized]) -> None:
        """Adds inputs; one whose name is known already is that one."""
        for each in every:
            if self.schema is not None and each.name not in self._made:
                self._made[each.name] = each
                self.inputs[each.name] = self.schema.unflatten(each.flat)

    def freshen(self) -> None:
        """Adds sizes that nothing was captured on."""
        self.add(list(fresh(self.flat, self.variables, self._rounds)))
        self._rounds += 1

    def run(self, run: Callable[[Inputs, str], Expectation]) -> None:
        """Runs the model on each that it did not run on yet, and drops those that it refuses.

        Args:
            run: Runs it; raises what it raises.
        """
        started = time.thread_time()
        for name, inputs in list(self.inputs.items()):
            if name in self.expected:
                continue
            if time.thread_time() - started > _SECONDS:
                self.left.append(name)
                del self.inputs[name]
                continue
            try:
                self.expected[name] = run(inputs, name)
            except HybridJitError as error:
                del self.inputs[name]
                cause = error.__cause__ if isinstance(error, CaptureError) and error.__cause__ else error
                text = str(cause).strip().splitlines()
                self.refused[name] = f"{type(cause).__name__}: {text[0] if text else ''}"

    def judged(self, checks: Sequence[Check], chaotic: Callable[[str], bool]) -> list[Check]:
        """The checks, without those that say nothing against the file; the others say why they should hold.

        Args:
            checks: All of one entry.
            chaotic: Whether the model itself gives something else for an input when that changes by a rounding error.
        """
        kept = []
        self.stopped.clear()
        self.fixed.clear()
        for check in checks:
            made = self._made.get(check.input)
            raises = bool(check.differences) and check.differences[0].startswith(RAISES)
            if made is None or check.passed:
                kept.append(check)
            elif raises and not made.sizes:
                self.stopped[made.name] = None
            elif raises and not made.strict:
                self.fixed[made.name] = check.differences[0]
            elif raises:
                text = f"declared dynamic, but {check.differences[0]}"
                kept.append(replace(check, differences=(text, *check.differences[1:])))
            elif not chaotic(made.name):
                kept.append(check)
            else:
                self.refused[made.name] = "its own result changes with rounding errors there"
        return kept

    def findings(self) -> list[Finding]:
        """What a reader of the report should know."""
        found = []
        if self.refused:
            said = "; ".join(f"{name} ({text})" for name, text in self.refused.items())
            found.append(Finding("HJ301", "note", f"declared, but the model itself can't be compared there: {said}"))
        if self.left:
            text = f"declared, but not run, since the model takes long: {'; '.join(self.left)}"
            found.append(Finding("HJ301", "note", text))
        lines: dict[tuple[str, int], list[str]] = {}
        for name, text in self.fixed.items():
            lines.setdefault(_line(text), []).append(name)
        for (file, line), names in lines.items():
            text = self.fixed[names[0]]
            at = _AT.search(text)
            what = f"Dim.AUTO turned out to be fixed: at {listed(names)}: {text}"
            found.append(Finding("HJ302", "warning", what, file, line, fix=(at[3] or "") if at else ""))
        return found

    def learnt(self, checks: Sequence[Check]) -> list[str]:
        """Of the inputs that the file fails on or stops at for its sizes one for each line: they take other paths.

        Args:
            checks: All of the entry, judged.
        """
        failing = {check.input: check.differences[0] for check in checks if not check.passed} | self.fixed
        by_line: dict[object, str] = {}
        for name, text in failing.items():
            if name in self._made:
                by_line.setdefault(_line(text) if _AT.search(text) else name, name)
        return list(by_line.values())

    def scope(self, checks: Sequence[Check]) -> str:
        """What was verified, on one line; empty if nothing was declared."""
        passed = {check.input for check in checks if check.passed}
        sizes: dict[str, list[int]] = {}
        for name, made in self._made.items():
            if name in passed:
                for variable, size in made.sizes.items():
                    sizes.setdefault(variable, []).append(size)
        now = {variable.name: variable.now for variable in self.variables}
        rows = [f"{name} {_listed([now[name], *each])}" for name, each in sizes.items()]
        values = [name.removeprefix("values: ") for name, made in self._made.items() if not made.sizes]
        values = [name for name in values if f"values: {name}" in passed]
        return "; ".join([*rows, *([f"values {', '.join(values)}"] if values else [])])


def _line(text: str) -> tuple[str, int]:
    """The line that a guard's message names."""
    at = _AT.search(text)
    return (at[1], int(at[2])) if at else ("", 0)


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(set(sizes))))
