"""Faces as text and as a picture."""

from PIL import Image, ImageDraw
from torch import Tensor

from .model import Faces


def as_lines(faces: Faces) -> list[str]:
    """One line a face, `score  x1 y1 x2 y2`: what `examples/cpp/main.cpp` prints too."""
    rows = zip(faces.scores.tolist(), faces.boxes.tolist(), strict=True)
    lines = [f"{score:.4f} " + "".join(f" {edge:.1f}" for edge in box) for score, box in rows]
    return lines or ["no faces"]


def draw(image: Tensor, faces: Faces) -> Image.Image:
    """Draws boxes and landmarks into a copy of `image`, uint8 `[3, h, w]`."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    pen = ImageDraw.Draw(picture)
    for box, landmarks in zip(faces.boxes.tolist(), faces.landmarks.tolist(), strict=True):
        pen.rectangle(box, outline="lime", width=3)
        for x, y in landmarks:
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill="red", outline="white")
    return picture
