"""``format="aoti"``: the exported program compiled ahead of time by AOTInductor, for one device."""

from __future__ import annotations

import io
import json
import re
import zipfile
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
from .devices import Case, Runner, case_of, device_of
from .formats import unsupported
from .packed import flat_memory, memory_of
from .quiet import quiet
from .shapes import Variable
from .subject import CapturedEntry, Loaded, Subject, Written

__all__ = ["append_metadata", "check", "code", "load", "pack", "places", "routes"]


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
    from_zero = False  # compiled code may end the process at a size of 0

    def capture(self, subject: Subject, specs: Sequence[Mapping[int, Any]]) -> tuple[Any, Written]:
        """Captures the model and compiles it."""
        program, written = pt2.capture(subject, specs)
        try:
            with torch.no_grad(), quiet():
                # Inductor gives a branch tensors in a layout for convolutions that the branch does not know of.
                branches = any(True for _ in program.graph_module.children())
                plain = {"layout_optimization": False} if branches else {}
                files = _torch.compile_program(program, weights_apart=subject.several, **plain)
        except Exception as error:
            rows = [row.strip() for row in str(error).splitlines() if row.strip()]
            absent = re.search(r"[Cc]ompiler|C\+\+|CXX", rows[0] if rows else "")
            other = "a C++ compiler (CXX=g++) that works here" if absent else "fixed sizes: dynamic_shapes=(None,)"
            raise CaptureError(
                compose(
                    f"AOTInductor can't compile {type(subject.model).__qualname__}",
                    differences=[f"{type(error).__name__}: {rows[0] if rows else ''}"],
                    instead=f'{other}; or format="pt2", which is not compiled',
                    page="captureerror",
                )
            ) from error
        finally:
            subject.state.restore(thorough=True)
        kinds = [str(tensor.dtype).removeprefix("torch.") for tensor in subject.flat]
        home = device_of(subject.model, subject.planned.calls)
        metadata = {
            **written.metadata,
            "names": written.call.names(),
            "dtypes": kinds,
            "device": str(home),
            "lines": {size: list(line) for size, line in written.lines.items()},
        }
        return files, replace(written, metadata=metadata, variables=_compiled_for(written))


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


def pack(entries: Sequence[CapturedEntry], path: Path) -> Mapping[str, Any]:
    """Writes what was compiled as one package; of several models the weights lie in it once, outside of their code."""
    package = path.with_suffix(".pt2")  # AOTInductor takes no other
    code = {each.name: [file for file in each.made if isinstance(file, str)] for each in entries}
    with quiet():
        _torch.packing().package_pt2(str(package), aoti_files=code)
    _add_weights(
        package, {each.name: weights for each in entries for weights in each.made if isinstance(weights, dict)}
    )
    package.replace(path)
    return {}


def _add_weights(package: Path, weights: Mapping[str, Mapping[str, Any]]) -> None:
    """Adds the weights of models, each memory once, as torch has them, whose own packing takes no parts of a memory."""
    known: dict[tuple[int, torch.dtype], str] = {}
    with zipfile.ZipFile(package, "a", zipfile.ZIP_STORED, allowZip64=True) as archive:
        root = archive.namelist()[0].split("/")[0]
        for name, own in weights.items():
            config = {}
            for weight, (tensor, _) in own.items():
                record = known.setdefault(memory_of(tensor), f"weight_{len(known)}")
                if f"{root}/data/weights/{record}" not in archive.NameToInfo:
                    with archive.open(f"{root}/data/weights/{record}", "w", force_zip64=True) as out:
                        torch.save(flat_memory(tensor), out)
                config[weight] = [record, list(tensor.shape), list(tensor.stride()), tensor.storage_offset()]
            archive.writestr(f"{root}/data/aotinductor/{name}/weights_config.json", json.dumps(config))


class Model:
    """A model of a package, which itself looks at neither dtypes nor sizes nor devices.

    Args:
        raw: What runs it.
        metadata: What `Compiled` wrote of it.
    """

    def __init__(self, raw: Any, metadata: Mapping[str, Any]) -> None:
        self.raw = raw
        self.names: Any = metadata["names"]
        self.dtypes: Any = metadata["dtypes"]
        self.sizes: Any = metadata["sizes"]
        self.device: torch.device = torch.device(metadata["device"])

    def __call__(self, *flat: Tensor) -> Any:
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
    home = metadata["cases"][0]["device"]
    if device is not None and str(device) != home:
        raise InputError(
            compose(
                "a compiled package runs on the device that it was compiled for",
                differences=[f"expected {home}, got {device}"],
                instead=f'load("{path.name}"), or format="pt2", which goes to any device',
                page="inputerror",
            )
        )
    with quiet():
        models = _torch.packing().load_pt2(str(path)).aoti_runners
    weights = _share_weights(models, path)
    runner = Package({case_of(case): Model(models[case["program"]], case) for case in metadata["cases"]}, weights)
    return Loaded(models["model"] if len(models) == 1 else models, runner)


def _share_weights(models: Mapping[str, Any], path: Path) -> list[Tensor]:
    """Gives models the weights that lie outside of their code, each one tensor for all, and to be kept as long."""
    held: dict[str, Tensor] = {}
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        for name, model in models.items():
            config = f"{root}/data/aotinductor/{name}/weights_config.json"
            if config not in archive.namelist():
                continue
            own = {}
            for weight, (record, shape, stride, offset) in json.loads(archive.read(config)).items():
                if record not in held:
                    held[record] = torch.load(io.BytesIO(archive.read(f"{root}/data/weights/{record}"))).detach()
                own[weight] = held[record].as_strided(shape, stride, offset)
            model.load_constants(own, check_full_update=True, user_managed=True)
    return list(held.values())


class Package(Runner):
    """Runs a package.

    Args:
        cases: Its models.
        weights: Those that they share, and do not keep.
    """

    def __init__(self, cases: Mapping[Case, Model], weights: Sequence[Tensor]) -> None:
        super().__init__(cases)
        self.weights: list[Tensor] = list(weights)


def append_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """Adds the metadata as one of the package's extra files."""
    archive.append_metadata(path, metadata)


def code(raw: Any) -> str:
    """What the package says of itself: it holds machine code."""
    models = raw if isinstance(raw, dict) else {"model": raw}
    return "\n".join(f"{name}: {each.get_metadata()}" for name, each in models.items())
