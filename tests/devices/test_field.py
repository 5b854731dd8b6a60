"""Device cases from the field: traced on the CPU, right on another device; the number is the upstream issue's.

Each model is a small one of its own that has the shape of what was reported.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import hybridjit as hj


class Fn(nn.Module):
    """A function as a module."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__()
        self.fn = fn

    def forward(self, *args: Any) -> Any:
        return self.fn(*args)


def moves(model: nn.Module, inputs: Any, device: str, folder: Path, *others: Any) -> hj.Exported:
    """Exports on the CPU, and compares the file on both devices, as `export` does and later, from disk."""
    model = model.eval()
    exported = hj.export(model, inputs, check_inputs=others, devices=["cpu", device])
    assert {check.device for check in exported.report.checks} == {"cpu", f"{device}:0"}
    exported.save(folder / "model.pt")
    report = hj.verify(folder / "model.pt", model, [inputs, *others], devices=[device])
    assert report.ok, str(report)
    moved = torch.jit.load(folder / "model.pt", map_location=device)
    for tensor in (*moved.parameters(), *moved.buffers()):
        assert tensor.device.type == device
    return exported


def add_literal(a: Tensor) -> Tensor:
    return a + torch.tensor((1.0, 2.0), device=a.device)


def add_moved_literal(a: Tensor) -> Tensor:
    return a + torch.tensor((1.0, 2.0)).to(device=a.device)


def index_there(a: Tensor, b: Tensor) -> Tensor:
    a[b]
    return b


class Blob(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros(x.shape[0], device=x.device) + x


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mod = torch.jit.script(Blob())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.mod(x)
        return out * 2


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.li = nn.Linear(10, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.li(x + torch.randn(1).to(x.device))  # type: ignore[no-any-return]


def embed_timesteps(timesteps: Tensor) -> Tensor:
    half = 4
    freqs = torch.exp(-math.log(10000.0) * torch.arange(0, half, dtype=torch.float32, device=timesteps.device) / half)
    args = timesteps[:, None].float() * freqs[None]
    return torch.cat([args.cos(), args.sin()], dim=-1)


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(10, 100)

    def forward(self, x: Tensor) -> Tensor:
        out = self.module(x)
        return out + torch.rand_like(out)  # type: ignore[no-any-return]


def shapes_to_tensor(shape: list[Tensor], device: torch.device | None = None) -> Tensor:
    """As detectron2's while tracing: the device is not used."""
    if hj.is_tracing():
        return torch.stack([torch.as_tensor(size) for size in shape])
    return torch.as_tensor(shape, device=device)


class Detector(nn.Module):
    """Takes images to its own device, pads them to a size computed from theirs, makes anchors from Python lists."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.tensor([[[0.5]], [[0.25]], [[0.125]]]), persistent=False)
        self.conv = nn.Conv2d(3, 4, 3)
        self.strides = [4, 8]
        self.cell_anchors = [torch.tensor([[-2.0, -2, 2, 2]]), torch.tensor([[-4.0, -4, 4, 4]])]

    def batch(self, images: list[Tensor], divisibility: int) -> Tensor:
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        tensors = [shapes_to_tensor(list(size)) for size in sizes]  # type: ignore[arg-type]
        most = torch.stack(tensors).max(0).values
        most = (most + (divisibility - 1)).div(divisibility, rounding_mode="floor") * divisibility
        bottom, right = most[0] - sizes[0][0], most[1] - sizes[0][1]
        return F.pad(images[0], [0, right, 0, bottom]).unsqueeze(0)  # type: ignore[list-item]

    def anchors(self, features: Tensor) -> Tensor:
        height, width = features.shape[-2:]
        every = []
        for stride, base in zip(self.strides, self.cell_anchors, strict=True):
            ys = torch.arange(0, height * stride, step=stride, dtype=torch.float32, device=features.device)
            xs = torch.arange(0, width * stride, step=stride, dtype=torch.float32, device=features.device)
            y, x = torch.meshgrid(ys, xs, indexing="ij")
            shifts = torch.stack((x.reshape(-1), y.reshape(-1), x.reshape(-1), y.reshape(-1)), dim=1)
            every.append((shifts.view(-1, 1, 4) + base.to(features.device).view(1, -1, 4)).reshape(-1, 4))
        return torch.cat(every)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        image = image.to(self.pixel_mean.device) - self.pixel_mean  # type: ignore[arg-type, operator]
        features = self.conv(self.batch([image], 8))
        return features, self.anchors(features)


class PastesMasks(nn.Module):
    """Pastes masks into images: on a grid, in chunks that are indexed into an empty result."""

    def forward(self, masks: Tensor, boxes: Tensor) -> Tensor:
        device = boxes.device
        out = torch.zeros(masks.shape[0], 8, 8, device=device, dtype=torch.bool)
        y = torch.arange(0, 8, device="cpu").to(device=device, dtype=torch.float32) + 0.5
        rows = (y[None] - boxes[:, 1:2]) / (boxes[:, 3:4] - boxes[:, 1:2]) * 2 - 1
        columns = (y[None] - boxes[:, 0:1]) / (boxes[:, 2:3] - boxes[:, 0:1]) * 2 - 1
        grid = torch.stack([columns[:, None, :].expand(-1, 8, 8), rows[:, :, None].expand(-1, 8, 8)], dim=3)
        sampled = F.grid_sample(masks.to(dtype=torch.float32), grid, align_corners=False)
        out[torch.arange(masks.shape[0], device=device)] = sampled[:, 0] >= 0.5
        return out


class StatesLikeInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 6, num_layers=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden, cell = torch.zeros_like(x)[:2], torch.zeros(2, x.size(1), 6).to(x.device)
        _, (last, _) = self.lstm(x, (hidden, cell))
        return last, self.lstm(x)[0]  # its own states, the second time


class Clip(nn.Module):
    """Text and image towers as CLIP's: a causal mask, class tokens, ``.type(self.dtype)``, argmax of the text."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(20, 8)
        self.position = nn.Parameter(torch.randn(5, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.classes = nn.Parameter(torch.randn(8))
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.scale = nn.Parameter(torch.ones([]))
        self.mask = torch.full((5, 5), float("-inf")).triu_(1)  # neither parameter nor buffer

    def encode_text(self, text: Tensor) -> Tensor:
        x = self.token(text).type(self.conv.weight.dtype) + self.position
        x = self.block(x, src_mask=self.mask.to(dtype=x.dtype, device=x.device))
        return x[torch.arange(x.shape[0], device=x.device), text.argmax(dim=-1)]  # type: ignore[no-any-return]

    def encode_image(self, image: Tensor) -> Tensor:
        x = self.conv(image).flatten(2).permute(0, 2, 1)
        first = self.classes.to(x.dtype) + torch.zeros(x.shape[0], 1, x.shape[-1], dtype=x.dtype, device=x.device)
        return self.block(torch.cat([first, x], dim=1))[:, 0]  # type: ignore[no-any-return]

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        one, other = self.encode_image(image), self.encode_text(text)
        one, other = (each / each.norm(dim=1, keepdim=True) for each in (one, other))
        return self.scale.exp() * one @ other.t()


_BOXES = torch.tensor([[1.0, 1, 6, 6], [0, 2, 7, 5]])
CASES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "pytorch_13969": (lambda: Fn(add_literal), torch.randn(2)),
    "pytorch_31141": (lambda: Fn(add_moved_literal), torch.randn(2)),
    "pytorch_42170": (lambda: Fn(index_there), (torch.tensor([3.3]), torch.tensor([0]))),
    "pytorch_43134": (Holder, torch.zeros(10)),
    "pytorch_43767": (lambda: Fn(lambda x: x + torch.randn_like(x, device=x.device)), torch.zeros(3)),
    "pytorch_62961": (Net, torch.randn(2, 10)),
    "pytorch_145995": (lambda: Fn(embed_timesteps), torch.tensor([3, 5])),
    "pytorch_17655": (Noisy, torch.randn(1, 10)),
    "pytorch_46580": (StatesLikeInput, torch.randn(4, 3, 6)),
    "detectron2_4580": (Detector, torch.rand(3, 15, 18)),
    "detectron2_4999": (
        lambda: Fn(lambda *each: (PastesMasks()(*each[:2]), Detector.batch(None, [each[2]], 8))),  # type: ignore[arg-type]
        (torch.rand(2, 1, 4, 4), _BOXES, torch.rand(3, 15, 18)),
    ),
    "clip_loader": (Clip, (torch.rand(2, 3, 8, 8), torch.randint(0, 20, (2, 5)))),
}


@pytest.mark.parametrize("name", CASES)
def test_upstream(name: str, device: str, tmp_path: Path) -> None:
    """What the issue of that number reports is right after export, on the CPU and moved to another device."""
    make, inputs = CASES[name]
    moves(make(), inputs, device, tmp_path)
