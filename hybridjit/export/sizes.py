"""Exported programs: the sizes that may change, and the lines that fixed the others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Size:
    """A size of a program's input that is not fixed: ``times * symbol + plus``.

    Attributes:
        symbol: What changes along with it.
        times: The factor.
        plus: What is added.
        least: The smallest value of the symbol for which the program was made.
        most: The largest, if there is one.
    """

    symbol: str
    times: int
    plus: int
    least: int
    most: int | None


def input_sizes(program: Any) -> list[list[int | Size | None]]:
    """The sizes of each tensor that a program takes; ``None`` for one that depends on several others.

    Args:
        program: An ``ExportedProgram`` of flat tensors.
    """
    found: list[list[int | Size | None]] = []
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    for name in program.graph_signature.user_inputs:
        found.append([_read_size(size, program.range_constraints) for size in values[name].shape])
    return found


def _read_size(size: int | torch.SymInt, ranges: Mapping[Any, Any]) -> int | Size | None:
    if isinstance(size, int):
        return size
    expression: Any = size.node.expr
    symbols = list(expression.free_symbols)
    if not symbols:
        return int(expression)
    at = [expression.subs(symbols[0], value) for value in (0, 1, 2)]
    if len(symbols) > 1 or any(not value.is_integer or not value.is_number for value in at):
        return None
    plus, times = int(at[0]), int(at[1] - at[0])
    if int(at[2]) != 2 * times + plus or times < 1:
        return None
    limits = ranges.get(symbols[0])
    most = int(limits.upper) if limits is not None and limits.upper.is_Integer else None
    return Size(str(symbols[0]), times, plus, int(limits.lower) if limits is not None else 0, most)


def size_questions(program: Any) -> list[tuple[tuple[str, ...], str, int]]:
    """What was asked of the sizes of inputs while a program was made, and answered for good.

    Args:
        program: An ``ExportedProgram`` that was made in this process.

    Returns:
        For each question the sizes, as ``x.size()[0]``, and the line that asked, in torch or out of it.
    """
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"]
    modes = [value.fake_mode for value in values if hasattr(value, "fake_mode")]
    if not modes or modes[-1].shape_env is None:
        return []
    env = modes[-1].shape_env
    names = {str(s): re.sub(r"L\['(\w+)'\]", r"\1", source) for source, s in getattr(env, "source_to_var", {}).items()}
    found = []
    for guard in env.guards:
        frame = guard.sloc.framework_loc
        sizes = tuple(names[str(each)] for each in guard.expr.free_symbols if str(each) in names)
        if sizes and hasattr(frame, "lineno"):
            found.append((sizes, str(frame.filename), int(frame.lineno)))
    return found
