"""Several captures as one script module: one set of weights, a method for each, and methods that choose by flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import nn

from .. import _torch
from .._describe import qualified
from .._errors import CaptureError, compose
from ..adapters.schema import ValueSchema, flat_name
from ..adapters.switch import Case, Places, same_keys, switch_source
from ..adapters.tree import Container
from .capture import Captured
from .entries import FORWARD, Entry
from .plan import Planned
from .view import RESULT


class Entries(nn.Module):
    """The root of a file with several entries; the model is its only child."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training: bool = getattr(model, "training", False)


class Builder:
    """Puts captures together as they are made.

    Args:
        model: The model; the module holds its very tensors.
        planned: Every entry that will come.
    """

    def __init__(self, model: nn.Module, planned: Sequence[Planned]) -> None:
        self._model = model
        self._alone = len(planned) == 1 and planned[0].case == FORWARD
        self._module: _torch.ScriptModule | None = None
        self._places: Places | None = None
        self._source: dict[Any, Any] = {}

    def add(self, planned: Planned, captured: Captured, replaced: Sequence[str]) -> ValueSchema:
        """Adds a capture.

        Args:
            planned: Its entry.
            captured: The capture; of a view, see `view_of`.
            replaced: The buffers that it returns beside the result, and that the file is to replace.

        Returns:
            The structure of the result.

        Raises:
            CaptureError: It reads a tensor that is none of the model's.
        """
        node = captured.adapter.output_schema.node
        if replaced:
            assert isinstance(node, Container)
            node = node.children[node.names.index(RESULT)]
        if self._alone and not replaced:
            self._module = captured.module
            return ValueSchema(node)
        if self._module is None or self._places is None:
            self._module = _torch.shell(Entries(self._model))
            self._places = Places(self._module)
        writes = [f"model.{name}" for name in replaced]
        try:
            _torch.add_method(self._module, planned.case, captured.module, self._places.find, writes, self._source)
        except (LookupError, _torch.RefusedPieceError) as error:
            raise CaptureError(
                compose(
                    f"{planned.case} can't share the weights of the model",
                    where=qualified(type(self._model)),
                    differences=[str(error.args[0])],
                    instead="a flag, or a method, that replaces no parameter or submodule",
                    page="captureerror",
                )
            ) from error
        _torch.empty(captured.module, self._model)
        return ValueSchema(node)

    def finish(self, entries: Sequence[Entry], planned: Sequence[Planned]) -> tuple[_torch.ScriptModule, list[Entry]]:
        """Adds the methods that choose by flags.

        Args:
            entries: The entries.
            planned: The same, as they were planned.

        Returns:
            The module, and the entries, which know now what these methods return.
        """
        assert self._module is not None
        keyed: dict[str, bool] = {}
        for method in {entry.method: None for entry in entries if entry.flags}:
            pairs = [(entry, each) for entry, each in zip(entries, planned, strict=True) if entry.method == method]
            first, case = pairs[0]
            tensors = _torch.argument_names(self._module, case.case)
            names: dict[str, str] = {}
            for flag, _ in first.flags:
                name = flat_name(flag.name)
                while name in (*tensors, *names.values()):
                    name += "_"
                names[flag.name] = name
            cases = [
                Case({names[flag]: value for flag, value in entry.combination.items()}, each.case, entry.keys)
                for entry, each in pairs
            ]
            defaults = {names[flag.name]: flag.default for flag, _ in first.flags}
            _torch.define(self._module, switch_source(method, tensors, defaults, cases))
            keyed[method] = not same_keys(cases)
        return self._module, [dataclasses.replace(each, keyed=keyed.get(each.method, False)) for each in entries]
