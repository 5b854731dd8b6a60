"""Why a check differs: which operation's value parts first, and whether it is the export's doing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._errors import HybridJitError
from .checks import UNSTEADY
from .compare import Flat, alike, is_chaotic
from .observe import Event, Parting, Watched, first_parting, values_of, watched


@dataclass(frozen=True)
class Failure:
    """A check that differs, with all that it takes to run it again.

    Attributes:
        names: ``id(module)`` to module path.
        flat: The input's tensors.
        run: Runs the model on such tensors under a seed within a context, and puts it back; raises a `HybridJitError`
            if it raises.
        module: A copy of the file that has not run yet.
        call: Runs it on the input.
        differences: What the check said.
    """

    names: Mapping[int, str]
    flat: Flat
    run: Callable[[Flat, int, AbstractContextManager[Any]], Any]
    module: _torch.ScriptModule
    call: Callable[[_torch.ScriptModule], object]
    differences: Sequence[str]


def explained(failure: Failure) -> list[str]:
    """Why a check differs, in words: the operation, and what it is that is not the export's doing.

    Args:
        failure: The check.
    """
    try:
        model = watched(failure.names, lambda within: failure.run(failure.flat, 0, within))
        again = failure.run(failure.flat, 0, nullcontext())
    except HybridJitError:  # it ran before: that it does not now is its own affair
        return ["the model itself raises when it is called again on this input"]
    if not alike(model.result, again):
        return [_unsteady(failure)]
    parting = first_parting(model, values_of(failure.module, failure.call))
    said = []
    if parting is not None:
        said.append(f"parts first at {parting.event.site}: {parting.event.name}: {parting.says}")
    said += _reasons(failure, model, parting)
    return said


def _unsteady(failure: Failure) -> str:
    text = f"{UNSTEADY} with the same input and seed: "
    on = {tensor.device.type for tensor in failure.flat} - {"cpu"}
    if on:
        return f"{text}a nondeterministic kernel ({', '.join(on)}; see torch.use_deterministic_algorithms)"
    return f"{text}it depends on something outside of it (a global, a generator of its own, a clock), or on memory"


def _reasons(failure: Failure, model: Watched, parting: Parting | None) -> list[str]:
    found = []
    random = next((event for event in model.events if is_random(event)), None)
    if random is not None and not alike(model.result, failure.run(failure.flat, 1, nullcontext())):
        what = "dropout that is left on" if "dropout" in random.name else "a random operation"
        found.append(
            f"{what} at {random.site} ({random.name}): file and model draw the same numbers only in the same order"
        )
    if parting is not None:
        found += _of_operation(parting)
    buffers = re.findall(r"^buffer ([^:]+):", "\n".join(failure.differences), re.MULTILINE)
    if buffers:
        found.append(f"a buffer that the call writes ({', '.join(buffers)}): a later call depends on it")
    if not found and is_chaotic(failure.flat, model.result, lambda flat: failure.run(flat, 0, nullcontext())):
        found.append("near a threshold: the model's own result is another one when its input changes by 1e-6 of itself")
    return found


_RANDOM = re.compile(
    r"\b(rand\w*|normal_?|uniform_|bernoulli_?|multinomial|poisson|\w*dropout\d?d?_?|rrelu_?|gumbel_softmax|"
    r"exponential_|geometric_|cauchy_|log_normal_|random_|scaled_dot_product_attention)$"
)


def is_random(event: Event) -> bool:
    """Whether an operation may have drawn random numbers: dropout that gives what it was given has not."""
    name = event.name.rpartition(".")[2]
    idle = "dropout" in name and event.given and event.made and alike(event.given[0], event.made[0])
    return _RANDOM.search(name) is not None and not idle


_ORDER = ("sort", "argsort", "topk", "argmax", "argmin", "max", "min", "median", "kthvalue", "mode")
_COMPARED = "gt lt ge le eq ne __gt__ __lt__ __ge__ __le__ __eq__ __ne__ greater less"
_COMPARISONS = tuple(_COMPARED.split(" "))
_ROUNDING = ("floor", "ceil", "round", "trunc", "long", "int", "to")
_MATRICES = "linear matmul mm bmm addmm baddbmm einsum bilinear __matmul__ scaled_dot_product_attention"
_CONVOLUTIONS = "conv1d conv2d conv3d conv_transpose2d conv_transpose3d multi_head_attention_forward lstm gru"
_PRODUCTS = (*_MATRICES.split(" "), *_CONVOLUTIONS.split(" "))


def _of_operation(parting: Parting) -> list[str]:
    event, made, got = parting.event, parting.made, parting.got
    name = event.name.rpartition(".")[2]
    if got is None:
        return []
    where = got.device.type
    made, got = made.cpu(), got.cpu()
    event = replace(event, given=tuple(each.cpu() for each in event.given))
    if name in _ORDER and _is_tie(event, made, got):
        return [f"ties: equal values go into {event.name}, and which of them comes first is not defined"]
    if name in _COMPARISONS and _is_close_call(event, made, got):
        return [
            f"near a threshold: what {event.name} compares is within rounding errors of each other where they differ"
        ]
    if name in _ROUNDING and _is_close_call(event, made, got, rounding=True):
        return [f"near a threshold: what {event.name} rounds is within rounding errors of a step where they differ"]
    typical = _typical(made, got) if name in _PRODUCTS and made.is_floating_point() else float("inf")
    if typical > 1e-2:
        return []
    by = f"{event.name} differs by {typical:.1g} of the largest value"
    if got.dtype in (torch.float16, torch.bfloat16):
        return [f"reduced precision: {str(got.dtype).removeprefix('torch.')} carries 2 to 3 digits; {by}"]
    if where == "cuda" and (settings := _reduced()):
        return [f"TF32 or another reduced precision is on ({settings}); {by}"]
    return []


def _is_tie(event: Event, made: Tensor, got: Tensor) -> bool:
    """Whether two sets of places hold the same values of what was put in order."""
    if made.is_floating_point() or not event.given:
        return False
    values = event.given[0]
    if made.dim() == 0:
        return bool(values.flatten()[int(made)] == values.flatten()[int(got)])
    for dim in range(values.dim()):
        places = [each if each.dim() == values.dim() else each.unsqueeze(dim) for each in (made, got)]
        rest = [size for at, size in enumerate(values.shape) if at != dim]
        if any([size for at, size in enumerate(each.shape) if at != dim] != rest for each in places):
            continue
        if any(int(each.max()) >= values.shape[dim] for each in places):
            continue
        if torch.equal(values.gather(dim, places[0]), values.gather(dim, places[1])):
            return True
    return False


def _is_close_call(event: Event, made: Tensor, got: Tensor, rounding: bool = False) -> bool:
    """Whether what goes in is within rounding errors of a decision wherever two results of it differ."""
    given = [each.double() for each in event.given if each.is_floating_point()]
    if not given or made.shape != got.shape:
        return False
    if rounding:
        whole = (given[0] * 2).round() / 2  # steps are at whole numbers, and for `round` half way
        other = whole
    elif len(given) > 1:
        other = given[1]
    elif event.numbers:
        other = torch.full_like(given[0], event.numbers[0])
    else:
        return False
    try:
        one, other = given[0].expand(made.shape), other.expand(made.shape)
    except RuntimeError:  # not an operation place by place
        return False
    near = (one - other).abs() <= _CLOSE * torch.maximum(one.abs(), other.abs()).clamp(min=1)
    return bool(near[made != got].all())


_CLOSE = 1e-5


def _typical(one: Tensor, other: Tensor) -> float:
    """The largest difference, in parts of the largest value."""
    largest = float(one.abs().max()) if one.numel() else 0.0
    return float((one - other).abs().max()) / largest if largest else float("inf")


def _reduced() -> str:
    """The settings by which matrix products on CUDA round more than float32 does."""
    found = []
    if torch.get_float32_matmul_precision() != "highest":
        found.append(f'torch.set_float32_matmul_precision("{torch.get_float32_matmul_precision()}")')
    if torch.backends.cuda.matmul.allow_tf32:
        found.append("torch.backends.cuda.matmul.allow_tf32")
    if torch.backends.cudnn.allow_tf32:
        found.append("torch.backends.cudnn.allow_tf32")
    return ", ".join(found)
