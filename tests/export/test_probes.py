"""Further inputs made of the first one."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridjit.export.probes import Probe, guarded_by, kind_probes, of_kind, probes


def made(*flat: Tensor, accepted: bool = True) -> dict[str, Probe]:
    return {probe.says: probe for probe in probes(flat, lambda probe: accepted)}


def sizes(probe: Probe) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in probe.flat]


def test_sizes() -> None:
    """Each size is doubled, made an odd prime, and halved; the kinds of the tensors stay."""
    found = made(torch.rand(4, 6))
    by_kind = {says.partition(":")[0]: sizes(probe)[0] for says, probe in found.items() if ":" in says}
    assert by_kind == {"larger": (8, 12), "odd": (7, 11), "smaller": (1, 3)}
    assert "larger: 4 to 8 at dimension 0, 6 to 12 at dimension 1" in found
    assert all(probe.flat[0].dtype == torch.float32 for probe in found.values())


def test_equal_sizes_stay_equal() -> None:
    """Sizes that are the same at one dimension of several tensors are changed together."""
    for says, probe in made(torch.rand(4, 6), torch.rand(4, 2), torch.rand(9)).items():
        one, two, _ = probe.flat
        if ":" in says:
            assert one.shape[0] == two.shape[0] and one.shape[1] != two.shape[1]


def test_what_a_model_refuses_is_left_out() -> None:
    """A size that the model insists on stays, the others change without it; a model that refuses all gets none."""

    def accepted(probe: Probe) -> bool:
        return all(tensor.shape[-1] == 3 for tensor in probe.flat)

    found = list(probes((torch.rand(4, 3),), accepted))
    assert {tuple(probe.flat[0].shape) for probe in found} >= {(8, 3), (7, 3), (1, 3)}
    assert all(probe.flat[0].shape[-1] == 3 for probe in found)
    assert made(torch.rand(4, 3), accepted=False) == {}


def test_values() -> None:
    """Some keep all sizes and change the values alone: elsewhere, padded with zeros, negative."""
    x = torch.arange(1.0, 7.0).reshape(2, 3)
    found = made(x)
    assert sorted(found["other values"].flat[0].flatten().tolist()) == [1, 2, 3, 4, 5, 6]
    assert found["zeros"].flat[0].tolist() == [[1, 2, 0], [4, 5, 0]]
    assert torch.equal(found["negative"].flat[0], -x)
    masks = torch.zeros(2, 4, dtype=torch.bool), torch.ones(2, 4, dtype=torch.bool)
    assert [each.tolist()[1] for each in made(*masks)["zeros"].flat] == [
        [False, False, True, True],
        [True, True, False, False],
    ]


def test_indices_stay_in_range() -> None:
    """Integers are moved about, or one more, never made anew, so that they are indices still; a mask stays one."""
    tokens, mask = torch.randint(0, 50, (3, 8)), torch.ones(3, 8, dtype=torch.bool)
    found = made(tokens, mask)
    assert torch.equal(found.pop("one more").flat[0], tokens + 1)
    for probe in found.values():
        assert set(probe.flat[0].flatten().tolist()) <= {0, *tokens.flatten().tolist()}
        assert probe.flat[1].dtype == torch.bool


def test_what_is_repeated_is_varied() -> None:
    """A larger input is no tiling of the first: rows that are repeated have values of their own."""
    larger = made(torch.rand(2, 5) + 1)["larger: 2 to 4 at dimension 0, 5 to 10 at dimension 1"].flat[0]
    assert not torch.equal(larger[:2], larger[2:])


def test_the_same_each_time() -> None:
    """Probes don't depend on the random state, and leave it as it is."""
    x, before = torch.rand(3, 4), torch.get_rng_state()
    one, two = made(x), made(x)
    assert torch.equal(torch.get_rng_state(), before)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[says].flat[0], two[says].flat[0]) for says in one)


def test_other_sizes_stay_in_range() -> None:
    """A model that takes values in [0, 1] alone gets probes of other sizes too; values repeated are others."""
    flat = (torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)

    def accepted(probe: Probe) -> bool:
        return bool((probe.flat[0] >= flat[0].min()).all() and (probe.flat[0] <= flat[0].max()).all())

    found = [probe.flat[0] for probe in probes(flat, accepted) if ":" in probe.says]
    assert len(found) >= 2
    larger = max(found, key=Tensor.numel)
    assert not torch.equal(larger[..., :8, :8], larger[..., 8:16, 8:16])


def test_integers_that_fit_each_other() -> None:
    """A count of rows whose integers a model wants as they are is changed without changing them."""
    shapes, x = torch.tensor([[4, 3], [2, 6]]), torch.rand(2, 12)

    def accepted(probe: Probe) -> bool:
        shapes, x = probe.flat
        return shapes.shape[1:] == (2,) and len(shapes) == len(x) and bool((shapes.prod(1) == 12).all())

    found = [probe for probe in probes((shapes, x), accepted) if ":" in probe.says]
    assert {len(probe.flat[0]) for probe in found} >= {4, 5, 1}
    larger = max(found, key=lambda probe: len(probe.flat[0])).flat[1]
    assert not torch.equal(larger[:2], larger[2:4])


def test_one_more_of_what_takes_it() -> None:
    """Integers that may not all be one more are so alone; a mask of integers stays as it is."""
    ids, at, mask = torch.tensor([9, 3]), torch.tensor([2, 3]), torch.tensor([1, 0])
    found = {probe.says: probe.flat for probe in probes((ids, at, mask), lambda probe: int(probe.flat[0].max()) < 10)}
    assert "one more" not in found and "one more, tensor 0" not in found
    assert [each.tolist() for each in found["one more, tensor 1"]] == [[9, 3], [3, 4], [1, 0]]


def test_the_kind_of_one_argument() -> None:
    """Where the model does not take all arguments as another dtype, one may be: a mask of truths beside numbers."""
    flat = (torch.rand(2, 3), torch.ones(2, 3, dtype=torch.int64))

    def accepted(probe: Probe) -> bool:
        return probe.flat[0].dtype == torch.float32 and probe.flat[0].dim() == probe.flat[1].dim() == 2

    found = {probe.says: probe for probe in kind_probes(flat, accepted)}
    assert list(found) == [
        "other integers",
        "truths, argument 1",
        "floating point",
    ]
    assert all(map(of_kind, found)) and not of_kind("other values")
    truths = found["truths, argument 1"].flat[1]
    assert truths.tolist() == [[True, True, False]] * 2
    kinds = ("integers", "truths, argument 1", "a dimension less", "half precision", "complex numbers")
    assert [guarded_by(says) for says in kinds] == ["dtypes", "dtypes 1", "ranks", "precision", "complex"]


def test_a_further_dimension_of_two() -> None:
    """Is tried only where one of one is accepted: each run of what the model refuses costs."""

    def tried(accept: bool) -> set[str]:
        asked: set[str] = set()

        def accepted(probe: Probe) -> bool:
            asked.add(probe.says)
            return accept

        list(kind_probes((torch.rand(2, 3),), accepted))
        return asked

    assert tried(True) - tried(False) == {"a dimension of two more", "a last dimension of two more"}
