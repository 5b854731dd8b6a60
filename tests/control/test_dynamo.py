"""Everything that model code may use, under `torch.compile(fullgraph=True)`, training included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj


@hj.script_if_tracing
def on_sizes(x: Tensor, n: int) -> Tensor:
    if x.shape[0] > n:
        x = x[:n]
    for _ in range(3):
        x = x * 1.1
    return x


@hj.script_if_tracing
def on_data(x: Tensor) -> Tensor:
    if x.sum() > 0:
        return x * 2
    return x - 1


@hj.branch_if_tracing
def paths(x: Tensor) -> Tensor:
    if x.sum() > 0:
        return x * 2
    if x.max() > -1:
        return x.sin()
    return x - 1


def count(x: Tensor) -> Tensor:
    last = hj.while_loop(lambda n, y: n < 3, lambda n, y: (n + 1, y * 0.9 + x), (torch.tensor(0), x))
    return last[1]


FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "script_if_tracing": lambda x: on_sizes(x, 3),
    "script_if_tracing, on data": lambda x: on_data(x),
    "branch_if_tracing": lambda x: paths(x),
    "cond": lambda x: hj.cond(x.sum() > 0, lambda: x * 2, lambda: x),
    "switch": lambda x: hj.switch((x.sum() > 0).long() + 1, [lambda x: x, lambda x: x * 2, lambda x: x.sin()], (x,)),
    "while_loop": count,
    "fori_loop": lambda x: hj.fori_loop(0, 3, lambda i, y: y * 0.9 + i, x),
    "scan": lambda x: hj.scan(lambda c, row: (c + row, c * row), x[0] * 0, x)[1],
    "map": lambda x: hj.map(lambda row: row * row.sum(), x),
    "static": lambda x: x.reshape(-1, hj.static(x.shape[1], reason="the width")) * hj.static(2, reason="two"),
    "is_tracing": lambda x: x.double().float() if hj.is_tracing() else x,
    "is_exporting": lambda x: x * 3 if hj.is_exporting() else x * 2,
    "device_dependent": lambda x: hj.device_dependent(x, cpu=lambda x: x * 2, default=lambda x: x + x),
}


class Network(nn.Module):
    def __init__(self, fn: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)
        self.fn = fn

    def forward(self, x: Tensor) -> Any:
        return self.second(self.fn(self.first(x)))


def trained(model: nn.Module, run: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """The losses of a few steps, and the parameters after them."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    losses = []
    for rows, sign in ((4, 1.0), (4, -1.0), (6, -5.0)):
        x = sign * torch.rand(rows, 4, generator=torch.Generator().manual_seed(rows))
        optimizer.zero_grad()
        loss = run(x).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach())
    return losses + [parameter.detach() for parameter in model.parameters()]


def test_all_functions_are_here() -> None:
    """The table has every public function of `hybridjit.control`."""
    names = {name.partition(",")[0] for name in FUNCTIONS}
    public = {name for name in vars(hj) if getattr(vars(hj)[name], "__module__", "").startswith("hybridjit.control")}
    assert names == public


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_training(name: str, dynamic: bool) -> None:
    """Forward, backward and the optimizer's step give what they give in eager mode, in one graph."""
    torch._dynamo.reset()
    eager, model = Network(FUNCTIONS[name]), Network(FUNCTIONS[name])
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    torch.testing.assert_close(trained(model, compiled), trained(eager, eager))


@hj.script_if_tracing
def rounds(x: Tensor) -> Tensor:
    while bool(x.sum() > 1):
        x = x / 2
    return x


def test_what_dynamo_refuses() -> None:
    """A Python loop on data is no loop that Dynamo can have: the error says to write `while_loop`."""
    torch._dynamo.reset()
    with pytest.raises(Exception, match="while") as caught:
        torch.compile(lambda x: rounds(x), fullgraph=True, backend="eager")(torch.ones(3))
    assert "while_loop" in str(caught.value)
