"""How long an export takes, against `torch.jit.trace` with its default self-check."""

import warnings

import torch
from torch import Tensor, nn

import hybridjit as hj
from examples.faces.model import DATA, build, read_image
from examples.faces.plain_trace import AsTuple

from .models import Encoder, ResNet50
from .table import Row, Table, once, paired

ROUNDS = 3
MOST = 4.5


def run() -> tuple[Table]:
    detector = build()
    image = read_image(DATA / "astronaut.jpg")
    resnet, encoder = ResNet50().eval(), Encoder().eval()
    picture, tokens = torch.randn(1, 3, 224, 224), torch.randn(1, 128, 768)
    table = Table(
        "hybridjit.export (trace, save, load, compare), one input, CPU",
        "torch.jit.trace",
        (
            compare("face detector", detector, AsTuple(detector), image),
            compare("ResNet-50, 224 x 224", resnet, resnet, picture),
            compare("encoder, 12 layers of 768, 128 tokens", encoder, encoder, tokens),
        ),
        f"at most {MOST} of the plain trace's time",
        MOST,
    )
    return (table,)


def compare(name: str, model: nn.Module, flat: nn.Module, inputs: Tensor) -> Row:
    """Times both in turn, after one run of each that fills torch's caches."""

    def ours() -> None:
        hj.export(model, (inputs,), devices=["cpu"])

    def peer() -> None:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # deprecated, and that values are frozen
            torch.jit.trace(flat, (inputs,))  # type: ignore[no-untyped-call]

    ours()
    peer()
    return paired(name, [(once(ours), once(peer)) for _ in range(ROUNDS)])
