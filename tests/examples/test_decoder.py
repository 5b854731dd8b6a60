"""The decoder's file gives, step by step, what the model gives."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hybridjit as hj
from examples.decoder.__main__ import greedy
from examples.decoder.export import export_decoder
from examples.decoder.model import build

STEPS = 64
PROMPT = torch.tensor([3, 1, 4, 1, 5])


@pytest.fixture(scope="module")
def decoder_pt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("decoder") / "decoder.pt"
    export_decoder().save(path)
    return path


def test_as_long_as_eager(decoder_pt: Path) -> None:
    """Over 64 steps the loaded file says the same words from the same logits, and starts anew after that."""
    model, loaded = build(), hj.load(decoder_pt)
    for prompt in (PROMPT, PROMPT[:2], PROMPT):
        said, logits = greedy(model, prompt, STEPS)
        again, others = greedy(loaded, prompt, STEPS)
        assert again == said
        torch.testing.assert_close(others, logits)


def test_as_pt2() -> None:
    """With a cache of fixed size it is two programs of one state, which say what the growing one says."""
    exported = export_decoder(format="pt2")
    assert [entry.method for entry in exported.report.entries] == ["forward", "prefill", "decode"]
    for prompt in (PROMPT, PROMPT[:2]):
        said, logits = greedy(build(), prompt, STEPS)
        again, others = greedy(exported, prompt, STEPS)
        assert again == said
        torch.testing.assert_close(others, logits)


def test_a_growing_cache_is_refused() -> None:
    """A cache that grows can't be in a program, which the error says with its names and what to write."""
    with pytest.raises(hj.UnsupportedError, match=r"attend\.0\.keys.*\n.*index_copy_"):
        export_decoder(build(), format="pt2")


def test_in_a_row_is_verified() -> None:
    """The export compares the methods in turn, on one cache, and leaves the model's empty."""
    model = build()
    report = export_decoder(model).report
    row = [check for check in report.checks if check.input.endswith("in a row")]
    assert report.ok and {check.entry for check in row} == {"forward", "prefill", "decode"}
    assert model.count == 0 and all(buffer.numel() == 0 for buffer in model.attend.buffers())
    assert not [finding for finding in report.findings if finding.severity == "warning"]


PROGRAM = """
import sys, torch
module, said, logits = torch.jit.load(sys.argv[1]), [], []
with torch.no_grad():
    logits.append(module.prefill(torch.tensor([3, 1, 4, 1, 5])))
    for _ in range(63):
        logits.append(module.decode(logits[-1].argmax().reshape(1)))
assert "hybridjit" not in sys.modules
torch.save(logits, sys.argv[2])
"""


def test_in_a_fresh_process(decoder_pt: Path, tmp_path: Path) -> None:
    """A process with neither the model nor hybridjit gives the same 64 steps."""
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(decoder_pt), str(tmp_path / "logits.pt")]
    subprocess.run(command, check=True, cwd=tmp_path)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), greedy(build(), PROMPT, STEPS)[1])
