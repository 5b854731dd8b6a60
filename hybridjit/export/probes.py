"""Probes: further inputs made of the first one, of other sizes and other values."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

Flat = tuple[Tensor, ...]


@dataclass(frozen=True)
class Probe:
    """A further input.

    Attributes:
        says: What was changed, for the report.
        flat: Its tensors.
    """

    says: str
    flat: Flat


def probes(flat: Flat, accepted: Callable[[Probe], bool]) -> Iterator[Probe]:
    """Makes inputs of other sizes and values, and gives those that the model accepts.

    Sizes that are equal, at the same dimension of several tensors, are changed together; each such
    group alone where all at once are refused, then those together that were accepted alone.

    Args:
        flat: The first input's tensors.
        accepted: Whether the model takes an input; runs it.
    """
    yield from sized(flat, accepted)
    for says, change_values in (("other values", _shuffled), ("zeros", _zeroed), ("negative", _negated)):
        probe = Probe(says, tuple(change_values(tensor) for tensor in flat))
        if any(not torch.equal(a, b) for a, b in zip(flat, probe.flat, strict=True)) and accepted(probe):
            yield probe
    yield from _increased(flat, accepted)


def _increased(flat: Flat, accepted: Callable[[Probe], bool]) -> Iterator[Probe]:
    """Integers that are all one more, in as many tensors as the model accepts: positions, say, that begin elsewhere."""
    # Two rows may be the ends of edges: one more is none of the nodes, and not every kernel that takes them checks.
    edges = [index for index, each in enumerate(flat) if each.dim() == 2 and len(each) == 2]
    counting = [index for index, each in enumerate(flat) if index not in edges and not _is_mask(each)]
    for places in (counting, *([index] for index in counting if len(counting) > 1)):
        says = MORE if places is counting else f"{MORE}, tensor {places[0]}"
        probe = Probe(says, tuple(each + 1 if index in places else each for index, each in enumerate(flat)))
        if places and accepted(probe):
            yield probe
            if places is counting:
                return


def _is_mask(tensor: Tensor) -> bool:
    """Whether a tensor holds no integers, or none but 0 and 1."""
    return tensor.dtype not in (torch.int64, torch.int32) or not bool(((tensor != 0) & (tensor != 1)).any())


def sized(flat: Flat, accepted: Callable[[Probe], bool]) -> Iterator[Probe]:
    """Those of `probes` that are of other sizes."""
    groups = groups_of(flat)
    for name, change in (("larger", _larger), ("odd", _odd), ("smaller", _smaller)):
        sizes = {key: change(key[0]) for key in groups if change(key[0]) != key[0]}
        taken: set[Key] = set()
        for vary in (varied, _within) if sizes else ():  # a model may want an image in [0, 1]
            yield from _accepted(functools.partial(with_sizes, flat, groups, name, vary), sizes, accepted, taken)
            if taken:
                break
        left = {key: size for key, size in sizes.items() if key not in taken and _of_integers(flat, groups[key])}
        if left:
            yield from _accepted(functools.partial(with_sizes, flat, groups, name, _repeated), left, accepted, taken)


def _of_integers(flat: Flat, places: Sequence[tuple[int, int]]) -> bool:
    """Whether a size is one of integers, which may have to fit each other."""
    return any(flat[index].dtype == torch.int64 for index, _ in places)


def _accepted(
    made: Callable[[dict[Key, int]], Probe], sizes: dict[Key, int], accepted: Callable[[Probe], bool], taken: set[Key]
) -> Iterator[Probe]:
    """The probe of all sizes, or those of some that the model accepts, which are added to those taken."""
    probe = made(sizes)
    if accepted(probe):
        taken.update(sizes)
        yield probe
        return
    if len(sizes) == 1:
        return
    alone = {}
    for key, size in sizes.items():
        probe = made({key: size})
        if accepted(probe):
            alone[key] = size
            last = probe
    taken.update(alone)
    if len(alone) > 1 and accepted(together := made(alone)):
        yield together
    elif len(alone) > 1:
        yield from (made({key: size}) for key, size in alone.items())
    elif alone:
        yield last


def neighbours(flat: Flat, accepted: Callable[[Probe], bool]) -> Iterator[Probe]:
    """Makes inputs of sizes one less than the first one's, at all dimensions and at each, that the model accepts.

    Where a size is halved again and again, one less is odd each time. And of one at each: a single token is a case of
    its own for many models.
    """
    groups = groups_of(flat)
    sizes = {key: key[0] - 1 for key in groups if key[0] > 2}
    for each in (sizes, *({key: size} for key, size in sizes.items() if len(sizes) > 1)):
        probe = with_sizes(flat, groups, NEIGHBOUR, varied, each)
        if each and accepted(probe):
            yield probe
    for key in groups:
        probe = with_sizes(flat, groups, SINGLE, varied, {key: 1})
        if _smaller(key[0]) > 1 and accepted(probe):
            yield probe


def scattered(flat: Flat, accepted: Callable[[Probe], bool]) -> Iterator[Probe]:
    """Makes inputs of several more sizes, each dimension by a factor of its own, that the model accepts.

    Where a size is rounded in two ways, they differ at some sizes and not at others.
    """
    groups = groups_of(flat)

    def made(sizes: dict[Key, int]) -> Probe:
        return with_sizes(flat, groups, SCATTERED, _within, sizes)

    free = [key for key in groups if key[0] > 1 and accepted(made({key: _odd(key[0])}))]
    for turn in range(_FACTORS if free else 0):
        factors = [0.55 + 0.19 * ((5 * turn + 3 * place) % _FACTORS) for place in range(len(free))]
        probe = made({key: max(1, int(key[0] * factor)) for key, factor in zip(free, factors, strict=True)})
        if accepted(probe):
            yield probe


SCATTERED = "scattered"
"""What the probes that `scattered` makes are called."""
_FACTORS = 8
NEIGHBOUR, SINGLE = BESIDE = "one less", "a single one"
"""What the probes that `neighbours` makes are called."""


def kind_probes(flat: Flat, accepted: Callable[[Probe], bool]) -> Iterator[Probe]:
    """Makes inputs of other dtypes and ranks, and gives those that the model accepts.

    Where it does not accept that of all tensors, it may of one: of the mask beside what is masked.

    Args:
        flat: The first input's tensors.
        accepted: Whether the model takes an input; runs it.
    """
    refused: set[str] = set()
    for says, convert in _KINDS.items():
        if _WHERE.get(says) in refused:
            continue
        made = tuple(convert(tensor) for tensor in flat)
        changed = [index for index, pair in enumerate(zip(flat, made, strict=True)) if _kind(pair[0]) != _kind(pair[1])]
        if not changed:
            continue
        if accepted(Probe(says, made)):
            yield Probe(says, made)
            continue
        refused.add(says)
        if len(flat) > 1 and says not in _OF_ALL:
            for index in changed[:_ALONE]:
                one = Probe(f"{says}{_OF}{index}", (*flat[:index], made[index], *flat[index + 1 :]))
                if accepted(one):
                    yield one


def _kind(tensor: Tensor) -> tuple[torch.dtype, int]:
    return tensor.dtype, tensor.dim()


def of_kind(says: str) -> bool:
    """Whether a probe is one of another dtype or rank."""
    return says.partition(_OF)[0] in _KINDS


def guarded_by(says: str) -> str:
    """What of the inputs a file must check that is wrong on a probe of another dtype or rank, or on a shared one."""
    kind, _, index = says.partition(_OF)
    what = "ranks" if kind in _OF_RANK else "dtypes"
    return {SHARED: "apart", HALF: "precision", COMPLEX: "complex"}.get(kind, f"{what} {index}".rstrip())


_OF = ", argument "
_ALONE = 8
"""How many arguments are tried alone, at most."""


def shared_probe(flat: Flat) -> Probe | None:
    """Makes an input of one tensor for all arguments of one kind; ``None`` if no two are of one kind."""
    firsts: dict[object, Tensor] = {}
    shared = [firsts.setdefault((each.dtype, each.shape, each.layout), each) for each in flat]
    return Probe(SHARED, tuple(shared)) if len(firsts) < len(flat) else None


SHARED = "one tensor for two arguments"
Key = tuple[int, int]
"""A size, and the dimension it is at."""


def groups_of(flat: Sequence[Tensor]) -> dict[Key, list[tuple[int, int]]]:
    """The sizes of inputs with their dimensions, each with all places that have it: they are related."""
    groups: dict[Key, list[tuple[int, int]]] = {}
    places = ((index, dim, size) for index, tensor in enumerate(flat) for dim, size in enumerate(tensor.shape))
    for index, dim, size in places:
        if size > 1 or (size == 1 and dim == 0 and flat[index].dim() > 1):
            groups.setdefault((size, dim), []).append((index, dim))
    return groups


def _larger(size: int) -> int:
    return 2 * size


def _odd(size: int) -> int:
    return prime_from(size + max(2, size // 4))


def prime_from(size: int) -> int:
    """The first prime from a number on."""
    found = max(2, size)
    while any(found % each == 0 for each in range(2, int(found**0.5) + 1)):
        found += 1
    return found


def _smaller(size: int) -> int:
    return 1 if size <= 4 else (size + 1) // 2  # a count of one, of pictures say, is often a case of its own


def with_sizes(
    flat: Flat, groups: dict[Key, list[tuple[int, int]]], name: str, vary: Vary, sizes: dict[Key, int]
) -> Probe:
    """Inputs with some of these sizes changed everywhere."""
    changed = list(flat)
    for key, size in sizes.items():
        for index, dim in groups[key]:
            changed[index] = resized(changed[index], dim, size, vary)
    spelled = [f"{before} to {after} at dimension {dim}" for (before, dim), after in sizes.items()]
    return Probe(f"{name}: {', '.join(spelled)}", tuple(changed))


def varied(tensor: Tensor) -> Tensor:
    """Other values of the same kind, so that what is repeated is not the same twice."""
    if not tensor.is_floating_point():
        return _shuffled(tensor)
    return tensor * (0.6 + 0.8 * _factors(tensor))


def _within(tensor: Tensor) -> Tensor:
    """The same within the range of the values that there are."""
    if not tensor.is_floating_point() or not tensor.numel():
        return _shuffled(tensor)
    low, high, made = tensor.amin(), tensor.amax(), tensor
    for each in (1.4 - 0.8 * _factors(tensor), 0.6 + 0.8 * _factors(tensor)):
        other = tensor * each
        made = torch.where((other >= low) & (other <= high), other, made)
    return made


def _repeated(tensor: Tensor) -> Tensor:
    """The same, of integers exactly: heights and widths, say, whose products are sizes."""
    return _within(tensor) if tensor.is_floating_point() else tensor


def _factors(tensor: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(tensor.numel())
    return torch.rand(tensor.shape, generator=generator).to(tensor.device, tensor.dtype)


MORE = "one more"
Vary: TypeAlias = Callable[[Tensor], Tensor]


def resized(tensor: Tensor, dim: int, size: int, vary: Vary = varied) -> Tensor:
    """A tensor of another size at one dimension: its values again and again, each time others of their kind."""
    if not tensor.shape[dim]:  # nothing to repeat
        return tensor.new_zeros([*tensor.shape[:dim], size, *tensor.shape[dim + 1 :]])
    places = (torch.arange(size) % tensor.shape[dim]).to(tensor.device)
    return vary(tensor.index_select(dim, places))


def _shuffled(tensor: Tensor) -> Tensor:
    """The same values elsewhere, so that indices stay within range."""
    if tensor.numel() < 2:
        return tensor
    order = torch.randperm(tensor.numel(), generator=torch.Generator().manual_seed(0)).to(tensor.device)
    return tensor.reshape(-1)[order].reshape(tensor.shape)


def _zeroed(tensor: Tensor) -> Tensor:
    """The second half of each row as zeros, as padding is: of a mask of one kind alone the other."""
    if tensor.dim() == 0 or tensor.shape[-1] < 2:
        return tensor
    keep = torch.arange(tensor.shape[-1], device=tensor.device) < (tensor.shape[-1] + 1) // 2
    if tensor.dtype == torch.bool and not tensor.any():  # what is true is what is padded
        return tensor ^ ~keep
    return torch.where(keep, tensor, torch.zeros_like(tensor))


def _negated(tensor: Tensor) -> Tensor:
    return -tensor if tensor.is_floating_point() else tensor


def _integers(tensor: Tensor) -> Tensor:
    return tensor.to(_OTHER.get(tensor.dtype, tensor.dtype))


def _stacked(tensor: Tensor, dim: int, size: int) -> Tensor:
    """The same with a dimension more: what sizes were asked for are still there, but not all, or elsewhere."""
    return torch.stack([tensor] * size, dim) if tensor.dim() and tensor.layout is torch.strided else tensor


def _wider(tensor: Tensor) -> Tensor:
    return tensor.to(_WIDER.get(tensor.dtype, tensor.dtype))


_WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float32: torch.float64}
_OTHER = {torch.int64: torch.int32, torch.int32: torch.int64}


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.dtype == torch.float32 else tensor


def _complex(tensor: Tensor) -> Tensor:
    if tensor.dtype not in (torch.float32, torch.float64) or tensor.layout is not torch.strided:
        return tensor
    return torch.complex(tensor, tensor)


def _whole(tensor: Tensor) -> Tensor:
    return tensor.to(torch.int64) if tensor.is_floating_point() or tensor.dtype == torch.bool else tensor


def _bytes(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point() or tensor.layout is not torch.strided:
        return tensor  # as indices of a dtype that a kernel does not expect they may end the process
    scaled = (tensor.detach().cpu().abs() * 100).nan_to_num(posinf=0.0) % 251
    return scaled.to(torch.uint8).to(tensor.device)


def _truths(tensor: Tensor) -> Tensor:
    if tensor.is_complex() or tensor.layout is not torch.strided:
        return tensor
    if not tensor.is_floating_point() and not _is_mask(tensor):
        return tensor
    made = tensor > tensor.mean() if tensor.is_floating_point() else tensor != 0
    return _zeroed(torch.ones_like(made)) if made.all() or not made.any() else made  # all alike says nothing


def _floating(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_floating_point() or tensor.is_complex() else tensor.float()


def _first(tensor: Tensor) -> Tensor:
    return tensor[0] if tensor.dim() and tensor.shape[0] else tensor


HALF = "half precision"
"""The probe on which a model may go by another number, as the smallest that a dtype has, and only there."""
COMPLEX = "complex numbers"
"""The probe on which what leaves real numbers as they are, and no trace, does something: ``x.conj()``."""
_BEHIND, _TWO_BEHIND = "a last dimension more", "a last dimension of two more"
_BEFORE, _TWO_BEFORE = "a dimension more", "a dimension of two more"
_WHERE = {_TWO_BEFORE: _BEFORE, _TWO_BEHIND: _BEHIND}
"""Which are tried only where another one is accepted: what the model refuses may cost it far more than its input."""
_KINDS: dict[str, Callable[[Tensor], Tensor]] = {
    "other integers": _integers,
    "double precision": _wider,
    HALF: _half,
    COMPLEX: _complex,
    "integers": _whole,
    "bytes": _bytes,
    "truths": _truths,
    "floating point": _floating,
    _BEFORE: lambda tensor: _stacked(tensor, 0, 1),
    _TWO_BEFORE: lambda tensor: _stacked(tensor, 0, 2),
    _BEHIND: lambda tensor: _stacked(tensor, -1, 1),
    _TWO_BEHIND: lambda tensor: _stacked(tensor, -1, 2),
    "a dimension less": _first,
}
_OF_RANK = tuple(says for says in _KINDS if "dimension" in says)
_OF_ALL = ("other integers", "double precision", HALF, COMPLEX, *_OF_RANK)
"""Where one tensor alone tells nothing; or some kernels write outside of it, which the others take for larger."""
