"""`optimize=`: what torch can do to a TorchScript file, done before it is verified."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._errors import CaptureError, InputError, compose
from .entries import Entries
from .report import Finding

OPTIMIZE = ("freeze", "inference")


def check_optimize(optimize: str | None) -> None:
    """Refuses another word than those that ``optimize`` takes.

    Raises:
        InputError: It is another one.
    """
    if optimize is not None and optimize not in OPTIMIZE:
        raise InputError(
            compose(
                "optimize takes one of two words, or None",
                differences=[f"expected one of {', '.join(OPTIMIZE)}, got {optimize!r}"],
                instead='optimize="freeze"',
                page="inputerror",
            )
        )


def optimize_file(path: Path, optimize: str, entries: Entries, flat: Sequence[Tensor]) -> Finding:
    """Replaces a TorchScript file by one that torch has optimized.

    Args:
        path: The file.
        optimize: ``"freeze"``, or ``"inference"``, which freezes first.
        entries: The entries of the file.
        flat: The tensors of a call of the first of them.

    Returns:
        What was gained.

    Raises:
        CaptureError: Torch can't, or can't save what comes of it.
    """
    methods = list(dict.fromkeys(entry.method for entry in entries))
    first = next(iter(entries))
    plain = _torch.load_script(path)
    try:
        module = _torch.optimized(_torch.load_script(path), methods, inference=optimize == "inference")
        undone = sum(_to_plain(graph) for graph in _torch.method_graphs(module).values())
        _torch.save_script(module, path, {})
        module = _torch.load_script(path)
    except RuntimeError as error:
        rows = [row.strip() for row in str(error).splitlines() if row.strip()]
        raise CaptureError(
            compose(
                f"the file can't be optimized by optimize={optimize!r}",
                differences=[f"{type(error).__name__}: {rows[-1] if rows else ''}"],
                instead='optimize="freeze"' if optimize == "inference" else "optimize=None",
                page="captureerror",
            )
        ) from error
    counts = [_torch.count_operations(each, first.method) for each in (module, plain)]
    try:
        after, before = (_seconds(functools.partial(first.run, each, flat)) for each in (module, plain))
        faster = f", {before / after:.2f} times as fast on the first call"
    except (RuntimeError, AssertionError, _torch.JitError):  # the checks tell of that
        faster = ""
    text = f"optimize={optimize!r}: {counts[0]} operations instead of {counts[1]}{faster}"
    if undone:
        text += f"; {undone} operations stay without oneDNN, whose weights no TorchScript file can hold"
    return Finding("HJ309", "note", text)


def _seconds(run: Callable[[], Any]) -> float:
    """How long a call takes: the median of several, after the ones in which TorchScript optimizes."""
    taken = []
    with torch.no_grad(), torch.random.fork_rng():
        for _ in range(8):
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
    return statistics.median(taken[3:])


def _to_plain(graph: _torch.Graph) -> int:
    """Takes oneDNN's own operations out of a graph again; how many computed something."""
    count = 0
    for node in _torch.every_node(graph):
        kind, inputs = node.kind(), list(node.inputs())
        if kind not in ("prim::ConstantMKLDNNTensor", "aten::to_mkldnn", "aten::to_dense", "prim::mkldnn_convolution"):
            continue
        point = graph.insertPoint()
        graph.setInsertPoint(node)
        if kind == "prim::ConstantMKLDNNTensor":
            made = graph.insertConstant(node.t("value").to_dense())
        elif kind == "prim::mkldnn_convolution":
            x, weight, bias, stride, padding, dilation, groups = inputs
            none = [
                graph.insertConstant(each) for each in (False, [0] * len(stride.toIValue()), False, False, True, True)
            ]
            taken = [x, weight, bias, stride, padding, dilation, none[0], none[1], groups, *none[2:]]
            made = _torch.insert(graph, "aten::_convolution", taken, _torch.type_named("TensorType"))
            count += 1
        else:
            made = inputs[0]
        graph.setInsertPoint(point)
        node.output().replaceAllUsesWith(made)
        node.destroy()
    return count
