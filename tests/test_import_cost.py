"""`import hybridjit` adds next to nothing to `import torch`."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST = 0.05
RUNS = 5
# Slow to import, and only needed once a model is compiled or converted.
HEAVY = ("torch._dynamo", "torch._inductor", "torch.onnx", "onnx", "onnxruntime", "onnxscript", "hybridjit.cli")

SCRIPT = """
import json, sys, time
start = time.perf_counter()
import torch
between = time.perf_counter()
before = set(sys.modules)
{statement}
end = time.perf_counter()
print(json.dumps([between - start, end - between, sorted(set(sys.modules) - before)]))
"""


@dataclass(frozen=True)
class Cost:
    ratio: float
    heavy: list[str]


def cost(statement: str) -> Cost:
    """What a statement adds to `import torch`; the fastest of several processes is the least disturbed.

    With compiled bytecode, as an installed package has it: the first process may write it.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    runs: list[tuple[float, float, list[str]]] = []
    for _ in range(RUNS):
        command = [sys.executable, "-c", SCRIPT.format(statement=statement)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        runs.append(json.loads(done.stdout))
    torch_alone = min(run[0] for run in runs)
    added = min(run[1] for run in runs)
    return Cost(added / torch_alone, [module for module in runs[0][2] if module in HEAVY])


def test_import_is_cheap() -> None:
    """The import costs less than 5 % of torch's, and brings in no compiler and no converter."""
    got = cost("import hybridjit")
    assert got.heavy == []
    assert got.ratio < MOST


def test_a_dear_import_is_found() -> None:
    """A heavy module is named, and counts."""
    got = cost("import torch._dynamo")
    assert "torch._dynamo" in got.heavy
    assert got.ratio > MOST
