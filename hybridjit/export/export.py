"""`export`: a model as a file that is compared with it before anyone gets it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from .exported import Exported
from .typed import Model, Result


def export(
    model: Model[Result],
    inputs: Any,
    kwargs: Mapping[str, Any] | None = None,
    *,
    format: str | Sequence[str] = "torchscript",
    branches: Sequence[str] | str | None = None,
    flags: Mapping[str, Sequence[bool | int | str]] | Sequence[Mapping[str, bool | int | str]] | None = None,
    methods: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    check_inputs: Iterable[Any] = (),
    devices: Sequence[torch.device | str] | None = None,
    on_frozen: str = "guard",
    rtol: float | None = None,
    atol: float | None = None,
    require_coverage: bool = False,
    optimize: str | None = None,
) -> Exported[Result]:
    """Exports a model, and compares the saved bytes with it before anyone gets them.

    The equivalent Python, without the comparison, the schema and the care::

        traced = torch.jit.trace(TracingAdapter(model, inputs, kwargs), flat_inputs)
        torch.jit.save(traced, path)
        return torch.jit.load(path)

    The model comes back as it was: mode, parameters, buffers, gradients, attributes, hooks, and
    the state of the random generators.

    Args:
        model: The model, in eval mode.
        inputs: The call to trace: a tuple of positional arguments, one argument, or `Inputs`.
        kwargs: Its keyword arguments; they also serve the check inputs that are no `Inputs`.
        format: ``"torchscript"``, ``"pt2"`` (torch.export), ``"onnx"`` or ``"aoti"`` (AOTInductor); a list of these,
            see `Exported.others`; or ``"auto"`` for the first of them, in this order, that is captured and verified.
        branches: Submodules, by name or pattern (``"layers.*.attn"``), whose ``if``s on tensors become
            branches as with `branch_if_tracing`; ``"auto"`` finds the innermost ones that need it.
        flags: What the caller of the file can switch: keywords of ``forward``, or attributes of the model by path
            (``"roi_heads.mask_on"``), with their values, of which every combination is exported; or a list of
            the combinations wanted.
        methods: Further methods of the model, each with its call, or a list of calls.
        dynamic_shapes: At which further sizes of ``inputs`` to verify the file, in torch.export's vocabulary: for each
            argument, by name or by position, and nested as it is, ``{dim: size}`` or one for each dimension, of
            ``Dim("batch", min=1)``, ``2 * batch``, ``Dim.DYNAMIC``, ``Dim.AUTO`` (may turn out to be fixed),
            ``Dim.STATIC``, an int or ``None``. Sizes and values that the model itself refuses are in the report.
        check_inputs: Further calls to compare on; other sizes and other values than the first. Those of another
            structure are exported beside it.
        devices: Where to compare; by default on the model's device and every accelerator present.
        on_frozen: What becomes of a value that Python code takes out of a traced tensor: ``"guard"`` writes a
            check into the file, which raises where the value is another one; ``"error"`` refuses;
            ``"ignore"`` keeps it, as a plain trace does.
        rtol: Relative tolerance; torch's by dtype unless given together with ``atol``.
        atol: Absolute tolerance.
        require_coverage: Whether a side of a branch that no check takes, or a loop of which no check runs a round,
            refuses the export. A side that only raises (the model's own validation) is none.
        optimize: What torch does to a TorchScript file before it is verified: ``"freeze"``, which makes constants of
            the weights, or ``"inference"``, which then fuses for this machine.

    Returns:
        The exported model; ``.report`` tells what was found and verified, ``.save`` writes the file.

    Raises:
        InputError: An argument is not what is expected; the model is in training mode.
        CaptureError: The model can't be traced, or raises on an input.
        VerificationError: The file gives something else than the model on some input or device; or a branch is not
            verified, and ``require_coverage`` is set. This error and `CaptureError` have a ``report``.
        UnsupportedError: This format or environment can't do it.

    Example:
        >>> import torch, hybridjit as hj
        >>> model = torch.nn.Linear(2, 1).eval()
        >>> exported = hj.export(model, torch.zeros(3, 2), check_inputs=[torch.ones(1, 2)])
        >>> exported.report.ok
        True
    """
    # By whoever exports: code that only imports decorators does not wait for what follows.
    from .formats import read_formats
    from .optimize import check_optimize
    from .request import Request
    from .task import check_on_frozen

    check_on_frozen(on_frozen)
    check_optimize(optimize)
    formats = read_formats(format)
    request = Request(
        model,
        inputs,
        kwargs,
        branches=branches,
        flags=flags,
        methods=methods,
        dynamic_shapes=dynamic_shapes,
        check_inputs=check_inputs,
        devices=devices,
        on_frozen=on_frozen,
        rtol=rtol,
        atol=atol,
        require_coverage=require_coverage,
        optimize=optimize,
    )
    if formats == ("torchscript",):
        from .torchscript import export_torchscript

        return export_torchscript(request)
    from .several import export_as

    return export_as(request, formats)
