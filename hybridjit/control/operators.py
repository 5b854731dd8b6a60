"""How TorchScript's operations are called from Python."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Argument:
    """An argument of an operation.

    Attributes:
        name: Its name.
        type: Its type as schemas spell it: ``Tensor?``, ``Tensor[]``, ``Scalar``, ``int[2]``.
        by_keyword: Whether it is given by keyword.
    """

    name: str
    type: str
    by_keyword: bool

    @property
    def holds_tensors(self) -> bool:
        """Whether it takes a tensor, or several."""
        return "Tensor" in self.type


def operator_of(node: Any) -> tuple[Any, list[Argument]]:
    """The operation of a node as Python calls it, and its arguments."""
    schema: str = node.schema()
    head, _, rest = schema.partition("(")
    space, name, overload = re.split(r"::|\.", f"{head}." if "." not in head else head)
    operator = getattr(getattr(getattr(torch.ops, space), name), overload or "default")
    arguments, by_keyword = [], False
    for spelled in _split(rest[: rest.rindex(") -> ")]):
        if spelled == "*":
            by_keyword = True
            continue
        type_, _, named = spelled.partition("=")[0].rpartition(" ")
        arguments.append(Argument(named, type_, by_keyword))
    return operator, arguments


def _split(text: str) -> Iterator[str]:
    """The parts of a text between the commas that are in no brackets."""
    depth, part = 0, ""
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            yield part.strip()
            part = ""
        else:
            part += letter
    if part.strip():
        yield part.strip()
