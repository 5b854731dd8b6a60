"""Functions of torch that neither a tracer nor a mode sees: recorded, or handed on to what is seen."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils import dlpack

from .. import _torch
from ..control.recorder import as_one_operation


@contextlib.contextmanager
def seeing() -> Iterator[None]:
    """Records ``torch.manual_seed`` in a running trace, and makes ``to_dlpack`` the method that is seen."""
    seed = torch.manual_seed

    def manual_seed(seed_: Any) -> torch.Generator:
        generator = seed(seed_)
        if _torch.tracing_state() is not None:
            graph = _torch.current_graph()

            def insert() -> None:
                graph.insertNode(graph.create("aten::manual_seed", [_torch.insert_constant(graph, int(seed_))], 0))

            as_one_operation(manual_seed, (), insert)
        return generator

    def to_dlpack(tensor: Tensor) -> Any:
        return tensor.__dlpack__()

    made = {"manual_seed": manual_seed, "to_dlpack": to_dlpack}
    places = (torch, "manual_seed"), (torch.random, "manual_seed"), (torch, "to_dlpack"), (dlpack, "to_dlpack")
    changed = [(module, name, getattr(module, name)) for module, name in places]
    for module, name in places:
        setattr(module, name, made[name])
    try:
        yield
    finally:
        for module, name, before in changed:
            setattr(module, name, before)
