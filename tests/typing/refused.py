"""What type checkers refuse. Checked, never run.

Each line that is wrong says so for both checkers; a comment that silences nothing is an error.
"""

from torch import Tensor, nn

import hybridjit as hj


@hj.script_if_tracing
def keep(boxes: Tensor, most: int, *, threshold: float = 0.5) -> Tensor:
    return boxes[:most]


class Head(nn.Module):
    @hj.script_if_tracing
    def pair(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


def calls(x: Tensor, head: Head, model: nn.Module) -> None:
    keep(x)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    keep(x, "3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    keep(x, 3, 0.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    keep(x, 3, limit=0.5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    number: int = keep(x, 3)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    head.pair()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    head.pair(head, x)  # type: ignore[call-arg, arg-type]  # pyright: ignore[reportCallIssue]
    head.pair(x, times=number)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    tensor: Tensor = head.pair(x)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    hj.script_if_tracing(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    hj.static(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    hj.export(tensor, (x,))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    hj.export(model, (x,), None, "torchscript")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    hj.export(keep, (x,))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    name: str = hj.export(nn.Linear(2, 3), x)(x)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    held: hj.Exported[str] = hj.export(nn.ReLU(), x)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    held(name)
    hj.load(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
