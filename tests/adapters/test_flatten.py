"""`TracingAdapter`: a model of rich arguments and results as one of flat tensors."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import register_pytree_node

import hybridjit as hj


class Found(NamedTuple):
    boxes: Tensor
    scores: Tensor


@dataclass
class Marked:
    x: Tensor
    size: int


@dataclass
class Bare:
    x: Tensor


torch.export.register_dataclass(Marked, serialized_type_name="tests.Marked")


class Boxes:
    def __init__(self, data: Tensor, size: tuple[int, int]) -> None:
        self.data, self.size = data, size


register_pytree_node(Boxes, lambda b: ([b.data], b.size), lambda c, s: Boxes(next(iter(c)), s))


class Call(nn.Module):
    def __init__(self, fn: Callable[..., Any]) -> None:
        super().__init__()
        self.fn = fn
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Any) -> Any:
        return self.fn(x)


X, Y = torch.tensor([1.0, 2.0]), torch.tensor([3.0])


def compared(fn: Callable[[Any], Any], first: Any, second: Any) -> Any:
    """What the export of a function gives for a second input, after comparing it with eager."""
    exported = hj.export(Call(fn).eval(), (first,), check_inputs=[(second,)])
    got, expected = exported(second), fn(second)
    assert type(got) is type(expected) and repr(got) == repr(expected)
    return got


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: {"a": x * 2, "b": [x + 1, (x, None)], 3: "text"},
        lambda x: Found(x, x * 2),
        lambda x: Marked(x * 2, x.shape[0]),
        lambda x: Bare(x * 2),
        lambda x: OrderedDict(b=x * 2, a=True),
        lambda x: [x * 2, []],
        lambda x: (x * 2,),
        lambda x: x * 2,
        lambda x: x,
        lambda x: [x, x],
        lambda x: {"a": (y := x * 2), "b": y},
        lambda x: defaultdict(torch.Tensor, a=x * 2),
        lambda x: [x, {}, (), None, {"a": [None]}],
        lambda x: {"size": x.shape, "half": x.shape[0] / 2, "many": x.shape[0] > 2, "x": x},
        lambda x: {"n": x.shape[0] * 3 + 1, "nested": [(x.shape[0], x)]},
        lambda x: x.reshape(-1, 1).max(0),
    ],
)
def test_results(fn: Callable[[Any], Any]) -> None:
    """Results of every kind come back in their own type, on a size that was not traced."""
    compared(fn, torch.ones(2), torch.arange(5.0))


def test_numbers_are_dynamic() -> None:
    """A number computed from a size is a Python number again, of this size."""
    got = compared(lambda x: {"n": x.shape[0], "half": x.shape[0] / 2, "x": x}, torch.ones(2), torch.ones(7))
    assert type(got["n"]) is int and got["n"] == 7
    assert type(got["half"]) is float and got["half"] == 3.5


@pytest.mark.parametrize(
    ("fn", "first", "second"),
    [
        (lambda t: t["a"] + t["b"][0], {"a": X, "b": [X]}, {"a": Y, "b": [Y]}),
        (lambda t: t.boxes + t.scores, Found(X, X), Found(Y, Y)),
        (lambda t: t.x * t.size, Marked(X, 3), Marked(Y, 3)),
        (lambda t: t.x, Bare(X), Bare(Y)),
        (lambda t: t.data * t.size[1], Boxes(X, (3, 4)), Boxes(Y, (3, 4))),
        (lambda t: t["a"] * 2 + t["missing"], defaultdict(float, a=X), defaultdict(float, a=Y)),  # type: ignore[arg-type]
        (lambda t: next(iter(t.values())) * 2, OrderedDict(a=X), OrderedDict(a=Y)),
        (lambda t: t[0][0] if t[1] is None and not t[2] else t[0], [[X], None, []], [[Y], None, []]),
        (lambda t: t[1] * 2 if t[0] == "{}" else t[1], ("{}", X), ("{}", Y)),
        (lambda t: t[7], {7: X}, {7: Y}),
    ],
)
def test_arguments(fn: Callable[[Any], Any], first: Any, second: Any) -> None:
    """Arguments of every kind reach the model in their own type."""
    compared(fn, first, second)


class Everything(nn.Module):
    def forward(self, a: Any, b: Any = 2.0, *rest: Any, flag: bool = False, c: Any, **more: Any) -> Any:
        total = a * b + c
        for other in (*rest, *more.values()):
            total = total + other
        return total if flag else -total


def test_every_kind_of_parameter() -> None:
    """Keyword-only ones, defaults, ``*args`` and ``**kwargs`` go through."""
    args, kwargs = (X, 3.0, X, X), {"c": X, "flag": True, "extra": X}
    exported = hj.export(Everything().eval(), args, kwargs)
    again = (Y, 3.0, Y, Y)
    assert exported(*again, c=Y, flag=True, extra=Y).tolist() == [3.0 * 7]
    adapter = hj.TracingAdapter(Everything(), (X,), {"c": X})
    assert adapter.input_schema.names() == ["a", "c"]
    assert adapter(*adapter.flatten(Y, c=Y)).tolist() == [-9.0]
    assert adapter(*adapter.flatten(Y, 2.0, flag=False, c=Y)).tolist() == [-9.0]


def saved_names(adapter: hj.TracingAdapter, flat: tuple[Tensor, ...], path: Path) -> list[str]:
    """The argument names of the saved trace, after comparing it with the adapter."""
    traced = torch.jit.trace(adapter, flat)  # type: ignore[no-untyped-call]
    names = [argument.name for argument in traced.forward.schema.arguments][1:]
    assert names == adapter.input_schema.names()
    torch.jit.save(traced, path)
    loaded = torch.jit.load(path)  # type: ignore[no-untyped-call]
    assert [argument.name for argument in loaded.forward.schema.arguments][1:] == names
    other = [tensor + 1 for tensor in flat]
    assert torch.equal(loaded(*other), adapter(*other))
    return names


class Detector(nn.Module):
    def forward(self, image: Any, targets: Any, input: Any, list: Any) -> Any:
        return image + targets["boxes"] + targets["class"] + input + list[0]


def test_real_names_in_the_trace(tmp_path: Path) -> None:
    """The trace's schema, and the saved file's, have the model's own argument names."""
    args = (X, {"boxes": X, "class": X}, X, [X])
    adapter = hj.TracingAdapter(Detector().eval(), args)
    names = saved_names(adapter, adapter.flatten(*args), tmp_path / "m.pt")
    assert names == ["image", "targets_boxes", "targets_class", "input", "list_0"]


class Shadowing(nn.Module):
    def forward(self, **x: Tensor) -> Any:
        values = [*x.values()]
        total = values[0].new_zeros(values[0].shape[0] * 2)[: values[0].shape[0]]
        for value in values:
            total = torch.cat([total.float() * 2 + value.int(), value])[: value.shape[0]]
        return total


class Named(nn.Module):
    """A model whose parameters have the given names."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.inner = Shadowing()
        forward: dict[str, Any] = {}
        code = f"lambda {', '.join(names)}: inner({', '.join(f'x{i}={n}' for i, n in enumerate(names))})"
        forward["forward"] = eval(code, {"inner": self.inner})
        self.__dict__.update(forward)


NAMES = (
    "self torch ops CONSTANTS annotate uninitialized unchecked_cast int float bool complex range print "
    "aten Ellipsis getattr isinstance fork inf nan List Tensor Optional Tuple Dict Any _0 _1 _ x_1 __x model "
    "slice len min input format device data type ones select forward code Device number NoneType "
    "str list dict tuple math"
)


def test_names_that_torchscript_uses(tmp_path: Path) -> None:
    """No argument shadows what the saved code calls: the file still gives what the model gives."""
    every = NAMES.split()
    for names in [*([name] for name in every), every]:
        args = tuple(X + i for i in range(len(names)))
        adapter = hj.TracingAdapter(Named(names).eval(), args)
        saved_names(adapter, args, tmp_path / "m.pt")


def test_a_lone_tensor_is_bare() -> None:
    """One tensor in the result is returned bare, several in a tuple, none as an empty one."""
    cases: list[tuple[Callable[[Any], Any], type]] = [
        (lambda x: {"a": x}, Tensor), (lambda x: [x, x], tuple), (lambda x: {"a": 1}, tuple),
    ]  # fmt: skip
    for fn, kind in cases:
        adapter = hj.TracingAdapter(Call(fn), (X,))
        assert isinstance(adapter(X), kind)
        assert repr(adapter.unflatten(adapter(X))) == repr(fn(X))


def test_another_structure_is_refused() -> None:
    """A result of another structure is refused, with both structures shown by path."""
    adapter = hj.TracingAdapter(
        Call(lambda x: {"a": x, "b": []} if x.numel() == 2 else {"a": [x] * 30, "b": [x]}), (X,)
    )
    adapter(X)
    with pytest.raises(hj.InputError) as error:
        adapter(Y)
    text = str(error.value)
    assert "result['a']: expected tensor, got list of 30" in text
    assert "result['b']: expected list of 0, got list of 1" in text
    assert "first:\n      result['a']: tensor\n      result['b']: list of 0\n" in text
    assert "now:\n      result['a'][0]: tensor\n" in text and "… and 23 more" in text


def test_the_output_schema_needs_no_call() -> None:
    """The schema of the result is known before the first call; a result in eager mode gives it too."""
    adapter = hj.TracingAdapter(Call(lambda x: {"a": x, "b": None}), (X,))
    assert adapter.output_schema.paths() == ["['a']"]
    adapter.expect([X])
    assert adapter.output_schema.paths() == ["[0]"]


def test_static_values_that_differ() -> None:
    """A call with other static values is refused, each listed by path, in a loaded file too."""

    class Scaled(nn.Module):
        def forward(self, x: Any, options: Any, boxes: Any) -> Any:
            return x * options["by"]

    args = (X, {"by": 2.0, "mode": "a"}, Boxes(X, (3, 4)))
    exported = hj.export(Scaled().eval(), args)
    with pytest.raises(hj.InputError) as error:
        exported(X, {"by": 3.0, "mode": "b"}, Boxes(X, (3, 5)))
    for row in ("options['by']: expected 2.0, got 3.0", "options['mode']: expected 'a', got 'b'",
                "boxes: expected the context (3, 4), got (3, 5)"):  # fmt: skip
        assert f"  - {row}" in str(error.value)


def test_copies_are_independent() -> None:
    """A deep copy has weights and a result schema of its own, whatever the example was computed from."""
    weight = torch.ones(2, requires_grad=True)
    adapter = hj.TracingAdapter(Call(lambda x: {"a": x}), (weight * 2,))
    adapter(X)
    copied = copy.deepcopy(adapter)
    copied.expect([X, X])
    assert adapter.unflatten(adapter(X)).keys() == {"a"}
    inner, other = adapter.model, copied.model
    assert isinstance(inner, Call) and isinstance(other, Call) and inner.bias is not other.bias
    assert torch.equal(hj.TracingAdapter(Call(lambda x: x), (X,))(X), copy.deepcopy(adapter)(X))
    with torch.no_grad():
        other.bias.add_(1)
    assert inner.bias == 0 and copied.forward is not adapter.forward


def test_an_adapter_in_an_adapter() -> None:
    """An adapter is a module like any other."""
    inner = hj.TracingAdapter(Call(lambda x: {"a": x["b"] * 2}), ({"b": X},))
    outer = hj.TracingAdapter(inner, inner.flatten({"b": X}))
    assert outer.input_schema.names() == ["x_b"] and torch.equal(outer(Y), Y * 2)


def test_wrong_calls() -> None:
    """What is no module, and calls that don't fit, are an InputError."""
    with pytest.raises(hj.InputError, match=r"takes an nn\.Module"):
        hj.TracingAdapter(torch.sin, (X,))  # type: ignore[arg-type]
    with pytest.raises(hj.InputError, match="the arguments don't fit"):
        hj.TracingAdapter(Call(lambda x: x), (X, X))
    with pytest.raises(hj.InputError, match=r"torch\.from_numpy"):
        hj.TracingAdapter(Call(lambda x: x), ([X.numpy()],))
    adapter = hj.TracingAdapter(Call(lambda x: x), (X,))
    with pytest.raises(hj.InputError, match="1 tensors on the flat side, got 2"):
        adapter(X, X)
    with pytest.raises(hj.InputError, match="1 tensors on the flat side, got 0"):
        adapter()
    with pytest.raises(hj.InputError, match="got 2"):
        adapter.unflatten((X, X))
    with pytest.raises(hj.InputError, match="register_pytree_node"):
        hj.TracingAdapter(Call(lambda x: object()), (X,))(X)


@pytest.mark.parametrize("example", [torch.ones(0, 3), torch.tensor(1.0), torch.ones(1, 0, 2)], ids=str)
def test_odd_shapes(example: Tensor) -> None:
    """Empty tensors and those of no dimensions stay tensors."""
    exported = hj.export(Call(lambda x: {"x": x * 2, "n": [x.sum()]}).eval(), (example,))
    got = exported(example)
    assert got["x"].shape == example.shape and isinstance(got["n"][0], Tensor)


def test_a_lone_argument() -> None:
    """One tensor, or one dict, instead of a tuple is the one argument, as with export."""
    assert torch.equal(hj.TracingAdapter(Call(lambda x: x * 2), Y)(Y), Y * 2)  # type: ignore[arg-type]
    adapter = hj.TracingAdapter(Call(lambda x: x["a"]), {"a": Y})  # type: ignore[arg-type]
    assert adapter.input_schema.names() == ["x_a"]


def test_float_numbers_are_as_exact_as_the_trace() -> None:
    """A float computed from a size is computed in float32 by the file, and passes as such."""
    exported = hj.export(Call(lambda x: {"n": x.shape[0] / 3, "x": x}).eval(), (X,), check_inputs=[(Y,)])
    assert exported(torch.ones(5))["n"] == pytest.approx(5 / 3, rel=1e-6)


def test_training_goes_through() -> None:
    """The adapter follows the model's mode, has its parameters, and gradients flow."""
    model = nn.Linear(2, 1)
    adapter = hj.TracingAdapter(model.eval(), (X,))
    assert not adapter.training and [*adapter.parameters()] == [*model.parameters()]
    adapter(X).sum().backward()
    assert model.weight.grad is not None
