"""Several exported programs with one set of weights: in an archive that torch's own loaders open, and in memory."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import _torch
from .quiet import quiet
from .vet import vet

_KINDS = {"weights": "data/weights", "constants": "data/constants"}
"""The folders of an archive that hold tensors; in each a config for every program, and a record for every memory."""

Memory = tuple[int, torch.dtype]


def save_programs(programs: Mapping[str, Any], path: Path) -> None:
    """Writes programs into one archive, each memory of their weights once.

    ``torch.export.save`` knows one program, and torch's packing of several writes the weights for each. An archive says
    in a config of each program which record holds a weight, so several may name one record: of the second program and
    those after it are added the graph, the config, and the records that are new.

    Args:
        programs: The programs by name; the first is called ``model``, which is what ``torch.export.load`` opens.
        path: Where to.
    """
    (_, first), *others = programs.items()
    torch.export.save(first, path)
    if not others:
        return
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED, allowZip64=True) as archive:
        root = archive.namelist()[0].split("/")[0]
        known: dict[tuple[str, Memory], str] = {}
        for kind, folder in _KINDS.items():
            config = json.loads(archive.read(f"{root}/{folder}/model_{kind}_config.json"))["config"]
            for name, tensor in _tensors(first)[kind].items():
                known[kind, memory_of(tensor)] = config[name]["path_name"]
        for name, program in others:
            _add(archive, root, name, program, known)


def _add(archive: zipfile.ZipFile, root: str, name: str, program: Any, known: dict[tuple[str, Memory], str]) -> None:
    """Adds a program, its tensors as far as they are not in the archive."""
    alone = io.BytesIO()
    tensors = _tensors(program)
    with _emptied(program):
        torch.export.save(program, alone)
    with zipfile.ZipFile(alone) as own:
        (prefix, _) = own.namelist()[0].split("/", 1)
        for part in ("models/{}.json", "data/sample_inputs/{}.pt"):
            archive.writestr(f"{root}/{part.format(name)}", own.read(f"{prefix}/{part.format('model')}"))
        for kind, folder in _KINDS.items():
            config = json.loads(own.read(f"{prefix}/{folder}/model_{kind}_config.json"))
            for path, row in config["config"].items():
                tensor = tensors[kind].get(path)
                key = None if tensor is None else (kind, memory_of(tensor))
                record = known.get(key) if key else None
                if record is None:
                    # Named as torch names them, since their loader goes by the beginning.
                    record = f"{row['path_name'].rstrip('0123456789')}{name}_{len(known)}"
                    data = own.read(f"{prefix}/{folder}/{row['path_name']}") if tensor is None else _bytes(tensor)
                    with archive.open(f"{root}/{folder}/{record}", "w", force_zip64=True) as out:
                        out.write(data)
                    known[key or (f"{name}.{path}", (0, torch.uint8))] = record
                row["path_name"] = record
                if tensor is not None:
                    row["tensor_meta"]["device"] = {"type": tensor.device.type, "index": tensor.device.index}
            archive.writestr(f"{root}/{folder}/{name}_{kind}_config.json", json.dumps(config))


def _tensors(program: Any) -> dict[str, dict[str, Tensor]]:
    """The plain tensors of a program, whose memory torch writes as it is; others (of subclasses) it pickles."""
    held = zip(_KINDS, _held(program), strict=True)
    return {kind: {name: each for name, each in of.items() if _plain(each)} for kind, of in held}


def _held(program: Any) -> tuple[MutableMapping[str, Any], MutableMapping[str, Any]]:
    return program.state_dict, program.constants


def _plain(value: Any) -> bool:
    return isinstance(value, Tensor) and type(value.data) is Tensor


def memory_of(tensor: Tensor) -> Memory:
    """What two tensors have alike that are stored once."""
    return tensor.untyped_storage().data_ptr(), tensor.dtype


def flat_memory(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The whole memory that a tensor is in.

    Args:
        tensor: The tensor.
        dtype: What to take it for; its own dtype if absent.
    """
    storage = tensor.untyped_storage()
    whole = torch.empty(0, dtype=dtype or tensor.dtype, device=tensor.device)
    return whole.set_(storage, 0, (storage.nbytes() // whole.element_size(),), (1,))


def _bytes(tensor: Tensor) -> Any:
    return flat_memory(tensor, torch.uint8).cpu().numpy().data


def _view(memory: Tensor, like: Tensor) -> Tensor:
    """What a tensor is of its memory, of another one."""
    view = torch.empty(0, dtype=like.dtype, device=memory.device)
    view = view.set_(memory.untyped_storage(), like.storage_offset(), like.shape, like.stride())
    return nn.Parameter(view, like.requires_grad) if isinstance(like, nn.Parameter) else view


@contextmanager
def _emptied(program: Any) -> Iterator[None]:
    """Has a program without the memory of its tensors within the body."""
    held: list[tuple[MutableMapping[str, Any], dict[str, Any]]] = []
    for of in _held(program):
        held.append((of, dict(of)))
        of.update({name: _view(flat_memory(each).to("meta"), each) for name, each in of.items() if _plain(each)})
    try:
        yield
    finally:
        for of, before in held:
            of.update(before)


def load_programs(path: Path) -> dict[str, Any]:
    """The programs in an archive: what is one part of one record is one tensor, so that each sees who writes it.

    Args:
        path: The archive.

    Raises:
        ArchiveError: It holds what torch's loader would run as Python.
    """
    vet(path)
    with quiet():
        programs = _torch.load_programs(path)
    known: dict[str, Any] = {}
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        for name, program in programs.items():
            for (kind, folder), of in zip(_KINDS.items(), _held(program), strict=True):
                config = json.loads(archive.read(f"{root}/{folder}/{name}_{kind}_config.json"))["config"]
                for tensor, row in config.items():
                    of[tensor] = known.setdefault(kind + json.dumps(row, sort_keys=True), of[tensor])
    return programs


def moved_programs(programs: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Copies of programs on a device, the devices in their operations included; what shared memory shares it there.

    Args:
        programs: The programs by name.
        device: The device.
    """
    from torch.export.passes import move_to_device_pass

    moved: dict[str, Any] = {}
    there: dict[Memory, Tensor] = {}
    views: dict[int, Tensor] = {}
    for name, program in programs.items():
        buffer = io.BytesIO()  # copy.deepcopy gives inputs other names: input_1 for input
        with quiet():
            torch.export.save(program, buffer)
            buffer.seek(0)
            moved[name] = move_to_device_pass(torch.export.load(buffer), device)
        for of, tensors in zip(_held(moved[name]), _tensors(program).values(), strict=True):
            for path, tensor in tensors.items():
                if memory_of(tensor) not in there:
                    there[memory_of(tensor)] = flat_memory(tensor).to(device)
                if id(tensor) not in views:  # as in the programs themselves, it is one tensor for all
                    views[id(tensor)] = _view(there[memory_of(tensor)], tensor)
                of[path] = views[id(tensor)]
    return moved
