"""The C++ program finds with the exported file what Python finds."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from examples.faces.export import export_detector
from examples.faces.model import DATA, build, read_image
from examples.faces.show import as_lines

SOURCE = Path(__file__).parents[2] / "examples" / "cpp"

Run = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("g++") is None, reason="needs cmake and g++"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Builds the program once; calling the result runs it with the arguments given."""
    build_dir = tmp_path_factory.mktemp("cpp")
    prefix = f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"
    for command in (["cmake", "-S", str(SOURCE), "-B", str(build_dir), prefix], ["cmake", "--build", str(build_dir)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if "PyTorch: CUDA cannot be found" in done.stderr:
            pytest.skip("the CMake files of a torch for CUDA need the CUDA toolkit")
        assert done.returncode == 0, done.stdout + done.stderr

    def run_program(*arguments: Path) -> "subprocess.CompletedProcess[str]":
        command = [str(build_dir / "faces"), *map(str, arguments)]
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
        expected = as_lines(build()(image))
    got = done.stdout.splitlines()
    assert len(got) == len(expected)
    for line, expected_line in zip(got, expected, strict=True):
        if line != expected_line:  # the last digit may differ with the number of threads
            numbers = [float(number) for number in expected_line.split()]
            assert [float(number) for number in line.split()] == pytest.approx(numbers, abs=0.11)


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
