"""Exports the decoder, and continues a text with the file and with the model: `python -m examples.decoder`."""

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hybridjit as hj

from .export import export_decoder
from .model import build


@torch.no_grad()
def greedy(decoder: Any, prompt: Tensor, steps: int) -> tuple[list[int], list[Tensor]]:
    """Continues a prompt with the likeliest word, again and again; returns the words and the logits of each."""
    logits = [decoder.prefill(prompt)]
    said = [int(logits[-1].argmax())]
    while len(said) < steps:
        logits.append(decoder.decode(torch.tensor(said[-1:])))
        said.append(int(logits[-1].argmax()))
    return said, logits


def main() -> None:
    """Writes `decoder.pt` or `decoder.pt2`, and prints the report and both continuations."""
    parser = argparse.ArgumentParser(prog="python -m examples.decoder", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/decoder"), help="where to write (default: %(default)s)")
    parser.add_argument("--format", choices=("torchscript", "pt2"), default="torchscript", help="default: %(default)s")
    options = parser.parse_args()
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    exported = export_decoder(format=options.format)
    print(exported.report)
    path = out / ("decoder.pt" if options.format == "torchscript" else "decoder.pt2")
    exported.save(path)
    prompt = torch.tensor([3, 1, 4, 1, 5])
    print("\nmodel:", *greedy(build(), prompt, 64)[0])
    print("file: ", *greedy(hj.load(path), prompt, 64)[0])


if __name__ == "__main__":
    main()
