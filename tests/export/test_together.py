"""Several inputs as one trace, whose paths part where their values do."""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.export.together import distinct
from tests.control.checks import kinds


class Call(nn.Module):
    def __init__(self, fn: Callable[..., object]) -> None:
        super().__init__()
        self.fn = fn
        self.big, self.small = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, *args: Tensor) -> object:
        return self.fn(self, *args)


def told(fn: Callable[..., object], first: object, *others: object, **options: object) -> tuple[hj.Exported, nn.Module]:
    model = Call(fn).eval()
    return hj.export(model, first, check_inputs=others, **options), model  # type: ignore[arg-type]


UP, DOWN, ZERO = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([-1.0, -2.0, -4.0]), torch.zeros(3)


def test_two_paths() -> None:
    """A value that two inputs have otherwise becomes a branch; each side holds what its input does."""
    exported, model = told(lambda self, x: self.big(x) if x.sum() > 0 else self.small(x) * 2, UP, DOWN)
    for x in (UP, DOWN, UP * 7, DOWN / 3):
        torch.testing.assert_close(exported(x), model(x))
    assert kinds(exported.module.inlined_graph)["prim::If"] >= 1


def test_paths_of_numbers() -> None:
    """A number with several values is a choice among them; any other one raises, and names them all."""

    def fn(self: nn.Module, x: Tensor) -> Tensor:
        for step in range(int(x[0].item())):
            x = x * 2 + step
        return x

    inputs = [torch.tensor([n, 1.0, 1.0]) for n in (1.0, 4.0, 2.0)]
    exported, model = told(fn, *inputs)
    for x in inputs:
        assert torch.equal(exported(x), model(x))
    with pytest.raises(hj.GuardError, match=r"range\(tensor\), captured 1 or 4 or 2, got 3; write"):
        exported(torch.tensor([3.0, 1.0, 1.0]))


def test_what_comes_before_runs_once() -> None:
    """What all paths do before they part is in the graph once, also where another input repeated it."""

    def fn(self: nn.Module, x: Tensor) -> Tensor:
        x = self.big(x).tanh()  # type: ignore[operator]
        return x.exp() if x.sum() > 0 else x.sin()

    exported, model = told(fn, UP, DOWN)
    found = kinds(exported.module.inlined_graph)
    assert (found["aten::tanh"], found["aten::linear"]) == (1, 1)
    for x in (UP, DOWN):
        torch.testing.assert_close(exported(x), model(x))


def test_nested_paths() -> None:
    """Paths part again within a path: eight ways through three questions, each as its input goes it."""

    def fn(self: nn.Module, x: Tensor) -> Tensor:
        y = x
        for index in range(3):
            y = y * 2 + index if x[index] > 0 else y - 1
        return y

    signs = [torch.tensor([a, b, c]) for a in (1.0, -1.0) for b in (1.0, -1.0) for c in (1.0, -1.0)]
    exported, model = told(fn, *signs)
    for x in signs:
        assert torch.equal(exported(x * 3), model(x * 3))


def test_results_that_differ() -> None:
    """Paths may give other shapes, and a result that is the input itself."""
    exported, _ = told(lambda self, x: x if x.sum() > 0 else x[:1], UP, DOWN)
    assert torch.equal(exported(UP), UP) and exported(DOWN).shape == (1,)


def test_another_size_on_another_path() -> None:
    """An input of another size has a path of its own; what the first one did to its own size is not done to it."""

    def fn(self: nn.Module, x: Tensor) -> Tensor:
        return torch.stack([x[index] * (2, 7, 1, 8, 3)[index] for index in range(x.shape[0])]).cumsum(0)

    exported, model = told(fn, torch.rand(2, 3), torch.rand(5, 3))
    for rows in (2, 5):
        x = torch.rand(rows, 3)
        torch.testing.assert_close(exported(x), model(x))
    with pytest.raises(hj.GuardError, match=r"range\(tensor\), captured "):
        exported(torch.rand(4, 3))


def test_writes_stay_on_their_path() -> None:
    """What a path writes in place, another one does not see: neither in the input's copy nor in a buffer."""

    class Writes(nn.Module):
        seen: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(3))

        def forward(self, x: Tensor) -> Tensor:
            y = x.clone()
            if x.sum() > 0:
                y[0] = 9.0
                return y + self.seen
            self.seen += x
            y[1] = 7.0
            return y + self.seen

    model = Writes().eval()
    exported = hj.export(model, UP, check_inputs=[DOWN])
    for x in (UP, DOWN, UP, DOWN):
        assert torch.equal(exported(x), model(x))
    assert torch.equal(dict(exported.module.named_buffers())["model.seen"], model.seen)


def test_random_numbers_on_each_path() -> None:
    """Each path begins with the same random state, as each call in eager mode does under a seed."""

    def fn(self: nn.Module, x: Tensor) -> Tensor:
        noise = torch.rand_like(x)
        return x + noise if x.sum() > 0 else x - noise * torch.rand_like(x)

    exported, model = told(fn, UP, DOWN)
    for x in (UP, DOWN):
        torch.manual_seed(3)
        expected = model(x)
        torch.manual_seed(3)
        torch.testing.assert_close(exported(x), expected)


def test_three_values_in_plain_torch(tmp_path: Path) -> None:
    """The file raises the same in plain torch where none of the paths fits."""
    exported, _ = told(lambda self, x: x * float(x.max().numpy()), UP, DOWN, ZERO)
    exported.save(tmp_path / "model.pt")
    plain = torch.jit.load(tmp_path / "model.pt")
    for x in (UP, DOWN, ZERO):
        assert torch.equal(plain(x), x * x.max())
    text = r"hybridjit: value frozen at .*test_together.py:\d+: .*, captured 3.0 or -1.0 or 0.0, got 9.; write "
    with pytest.raises(torch.jit.Error, match=text):  # type: ignore[attr-defined]
        plain(UP * 3)


def test_distinct() -> None:
    """Each value once, in order; tensors by their values."""
    assert distinct([3, 1, 3, True]) == (3, 1, True)
    assert len(distinct([UP, UP.clone(), DOWN])) == 2


class Early(nn.Module):
    """Takes a size out of the trace before it knows whether it needs it."""

    def forward(self, x: Tensor) -> Tensor:
        n = operator.index(x.shape[0])
        return x.sum() * 2 if x.sum() > 0 else x.sum() * n


UNUSED, USED = torch.rand(3, 2), -torch.rand(3, 2)


@pytest.mark.parametrize("branches", [None, "auto"])
@pytest.mark.parametrize("others", [(), (USED,), (USED, torch.rand(5, 2)), (USED, -torch.rand(7, 2))])
def test_evidence_of_another_path(others: tuple[Tensor, ...], branches: str | None) -> None:
    """That a value has no part in the path of one input says nothing of another path: that has its own guard."""
    model = Early().eval()
    exported = hj.export(model, UNUSED, check_inputs=others, branches=branches)
    assert torch.equal(exported(UNUSED), model(UNUSED))
    for x in others:
        assert torch.equal(exported(x), model(x))
    with pytest.raises(hj.GuardError, match="value frozen"):
        exported(-torch.rand(6, 2))


def test_by_sizes() -> None:
    """Inputs that no value tells apart are told apart by their sizes at last; another size goes with the first."""

    def fn(self: nn.Module, x: Tensor) -> Tensor:
        return torch.stack([row * 2 for row in x.split(1)]).cumsum(0)

    exported, model = told(fn, torch.rand(2, 3), torch.rand(4, 3), torch.rand(5, 3))
    for rows in (2, 4, 5):
        x = torch.rand(rows, 3)
        torch.testing.assert_close(exported(x), model(x))
    with pytest.raises(hj.GuardError, match="the number of parts, captured 2, got 3"):
        exported(torch.rand(3, 3))


class Fails(nn.Module):
    """Fails on one side, and takes a size out of the trace for its message."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else self.fail(x)

    def fail(self, x: Tensor) -> Tensor:
        raise ValueError(f"{operator.index(x.shape[0])} rows")


def test_what_a_side_says_as_it_raises() -> None:
    """A size that is only in the message of a side that raises has no part in what is computed."""
    exported = hj.export(Fails().eval(), UNUSED, branches="auto")
    assert torch.equal(exported(torch.ones(7, 2)), torch.full((7, 2), 2.0))
    with pytest.raises(hj.GuardError, match="ValueError: 3 rows"):
        exported(USED)


class Halves(nn.Module):
    """Branches, and leaves a tensor behind."""

    scale: Tensor

    def forward(self, x: Tensor) -> Tensor:
        y = x + 1 if x.sum() > 0 else x - 1
        self.scale = y.abs().max()
        return y


class Repeats(nn.Module):
    """Goes by a number that no trace follows, after branches and before a use of what they left."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Halves()

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        return torch.cat([y] * len(hex(x.shape[0]))) / self.inner.scale


def test_branches_before_the_paths_part() -> None:
    """A branch that all inputs come by is recorded once, and each path goes on with what it gave and left."""
    model = Repeats().eval()
    few, many = torch.tensor([1.0, 2.0]), torch.ones(17)
    exported = hj.export(model, few, branches="auto", check_inputs=[many])
    assert [(each.kind, each.count) for each in exported.report.branches] == [("if", 1), ("path", 1)]
    for x in (few, many, -few, -many, torch.tensor([3.0, -9.0])):
        torch.testing.assert_close(exported(x), model(x))


class Pictures(nn.Module):
    """Scales bytes, and nothing else: asks of the dtype leave no trace."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.uint8:
            x = x.float().clamp(max=100)
        return x.mean(-1)


def counted(self: nn.Module, x: Tensor) -> Tensor:
    y = x.float().clamp(max=100) if x.dtype == torch.uint8 else x
    return torch.stack([row * 2 for row in y.split(1)]).cumsum(0).mean(-1)


BYTES = torch.randint(256, (2, 4), dtype=torch.uint8)


@pytest.mark.parametrize(
    "others",
    [[BYTES], [BYTES[None]], [torch.randint(256, (3, 4), dtype=torch.uint8)], [BYTES, torch.rand(5, 4)]],
    ids=["other sizes", "another rank", "the same sizes", "and other sizes"],
)
def test_by_dtypes(others: list[Tensor]) -> None:
    """A path for another dtype is told by the dtype, whatever the sizes: they say nothing about it."""
    model = Pictures().eval()
    exported = hj.export(model, torch.rand(3, 4), check_inputs=others, branches="auto")
    for sizes in ((3, 4), (2, 4), (5, 4), (1, 2, 4)):
        for x in (torch.rand(sizes) * 1000, torch.randint(256, sizes, dtype=torch.uint8), torch.rand(sizes).double()):
            torch.testing.assert_close(exported(x), model(x))


def test_by_dtypes_and_values() -> None:
    """A value that leaves the trace parts inputs of one dtype; it does not tell which dtype a path is for."""
    exported, model = told(counted, torch.rand(3, 4), torch.rand(5, 4), BYTES)
    for x in (torch.rand(3, 4) * 1000, torch.rand(5, 4) * 1000, BYTES):
        torch.testing.assert_close(exported(x), model(x))
    for x in (torch.rand(2, 4) * 1000, torch.randint(256, (3, 4), dtype=torch.uint8)):
        with pytest.raises(hj.GuardError, match="captured"):
            exported(x)


def as_it_was(self: nn.Module, x: Tensor) -> Tensor:
    return x.float().softmax(-1).to(x.dtype)


def plus_if_single(self: nn.Module, x: Tensor) -> Tensor:
    return x + 1 if x.dtype == torch.float32 else x - 1


def halved_if_whole(self: nn.Module, x: Tensor) -> Tensor:
    return x * 2 if x.is_floating_point() else x.float() / 2


@pytest.mark.parametrize("others", [[torch.float64], [torch.float64, torch.float16], [torch.float16, torch.int64]])
@pytest.mark.parametrize("fn", [as_it_was, plus_if_single, halved_if_whole])
def test_told_dtypes(fn: Callable[..., Tensor], others: list[torch.dtype]) -> None:
    """Dtypes that were given are right, each or together with others that do the same; further ones are refused."""
    x = torch.arange(-4, 6).reshape(2, 5)
    if fn is as_it_was:
        others = [each for each in others if each.is_floating_point]  # softmax of numbers is none of them
    exported, model = told(fn, x.float(), *(x.to(each) for each in others))
    for dtype in (torch.float32, *others):
        for given in (x, x[:1], torch.arange(12).reshape(4, 3)):
            result, expected = exported(given.to(dtype)), model(given.to(dtype))
            assert result.dtype == expected.dtype
            torch.testing.assert_close(result, expected)
    for dtype in {torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32} - {*others}:
        try:
            torch.testing.assert_close(exported(x.to(dtype)), model(x.to(dtype)))
        except hj.GuardError as error:
            assert "got another dtype; export the model" in str(error)
    if torch.float64 in others and fn is halved_if_whole:
        with pytest.raises(hj.GuardError, match=r"captured float32 or float64.*, got another dtype"):
            exported(x)


def test_dtypes_of_several_inputs_belong_together() -> None:
    """Of two inputs, what was given of both at once is known to do the same, and not each with each."""
    exported, model = told(
        lambda self, x: x["a"].float() / 2 + x["b"] if not x["a"].is_floating_point() else x["a"] * x["b"],
        {"a": UP, "b": UP},
        {"a": UP.double(), "b": UP.double()},
    )
    for dtype in (torch.float32, torch.float64):
        both = {"a": UP.to(dtype), "b": DOWN.to(dtype)}
        torch.testing.assert_close(exported(both), model(both))
    mixed = {"a": UP.double(), "b": UP}
    with pytest.raises(hj.GuardError, match="another dtype"):
        exported({"a": UP.long(), "b": UP})
    try:
        torch.testing.assert_close(exported(mixed), model(mixed))
    except hj.GuardError as error:
        assert "another dtype" in str(error)
