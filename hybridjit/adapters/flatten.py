"""`TracingAdapter`: a model of rich arguments and results as one of flat tensors."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import _torch
from .._describe import describe
from .._errors import InputError, compose
from .inputs import Inputs, as_inputs
from .schema import CallSchema, ValueSchema
from .tree import differences, scan, show

_MOST = 8  # rows, so that both structures fit into a message


def _listed(title: str, rows: list[str]) -> str:
    rest = [f"… and {len(rows) - _MOST} more"] if len(rows) > _MOST else []
    return "\n      ".join([f"{title}:", *rows[:_MOST], *rest])


def _signature(model: nn.Module) -> inspect.Signature:
    try:
        return _torch.signature_of(model.forward)
    except (ValueError, TypeError) as error:
        raise InputError(
            compose(
                "the model's forward has no signature that Python can read",
                where=type(model).__qualname__,
                differences=[str(error)],
                instead="def forward(self, x): return function(x)",
                page="inputerror",
            )
        ) from None


def _no_tensors(what: str, got: object) -> InputError:
    return InputError(
        compose(
            what,
            differences=[f"expected tensors, got {describe(got)}"],
            instead="adapter.unflatten(adapter(*adapter.flatten(*args, **kwargs)))",
            page="inputerror",
        )
    )


class _NamedForward:
    """``forward`` with the real argument names in its signature, which torch.jit.trace asks for."""

    def __get__(self, adapter: TracingAdapter | None, owner: type) -> Callable[..., Any]:
        if adapter is None:
            return TracingAdapter.call_flat

        def forward(*tensors: Tensor) -> Any:
            if _torch.tracing_state() is None:
                return adapter.call_flat(*tensors)
            around = adapter.around
            result = around(adapter.call_flat, tensors) if around else adapter.call_flat(*tensors)
            if adapter.leave is not None:
                adapter.leave((result,) if isinstance(result, Tensor) else result)
            return result

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        names = [inspect.Parameter(name, kind) for name in adapter.input_schema.names()]
        vars(forward)["__signature__"] = inspect.Signature(names)
        return forward


@dataclass
class _Result:
    """The structure of a result; an object of its own, because torch.export puts attributes back."""

    schema: ValueSchema | None = None


class TracingAdapter(nn.Module):
    """Wraps a model so that it takes flat tensors and returns a flat tuple of tensors.

    The equivalent Python, for a model that takes ``(image, targets)`` and returns a dict::

        def forward(image, targets_boxes, targets_labels):
            result = model(image, {"boxes": targets_boxes, "labels": targets_labels})
            return result["boxes"], result["scores"]

    Args:
        model: The model. Its signature gives the flat arguments their names.
        args: Example positional arguments, or a lone one: any nesting of dict, list, tuple, NamedTuple,
            dataclass, containers registered with torch's pytree, and objects of a class with nothing but
            attributes. Text, numbers and ``None`` stay in the schema.
        kwargs: Example keyword arguments.

    Raises:
        InputError: The arguments don't fit the model, or hold something that is none of these.

    Example:
        >>> import torch, hybridjit as hj
        >>> class Scale(torch.nn.Module):
        ...     def forward(self, batch, by=2.0):
        ...         return {"scaled": batch["x"] * by}
        >>> adapter = hj.TracingAdapter(Scale(), ({"x": torch.ones(2)},))
        >>> flat = adapter.flatten({"x": torch.ones(3)})
        >>> adapter.unflatten(adapter(*flat))
        {'scaled': tensor([2., 2., 2.])}
    """

    forward: Any = _NamedForward()

    def __init__(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InputError(
                compose(
                    "TracingAdapter takes an nn.Module",
                    differences=[f"model: expected an nn.Module, got {describe(model)}"],
                    instead="a module whose forward calls the function",
                    page="inputerror",
                )
            )
        inputs = as_inputs(args, kwargs)
        self.model = model
        self._schema, tensors = CallSchema.of(_signature(model), inputs)
        self._example = Inputs(*(tensor.detach() for tensor in tensors))  # non-leaves can't be copied
        self._result = _Result()
        self.enter: Callable[[tuple[Tensor, ...]], None] | None = None  # told of each call, first
        self.leave: Callable[[tuple[Tensor, ...]], None] | None = None  # told of a trace's results
        self.around: Callable[[Callable[..., Any], tuple[Tensor, ...]], Any] | None = None
        self.changed: tuple[str, ...] = ()  # what the last traced call changed of its arguments' containers
        self.training: bool = getattr(model, "training", False)  # a frozen script module has no mode

    @property
    def input_schema(self) -> CallSchema:
        """The structure of the arguments."""
        return self._schema

    @property
    def output_schema(self) -> ValueSchema:
        """The structure of the result: of the first call, or of a call on the example arguments."""
        if self._result.schema is None:
            with torch.no_grad():
                self.call_flat(*self._example.args)
        assert self._result.schema is not None
        return self._result.schema

    def expect(self, result: Any) -> None:
        """Takes the structure of the result from a result of the model in eager mode."""
        self._result.schema = ValueSchema(scan(result, [], "result"))

    def flatten(self, /, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """The tensors of a call with the structure of the example.

        Args:
            *args: The model's positional arguments.
            **kwargs: The model's keyword arguments.

        Returns:
            The tensors, in the order of ``input_schema.names()``.

        Raises:
            InputError: The structure, or a static value in it, is another one.
        """
        return self._schema.flatten(Inputs(*args, **kwargs))

    def unflatten(self, tensors: Tensor | tuple[Tensor, ...]) -> Any:
        """The model's rich result, from what ``forward`` returned.

        Args:
            tensors: The flat tuple, or a lone tensor.

        Returns:
            The result, in the model's own types.
        """
        if not isinstance(tensors, (Tensor, tuple, list)):
            raise _no_tensors("unflatten takes what the adapter's forward returned", tensors)
        return self.output_schema.unflatten((tensors,) if isinstance(tensors, Tensor) else tuple(tensors))

    def call_flat(self, *tensors: Tensor) -> Any:
        """What ``forward`` does: takes and returns flat tensors; a lone tensor is returned bare.

        Raises:
            InputError: The result has another structure than the first call's.
        """
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise _no_tensors("the adapter's forward takes flat tensors", tensor)
        if self.enter is not None:
            self.enter(tensors)
        inputs = self._schema.unflatten(tensors)
        result = self.model(*inputs.args, **inputs.kwargs)
        flat: list[Tensor] = []
        before = self._result.schema
        node = scan(result, flat, "result", before.node if before else None)
        wrong = differences(before.node, node, "result") if before else []
        if before and wrong:
            raise InputError(
                compose(
                    "the result has another structure than the first call's",
                    where=type(self.model).__qualname__,
                    differences=[
                        *wrong[:_MOST],
                        *([f"… and {len(wrong) - _MOST} more"] if len(wrong) > _MOST else []),
                        _listed("first", show(before.node, "result")),
                        _listed("now", show(node, "result")),
                    ],
                    instead="a result of one structure for all inputs (an empty tensor for nothing)",
                    page="inputerror",
                )
            )
        if before is None or _torch.tracing_state() is not None or torch.compiler.is_exporting():
            self._result.schema = ValueSchema(node)  # a capture tells which numbers it carries
            self.changed = tuple(self._schema.changes(inputs, tensors))
        return flat[0] if len(flat) == 1 else tuple(flat)
