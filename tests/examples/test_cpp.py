"""The C++ programs find with the exported files what Python finds."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from examples.decoder.__main__ import greedy
from examples.decoder.export import export_decoder
from examples.decoder.model import build as build_decoder
from examples.faces.export import export_detector, export_switched
from examples.faces.model import DATA, build, read_image
from examples.faces.show import as_lines
from hybridjit import export
from hybridjit._describe import place

SOURCE = Path(__file__).parents[2] / "examples" / "cpp"

Run = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("g++") is None, reason="needs cmake and g++"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Builds the programs once; calling the result runs one with the arguments given."""
    build_dir = tmp_path_factory.mktemp("cpp")
    prefix = f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"
    for command in (["cmake", "-S", str(SOURCE), "-B", str(build_dir), prefix], ["cmake", "--build", str(build_dir)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "PyTorch: CUDA cannot be found" in done.stderr:
            pytest.skip("the CMake files of a torch for CUDA need the CUDA toolkit")
        assert done.returncode == 0, done.stdout + done.stderr

    def run_program(*arguments: object, program: str = "faces") -> "subprocess.CompletedProcess[str]":
        command = [str(build_dir / program), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    return run_program


@pytest.fixture(scope="module")
def faces_pt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faces") / "faces.pt"
    export_detector().save(path)
    return path


@pytest.mark.parametrize("name", ["astronaut.jpg", "two_faces.jpg", "coffee.jpg"])
def test_prints_what_python_finds(run: Run, faces_pt: Path, tmp_path: Path, name: str) -> None:
    """On each photograph, two of them of other sizes than the traced one, both programs print the same boxes."""
    image = read_image(DATA / name)
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "photo.ppm")
    done = run(faces_pt, tmp_path / "photo.ppm")
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        same_lines(done.stdout.splitlines(), as_lines(build()(image)))


def same_lines(got: list[str], expected: list[str]) -> None:
    """The same numbers line by line; the last digit may differ with the number of threads."""
    assert len(got) == len(expected)
    for line, expected_line in zip(got, expected, strict=True):
        if line != expected_line:
            numbers = [float(number) for number in expected_line.split()]
            assert [float(number) for number in line.split()] == pytest.approx(numbers, abs=0.11)


@pytest.fixture(scope="module")
def switched_pt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("switched") / "faces.pt"
    export_switched().save(path)
    return path


def test_switches_flags_and_methods(run: Run, switched_pt: Path, tmp_path: Path) -> None:
    """Every combination of flags gives what the model gives with it, and so do its methods, from one file."""
    detector = build().requires_grad_(False)
    image = read_image(DATA / "two_faces.jpg")
    picture = (image.to(torch.float32) - 127.5) * 0.0078125
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "photo.ppm")
    for mode in ("fast", "full"):
        candidates = detector.propose(picture, mode)  # type: ignore[arg-type]
        counts = f"{len(candidates)} candidates, {len(detector.refine(picture, candidates))} refined"
        faces = as_lines(detector(image, mode=mode))
        for what in ("landmarks", "boxes"):
            done = run(switched_pt, tmp_path / "photo.ppm", what, mode, program="switch")
            assert done.returncode == 0, done.stderr
            first, *lines = done.stdout.splitlines()
            assert first == counts
            if what == "landmarks":
                assert lines.pop() == f"{5 * len(faces)} landmarks"
            same_lines(lines, faces)


def test_an_unknown_combination_says_what_is_there(run: Run, switched_pt: Path, tmp_path: Path) -> None:
    """A mode that was not exported ends the program with the list of those that were."""
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.ppm")
    done = run(switched_pt, tmp_path / "photo.ppm", "boxes", "slow", program="switch")
    assert done.returncode == 1
    assert "hybridjit: propose has no mode='slow'; it has mode='fast'; mode='full'" in done.stderr


def test_decodes_on_a_shared_cache(run: Run, tmp_path: Path) -> None:
    """Over 64 steps the two methods of the decoder's file give the model's words and logits."""
    export_decoder().save(tmp_path / "decoder.pt")
    done = run(tmp_path / "decoder.pt", 64, 3, 1, 4, 1, 5, program="decode")
    assert done.returncode == 0, done.stderr
    said, logits = greedy(build_decoder(), torch.tensor([3, 1, 4, 1, 5]), 64)
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [int(word) for word, _ in rows] == said
    assert [float(most) for _, most in rows] == pytest.approx([float(each.max()) for each in logits], abs=1e-4)


class ScaledBySize(nn.Module):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        scale = {64: 0.5, 48: 0.25}.get(image.shape[1], 1.0)
        return image[0, :1, :4] * scale, image[0, 0, :1] * scale


def test_guards_stop_the_program(run: Run, tmp_path: Path) -> None:
    """At a size for which the file would be wrong the program ends with the line, both values and what to write."""
    export(ScaledBySize().eval(), torch.ones(3, 64, 64, dtype=torch.uint8)).save(tmp_path / "scaled.pt")
    results = {}
    for size in (64, 48):
        Image.new("RGB", (size, size), (8, 8, 8)).save(tmp_path / f"{size}.ppm")
        results[size] = run(tmp_path / "scaled.pt", tmp_path / f"{size}.ppm")
    assert (results[64].returncode, results[64].stdout) == (0, "4.0000  4.0 4.0 4.0 4.0\n"), results[64].stderr
    line = place(__file__, ScaledBySize.forward.__code__.co_firstlineno + 1)
    assert results[48].returncode != 0 and not results[48].stdout
    said = rf"hybridjit: value frozen at {re.escape(line)}: a size as a key, captured \S.*, got 48; write torch"
    assert re.search(said, results[48].stderr)


def test_errors_are_one_line(run: Run, tmp_path: Path) -> None:
    """A missing argument, a missing file and a file that is no picture each end in one line and exit code 1."""
    (tmp_path / "notes.txt").write_text("no picture")
    for arguments, message in [
        ((), "usage: faces faces.pt photo.ppm"),
        ((tmp_path / "none.pt", tmp_path / "notes.txt"), "No such file"),
        ((tmp_path / "notes.txt", tmp_path / "notes.txt"), "failed reading zip archive"),
    ]:
        done = run(*arguments)
        assert done.returncode == 1
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_rejects_what_is_no_ppm(run: Run, faces_pt: Path, tmp_path: Path) -> None:
    """A picture in another format is refused by name."""
    (tmp_path / "photo.ppm").write_bytes(b"P5\n2 2\n255\n0000")
    done = run(faces_pt, tmp_path / "photo.ppm")
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path / 'photo.ppm'}: no readable binary PPM with 8 bits a channel\n"


class Packed(nn.Module):
    part: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(8, 8)
        self.register_buffer("part", torch.rand(10, 8)[2:3])  # of a larger memory

    def forward(self, x: Tensor, both: bool = True) -> tuple[Tensor, Tensor] | Tensor:
        y = self.linear(x) + self.part
        return (y, y.relu()) if both else y * 2


def test_models_of_a_package(run: Run, tmp_path: Path) -> None:
    """Two models of an AOTInductor package run in C++ on the same weights, and give what Python gives."""
    model, x = Packed().eval(), torch.ones(5, 8)
    flags = {"both": (True, False)}
    export(model, torch.ones(3, 8), format="aoti", flags=flags).save(tmp_path / "model.pt2")
    done = run(tmp_path / "model.pt2", 5, 8, "model", "forward-both=False", program="package")
    assert done.returncode == 0, done.stderr
    *lines, weights = done.stdout.splitlines()
    wanted = [*(("model", each) for each in model(x)), ("forward-both=False", model(x, False))]
    assert [line.partition(": ")[0] for line in lines] == [f"{name} 5 8" for name, _ in wanted]
    sums = [float(line.partition(": ")[2]) for line in lines]
    assert sums == pytest.approx([each.sum().item() for _, each in wanted], abs=1e-3)
    assert weights == "3 weights"
    assert "model 'other'" in run(tmp_path / "model.pt2", 5, 8, "other", program="package").stderr
