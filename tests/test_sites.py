"""Where in the user's code something happens."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import hybridjit as hj
from hybridjit._sites import Site, user_site


def here() -> int:
    frame = inspect.currentframe()
    assert frame is not None and frame.f_back is not None
    return frame.f_back.f_lineno


class Seen(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.site = Site("", 0)
        self.names: dict[int, str] = {}

    def forward(self, x: Tensor) -> Tensor:
        return self.helper(x)

    def helper(self, x: Tensor) -> Tensor:
        self.site = user_site(self.names)
        return x


class Watching(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.sites: list[Site] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        frame = sys._getframe(1)
        self.sites.append(user_site(frame=frame))
        return func(*args, **(kwargs or {}))


def test_the_calling_line() -> None:
    """The caller's own line, where no library stands between."""
    site, line = user_site(), here()
    assert (Path(site.file), site.line, site.library) == (Path(__file__), line, False)


def test_the_module_path() -> None:
    """The path of the innermost module whose method runs, through helpers and containers."""
    seen = Seen()
    model = nn.Sequential(nn.Identity(), nn.Sequential(seen))
    seen.names = {id(module): name for name, module in model.named_modules()}
    model(torch.ones(1))
    assert seen.site.module_path == "1.0" and str(seen.site).endswith(" in 1.0")
    seen.names = {}
    model(torch.ones(1))
    assert seen.site.module_path == "" and " in " not in str(seen.site)


def test_through_torch() -> None:
    """Torch's own frames are passed over, and said."""
    with Watching() as watching:
        line = here() + 1
        torch.nn.functional.relu(torch.ones(1))
    assert all(Path(site.file) == Path(__file__) for site in watching.sites)
    assert watching.sites[-1].line == line and watching.sites[-1].library


def test_through_hybridjit() -> None:
    """Our own frames are passed over."""
    with Watching() as watching:
        line = here() + 1
        adapter = hj.TracingAdapter(nn.Flatten(0), (torch.ones(1, 1),))
        adapter(torch.ones(1, 1))
    assert watching.sites[-1].line == line + 1


def test_no_user_frame() -> None:
    """Without a frame of the user's the place is unknown."""
    code = compile("import sys\nframe = sys._getframe()", "<frozen nothing>", "exec")
    names: dict[str, Any] = {"user_site": user_site}
    exec(code, names)

    class Alone:
        f_code = code
        f_lineno = 1
        f_back = None

    assert user_site(frame=Alone()) == Site("<unknown>", 0)  # type: ignore[arg-type]


def test_numpy_is_no_code_of_the_user() -> None:
    """What leaves a trace in a function of NumPy does so at the line that called it."""
    seen: list[Site] = []

    class Watched:
        def prod(self, **_: object) -> int:
            seen.append(user_site(frame=sys._getframe(1)))  # who called this
            return 1

    at, _ = here(), np.prod(Watched())  # type: ignore[call-overload]
    assert [(site.file, site.line) for site in seen] == [(__file__, at)]
