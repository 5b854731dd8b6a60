"""Attributes are read once where blocks have them in common."""

import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit import _torch
from hybridjit.export.reads import share_reads


class Layers(nn.Module):
    """Uses one layer on both sides of a branch, another on one side and after it, a third within a branch alone."""

    def __init__(self) -> None:
        super().__init__()
        self.both = nn.Linear(3, 3)
        self.after = nn.Linear(3, 3)
        self.alone = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Branches, in one side again."""
        if x.sum() > 0:
            x = self.after(self.both(x))
            if x.max() > 1:
                x = self.alone(self.both(x))
        else:
            x = self.both(x) - 1
        return self.after(x)


def reads(module: _torch.ScriptModule) -> list[str]:
    """The names that a module's graphs read, each as often as it stands there."""
    graphs = _torch.method_graphs(module).values()
    return [node.s("name") for graph in graphs for node in _torch.every_node(graph) if node.kind() == "prim::GetAttr"]


def test_each_attribute_is_read_once() -> None:
    """A file has one read of each parameter, whichever blocks use it, and computes what the model does."""
    model = Layers().eval()
    exported = hj.export(model, torch.ones(2, 3), branches="auto")
    assert sorted(reads(exported.module.model)) == sorted(["both", "after", "alone", *["weight", "bias"] * 3])
    for x in (torch.ones(2, 3), -torch.ones(2, 3), torch.full((1, 3), 9.0)):
        torch.testing.assert_close(exported(x), model(x))


def test_what_a_module_sets_is_read_again() -> None:
    """Where a method sets an attribute, all reads stay."""

    class Sets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = torch.zeros(())

        def forward(self, x: Tensor) -> Tensor:
            if bool(x.sum() > 0):
                self.count = self.count + 1
            return x + self.count

    module = torch.jit.script(Sets())
    before = reads(module)
    share_reads(module)
    assert reads(module) == before and before.count("count") > 1
    assert torch.equal(module(torch.ones(2)), torch.full((2,), 2.0))
