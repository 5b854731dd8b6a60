"""``torch.manual_seed`` in a model: no tensor is given to it or comes of it, so a tracer does not see it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from .. import _torch
from ..control.recorder import as_one_operation

SEED = 0x68796A
"""What hybridjit seeds with before it compares: a number that no model is likely to seed with itself."""


@contextlib.contextmanager
def seeding() -> Iterator[None]:
    """Records ``torch.manual_seed`` in a running trace, within the body."""
    draw_from = torch.manual_seed

    def manual_seed(seed: Any) -> torch.Generator:
        generator = draw_from(seed)
        if _torch.tracing_state() is not None:
            graph = _torch.current_graph()

            def insert() -> None:
                graph.insertNode(graph.create("aten::manual_seed", [_torch.insert_constant(graph, int(seed))], 0))

            as_one_operation(manual_seed, (), insert)
        return generator

    torch.manual_seed = torch.random.manual_seed = manual_seed
    try:
        yield
    finally:
        torch.manual_seed = torch.random.manual_seed = draw_from
