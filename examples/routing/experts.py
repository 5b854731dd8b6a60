"""A mixture of experts: each token goes to two of the experts, and an expert that gets none does not run.

Shazeer et al. 2017, "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer".
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

import hybridjit as hj


class Routed(NamedTuple):
    """What the experts made of the tokens.

    Attributes:
        tokens: float32 `[b, n, width]`.
        load: int64 `[experts]`, how many tokens each expert got.
        finish: int64 `[]`, the finishing network that all tokens went through.
    """

    tokens: Tensor
    load: Tensor
    finish: Tensor


class Experts(nn.Module):
    """Sends every token to the experts that its router scores best, and all of them through one finishing network.

    Args:
        width: Size of a token.
        experts: How many experts there are.
        best: How many of them a token goes to.
    """

    def __init__(self, width: int, experts: int, best: int = 2) -> None:
        super().__init__()
        self.best = best
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(feed_forward(width) for _ in range(experts))
        self.finishes = nn.ModuleList([nn.Identity(), nn.LayerNorm(width), feed_forward(width)])

    def forward(self, batch: Tensor) -> Routed:
        """Routes tokens `[b, n, width]`; `b` and `n` may be 0."""
        tokens = batch.flatten(0, 1)
        weights, chosen = self.router(tokens).softmax(1).topk(self.best, 1)
        mixed = torch.zeros_like(tokens)
        for number, expert in enumerate(self.experts):
            places, ranks = (chosen == number).nonzero().unbind(1)
            mixed = add_share(mixed, tokens, expert, places, weights[places, ranks])
        load = torch.stack([(chosen == number).sum() for number in range(len(self.experts))])
        finish = (load == 0).sum()  # the more experts are unused, the more there is to finish
        finished = hj.switch(finish, list(self.finishes), (mixed,))
        return Routed(finished.view_as(batch), load, finish.clamp(max=len(self.finishes) - 1))


@hj.branch_if_tracing
def add_share(mixed: Tensor, tokens: Tensor, expert: nn.Module, places: Tensor, weights: Tensor) -> Tensor:
    """Adds what an expert makes of its tokens, those at `places` `[k]`, times `weights` `[k]`."""
    if places.numel() == 0:
        return mixed
    return mixed.index_add(0, places, expert(tokens[places]) * weights[:, None])


def feed_forward(width: int) -> nn.Sequential:
    """The usual network for one token."""
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


def build() -> Experts:
    """Four experts, untrained, in eval mode."""
    torch.manual_seed(0)
    return Experts(width=16, experts=4).eval()


def draw(generator: torch.Generator) -> Tensor:
    """Random tokens: now and then none, often few, so that not every expert gets one."""
    b, n = (int(torch.randint(0, most, (), generator=generator)) for most in (4, 7))
    return torch.randn(b, n, 16, generator=generator)


def path_of(routed: Routed) -> str:
    """The path that a batch took, in words."""
    used = int((routed.load > 0).sum())
    return f"{used} of {len(routed.load)} experts" if used else "no tokens"
