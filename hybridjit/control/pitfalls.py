"""What people stumble over when they script a function, and what to write instead."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Pitfall:
    """One way in which ordinary Python is not TorchScript.

    Attributes:
        name: What it is called in ``docs/control/script.md``.
        pattern: Searched in torch's error text.
        instead: The text to write; ``<name>`` stands for a named group of either pattern.
        line: If given, searched in the offending source line as well.
    """

    name: str
    pattern: str
    instead: str
    line: str = ""


PITFALLS: list[Pitfall] = [
    Pitfall(
        "a variable that is None first and a value later",
        r"Variable '(?P<name>\w+)' previously had type NoneType .* to a value of type (?P<type>.+)",
        "<name>: Optional[<type>] = None",
    ),
    Pitfall(
        "an int in one place and a float in another",
        r"Variable '(?P<name>\w+)' previously had type (float|int) .* to a value of type (float|int)",
        "<name> = 0.0  # 0.0 for 0 everywhere, so that it always is a float",
    ),
    Pitfall(
        "an int in one branch and a float in the other",
        r"(?P<name>\w+) is set to type (float|int) in the true branch and type (float|int) in the false",
        "<name> = 0.0  # 0.0 for 0, so that both branches give a float",
    ),
    Pitfall(
        "an int in one branch and a float in the other",
        r"true branch has type (float|int) but false branch has type (float|int)"
        r"|annotated as having type float but is actually of type int",
        "0.0  # for 0, so that both branches give a float",
    ),
    Pitfall(
        "a variable with another type in each branch",
        r"(?P<name>\w+) is set to type (?P<a>\S+) in the true branch and type (?P<b>\S+) in the false",
        "<name> of one type in both branches: torch.zeros_like(x) for 0, x.new_tensor(2.0) for 2.0",
    ),
    Pitfall(
        "a variable set in one branch only",
        r"(?P<name>\w+) is not defined in the (?:true|false) branch",
        "<name>: Optional[Tensor] = None  # before the if; or set it in both branches",
    ),
    Pitfall(
        "an untyped empty list or dict",
        r"previously matched to type Tensor is matched to type (?P<type>\w+)\.",
        "<name>: List[<type>] = []",
        r"(?P<name>\w+)\.(?:append|insert)\(",
    ),
    Pitfall(
        "an untyped empty list or dict",
        r"annotated as having type List\[\w+\] but is actually of type List\[Tensor\]",
        "numbers: List[int] = []  # where the list is made",
    ),
    Pitfall(
        "an untyped empty list or dict",
        r"instead found type 'List\[Tensor\]'",
        "<name>: List[int] = []  # where the list is made",
        r"(?P<name>\w+) \+= \[",
    ),
    Pitfall(
        "an untyped empty list or dict",
        r"_set_item[\s\S]*Dict\[str, Tensor\]",
        "<name>: Dict[str, int] = {}  # where the dict is made, with its own types",
        r"(?P<name>\w+)\[.+\] = ",
    ),
    Pitfall(
        "torch.Tensor(...)",
        r"Unknown builtin op: aten::Tensor\b",
        "torch.tensor([1.0, 2.0]) for values, torch.empty(2, 3) for sizes",
    ),
    Pitfall(
        "a tuple sliced by an attribute or a variable",
        r"tuple slice indices must be integer constants",
        "items: List[Tensor] = [...]  # a list can be sliced by a number, a tuple only by 1, 2, ...",
    ),
    Pitfall(
        "a module list indexed by a variable",
        r"Expected integer literal for index",
        "for i, layer in enumerate(self.layers):\n    if i == index:\n        x = layer(x)",
    ),
    Pitfall(
        "an import inside the function",
        r"import statements aren't supported",
        "<code>  # at the top of the file",
        r"(?P<code>.+)",
    ),
    Pitfall(
        "a format in an f-string",
        r"Don't support formatting in JoinedStr",
        '"... {} ...".format(value)  # or f"{value}", without a format',
    ),
    Pitfall(
        "an unannotated parameter",
        r"Inferred '(?P<name>\w+)' to be of type 'Tensor'",
        "<name>: int  # in the called function's signature",
    ),
    Pitfall(
        "an unannotated parameter",
        r"\(inferred\)",
        "n: int  # in the signature: a parameter without annotation is taken for a tensor",
    ),
    Pitfall(
        "a tensor where a number is needed",
        r"instead found type 'List\[Tensor\]'|instead found type 'Tensor'",
        "n: int  # in the signature, if it is a parameter; else int(tensor)",
    ),
    Pitfall(
        "**kwargs",
        r"variable number of arguments",
        "def fn(x: Tensor, scale: float = 1.0) -> Tensor:  # every argument by name",
        r"\*\*\w",
    ),
    Pitfall(
        "*args",
        r"variable number of arguments",
        "def fn(xs: List[Tensor]) -> Tensor:  # called as fn([a, b])",
        r"(?:^|[(,])\s*\*\w",
    ),
    Pitfall(
        "a keyword-only default in a function called from a scripted one",
        r"variable number of arguments",
        "def fn(x: Tensor, n: int = 2) -> Tensor:  # without the *",
    ),
    Pitfall(
        "a lambda",
        r"Lambda aren't supported|Expected a single top-level function",
        "def fn(x: Tensor) -> Tensor:  # at the top of the file\n    return x + 1",
    ),
    Pitfall(
        "a function inside the function",
        r"function definitions aren't supported",
        "the inner function at the top of the file; what it captured becomes its arguments",
    ),
    Pitfall(
        "mixed values in a dict or list",
        r"Union\[",
        "class Out(NamedTuple):  # a field for each value\n    boxes: Tensor\n    count: int",
    ),
    Pitfall(
        "a container without element types",
        r"Unknown type name '(?P<type>dict|list|tuple|Dict|List|Tuple)'",
        "Dict[str, Tensor], List[Tensor], Tuple[Tensor, int]: with element types",
    ),
    Pitfall(
        "a quoted union",
        r"Unknown type name '(?P<type>[^']+?) \| None'",
        "Optional[<type>]",
    ),
    Pitfall(
        "a dataclass",
        r"Failed to get source for <function (?P<type>\w+)\.__init__",
        "class <type>(NamedTuple):  # instead of @dataclass",
    ),
    Pitfall(
        "try and except",
        r"try blocks aren't supported",
        "if x.shape[0] == 0:  # ask before, instead of try\n    ...",
    ),
    Pitfall(
        "a generator",
        r"[Yy]ield(?:From)? aren't supported",
        "out: List[Tensor] = []\nout.append(...)  # for each yield\nreturn out",
    ),
    Pitfall(
        "a comprehension with an if",
        r"Comprehension ifs are not supported",
        "out: List[int] = []\nfor i in range(n):\n    if i > 1:\n        out.append(i)",
    ),
    Pitfall(
        "the walrus operator",
        r"NamedExpr aren't supported",
        "n = x.shape[0]\nif n > 3:",
    ),
    Pitfall(
        "match",
        r"Match aren't supported",
        "if n == 1:\n    ...\nelif n == 2:\n    ...",
    ),
    Pitfall(
        "a set",
        r"Set aren't supported",
        "[1, 2]  # a list",
    ),
    Pitfall(
        "global",
        r"global variables aren't supported",
        "return the new value, and set it outside",
    ),
    Pitfall(
        "NumPy",
        r"no attribute or method 'numpy'|numpy\.ufunc|from_numpy",
        "the same in torch: torch.sqrt(x), torch.cat([...]); math.sqrt(2.0) for numbers",
    ),
    Pitfall(
        "*rest in an assignment",
        r"cannot statically infer the expected size of a list",
        "n = x.shape[-1]\nrest = x.shape[:-1]",
    ),
    Pitfall(
        "super()",
        r"has no attribute or method",
        "self.helper(x), under a name of its own, for super().helper(x)",
        r"super\(\)",
    ),
    Pitfall(
        "a method that assigns self.x",
        r"assigns self\.(?P<name>\w+)",
        "return the value too, and assign it in an undecorated method\n"
        "self.<name>.copy_(value)  # if it is a buffer or parameter",
    ),
    Pitfall(
        "a list or dict from outside that is changed in place",
        r"the function changes (?P<name>[\w.]+) in place",
        "items = list(<name>)  # change and return the copy",
    ),
    Pitfall(
        "a number from outside, in a function called from a scripted one",
        r"python value of type '(?P<type>int|float|bool|str)' cannot be used as a value",
        "a parameter for it, given by the caller: def helper(x: Tensor, limit: <type>)",
    ),
    Pitfall(
        "a value from outside that is no number, text or tensor",
        r"python value of type '(?P<type>[^']+)' cannot be used as a value",
        "a parameter for <name>: def fn(x: Tensor, <name>: ...)",
        r"\b(?P<name>[A-Z]\w*)\b(?!\()",
    ),
    Pitfall(
        "a value from outside that is no number, text or tensor",
        r"python value of type '(?P<type>[^']+)' cannot be used as a value",
        "a parameter: def fn(x: Tensor, value: ...)",
    ),
]


def find_pitfall(text: str, line: str) -> Pitfall | None:
    """Finds the pitfall behind an error text of torch, by the first entry that matches.

    Returns:
        The entry, its ``instead`` filled in with the names of the case at hand.
    """
    for pitfall in PITFALLS:
        by_text, by_line = re.search(pitfall.pattern, text), re.search(pitfall.line, line)
        if by_text and by_line:
            instead = pitfall.instead
            for name, found in {**by_text.groupdict(), **by_line.groupdict()}.items():
                instead = instead.replace(f"<{name}>", found or name)
            return replace(pitfall, instead=instead)
    return None
