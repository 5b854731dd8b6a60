"""What is to be captured: the user's inputs, flags and methods as one list of entries."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import keyword
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from .. import _torch
from .._describe import describe, listed, qualified
from .._errors import InputError, compose
from ..adapters.inputs import Inputs, as_inputs
from ..adapters.schema import CallSchema
from ..adapters.switch import Combination, FlagValue, spell_flags
from ..adapters.tree import leaves, number_type, scan, spell
from .entries import FORWARD
from .flags import Flag, check_known, flags_of, with_flags
from .view import signature_of


@dataclass(frozen=True)
class Planned:
    """One combination of method, flags and structure, to be captured.

    Attributes:
        point: The model's method.
        method: The file's method that a caller calls.
        case: The file's method that holds the trace; the same without flags.
        flags: The flags with their values.
        calls: The calls of this structure, by name; the first is captured.
    """

    point: str
    method: str
    case: str
    flags: tuple[tuple[Flag, FlagValue], ...]
    calls: Mapping[str, Inputs]

    @property
    def attributes(self) -> dict[str, FlagValue]:
        """What is set on the model, by path."""
        return {flag.path: value for flag, value in self.flags if flag.path is not None}

    @property
    def title(self) -> str:
        """The entry in messages."""
        flags = spell_flags({flag.name: value for flag, value in self.flags})
        return f"{self.method}({flags})" if flags else self.method

    def tell(self, error: Exception) -> None:
        """Says in an error for which flags it was: that is not in the model's code."""
        if self.flags:
            text, _, rest = str(error).partition("\n")
            text = f"{text}\n  for {self.title}\n{rest}"
            error.args = (text.rstrip(), *error.args[1:])


def plan(
    model: nn.Module, points: Mapping[str, Mapping[str, Inputs]], combinations: Sequence[Combination]
) -> list[Planned]:
    """The entries of a file, in order: method by method, structure by structure, combination by combination.

    Args:
        model: The model.
        points: The calls of each method, by name.
        combinations: The combinations of flags, by key.

    Raises:
        InputError: A call does not fit, a flag is none, or two entries would have one name.
    """
    planned: list[Planned] = []
    known: set[str] = set()
    for point, calls in points.items():
        signature = signature_of(model, point)
        flags = flags_of(model, signature, combinations)
        known |= set(flags)
        choices = _choices(flags, combinations)
        for index, group in enumerate(_groups(signature, calls, choices[0])):
            method = point if index == 0 else f"{point}_{index + 1}"
            for number, choice in enumerate(choices, 1):
                keywords = {flag.name: value for flag, value in choice if flag.path is None}
                own = {name: with_flags(signature, each, keywords) for name, each in group.items()}
                planned.append(Planned(point, method, f"{method}__{number}" if choice else method, choice, own))
    check_known(model, combinations, known, list(points))
    clash = {each.method: each.point for each in planned if each.method in points and each.method != each.point}
    if clash:
        names = clash.items()
        raise _refused([f"{name}: is also what the next structure of {point} is called" for name, point in names])
    return planned


def by_result(planned: Sequence[Planned], result: Callable[[Planned, str], Any]) -> list[Planned]:
    """The same with entries apart whose results are of another structure: a list as long as the batch, say.

    Args:
        planned: The entries. One with flags stays whole, since its method has the same entries for all of them.
        result: What the model gives for a call of an entry, by its name.
    """
    apart: list[Planned] = []
    taken = [each.method for each in planned]
    for each in planned:
        groups: dict[tuple[tuple[str, str], ...], dict[str, Inputs]] = {}
        for name, inputs in each.calls.items() if len(each.calls) > 1 and not each.flags else ():
            node = scan(result(each, name), [], "result")
            # Where a number is, is structure; which one it is may be computed.
            parts = tuple((path, number_type(leaf) or spell(leaf)) for path, leaf in leaves(node))
            groups.setdefault(parts, {})[name] = inputs
        if len(groups) < 2:
            apart.append(each)
            continue
        first, *others = groups.values()
        apart.append(dataclasses.replace(each, calls=first))
        for calls in others:
            number = next(count for count in itertools.count(2) if f"{each.point}_{count}" not in taken)
            method = f"{each.point}_{number}"
            taken.append(method)
            apart.append(dataclasses.replace(each, method=method, case=method, calls=calls))
    return apart


Choice = tuple[tuple[Flag, FlagValue], ...]


def _choices(flags: Mapping[str, Flag], combinations: Sequence[Combination]) -> list[Choice]:
    """The combinations of those flags that a method has, each once; first the flags that a call must give."""
    keys = sorted(flags, key=lambda key: flags[key].default is not None)
    return list(dict.fromkeys(tuple((flags[key], each[key]) for key in keys) for each in combinations))


def _groups(signature: inspect.Signature, calls: Mapping[str, Inputs], choice: Choice) -> list[dict[str, Inputs]]:
    """The calls by structure, in the order in which the structures first come."""
    keywords = {flag.name: value for flag, value in choice if flag.path is None}
    groups: list[tuple[CallSchema, dict[str, Inputs]]] = []
    for name, each in calls.items():
        _check_leaves(each, name)
        call = with_flags(signature, each, keywords)
        for schema, group in groups:
            if not schema.match(call, name)[1]:
                group[name] = each
                break
        else:
            groups.append((CallSchema.of(signature, call)[0], {name: each}))
    return [group for _, group in groups]


def _check_leaves(inputs: Inputs, name: str) -> None:
    """Refuses what has no flat side, by its path in what the user gave."""
    for index, value in enumerate(inputs.args):
        scan(value, [], f"{name}.args[{index}]")
    for key, value in inputs.kwargs.items():
        scan(value, [], f"{name}.kwargs[{key!r}]")


def read_methods(
    model: nn.Module, methods: Mapping[str, Any] | None, taken: Callable[[str], bool]
) -> dict[str, dict[str, Inputs]]:
    """The calls of the further methods, by method and name.

    Args:
        model: The model.
        methods: What the user gave: for each a call, or a list of calls.
        taken: Whether an exported model has an attribute of that name already.

    Raises:
        InputError: It is no dict of methods of the model, or a name can't be a method of the file.
    """
    if methods is None:
        return {}
    if not isinstance(methods, Mapping):
        raise _refused([f"expected calls by method, got {describe(methods)}"])
    wrong = []
    for name in methods:
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
            wrong.append(f"{name!r}: is no name that a file's method can have")
        elif name == FORWARD:
            wrong.append("forward: its calls are inputs and check_inputs")
        elif isinstance(model, _torch.ScriptModule):
            wrong.append(f"{name}: the model is a script module, of which only forward is exported")
        elif not callable(getattr(model, name, None)):
            names = [each for each in vars(type(model)) if callable(getattr(model, each)) and not each.startswith("_")]
            wrong.append(f"{name}: expected a method of {qualified(type(model))}, such as {listed(names)}, got none")
        elif taken(name):
            wrong.append(f"{name}: is taken, an exported model or a script module has something else by that name")
    if wrong:
        raise _refused(wrong)
    points = {}
    for name, given in methods.items():
        every = given if isinstance(given, list) else [given]
        if not every:
            raise _refused([f"{name}: expected a call, or a list of calls, got an empty list"])
        prefix = f"methods[{name!r}]"
        spelled = {f"{prefix}[{i}]" if isinstance(given, list) else prefix: each for i, each in enumerate(every)}
        points[name] = {where: as_inputs(each) for where, each in spelled.items()}
    return points


def _refused(differences: list[str]) -> InputError:
    return InputError(
        compose(
            "methods takes the calls of further methods of the model",
            differences=differences,
            instead='methods={"propose": (image,), "refine": hybridjit.Inputs(image, boxes)}',
            page="inputerror",
        )
    )
