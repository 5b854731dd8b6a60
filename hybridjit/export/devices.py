"""Which devices to compare on, and moving there."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .. import _torch
from .._describe import qualified
from .._errors import InputError, UnsupportedError, compose
from ..adapters.inputs import Inputs
from ..adapters.switch import FlagValue
from ..adapters.tree import Node, build, scan
from .copies import copied_apart

if TYPE_CHECKING:
    from .sides import CountedProgram


def device_list(devices: Sequence[torch.device | str] | None) -> list[torch.device]:
    """The devices as torch's own type.

    Raises:
        InputError: One of them is no device, or is not there.
    """
    if isinstance(devices, (str, torch.device)):
        devices = [devices]
    instead = f'devices=["cpu"]\n{present()}'
    if devices is not None and not isinstance(devices, Iterable):
        raise InputError(
            compose(
                "devices takes a list of devices",
                differences=[f"expected a list, got {type(devices).__name__}"],
                instead=instead,
                page="inputerror",
            )
        )
    return [device_named(device, "devices takes a list of devices", instead) for device in devices or ()]


def device_named(device: torch.device | str, what: str, instead: str) -> torch.device:
    """A device that is there, as torch's own type, and as tensors there tell it: ``cuda:0`` for ``cuda``.

    Args:
        device: The device.
        what: What takes one, for the message.
        instead: What to write instead.

    Raises:
        InputError: It is no device, or there is no such device here.
    """
    try:
        where = torch.empty(0, device=torch.device(device)).device  # with its index, as tensors tell it
    except (RuntimeError, TypeError, AssertionError, NotImplementedError):
        where = None
    if where is not None:
        return where
    raise InputError(
        compose(
            what, differences=[f"expected a device that is here, got {device!r}"], instead=instead, page="inputerror"
        )
    )


def present() -> str:
    """The devices that are here, as a line for a message."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    count = torch.accelerator.device_count() if accelerator else 0
    names = ["cpu", *(f"{accelerator.type}:{index}" for index in range(count) if accelerator)]
    return f"here are: {', '.join(names)}"


def default_devices(home: torch.device) -> list[torch.device]:
    """The model's device, and the first accelerator if that is another."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if accelerator is None or accelerator.type == home.type:
        return [home]
    return [home, torch.device(accelerator.type, 0)]


def device_of(model: nn.Module, inputs: Mapping[str, Inputs]) -> torch.device:
    """The device of a model's first parameter or buffer, else of the first tensor given to it."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    for name, each in inputs.items():
        for tensor in _opened(each, name)[0]:
            return tensor.device
    return torch.device("cpu")


def moved(inputs: Inputs, device: torch.device | None, name: str) -> Inputs:
    """The same call on copies of its tensors, on a device; views of the originals are never handed out.

    What is one tensor, or one memory, among the originals is one among the copies.

    Args:
        inputs: The call.
        device: The device; where the tensors are if absent.
        name: What the call is named in messages.
    """
    tensors, args, kwargs = _opened(inputs, name)
    copies = iter(copied_apart(tensors, device))
    positional = [build(node, copies) for node in args]
    return Inputs(*positional, **{key: build(node, copies) for key, node in kwargs.items()})


def _opened(inputs: Inputs, name: str) -> tuple[list[Tensor], list[Node], dict[str, Node]]:
    """The tensors of a call, and the structures of its arguments."""
    tensors: list[Tensor] = []
    args = [scan(value, tensors, f"{name}.args[{index}]") for index, value in enumerate(inputs.args)]
    kwargs = {key: scan(value, tensors, f"{name}.kwargs[{key!r}]") for key, value in inputs.kwargs.items()}
    return tensors, args, kwargs


def moved_model(model: nn.Module, device: torch.device) -> nn.Module:
    """A copy of a model on a device.

    Raises:
        UnsupportedError: It can't be copied, or can't be moved there.
    """
    if isinstance(model, _torch.ScriptModule):
        return moved_module(model, device)
    try:
        return copy.deepcopy(model).to(device)
    except Exception as error:  # what a copy runs is the model's own code
        text = str(error).strip().splitlines()
        raise UnsupportedError(
            compose(
                f"the model can't be copied to {device} to compare there",
                where=qualified(type(model)),
                differences=[f"{type(error).__name__}: {text[0] if text else ''}"],
                instead=f'model.to("{device}"), its inputs there too, and devices=["{device}"]',
                page="unsupportederror",
            )
        ) from error


Case = tuple[str, tuple[FlagValue, ...]]
"""A method of a file, and the values of its flags in their order."""


def case_of(case: Mapping[str, Any]) -> Case:
    """A method and its flags, as the metadata of a file have them."""
    return case["method"], tuple(case["flags"])


class Runner(nn.Module):
    """Runs a file of a format other than TorchScript: its methods take the call's tensors and then the flags.

    Its buffers, if it has any, are those of the file, named as in a script module.

    Args:
        cases: What runs each, which takes the tensors and gives one or a tuple.

    Attributes:
        counted: For each the program by which the sides are counted that a call takes, if that is known.
        counts: Whether running those is running the file.
    """

    counts = False

    def __init__(self, cases: Mapping[Case, Callable[..., Any]]) -> None:
        super().__init__()
        self._cases = dict(cases)
        self._flags = {method: len(flags) for method, flags in cases}
        self.counted: dict[Case, CountedProgram] = {}

    def __getattr__(self, name: str) -> Any:
        return partial(self._run, name) if name in vars(self).get("_flags", ()) else super().__getattr__(name)

    def forward(self, *args: Any) -> Any:
        """Runs the first method."""
        return self._run("forward", *args)

    def _run(self, method: str, *args: Any) -> Any:
        case, flat = self.case(method, args)
        return self._cases[case](*flat)

    def case(self, method: str, args: tuple[Any, ...]) -> tuple[Case, tuple[Any, ...]]:
        """Which case the arguments of a method mean, and its tensors."""
        end = len(args) - self._flags[method]
        return (method, args[end:]), args[:end]

    def moved(self, device: torch.device) -> Runner:
        """The same on a device; itself where the format knows but one."""
        return self


def moved_module(module: nn.Module, device: torch.device) -> nn.Module:
    """A copy of a script module, or of what runs another file, on a device."""
    if isinstance(module, Runner):
        return module.moved(device)
    assert isinstance(module, _torch.ScriptModule)
    if _torch.moves_in_memory(device):
        return copy.deepcopy(module).to(device)
    return _torch.moved_script(module, device)
