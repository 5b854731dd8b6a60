"""The face detector: right in eager PyTorch, and the same from the exported file."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import hybridjit as hj
from examples.faces.export import check_pictures, export_detector
from examples.faces.model import DATA, FaceDetector, Faces, build, read_image
from examples.faces.plain_trace import plain_trace
from examples.faces.show import as_lines, draw

ROOT = Path(__file__).parents[2]
PHOTOGRAPHS = ("astronaut.jpg", "two_faces.jpg", "coffee.jpg")
CHECKS = check_pictures()
UNSEEN = {
    "astronaut, upside down": read_image(DATA / "astronaut.jpg").flip(1),
    "astronaut, a portrait": read_image(DATA / "astronaut.jpg")[:, 30:200, 150:300].contiguous(),
    "two faces, a third of the size": read_image(DATA / "two_faces.jpg")[:, ::3, ::3].contiguous(),
    "one pixel": torch.zeros((3, 1, 1), dtype=torch.uint8),
    "a strip": torch.full((3, 19, 300), 200, dtype=torch.uint8),
}


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return build().requires_grad_(False)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> hj.Exported:
    path = tmp_path_factory.mktemp("faces") / "faces.pt"
    export_detector().save(path)
    return hj.load(path)


def assert_same(got: Faces, expected: Faces) -> None:
    assert isinstance(got, Faces)
    torch.testing.assert_close(got.boxes, expected.boxes, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(got.scores, expected.scores, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(got.landmarks, expected.landmarks, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_eager_matches_reference(detector: FaceDetector, name: str) -> None:
    """The detector finds the faces that another implementation finds, within a few pixels."""
    reference: list[dict[str, Any]] = json.loads((DATA / "reference.json").read_text())[name]
    faces = detector(read_image(DATA / name))
    assert len(faces.boxes) == len(reference)
    for expected in reference:
        box = torch.tensor(expected["box"])
        nearest = (faces.boxes - box).abs().sum(1).argmin()
        torch.testing.assert_close(faces.boxes[nearest], box, rtol=0, atol=5)
        torch.testing.assert_close(faces.landmarks[nearest], torch.tensor(expected["landmarks"]), rtol=0, atol=3)
        assert faces.scores[nearest].item() == pytest.approx(expected["score"], abs=0.01)


@pytest.mark.parametrize("name", [name for name in CHECKS if name.startswith(("no face", "smaller"))])
def test_nothing_found_is_empty(detector: FaceDetector, name: str) -> None:
    """Where any stage finds nothing the result has its usual shapes and types, with no faces in it."""
    faces = detector(CHECKS[name])
    assert faces.boxes.shape == (0, 4)
    assert faces.scores.shape == (0,)
    assert faces.landmarks.shape == (0, 5, 2)
    assert {faces.boxes.dtype, faces.scores.dtype, faces.landmarks.dtype} == {torch.float32}


def test_check_pictures_empty_each_stage(detector: FaceDetector) -> None:
    """The pictures used as checks leave the detector at the stage that they are named after."""
    left = {}
    for name, image in CHECKS.items():
        picture = (image.to(torch.float32) - 127.5) * 0.0078125
        candidates = detector.pyramid(picture)
        refined = detector.refine(picture, candidates)
        left[name] = [len(boxes) > 0 for boxes in (candidates, refined, detector(image).boxes)]
    assert left["no face left after the first network"] == [False, False, False]
    assert left["no face left after the second network"] == [True, False, False]
    assert left["no face left after the third network"] == [True, True, False]
    assert left["two faces"] == [True, True, True]


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_exported_matches_eager_on_photographs(detector: FaceDetector, loaded: hj.Exported, name: str) -> None:
    """The loaded file finds in every photograph what the model finds, in the model's own result type."""
    image = read_image(DATA / name)
    assert_same(loaded(image), detector(image))


@pytest.mark.parametrize("image", (CHECKS | UNSEEN).values(), ids=(CHECKS | UNSEEN).keys())
def test_exported_matches_eager_at_other_sizes(detector: FaceDetector, loaded: hj.Exported, image: Tensor) -> None:
    """The loaded file agrees at sizes and on paths other than the traced ones, some never given to the export."""
    assert_same(loaded(image), detector(image))


def test_plain_trace_misses_faces(detector: FaceDetector) -> None:
    """A plain trace made from one photograph silently misses the faces of another: what the example is for."""
    traced = plain_trace(detector, read_image(DATA / "astronaut.jpg"))
    image = read_image(DATA / "two_faces.jpg")
    boxes, _, _ = traced(image)
    assert len(boxes) != len(detector(image).boxes)


def test_show(detector: FaceDetector, tmp_path: Path) -> None:
    """Faces are printed one a line, and drawn where they are."""
    image = read_image(DATA / "two_faces.jpg")
    faces = detector(image)
    assert len(as_lines(faces)) == 2
    assert as_lines(detector(CHECKS["smaller than any face"])) == ["no faces"]
    draw(image, faces).save(tmp_path / "faces.png")
    drawn = read_image(tmp_path / "faces.png")
    x, y = faces.landmarks[0, 2].int().tolist()
    assert drawn[:, y, x].tolist() == [255, 0, 0]


def test_as_onnx(detector: FaceDetector) -> None:
    """The file for onnxruntime finds the same faces, on pictures that take every way through the detector."""
    pytest.importorskip("onnxruntime")
    first = CHECKS["two faces, half the size"]
    others = [picture[:, ::2, ::2].contiguous() for picture in CHECKS.values()]
    exported: hj.Exported = hj.export(detector, first, format="onnx", check_inputs=others[:2])
    for picture in (first, *others, *UNSEEN.values()):
        assert_same(exported(picture), detector(picture))


@pytest.mark.skipif(
    not (ROOT / "build/node/node_modules/onnxruntime-node").is_dir() or not shutil.which("node"),
    reason="onnxruntime-node is not installed, see examples/onnx/README.md",
)
def test_as_onnx_without_python(tmp_path: Path) -> None:
    """The program in Node.js finds the faces that Python finds with the same file."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "examples.faces", "--out", str(tmp_path), "--format", "onnx"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    program = shutil.copy(ROOT / "examples/onnx/faces.mjs", ROOT / "build/node")
    run = ["node", str(program), str(tmp_path / "faces.onnx"), str(tmp_path / "photo.ppm")]
    found = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(found) == 2 and set(found) <= set(done.stdout.splitlines())
