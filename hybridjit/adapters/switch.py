"""Methods that choose between others by the values of flags, written in TorchScript."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from .. import _torch
from .._describe import describe
from .._errors import InputError, compose
from .plain import same

FlagValue: TypeAlias = bool | int | str
Combination: TypeAlias = Mapping[str, FlagValue]


def agree(a: Combination, b: Combination) -> bool:
    """Whether two combinations have the same values, ``1`` and ``True`` being two."""
    return a.keys() == b.keys() and all(same(value, b[key]) for key, value in a.items())


def spell_flags(combination: Mapping[str, object]) -> str:
    """A combination as in a call: ``do_keypoint=True, mode='fast'``."""
    return ", ".join(f"{name}={value!r}" for name, value in combination.items())


@dataclass(frozen=True)
class Case:
    """One combination of a switching method.

    Attributes:
        flags: Its values.
        method: The method that it calls.
        keys: What the tensors of its result are called.
    """

    flags: Combination
    method: str
    keys: tuple[str, ...]


def same_keys(cases: Sequence[Case]) -> bool:
    """Whether all cases return the same; otherwise the switching method returns them in a dict."""
    return all(case.keys == cases[0].keys for case in cases)


def switch_source(
    name: str, tensors: Sequence[str], defaults: Mapping[str, FlagValue | None], cases: Sequence[Case]
) -> str:
    """The TorchScript source of a method that calls one of several.

    Args:
        name: Its name.
        tensors: The names of its tensors.
        defaults: Of each flag the value that a call has which does not say, ``None`` if it must.
        cases: The combinations.
    """
    kinds = {flag: type(value).__name__ for flag, value in cases[0].flags.items()}
    required = [f"{flag}: {kinds[flag]}" for flag, default in defaults.items() if default is None]
    optional = [f"{flag}: {kinds[flag]} = {default!r}" for flag, default in defaults.items() if default is not None]
    keyed, count = not same_keys(cases), len(cases[0].keys)
    returns = f"Tuple[{', '.join(['Tensor'] * count)}]" if count > 1 else "Tensor"
    arguments = ", ".join(["self", *(f"{tensor}: Tensor" for tensor in tensors), *required, *optional])
    lines = [f"def {name}({arguments}) -> {'Dict[str, Tensor]' if keyed else returns}:"]
    out = "out"
    while out in (*tensors, *defaults):
        out += "_"
    for case in cases:
        lines.append(f"    if {' and '.join(_is(flag, value) for flag, value in case.flags.items())}:")
        call = f"self.{case.method}({', '.join(tensors)})"
        if not keyed:
            lines.append(f"        return {call}")
            continue
        values = [f"{out}[{index}]" for index in range(len(case.keys))] if len(case.keys) > 1 else [out]
        items = ", ".join(f"{key!r}: {value}" for key, value in zip(case.keys, values, strict=True))
        lines += [f"        {out} = {call}", f"        return {{{items}}}"]
    given = " + ', ' + ".join(f"'{flag}=' + {_spelled(flag, kinds[flag])}" for flag in kinds)
    there = "; it has " + "; ".join(spell_flags(case.flags) for case in cases)
    lines.append(f"    raise ValueError({f'hybridjit: {name} has no '!r} + {given} + {there!r})")
    return "\n".join(lines) + "\n"


def no_combination(
    method: str, given: Mapping[str, object], there: Sequence[Combination], instead: str, where: str = ""
) -> InputError:
    """The error for a call with flags that are not there; lists those that are.

    Args:
        method: What was called.
        given: The flags of the call, ``None`` for one that it lacks.
        there: The combinations.
        instead: What to write instead.
        where: What the call is named in messages.
    """
    plain = {name: value if isinstance(value, (bool, int, str)) else _Spelled(value) for name, value in given.items()}
    rows = dict.fromkeys(f"there is {spell_flags(each)}" for each in there)
    return InputError(
        compose(
            f"{method} is not there with this combination of flags",
            where=where,
            differences=[f"got {spell_flags(plain)}", *rows],
            instead=instead,
            page="inputerror",
        )
    )


class _Spelled:
    """A value that can be no flag, in a message."""

    def __init__(self, value: object) -> None:
        self._text = "nothing" if value is None else describe(value)

    def __repr__(self) -> str:
        return self._text


def _is(flag: str, value: FlagValue) -> str:
    if isinstance(value, bool):
        return flag if value else f"not {flag}"
    return f"{flag} == {value!r}"


def _spelled(flag: str, kind: str) -> str:
    return f'"\'" + {flag} + "\'"' if kind == "str" else f"str({flag})"


class Places:
    """Where a module holds what another one holds.

    Args:
        module: The module.
    """

    def __init__(self, module: _torch.ScriptModule) -> None:
        self._module = module
        tensors = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
        self._tensors = tensors  # kept, or another one could come by its id
        self._by_id = {id(tensor): path for path, tensor in reversed(tensors)}
        self._by_memory = {key: path for path, tensor in reversed(tensors) if (key := _memory(tensor))}

    def find(self, path: str, value: object) -> str:
        """Where the module holds a value: at its path in the other one, or elsewhere if it is a tensor.

        Raises:
            LookupError: Nowhere; with what is at the path instead.
        """
        try:
            here = _torch.attribute_at(self._module, path)
        except AttributeError:
            here = None
        if not isinstance(value, Tensor):
            if here is None or type(here) is not type(value):
                raise LookupError(f"{path}: there is no such attribute")
            return path
        if here is value or (isinstance(here, Tensor) and _memory(here) and _memory(here) == _memory(value)):
            return path
        found = self._by_id.get(id(value)) or self._by_memory.get(_memory(value) or ())
        if found is None:
            raise LookupError(f"{path}: {'another tensor' if isinstance(here, Tensor) else 'there is no such tensor'}")
        return found


def _memory(tensor: Tensor) -> tuple[object, ...]:
    """Where a tensor's values are; empty if they are nowhere that can be named."""
    if tensor.layout != torch.strided or not tensor.data_ptr():
        return ()
    return tensor.data_ptr(), tensor.dtype, tensor.device, tuple(tensor.shape), tensor.stride()
