"""What is seen of the values that leave a trace."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import _torch
from hybridjit._describe import place
from hybridjit.export import kinds
from hybridjit.export.kinds import Kind
from hybridjit.export.leaks import Leak, same_value, spell_value
from hybridjit.export.watch import Watch

from .call import Call


def seen(fn: Callable[..., Tensor], *inputs: Tensor) -> list[Leak]:
    """What leaves a trace of a function."""
    found: list[Leak] = []
    with warnings.catch_warnings(), torch.no_grad(), Watch({}, lambda leak, tensor: found.append(leak)):
        warnings.simplefilter("ignore")  # as an error, what torch says from within C++ would be none of the function's
        torch.jit.trace(fn, inputs, check_trace=False)
    return found


X = torch.tensor([3.0, 1.0, 2.0])
padded: Callable[..., Tensor] = nn.functional.conv1d
LAST = torch.channels_last
WAYS: dict[str, tuple[Kind, object, Callable[[Tensor], Tensor]]] = {
    "bool": (kinds.BOOL, True, lambda x: x if x.sum() > 0 else -x),
    "is_nonzero": (kinds.BOOL, True, lambda x: x if x.sum().is_nonzero() else -x),
    "equal": (kinds.BOOL, True, lambda x: x if torch.equal(x, x + 0) else -x),
    "allclose": (kinds.BOOL, False, lambda x: x if torch.allclose(x, x + 1, rtol=0.0) else -x),
    "is_same_size": (kinds.BOOL, False, lambda x: x if x.is_same_size(x[:1]) else -x),
    "int": (kinds.INT, 6, lambda x: x * int(x.sum())),
    "float": (kinds.FLOAT, 6.0, lambda x: x * float(x.sum())),
    "item": (kinds.ITEM, 6.0, lambda x: x * x.sum().item()),
    "array": (kinds.ARRAY, 6.0, lambda x: x * float(x.sum().numpy())),
    "in": (kinds.CONTAINS, True, lambda x: x if 1.0 in x else -x),
    "index": (kinds.INDEX, 1, lambda x: [x, x + 1][x[1].long()]),
    "range": (kinds.TURNS, 1, lambda x: sum((x for _ in range(x[1].long())), x)),
    "list": (kinds.REPEATED, 3, lambda x: sum([x] * x.shape[0], x)),
    "given": (kinds.GIVEN, 6, lambda x: padded(x[None], x.new_ones(1, 1, 1), padding=x.sum().long())),
    "len": (kinds.LEN, 3, lambda x: x * len(x)),
    "contiguous": (kinds.LAYOUT, True, lambda x: x if x.is_contiguous() else -x),
    "memory format": (kinds.LAYOUT, True, lambda x: x if x[None, None, None].is_contiguous(memory_format=LAST) else -x),
    "stride": (kinds.BOOL, True, lambda x: x if x.stride(0) == 1 else -x),
    "offset": (kinds.BOOL, False, lambda x: x if x[1:].storage_offset() == 0 else -x),
    "format": (kinds.TEXT, 6.0, lambda x: x * len(f"{x.sum()}")),
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_out(way: str) -> None:
    """Each way out of a trace has its kind, its value and the line."""
    kind, value, fn = WAYS[way]
    (found,) = seen(fn, X)
    assert (found.kind, found.value) == (kind, value)
    assert found.site.file == __file__ and found.site.line == fn.__code__.co_firstlineno


def test_whole_tensors() -> None:
    """Where a whole tensor leaves, its values are kept, apart from what is written later."""
    for fn in (lambda x: x * sum(x.tolist()), lambda x: x * float(x.numpy().sum())):
        (found,) = seen(fn, X)
        assert torch.equal(found.value, X) and found.value is not X


def test_constants_leave_nothing() -> None:
    """What is the same whatever the inputs are is no leak."""
    assert not seen(lambda x: x * float(torch.ones(3).sum()) * int(torch.zeros(2, 5).shape[1]), X)


def test_made_tensors_are_stacks() -> None:
    """``torch.tensor`` of sizes and sums is a stack of them: nothing leaves, other sizes are right, and later writes
    don't reach what it was made of."""

    def fn(x: Tensor) -> Tensor:
        sizes = torch.tensor([x.shape[0], x.sum(), 2.0])
        sizes[0] = 7.0
        return sizes * x.shape[0]

    assert not seen(fn, X)
    exported = hj.export(Call(fn).eval(), X)
    assert torch.equal(exported(torch.ones(5)), fn(torch.ones(5)))


def test_strides_stay_numbers() -> None:
    """Strides and offsets that go back into operations are those of the tensor that the file is given."""
    fn = lambda x: x.as_strided((2,), (x.stride(0),)) * (1 + x[2:].storage_offset())  # noqa: E731
    exported = hj.export(Call(fn).eval(), torch.ones(4, 3))
    wide = torch.randn(4, 9)[:, :3]
    assert torch.equal(exported(wide), fn(wide))


def test_same_values() -> None:
    """A value is the same one with its type: NaN is NaN, 1 is not True."""
    nan = float("nan")
    assert same_value(nan, nan) and same_value(X, X.clone()) and same_value(2, 2)
    assert not same_value(1, True) and not same_value(1, 1.0) and not same_value(X, X.double())


def test_spelled() -> None:
    """Numbers are spelled as they are, tensors by how many values they hold."""
    assert [spell_value(each) for each in (3, True, torch.ones(1), X)] == ["3", "True", "1 value", "3 values"]


DEPARTING = {
    "stride": torch.ones(6)[::2],
    "array": torch.tensor([8.0, 0.5, 64.0]),
    "in": torch.tensor([8.0, 0.5, 64.0]),
    "index": torch.tensor([8.0, 0.0, 1.0]),
    "given": torch.tensor([8.0, 0.5, 64.0]),
    "contiguous": torch.ones(6)[::2],
    "format": torch.tensor([8.0, 0.5, 64.0]),
}


@pytest.mark.parametrize("way", DEPARTING)
def test_messages(way: str, tmp_path: Path) -> None:
    """The file stops with the line, the expression, both values and the fix, the same in Python and in plain torch."""
    kind, value, fn = WAYS[way]
    exported = hj.export(Call(fn).eval(), X)
    exported.save(tmp_path / "model.pt")
    with pytest.raises(hj.GuardError) as caught:
        exported(DEPARTING[way])
    line, page = str(caught.value).splitlines()
    start = f"value frozen at {place(__file__, fn.__code__.co_firstlineno)}: {kind.what}, captured {value}"
    # Other values may have been seen to give the same.
    assert re.fullmatch(rf"{re.escape(start)}( or \S+)*, got \S+; write {re.escape(kind.fix)}", line)
    assert page == "  see docs/errors.md#guarderror"
    with pytest.raises(torch.jit.Error) as plain:  # type: ignore[attr-defined]
        torch.jit.load(tmp_path / "model.pt")(DEPARTING[way])
    assert f"hybridjit: {line}" in str(plain.value)


class Masked(nn.Module):
    """Takes a truth out with `item`, as transformers do."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if (x.sum() > 100).item() else x - 1


@pytest.mark.parametrize("branches", [None, "auto"])
def test_item_of_a_truth_is_a_decision(branches: str | None) -> None:
    """`item()` of a truth parts paths as `bool` does."""
    model = Masked().eval()
    exported = hj.export(model, X, branches=branches, check_inputs=[X * 100])
    for x in (X, X * 100, -X):
        torch.testing.assert_close(exported(x), model(x))
    with pytest.raises(RuntimeError, match="only while that is recorded"):
        _torch.value_of(X)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x * 2 if x[x > 0].tolist() else x,
        lambda x: x * len(x[x > 0].tolist()),
        lambda x: x * sum(1 for _ in x.nonzero().tolist()),
        lambda x: x if x[None, x > 0].tolist() == [[]] else x * 2,
    ],
)
def test_how_long_a_list_of_values_is(fn: Callable[[Tensor], Tensor]) -> None:
    """Is guarded, where nothing is taken out of the list that would tell."""
    model = Call(fn).eval()
    first, same, other = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 3.0, 1.0]), torch.zeros(3)
    exported = hj.export(model, first, branches="auto")
    for x in (first, same):
        torch.testing.assert_close(exported(x), model(x))
    with pytest.raises(hj.GuardError, match=r"captured 2, got 0"):
        exported(other)
