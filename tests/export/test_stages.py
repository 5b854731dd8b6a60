"""What an export is doing is told by stage."""

import threading

import torch
from torch import nn

import hybridjit as hj
from hybridjit.export.stages import listening, stage


def test_stages_of_an_export_with_flags_and_of_a_verification() -> None:
    """Each entry's capture is told, each device's checks with their number, and nothing after the end."""

    class Model(nn.Module):
        def forward(self, x: torch.Tensor, twice: bool = False) -> torch.Tensor:
            return x * 2 if twice else x + 1

    seen: list[str] = []
    model = Model().eval()
    with listening(seen.append):
        exported = hj.export(model, torch.ones(2), flags={"twice": (False, True)}, devices=["cpu"])
    assert seen == [
        "capture forward(twice=False)",
        "capture forward(twice=True)",
        "save, and load again",
        "check on cpu (2 calls)",
    ]
    seen.clear()
    with listening(seen.append):
        hj.verify(exported, model, [torch.ones(3), torch.ones(4)])
    assert seen == ["check on cpu (4 calls)"]
    seen.clear()
    stage("after")
    assert seen == []


def test_threads_are_told_apart() -> None:
    """What another thread does is not told to this one."""
    seen: list[str] = []
    with listening(seen.append):
        other = threading.Thread(target=stage, args=("elsewhere",))
        other.start()
        other.join()
        stage("here")
    assert seen == ["here"]
