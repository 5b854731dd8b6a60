"""Bad inputs to every public function: the error, its whole message, nothing changed, nothing written.

The tables are the text files beside this one: a line with a call, then its error, indented. Read them aloud.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import _torch

HERE = Path(__file__).parent
ENTRY = re.compile(r"^(\S.*)\n((?:    .*\n)+)", re.MULTILINE)
TABLE = {
    f"{path.stem}: {call}": (call, "\n".join(line[4:] for line in error.splitlines()))
    for path in sorted(HERE.glob("*.txt"))
    for call, error in ENTRY.findall(path.read_text())
}


class Flagged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, x: Tensor, mode: str = "a", double: bool = False) -> Tensor:
        result: Tensor = self.linear(x) * (2 if double else 1)
        return result

    def other(self, x: Tensor) -> Tensor:
        return x + 1


class NoForward(nn.Module):
    pass


class Call(nn.Module):
    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, x: Tensor) -> Any:
        return self.fn(x)


def trace(fn: Callable[..., Any], x: Tensor) -> hj.Exported:
    """Exports a function."""
    return hj.export(Call(fn).eval(), x)


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the calls in the tables may use, and files of all kinds in a folder."""
    folder = tmp_path_factory.mktemp("files")
    x, linear, flagged = torch.tensor([3.0, 1.0]), nn.Linear(2, 1).eval(), Flagged().eval()
    exported = hj.export(linear, x)
    switched = hj.export(flagged, x, flags={"double": (True, False)}, methods={"other": x})
    exported.save(folder / "ok.pt")
    (folder / "junk.pt").write_text("junk")
    with _torch.quiet():
        torch.jit.save(torch.jit.script(linear), folder / "plain.pt")  # type: ignore[no-untyped-call]
    torch.save({}, folder / "dict.pt")
    given = {"X": x, "M": linear, "F": flagged, "E": exported, "FE": switched, "NoFwd": NoForward, "folder": folder}
    return {**given, "hj": hj, "nn": nn, "torch": torch, "trace": trace}


@pytest.fixture(autouse=True)
def _in_the_folder(names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(names["folder"])
    yield
    assert sorted(path.name for path in names["folder"].iterdir()) == ["dict.pt", "junk.pt", "ok.pt", "plain.pt"]


def told(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"
    return text.replace("RuntimeError: addmm: mat1", "RuntimeError: mat1")  # as torch says it from 2.15 on


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TABLE)
def test_bad_input(name: str, names: dict[str, Any]) -> None:
    """The call raises its error with its message, all of it, and leaves the models and the folder as they were."""
    call, expected = TABLE[name]
    before = {key: tensor.clone() for key, tensor in names["F"].state_dict().items()}
    modes = torch.get_rng_state(), names["M"].training, torch.is_grad_enabled(), _torch.tracing_state()
    with pytest.raises(hj.HybridJitError) as caught:
        eval(call, dict(names))
    assert told(caught.value) == expected
    assert all(torch.equal(tensor, before[key]) for key, tensor in names["F"].state_dict().items())
    after = torch.get_rng_state(), names["M"].training, torch.is_grad_enabled(), _torch.tracing_state()
    assert modes[1:] == after[1:] and ("nn." in call or torch.equal(modes[0], after[0]))  # a new module draws numbers


@pytest.mark.parametrize("name", TABLE)
def test_messages_are_whole(name: str) -> None:
    """Each message says what was wrong, what to write instead and where to read on; none is torch's assertion."""
    _, message = TABLE[name]
    assert re.match(r"(Input|Capture|Archive|Unsupported|Verification|Guard)Error: \S", message)
    assert "  write instead: " in message and "  see docs/errors.md#" in message
    assert "INTERNAL ASSERT" not in message and "0x" not in message


def test_there_are_enough() -> None:
    """Every public function has its cases."""
    assert len(TABLE) >= 120
    calls = " ".join(call for call, _ in TABLE.values())
    functions = "export load verify TracingAdapter MultiTrace Inputs cond switch while_loop fori_loop scan map static "
    for function in (functions + "device_dependent script_if_tracing branch_if_tracing Report.from_json").split():
        assert f"hj.{function}(" in calls, function
