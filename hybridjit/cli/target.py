"""``package.module:build``: the function that makes a model and its inputs."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from .._describe import describe, listed
from .._errors import InputError, compose
from ..adapters.inputs import Inputs, as_inputs
from ..export.export import export
from ..export.verify import named_calls
from .usage import UsageError, UserCodeError

_PACKAGE = str(Path(__file__).parents[1])
_RETURNS = 'return model, inputs\nor return model, inputs, {"check_inputs": [(other,)]}'


@dataclass(frozen=True)
class Built:
    """What a build function returned.

    Attributes:
        model: The model; that it is one is for `export` to say.
        inputs: The call to trace.
        options: Further keywords of `export`.
    """

    model: Any
    inputs: Any
    options: Mapping[str, Any]

    def calls(self) -> list[Inputs]:
        """Every call that the function gave, the keyword arguments with them, as `verify` takes them."""
        kwargs = self.options.get("kwargs")
        further = named_calls(self.options.get("check_inputs", ()), kwargs)
        return [as_inputs(self.inputs, kwargs), *further.values()]


def built(target: str) -> Built:
    """Imports a build function, the current folder being importable, and calls it.

    Args:
        target: ``package.module:build``.

    Raises:
        UsageError: There is no such module or function.
        UserCodeError: The module or the function raises.
        InputError: It returns something else.
    """
    function = _function(target)
    try:
        given = function()
    except Exception as error:
        raise UserCodeError(_as_seen_by_the_user(error, f"{target} raised")) from error
    if not isinstance(given, tuple) or len(given) not in (2, 3):
        got = f"a tuple of {len(given)}" if isinstance(given, tuple) else describe(given)
        raise _wrong_return(target, [f"expected (model, inputs) or (model, inputs, options), got {got}"])
    model, inputs, *rest = given
    options = rest[0] if rest else {}
    if not isinstance(options, Mapping):
        raise _wrong_return(
            target, [f"options: expected keywords of hybridjit.export in a dict, got {describe(options)}"]
        )
    known = list(inspect.signature(export).parameters)[2:]
    wrong = [f"options[{name!r}]: is none of {listed(known, len(known))}" for name in options if name not in known]
    if wrong:
        raise _wrong_return(target, wrong)
    return Built(model, inputs, options)


def _wrong_return(target: str, wrong: list[str]) -> InputError:
    text = f"{target} returns something else than a model and its inputs"
    return InputError(compose(text, differences=wrong, instead=_RETURNS, page="inputerror"))


def _function(target: str) -> Callable[[], Any]:
    module, _, path = target.partition(":")
    if not module or not all(part.isidentifier() for part in [*module.split("."), *path.split(".")]):
        raise UsageError(
            compose(
                "the model is named as package.module:build", differences=[f"got {target}"], instead=_example(module)
            )
        )
    found = _imported(module)
    for name in path.split("."):
        if not hasattr(found, name):
            near = difflib.get_close_matches(name, _functions_in(found)) or _functions_in(found)
            there = f"it has {listed(near)}" if near else "it has no function"
            raise UsageError(
                compose(
                    f"{module} has no function {path}",
                    where=str(getattr(sys.modules[module], "__file__", module)),
                    differences=[there],
                    instead=f"{module}:{near[0]}" if near else f"def {path}(): return model, inputs",
                )
            )
        found = getattr(found, name)
    if not callable(found):
        raise UsageError(
            compose(
                f"{target} is no function",
                differences=[f"expected one without arguments, got {describe(found)}"],
                instead="def build(): return model, inputs",
            )
        )
    function: Callable[[], Any] = found
    return function


def _example(module: str) -> str:
    """What may have been meant, where a file was named, or no function."""
    name = module.removesuffix(".py").strip("./").replace("/", ".")
    return f"{name if all(part.isidentifier() for part in name.split('.')) else 'package.module'}:build"


def _functions_in(holder: Any) -> list[str]:
    own = getattr(holder, "__name__", None)
    return [
        name
        for name, value in vars(holder).items()
        if inspect.isfunction(value) and value.__module__ == own and not name.startswith("_")
    ]


def _imported(name: str) -> Any:
    here = os.getcwd()
    if here not in sys.path:  # the script has its own folder there instead
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name != missing and not name.startswith(f"{missing}."):  # the module is there, and imports what is not
            raise UserCodeError(_as_seen_by_the_user(error, f"{name} could not be imported")) from error
        raise UsageError(
            compose(
                f"there is no module {missing}",
                differences=[f"looked for it in {here}, and where Python finds packages"],
                instead=f"python -m hybridjit … {name}:build, in the folder that holds {name.split('.')[0]}",
            )
        ) from error
    except Exception as error:
        raise UserCodeError(_as_seen_by_the_user(error, f"{name} could not be imported")) from error


def _as_seen_by_the_user(error: BaseException, what: str) -> str:
    """A traceback from the user's first line on."""
    shown = error.__traceback__
    while shown is not None and _is_ours(shown):
        shown = shown.tb_next
    text = "".join(traceback.format_exception(type(error), error, shown)).rstrip()
    return f"{what}\n{text}"


def _is_ours(step: TracebackType) -> bool:
    file = step.tb_frame.f_code.co_filename
    return file.startswith((_PACKAGE, "<frozen importlib")) or file == importlib.__file__
