"""``format="aoti"``: the exported program compiled ahead of time by AOTInductor, for one device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import _torch
from .._describe import describe
from .._errors import CaptureError, InputError, compose
from . import archive, pt2
from .devices import Runner, device_of
from .formats import unsupported
from .quiet import quiet
from .shapes import Variable
from .subject import Loaded, Subject, Written

__all__ = ["append_metadata", "check", "code", "load", "places", "routes"]


def check(subject: Subject) -> None:
    """Refuses tensors that are not contiguous: a package takes for granted the strides that it was compiled for."""
    for name, tensor in zip(subject.call.names(), subject.flat, strict=True):
        if not tensor.is_contiguous():
            raise unsupported("aoti", f"takes contiguous tensors, and {name} is none", f"{name}.contiguous()")


def places(home: torch.device) -> list[torch.device] | None:
    """The device that it is compiled for."""
    return [home]


class Compiled:
    """The one way: ``torch.export``, then ``aoti_compile_and_package``."""

    name = "torch.export and AOTInductor"

    def write(self, subject: Subject, specs: Sequence[Mapping[int, Any]], path: Path) -> Written:
        """Captures the model, compiles it and writes the package."""
        program, written = pt2.capture(subject, specs)
        package = path.with_suffix(".pt2")  # AOTInductor takes no other
        try:
            with torch.no_grad(), quiet():
                _torch.compile_package(program, package)
        except Exception as error:
            rows = [row.strip() for row in str(error).splitlines() if row.strip()]
            raise CaptureError(
                compose(
                    f"AOTInductor can't compile {type(subject.model).__qualname__}",
                    differences=[f"{type(error).__name__}: {rows[0] if rows else ''}"],
                    instead='a C++ compiler (CXX=g++) that works here; or format="pt2", which is not compiled',
                    page="captureerror",
                )
            ) from error
        finally:
            subject.state.restore(thorough=True)
        package.replace(path)
        kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in subject.flat]
        home = device_of(subject.model, subject.calls)
        metadata = {
            **written.metadata,
            "names": written.call.names(),
            "dtypes": kinds,
            "device": str(home),
            "lines": {size: list(line) for size, line in written.lines.items()},
        }
        return replace(written, metadata=metadata, variables=_compiled_for(written))


def _compiled_for(written: Written) -> tuple[Variable, ...]:
    """The sizes that may change, from the least that the program was made for."""
    least = {
        (index, dim): size[3]
        for index, row in enumerate(written.metadata["sizes"])
        for dim, size in enumerate(row)
        if isinstance(size, list)
    }
    first = {each.name: (each.places[0].tensor, each.places[0].dim) for each in written.variables}
    return tuple(replace(each, least=max(each.least, least[first[each.name]])) for each in written.variables)


def routes(subject: Subject) -> Sequence[Compiled]:
    """The one way there is."""
    return [Compiled()]


class Package(Runner):
    """Runs a compiled package, which itself looks at neither dtypes nor sizes nor devices.

    Args:
        raw: The loaded package.
        metadata: What `Compiled` wrote.
    """

    def __init__(self, raw: Any, metadata: Mapping[str, Any]) -> None:
        super().__init__()
        self.raw = raw
        self.names, self.dtypes, self.sizes = metadata["names"], metadata["dtypes"], metadata["sizes"]
        self.device = torch.device(metadata["device"])

    def forward(self, *flat: Tensor) -> Any:
        """Runs it on flat tensors.

        Raises:
            RuntimeError: It was not compiled for such tensors.
        """
        self._check(flat)
        # Whatever its strides, the package reads a tensor as contiguous.
        return self.raw(*(tensor.contiguous() for tensor in flat))

    def _check(self, flat: Sequence[Tensor]) -> None:
        symbols: dict[str, tuple[int, str]] = {}
        for name, dtype, sizes, tensor in zip(self.names, self.dtypes, self.sizes, flat, strict=True):
            if str(tensor.dtype) != f"torch.{dtype}" or tensor.dim() != len(sizes) or tensor.device != self.device:
                wanted = f"{dtype} of {len(sizes)} dimensions on {self.device}"
                raise RuntimeError(f"Expected input {name} as {wanted}, got {describe(tensor)}")
            for dim, (size, got) in enumerate(zip(sizes, tensor.shape, strict=True)):
                where = f"{name}.size()[{dim}]"
                if size is None:
                    continue
                if isinstance(size, int):
                    if got != size:
                        raise RuntimeError(f"Guard failed: {where} == {size}")
                    continue
                symbol, times, plus, least, most = size
                value, rest = divmod(got - plus, times)
                known, first = symbols.setdefault(symbol, (value, where))
                if rest or value != known:
                    raise RuntimeError(f"Guard failed: {where} goes with {first}, which is {known}, and is {got}")
                # Compiled code may end the process at a size of 0, by a division, so nothing below is let in.
                if value < least or (most is not None and value > most):
                    to = "" if most is None else f" to {times * most + plus}"
                    raise RuntimeError(f"Guard failed: {where} from {times * least + plus}{to}, and is {got}")


def load(path: Path, metadata: Mapping[str, Any], device: torch.device | None) -> Loaded:
    """Reads a package.

    Raises:
        InputError: Another device is asked for than that it was compiled for.
    """
    if device is not None and str(device) != metadata["device"]:
        raise InputError(
            compose(
                "a compiled package runs on the device that it was compiled for",
                differences=[f"expected {metadata['device']}, got {device}"],
                instead=f'load("{path.name}"), or format="pt2", which goes to any device',
                page="inputerror",
            )
        )
    with quiet():
        raw = _torch.load_package(path)
    return Loaded(raw, Package(raw, metadata))


def append_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """Adds the metadata as one of the package's extra files."""
    archive.append_metadata(path, metadata)


def code(raw: Any) -> str:
    """What the package says of itself: it holds machine code."""
    return str(raw.get_metadata())
