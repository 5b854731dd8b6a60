"""What a model asks of its tensors besides their values."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj

from .call import Call

X, Y = torch.tensor([3.0, 1.0]), torch.tensor([2.0, 5.0])


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x.to_dense() * 2 if x.is_sparse else x + 1,
        lambda x: x.to_dense() * 2 if x.layout != torch.strided else x + 1,
        lambda x: x + 1 if x.layout is torch.strided else x.to_dense() * 2,
        lambda x: x + 1 if not x.is_sparse_csr and not x.is_sparse else x.to_dense() * 2,
    ],
)
def test_layouts(fn: Callable[[Tensor], Tensor]) -> None:
    """A file of a model that asks for the layout raises on another one, and runs at other sizes."""
    exported = hj.export(Call(fn).eval(), X)
    assert torch.equal(exported(torch.ones(5)), torch.ones(5) + 1)
    with pytest.raises(hj.GuardError, match=r"test_answers.py:\d+: a tensor's layout, captured (True|False), got"):
        exported(X.to_sparse())


def test_layouts_that_nobody_asks_for() -> None:
    """Where the model does not ask, a sparse tensor runs as in eager mode."""
    exported = hj.export(Call(lambda x: x * 2).eval(), X)
    assert torch.equal(exported(X.to_sparse()).to_dense(), X * 2)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x, y: x * 3 if x.data_ptr() == y.data_ptr() else x + y,
        lambda x, y: x * 3 if x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr() else x + y,
    ],
)
def test_addresses_are_refused(fn: Callable[..., Tensor]) -> None:
    """No file can check an address, so a model that asks for one is refused by line; or frozen, if that is wanted."""
    with pytest.raises(hj.CaptureError) as caught:
        hj.export(Call(fn).eval(), (X, Y))
    what, where, *_, page = str(caught.value).splitlines()
    assert what == "the address of a tensor: no file can check where its tensors lie"
    assert where.endswith(f"test_answers.py:{fn.__code__.co_firstlineno}")
    assert page == "  see docs/errors.md#hj112"
    ignored = hj.export(Call(fn).eval(), (X, Y), on_frozen="ignore")
    assert next(finding.code for finding in ignored.report.findings) == "HJ112"


def test_one_memory_is_asked_in_the_file() -> None:
    """`is_set_to` is answered when the file runs."""
    exported = hj.export(Call(lambda x, y: torch.where(torch.as_tensor(x.is_set_to(y)), x * 3, x + y)).eval(), (X, Y))
    assert torch.equal(exported(X, X), X * 3) and torch.equal(exported(X, Y), X + Y)


def test_resizing_is_refused() -> None:
    """A trace loses a tensor that is resized in place; the message says what to write."""
    with pytest.raises(hj.CaptureError, match=r"^tensor.resize_\(...\): a trace loses") as caught:
        hj.export(Call(lambda x: x.clone().resize_(1, x.shape[0])).eval(), X)
    assert "write instead: x.reshape(...) for other sizes of the same values, x[:n] for fewer" in str(caught.value)


def test_arguments_that_are_one_tensor() -> None:
    """A file whose model goes by identity raises where two arguments are one tensor; another does not."""
    exported = hj.export(Call(lambda x, y: x * 3 if x is y else x + y).eval(), (X, Y))
    assert torch.equal(exported(X, X.clone()), X + X)
    with pytest.raises(hj.GuardError, match="got one for both; write"):
        exported(X, X)
    free = hj.export(Call(lambda x, y: x * y).eval(), (X, Y))
    assert torch.equal(free(X, X), X * X)


def in_place(x: Tensor, y: Tensor) -> Tensor:
    x += 1
    return x * y


@pytest.mark.parametrize("told", [False, True])
def test_shared_memory_is_written_to(told: bool) -> None:
    """What is written to one argument is there in another one that lies in the same memory, as in eager mode."""
    base = torch.arange(4.0)
    calls: list[Callable[[], tuple[Tensor, Tensor]]] = [
        lambda: (X.clone(), Y.clone()),
        lambda: (each := X.clone(), each),
        lambda: ((each := base.clone())[1:3], each[:2]),
    ]
    exported = hj.export(Call(in_place).eval(), calls[0](), check_inputs=[call() for call in calls[1:]] if told else ())
    for call in calls:
        assert torch.equal(exported(*call()), in_place(*call()))
    aliased = hj.export(Call(in_place).eval(), calls[1]())
    for call in calls:
        assert torch.equal(aliased(*call()), in_place(*call()))


def sparse_by_rows(x: Tensor) -> Tensor:
    n = x.shape[0]
    rows = torch.arange(n + 1)
    return torch.sparse_csr_tensor(rows, rows[:-1] * 0, torch.ones(n), size=(n, n)) @ x


def sparse_by_places(x: Tensor) -> Tensor:
    n = x.shape[0]
    places = torch.stack([torch.arange(n), torch.arange(n) * 0])
    return torch.sparse_coo_tensor(places, torch.ones(n), (n, n + 0)).to_dense() @ x


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("fn", [sparse_by_rows, sparse_by_places])
def test_sizes_of_sparse_tensors(fn: Callable[[Tensor], Tensor]) -> None:
    """A sparse tensor made in forward has the sizes of the call, not those of the example."""
    exported = hj.export(Call(fn).eval(), torch.rand(3, 2))
    for n in (3, 5, 1):
        x = torch.rand(n, 2)
        torch.testing.assert_close(exported(x), fn(x))


def _written(x: Tensor, write: Callable[[Tensor, Tensor], None]) -> Tensor:
    made = torch.zeros(x.shape[0] + 1, x.shape[1], 3)
    write(made, x)
    return made


ASSIGNED: dict[str, Callable[[Tensor, Tensor], None]] = {
    "a row to rows": lambda made, x: made.__setitem__(slice(1, None), x[0, 0]),
    "a row to the rest": lambda made, x: made.__setitem__((slice(None), slice(x.shape[1] // 2, None)), x[0, 0]),
    "a row to nothing": lambda made, x: made.__setitem__((0, slice(6, None)), x[0, 0]),
    "one of one more dimension": lambda made, x: made.__setitem__((0, ...), x[:1]),
    "every other": lambda made, x: made.__setitem__((..., slice(None, None, 2), slice(None)), torch.arange(3.0)),
    "the same size": lambda made, x: made.__setitem__(slice(None, -1), x),
    "by an index": lambda made, x: made.__setitem__((slice(None, 1), torch.arange(x.shape[1])), x[:1]),
    "by an index, of one more dimension": lambda made, x: made.__setitem__(
        (0, torch.arange(x.shape[1]), 0), x[:1, :, 0]
    ),
    "a number by an index": lambda made, x: made.__setitem__((slice(None), torch.tensor([0])), x.sum()),
    "a number": lambda made, x: made.__setitem__((slice(None), 0), x.sum()),
}


@pytest.mark.parametrize("kind", ASSIGNED)
def test_a_part_that_is_written(kind: str) -> None:
    """What is broadcast to a slice is at every size, where a trace keeps the size that it was broadcast to."""
    model = Call(lambda x: _written(x, ASSIGNED[kind])).eval()
    found = hj.export(model, torch.randn(2, 6, 3))
    for size in ((3, 6, 3), (2, 9, 3), (1, 4, 3), (4, 1, 3)):
        x = torch.randn(size)
        torch.testing.assert_close(found(x), model(x))


SIZED: dict[str, Callable[[Tensor], Tensor]] = {
    "new, of sizes": lambda x: x.new(*x.size()).scatter_(1, x.argsort(1), torch.ones_like(x)),
    "new, of one size": lambda x: x.new(x.size()).copy_(x),
    "new, of a number": lambda x: x.new(x.shape[0], 2).fill_(3),
    "roll": lambda x: x.roll(x.shape[0] // 2, 0),
    "roll, by name": lambda x: torch.roll(x, shifts=-x.shape[1] // 2, dims=1),
}


@pytest.mark.parametrize("kind", SIZED)
def test_sizes_given_where_a_trace_takes_numbers(kind: str) -> None:
    """They stay sizes, and nothing is guarded."""
    model = Call(SIZED[kind]).eval()
    found = hj.export(model, torch.rand(4, 6))
    assert not found.report.findings
    for size in ((4, 6), (7, 6), (4, 9), (3, 5)):
        x = torch.rand(size)
        torch.testing.assert_close(found(x), model(x))


def test_what_a_file_ends_on_without_a_word() -> None:
    """What is frozen where nothing sees it is found at another size than the first one tried, which ends the file."""

    def ranked(x: Tensor) -> Tensor:
        with ThreadPoolExecutor(1) as elsewhere:  # where no trace is recorded
            size = elsewhere.submit(x.size).result()
        return torch.zeros(size).scatter_(1, x.argsort(1), torch.ones_like(x))

    exported = hj.export(Call(ranked).eval(), torch.rand(4, 6))
    assert torch.equal(exported(torch.rand(4, 6)), torch.ones(4, 6))
    with pytest.raises(hj.GuardError):
        exported(torch.rand(3, 5))


class Counted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        zeros = torch.zeros(x.shape[0], dtype=int)  # type: ignore[call-overload]
        return zeros + max(len(x), 2)


def test_a_class_of_python_for_a_dtype() -> None:
    """Where code gives torch `int` for a dtype, the other stand-ins do without one of its name."""
    model = Counted().eval()
    exported = hj.export(model, torch.ones(3))
    for size in (3, 7, 1):
        assert torch.equal(exported(torch.ones(size)), model(torch.ones(size)))


class Experts(nn.Module):
    """Runs those of its layers that some row asks for, each on its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        asked = x[:, :3].argmax(1)
        result = torch.zeros_like(x)
        for place in nn.functional.one_hot(asked, 3).sum(0).nonzero():
            result[asked == place] = self.layers[place](x[asked == place])
        return result


def test_rows_that_a_mask_picks() -> None:
    """One picked row is written as more are, so that inputs which ask for the same layers have one path."""
    model, rows = Experts().eval(), torch.eye(4)
    first, *others = (rows[places] for places in ([0, 0, 2, 2, 0], [1, 2, 2, 0, 1], [2, 1, 0, 0, 2]))
    exported = hj.export(model, first, check_inputs=others, branches="auto")
    for x in (first, *others, rows[[1, 1, 1, 2, 0]]):
        torch.testing.assert_close(exported(x), model(x))


@pytest.mark.parametrize(
    "of",
    [
        lambda n: numpy.power(10000, numpy.arange(n) / n),
        lambda n: 10000 ** (numpy.arange(n) // n) + (numpy.arange(1, n + 1) % n) - (numpy.arange(n) - n),
        lambda n: numpy.arange(n, dtype=numpy.float32) ** n / n,
    ],
)
def test_arrays_beside_a_size(of: Callable[[Any], Any]) -> None:
    """What NumPy makes of an array and a size is what it makes of the number; each size told has its path."""
    model = Call(lambda x: torch.as_tensor(of(x.shape[1])) + x).eval()
    exported = hj.export(model, torch.rand(4, 6), check_inputs=[torch.rand(4, 9)], branches="auto")
    for size in (6, 9):
        x = torch.rand(4, size)
        torch.testing.assert_close(exported(x), model(x), rtol=0.0, atol=0.0)
    with pytest.raises(hj.GuardError, match="captured"):
        exported(torch.rand(4, 5))


@pytest.mark.parametrize(
    "of",
    [
        lambda n: numpy.int64(40) - n % numpy.int64(4),
        lambda n: numpy.int64(40) % n + numpy.int64(-7) // n,
        lambda n: numpy.sqrt(3.0) / n + numpy.float64(1.1) ** n,
    ],
)
def test_numbers_of_numpy_beside_a_size(of: Callable[[Any], Any]) -> None:
    """Those that are what Python's are stay so: the result follows the size."""
    model = Call(lambda x: x.double() * of(x.shape[0])).eval()
    exported = hj.export(model, torch.rand(6, 3), branches="auto")
    for rows in (6, 1, 5, 40):
        x = torch.rand(rows, 3)
        torch.testing.assert_close(exported(x), model(x), rtol=0.0, atol=0.0)


def test_single_precision_of_numpy_beside_a_size() -> None:
    """Those that NumPy computes with otherwise are guarded."""
    model = Call(lambda x: x.double() * float(numpy.float32(0.1) / x.shape[0])).eval()
    exported = hj.export(model, torch.rand(6, 3))
    x = torch.rand(6, 3)
    torch.testing.assert_close(exported(x), model(x), rtol=0.0, atol=0.0)
    with pytest.raises(hj.GuardError, match="captured"):
        exported(torch.rand(5, 3))


@pytest.mark.parametrize("of", [lambda x, n: 2 ** (x.shape[0] - 3), lambda x, n: 10 ** n.item()])
def test_an_exponent_that_may_be_negative(of: Callable[[Tensor, Tensor], Any]) -> None:
    """A whole number to it is a fraction in Python, and nothing in torch."""
    model = Call(lambda x, n: x * of(x, n)).eval()
    exported = hj.export(model, (torch.ones(5), torch.tensor(2)), branches="auto")
    for n in (0, 1, 3):
        x = torch.rand(n + 3), torch.tensor(n)
        torch.testing.assert_close(exported(*x), model(*x))
    with pytest.raises(hj.GuardError, match="captured True, got False"):
        exported(torch.rand(2), torch.tensor(-1))


def of_a_row(x: Tensor) -> Tensor:
    y = torch.zeros(x.shape[0], 3)
    y[:, 1] = x.squeeze().sum(-1)
    return y


def of_all(x: Tensor) -> Tensor:
    y = torch.zeros(x.shape[0], 3, dtype=torch.long)
    y[:, 1], y[0], y[..., 2] = x.sum() * 10, x.max(), x.shape[0]
    return y


@pytest.mark.parametrize("fn", [of_a_row, of_all])
@pytest.mark.parametrize("first", [1, 2])
def test_a_single_value_that_is_written(fn: Callable[[Tensor], Tensor], first: int) -> None:
    """What is one value for the example may be several at other sizes; torch records that one is filled in."""
    model = Call(fn).eval()
    exported = hj.export(model, torch.rand(first, 1, 4))
    for rows in (1, 2, 3):
        x = torch.rand(rows, 1, 4)
        torch.testing.assert_close(exported(x), model(x))
