"""The entries of a file: what it computes for which method, flags and structure, and which one a call means."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .. import _torch
from .._errors import InputError, compose
from ..adapters.inputs import Inputs
from ..adapters.schema import CallSchema, ValueSchema
from ..adapters.switch import FlagValue, agree, no_combination, spell_flags
from .flags import Flag, with_flags

FORWARD = "forward"


@dataclass(frozen=True)
class Entry:
    """One captured combination of method, flags and structure.

    Attributes:
        point: The model's method.
        method: The file's method, which takes the tensors and then the flags.
        call: The structure of the arguments.
        result: The structure of the result.
        flags: The flags with their values, in the order in which the file's method takes them.
        keyed: Whether the file's method returns a dict of tensors, because it returns others for other flags.
    """

    point: str
    method: str
    call: CallSchema
    result: ValueSchema
    flags: tuple[tuple[Flag, FlagValue], ...] = ()
    keyed: bool = False

    @functools.cached_property
    def combination(self) -> dict[str, FlagValue]:
        """The values of the flags, by the keywords of the exported call."""
        return {flag.name: value for flag, value in self.flags}

    @property
    def attributes(self) -> dict[str, FlagValue]:
        """What is set on the model when this entry is captured or compared, by path."""
        return {flag.path: value for flag, value in self.flags if flag.path is not None}

    @property
    def title(self) -> str:
        """The entry in messages: ``forward(do_keypoint=True)``; the method alone without flags."""
        return f"{self.method}({spell_flags(self.combination)})" if self.flags else self.method

    @functools.cached_property
    def keys(self) -> tuple[str, ...]:
        """What the tensors of the result are called in a dict."""
        return result_keys(self.result)

    @functools.cached_property
    def flag_places(self) -> tuple[int | None, ...]:
        """For each flag its place among the positional arguments, if it can be one."""
        names = [name for name, p in self.call.signature.parameters.items() if p.kind.name.startswith("POSITIONAL")]
        return tuple(
            names.index(flag.name) if flag.path is None and flag.name in names else None for flag, _ in self.flags
        )

    def run(
        self, module: nn.Module, flat: Sequence[Tensor], method: Callable[..., Any] | None = None
    ) -> tuple[Tensor, ...]:
        """The flat result of the file, which is called as a C++ program calls it.

        Args:
            module: The module.
            flat: The call's tensors.
            method: What is called in place of the module's own method.
        """
        method = method or _torch.method_named(module, self.method)
        values = [value for _, value in self.flags]
        if _torch.any_autocast():
            with _torch.without_autocast():
                result = method(*flat, *values)
        else:
            result = method(*flat, *values)
        if self.keyed:
            return tuple(result[key] for key in self.keys)
        return (result,) if isinstance(result, Tensor) else tuple(result)

    def adapted(self, inputs: Inputs) -> Inputs:
        """A call of the model with this entry's keywords set."""
        return with_flags(self.call.signature, inputs, {f.name: value for f, value in self.flags if f.path is None})

    def to_json(self) -> dict[str, Any]:
        """The entry as JSON data."""
        flags = [
            {"name": flag.name, "path": flag.path, "default": flag.default, "value": value}
            for flag, value in self.flags
        ]
        return {
            "point": self.point,
            "method": self.method,
            "flags": flags,
            "keyed": self.keyed,
            "input_schema": self.call.to_json(),
            "output_schema": self.result.to_json(),
            "output_names": list(self.keys) if self.keyed else self.result.paths(),
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Entry:
        """The entry that `to_json` wrote."""
        return Entry(
            str(data["point"]),
            str(data["method"]),
            CallSchema.from_json(data["input_schema"]),
            ValueSchema.from_json(data["output_schema"]),
            tuple((Flag(row["name"], row["path"], row["default"]), row["value"]) for row in data["flags"]),
            bool(data["keyed"]),
        )


def result_keys(result: ValueSchema) -> tuple[str, ...]:
    """What the tensors of a result are called: ``result.boxes``, ``result['boxes']``, ``result`` for a lone one."""
    return tuple(f"result{path}" for path in result.paths())


@dataclass(frozen=True)
class Entries:
    """Every entry of a file, in the order in which they were captured."""

    every: tuple[Entry, ...]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.every)

    def __len__(self) -> int:
        return len(self.every)

    def points(self) -> list[str]:
        """The model's methods that the file has."""
        return list(self._by_point)

    def of(self, point: str) -> list[Entry]:
        """The entries of one method of the model."""
        return self._by_point.get(point, [])

    @functools.cached_property
    def _by_point(self) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = {}
        for entry in self.every:
            found.setdefault(entry.point, []).append(entry)
        return found

    def alike(self, entry: Entry) -> list[Entry]:
        """The entries that take the same calls as one, and give other results: their guards say which it is."""
        return self._alike.get(entry.title, [])

    @functools.cached_property
    def _alike(self) -> dict[str, list[Entry]]:
        found: dict[str, list[Entry]] = {}
        if len(self.every) > 1:
            groups: dict[str, list[Entry]] = {}
            for each in self.every:
                groups.setdefault(repr((each.point, each.combination, each.call.to_json())), []).append(each)
            found = {
                each.title: [other for other in group if other is not each]
                for group in groups.values()
                for each in group
                if len(group) > 1
            }
        return found

    def choose(self, point: str, inputs: Inputs, where: str = "") -> tuple[Entry, tuple[Tensor, ...]]:
        """The entry that a call means, and the call's tensors.

        Args:
            point: The model's method.
            inputs: The call.
            where: What the call is named in messages.

        Raises:
            InputError: There is none; the message lists those that there are.
        """
        entries = self.of(point)
        if len(entries) == 1 and not entries[0].flags:
            return entries[0], entries[0].call.flatten(inputs, where)
        given, rest = _given(entries[0], inputs)
        alike = [entry for entry in entries if agree(entry.combination, given)]
        if not alike:
            there = [entry.combination for entry in entries]
            raise no_combination(point, given, there, "one of these, or export with it in flags=[{...}, {...}]", where)
        rows = []
        for entry in alike:
            taken = entry.call.take(rest)
            if taken is not None:
                return entry, taken
            flat, wrong = entry.call.match(rest, where)
            if not wrong:
                return entry, flat
            rows += [f"{entry.method}: {line}" for line in wrong]
        if len(alike) == 1:
            return alike[0], alike[0].call.flatten(rest, where)
        raise InputError(
            compose(
                f"the call has another structure than the {len(alike)} captured ones",
                where=where,
                differences=rows,
                instead="a call of a captured structure, or export the model with this one among check_inputs",
                page="inputerror",
            )
        )

    def matching(self, point: str, inputs: Inputs, where: str) -> list[tuple[Entry, Inputs]]:
        """The entries that a call of the model can be compared on: every combination, unless it says which.

        Each comes with the call as the model takes it.

        Raises:
            InputError: There is none.
        """
        found = []
        for entry in self.of(point):
            said = {flag.name: inputs.kwargs[flag.name] for flag, _ in entry.flags if flag.name in inputs.kwargs}
            if not agree(said, {name: entry.combination[name] for name in said}):
                continue
            own = {flag.name for flag, _ in entry.flags if flag.path is not None}
            rest = Inputs(*inputs.args, **{name: value for name, value in inputs.kwargs.items() if name not in own})
            call = entry.adapted(rest)
            if not entry.call.match(call, where)[1]:
                found.append((entry, call))
        if not found:
            self.choose(point, inputs, where)
        return found


def _given(entry: Entry, inputs: Inputs) -> tuple[dict[str, Any], Inputs]:
    """The flags of a call, and the call without those that the model itself does not take."""
    rest, given = dict(inputs.kwargs), {}
    for (flag, _), at in zip(entry.flags, entry.flag_places, strict=True):
        value: Any = flag.default
        place = len(inputs.args) if at is None else at
        if flag.name in rest:
            value = rest[flag.name] if flag.path is None else rest.pop(flag.name)
        elif place < len(inputs.args):
            value = inputs.args[place]
        given[flag.name] = value
    return given, Inputs(*inputs.args, **rest)


def signature_with_flags(entry: Entry) -> inspect.Signature:
    """The signature of the exported call: the model's own, and the flags that are its attributes."""
    extra = [
        inspect.Parameter(
            flag.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if flag.default is None else flag.default,
        )
        for flag, _ in entry.flags
        if flag.path is not None
    ]
    own = list(entry.call.signature.parameters.values())
    cut = next((index for index, each in enumerate(own) if each.kind.name == "VAR_KEYWORD"), len(own))
    return inspect.Signature([*own[:cut], *extra, *own[cut:]])


def rows_of(entries: Sequence[Entry]) -> list[list[int]]:
    """Which entries can be called one after the other on one state: of each method one, with the same flags.

    Returns:
        Places in ``entries``, a list for each combination of flags.
    """
    rows: list[tuple[dict[str, FlagValue], list[int]]] = []
    for entry in entries:
        if entry.point == entries[0].point and not any(agree(entry.combination, each) for each, _ in rows):
            rows.append((entry.combination, []))
    for combination, row in rows:
        points: set[str] = set()
        for index, entry in enumerate(entries):
            shared = all(combination.get(name, value) == value for name, value in entry.combination.items())
            if shared and entry.point not in points:
                points.add(entry.point)
                row.append(index)
    return [row for _, row in rows]
