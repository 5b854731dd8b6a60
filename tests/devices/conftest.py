"""Runs tests on the test device in one process of their own: the device, once there, is an accelerator for all.

A test takes the fixture ``device``; it runs on ``elsewhere``, and on ``cuda`` where there is one.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.devices import elsewhere

_RESULTS = "HYBRIDJIT_DEVICE_RESULTS"
"""Set in the process of the test device: the file that it writes the outcomes to."""
_outcomes: dict[str, tuple[str, str]] = {}


@pytest.fixture(params=["elsewhere", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """A device other than the CPU."""
    if request.param == "elsewhere" and _RESULTS in os.environ:
        elsewhere.register()
    return str(request.param)


def _is_forwarded(item: pytest.Item) -> bool:
    called = getattr(item, "callspec", None)
    return _RESULTS not in os.environ and called is not None and called.params.get("device") == "elsewhere"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not _is_forwarded(pyfuncitem):
        return None
    if not _outcomes:
        _run([item.nodeid for item in pyfuncitem.session.items if _is_forwarded(item)], pyfuncitem.config)
    outcome, text = _outcomes[pyfuncitem.nodeid]
    if outcome != "passed":
        (pytest.skip if outcome == "skipped" else pytest.fail)(text)
    return True


def _run(names: list[str], config: pytest.Config) -> None:
    """Runs tests in a process of their own, and keeps what came out."""
    results = Path(tempfile.mkdtemp(prefix="hybridjit-devices-")) / "outcomes"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *names]
    ended = subprocess.run(
        command, env={**os.environ, _RESULTS: str(results)}, cwd=config.rootpath, capture_output=True, text=True
    )
    crashed = "failed", f"the process of the test device ended with {ended.returncode}:\n{ended.stdout[-4000:]}"
    _outcomes.update(dict.fromkeys(names, crashed))
    if results.exists():
        for line in results.read_text().splitlines():
            name, outcome, text = json.loads(line)
            _outcomes[name] = outcome, text
    shutil.rmtree(results.parent)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Writes an outcome down, in the process of the test device."""
    if _RESULTS in os.environ and (report.when == "call" or not report.passed):
        with Path(os.environ[_RESULTS]).open("a") as file:
            file.write(json.dumps([report.nodeid, report.outcome, report.longreprtext]) + "\n")
