"""`branch_if_tracing` under torch.compile and strict export: the ifs of a rewritten function are branches."""

from __future__ import annotations

import linecache
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hybridjit as hj
from hybridjit.control import paths, plans
from tests.control import branching
from tests.control.branching import CASES, INPUTS
from tests.control.checks import plain


def compiled(fn: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    torch._dynamo.reset()
    result: Callable[..., Any] = torch.compile(
        lambda *args: fn(*args), **{"fullgraph": True, "backend": "aot_eager", **options}
    )
    return result


def exported(fn: Callable[..., Any], *args: Tensor, **options: Any) -> Any:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if isinstance(fn, nn.Module):
                self.inner = fn

        def forward(self, *args: Tensor) -> Any:
            return fn(*args)

    return torch.export.export(Whole(), args, strict=True, **options)


def check(fn: Callable[..., Any], run: Callable[..., Any], inputs: list[Tensor]) -> None:
    """Compares on all inputs; where the function raises, so does the other, with its message in the text."""
    for x in inputs:
        try:
            expected = fn(x.clone())
        except Exception as error:
            # An exported program that raises leaves gradients switched off where its model had them so.
            with pytest.raises(RuntimeError) as raised, torch.enable_grad():
                run(x.clone())
            assert str(error) in str(raised.value)
        else:
            torch.testing.assert_close(plain(run(x.clone())), plain(expected))


@pytest.mark.parametrize("fn", CASES, ids=lambda fn: str(fn.__name__))
def test_every_path_is_compiled(fn: Callable[..., Any]) -> None:
    """One graph is right on the inputs of every path, and raises where the function does."""
    check(fn, compiled(fn), INPUTS)


@pytest.mark.parametrize("fn", CASES, ids=lambda fn: str(fn.__name__))
def test_every_path_is_exported(fn: Callable[..., Any]) -> None:
    """A strictly exported program is right on the inputs of every path, and raises where the function does."""
    check(fn, exported(fn, INPUTS[0]).module(), INPUTS)


def test_methods_and_super() -> None:
    """Methods, properties, private names, super() and submodules, one inside the other, keep their weights."""
    model = branching.Model().eval()
    check(model, compiled(model), INPUTS)
    program = exported(model, INPUTS[0])
    check(model, program.module(), INPUTS)
    assert {name.removeprefix("inner.") for name in program.state_dict} <= set(model.state_dict())


def test_gradients() -> None:
    """Inputs and parameters get the gradients of the path that was taken."""
    model = branching.Model()
    run = compiled(model)
    for x in INPUTS:
        results = []
        for each in (model, run):
            model.zero_grad()
            leaf = x.clone().requires_grad_()
            each(leaf).square().sum().backward()
            results.append((leaf.grad, {name: p.grad for name, p in model.named_parameters()}))
        (expected, weights), (got, others) = results
        torch.testing.assert_close(got, expected)
        assert any(grad is not None and grad.abs().sum() > 0 for grad in weights.values())
        for name, grad in weights.items():
            torch.testing.assert_close(others[name] if grad is not None else None, grad)


def test_gradients_of_expressions() -> None:
    """Conditional expressions and loops have the gradients of eager mode."""
    for fn in (branching.ternaries, branching.searched):
        run = compiled(fn)
        for x in INPUTS[::3]:
            grads = []
            for each in (fn, run):
                leaf = x.clone().requires_grad_()
                each(leaf).sum().backward()
                grads.append(leaf.grad)
            torch.testing.assert_close(grads[1], grads[0])


def test_order_of_evaluation() -> None:
    """What stands before a lifted expression is evaluated before it, and all of it once."""

    @hj.branch_if_tracing
    def ordered(x: Tensor) -> Tensor:
        noted = branching.noted
        return noted("f", torch.add)(noted("a", x), (x if noted("c", x.sum()) > 0 else -x) + 1)

    run = compiled(ordered)
    branching.calls.clear()
    for x in INPUTS[:2]:
        torch.testing.assert_close(run(x), ordered(x))
    assert branching.calls[:3] == ["f", "a", "c"]


def test_sizes_in_an_exported_program() -> None:
    """A comparison of sizes that may change is a branch in an exported program, and a guard in torch.compile."""

    @hj.branch_if_tracing
    def sized(x: Tensor) -> Tensor:
        if 2 < x.shape[0] < 5 and x.shape[0] % 2 == 1:
            return x + x.shape[0]
        return x if not x.shape[0] > 4 else x * 2

    inputs = [torch.arange(float(n)) for n in (1, 2, 3, 4, 7)]
    check(sized, compiled(sized, dynamic=True), inputs)
    program = exported(sized, inputs[3], dynamic_shapes={"args": ({0: torch.export.Dim("n", min=1, max=9)},)})
    check(sized, program.module(), inputs)


def test_a_static_if_stays_python() -> None:
    """An if that asks for no tensor's truth is left as it is, in a loop of any length, with what torch can't trace."""

    @hj.branch_if_tracing
    def static(x: Tensor, flag: bool) -> Any:
        seen = []
        for k in range(300):
            if k % 100 == 0 and flag:
                seen.append(k)
            elif k > 290:
                break
        with torch.no_grad():
            if len(seen) == 3:
                return x + len(seen)
        return x

    run = compiled(static)
    for flag in (True, False):
        torch.testing.assert_close(run(INPUTS[0], flag), static(INPUTS[0], flag))


def test_without_fullgraph_the_graph_breaks() -> None:
    """Where the graph may break, Dynamo gets the function itself, and all of Python goes on working."""

    @hj.branch_if_tracing
    def remembers(x: Tensor, seen: list[int]) -> Tensor:
        if x.sum() > 0:
            seen.append(1)
        return x + 1

    run = compiled(remembers, fullgraph=False)
    seen: list[int] = []
    for x in INPUTS:
        torch.testing.assert_close(run(x, seen), x + 1)
    assert len(seen) == 3


def test_the_function_changes_no_more_than_needed() -> None:
    """Nothing is rewritten in eager mode, and a function called with a bool and then a tensor has both."""

    @hj.branch_if_tracing
    def either(x: Tensor, flag: Any) -> Tensor:
        return x * 2 if flag else x - 1

    known = len(plans.plans)
    assert torch.equal(either(INPUTS[0], True), INPUTS[0] * 2)
    assert len(plans.plans) == known
    run = compiled(either)
    for flag in (True, torch.tensor(False), False, torch.tensor(True)):
        torch.testing.assert_close(run(INPUTS[0], flag), either(INPUTS[0], flag))
    assert len(plans.plans) == known + 1


def test_changing_names_outside() -> None:
    """A variable of an outer function and a global are read anew, as the function itself does."""
    offset = torch.ones(())

    @hj.branch_if_tracing
    def shifted(x: Tensor) -> Tensor:
        return x + offset if x.sum() > 0 else x

    run = compiled(shifted)
    torch.testing.assert_close(run(INPUTS[0]), INPUTS[0] + 1)
    offset = torch.tensor(5.0)
    torch.testing.assert_close(run(INPUTS[0]), INPUTS[0] + 5)


def made_from(source: str, file: str, shown: str | None = None) -> Callable[..., Any]:
    """A function `fn` of this source, whose file shows the source or other text."""
    lines = (source if shown is None else shown).splitlines(keepends=True)
    linecache.cache[file] = (len(source), None, lines, file)
    space: dict[str, Any] = {"hj": hj, "torch": torch}
    exec(compile(source, file, "exec", dont_inherit=True), space)
    result: Callable[..., Any] = space["fn"]
    return result


SOURCE = "@hj.branch_if_tracing\ndef fn(x):\n    if x.sum() > 0:\n        return x\n    return -x\n"


@pytest.mark.parametrize(
    "shown",
    ["", SOURCE.replace("-x", "x"), "\n" + SOURCE, "%magic\n" + SOURCE],
    ids=["none", "other", "moved", "magic"],
)
def test_without_its_source(shown: str) -> None:
    """A function whose file is gone or has changed is compiled as it is, and Dynamo says what it can't do."""
    fn = made_from(SOURCE, f"<shown {len(shown)}>", shown)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="Data-dependent"):
        compiled(fn)(INPUTS[0])
    good = made_from(SOURCE, "<good>")
    check(good, compiled(good), INPUTS)


def test_errors_point_at_the_users_lines() -> None:
    """What goes wrong after an if is told at the line where it stands."""
    source = (
        "@hj.branch_if_tracing\ndef fn(x):\n    y = x\n    if x.sum() > 0:\n        y = x + 1\n    return y.view(7)\n"
    )
    fn = made_from(source, "<lines>")
    with pytest.raises(Exception, match="shape") as error:
        compiled(fn)(INPUTS[0])
    assert 'File "<lines>", line 6' in str(error.value)


def test_too_many_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths that do not meet again are counted, and refused above the limit."""
    monkeypatch.setattr(paths, "PATH_LIMIT", 8)
    assert "fn has more than 8 paths" in refusal("for k in range(4):\n    x = x + 1 if x.sum() > k else x\nreturn x")


def refusal(source: str) -> str:
    """The message with which torch.compile refuses a function of this body."""
    body = "".join(f"    {line}\n" for line in source.splitlines())
    fn = made_from(f"@hj.branch_if_tracing\ndef fn(x):\n{body}", f"<body {hash(source)}>")
    messages = []
    for run in (lambda: compiled(fn)(INPUTS[0]), lambda: exported(fn, INPUTS[0])):
        with pytest.raises(Exception) as error:
            run()
        messages.append(re.sub(r"^\w+Error: ", "", str(error.value)))
    # How deep Python lets ifs lie in one another differs by its release, and by who calls.
    said = [re.sub(r"\d+ of them", "many of them", text).splitlines()[:3] for text in messages]
    assert said[0] == said[1]
    return messages[0]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("with torch.no_grad():\n    if x.sum() > 0:\n        x = x + 1\nreturn x", "it stands in a with block"),
        ("try:\n    if x.sum() > 0:\n        x = x + 1\nfinally:\n    pass\nreturn x", "it stands in a try block"),
        ("try:\n    assert x.sum() > 9\nexcept AssertionError:\n    x = -x\nreturn x", "it stands in a try block"),
        (
            "for k in range(3):\n    with torch.no_grad():\n        if k:\n            break\n"
            "    if x.sum() > k:\n        x = -x\nreturn x",
            "a break or continue of the loop around it stands in a with or try block",
        ),
        ("return [y for y in x.unbind() if y > 0]", "it is the condition of a comprehension"),
        ("return [y if y > 0 else -y for y in x.unbind()]", "no statement can go before it"),
        (
            "show = lambda: x\nif x.sum() > 0:\n    x = x + 1\nreturn show()",
            "a function or generator before it reads x, which is set again after it",
        ),
        (
            "rows = (x * k for k in range(3))\nx = x if x.sum() > 0 else -x\nx = x + 1\nreturn sum(rows)",
            "a function or generator before it reads x, which is set again after it",
        ),
        (
            "def add():\n    nonlocal x\n    x = x + 1\nif x.sum() > 0:\n    add()\nreturn x",
            "a function inside sets x, which is nonlocal to it",
        ),
        ("if x.sum() > 0:\n    x = x + 1\nreturn locals()['x']", "the function calls locals()"),
        ("if x.sum() > 0 and (x := x + 1).sum() > 4:\n    x = x + 1\nreturn x", "a side of it sets a variable with :="),
    ],
)
def test_where_an_if_can_not_be_rewritten(body: str, reason: str) -> None:
    """An if that can't become a branch is refused with the reason, its line and what to write."""
    first, *rest = refusal(body).splitlines()
    assert first == ("torch.compile and strict export can't keep an if that asks for a tensor's truth here")
    number = next(n for n, line in enumerate(body.splitlines(), 3) if "> " in line)
    assert rest[0].endswith(f">:{number}")
    assert reason in rest[1]
    assert rest[2].startswith("  write instead: the if in a function of its own with @branch_if_tracing around it")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "while x.sum() < 9:\n    x = x * 2\nreturn x",
            "a while loop over a tensor's value can't be unrolled into paths",
        ),
        ("while True:\n    x = x + 1\n    if x.sum() > 9:\n        return x", "ifs lie deeper in one another"),
        (
            "for y in map(abs, [x]):\n    if y.sum() > 0:\n        x = y\nreturn x",
            "goes through something that has no index",
        ),
        ("if x.sum() > 0:\n    return x, 1\nreturn x, 2", "result[1]: the path where "),
        ("if x.sum() > 0:\n    return x, 0.5\nreturn x, 1", "gives 0.5, the path where "),
        ("if x.sum() > 0:\n    return x\nreturn None", "result: the path where "),
        ("if x.sum() > 0:\n    return x.long()\nreturn x", "gives int64 of 1 dimensions"),
        (
            "y = x.clone()\nif x.sum() > 0:\n    y[0] = 1\nreturn y",
            "a path changes a tensor in place that was made before the if",
        ),
        ("kept = []\nif x.sum() > 0:\n    kept.append(x)\nreturn kept", "Mutating a variable from outside the scope"),
    ],
)
def test_what_no_branch_can_do(body: str, message: str) -> None:
    """Loops without an end, results that differ in kind or number, and changes of what is outside are refused."""
    assert message in refusal(body)
