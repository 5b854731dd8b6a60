"""The same detector by `torch.jit.trace` alone, next to hybridjit: `python -m examples.faces.plain_trace`.

The plain trace gets what torch has for it: `torch.jit.script_if_tracing` on `suppress`, and on a `crop` written for
it. On a method that uses `self` torch's decorator can't be put, so there the trace runs the Python.
"""

import inspect
import warnings
from collections.abc import Callable
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import model
from .export import export_detector
from .model import DATA, FaceDetector, Faces, Pyramid, build, read_image
from .show import as_lines


class AsTuple(nn.Module):
    """The detector with its dataclass flattened by hand, because a plain trace takes only tensors and tuples."""

    def __init__(self, detector: FaceDetector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Finds the faces in `image`, uint8 `[3, h, w]`."""
        faces = self.detector(image)
        return faces.boxes, faces.scores, faces.landmarks


def crop(picture: Tensor, boxes: Tensor, size: int) -> Tensor:
    """`model.crop` as TorchScript takes it."""
    if boxes.size(0) == 0:
        return picture.new_zeros((0, 3, size, size))
    height, width = picture.size(1), picture.size(2)
    crops: list[Tensor] = []
    for i in range(boxes.size(0)):
        left = min(max(int(boxes[i, 0]), 0), width - 1)
        top = min(max(int(boxes[i, 1]), 0), height - 1)
        right = max(min(int(boxes[i, 2].ceil()), width), left + 1)
        bottom = max(min(int(boxes[i, 3].ceil()), height), top + 1)
        crops.append(F.adaptive_avg_pool2d(picture[:, top:bottom, left:right], (size, size)))
    return torch.stack(crops)


def plain_trace(detector: FaceDetector, image: Tensor) -> torch.jit.ScriptModule:
    """Traces the detector with torch's own decorator in place of hybridjit's."""
    scripted = torch.jit.script_if_tracing
    with (
        patch.object(model, "suppress", scripted(inspect.unwrap(model.suppress))),  # type: ignore[no-untyped-call]
        patch.object(model, "crop", scripted(crop)),  # type: ignore[no-untyped-call]
        patch.object(Pyramid, "forward", inspect.unwrap(Pyramid.forward)),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # that values are frozen; the table shows what comes of it
        traced = torch.jit.trace(AsTuple(detector), (image,), check_trace=False)  # type: ignore[no-untyped-call]
    assert isinstance(traced, torch.jit.ScriptModule)
    return traced


def outcome(detect: Callable[[Tensor], Faces], image: Tensor) -> list[str]:
    """What became of one picture: the number of faces and their lines, or the error's message."""
    try:
        faces = detect(image)
    except RuntimeError as error:
        return ["error", str(error).strip().splitlines()[-1]]  # the message comes last, below TorchScript's traceback
    return [str(faces.boxes.size(0)), *as_lines(faces)]


@torch.no_grad()
def main() -> None:
    """Prints a table: each photograph by eager PyTorch, by the plain trace, by hybridjit."""
    detector = build()
    astronaut = read_image(DATA / "astronaut.jpg")
    traced = plain_trace(detector, astronaut)
    exported = export_detector()
    ways: dict[str, Callable[[Tensor], Faces]] = {
        "eager": detector,
        "plain trace": lambda image: Faces(*traced(image)),
        "hybridjit": exported,
    }
    pictures = {
        "astronaut.jpg": astronaut,
        "two_faces.jpg": read_image(DATA / "two_faces.jpg"),
        "coffee.jpg": read_image(DATA / "coffee.jpg"),
        "astronaut.jpg, the head alone": astronaut[:, 30:200, 150:300].contiguous(),
    }
    print("traced and exported from astronaut.jpg; the number of faces, then of each: score  x1 y1 x2 y2\n")
    for name, image in pictures.items():
        print(f"{name} ({image.size(1)} x {image.size(2)})")
        for way, detect in ways.items():
            count, *boxes = outcome(detect, image)
            print(f"  {way:11}  {count:5}  " + ("\n" + 22 * " ").join(boxes))


if __name__ == "__main__":
    main()
