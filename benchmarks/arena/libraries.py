"""What the models need of their libraries before they are made; imported once, ahead of all processes."""

import contextlib
import importlib.metadata
import os
import sys
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

PACKAGES = (
    "torch",
    "transformers",
    "timm",
    "torchvision",
    "torch_geometric",
    "kornia",
    "segmentation_models_pytorch",
    "vit-pytorch",
    "x-transformers",
    "diffusers",
    "monai",
    "open_clip_torch",
    "pytorch-crf",
    "numpy",
)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


def versions() -> dict[str, str]:
    """The releases that are installed."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def suppress(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Non-maximum suppression: the boxes kept, best first."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order = torch.argsort(scores, descending=True, stable=True)
    corner = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
    size = (torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - corner).clamp(min=0)
    overlap = size[..., 0] * size[..., 1]
    close = (overlap / (area[:, None] + area[None, :] - overlap)) > threshold
    gone = torch.zeros(boxes.size(0), dtype=torch.bool)
    kept: list[int] = []
    places: list[int] = order.tolist()
    for place in places:
        if not bool(gone[place]):
            kept.append(place)
            gone = gone | close[place]
    return torch.tensor(kept, dtype=torch.int64)


def pool(features: Tensor, rois: Tensor, scale: float, height: int, width: int, samples: int, aligned: bool) -> Tensor:
    """Averages of bilinear samples in each cell of each region."""
    shift = 0.5 if aligned else 0.0
    results: list[Tensor] = []
    rows, columns = features.size(2), features.size(3)
    for index in range(rois.size(0)):
        roi = rois[index]
        left, top = float(roi[1]) * scale - shift, float(roi[2]) * scale - shift
        wide, high = float(roi[3]) * scale - shift - left, float(roi[4]) * scale - shift - top
        if not aligned:
            wide, high = max(wide, 1.0), max(high, 1.0)
        down = samples if samples > 0 else int(-(-high // height))
        across = samples if samples > 0 else int(-(-wide // width))
        if down <= 0 or across <= 0:  # a region of no size
            results.append(torch.zeros([features.size(1), height, width], dtype=features.dtype))
            continue
        y = top + (torch.arange(height * down, dtype=features.dtype) + 0.5) * (high / (height * down))
        x = left + (torch.arange(width * across, dtype=features.dtype) + 0.5) * (wide / (width * across))
        inside = ((y >= -1) & (y <= rows))[:, None] & ((x >= -1) & (x <= columns))[None, :]
        y, x = y.clamp(0, rows - 1), x.clamp(0, columns - 1)
        y0, x0 = y.floor().long(), x.floor().long()
        y1, x1 = (y0 + 1).clamp(max=rows - 1), (x0 + 1).clamp(max=columns - 1)
        v, u = (y - y0)[:, None], (x - x0)[None, :]
        plane = features[int(roi[0])]
        upper = plane[:, y0][:, :, x0] * (1 - u) + plane[:, y0][:, :, x1] * u
        lower = plane[:, y1][:, :, x0] * (1 - u) + plane[:, y1][:, :, x1] * u
        values = (upper * (1 - v) + lower * v) * inside.to(features.dtype)
        results.append(values.reshape(features.size(1), height, down, width, across).mean([2, 4]))
    if len(results) == 0:
        return features.new_zeros([0, features.size(1), height, width])
    return torch.stack(results)


def there() -> bool:
    return True


_defined: list[Any] = []


def ready() -> None:
    """Imports torchvision; where its operations are built for another torch (CUDA), stands in for two of them.

    They are compiled by TorchScript, so that to whatever watches Python they are one operation, as built ones are.
    """
    try:
        import_module("torchvision")
        return
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    except ImportError:
        return
    make_library: Any = torch.library.Library
    library = make_library("torchvision", "FRAGMENT")
    _defined.append(library)
    jit: Any = torch.jit
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("box_iou_rotated(Tensor boxes1, Tensor boxes2) -> Tensor")  # so that what names it can be scripted
    library.define(
        "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
        "int sampling_ratio, bool aligned) -> Tensor"
    )
    library.impl("nms", jit.script(suppress), "CPU")
    compiled = jit.script(pool)
    library.impl("roi_align", compiled, "CPU")
    library.impl("roi_align", _pool_shape, "Meta")
    extension: Any = import_module("torchvision.extension")
    import_module("torchvision")
    extension._has_ops = there
    sys.modules["torchvision.ops.roi_align"].__dict__["_has_ops"] = there


def _pool_shape(
    features: Tensor, rois: Tensor, scale: float, height: int, width: int, samples: int, aligned: bool
) -> Tensor:
    return features.new_empty((rois.shape[0], features.shape[1], height, width))


def stands_in() -> bool:
    """Whether operations of torchvision are this file's."""
    return bool(_defined)


def preload() -> None:
    """What most models import; a package that is not there is missed where it is used."""
    ready()
    for name in ("transformers", "timm", "torch_geometric.nn", "kornia", "torch.export", "hybridjit"):
        with contextlib.suppress(ImportError):
            import_module(name)
