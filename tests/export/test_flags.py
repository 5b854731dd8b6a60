"""Flags: several combinations in one file, each verified, chosen at the call."""

import copy
import io
import json
import re
from collections import namedtuple
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.export.flags import read_flags

X = torch.randn(3, 4)


class Found(namedtuple("Found", ("boxes", "keypoints"))):
    """A result of the model's own."""


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mask_on = True


class Model(nn.Module):
    """Keywords and an attribute of a submodule decide what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.heads = Heads()
        self.top = 2

    def forward(self, image: Tensor, do_keypoint: bool = True, mode: str = "fast") -> Any:
        boxes = self.linear(image) * (2 if mode == "full" else 1)
        if self.heads.mask_on:
            boxes = boxes + self.top
        return Found(boxes, boxes + 1) if do_keypoint else boxes


@pytest.fixture
def model() -> Model:
    return Model().eval().requires_grad_(False)


def loaded(exported: hj.Exported, folder: Path) -> hj.Exported:
    exported.save(folder / "model.pt")
    return hj.load(folder / "model.pt")


FLAGS: dict[str, Sequence[bool | int | str]] = {
    "do_keypoint": (True, False),
    "mode": ("fast", "full"),
    "heads.mask_on": (True, False),
    "top": range(1, 3),
}


def test_every_combination(model: Model, tmp_path: Path) -> None:
    """Every combination of keywords and attributes gives what the model gives, of the model's own types."""
    exported = hj.export(model, X, flags=FLAGS, check_inputs=[torch.randn(1, 4)])
    assert len(exported.report.entries) == 16 and len(exported.report.checks) == 32
    again = loaded(exported, tmp_path)
    other = torch.randn(5, 4)
    for flags in read_flags(FLAGS):
        model.heads.mask_on, model.top = bool(flags["heads.mask_on"]), int(flags["top"])
        keywords = {key: flags[key] for key in ("do_keypoint", "mode")}
        expected = model(other, **keywords)
        got = again(other, mask_on=flags["heads.mask_on"], top=flags["top"], **keywords)
        assert type(got) is type(expected)
        torch.testing.assert_close(got, expected)


def test_defaults_are_the_models(model: Model) -> None:
    """A flag that a call leaves out is the signature's default, or what the attribute was at the export."""
    model.top = 1
    exported = hj.export(model, X, flags=FLAGS)
    torch.testing.assert_close(exported(X), model(X))
    torch.testing.assert_close(exported(X, False, "full"), model(X, False, "full"))  # by position too
    model.top = 2
    assert not torch.equal(exported(X).boxes, model(X).boxes)


def test_the_model_comes_back(model: Model) -> None:
    """The attributes are what they were, after an export and after one that fails."""
    before = copy.deepcopy(vars(model.heads)), model.top, dict(model.__dict__)
    hj.export(model, X, flags=FLAGS)
    with pytest.raises(hj.CaptureError):
        hj.export(model, torch.randn(3, 5), flags={"top": (1, 2)})
    assert (vars(model.heads), model.top, dict(model.__dict__)) == before


def test_the_file_switches_without_python(model: Model) -> None:
    """``torch.jit.load`` sees a ``forward`` with the flags as arguments, and a dict where the results differ."""
    module = reloaded(hj.export(model, X, flags={"do_keypoint": (True, False), "mode": ("fast", "full")}).module)
    schema = str(module.forward.schema)
    assert re.search(r'Tensor image, bool do_keypoint=True, str mode="fast"\) -> Dict\(str, Tensor\)', schema)
    assert list(module(X)) == ["result.boxes", "result.keypoints"] and list(module(X, False)) == ["result"]
    torch.testing.assert_close(module(X, False, "full")["result"], model(X, False, "full"))
    with pytest.raises(torch.jit.Error, match="hybridjit: forward has no do_keypoint=True, mode='slow'; it has"):
        module(X, True, "slow")


def reloaded(module: Any) -> Any:
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


def test_same_results_come_as_without_flags(model: Model) -> None:
    """Where all combinations return the same, ``forward`` in the file returns a tensor or a tuple."""
    module = hj.export(model, X, flags={"mode": ("fast", "full")}).module
    boxes, keypoints = module(X, "full")
    torch.testing.assert_close((boxes, keypoints), tuple(model(X, mode="full")))
    single = hj.export(model, hj.Inputs(X, do_keypoint=False), flags={"mode": ("fast", "full")}).module
    assert isinstance(single(X, "full"), Tensor)


def test_listed_combinations(model: Model) -> None:
    """Of a list only these are in the file; another one is refused with what is there."""
    exported = hj.export(
        model, X, flags=[{"do_keypoint": True, "mode": "fast"}, {"do_keypoint": False, "mode": "full"}]
    )
    torch.testing.assert_close(exported(X, do_keypoint=False, mode="full"), model(X, False, "full"))
    with pytest.raises(hj.InputError) as error:
        exported(X, do_keypoint=False)
    assert str(error.value).splitlines() == [
        "forward is not there with this combination of flags",
        "  - got do_keypoint=False, mode='fast'",
        "  - there is do_keypoint=True, mode='fast'",
        "  - there is do_keypoint=False, mode='full'",
        "  write instead: one of these, or export with it in flags=[{...}, {...}]",
        "  see docs/errors.md#inputerror",
    ]
    with pytest.raises(hj.InputError, match="got do_keypoint=1, mode='fast'"):
        exported(X, do_keypoint=1)
    with pytest.raises(hj.InputError, match=r"got do_keypoint=float32\[\] cpu, mode='fast'"):
        exported(X, do_keypoint=torch.tensor(1.0))


def test_a_flag_without_a_default() -> None:
    """A keyword without a default must be given, and comes first in the file's ``forward``."""

    class Needs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sign = 1

        def forward(self, x: Tensor, *, times: int) -> Tensor:
            return x * times * self.sign

    exported = hj.export(Needs().eval(), X, flags={"sign": (1, -1), "times": (2, 3)})
    torch.testing.assert_close(exported(X, times=3, sign=-1), X * -3)
    torch.testing.assert_close(exported.module(X, 3, -1), X * -3)
    with pytest.raises(hj.InputError, match="got times=nothing, sign=1"):
        exported(X)


def test_names_that_meet() -> None:
    """Attributes of one name get their whole path as keyword; a flag named as a tensor is another argument."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = Heads(), Heads()

        def forward(self, xs: list[Tensor], xs_0: bool = True) -> Tensor:
            return xs[0] * (1 + self.a.mask_on + 2 * self.b.mask_on) * (5 if xs_0 else 1)

    both = (True, False)
    exported = hj.export(Two().eval(), ([X],), flags={"a.mask_on": both, "b.mask_on": both, "xs_0": both})
    torch.testing.assert_close(exported([X], a_mask_on=False, b_mask_on=True, xs_0=True), X * 15)
    module: Any = exported.module
    names = [each.name for each in module.forward.schema.arguments[1:]]
    assert names == ["xs_0", "a_mask_on", "b_mask_on", "xs_0_"]


def test_flags_of_a_keyword_dict() -> None:
    """A flag that ``forward`` takes among its ``**kwargs`` is one too."""

    class Open(nn.Module):
        def forward(self, x: Tensor, **options: Any) -> Tensor:
            return x * 2 if options["twice"] else x

    exported = hj.export(Open().eval(), X, flags={"twice": (True, False)})
    torch.testing.assert_close(exported(X, twice=True), 2 * exported(X, twice=False))


def test_a_property_is_an_attribute() -> None:
    """A flag may be a property that can be set."""

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._times = 1

        @property
        def times(self) -> int:
            return self._times

        @times.setter
        def times(self, value: int) -> None:
            self._times = value

        def forward(self, x: Tensor) -> Tensor:
            return x * self._times

    model = Holder().eval()
    exported = hj.export(model, X, flags={"times": (1, 2)})
    torch.testing.assert_close(exported(X, times=2), X * 2)
    assert model.times == 1 and not exported.report.findings


class Wrong(nn.Module):
    """With one value of its flag the trace is not the model."""

    def forward(self, x: Tensor, exact: bool = True) -> Tensor:
        return x * 2 if exact or hj.is_tracing() else x


def test_a_wrong_combination_fails_by_name() -> None:
    """The error says which combination differs, and on which input."""
    with pytest.raises(hj.VerificationError) as error:
        hj.export(Wrong().eval(), X, flags={"exact": (True, False)})
    lines = str(error.value).splitlines()
    assert lines[0] == "the exported file is not the model: 1 of 2 checks failed, and no file was written"
    assert lines[2].startswith("  - cpu, forward(exact=False), input (x float32[3, 4]): result: 12 of 12 values differ")
    report = error.value.report
    assert report is not None
    assert [(check.entry, check.passed) for check in report.checks] == [
        ("forward(exact=True)", True),
        ("forward(exact=False)", False),
    ]


class Fails(nn.Module):
    def forward(self, x: Tensor, good: bool = True) -> Tensor:
        if not good:
            raise ValueError("not this one")
        return x


def test_a_combination_that_the_model_refuses() -> None:
    """The error says for which combination the model raises."""
    with pytest.raises(hj.CaptureError) as error:
        hj.export(Fails().eval(), X, flags={"good": (True, False)})
    assert str(error.value).splitlines()[:3] == [
        "the model itself raises on input",
        "  for forward(good=False)",
        "  at Fails",
    ]


REFUSED: dict[str, Any] = {
    "expected values by name, or a list of combinations, got int": 3,
    "expected values by name, or a list of combinations, got str": "mode",
    "expected values by name, or a list of combinations, got list": [],
    "expected values by name, or a list of combinations, got dict": {},
    "mode: expected a tuple of values, got str": {"mode": "fast"},
    "mode: expected a tuple of values, got none": {"mode": ()},
    "mode: expected values that are all bool, all int or all str, got bool, str": {"mode": ("fast", True)},
    "mode: expected values that are all bool, all int or all str, got NoneType": {"mode": (None,)},
    "top: expected values that are all bool, all int or all str, got float": {"top": (1.5,)},
    "combination 1: expected 'mode', got 'top'": [{"mode": "fast"}, {"top": 1}],
    "modes: expected a keyword of forward, or the path of an attribute, got neither": {"modes": ("fast",)},
    "heads.mask: expected a keyword of forward, or the path of an attribute": {"heads.mask": (True,)},
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused(message: str, model: Model) -> None:
    """What is no set of flags of this model is refused, with what was given."""
    with pytest.raises(hj.InputError, match=re.escape(message)) as error:
        hj.export(model, X, flags=REFUSED[message])
    assert str(error.value).splitlines()[-3:] == [
        '  write instead: flags={"do_keypoint": (True, False), "mode": ("fast", "full")}',
        '    or flags=[{"do_keypoint": True}, …]',
        "  see docs/errors.md#inputerror",
    ]


def test_an_attribute_of_a_script_module() -> None:
    """A script module reads its attributes when it runs, so that a trace can't hold one fast."""

    class Scripted(nn.Module):
        on: bool

        def __init__(self) -> None:
            super().__init__()
            self.on = True

        def forward(self, x: Tensor) -> Tensor:
            return x * 2 if self.on else x

    model = nn.Sequential(torch.jit.script(Scripted())).eval()
    with pytest.raises(hj.InputError, match=r"0\.on: is an attribute of a script module, which reads it when it runs"):
        hj.export(model, X, flags={"0.on": (True, False)})


def test_repeated_combinations_are_one(model: Model) -> None:
    """A combination that is listed twice is exported once."""
    assert len(hj.export(model, X, flags=[{"top": 1}, {"top": 1}, {"top": 2}]).report.entries) == 2


def test_one_combination(model: Model) -> None:
    """A single combination is in the file's signature too."""
    exported = hj.export(model, X, flags={"mode": ("full",)})
    torch.testing.assert_close(exported(X, mode="full"), model(X, mode="full"))
    with pytest.raises(hj.InputError, match="got mode='fast'"):
        exported(X)


def test_weights_are_there_once(model: Model, tmp_path: Path) -> None:
    """The file has each weight once, also in another dtype and saved by plain torch."""
    big = nn.Sequential(nn.Linear(512, 512), Model()).eval()
    big[1].linear = nn.Linear(512, 512).eval()
    x = torch.randn(2, 512)
    sizes = {}
    for count in (1, 4):
        exported = hj.export(big, x, flags={"1.top": range(count)})
        exported.save(tmp_path / "model.pt")
        torch.jit.save(torch.jit.load(tmp_path / "model.pt").to(torch.bfloat16), tmp_path / "half.pt")
        sizes[count] = [(tmp_path / name).stat().st_size for name in ("model.pt", "half.pt")]
    assert sizes[4][0] < 1.02 * sizes[1][0] and sizes[4][1] < 1.04 * sizes[1][1]
    assert len(list(exported.module.parameters())) == 4


def test_tied_weights_stay_tied() -> None:
    """Weights that the model has by two names are one tensor in the file, also after a change of dtype."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(500, 64)
            self.head = nn.Linear(64, 500, bias=False)
            self.head.weight = self.table.weight

        def forward(self, x: Tensor, twice: bool = False) -> Tensor:
            y = self.head(self.table(x))
            return y * 2 if twice else y

    module = reloaded(hj.export(Tied().eval(), torch.tensor([1, 2]), flags={"twice": (False, True)}).module)
    half = reloaded(module.to(torch.bfloat16))
    assert half.model.head.weight.data_ptr() == half.model.table.weight.data_ptr()


def test_verify_later(model: Model) -> None:
    """`verify` compares every combination that a call does not choose, with the attributes set on the model."""
    exported = hj.export(model, X, flags=FLAGS)
    assert len(hj.verify(exported, model, [torch.randn(2, 4)]).checks) == 16
    some = hj.verify(exported, model, [hj.Inputs(torch.randn(2, 4), do_keypoint=False, top=1)])
    assert some.ok and len(some.checks) == 4
    assert {check.entry for check in some.checks} >= {"forward(do_keypoint=False, mode='fast', mask_on=True, top=1)"}
    with torch.no_grad():
        model.linear.bias.add_(1)
    assert not hj.verify(exported, model, [X]).ok


DTYPES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "half": nn.Module.half,
    "bfloat16": nn.Module.bfloat16,
    "double": nn.Module.double,
}


@pytest.mark.parametrize("name", DTYPES)
def test_other_dtypes(name: str, model: Model) -> None:
    """Models of other dtypes are compared at the tolerances of these."""
    converted = DTYPES[name](model)
    x = X.to(next(converted.parameters()).dtype)
    exported = hj.export(converted, x, flags={"do_keypoint": (True, False), "mode": ("fast", "full")})
    assert exported.report.ok and exported(x, do_keypoint=False).dtype == x.dtype


def test_under_autocast(model: Model) -> None:
    """The casts of autocast are in the file, in every combination."""
    with torch.autocast("cpu", torch.bfloat16):
        exported = hj.export(model, X, flags={"do_keypoint": (True, False)})
        expected = model(X, do_keypoint=False)
    assert expected.dtype == torch.bfloat16
    torch.testing.assert_close(exported(X, do_keypoint=False), expected)


def test_report_lists_the_entries(model: Model) -> None:
    """The report says what the file can be called with, and survives JSON; one of an older file has none."""
    report = hj.export(model, X, flags={"do_keypoint": (True, False)}).report
    assert [line.split() for line in str(report).splitlines()[3:7]] == [
        ["entries"],
        ["method", "flags", "takes", "returns"],
        ["forward", "do_keypoint=True", "image", "result.boxes,", "result.keypoints"],
        ["forward", "do_keypoint=False", "image", "result"],
    ]
    assert hj.Report.from_json(report.to_json()) == report
    old = json.loads(report.to_json())
    del old["entries"]
    for check in old["checks"]:
        del check["entry"]
    assert hj.Report.from_json(json.dumps(old)).entries == ()


def test_a_model_of_traces() -> None:
    """A traced module within the model stays as it was, and is in the file."""

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.jit.trace(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval(), X)

        def forward(self, x: Tensor, twice: bool = False) -> Tensor:
            y: Tensor = self.inner(x)
            return y * (int(x.shape[0]) if twice else 1)

    model = Outer().eval()
    exported = hj.export(model, X, flags={"twice": (True, False)})
    torch.testing.assert_close(exported(X, twice=True), model(X, twice=True))
    assert len(model.inner.code) > 0 and hj.export(model, X).report.ok
