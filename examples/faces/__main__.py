"""Exports the detector to a file, and finds faces with the file: `python -m examples.faces [--out DIR]`."""

import argparse
from pathlib import Path

from PIL import Image

import hybridjit as hj

from .export import export_detector
from .model import DATA, read_image
from .show import as_lines, draw


def main() -> None:
    """Writes `faces.pt`, `faces.png` and `photo.ppm`, and prints the export's report and the faces."""
    parser = argparse.ArgumentParser(prog="python -m examples.faces", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/faces"), help="where to write (default: %(default)s)")
    parser.add_argument("--format", choices=("torchscript", "onnx"), default="torchscript", help="default: %(default)s")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    file = out / ("faces.onnx" if options.format == "onnx" else "faces.pt")

    exported = export_detector(options.format)
    print(exported.report)
    exported.save(file)

    photo = DATA / "two_faces.jpg"
    image = read_image(photo)
    faces = hj.load(file)(image)
    print(f"\n{photo.name}, by the loaded file (score  x1 y1 x2 y2):")
    print("\n".join(as_lines(faces)))

    draw(image, faces).save(out / "faces.png")
    with Image.open(photo) as original:
        original.convert("RGB").save(out / "photo.ppm")  # for examples/cpp and examples/onnx, which read no JPEG
    print(f"\nwritten to {out}: {file.name}, faces.png, photo.ppm")


if __name__ == "__main__":
    main()
