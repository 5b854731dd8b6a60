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
WANTED = Kind(
    "HJ101",
    "torch.is_grad_enabled()",
    "the answer is kept",
    'with torch.no_grad(): around the call of the file, or branches="auto" at the export',
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
NUMBER = Kind(
    "HJ103",
    "a number taken out of a tensor (item, in, a format string)",
    "it is kept",
    "the tensor itself in the arithmetic, (tensor == value).any() for in",
)
CONTAINS = Kind("HJ103", "value in tensor", "the answer is kept", "(tensor == value).any()")
GIVEN = Kind(
    "HJ103",
    "a tensor given to an operation as a number",
    "the number is kept",
    "the same in operations on tensors, or hybridjit.static(value, reason=...)",
)
INDEX = Kind(
    "HJ104",
    "a tensor used as an index",
    "the index is kept",
    "tensor.index_select(0, index), or x[index] on a tensor rather than a list",
)
TURNS = Kind(
    "HJ104",
    "range(tensor)",
    "the number of turns is kept",
    "an operation on the whole tensor, torch.arange for a list of numbers, or the loop as hybridjit.fori_loop",
)
REPEATED = Kind(
    "HJ104",
    "[...] * tensor",
    "the length of the list is kept",
    "a tensor with a row for each: x.expand(n, *x.shape), torch.full((n,), value)",
)
LIST = Kind(
    "HJ105",
    "tensor.tolist()",
    "the numbers are kept",
    "the tensor itself, or the loop in a function with @hybridjit.script_if_tracing",
)
ROWS = Kind(
    "HJ105",
    "for x in tensor",
    "the number of elements is kept",
    "an operation on the whole tensor, or the loop in a function with @hybridjit.script_if_tracing",
)
ARRAY = Kind("HJ106", "tensor.numpy()", "the array is kept", "the torch function of the same name")
LENT = Kind(
    "HJ115",
    "tensor.__dlpack__()",
    "what another library made of its memory is kept",
    "the torch function of the same name",
)
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
KEY = Kind(
    "HJ111",
    "a size as a key",
    "what a dictionary, a set or a cache has for it is kept",
    "torch.where(x.shape[0] == 6, a, b), or a tensor that is indexed by the size",
)
CACHE = Kind(
    "HJ111",
    "a size as a cache's key",
    "what the cache has for it is kept",
    "a table made in __init__ and sliced by the size, or no cache in forward",
)
RANK = Kind(
    "HJ117",
    "the number of dimensions of a tensor",
    "it is kept",
    "x.squeeze(dim) of a dimension that always is 1, or x.reshape(...), for x.squeeze(); x.flatten(1) for what asks",
)
ADDRESS = Kind(
    "HJ112",
    "the address of a tensor",
    "no file can check where its tensors lie",
    "(x == y).all() to compare values; no address in forward, or hybridjit.static(value, reason=...)",
)
RESIZED = Kind(
    "HJ114",
    "tensor.resize_(...)",
    "a trace loses what the tensor was made of, and what is written to it",
    "x.reshape(...) for other sizes of the same values, x[:n] for fewer, torch.cat([x, x.new_zeros(n)]) for more",
)
FORMAT = Kind(
    "HJ113",
    "a tensor's layout",
    "the answer is kept",
    "x.to_dense(), which asks nothing, or @hybridjit.script_if_tracing on the function that asks",
)
LOST = Kind(
    "HJ116",
    "a tensor that a trace loses",
    "what it holds is kept",
    "an operation of torch: x.clamp(max=3) for x.apply_(...), x.copy_(y) for x.data = y",
)
SLOPE = Kind(
    "HJ102",
    "a size in a gradient",
    "the number is kept",
    "the gradient as an operation of its own, 2 * x for that of x ** 2",
)
UNGUARDED = (ADDRESS, RESIZED, LOST)
"""What no guard can check: refused, unless ``on_frozen="ignore"``."""
