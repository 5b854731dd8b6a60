"""The ways in which a value leaves a trace: their codes, and what to write instead."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One way in which a value leaves a trace.

    Attributes:
        code: ``HJ101`` and so on, explained in ``docs/errors.md``.
        what: The expression.
        says: What is kept of it, for messages.
        fix: What to write instead.
    """

    code: str
    what: str
    says: str
    fix: str


BOOL = Kind(
    "HJ101",
    "bool(tensor)",
    "the branch that the example took is kept",
    "the branch as a function with @hybridjit.script_if_tracing, or torch.where",
)
INT = Kind(
    "HJ102",
    "int(tensor)",
    "the number is kept",
    "x.shape[0] as it is, without int(), or hybridjit.static(value, reason=...)",
)
FLOAT = Kind(
    "HJ103",
    "float(tensor)",
    "the number is kept",
    "the tensor itself in the arithmetic, or hybridjit.static(value, reason=...)",
)
ITEM = Kind("HJ103", "tensor.item()", "the number is kept", FLOAT.fix)
CONTAINS = Kind("HJ103", "value in tensor", "the answer is kept", "(tensor == value).any()")
INDEX = Kind(
    "HJ104",
    "a tensor used as an index",
    "the index is kept",
    "tensor.index_select(0, index), or x[index] on a tensor rather than a list",
)
LIST = Kind(
    "HJ105",
    "tensor.tolist()",
    "the numbers are kept",
    "the tensor itself, or the loop in a function with @hybridjit.script_if_tracing",
)
ARRAY = Kind("HJ106", "tensor.numpy()", "the array is kept", "the torch function of the same name")
LEN = Kind("HJ107", "len(tensor)", "the length is kept", "tensor.shape[0]")
MADE = Kind(
    "HJ108",
    "torch.tensor(...) in forward",
    "its contents are kept",
    "torch.stack([...]) of tensors, or a buffer registered in __init__",
)
LAYOUT = Kind(
    "HJ109",
    "tensor.is_contiguous()",
    "the answer is kept",
    "x.contiguous(), which asks nothing, or x.reshape",
)
TEXT = Kind(
    "HJ110",
    "a tensor as text",
    "the text is kept",
    "no text made of a tensor in forward, or hybridjit.static(value, reason=...)",
)
