"""`MultiTrace`: several traces of one model as one module with one set of weights."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

from .. import _torch
from .._describe import describe
from .._errors import InputError, compose
from .schema import flat_name
from .switch import Case, Combination, FlagValue, Places, agree, no_combination, spell_flags, switch_source

Trace: TypeAlias = "tuple[Mapping[str, FlagValue] | str, _torch.ScriptModule]"
_INSTEAD = 'MultiTrace([({"do_keypoint": True}, first), ({"do_keypoint": False}, second), ("propose", third)])'


class MultiTrace(nn.Module):
    """Several traces of one model as one module, whose ``forward`` chooses between them by flags.

    The equivalent TorchScript, but that the traces share every parameter and buffer::

        def forward(self, image: Tensor, do_keypoint: bool = True) -> Dict[str, Tensor]:
            if do_keypoint:
                ...  # the operations of the one
            ...  # the operations of the other

    The choice is made inside TorchScript, so that a saved file has it too: ``torch.jit.script`` of this,
    or ``.module`` as it is.

    Args:
        traces: Pairs of flags and a trace, ``({"do_keypoint": True}, traced)``, the first of which gives the
            flags their defaults; and pairs of a name and a trace for further methods, ``("propose", traced)``.
            Each takes tensors and returns a tensor or a tuple of tensors (`TracingAdapter` makes a model so).

    Raises:
        InputError: The traces hold different tensors as parameters or buffers, or don't fit together.

    Example:
        >>> import torch, hybridjit as hj
        >>> class Scale(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.linear, self.double = torch.nn.Linear(2, 2), False
        ...     def forward(self, x):
        ...         return self.linear(x) * 2 if self.double else self.linear(x)
        >>> model, x = Scale().eval(), torch.ones(1, 2)
        >>> once = torch.jit.trace(model, x)
        >>> model.double = True
        >>> multi = hj.MultiTrace([({"double": False}, once), ({"double": True}, torch.jit.trace(model, x))])
        >>> torch.equal(multi(x, double=True), 2 * multi(x))
        True
        >>> sum(p.numel() for p in multi.parameters())
        6
    """

    def __init__(self, traces: Sequence[Trace]) -> None:
        super().__init__()
        flagged, named = _read(traces)
        self._combinations: list[Combination] = [flags for flags, _ in flagged]
        self._methods = tuple(named)
        first = flagged[0][1] if flagged else next(iter(named.values()))
        plain = _torch.plain_modules(first, "MultiTrace")
        if isinstance(plain, _torch.ScriptModule):
            raise _refused([f"{_title(traces[0][0])}: is scripted, not traced"])
        self.module: _torch.ScriptModule = _torch.shell(plain)
        places = Places(self.module)
        taken = {name for name in named if hasattr(MultiTrace, name) or name in dict(plain.named_children())}
        if taken:
            raise _refused([f"{name}: is the name of something else that the module has" for name in sorted(taken)])
        cases = [f"forward__{number}" for number in range(1, len(flagged) + 1)]
        plainly = len(flagged) == 1 and not flagged[0][0]
        for case, (flags, traced) in zip(["forward"] if plainly else cases, flagged, strict=True):
            _add(self.module, places, case, traced, _title(flags))
        for name, traced in named.items():
            _add(self.module, places, name, traced, name)
        if flagged and not plainly:
            _torch.define(self.module, _switch(self.module, cases, self._combinations))
        self.train(first.training)

    def forward(self, *tensors: Tensor, **flags: FlagValue) -> Any:
        """Runs the trace for these flags.

        Args:
            *tensors: As the traces take them.
            **flags: The flags; those left out are as in the first trace.

        Returns:
            What the trace returned; where not all return as many tensors, a dict of them: ``result[0]``, ``result``.

        Raises:
            InputError: There is no trace with these flags.
        """
        if not self._combinations:
            raise _refused([f"forward: expected one of {', '.join(self._methods)}, there is no trace with flags"])
        given = {**self._combinations[0], **flags}
        if not any(agree(given, each) for each in self._combinations):
            raise no_combination("forward", given, self._combinations, "one of these, or a further trace")
        return _torch.method_named(self.module, "forward")(*tensors, *given.values())

    def __getattr__(self, name: str) -> Any:
        """The further methods."""
        if name in self.__dict__.get("_methods", ()):
            method: Callable[..., Any] = _torch.method_named(self.module, name)
            return method
        return super().__getattr__(name)

    def __prepare_scriptable__(self) -> nn.Module:
        """What ``torch.jit.script`` compiles in place of this."""
        return _torch.scriptable(self.module, ["forward"] * bool(self._combinations) + list(self._methods))


def _read(
    traces: Sequence[Trace],
) -> tuple[list[tuple[Combination, _torch.ScriptModule]], dict[str, _torch.ScriptModule]]:
    """The traces with flags, and those with a name."""
    every: list[Any] = list(traces) if isinstance(traces, Sequence) and not isinstance(traces, str) else []
    wrong = [] if every else [f"expected a list of pairs, got {describe(traces)}"]
    flagged: list[tuple[Combination, _torch.ScriptModule]] = []
    named: dict[str, _torch.ScriptModule] = {}
    for index, pair in enumerate(every):
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], (str, Mapping))):
            wrong.append(f"[{index}]: expected a pair of flags or a name and a trace, got {describe(pair)}")
            continue
        what, traced = pair
        if not isinstance(traced, _torch.ScriptModule):
            wrong.append(f"{_title(what)}: expected a traced module, got {describe(traced)}")
        elif isinstance(what, str):
            fine = what.isidentifier() and not keyword.iskeyword(what) and not what.startswith("_")
            wrong += [] if fine else [f"{what!r}: is no name that a method can have"]
            wrong += [f"{what}: is there twice"] if what in named else []
            named[what] = traced
        else:
            flagged.append((dict(what), traced))
    kinds = [{name: type(value) for name, value in flags.items()} for flags, _ in flagged]
    for (flags, _), kind in zip(flagged, kinds, strict=True):
        if kind != kinds[0] or not set(kind.values()) <= {bool, int, str}:
            expected = ", ".join(f"{name}: {each.__name__}" for name, each in kinds[0].items())
            wrong.append(f"{_title(flags)}: expected bool, int or str, as in the first ({expected or 'none'})")
        if sum(agree(flags, other) for other, _ in flagged) > 1:
            wrong.append(f"{_title(flags)}: is there twice")
    if wrong:
        raise _refused(list(dict.fromkeys(wrong)))
    order = list(flagged[0][0]) if flagged else []
    return [({name: flags[name] for name in order}, traced) for flags, traced in flagged], named


def _add(module: _torch.ScriptModule, places: Places, method: str, traced: _torch.ScriptModule, title: str) -> None:
    wrong = []
    for path, tensor in (*traced.named_parameters(), *traced.named_buffers()):
        try:
            places.find(path, tensor)
        except LookupError as error:
            wrong.append(f"{title}: {error.args[0]}")
    if wrong:
        raise _refused(wrong, "the traces hold different tensors, so they are not of one model")
    try:
        _torch.argument_names(traced, "forward")
        _torch.add_method(module, method, traced, places.find)
    except (LookupError, _torch.RefusedPieceError) as error:
        raise _refused([f"{title}: {error.args[0]}"]) from error


def _switch(module: _torch.ScriptModule, cases: Sequence[str], combinations: Sequence[Combination]) -> str:
    """The source of ``forward``."""
    tensors = _torch.argument_names(module, cases[0])
    made, wrong = [], []
    for case, flags in zip(cases, combinations, strict=True):
        names, returns = _torch.argument_names(module, case), _torch.result_type(module, case)
        count = returns.count("Tensor")
        if len(names) != len(tensors):
            wrong.append(f"{_title(flags)}: expected {len(tensors)} tensors, as the first takes, it takes {len(names)}")
        if returns not in ("Tensor", f"Tuple[{', '.join(['Tensor'] * count)}]"):
            wrong.append(f"{_title(flags)}: expected a tensor or a tuple of tensors as the result, got {returns}")
        keys = ("result",) if returns == "Tensor" else tuple(f"result[{index}]" for index in range(count))
        made.append(Case({flat_name(name): value for name, value in flags.items()}, case, keys))
    clash = [name for name in made[0].flags if name in tensors]
    wrong += [f"{name}: is a flag and a tensor" for name in clash]
    if wrong:
        raise _refused(wrong)
    return switch_source("forward", tensors, made[0].flags, made)


def _title(what: Mapping[str, FlagValue] | str) -> str:
    return what if isinstance(what, str) else spell_flags(what) or "forward"


def _refused(differences: list[str], what: str = "MultiTrace takes the traces of one model") -> InputError:
    return InputError(compose(what, differences=differences, instead=_INSTEAD, page="inputerror"))
