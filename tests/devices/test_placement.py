"""What is traced on one device runs on another: every way to come by a device, and what can't follow."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj

TABLE = torch.tensor([5.0, 6.0, 7.0])
MEANT = torch.device("cpu")


class Fn(nn.Module):
    """A function as a module."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, *args: Any) -> Any:
        return self.fn(*args)


def loaded_on(device: str, model: nn.Module, inputs: Any, folder: Path) -> tuple[hj.Exported, hj.Exported]:
    """The export of a model that was traced on the CPU, and its file loaded on a device."""
    exported = hj.export(model.eval(), inputs, devices=["cpu"])
    exported.save(folder / "model.pt")
    return exported, hj.load(folder / "model.pt", device)


def flat(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    else:
        for item in value:
            yield from flat(item)


def codes(exported: hj.Exported) -> list[str]:
    return [finding.code for finding in exported.report.findings if finding.code.startswith("HJ2")]


@hj.script_if_tracing
def piece(x: Tensor) -> Tensor:
    if x.shape[0] > 2:
        return x + torch.zeros(x.shape[0], device=x.device)
    return x + torch.arange(x.shape[0], device=x.device)


@hj.script_if_tracing
def piece_with_device(x: Tensor, device: torch.device) -> Tensor:
    if x.shape[0] > 2:
        return x + torch.zeros(x.shape[0], device=device)
    return x + torch.ones(x.shape[0], device=device)


def within(x: Tensor) -> Tensor:
    with x.device:
        return x + torch.zeros(3)


def loop(x: Tensor) -> Any:
    return hj.fori_loop(0, 3, lambda i, c: c + torch.ones(3, device=c.device) * i, x)


def branch(x: Tensor) -> Any:
    device = x.device
    return hj.cond(x.sum() > 100, lambda: x, lambda: (x + 1) * torch.ones(3, device=device))


def on_the_cpu(x: Tensor) -> Any:
    there = x.cpu() * 2
    scale = torch.full((3,), 2.0, device=there.device)
    both = there + scale + torch.arange(3, device="cpu")
    return both, (there * scale).to(x.device) + x, x.to("cpu"), x.to(device=torch.device("cpu"))


def packed(x: Tensor, lengths: Tensor) -> Any:
    together = nn.utils.rnn.pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False)
    return nn.utils.rnn.pad_packed_sequence(together)[0] * 2


class Deep(nn.Module):
    """Submodules that make tensors: from a parameter alone, from a number, from a state of their own."""

    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self) -> Tensor:
            return self.weight * torch.zeros(3, device=self.weight.device)

    class Positions(nn.Module):
        def forward(self, size: int, like: Tensor) -> Tensor:
            return torch.arange(size, device=like.device)

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.positions = self.Scale(), self.Positions()
        self.lstm, self.gru = nn.LSTM(3, 3, bidirectional=True), nn.GRU(3, 3)

    def forward(self, x: Tensor) -> Any:
        rows = x[None, None] + self.scale() + self.positions(3, x)
        return self.lstm(rows), self.gru(rows)


X = torch.tensor([1.0, 0.0, 2.0])
FAITHFUL: dict[str, tuple[Callable[..., Any], Any]] = {
    "zeros": (lambda x: torch.zeros(3, device=x.device), X),
    "device of device": (lambda x: torch.ones(3, device=torch.device(x.device)), X),
    "with device": (within, X),
    "arange": (lambda x: torch.arange(x.shape[0], device=x.device), X),
    "to device": (lambda x: TABLE.to(x.device), X),
    "to other": (lambda x: TABLE.to(x), X),
    "to device and dtype": (lambda x: TABLE.to(x.device, torch.float64), X),
    "tensor literal": (lambda x: torch.tensor([1.0, 2], device=x.device), X),
    "as_tensor": (lambda x: torch.as_tensor([1.0, 2], device=x.device), X),
    "new_tensor": (lambda x: x.new_tensor([1.0, 2]), X),
    "new_zeros": (lambda x: (x.new_zeros(2), x.new_full((2,), 3.0)), X),
    "like": (lambda x: (torch.zeros_like(x), torch.full_like(x, 2.0)), X),
    "scalar": (lambda x: x * torch.tensor(2.0) + 1, X),
    "embedding_bag": (lambda x: nn.functional.embedding_bag(x.long()[None], x[:, None]), X),
    "clamped to a size": (lambda x: (x.clamp(max=x.shape[0] - 1), torch.stack([x[0], x.shape[0] * x[1]])), X),
    "scripted": (piece, X),
    "scripted with a device": (lambda x: piece_with_device(x, x.device), X),
    "branch": (branch, X),
    "loop": (loop, X),
    "on the CPU": (on_the_cpu, X),
    "packed": (packed, (torch.rand(4, 2, 3), torch.tensor([4, 2]))),
    "pinned": (lambda x: x.cpu().pin_memory().to(x.device) + x, X),
    "default of nothing": (lambda x: (torch.zeros(3), x), X),
    "dependent": (lambda x: hj.device_dependent(x, cpu=lambda x: x * 2, default=lambda x: x + 100), X),
}


@pytest.mark.parametrize("name", FAITHFUL)
def test_as_in_eager_mode(name: str, device: str, tmp_path: Path) -> None:
    """What eager mode gives on another device, the file gives there too, device by device."""
    fn, inputs = FAITHFUL[name]
    exported = hj.export(Fn(fn).eval(), inputs, devices=["cpu", device])
    assert exported.report.ok
    _, there = loaded_on(device, Fn(fn), inputs, tmp_path)
    moved = [each.to(device) for each in (inputs if isinstance(inputs, tuple) else (inputs,))]
    for expected, got in zip(flat(fn(*moved)), flat(there(*moved)), strict=True):
        assert got.device == expected.device
        torch.testing.assert_close(got, expected)


def test_submodules(device: str) -> None:
    """Submodules without a tensor argument, recurrent states, and several methods deep, all move."""
    assert hj.export(Deep().eval(), X, devices=["cpu", device]).report.ok


def put(x: Tensor) -> Tensor:
    out = torch.zeros(2, 3)
    out[0] = x
    return out + x


def branch_without(x: Tensor) -> Any:
    return hj.cond(x.sum() > 0, lambda: x + torch.arange(3), lambda: x)


@hj.script_if_tracing
def piece_without(x: Tensor) -> Tensor:
    if x.shape[0] > 2:
        return x + torch.zeros(3)
    return x


class Lists(nn.Module):
    """Anchors as a list, and a mask as a plain attribute: neither moves with a module."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors = [torch.ones(3), torch.arange(3.0)]
        self.mask = torch.tensor([True, False, True])
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x * anchor for anchor in self.anchors]) + (self.weight * self.mask).repeat(2)


MEETING: dict[str, Callable[..., Any]] = {
    "zeros": lambda x: x + torch.zeros(3),
    "arithmetic before": lambda x: x + (torch.arange(3) * 2 + 1),
    "literal": lambda x: x + torch.tensor([1.0, 2, 3]),
    "global": lambda x: x + TABLE,
    "indexed": lambda x: TABLE[x.long()],
    "cat": lambda x: torch.cat([torch.zeros(2), x]),
    "stack of scalars": lambda x: torch.stack([x[0], torch.tensor(1.0)]),
    "in place": lambda x: torch.zeros(3).add_(x),
    "item by item": put,
    "in a branch": branch_without,
    "scripted": piece_without,
    "meant, and used": lambda x: x + torch.full((3,), 2.0, device="cpu"),
    "numpy": lambda x: x + torch.from_numpy(TABLE.numpy()),
    "lists": Lists(),
}


@pytest.mark.parametrize("name", MEETING)
def test_what_eager_mode_refuses(name: str, device: str, tmp_path: Path) -> None:
    """A tensor that the model leaves on the CPU goes along where it meets the inputs', and a note says so."""
    fn = MEETING[name]
    model = fn if isinstance(fn, nn.Module) else Fn(fn)
    exported, there = loaded_on(device, model, X, tmp_path)
    [got] = flat(there(X.to(device)))
    assert got.device.type == device
    torch.testing.assert_close(got.cpu(), model(X))
    assert "HJ204" in codes(exported)
    found = next(finding for finding in exported.report.findings if finding.code == "HJ204")
    assert (found.severity, found.file) == ("note", __file__)


def test_a_plain_trace_fails(device: str, tmp_path: Path) -> None:
    """Without the following, a trace made on the CPU mixes devices on another one: the test device is strict."""
    plain = torch.jit.trace(Fn(lambda x: x + torch.zeros(3, device=x.device)), X)
    plain.save(str(tmp_path / "plain.pt"))
    moved = torch.jit.load(tmp_path / "plain.pt", map_location=device)
    with pytest.raises(RuntimeError, match="same device"):
        moved(X.to(device))


@pytest.mark.parametrize("name", ["scalar", "to other", "branch", "loop", "new_tensor"])
def test_from_there_to_the_cpu(name: str, device: str, tmp_path: Path) -> None:
    """A model traced on another device runs on the CPU, and verifies on both."""
    fn, _ = FAITHFUL[name]
    exported = hj.export(Fn(fn).eval(), X.to(device), devices=["cpu", device])
    exported.save(tmp_path / "model.pt")
    for expected, got in zip(flat(fn(X)), flat(hj.load(tmp_path / "model.pt", "cpu")(X)), strict=True):
        assert got.device.type == "cpu"
        torch.testing.assert_close(got, expected)


def test_a_named_device_follows(device: str, tmp_path: Path) -> None:
    """A device that the model names itself, when it is the one of the trace, follows the inputs."""
    exported = hj.export(Fn(lambda x: x + torch.zeros(3, device=device)).eval(), X.to(device), devices=[device])
    exported.save(tmp_path / "model.pt")
    assert torch.equal(hj.load(tmp_path / "model.pt", "cpu")(X), X)


def asks_cuda(x: Tensor) -> Tensor:
    return x * 2 if x.is_cuda else x


def asks_type(x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return x + 1


def asks_stored(x: Tensor) -> Any:
    return torch.zeros(3, device=MEANT), x


def writes_in_place(x: Tensor) -> Tensor:
    return torch.zeros(3, device="cpu").add_(x)


def own_device(x: Tensor) -> Any:
    return torch.zeros(3, device="meta"), x


FINDINGS: dict[str, tuple[Callable[..., Any], str, str, str, str]] = {
    "HJ201": (
        asks_cuda,
        "warning",
        "x.is_cuda: the answer on this device is kept, and the file refuses to run where it is another",
        "hybridjit.device_dependent(x, cpu=..., default=...)",
        "",
    ),
    "HJ202": (
        asks_type,
        "note",
        "x.device.type: if Python code goes by it, what it does on this device is kept",
        "hybridjit.device_dependent(x, cpu=..., default=...) for what differs; device=x.device to make tensors",
        "",
    ),
    "HJ203": (
        asks_stored,
        "warning",
        'torch.device("cpu") from outside of the call: what is made there stays on the CPU on every device',
        'device=x.device, or device="cpu" where it is meant',
        "",
    ),
    "HJ205": (
        writes_in_place,
        "warning",
        "a tensor on the CPU, as the model says, meets those of the inputs and can't go along: on another "
        "device the file raises here, as eager mode does",
        "a new tensor instead of a write in place, or both on x.device",
        "",
    ),
    "HJ206": (
        own_device,
        "warning",
        "a device of its own, or of a module that neither gets nor holds a tensor: it stays as it is",
        "device=x.device, and one device for a model",
        "",
    ),
}


@pytest.mark.parametrize("code", FINDINGS)
def test_findings(code: str) -> None:
    """What can't follow, or may not be meant, is a finding with its line, its words and what to write instead."""
    fn, severity, message, fix, _ = FINDINGS[code]
    report = hj.export(Fn(fn).eval(), X, devices=["cpu"]).report
    [found] = [finding for finding in report.findings if finding.code.startswith("HJ2")]
    assert (found.code, found.severity, found.message, found.fix) == (code, severity, message, fix)
    assert (found.file, found.line) == (__file__, fn.__code__.co_firstlineno + 1)


def by_variable(x: Tensor) -> Tensor:
    kind = x.device.type
    return x if kind in ("cpu", "mps") else x + 1


@pytest.mark.parametrize(
    ("fn", "says"),
    [
        (lambda x: x if x.device.type == "cpu" else x + 1, "x.device.type in 'cpu' captured True, got False"),
        (lambda x: x if x.device.type != "cuda" else x + 1, ""),
        (by_variable, "x.device.type in 'cpu', 'mps' captured True, got False"),
    ],
)
def test_a_type_that_is_compared_is_guarded(
    fn: Callable[[Tensor], Tensor], says: str, device: str, tmp_path: Path
) -> None:
    """What `x.device.type` is compared with decides where the file runs: only where the answer is the same."""
    if device == "cuda":
        pytest.skip("the answers are those of another device")
    _, there = loaded_on(device, Fn(fn), X, tmp_path)
    if not says:
        assert torch.equal(there(X.to(device)).cpu(), X)
        return
    with pytest.raises(hj.GuardError, match=says):
        there(X.to(device))


def test_device_questions_follow_on_frozen(device: str, tmp_path: Path) -> None:
    """Told to ignore what is frozen, the file has no check; told to refuse, there is none."""
    model = Fn(lambda x: x if x.is_cpu else x + 1).eval()
    ignored = hj.export(model, X, devices=["cpu"], on_frozen="ignore")
    ignored.save(tmp_path / "ignored.pt")
    assert torch.equal(hj.load(tmp_path / "ignored.pt", device)(X.to(device)).cpu(), X)
    with pytest.raises(hj.CaptureError, match=r"test_placement.py:\d+: x.is_cpu: the answer on this device is kept"):
        hj.export(model, X, devices=["cpu"], on_frozen="error")


def test_a_question_is_guarded(device: str, tmp_path: Path) -> None:
    """A Python answer about the device is checked when the file runs: elsewhere it raises instead of being wrong."""
    _, there = loaded_on(device, Fn(lambda x: x if x.is_cpu else x + 1), X, tmp_path)
    with pytest.raises(hj.GuardError) as error:
        there(X.to(device))
    first = str(error.value).splitlines()[0]
    assert first.startswith("value frozen at ") and first.endswith(
        ": x.is_cpu captured True, got False; write hybridjit.device_dependent(x, cpu=..., default=...)"
    )


def test_dependent_functions_run_on_their_device(device: str, tmp_path: Path) -> None:
    """The file takes the function of the device that it finds, in a branch too, whichever it was traced on."""

    def fn(x: Tensor) -> Any:
        y: Tensor = hj.device_dependent(x, cpu=lambda x: x * 2, default=lambda x: x + torch.ones(3, device=x.device))
        return hj.cond(y.sum() > 0, lambda: hj.device_dependent(y, cpu=lambda y: y, default=lambda y: -y), lambda: y)

    _, there = loaded_on(device, Fn(fn), X, tmp_path)
    assert there(X.to(device)).tolist() == [-2, -1, -3]
    assert hj.load(tmp_path / "model.pt")(X).tolist() == [2, 0, 4]


def test_default_devices(device: str) -> None:
    """By default the file is compared on the model's device and on the accelerator; `verify` takes either, and meta."""
    model = nn.Linear(3, 2).eval()
    exported = hj.export(model, X[None])
    assert {check.device for check in exported.report.checks} == {"cpu", f"{device}:0"}
    report = hj.verify(exported, model, [X[None]], devices=[device, "cpu", "meta"])
    assert report.ok
    assert [check.device for check in report.checks] == [f"{device}:0", "cpu", "meta"]
