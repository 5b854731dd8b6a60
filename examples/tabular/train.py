"""Cross-validated training."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .model import Rows


@dataclass(frozen=True)
class Fold:
    """One part of the table held back, and a network trained on the rest.

    Attributes:
        model: The network.
        training: The mean squared error on the other parts, by epoch.
        held_back: That on the part held back; a network that always says the mean has 1.
    """

    model: nn.Module
    training: list[float]
    held_back: list[float]


def cross_validate(
    x: Tensor, y: Tensor, compiled: Callable[[nn.Module], nn.Module], folds: int = 5, epochs: int = 40
) -> list[Fold]:
    """Trains a network for each part of a table that is held back.

    Args:
        x: The columns.
        y: The target.
        compiled: Makes of a network what is trained: ``lambda model: torch.compile(model, backend="hybridjit")``.
        folds: How many parts there are.
        epochs: How often each network sees its rows.
    """
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    parts = order.tensor_split(folds)
    found = []
    for number, part in enumerate(parts):
        rest = torch.cat([other for other in parts if other is not part])
        torch.manual_seed(number)
        model = Rows(x.shape[1])
        found.append(_train(model, compiled(model), (x[rest], y[rest]), (x[part], y[part]), epochs))
    return found


def _train(
    model: nn.Module, run: nn.Module, seen: tuple[Tensor, Tensor], held_back: tuple[Tensor, Tensor], epochs: int
) -> Fold:
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    training, validation = [], []
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(seen[1])).split(100):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(run(seen[0][batch]), seen[1][batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += float(loss.detach()) * len(batch)
        training.append(total / len(seen[1]))
        with torch.no_grad():
            validation.append(float(nn.functional.mse_loss(run(held_back[0]), held_back[1])))
    return Fold(model, training, validation)
