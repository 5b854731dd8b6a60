"""A transformer that is as deep as its input needs: it leaves after the first layer that is sure enough.

Schwartz et al. 2020, "The Right Tool for the Job: Matching Model and Instance Complexities".
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

import hybridjit as hj


class Prediction(NamedTuple):
    """What the transformer says of a batch.

    Attributes:
        classes: float32 `[b, classes]`, probabilities.
        depth: int64 `[]`, how many layers it took.
    """

    classes: Tensor
    depth: Tensor


class AdaptiveDepth(nn.Module):
    """Classifies sequences, and stops at the first layer whose own classifier is sure of every one of them.

    Args:
        words: Size of the vocabulary.
        width: Size of a token.
        layers: How many layers there are at most.
        classes: How many classes to tell apart.
        sure: The probability from which a prediction counts as sure.
    """

    def __init__(self, words: int, width: int, layers: int, classes: int, sure: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 2, 2 * width, batch_first=True) for _ in range(layers)
        )
        self.classifiers = nn.ModuleList(nn.Linear(width, classes) for _ in range(layers))
        self.sure = sure

    @hj.branch_if_tracing
    def forward(self, words: Tensor) -> Prediction:
        """Classifies word indices, int64 `[b, n]`, n at least 1."""
        x = self.embed(words)
        depth = 0
        for layer, classifier in zip(self.layers, self.classifiers, strict=True):
            depth += 1
            x = layer(x)
            classes = classifier(x.mean(1)).softmax(1)
            if (classes.amax(1) > self.sure).all():
                break
        return Prediction(classes, torch.full((), depth))


def build() -> AdaptiveDepth:
    """Four layers, untrained, in eval mode."""
    torch.manual_seed(0)
    model = AdaptiveDepth(words=50, width=16, layers=4, classes=3, sure=0.8)
    for parameter in model.classifiers.parameters():
        nn.init.normal_(parameter)  # larger than by default: sure of some inputs without training
    return model.eval()


def draw(generator: torch.Generator) -> Tensor:
    """Random words: one to three sequences of one to nine words."""
    b, n = (int(torch.randint(1, most, (), generator=generator)) for most in (4, 10))
    return torch.randint(0, 50, (b, n), generator=generator)


def path_of(prediction: Prediction) -> str:
    """The path that a batch took, in words."""
    return f"{int(prediction.depth)} of 4 layers"
