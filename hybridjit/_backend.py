"""``torch.compile(model, backend="hybridjit")``: how Dynamo finds the backend, installed or only imported."""

from __future__ import annotations

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from typing import Any

from . import _torch

NAME = "hybridjit"


def backend(graph: Any, inputs: list[Any], **options: Any) -> Any:
    """A Dynamo backend: each captured graph becomes a verified TorchScript module, or runs as it is."""
    from .export.dynamo import compile_graph

    return compile_graph(graph)


class _Announces(MetaPathFinder):
    """Names the backend to Dynamo once that is imported, which takes long: importing hybridjit does not wait for it."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        """Finds the module as if this finder were not there, and lets it know the backend when it has run."""
        if fullname != _torch.BACKENDS:
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(fullname)
        run = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            run(module)
            module.register_backend(backend, name=NAME)

        spec.loader.exec_module = exec_module
        return spec


def announce() -> None:
    """Makes the backend known to Dynamo, now or when that is imported."""
    from importlib.metadata import entry_points  # not for everyone who imports hybridjit

    there: Any = sys.modules.get(_torch.BACKENDS)
    if there is None:
        sys.meta_path.insert(0, _Announces())
    elif not entry_points(group="torch_dynamo_backends", name=NAME):  # which Dynamo may be looking at right now
        there.register_backend(backend, name=NAME)
