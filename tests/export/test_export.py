"""The options of `export`."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"format": "tflite"}, hj.InputError),
        ({"format": "pt2", "on_frozen": "ignore"}, hj.UnsupportedError),
        ({"rtol": 1e-3}, hj.InputError),
        ({"check_inputs": torch.ones(1, 2)}, hj.InputError),
        ({"rtol": "a", "atol": "b"}, hj.InputError),
        ({"rtol": -1.0, "atol": 0.0}, hj.InputError),
        ({"check_inputs": 5}, hj.InputError),
        ({"check_inputs": None}, hj.InputError),
        ({"kwargs": 5}, hj.InputError),
        ({"kwargs": {1: 2}}, hj.InputError),
        ({"devices": ["nonsense"]}, hj.InputError),
        ({"devices": 5}, hj.InputError),
    ],
)
def test_wrong_options(options: dict[str, Any], error: type[Exception]) -> None:
    """An option that is not what it should be is refused, with a page to read."""
    with pytest.raises(error, match=r"docs/errors.md#"):
        hj.export(nn.Linear(2, 1).eval(), torch.ones(1, 2), **options)


def test_other_sizes_are_checked() -> None:
    """Every check input is a check."""
    checks = [torch.ones(5, 2), torch.ones(0, 2)]
    report = hj.export(nn.Linear(2, 1).eval(), torch.ones(1, 2), check_inputs=checks).report
    assert [check.input for check in report.checks] == ["input", "check_inputs[0]", "check_inputs[1]"]
    assert report.ok


@pytest.mark.parametrize("checks", [5, None])
def test_check_inputs_that_are_no_list(checks: Any) -> None:
    """The message for check inputs that are no list is whole."""
    with pytest.raises(hj.InputError) as error:
        hj.export(nn.Linear(2, 1).eval(), torch.ones(1, 2), check_inputs=checks)
    assert str(error.value).splitlines() == [
        "check_inputs takes a list of calls",
        f"  - expected a list, got {'None' if checks is None else 'int'}",
        "  write instead: check_inputs=[(image,), (other_image,)]",
        "  see docs/errors.md#inputerror",
    ]


class Drop(nn.Module):
    """Draws random numbers, so that two exports at once would disturb each other's."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2, size)

    def forward(self, x: Tensor) -> Tensor:
        out = self.linear(x)
        for _ in range(20):
            out = out + torch.rand_like(out)
        return out


def test_threads() -> None:
    """Exports in several threads, of models that draw random numbers, do not disturb each other."""
    shared = Drop(3).eval()
    models = [shared if i % 2 else Drop(i + 1).eval() for i in range(12)]
    with ThreadPoolExecutor(6) as pool:
        exports = list(pool.map(lambda m: hj.export(m, torch.ones(3, 2), check_inputs=[torch.ones(1, 2)]), models))
    assert all(exported.report.ok for exported in exports)
    assert [exported(torch.ones(1, 2)).shape[1] for exported in exports] == [m.linear.out_features for m in models]


def test_autocast() -> None:
    """Under autocast the casts are part of the file, which gives the same without it."""
    model, x = nn.Linear(2, 2).eval(), torch.ones(3, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        exported = hj.export(model, x)
        expected = model(x)
        assert torch.is_autocast_cache_enabled()
    assert expected.dtype == torch.bfloat16
    assert torch.equal(exported(x), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    """A model of another precision exports, and its file takes and gives that precision."""
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)).to(dtype).eval()
    exported = hj.export(model, torch.ones(1, 2, dtype=dtype), check_inputs=[torch.rand(5, 2).to(dtype)])
    assert exported(torch.ones(7, 2, dtype=dtype)).dtype == dtype


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(4, 3)
        self.out = nn.Linear(3, 4, bias=False)
        self.out.weight = self.embed.weight
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)

    def forward(self, index: Tensor) -> Any:
        return self.out(self.embed(index)) * self.scale


def test_tied_parameters_and_loose_buffers(tmp_path: Path) -> None:
    """A parameter by two names is in the file once; a buffer that no state dict has is in it."""
    model = Tied().eval()
    index = torch.tensor([1, 2])
    hj.export(model, index).save(tmp_path / "a.pt")
    loaded = hj.load(tmp_path / "a.pt")
    assert len(list(loaded.module.parameters())) == 1
    assert torch.equal(loaded(index.flip(0)), model(index.flip(0)))


class Called(nn.Module):
    def forward(self, *args: Tensor, by: Tensor, plus: float = 1.0, **others: Tensor) -> Any:
        return sum(args) * by + plus + sum(others.values())


def test_open_signatures() -> None:
    """Positional, keyword-only and further keyword arguments go through, and a default stays one."""
    x = torch.tensor([1.0, 2.0])
    exported = hj.export(Called().eval(), hj.Inputs(x, x, by=x, k=x), check_inputs=[hj.Inputs(x, x * 2, by=x, k=x)])
    assert torch.equal(exported(x, x, by=x * 2, k=x), (x + x) * x * 2 + 1 + x)
    with pytest.raises(hj.InputError, match="args: expected tuple of 2, got tuple of 1"):
        exported(x, by=x, k=x)
    keyword = hj.export(Called().eval(), (), {"by": x})
    assert torch.equal(keyword(by=x), torch.ones(2))
