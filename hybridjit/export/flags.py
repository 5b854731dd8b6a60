"""`flags=`: which values the caller of a file can switch, and which combinations are in it."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from .. import _torch
from .._describe import describe, listed, qualified
from .._errors import InputError, compose
from ..adapters.inputs import Inputs
from ..adapters.plain import plain
from ..adapters.switch import Combination, FlagValue, agree

_INSTEAD = 'flags={"do_keypoint": (True, False), "mode": ("fast", "full")}\nor flags=[{"do_keypoint": True}, …]'


@dataclass(frozen=True)
class Flag:
    """One thing that a caller can switch.

    Attributes:
        name: The keyword of the exported call.
        path: The attribute of the model, ``"roi_heads.mask_on"``; ``None`` for a keyword of the model's own method.
        default: What a call has that does not say; ``None`` if it must.
    """

    name: str
    path: str | None
    default: FlagValue | None


def read_flags(flags: Any) -> list[Combination]:
    """The combinations that a user wants, in order, each once; one empty one without flags.

    Args:
        flags: Values by key, of which every combination is meant; or a list of combinations.

    Raises:
        InputError: It is neither, or a value is no ``bool``, ``int`` or ``str``.
    """
    if flags is None:
        return [{}]
    if isinstance(flags, Mapping):
        values = {key: _values(key, each) for key, each in flags.items()}
        wanted: list[Any] = [
            dict(zip(values, each, strict=True)) for each in itertools.product(*values.values()) if values
        ]
    else:
        wanted = list(flags) if isinstance(flags, Iterable) and not isinstance(flags, str) else []
    if not wanted or not all(isinstance(each, Mapping) and each for each in wanted):
        raise _wrong([f"expected values by name, or a list of combinations, got {describe(flags)}"])
    keys = list(wanted[0])
    wrong = [
        f"combination {index}: expected {listed(map(repr, keys))}, got {listed(map(repr, each))}"
        for index, each in enumerate(wanted)
        if set(each) != set(keys)
    ]
    if wrong:
        raise _wrong(wrong)
    unique: list[Combination] = []
    for each in wanted:
        combination = {key: plain(each[key]) for key in keys}
        if not any(agree(combination, before) for before in unique):
            unique.append(combination)
    for key in keys:
        kinds = {type(each[key]) for each in unique}
        if not isinstance(key, str):
            raise _wrong([f"expected names, got {describe(key)}"])
        if len(kinds) != 1 or not kinds <= {bool, int, str}:
            got = listed(sorted(kind.__name__ for kind in kinds))
            raise _wrong([f"{key}: expected values that are all bool, all int or all str, got {got}"])
    return unique


def _values(key: Any, values: Any) -> Sequence[Any]:
    if isinstance(values, (str, Mapping)) or not isinstance(values, Iterable):
        raise _wrong([f"{key}: expected a tuple of values, got {describe(values)}"])
    every = list(values)
    if not every:
        raise _wrong([f"{key}: expected a tuple of values, got none"])
    return every


def _wrong(differences: list[str]) -> InputError:
    return InputError(
        compose(
            "flags takes the values of each flag, or a list of combinations",
            differences=differences,
            instead=_INSTEAD,
            page="inputerror",
        )
    )


def flags_of(model: nn.Module, signature: inspect.Signature, combinations: Sequence[Combination]) -> dict[str, Flag]:
    """What the flags are for one method of a model: by key, those that it has.

    Args:
        model: The model.
        signature: The method's.
        combinations: The combinations, for the keys and the values.
    """
    keys = list(combinations[0])
    found: dict[str, Flag] = {}
    for key in keys:
        parameter = signature.parameters.get(key)
        if parameter is not None and parameter.kind.name in ("POSITIONAL_OR_KEYWORD", "KEYWORD_ONLY"):
            found[key] = Flag(key, None, _usable(parameter.default, combinations[0][key]))
        elif _owner(model, key) is not None:
            taken = {*signature.parameters, *(each for each in keys if each != key), *(f.name for f in found.values())}
            last = key.rpartition(".")[2]
            alone = sum(each.rpartition(".")[2] == last for each in keys) == 1
            name = last if alone and last not in taken else key.replace(".", "_")
            found[key] = Flag(name, key, _usable(_value(model, key), combinations[0][key]))
        elif any(each.kind.name == "VAR_KEYWORD" for each in signature.parameters.values()) and "." not in key:
            found[key] = Flag(key, None, None)
    return found


def _usable(value: Any, example: FlagValue) -> FlagValue | None:
    """A value that can be a flag's default, ``None`` otherwise."""
    value = plain(value)
    return value if type(value) is type(example) else None


def _owner(model: nn.Module, path: str) -> nn.Module | None:
    """The module that has an attribute; ``None`` if there is no such attribute."""
    prefix, _, name = path.rpartition(".")
    owner = dict(model.named_modules(remove_duplicate=False)).get(prefix)
    return owner if owner is not None and hasattr(owner, name) else None


def _value(model: nn.Module, path: str) -> Any:
    return getattr(_owner(model, path), path.rpartition(".")[2])


def check_known(model: nn.Module, combinations: Sequence[Combination], known: set[str], methods: Sequence[str]) -> None:
    """Refuses a flag that no method has and that is no attribute, or one that a file can't switch.

    Args:
        model: The model.
        combinations: The combinations.
        known: The keys that some method has.
        methods: The methods, for the message.

    Raises:
        InputError: There is such a flag.
    """
    wrong = [
        f"{key}: expected a keyword of {' or '.join(methods)}, or the path of an attribute, got neither"
        for key in combinations[0]
        if key not in known
    ]
    for key in known:
        owner = _owner(model, key)
        if isinstance(owner, _torch.ScriptModule):
            wrong.append(f"{key}: is an attribute of a script module, which reads it when it runs")
        elif owner is not None and isinstance(vars(type(owner)).get(key.rpartition(".")[2]), property):
            setter = vars(type(owner))[key.rpartition(".")[2]].fset
            wrong += [] if setter else [f"{key}: is a property without a setter"]
    if wrong:
        raise InputError(
            compose(
                "flags names what the model has not, or can't switch",
                where=qualified(type(model)),
                differences=wrong,
                instead=_INSTEAD,
                page="inputerror",
            )
        )


def with_flags(signature: inspect.Signature, inputs: Inputs, keywords: Combination) -> Inputs:
    """A call with these keywords of the method's own set.

    Args:
        signature: The method's.
        inputs: The call.
        keywords: Values by parameter.
    """
    names = [name for name, p in signature.parameters.items() if p.kind.name.startswith("POSITIONAL")]
    by_position, by_name = list(inputs.args), dict(inputs.kwargs)
    for key, value in keywords.items():
        place = names.index(key) if key in names else len(by_position)
        if place < len(by_position):
            by_position[place] = value
        else:
            by_name[key] = value
    return Inputs(*by_position, **by_name)
