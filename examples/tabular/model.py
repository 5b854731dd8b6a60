"""A small network for rows of a table: with a branch, since most batches hold no outlier."""

import torch
from torch import Tensor, nn

import hybridjit as hj


class Rows(nn.Module):
    """Predicts a number from a row.

    Args:
        columns: How many columns a row has.
        width: Size of the hidden layers.
        most: From which absolute value on a column counts as an outlier, and is clipped.
    """

    def __init__(self, columns: int, width: int = 32, most: float = 1.73) -> None:
        super().__init__()
        self.most = most
        self.layers = nn.Sequential(
            nn.Linear(columns, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Takes float32 `[n, columns]`, and gives `[n]`."""
        outlying = rows.abs().amax() > self.most
        rows = hj.cond(outlying, lambda: rows.clamp(-self.most, self.most), lambda: rows)
        predicted: Tensor = self.layers(rows)
        return predicted.squeeze(1)


def table(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Makes a table: Friedman's first function of five columns in 0..1 with noise, and three that say nothing.

    Friedman 1991, "Multivariate Adaptive Regression Splines". Columns and target have mean 0 and variance 1.

    Returns:
        The columns, float32 `[rows, 8]`, and the target, float32 `[rows]`.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(rows, 8, generator=generator)
    y = 10 * (torch.pi * x[:, 0] * x[:, 1]).sin() + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y = y + torch.randn(rows, generator=generator)
    return (x - 0.5) * 12**0.5, (y - y.mean()) / y.std()
