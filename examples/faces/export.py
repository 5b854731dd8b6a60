"""The face detector as one file."""

import torch
from torch import Tensor

import hybridjit as hj

from .model import DATA, build, read_image


def export_detector(format: str = "torchscript") -> hj.Exported:
    """Exports the detector from one photograph, and verifies it on those of `check_pictures`."""
    image, others = read_image(DATA / "astronaut.jpg"), check_pictures()
    return hj.export(build(), (image,), format=format, check_inputs=[(picture,) for picture in others.values()])


def export_switched() -> hj.Exported:
    """Exports the detector with its flags, and its first two stages as methods, into one file."""
    detector, others = build(), check_pictures()
    image = others["two faces, half the size"]
    picture = (image.to(torch.float32) - 127.5) * 0.0078125
    with torch.no_grad():
        candidates = detector.propose(picture)
    return hj.export(
        detector,
        (image,),
        flags={"do_landmarks": (True, False), "mode": ("fast", "full")},
        methods={"propose": (picture,), "refine": [(picture, candidates), (picture, candidates[:0])]},
        check_inputs=[(others["no face left after the second network"],), (others["smaller than any face"],)],
    )


def check_pictures() -> dict[str, Tensor]:
    """Pictures that take every way through the detector, uint8 `[3, h, w]`, by what they are good for."""
    two_faces = read_image(DATA / "two_faces.jpg")
    coffee = read_image(DATA / "coffee.jpg")
    return {
        "two faces": two_faces,
        "two faces, half the size": two_faces[:, ::2, ::2].contiguous(),
        "no face left after the third network": coffee,
        "no face left after the second network": coffee[:, ::2, ::2].contiguous(),
        "no face left after the first network": torch.full((3, 64, 48), 127, dtype=torch.uint8),
        "smaller than any face": coffee[:, :16, :16].contiguous(),
    }
