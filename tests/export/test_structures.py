"""Check inputs of another structure become further entries, chosen by structure and static values at the call."""

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj

X, Y = torch.randn(3, 4), torch.randn(2, 4)


class Many(nn.Module):
    """Takes a list of images, a mask or none, and how often."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, images: list[Tensor], mask: Tensor | None = None, times: int = 1) -> dict[str, Any]:
        out = [self.linear(image) * times for image in images]
        return {"out": out} if mask is None else {"out": out, "masked": out[0] * mask}


@pytest.fixture
def model() -> Many:
    return Many().eval().requires_grad_(False)


CALLS: dict[str, hj.Inputs] = {
    "one": hj.Inputs([X]),
    "one of another size": hj.Inputs([Y]),
    "two": hj.Inputs([X, Y]),
    "a mask": hj.Inputs([X], X),
    "another number": hj.Inputs([X], times=3),
    "both": hj.Inputs([X, Y], times=3),
}


def test_each_structure_is_an_entry(model: Many, tmp_path: Path) -> None:
    """Lists of other lengths, a tensor for a None and another number are each captured, and chosen by the call."""
    first, *others = CALLS.values()
    hj.export(model, first, check_inputs=others).save(tmp_path / "model.pt")
    exported = hj.load(tmp_path / "model.pt")
    assert [entry.method for entry in exported.report.entries] == ["forward", *(f"forward_{i}" for i in range(2, 6))]
    assert [check.entry for check in exported.report.checks][:3] == ["forward", "forward", "forward_2"]
    for call in CALLS.values():
        torch.testing.assert_close(exported(*call.args, **call.kwargs), model(*call.args, **call.kwargs))
    torch.testing.assert_close(exported([X], None, 1), model([X]))  # a default, said


def test_they_are_methods_in_the_file(model: Many) -> None:
    """A program without Python calls them by the names that the report lists."""
    exported = hj.export(model, CALLS["one"], check_inputs=[CALLS["two"], CALLS["a mask"]])
    assert [(e.method, e.arguments, e.results) for e in exported.report.entries] == [
        ("forward", ("images_0",), ("result['out'][0]",)),
        ("forward_2", ("images_0", "images_1"), ("result['out'][0]", "result['out'][1]")),
        ("forward_3", ("images_0", "mask"), ("result['out'][0]", "result['masked']")),
    ]
    buffer = io.BytesIO()
    torch.jit.save(exported.module, buffer)
    buffer.seek(0)
    module = torch.jit.load(buffer)
    torch.testing.assert_close(module.forward_2(X, Y), tuple(model([X, Y])["out"]))
    assert len(list(module.parameters())) == 2


def test_one_that_is_not_there(model: Many) -> None:
    """Another structure or value is refused with what is there."""
    exported = hj.export(model, CALLS["one"], check_inputs=[CALLS["two"]])
    with pytest.raises(hj.InputError) as error:
        exported([X, X, X])
    assert str(error.value).splitlines() == [
        "the call has another structure than the 2 captured ones",
        "  - forward: images: expected list of 1, got list of 3",
        "  - forward_2: images: expected list of 2, got list of 3",
        "  write instead: a call of a captured structure, or export the model with this one among check_inputs",
        "  see docs/errors.md#inputerror",
    ]
    with pytest.raises(hj.InputError, match="forward_2: times: was left to its default when captured, can't be given"):
        exported([X], times=2)


def test_with_flags(model: Many) -> None:
    """Each structure has every combination of flags."""
    exported = hj.export(model, CALLS["one"], check_inputs=[CALLS["two"]], flags={"times": (1, 2)})
    assert [(e.method, e.flags) for e in exported.report.entries] == [
        ("forward", "times=1"),
        ("forward", "times=2"),
        ("forward_2", "times=1"),
        ("forward_2", "times=2"),
    ]
    torch.testing.assert_close(exported([X, Y], times=2), model([X, Y], times=2))
    torch.testing.assert_close(exported.module.forward_2(X, Y, 2), tuple(model([X, Y], times=2)["out"]))
    with pytest.raises(hj.InputError, match="got times=3"):
        exported([X], times=3)


class Bool(nn.Module):
    def forward(self, x: Tensor, how: object) -> Tensor:
        return x * (2 if how is True else 3 if how == 1 else 4)


def test_types_of_static_values_count() -> None:
    """``True``, ``1`` and ``"1"`` are three."""
    exported = hj.export(Bool().eval(), (X, True), check_inputs=[(X, 1), (X, "1")])
    for how in (True, 1, "1"):
        torch.testing.assert_close(exported(X, how), Bool()(X, how))


class Second(nn.Module):
    """Wrong for two tensors while it is traced."""

    def forward(self, xs: list[Tensor]) -> Tensor:
        return xs[0] * (2 if len(xs) == 2 and hj.is_tracing() else 1)


def test_a_wrong_structure_fails_by_name() -> None:
    """The error names the entry and the check input."""
    with pytest.raises(hj.VerificationError) as error:
        hj.export(Second().eval(), ([X],), check_inputs=[([X, X],)])
    row = str(error.value).splitlines()[2]
    assert row.startswith("  - cpu, forward_2, check_inputs[0] (xs_0 float32[3, 4], xs_1 float32[3, 4]): result: 12 of")


def test_verify_later(model: Many) -> None:
    """`verify` compares each call on the entry of its structure, and refuses a structure that is not there."""
    exported = hj.export(model, CALLS["one"], check_inputs=[CALLS["two"]])
    report = hj.verify(exported, model, [CALLS["two"], CALLS["one"]])
    assert report.ok and [check.entry for check in report.checks] == ["forward_2", "forward"]
    with pytest.raises(hj.InputError, match="another structure than the 2 captured ones\n  at check_inputs"):
        hj.verify(exported, model, [CALLS["a mask"]])


def test_an_input_that_does_not_fit(model: Many) -> None:
    """A check input that is no call of the model, or holds something without a flat side, is named."""
    with pytest.raises(hj.InputError, match=r"don't fit the model's forward\n  at check_inputs\[0\]"):
        hj.export(model, CALLS["one"], check_inputs=[hj.Inputs([X], y=1)])
    with pytest.raises(hj.InputError, match=r"at check_inputs\[0\].args\[0\]\[0\]"):
        hj.export(model, CALLS["one"], check_inputs=[([object()],)])


def test_entries_share_places_that_torch_has_dropped() -> None:
    """The operations of a second structure come from lines of which the first one's were folded away."""

    class Bright(nn.Module):
        def forward(self, images: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
            return [self.found(image) for image in images]

        def found(self, image: Tensor) -> tuple[Tensor, Tensor]:
            rows = image.flatten(1).T
            rows = rows[rows.mean(1) > 0.5]
            return rows.repeat(1, 2)[:, :4], rows.mean(1)

    image = torch.rand(3, 8, 8)
    exported = hj.export(Bright().eval(), ([image],), check_inputs=[([image, image],)])
    for found, wanted in zip(exported([image, image]), Bright()([image, image]), strict=True):
        assert torch.equal(found[0], wanted[0]) and torch.equal(found[1], wanted[1])
