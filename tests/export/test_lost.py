"""Copies and aliases that a trace does not hear of."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj

from .call import Call


def limited(x: Tensor, seen: Tensor) -> Tensor:
    """Goes by a value only beyond what the example has."""
    return x * 2 if seen.max() > 3 else x


def masked(x: Tensor) -> Tensor:
    x = x + 1
    x.data[x.data > 3] = 0
    return x


def clamped(x: Tensor) -> Tensor:
    x = x + 1
    x.data.clamp_(max=3)
    return x


def longer(x: Tensor) -> Tensor:
    return x * 2 if x.data.shape[0] > 60 else x


RECORDED: dict[str, Callable[[Tensor], object]] = {
    "data": lambda x: limited(x, x.data),
    "data of a size": longer,
    "masked data": masked,
    "clamped data": clamped,
    "data of data": lambda x: x.data.data * 2,
    "like data": lambda x: torch.zeros_like(x.data) + x,
    "deepcopy": lambda x: limited(x, copy.deepcopy(x)),
    "deepcopy of a list": lambda x: limited(x, copy.deepcopy([x])[0]),
    "copy": lambda x: limited(x, copy.copy(x)),
    "a copy that is written": lambda x: copy.deepcopy(x).clamp_(max=3) + x,
    "an alias that is written": lambda x: (y := x + 1, copy.copy(y).clamp_(max=3), y * 2)[2],
}


LAID_OUT: dict[str, Callable[[Tensor], object]] = {
    "x after": lambda x: (x.contiguous().add_(1), x * 2)[1],
    "both": lambda x: (y := x.contiguous(), y[0].zero_(), x + y)[2],
    "in a format": lambda x: (y := x.contiguous(memory_format=torch.contiguous_format), y.mul_(2), x + y)[2],
    "twice": lambda x: (y := x.contiguous().contiguous(), y.mul_(2), x + y)[2],
    "of a view": lambda x: (y := x[:, 1:].contiguous(), y.mul_(2), x.sum() + y)[2],
}


@pytest.mark.parametrize("name", LAID_OUT)
def test_contiguous_copies_what_is_not(name: str) -> None:
    """What is written to `x.contiguous()` reaches x where that has no gaps, and not where it is another's transpose."""
    model = Call(LAID_OUT[name]).eval()
    exported = hj.export(model, torch.rand(5, 2), branches="auto")
    for make in (lambda: torch.ones(5, 2), lambda: torch.ones(2, 5).t(), lambda: torch.ones(10, 2)[::2]):
        given, own = make(), make()
        torch.testing.assert_close(exported(given), model(own), rtol=0, atol=0)
        torch.testing.assert_close(given, own, rtol=0, atol=0)


@pytest.mark.parametrize("name", RECORDED)
def test_what_is_recorded(name: str) -> None:
    """An alias or a copy is the tensor's, not a constant: also where only what no example has tells the difference."""
    model = Call(RECORDED[name]).eval()
    exported = hj.export(model, torch.rand(5, 2), branches="auto")
    for x in (torch.rand(5, 2), torch.full((5, 2), 9.0), torch.rand(70, 2), torch.full((1, 2), 9.0)):
        torch.testing.assert_close(exported(x.clone()), model(x.clone()), rtol=0, atol=0)


def replaced(x: Tensor) -> Tensor:
    y = x + 1
    y.data = y.clamp(max=3)
    return y


def stepwise(x: Tensor) -> Tensor:
    return x.clone().apply_(lambda value: min(value, 3.0))


def side_by_side(x: Tensor) -> Tensor:
    return x.clone().map_(x, lambda one, other: min(one, 3.0))


def stored(x: Tensor) -> Tensor:
    return x * 2 if x.contiguous().storage()[0] > 3 else x


@pytest.mark.parametrize(
    ("fn", "code"), [(replaced, "hj116"), (stepwise, "hj116"), (side_by_side, "hj116"), (stored, "hj112")]
)
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated:UserWarning")
def test_what_is_refused(fn: Callable[[Tensor], Tensor], code: str) -> None:
    """What Python code writes into a tensor, or takes out of its memory, leaves no trace: refused with the line."""
    with pytest.raises(hj.CaptureError) as caught:
        hj.export(Call(fn).eval(), torch.rand(5, 2), branches="auto")
    line = fn.__code__.co_firstlineno + (2 if fn is replaced else 1)
    assert f"test_lost.py:{line}" in str(caught.value) and f"#{code}" in str(caught.value)


def test_a_weight_that_is_kept_small() -> None:
    """A weight's new data goes on in the call, as layers have it that keep their weights' norms."""

    class Renormed(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=1)
            return super().forward(x)

    model = Renormed(3, 2).eval()
    model(torch.rand(1, 3))  # the norms are kept from here on
    exported = hj.export(model, torch.rand(4, 3))
    torch.testing.assert_close(exported(torch.ones(6, 3)), model(torch.ones(6, 3)))


def test_a_gradient_has_its_sizes() -> None:
    """What computes a gradient has the sizes of the trace: another one is stopped, one that would broadcast too."""

    def slope(x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            (grad,) = torch.autograd.grad(y.clamp(max=3).pow(2).sum(), y)
        return grad

    model = Call(slope).eval()
    exported = hj.export(model, torch.rand(5, 2))
    torch.testing.assert_close(exported(torch.full((5, 2), 9.0)), torch.zeros(5, 2))
    for rows in (1, 6):
        with pytest.raises(hj.GuardError, match="a size in a gradient, captured 5, got"):
            exported(torch.ones(rows, 2))


def test_into_how_many_parts() -> None:
    """Another number of parts names the line, be they used or counted; one that was told needs no check."""
    used = hj.export(Call(lambda x: torch.stack([2 * each for each in list(x.unbind())])).eval(), torch.rand(3, 2))
    torch.testing.assert_close(used(torch.ones(3, 2)), torch.full((3, 2), 2.0))
    with pytest.raises(
        hj.GuardError, match=r"test_lost\.py:\d+: the number of parts, captured 3, got 2; write an op.*hj\.map"
    ):
        used(torch.ones(2, 2))
    unused = hj.export(Call(lambda x: x * len(x.chunk(3))).eval(), torch.rand(3, 2))
    with pytest.raises(hj.GuardError, match="the number of parts, captured 3, got 2; write x"):
        unused(torch.ones(2, 2))
    told = hj.export(Call(lambda x: torch.stack(x.chunk(3)).sum(0)).eval(), torch.rand(3, 2))
    assert "number of parts" not in str(told.module.graph) + str(told.module.model.graph)
    torch.testing.assert_close(told(torch.ones(6, 2)), torch.full((2, 2), 3.0))


def test_an_exception_that_is_caught() -> None:
    """Whether an operation raises may hang on the input: a model that goes on with either is refused with the line."""

    def otherwise(x: Tensor) -> Tensor:
        try:
            return x + x[60]
        except IndexError:
            return x

    with pytest.raises(hj.CaptureError) as caught:
        hj.export(Call(otherwise).eval(), torch.rand(5, 2))
    lines = str(caught.value).splitlines()
    assert lines[0] == "an operation raises, and otherwise goes on: no file can do that"
    assert f"test_lost.py:{otherwise.__code__.co_firstlineno + 2}" in lines[1]
    assert lines[2].startswith("  - IndexError: index 60 is out of bounds")
    exported = hj.export(Call(otherwise).eval(), torch.rand(5, 2), on_frozen="ignore")
    torch.testing.assert_close(exported(torch.ones(4, 2)), torch.ones(4, 2))


@pytest.mark.parametrize("sparse", [Tensor.to_sparse, Tensor.to_sparse_csr])
@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")
def test_how_many_a_sparse_tensor_holds(sparse: Callable[[Tensor], Tensor]) -> None:
    """The number of values that are not zero stays computed, as other sizes do."""
    model = Call(lambda x: x * sparse(x)._nnz() if sparse(x)._nnz() > 5 else x).eval()
    exported = hj.export(model, torch.eye(4), branches="auto")
    for x in (torch.eye(4), torch.ones(3, 3), torch.eye(6)):
        torch.testing.assert_close(exported(x), model(x))


def test_what_vmap_makes() -> None:
    """The tensors that `torch.vmap` hands a function are not the trace's, and lose nothing: their values are."""

    class ByRow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3, 4))

        def forward(self, x: Tensor) -> Tensor:
            return torch.vmap(lambda row, weight: row @ weight, in_dims=(0, None))(x, self.weight)

    model = ByRow().eval()
    exported = hj.export(model, torch.rand(2, 3))
    for rows in (2, 5):
        x = torch.rand(rows, 3)
        torch.testing.assert_close(exported(x), model(x))


def test_a_layer_that_has_its_dtype_already() -> None:
    """``layer.to(dtype)`` in forward, as mixtures of experts have it, sets the data of weights to what it is."""

    class Converts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            self.layer = self.layer.to(torch.float32)
            result: Tensor = self.layer(x)
            return result

    model = Converts().eval()
    exported = hj.export(model, torch.rand(2, 3), branches="auto")
    x = torch.rand(5, 3)
    torch.testing.assert_close(exported(x), model(x))


class Draws(nn.Module):
    """Draws the same numbers at each call."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        self.own = own

    def forward(self, x: Tensor) -> Tensor:
        if self.own:
            return x + torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
        torch.manual_seed(3)
        return x + torch.randn(x.shape)


def test_a_generator_of_its_own() -> None:
    """A file has the state of none, and would draw others at its second call."""
    with pytest.raises(hj.CaptureError, match=r"a torch\.Generator is given to an operation") as error:
        hj.export(Draws(True).eval(), torch.ones(3, 2))
    assert f"test_lost.py:{Draws.forward.__code__.co_firstlineno + 2}" in str(error.value)
    assert "write instead: torch.manual_seed(seed) before it" in str(error.value)
    model = Draws(False).eval()
    exported = hj.export(model, torch.ones(3, 2))
    for rows in (3, 3, 5):
        x = torch.ones(rows, 2)
        torch.testing.assert_close(exported(x), model(x))
