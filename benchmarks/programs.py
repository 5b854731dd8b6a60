"""Control flow twice: as hybridjit takes it, and as one writes it for `torch.jit.script`."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import hybridjit as hj


def block() -> nn.Sequential:
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))


class Cond(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return hj.cond(x.sum() > 0, lambda: x * 2, lambda: x - 1)


class ScriptedCond(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x - 1


class Submodules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = block(), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = hj.cond(x.sum() > 0, self.large, self.small, (x,))
        return y


class ScriptedSubmodules(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = block(), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            y: Tensor = self.large(x)
        else:
            y = self.small(x)
        return y


class Switch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        steps: list[Callable[[Tensor], Tensor]] = [lambda x: x + 1, lambda x: x * 2, lambda x: x.relu(), lambda x: -x]
        return hj.switch(x.argmax(), steps, (x,))


class ScriptedSwitch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        index = x.argmax()
        if index <= 0:
            y = x + 1
        elif index <= 1:
            y = x * 2
        elif index <= 2:
            y = x.relu()
        else:
            y = -x
        return y


class Paths(nn.Module):
    @hj.branch_if_tracing
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 0:
            return x.new_zeros(())
        if x.max() > 1:
            x = x / x.max()
        return x.mean()


class ScriptedPaths(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 0:
            return torch.zeros((), dtype=x.dtype, device=x.device)
        if x.max() > 1:
            x = x / x.max()
        return x.mean()


class While(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return hj.while_loop(lambda x: x.sum() > 1, lambda x: (x * 0.9,), (x,))[0]


class ScriptedWhile(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        while x.sum() > 1:
            x = x * 0.9
        return x


class Fori(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return hj.fori_loop(0, x.shape[0], lambda i, y: y + x[i], torch.zeros_like(x[0]))


class ScriptedFori(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.zeros_like(x[0])
        for i in range(x.shape[0]):
            y = y + x[i]
        return y


class Scan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        def step(state: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
            state = torch.tanh(self.cell(state) + row)
            return state, state

        return hj.scan(step, torch.zeros(16), x)[1]


class ScriptedScan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros(16)
        states: list[Tensor] = []
        for i in range(x.shape[0]):
            state = torch.tanh(self.cell(state) + x[i])
            states.append(state)
        return torch.stack(states)


class Map(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return hj.map(lambda row: row.sort().values.cumsum(0), x)


class ScriptedMap(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rows: list[Tensor] = []
        for i in range(x.shape[0]):
            rows.append(x[i].sort().values.cumsum(0))
        return torch.stack(rows)


@dataclass(frozen=True)
class Program:
    """One control flow.

    Attributes:
        name: What it is.
        ours: The module with hybridjit's function.
        scripted: The same for `torch.jit.script`, with the same weights.
        inputs: Inputs that take different paths; the first one is traced.
    """

    name: str
    ours: nn.Module
    scripted: nn.Module
    inputs: tuple[Tensor, ...]


def programs() -> list[Program]:
    torch.manual_seed(0)
    signs = (torch.ones(4, 16), -torch.ones(4, 16))
    picks = tuple(torch.eye(4)[index] for index in range(4))
    rows = torch.randn(50, 16)
    pairs: list[tuple[str, nn.Module, nn.Module, tuple[Tensor, ...]]] = [
        ("cond", Cond(), ScriptedCond(), signs),
        ("cond, submodules", Submodules(), ScriptedSubmodules(), signs),
        ("switch of 4", Switch(), ScriptedSwitch(), picks),
        ("branch_if_tracing, 3 paths", Paths(), ScriptedPaths(), (torch.ones(8), torch.full((8,), 2.0), torch.ones(0))),
        ("while_loop, 40 rounds", While(), ScriptedWhile(), (torch.ones(64),)),
        ("fori_loop, 50 rounds", Fori(), ScriptedFori(), (rows,)),
        ("scan, 50 steps", Scan(), ScriptedScan(), (rows,)),
        ("map, 50 rows", Map(), ScriptedMap(), (rows,)),
    ]
    for _, ours, scripted, _ in pairs:
        scripted.load_state_dict(ours.state_dict())
    return [Program(name, ours.eval(), scripted.eval(), inputs) for name, ours, scripted, inputs in pairs]
