"""Vision of kornia: sizes that are said in the call, pyramids, keypoints, loops that end by content."""

from typing import Any

import torch

from hybridjit import Inputs

from .cases import Case, case
from .make import library


def _gray(batch: int, height: int, width: int) -> Any:
    return torch.rand(batch, 1, height, width)


def _four(model: Any) -> Case:
    return Case(
        model.eval(),
        Inputs(_gray(1, 32, 32)),
        {
            "two": Inputs(_gray(2, 32, 32)),
            "larger": Inputs(_gray(1, 48, 40)),
            "odd": Inputs(_gray(1, 33, 51)),
            "flat": Inputs(torch.full((1, 1, 32, 32), 0.3)),
        },
    )


@case("kornia")
def canny() -> Case:
    """Edges grow along weak ones until nothing changes."""
    return _four(library("kornia.filters").Canny(low_threshold=0.05, high_threshold=0.6))


@case("kornia")
def sharpen() -> Case:
    return _four(library("kornia.filters").UnsharpMask((5, 5), (1.5, 1.5)))


@case("kornia")
def pyramid() -> Case:
    """As many levels as the picture has room for."""
    return _four(library("kornia.geometry").ScalePyramid(n_levels=2, init_sigma=1.6, min_size=8))


@case("kornia")
def warp() -> Case:
    """The size of the result is said in the call."""
    transform = library("kornia.geometry.transform")

    class Warp(torch.nn.Module):
        """Only calls the library's function."""

        def forward(self, image: Any, matrix: Any, height: int, width: int) -> Any:
            return transform.warp_perspective(image, matrix, (height, width))

    def call(batch: int, side: int, height: int, width: int) -> Inputs:
        matrix = torch.eye(3).repeat(batch, 1, 1) + torch.randn(batch, 3, 3) * 0.003
        return Inputs(_gray(batch, side, side), matrix, height, width)

    return Case(
        Warp().eval(),
        call(1, 32, 24, 20),
        {"two": call(2, 32, 24, 20), "a larger picture": call(1, 47, 24, 20), "another result": call(1, 32, 30, 31)},
    )


@case("kornia")
def resize() -> Case:
    """The shorter side is given; the other follows from the picture."""
    return _four(library("kornia.geometry").Resize(24, side="short", antialias=True))


@case("kornia")
def clahe() -> Case:
    enhance = library("kornia.enhance")

    class Clahe(torch.nn.Module):
        """Only calls the library's function."""

        def forward(self, image: Any, limit: float = 40.0) -> Any:
            return enhance.equalize_clahe(image, limit, (4, 4))

    made = _four(Clahe())
    made.others["another limit"] = Inputs(_gray(1, 32, 32), 2.0)
    return made


@case("kornia")
def connected() -> Case:
    contrib = library("kornia.contrib")

    class Connected(torch.nn.Module):
        """Only calls the library's function."""

        def forward(self, image: Any, rounds: int) -> Any:
            return contrib.connected_components(image, rounds)

    def call(batch: int, height: int, width: int, rounds: int) -> Inputs:
        return Inputs((_gray(batch, height, width) > 0.6).float(), rounds)

    return Case(
        Connected().eval(),
        call(1, 16, 16, 5),
        {"more rounds": call(1, 16, 16, 40), "two": call(2, 16, 16, 5), "larger": call(1, 20, 24, 5)},
    )


@case("kornia")
def distance() -> Case:
    contrib = library("kornia.contrib")

    def call(batch: int, height: int, width: int) -> Inputs:
        return Inputs((_gray(batch, height, width) > 0.97).float())

    return Case(
        contrib.DistanceTransform(kernel_size=3).eval(),
        call(1, 16, 16),
        {"larger": call(1, 32, 24), "two": call(2, 16, 16), "another": call(1, 16, 16)},
    )


@case("kornia")
def patches() -> Case:
    contrib = library("kornia.contrib")
    return _four(contrib.ExtractTensorPatches(window_size=8, stride=8, allow_auto_padding=True))


@case("kornia")
def loftr() -> Case:
    """Matches two pictures: their number is what is found."""
    feature = library("kornia.feature")
    module = library("kornia.feature.loftr.loftr")
    config = dict(module.default_cfg)
    config["backbone_type"] = "ResNetFPN"
    config["resnetfpn"] = {"initial_dim": 16, "block_dims": [16, 16, 32]}
    config["coarse"] = {**config["coarse"], "d_model": 32, "d_ffn": 32, "nhead": 4, "layer_names": ["self", "cross"]}
    config["fine"] = {**config["fine"], "d_model": 16, "d_ffn": 16, "nhead": 4, "layer_names": ["self", "cross"]}
    config["match_coarse"] = {**config["match_coarse"], "thr": 0.0, "border_rm": 1}
    model = feature.LoFTR(pretrained=None, config=config).eval()

    def call(height: int, width: int, other: int, shift: int = 2) -> Inputs:
        one = _gray(1, height, width)
        two = torch.nn.functional.pad(one, (0, other - width)) if other > width else one.roll(shift, -1)
        return Inputs({"image0": one, "image1": two})

    return Case(
        model,
        call(64, 64, 64),
        {"another pair": call(64, 64, 64, 5), "larger": call(64, 96, 96), "different sizes": call(64, 64, 96)},
    )


@case("kornia")
def disk() -> Case:
    """Keypoints of each picture, as many as there are."""
    feature = library("kornia.feature")
    model = feature.DISK(desc_dim=16).eval()

    def call(batch: int, height: int, width: int, most: int | None = 20) -> Inputs:
        image = torch.rand(batch, 3, height, width)
        return Inputs(image, n=most, pad_if_not_divisible=True)

    return Case(
        model,
        call(1, 32, 32),
        {
            "another picture": call(1, 32, 32),
            "a size that 16 does not divide": call(1, 44, 50),
            "fewer": call(1, 32, 32, 7),
            "two": call(2, 32, 32),
        },
    )


@case("kornia")
def keynet() -> Case:
    feature = library("kornia.feature")
    return _four(feature.KeyNet(pretrained=False))


@case("kornia")
def local_features() -> Case:
    """Corners, their sizes and descriptors."""
    feature = library("kornia.feature")
    detector = feature.ScaleSpaceDetector(
        num_features=12,
        resp_module=feature.BlobHessian(),
        scale_pyr_module=library("kornia.geometry").ScalePyramid(3, 1.6, 10),
        mr_size=6.0,
    )
    model = feature.LocalFeature(detector, feature.LAFDescriptor(feature.SIFTDescriptor(16), patch_size=16))
    made = _four(model.eval())
    del made.others["flat"]
    return made


@case("kornia")
def lightglue() -> Case:
    """Stops early when it is sure, and drops points that have no match."""
    feature = library("kornia.feature")
    model = feature.LightGlue(
        None,
        input_dim=16,
        descriptor_dim=32,
        num_heads=2,
        n_layers=3,
        weights=None,
        flash=False,
        width_confidence=0.5,
        filter_threshold=0.0,
    ).eval()

    def side(count: int, height: int, width: int) -> dict[str, Any]:
        return {
            "keypoints": torch.rand(1, count, 2) * torch.tensor([width, height]),
            "descriptors": torch.nn.functional.normalize(torch.randn(1, count, 16), dim=-1),
            "image_size": torch.tensor([[width, height]]),
        }

    def call(one: int, other: int, height: int = 40) -> Inputs:
        return Inputs({"image0": side(one, height, 50), "image1": side(other, 40, 50)})

    return Case(model, call(12, 15), {"more points": call(20, 9), "another picture": call(12, 15, 64)})
