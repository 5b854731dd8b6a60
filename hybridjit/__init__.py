"""Getting a real PyTorch model out of Python without it being quietly wrong.

import hybridjit as hj

@hj.script_if_tracing  # a control-flow piece: scripted only while tracing
def at_most(boxes: Tensor, n: int) -> Tensor:
    return boxes[:n] if boxes.shape[0] > n else boxes

exported = hj.export(model, (image,), check_inputs=[(other_image,)])
print(exported.report)
exported.save("detector.pt")
result = hj.load("detector.pt")(image)  # the model's own result type
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from ._backend import announce as _announce
from ._errors import ArchiveError as ArchiveError
from ._errors import CaptureError as CaptureError
from ._errors import GuardError as GuardError
from ._errors import HybridJitError as HybridJitError
from ._errors import InputError as InputError
from ._errors import UnsupportedError as UnsupportedError
from ._errors import VerificationError as VerificationError
from .adapters.flatten import TracingAdapter as TracingAdapter
from .adapters.inputs import Inputs as Inputs
from .adapters.multi import MultiTrace as MultiTrace
from .control.branch import branch_if_tracing as branch_if_tracing
from .control.cond import cond as cond
from .control.cond import switch as switch
from .control.device import device_dependent as device_dependent
from .control.loops import fori_loop as fori_loop
from .control.loops import map as map
from .control.loops import scan as scan
from .control.loops import while_loop as while_loop
from .control.questions import is_exporting as is_exporting
from .control.questions import is_tracing as is_tracing
from .control.script import script_if_tracing as script_if_tracing
from .control.static import static as static
from .export.export import export as export
from .export.exported import Exported as Exported
from .export.exported import load as load
from .export.verify import verify as verify

if _TYPE_CHECKING:
    from .export.compile_report import CompileReport as CompileReport
    from .export.compile_report import compile_report as compile_report
    from .export.report import Report as Report

_announce()

_LATER = {"CompileReport": "compile_report", "compile_report": "compile_report", "Report": "report"}
"""Names by their module: telling of an export was a fifth of the import, which model code need not wait for."""


def __getattr__(name: str) -> _Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    globals()[name] = getattr(import_module(f".export.{_LATER[name]}", __name__), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
