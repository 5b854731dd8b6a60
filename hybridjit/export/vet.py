"""What torch's loader of pt2 archives would run of a file's own, refused before it is asked.

That loader unpickles, evaluates sizes as Python, and writes names into code that it compiles. What torch itself saves
of a program has tensors, arithmetic and identifiers there.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from . import archive

_NAME = re.compile(r"[A-Za-z_][\w.]*|")
_NUMBER = re.compile(r"-?\d+(\.\d*)?(e[-+]?\d+)?")
_TEXTS = {"Symbol": _NAME, "Float": _NUMBER}
"""What may be text in an expression: a symbol's name, and the digits of a number."""
_TARGET = re.compile(
    r"torch\.ops\.(?!load_library|import_module)\w+\.\w+(\.\w+)?|(_operator|math)\.\w+|torch\.(_?sym_\w+)"
)
"""The functions that a program calls: registered operators, and arithmetic."""
_CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
_PARTS = (
    ast.Expression, ast.Call, ast.keyword, ast.Name, ast.Constant, ast.Load, ast.BinOp, ast.UnaryOp, ast.BoolOp,
    ast.Compare, ast.Tuple, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
_FUNCTIONS = {"floor", "ceiling", "sqrt", "log", "exp"}
"""Of sympy's, those with small letters that sizes are made of; all of Python's own begin with one."""


def vet(path: Path) -> None:
    """Refuses an archive that holds more than torch writes of a program.

    Raises:
        ArchiveError: It holds pickled objects other than tensors, or something else where arithmetic or a name belongs.
    """
    with zipfile.ZipFile(path) as file:
        for name in file.namelist():
            if re.search(r"/data/\w+/[^/]*config\.json$", name):
                _vet_payloads(path, file, name)
            elif re.search(r"/data/\w+/[^/]*\.pt$", name):
                _vet_pickle(path, name, file.read(name))
            elif re.search(r"/models/[^/]*\.json$", name):
                for problem in _problems(json.loads(file.read(name))):
                    raise archive.broken(path, f"{name.partition('/')[2]}: {problem}, which torch would run as Python")


def _vet_payloads(path: Path, file: zipfile.ZipFile, config: str) -> None:
    """What is pickled among weights and constants must be tensors."""
    folder = config.rpartition("/")[0]
    for payload in json.loads(file.read(config))["config"].values():
        record = f"{folder}/{payload['path_name']}"
        if not payload["path_name"].startswith(("weight_", "tensor_")):
            raise archive.broken(path, f"{record.partition('/')[2]} is no tensor")
        if payload["use_pickle"]:
            _vet_pickle(path, record, file.read(record))


def _vet_pickle(path: Path, record: str, data: bytes) -> None:
    """Unpickles as torch does without calling anything but what makes tensors."""
    if not data:
        return
    try:
        torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # whatever the bytes make of the unpickler
        raise archive.broken(path, f"{record.partition('/')[2]} holds pickled objects that are no tensors") from error


def _problems(node: Any, key: str = "") -> Iterator[str]:
    """What is not what torch writes, in a program's JSON."""
    if isinstance(node, dict):
        for name, child in node.items():
            yield from _problems(child, name)
    elif isinstance(node, list):
        for child in node:
            yield from _problems(child, key)
    elif isinstance(node, str) and key in _CHECKS and not _CHECKS[key](node):
        yield f"{key} {node[:60]!r}"


def _is_arithmetic(text: str) -> bool:
    """Whether an expression is made of numbers, symbols and sympy's functions."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    nodes = list(ast.walk(tree))
    allowed: set[int] = set()
    for node in nodes:
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name) or not _is_function(node.func.id):
                return False
            if (pattern := _TEXTS.get(node.func.id)) is not None:
                values = [(each, getattr(each, "value", None)) for each in node.args]
                allowed |= {id(each) for each, value in values if isinstance(value, str) and pattern.fullmatch(value)}
    texts = [node for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))]
    return all(isinstance(node, _PARTS) for node in nodes) and all(id(node) in allowed for node in texts)


def _is_function(name: str) -> bool:
    """Whether a call in an expression is one of sympy's classes, all of whose names begin with a capital letter."""
    return name[0].isupper() or name in _FUNCTIONS


def _is_plain_structure(text: str) -> bool:
    """Whether a structure is one of Python's own containers: for another torch would import what it names."""

    def types(node: Any) -> Iterator[Any]:
        if isinstance(node, dict):
            if "type" in node:
                yield node["type"]
            for child in node.values():
                yield from types(child)
        elif isinstance(node, list):
            for child in node:
                yield from types(child)

    try:
        return "__enum__" not in text and all(each in _CONTAINERS for each in types(json.loads(text)))
    except (ValueError, TypeError, RecursionError):
        return False


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _is_target(text: str) -> bool:
    return _TARGET.fullmatch(text) is not None


_CHECKS: dict[str, Callable[[str], bool]] = {
    "expr_str": _is_arithmetic,
    "name": _is_name,
    "as_name": _is_name,
    "target": _is_target,
    "in_spec": _is_plain_structure,
    "out_spec": _is_plain_structure,
}
