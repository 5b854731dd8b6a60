"""The file: whole or refused, never a crash."""

import json
import os
import random
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import hybridjit as hj


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "linear.pt"
    torch.manual_seed(0)
    hj.export(nn.Linear(2, 1).eval(), torch.ones(3, 2)).save(path)
    return path


FUZZ = """
import sys, random, torch, hybridjit as hj
from pathlib import Path
source, folder = Path(sys.argv[1]), Path(sys.argv[2])
data = source.read_bytes()
expected = hj.load(source)(torch.ones(3, 2))
random.seed(0)
cases = [data[:i * len(data) // 30] for i in range(30)]
for at in random.sample(range(len(data)), 200):
    cases.append(data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1:])
for index, case in enumerate(cases):
    path = folder / "case.pt"
    path.write_bytes(case)
    try:
        result = hj.load(path)(torch.ones(3, 2))
    except hj.ArchiveError:
        continue
    assert torch.equal(result, expected), index
print("done", len(cases))
"""


def test_damaged_files(saved: Path, tmp_path: Path) -> None:
    """Truncated at 30 lengths and with 200 bits flipped: an ArchiveError or the right result."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FUZZ, str(saved), str(tmp_path)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout == "done 230\n", done.stderr[-2000:]


@pytest.mark.parametrize("name", ["a.pt2", "a.onnx", "a.PT2", "missing/a.pt"])
def test_save_refuses(saved: Path, tmp_path: Path, name: str) -> None:
    """A suffix of another format and a missing folder are refused, and nothing is left."""
    with pytest.raises(hj.ArchiveError):
        hj.load(saved).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_save_onto_a_folder(saved: Path, tmp_path: Path) -> None:
    """A target that is a folder is refused, and no temporary file is left."""
    (tmp_path / "a.pt").mkdir()
    with pytest.raises(hj.ArchiveError):
        hj.load(saved).save(tmp_path / "a.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_failing_fsync(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk leaves the old file and nothing else."""
    (tmp_path / "a.pt").write_text("old")

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(hj.ArchiveError, match="No space left"):
        hj.load(saved).save(tmp_path / "a.pt")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_permissions(saved: Path, tmp_path: Path) -> None:
    """The file is readable by whom open() would let read it."""
    hj.load(saved).save(tmp_path / "a.pt")
    (tmp_path / "plain").write_text("")
    modes = {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert len(modes) == 1


def test_killed_while_saving(saved: Path, tmp_path: Path) -> None:
    """Killed at any moment, the target is the old file or the new one, whole."""
    script = (
        "import sys; from pathlib import Path; from hybridjit.export.archive import write_atomically\n"
        "print('go', flush=True)\nwhile True: write_atomically(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    target, whole = tmp_path / "a.pt", saved.read_bytes()
    target.write_bytes(whole)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    timing = random.Random(0)
    for _ in range(5):
        command = [sys.executable, "-W", "ignore", "-c", script, str(saved), str(target)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            process.stdout.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=timing.random() / 20)
            process.kill()
        assert target.read_bytes() == whole


def rewrite(saved: Path, target: Path, metadata: str) -> None:
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, metadata if name.endswith("hybridjit.json") else old.read(name))


DAMAGED = ["{", "[]", "3", "{}", json.dumps({"version": 99}), json.dumps({"version": 1})]


@pytest.mark.parametrize("metadata", DAMAGED)
def test_damaged_metadata(saved: Path, tmp_path: Path, metadata: str) -> None:
    """Metadata that is no JSON, no object, of another version or incomplete is refused."""
    rewrite(saved, tmp_path / "a.pt", metadata)
    with pytest.raises(hj.ArchiveError):
        hj.load(tmp_path / "a.pt")


def test_other_files(tmp_path: Path) -> None:
    """A missing file, a text file and a zip of something else are refused."""
    (tmp_path / "text.pt").write_text("text")
    with zipfile.ZipFile(tmp_path / "zip.pt", "w") as archive:
        archive.writestr("a", "b")
    for name in ("none.pt", "text.pt", "zip.pt"):
        with pytest.raises(hj.ArchiveError):
            hj.load(tmp_path / name)
