"""The file: whole or refused, never a crash."""

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import hybridjit as hj
from hybridjit.export import exported


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


def test_failing_rename(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename that fails leaves the old file and no temporary one."""
    (tmp_path / "a.pt").write_text("old")

    def fail(source: object, target: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(hj.ArchiveError, match="Permission denied"):
        hj.load(saved).save(tmp_path / "a.pt")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_mode_stays(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int) -> None:
    """A file that is replaced hands on its mode, and the new one is never readable by more."""
    target = tmp_path / "a.pt"
    target.write_text("old")
    target.chmod(mode)
    modes: list[int] = []

    def watch(descriptor: int) -> None:
        modes.extend(stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir())

    monkeypatch.setattr(os, "fsync", watch)
    hj.load(saved).save(target)
    assert target.read_bytes() == saved.read_bytes()
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert modes == [mode] * 3  # both files as the bytes go out, one once the folder does


def test_new_file_obeys_the_umask(saved: Path, tmp_path: Path) -> None:
    """A new file has the mode that the umask leaves, and the umask is not touched."""
    before = os.umask(0o077)
    try:
        hj.load(saved).save(tmp_path / "a.pt")
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.pt").stat().st_mode) == 0o600


def test_links_are_followed(saved: Path, tmp_path: Path) -> None:
    """A link stays one and its file is written beside itself; one in a circle is refused."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "v1.pt").write_text("old")
    (tmp_path / "models" / "v1.pt").chmod(0o600)
    (tmp_path / "current.pt").symlink_to(Path("models") / "v1.pt")
    hj.load(saved).save(tmp_path / "current.pt")
    assert (tmp_path / "current.pt").is_symlink()
    assert (tmp_path / "models" / "v1.pt").read_bytes() == saved.read_bytes()
    assert stat.S_IMODE((tmp_path / "models" / "v1.pt").stat().st_mode) == 0o600
    (tmp_path / "new.pt").symlink_to(Path("models") / "v2.pt")
    hj.load(saved).save(tmp_path / "new.pt")
    assert (tmp_path / "models" / "v2.pt").read_bytes() == saved.read_bytes()
    (tmp_path / "circle.pt").symlink_to("circle.pt")
    with pytest.raises(hj.ArchiveError, match=r"circle\.pt could not be written"):
        hj.load(saved).save(tmp_path / "circle.pt")
    assert (tmp_path / "circle.pt").is_symlink()
    assert len(list(tmp_path.rglob("*"))) == 6


def test_special_files_are_refused(saved: Path, tmp_path: Path) -> None:
    """A pipe, as a device, is not replaced by a file."""
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(hj.ArchiveError, match="no plain file"):
        hj.load(saved).save(tmp_path / "pipe.pt")
    assert stat.S_ISFIFO((tmp_path / "pipe.pt").stat().st_mode)


def test_permissions(saved: Path, tmp_path: Path) -> None:
    """The file is readable by whom open() would let read it."""
    hj.load(saved).save(tmp_path / "a.pt")
    (tmp_path / "plain").write_text("")
    modes = {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert len(modes) == 1


KILLS = """
import os, random, signal, sys, time
import hybridjit as hj
target, *sources = sys.argv[1:]
files = [hj.load(path) for path in sources]
timing, seen = random.Random(0), set()
for kill in range(150):
    if kill >= 15 and len(seen) == 2:
        break
    child = os.fork()
    while child == 0:
        for file in files:
            file.save(target)
    time.sleep(0.005 + timing.random() * (1 + kill // 15) / 20)  # a busy machine gets more time
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    with open(target, "rb") as written:
        data = written.read()
    which = [open(path, "rb").read() for path in sources].index(data)
    seen.add(which)
    print(which, len(os.listdir(os.path.dirname(target))) - 1)
"""


def test_killed_while_saving(saved: Path, tmp_path: Path) -> None:
    """Killed at 15 random moments or more, the target is the old file or the new one; the next save clears away."""
    # Large enough that most of the time goes into writing.
    other, target = tmp_path / "other.pt", tmp_path / "folder" / "a.pt"
    hj.export(nn.Linear(512, 1024).eval(), torch.ones(1, 512)).save(other)
    target.parent.mkdir()
    target.write_bytes(saved.read_bytes())
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLS, str(target), str(other), str(saved)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    seen = [line.split() for line in done.stdout.splitlines()]
    assert len(seen) >= 15 and {which for which, _ in seen} == {"0", "1"}, done.stderr[-2000:]
    assert {left for _, left in seen} == {"0", "1"}  # some were in the midst of a write, and nothing piles up
    hj.load(saved).save(target)
    assert list(target.parent.iterdir()) == [target]


def test_what_is_being_written_stays(saved: Path, tmp_path: Path) -> None:
    """A file that another save is writing is let be, and so is what only looks like one; what no one writes goes.

    A pipe of such a name holds no one up.
    """
    left, written, pipe = (tmp_path / f".hybridjit-{digit * 16}" for digit in "abc")
    other = tmp_path / ".hybridjit-notes"
    for path in (left, written, other):
        path.write_text("")
    os.mkfifo(pipe)
    with written.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        hj.load(saved).save(tmp_path / "a.pt")
    assert sorted(path.name for path in tmp_path.glob(".hybridjit*")) == [written.name, other.name]


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


@pytest.mark.parametrize("compiled", ["traced", "scripted"])
def test_plain_torchscript(tmp_path: Path, compiled: str) -> None:
    """A file of torch's own is refused, with what reads it and what to save instead."""
    model = nn.Linear(2, 1).eval()
    plain = torch.jit.trace(model, torch.ones(1, 2)) if compiled == "traced" else torch.jit.script(model)
    torch.jit.save(plain, tmp_path / "plain.pt")  # type: ignore[no-untyped-call]
    with pytest.raises(hj.ArchiveError) as error:
        hj.load(tmp_path / "plain.pt")
    assert str(error.value).splitlines() == [
        "plain.pt was not written by hybridjit",
        f"  at {tmp_path / 'plain.pt'}",
        "  - expected the record extra/hybridjit.json, got none",
        "  write instead: torch.jit.load(path) for a plain TorchScript file,",
        "    or hybridjit.export(model, inputs).save(path) for one that hybridjit.load reads",
        "  see docs/errors.md#archiveerror",
    ]


def test_replaced_while_it_is_read(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata and module are of one file, though another takes its place between the two reads."""
    hj.export(nn.Linear(2, 3).eval(), torch.ones(1, 2)).save(tmp_path / "wide.pt")
    target = tmp_path / "a.pt"
    target.write_bytes(saved.read_bytes())
    open_as, swaps = exported.open_as, [tmp_path / "wide.pt"]

    def swap(*args: Any) -> Any:
        if swaps:
            hj.load(swaps.pop()).save(target)
        return open_as(*args)

    monkeypatch.setattr(exported, "open_as", swap)
    loaded = hj.load(target)
    assert loaded(torch.ones(1, 2)).shape == (1, 3)
    loaded.save(tmp_path / "again.pt")
    assert (tmp_path / "again.pt").read_bytes() == (tmp_path / "wide.pt").read_bytes()


def test_saving_after_the_file_went(saved: Path, tmp_path: Path) -> None:
    """A loaded file saves its bytes though its path was removed or replaced; overwritten in place it refuses."""
    target = tmp_path / "a.pt"
    target.write_bytes(saved.read_bytes())
    loaded = hj.load(target)
    target.unlink()
    target.write_text("another")
    loaded.save(tmp_path / "b.pt")
    assert (tmp_path / "b.pt").read_bytes() == saved.read_bytes()
    loaded = hj.load(tmp_path / "b.pt")
    (tmp_path / "b.pt").write_text("overwritten")
    with pytest.raises(hj.ArchiveError, match="overwritten in place"):
        loaded.save(tmp_path / "c.pt")
    assert not (tmp_path / "c.pt").exists()


def test_many_threads_save(saved: Path, tmp_path: Path) -> None:
    """Threads that save one export at once each write it whole."""
    loaded = hj.load(saved)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(loaded.save, [tmp_path / f"{i % 4}.pt" for i in range(40)]))
    assert {p.read_bytes() for p in tmp_path.iterdir()} == {saved.read_bytes()}
    assert len(list(tmp_path.iterdir())) == 4


def test_a_read_only_disk(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written nothing can be removed either, and that is what is said."""
    loaded = hj.load(saved)

    def fail(*args: object, **kwargs: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", fail)
    monkeypatch.setattr(os, "unlink", fail)
    with pytest.raises(hj.ArchiveError, match="Read-only file system"):
        loaded.save(tmp_path / "a.pt")


LIMITED = """
import resource, signal, sys, hybridjit as hj
loaded = hj.load(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    loaded.save(sys.argv[2])
except hj.ArchiveError as error:
    print(str(error).splitlines()[0])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits on the size of files are POSIX's")
def test_a_limit_on_the_size_of_files(saved: Path, tmp_path: Path) -> None:
    """A file that may not grow to its size leaves the old one, and nothing beside it."""
    (tmp_path / "a.pt").write_text("old")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIMITED, str(saved), str(tmp_path / "a.pt")],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout == "a.pt could not be written: File too large\n", done.stderr[-2000:]
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_no_room_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything is captured: torch ends the process when its disk fills up."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100_000))
    hj.export(nn.Linear(2, 1).eval(), torch.ones(3, 2), devices=["cpu"])
    with pytest.raises(hj.ArchiveError, match=r"room for 100,000 bytes in .*, and the file takes more than 865,536"):
        hj.export(nn.Linear(199, 1000).eval(), torch.ones(3, 199), devices=["cpu"])
    assert list(tmp_path.iterdir()) == []


def test_no_folder_for_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said what is missing."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(hj.ArchiveError, match="No such file or directory"):
        hj.export(nn.Linear(2, 1).eval(), torch.ones(3, 2), devices=["cpu"])
