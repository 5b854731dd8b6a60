"""Records of a file: as torch's reader finds them, and none that are not as they were written."""

import os
import struct
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import hybridjit as hj
from hybridjit.export.records import DamagedError, Records


def records(path: Path) -> Records:
    return Records(os.open(path, os.O_RDONLY), path.stat().st_size)


def archive(path: Path, **contents: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as out:
        for number, (name, data) in enumerate(contents.items()):
            out.writestr(name, data, zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED)
    return path


def patched(path: Path, at: int, data: bytes) -> Path:
    whole = bytearray(path.read_bytes())
    whole[at : at + len(data)] = data
    path.write_bytes(whole)
    return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "linear.pt"
    hj.export(nn.Linear(2, 1).eval(), torch.ones(3, 2), devices=["cpu"]).save(path)
    return path


@pytest.mark.parametrize("threads", [1, 3])
def test_they_are_what_zipfile_reads(saved: Path, threads: int) -> None:
    """Names, sizes and bytes are those that Python's own reader finds, and every checksum holds."""
    found = records(saved)
    found.check(threads)
    with zipfile.ZipFile(saved) as known:
        assert [name.decode() for name in found.by_name] == known.namelist()
        assert all(found.read(each) == known.read(name.decode()) for name, each in found.by_name.items())


def test_sizes_of_64_bits(tmp_path: Path) -> None:
    """A record beyond 4 GB, of a file that takes no room on the disk, is found by its 64-bit fields."""
    path = tmp_path / "wide.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("first", b"1")
        assert out.fp is not None
        out.fp.seek(5 << 30)
        out.start_dir = 5 << 30
        out.writestr("last", b"22")
    found = records(path)
    assert found.by_name[b"last"].header == 5 << 30
    found.check(2)
    assert found.read(found.by_name[b"last"]) == b"22"


@pytest.mark.parametrize("name", ["stored", "deflated"])
def test_a_changed_byte(tmp_path: Path, name: str) -> None:
    """A byte of a record that changed is found, packed or not, in whichever thread."""
    path = archive(tmp_path / "a.zip", stored=b"some bytes" * 9, deflated=b"other bytes" * 99)
    with zipfile.ZipFile(path) as known:
        at = known.getinfo(name).header_offset + 30 + len(name) + 4
    found = records(patched(path, at, bytes([path.read_bytes()[at] ^ 1])))
    for threads in (1, 2):
        with pytest.raises(DamagedError, match=f"the record {name} "):
            found.check(threads)


def test_the_record_s_own_header_counts(tmp_path: Path) -> None:
    """A longer name in it would make torch read from another byte on, and is refused."""
    path = archive(tmp_path / "a.zip", a=b"12345678")
    found = records(patched(path, 28, struct.pack("<H", 3)))  # its extra field
    with pytest.raises(DamagedError):
        found.check(1)


@pytest.mark.parametrize(
    ("says", "text"), [(b"PK\5\6" + bytes(18), None), (b"nothing", "no end of a zip"), (b"", "no end of a zip")]
)
def test_what_is_no_archive(tmp_path: Path, says: bytes, text: str | None) -> None:
    """A file without a directory is refused; an empty one has no records."""
    (tmp_path / "a").write_bytes(says)
    if text is None:
        assert records(tmp_path / "a").by_name == {}
        return
    with pytest.raises(DamagedError, match=text):
        records(tmp_path / "a")


def test_two_records_of_one_name(tmp_path: Path) -> None:
    """Which of them torch would read is not asked."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as out, pytest.warns(UserWarning, match="Duplicate"):
        out.writestr("a", b"1")
        out.writestr("a", b"2")
    with pytest.raises(DamagedError, match="one name"):
        records(path)


def bomb(saved: Path, path: Path, size: int) -> Path:
    """The file with a record more that unpacks to this size."""
    path.write_bytes(saved.read_bytes())
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as out:
        root = out.namelist()[0].split("/")[0]
        with out.open(f"{root}/data/bomb", "w", force_zip64=True) as into:
            for _ in range(size >> 20):
                into.write(bytes(1 << 20))
    return path


def test_a_bomb(saved: Path, tmp_path: Path) -> None:
    """A file of a megabyte that says it holds two gigabytes is refused before anything is unpacked."""
    path = bomb(saved, tmp_path / "bomb.pt", 2 << 30)
    with pytest.raises(hj.ArchiveError, match=r"a file of \d+ bytes says that it holds 2147"):
        hj.load(path)


def test_a_record_that_unpacks_to_more_than_it_says(saved: Path, tmp_path: Path) -> None:
    """It is unpacked no further than its size in the directory."""
    path = bomb(saved, tmp_path / "bomb.pt", 64 << 20)
    with zipfile.ZipFile(path) as known:
        entry = known.getinfo(known.namelist()[-1])
    data = path.read_bytes()
    at = data.rindex(b"PK\1\2")
    assert entry.filename.encode() in data[at:]
    path = patched(path, at + 24, struct.pack("<L", 10))
    with pytest.raises(hj.ArchiveError, match="another size than the directory says"):
        hj.load(path)


def rewritten(saved: Path, path: Path, change: Any) -> Path:
    """The file with other metadata, checksums and all."""
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as out:
        for info in old.infolist():
            data = old.read(info)
            out.writestr(info, change(data) if info.filename.endswith("hybridjit.json") else data)
    return path


EVIL = """
import os
from pathlib import Path
Path(os.environ["WITNESS"]).write_text("imported")
"""


@pytest.mark.parametrize("kind", ["node", "dataclass", "namedtuple"])
def test_nothing_is_imported_that_a_file_names(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A result's class in a module that does something when imported, or a function, is not touched."""
    witness = tmp_path / "witness"
    monkeypatch.setenv("WITNESS", str(witness))
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("evil.Anything", "os.system", "evil", "builtins.eval", "torch._lazy.ts_backend.init"):
        fields = '"keys": [".x"], "names": ["x"]' if kind != "node" else '"keys": ["[0]"], "names": []'
        node = f'{{"kind": "{kind}", "type": "{name}", {fields}, "context": "\\"touch {witness}\\"", '
        node += '"items": [{"kind": "tensor"}]}'

        def change(data: bytes, node: str = node) -> bytes:
            old = '"output_schema": {"kind": "tensor"}'
            assert old in data.decode()
            return data.decode().replace(old, f'"output_schema": {node}').encode()

        loaded = hj.load(rewritten(saved, tmp_path / "evil.pt", change))
        try:
            result = loaded(torch.ones(3, 2))
        except hj.InputError as error:
            assert kind == "node" and "not registered" in str(error)
        else:
            assert type(result).__name__ == name.rpartition(".")[2] and result.x.shape == (3, 1)
        assert not witness.exists() and "evil" not in sys.modules


def test_names_that_lead_out_of_the_archive(saved: Path, tmp_path: Path) -> None:
    """Records of paths elsewhere are read by nobody and written nowhere."""
    path = tmp_path / "a.pt"
    path.write_bytes(saved.read_bytes())
    with zipfile.ZipFile(path, "a") as out:
        out.writestr("../../escaped", b"x")
        out.writestr("/tmp/hybridjit-escaped/extra/x", b"x")
    before = sorted(tmp_path.parent.rglob("*escaped*"))
    assert hj.load(path)(torch.ones(3, 2)).shape == (3, 1)
    assert sorted(tmp_path.parent.rglob("*escaped*")) == before and not Path("/tmp/hybridjit-escaped").exists()


def test_a_pickle_that_calls_python(saved: Path, tmp_path: Path) -> None:
    """A record that Python's pickle would run is not run: torch's own reader takes no function of Python's."""
    witness = tmp_path / "witness"
    attack = (
        b"\x80\2cos\nsystem\n(X" + struct.pack("<L", len(f"touch {witness}")) + f"touch {witness}".encode() + b"tR."
    )
    with zipfile.ZipFile(saved) as old:
        contents = {name: old.read(name) for name in old.namelist()}
    refused = []
    for name in [each for each in contents if each.endswith(".pkl")]:
        path = archive(tmp_path / "pickle.pt", **{**contents, name: attack})
        try:
            hj.load(path)(torch.ones(3, 2))
        except hj.ArchiveError:
            refused.append(name.rpartition("/")[2])
        assert not witness.exists()
    assert {"data.pkl", "constants.pkl"} <= set(refused)


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "settings.yaml", "hybridjit-0.data/../x"])
def test_files_beside_are_called_as_hybridjit_calls_them(saved: Path, tmp_path: Path, name: str) -> None:
    """A file that names another one as its own can't have it read, nor written elsewhere."""
    (tmp_path / "settings.yaml").write_text("theirs")
    metadata = f'{{"beside": ["{name}"], "version'.encode()
    path = rewritten(saved, tmp_path / "a.pt", lambda data: data.replace(b'{"version', metadata, 1))
    with pytest.raises(hj.ArchiveError, match="as a file beside it"):
        hj.load(path)
