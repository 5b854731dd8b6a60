"""Models and inputs, small: what the builders have in common."""

from importlib import import_module
from typing import Any

import torch
from torch import Tensor

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 99,
    "max_position_embeddings": 64,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 64,
    "patch_size": 8,
}


def library(name: str) -> Any:
    """A package that is not there when the types are checked."""
    return import_module(name)


def configured(model: str, config: str, **settings: Any) -> Any:
    """A model of transformers from its configuration."""
    transformers = library("transformers")
    return getattr(transformers, model)(getattr(transformers, config)(**settings)).eval()


def ids(batch: int, length: int, vocabulary: int = 99) -> Tensor:
    """Tokens, none of them special."""
    return torch.randint(3, vocabulary, (batch, length))


def mask(batch: int, length: int, *padded: int) -> Tensor:
    """Ones, with so many zeros at the end of each of the first rows."""
    result = torch.ones(batch, length, dtype=torch.long)
    for row, count in enumerate(padded):
        if count:
            result[row, -count:] = 0
    return result


def picture(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width)


def shade(height: int, width: int) -> Tensor:
    """One picture with values from 0 to 1, as detectors of torchvision take it."""
    return torch.rand(3, height, width)
