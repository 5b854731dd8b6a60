"""One broken file: whether the check of `torch.jit.trace` finds it, and whether `hybridjit.verify` does."""

from __future__ import annotations

import copy
import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hybridjit as hj

from .models import Subject
from .mutants import KINDS, Mutant, Values, mutants, watch, watched

FURTHER = 60
"""How many further inputs tell a survivor that nothing tells from the right file from one that was missed."""
_ATOL = {torch.float16: 1e-5, torch.bfloat16: 1e-5, torch.float32: 1e-5, torch.float64: 1e-7}
_RTOL = 1e-5
"""What `torch.jit.trace` compares with; it looks at values as float64, so that dtypes are nothing to it."""


@dataclass(frozen=True)
class Outcome:
    """What became of one broken file.

    Attributes:
        model: The model.
        kind: How it was broken.
        what: The operation and the change.
        trace: Whether the check of `torch.jit.trace` finds it: the traced input alone, at its tolerance.
        verify: Whether `verify` does.
        how: What it said; of a survivor, why it survived.
        equivalent: Whether nothing tells it from the right file: by its reason, or because it gives the same on all
            check inputs and all further ones.
    """

    model: str
    kind: str
    what: str
    trace: bool
    verify: bool
    how: str
    equivalent: bool = False


class Judge:
    """Breaks one subject's file in chosen ways, and judges each.

    Args:
        subject: The model.
        path: Its file, as it was exported.
        devices: Where `verify` compares; those on which the right file is not right are left out.
        most: How many mutants of a kind are taken, at random by a fixed seed.
    """

    def __init__(self, subject: Subject, path: Path, devices: Sequence[str], most: int) -> None:
        self.subject = subject
        self.path = path
        self.model = subject.build()
        self.calls = list(subject.calls(self.model))
        self.devices = [device for device in devices if self._is_right(device)]
        self.traced, self.values = self._values()
        self.chosen = self._chosen(most)
        self.further = self._further()

    def _loaded(self) -> hj.Exported:
        return hj.load(self.path)

    def _is_right(self, device: str) -> bool:
        try:
            return hj.verify(self.path, self.model, self.calls, [device], methods=self.subject.methods).ok
        except hj.CaptureError:  # the model itself does not run there
            return False

    def _values(self) -> tuple[Values, list[Values]]:
        exported = self._loaded()
        watch(exported.module)
        every = []
        for call in self.calls:
            with torch.no_grad():
                every.append(watched(lambda call=call: exported(call)))  # type: ignore[misc]
        return every[0], every

    def _chosen(self, most: int) -> list[int]:
        by_kind: dict[str, list[int]] = {kind: [] for kind in KINDS}
        for index, mutant in enumerate(mutants(self._loaded().module, self.traced)):
            by_kind[mutant.kind].append(index)
        chosen = []
        for kind, every in by_kind.items():
            chosen += random.Random(f"{self.subject.name} {kind}").sample(every, min(most, len(every)))
        return chosen

    def _further(self) -> list[Any]:
        """Inputs that nobody gave and that the file, as it is, is right on."""
        generator = torch.Generator().manual_seed(11)
        drawn = [self.subject.draw(generator) for _ in range(min(FURTHER, self.subject.most))]
        exported = self._loaded()
        return [each for each in drawn if hj.verify(exported, self.model, [each]).ok]

    def broken(self, index: int) -> tuple[hj.Exported, Mutant]:
        """The file, broken in one way."""
        exported = self._loaded()
        mutant = mutants(exported.module, self.traced)[index]
        mutant.apply()
        return exported, mutant

    def found_by_trace(self, index: int) -> bool:
        """Whether the check of `torch.jit.trace` tells the broken file from the model."""
        exported, _ = self.broken(index)
        adapter = hj.TracingAdapter(copy.deepcopy(self.model), (self.calls[0],))
        flat = adapter.flatten(self.calls[0])
        torch.manual_seed(0)
        with torch.no_grad():
            expected = _tuple(adapter(*flat))
            torch.manual_seed(0)
            try:
                got = _tuple(exported.module(*flat))
            except (RuntimeError, torch.jit.Error):
                return True
        return not all(map(_close, expected, got))

    def outcome(self, index: int, trace: bool) -> Outcome:
        """What `verify` says of the broken file; if nothing, why."""
        exported, mutant = self.broken(index)
        blank = Outcome(self.subject.name, mutant.kind, mutant.what, trace, False, "")
        for device in self.devices:
            report = hj.verify(exported, self.model, self.calls, [device], methods=self.subject.methods)
            if not report.ok:
                failing = next(check for check in report.checks if not check.passed)
                text = f"{device}, {failing.where}: {_first(failing.differences[0])}"
                return dataclasses.replace(blank, verify=True, how=text)
        return dataclasses.replace(blank, **self._why(exported, mutant))

    def _why(self, exported: hj.Exported, mutant: Mutant) -> dict[str, Any]:
        if mutant.same:
            return {"how": mutant.same, "equivalent": True}
        report = hj.verify(exported, self.model, self.further, methods=self.subject.further)
        if not report.ok:
            failing = next(check for check in report.checks if not check.passed)
            return {"how": f"missed: differs at {failing.sizes}: {_first(failing.differences[0])}"}
        seen = {value for values in self.values for value in values.get(mutant.watched, [])}
        if len(seen) == 1:
            text = f"it is {seen.pop()} on every input; no difference on {len(self.further)} further ones either"
        else:
            text = f"no difference on {len(self.calls)} check inputs and {len(self.further)} further ones"
        if mutant.kind == "freeze a device" and len(self.devices) < 2:
            return {"how": "missed: there is no other device that the model runs on"}
        return {"how": text, "equivalent": True}


def _first(text: str) -> str:
    return next((line.strip()[:160] for line in text.splitlines() if line.strip()), "")


def _tuple(result: Any) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _close(expected: Tensor, got: Tensor) -> bool:
    atol = max(_ATOL.get(expected.dtype, 0.0), _ATOL.get(got.dtype, 0.0))
    try:
        torch.testing.assert_close(got.double(), expected.double(), rtol=_RTOL, atol=atol, equal_nan=True)
    except AssertionError:
        return False
    return True
