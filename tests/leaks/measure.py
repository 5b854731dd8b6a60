"""The ways to export a model of the gallery, and what becomes of its further inputs on each."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import hybridjit as hj

from .entry import Call, Entry, made

Verdict: TypeAlias = Literal["right", "loud", "wrong"]
Runner: TypeAlias = Callable[..., Any]


def results_of(run: Runner, calls: Sequence[Call]) -> list[Any]:
    """What calls one after the other give; of one that raises, the error."""
    results: list[Any] = []
    for each in calls:
        torch.manual_seed(0)
        try:
            with torch.no_grad():
                results.append(pytree.tree_leaves(copy.deepcopy(run(*copy.deepcopy(each)))))
        except Exception as error:
            results.append(error)
    return results


def verdict(expected: Any, got: Any) -> Verdict:
    """How a call went: a model that raises wants a file that raises."""
    if isinstance(got, Exception):
        return "right" if isinstance(expected, Exception) else "loud"
    if isinstance(expected, Exception) or len(expected) != len(got):
        return "wrong"
    return "right" if all(map(same, expected, got)) else "wrong"


def same(expected: Any, got: Any) -> bool:
    """Whether two leaves of results agree; a trace gives numbers as tensors."""
    one, two = torch.as_tensor(expected), torch.as_tensor(got)
    kinds = [(each.dtype, each.shape, each.layout) for each in (one, two)]
    if one.shape != two.shape or (isinstance(expected, Tensor) and kinds[0] != kinds[1]):
        return False
    wide = torch.complex128 if one.is_complex() else torch.float64
    one, two = one.to_dense().to(wide), two.to_dense().to(wide)
    return bool(torch.allclose(one, two, rtol=1e-4, atol=1e-5, equal_nan=True))


def verdicts(entry: Entry, export: Callable[[nn.Module], Runner], model: Callable[[], nn.Module]) -> list[Verdict]:
    """How every call goes on what one route makes of a model; where it refuses, all are loud."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = results_of(model(), entry.calls)
        try:
            run = export(model())
        except Exception as error:
            return [verdict(each, error) for each in expected]
        return [verdict(*pair) for pair in zip(expected, results_of(run, entry.calls), strict=True)]


def plain_trace(entry: Entry) -> Callable[[nn.Module], Runner]:
    """`torch.jit.trace` of the first call."""
    return lambda model: torch.jit.trace(model, copy.deepcopy(entry.first), check_trace=False, strict=False)


def checked_trace(entry: Entry) -> Callable[[nn.Module], Runner]:
    """`torch.jit.trace` with the others as its ``check_inputs``."""

    def export(model: nn.Module) -> Runner:
        first, *others = copy.deepcopy([entry.first, *entry.others])
        return torch.jit.trace(model, first, check_inputs=others, strict=False)

    return export


def torch_export(entry: Entry) -> Callable[[nn.Module], Runner]:
    """`torch.export`, every size dynamic that it can make so."""

    def export(model: nn.Module) -> Runner:
        auto = torch.export.Dim.AUTO
        first = copy.deepcopy(entry.first)
        sizes = pytree.tree_map(
            lambda x: {dim: auto for dim in range(x.dim())} if isinstance(x, Tensor) else None, first
        )
        shapes = (
            (sizes,) if isinstance(model.forward, type(model.register_buffer)) and entry_takes_all(model) else sizes
        )
        with torch.no_grad():
            return torch.export.export(model, first, dynamic_shapes=shapes).module()

    return export


def entry_takes_all(model: nn.Module) -> bool:
    """Whether ``forward`` is ``*args``, whose sizes are those of one argument."""
    return type(model).__name__ == "Model"


def untold(entry: Entry, branches: str | None = "auto", on_frozen: str = "guard") -> Callable[[nn.Module], Runner]:
    """`hybridjit.export` from the first call alone."""
    return lambda model: hj.export(model, copy.deepcopy(entry.first), branches=branches, on_frozen=on_frozen)


def fixed(entry: Entry) -> Callable[[nn.Module], Runner]:
    """`hybridjit.export` from the first call, and from those of another structure, which are entries of their own."""
    first = pytree.tree_structure(entry.first)
    further = [each for each in entry.others if pytree.tree_structure(each) != first]
    return lambda model: hj.export(model, copy.deepcopy(entry.first), check_inputs=copy.deepcopy(further))


def told(entry: Entry) -> Callable[[nn.Module], Runner]:
    """`hybridjit.export` with the others as its ``check_inputs``, those aside that the model refuses."""

    def export(model: nn.Module) -> Runner:
        answers = results_of(made(entry.wrong), [entry.first, *entry.others])
        taken = [
            copy.deepcopy(each)
            for each, gave in zip(entry.others, answers[1:], strict=True)
            if not isinstance(gave, Exception)
        ]
        return hj.export(model, copy.deepcopy(entry.first), branches="auto", check_inputs=taken)

    return export


def loaded(entry: Entry, branches: str | None = "auto") -> Callable[[nn.Module], Runner]:
    """The file of `untold`, in plain torch, of flat tensors."""

    def export(model: nn.Module) -> Runner:
        exported = hj.export(model, copy.deepcopy(entry.first), branches=branches)
        with tempfile.TemporaryDirectory() as folder:
            exported.save(Path(folder) / "model.pt")
            module = torch.jit.load(Path(folder) / "model.pt")
        return lambda *args: module(*(leaf for leaf in pytree.tree_leaves(args) if isinstance(leaf, Tensor)))

    return export


ROUTES: dict[str, Callable[[Entry], Callable[[nn.Module], Runner]]] = {
    "plain trace": plain_trace,
    "its check_inputs": checked_trace,
    "torch.export": torch_export,
    "hybridjit, untold": untold,
    "hybridjit, told": told,
}
