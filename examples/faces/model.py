"""MTCNN, a detector of faces and their landmarks, in plain PyTorch.

Zhang et al. 2016, "Joint Face Detection and Alignment Using Multi-task Cascaded Convolutional Networks". Three
small networks in a row: the first runs over an image pyramid and proposes candidates, the second rejects most of
them, the third refines the rest and places five landmarks.

What varies from picture to picture is in three pieces: `Pyramid.forward` and `suppress`, loops over Python numbers
and lists marked `hj.script_if_tracing`, and `crop`, an `hj.map`. Everything else is traced like any other model.

Boxes are float32 `[n, 4]` everywhere: x1, y1, x2, y2 in pixels of the picture.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import hybridjit as hj

DATA = Path(__file__).parent / "data"
Mode: TypeAlias = Literal["fast", "full"]


@dataclass(frozen=True)
class Faces:
    """The faces of one picture, best first; all three are empty along `n` when there are none.

    Attributes:
        boxes: float32 `[n, 4]`, x1, y1, x2, y2 in pixels.
        scores: float32 `[n]`, in 0..1.
        landmarks: float32 `[n, 5, 2]`, (x, y) in pixels of left eye, right eye, nose, left and right mouth corner
            (left and right as seen in the picture).
    """

    boxes: Tensor
    scores: Tensor
    landmarks: Tensor


@dataclass(frozen=True)
class Boxes:
    """Faces of which only the boxes and the scores were asked for."""

    boxes: Tensor
    scores: Tensor


torch.export.register_dataclass(Faces)
torch.export.register_dataclass(Boxes)


class PNet(nn.Module):
    """Proposal network, fully convolutional: sees 12 x 12 windows, one every 2 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 10, 3)
        self.prelu1 = nn.PReLU(10)
        self.pool1 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(10, 16, 3)
        self.prelu2 = nn.PReLU(16)
        self.conv3 = nn.Conv2d(16, 32, 3)
        self.prelu3 = nn.PReLU(32)
        self.conv4_1 = nn.Conv2d(32, 2, 1)
        self.conv4_2 = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores every window of a batch of pictures.

        Args:
            x: float32 `[b, 3, h, w]`, h and w at least 12.

        Returns:
            Face scores `[b, rows, cols]` and box offsets `[b, 4, rows, cols]`, in widths and heights of the window.
        """
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.prelu2(self.conv2(x))
        x = self.prelu3(self.conv3(x))
        return self.conv4_1(x).softmax(1)[:, 1], self.conv4_2(x)


class RNet(nn.Module):
    """Refinement network: looks at each candidate in 24 x 24 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 28, 3)
        self.prelu1 = nn.PReLU(28)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(28, 48, 3)
        self.prelu2 = nn.PReLU(48)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(48, 64, 2)
        self.prelu3 = nn.PReLU(64)
        self.dense4 = nn.Linear(576, 128)
        self.prelu4 = nn.PReLU(128)
        self.dense5_1 = nn.Linear(128, 2)
        self.dense5_2 = nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Scores candidates `[n, 3, 24, 24]`: face scores `[n]` and box offsets `[n, 4]`."""
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.prelu3(self.conv3(x))
        x = self.prelu4(self.dense4(columns_first(x)))
        return self.dense5_1(x).softmax(1)[:, 1], self.dense5_2(x)


class ONet(nn.Module):
    """Output network: looks at each candidate in 48 x 48 pixels and places the landmarks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3)
        self.prelu1 = nn.PReLU(32)
        self.pool1 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.prelu2 = nn.PReLU(64)
        self.pool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.conv3 = nn.Conv2d(64, 64, 3)
        self.prelu3 = nn.PReLU(64)
        self.pool3 = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.conv4 = nn.Conv2d(64, 128, 2)
        self.prelu4 = nn.PReLU(128)
        self.dense5 = nn.Linear(1152, 256)
        self.prelu5 = nn.PReLU(256)
        self.dense6_1 = nn.Linear(256, 2)
        self.dense6_2 = nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores candidates `[n, 3, 48, 48]`.

        Returns:
            Face scores `[n]`, box offsets `[n, 4]`, and landmarks `[n, 5, 2]` in widths and heights of the
            candidate, from its upper left corner.
        """
        x = self.pool1(self.prelu1(self.conv1(x)))
        x = self.pool2(self.prelu2(self.conv2(x)))
        x = self.pool3(self.prelu3(self.conv3(x)))
        x = self.prelu4(self.conv4(x))
        x = self.prelu5(self.dense5(columns_first(x)))
        landmarks = self.dense6_3(x).reshape(-1, 2, 5).transpose(1, 2)
        return self.dense6_1(x).softmax(1)[:, 1], self.dense6_2(x), landmarks


def columns_first(x: Tensor) -> Tensor:
    """Flattens features `[n, c, h, w]` in the order w, h, c, in which the weights were trained."""
    return x.permute(0, 3, 2, 1).flatten(1)


def overlap(box: Tensor, others: Tensor, of_smaller: bool) -> Tensor:
    """How much `box` `[4]` shares with each of `others` `[n, 4]`: intersection over union, or over the smaller."""
    upper_left = torch.maximum(box[:2], others[:, :2])
    lower_right = torch.minimum(box[2:], others[:, 2:])
    shared = (lower_right - upper_left).clamp(min=0).prod(1)
    area = (box[2:] - box[:2]).prod()
    areas = (others[:, 2:] - others[:, :2]).prod(1)
    if of_smaller:
        return shared / torch.minimum(area, areas)
    return shared / (area + areas - shared)


@hj.script_if_tracing
def suppress(boxes: Tensor, scores: Tensor, threshold: float, of_smaller: bool = False) -> Tensor:
    """Greedy non-maximum suppression.

    Args:
        boxes: `[n, 4]`.
        scores: `[n]`.
        threshold: Of two boxes that overlap by more than this, the one with the lower score goes.
        of_smaller: Measure the overlap relative to the smaller box, so that a box inside another one goes too.

    Returns:
        int64 `[k]`, the indices of the boxes to keep, best first.
    """
    order = scores.argsort(dim=0, descending=True, stable=True)
    kept = [order[:0]]  # so that there is something to concatenate when there are no boxes
    while order.numel() > 0:
        best, rest = order[0], order[1:]
        kept.append(order[:1])
        order = rest[overlap(boxes[best], boxes[rest], of_smaller) <= threshold]
    return torch.cat(kept)


def crop(picture: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Cuts boxes out of a picture and resizes them.

    Args:
        picture: float32 `[3, h, w]`.
        boxes: `[n, 4]`; clipped to the picture.
        size: Height and width of the results.

    Returns:
        float32 `[n, 3, size, size]`.
    """
    height, width = picture.shape[1:]

    def cut(box: Tensor) -> Tensor:
        # A box may have been shifted out of the picture: keep one pixel at least, there is no resizing of nothing.
        left = box[0].clamp(0, width - 1).long()
        top = box[1].clamp(0, height - 1).long()
        right = torch.maximum(box[2].ceil().clamp(max=width).long(), left + 1)
        bottom = torch.maximum(box[3].ceil().clamp(max=height).long(), top + 1)
        return F.adaptive_avg_pool2d(picture[:, top:bottom, left:right], size)

    return hj.map(cut, boxes)


def shift(boxes: Tensor, offsets: Tensor) -> Tensor:
    """Moves the corners of boxes `[n, 4]` by offsets `[n, 4]`, given in widths and heights of the box."""
    extent = boxes[:, 2:] - boxes[:, :2]
    return boxes + offsets * torch.cat((extent, extent), 1)


def squared(boxes: Tensor) -> Tensor:
    """The squares around the centres of boxes `[n, 4]`, as wide as the box's longer side."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat((centre - half, centre + half), 1)


class Pyramid(nn.Module):
    """Runs a `PNet` over a picture in many sizes, so that faces of every size fit its window.

    Args:
        net: The network.
        min_face_size: Width of the smallest face to find, in pixels.
        factor: Size of each level relative to the one before.
        threshold: Score from which a window is a candidate.
    """

    def __init__(self, net: PNet, min_face_size: float, factor: float, threshold: float) -> None:
        super().__init__()
        self.net = net
        self.min_face_size = min_face_size
        self.factor = factor
        self.threshold = threshold

    @hj.script_if_tracing
    def forward(self, picture: Tensor, coarse: int = 1) -> Tensor:
        """Proposes candidates.

        Args:
            picture: float32 `[3, h, w]`, any size.
            coarse: How many times larger than `min_face_size` a face must be.

        Returns:
            Boxes `[n, 4]`; `[0, 4]` where nothing looks like a face, or the picture is smaller than any face.
        """
        height, width = picture.size(1), picture.size(2)
        boxes = [torch.zeros((0, 4), dtype=picture.dtype, device=picture.device)]
        scores = [torch.zeros((0,), dtype=picture.dtype, device=picture.device)]
        scale = 12.0 / (self.min_face_size * coarse)
        while min(height, width) * scale >= 12.0:
            size = (math.ceil(height * scale), math.ceil(width * scale))
            level_scores, level_offsets = self.net(F.adaptive_avg_pool2d(picture, size).unsqueeze(0))
            found = level_scores[0] > self.threshold
            rows, columns = found.nonzero().unbind(1)
            corner = torch.stack((columns, rows), 1) * 2.0
            windows = (torch.cat((corner, corner + 12.0), 1) / scale).floor()  # whole pixels
            window_scores = level_scores[0][found]
            kept = suppress(windows, window_scores, 0.5)
            boxes.append(shift(windows, level_offsets[0][:, found].t())[kept])
            scores.append(window_scores[kept])
            scale = scale * self.factor
        candidates = torch.cat(boxes)
        return candidates[suppress(candidates, torch.cat(scores), 0.7)]


class FaceDetector(nn.Module):
    """Finds the faces in one picture.

    Args:
        min_face_size: Width of the smallest face to find, in pixels.
        factor: Size of each level of the image pyramid relative to the one before.
        thresholds: Scores from which the three networks let a candidate pass.
    """

    def __init__(self, min_face_size: float, factor: float, thresholds: tuple[float, float, float]) -> None:
        super().__init__()
        self.pyramid = Pyramid(PNet(), min_face_size, factor, thresholds[0])
        self.rnet = RNet()
        self.onet = ONet()
        self.rnet_threshold = thresholds[1]
        self.onet_threshold = thresholds[2]

    def forward(
        self, image: Tensor, do_landmarks: bool = True, mode: Literal["fast", "full"] = "full"
    ) -> Faces | Boxes:
        """Finds faces.

        Args:
            image: uint8 `[3, h, w]`, RGB, of any size.
            do_landmarks: Whether to return the landmarks too.
            mode: In `"fast"` mode faces must be twice as large to be found, in a quarter of the time.
        """
        picture = (image.to(torch.float32) - 127.5) * 0.0078125
        return self.describe(picture, self.refine(picture, self.propose(picture, mode)), do_landmarks)

    def propose(self, picture: Tensor, mode: Mode = "full") -> Tensor:
        """First stage: candidates `[n, 4]` in a picture, float32 `[3, h, w]` in -1..1."""
        boxes: Tensor = self.pyramid(picture, 2 if mode == "fast" else 1)
        return boxes

    def refine(self, picture: Tensor, boxes: Tensor) -> Tensor:
        """Second stage: keeps the candidates `[n, 4]` that `RNet` takes for a face, and improves their boxes."""
        boxes = squared(boxes)
        scores, offsets = self.rnet(crop(picture, boxes, 24))
        found = scores > self.rnet_threshold
        boxes, scores, offsets = boxes[found], scores[found], offsets[found]
        kept = suppress(boxes, scores, 0.7)
        return shift(boxes[kept], offsets[kept])

    def describe(self, picture: Tensor, boxes: Tensor, do_landmarks: bool = True) -> Faces | Boxes:
        """Third stage: keeps the candidates `[n, 4]` that `ONet` takes for a face, and describes them."""
        boxes = squared(boxes)
        scores, offsets, landmarks = self.onet(crop(picture, boxes, 48))
        found = scores > self.onet_threshold
        boxes, scores, offsets, landmarks = boxes[found], scores[found], offsets[found], landmarks[found]
        extent = boxes[:, 2:] - boxes[:, :2]
        landmarks = boxes[:, None, :2] + landmarks * extent[:, None]
        boxes = shift(boxes, offsets)
        kept = suppress(boxes, scores, 0.7, of_smaller=True)
        return Faces(boxes[kept], scores[kept], landmarks[kept]) if do_landmarks else Boxes(boxes[kept], scores[kept])


def build(
    data: Path = DATA,
    *,
    min_face_size: float = 20.0,
    factor: float = 0.709,
    thresholds: tuple[float, float, float] = (0.6, 0.7, 0.7),
) -> FaceDetector:
    """Makes the detector with its trained weights, in eval mode."""
    detector = FaceDetector(min_face_size, factor, thresholds)
    nets = {"pnet": detector.pyramid.net, "rnet": detector.rnet, "onet": detector.onet}
    for name, net in nets.items():
        net.load_state_dict(torch.load(data / f"{name}.pt", weights_only=True))
    return detector.eval()


def read_image(path: Path) -> Tensor:
    """Reads a photograph: uint8 `[3, h, w]`, RGB."""
    with Image.open(path) as photo:
        return torch.from_numpy(np.array(photo.convert("RGB"))).permute(2, 0, 1).contiguous()
