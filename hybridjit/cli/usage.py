"""What a command ends with, other than being done."""

from __future__ import annotations

from typing import Final

FINE: Final = 0
FAILED: Final = 1
"""The export, the verification or the self-test failed; or the model's own code did."""
USAGE: Final = 2
"""The command line itself is wrong; argparse ends with the same."""
INTERRUPTED: Final = 130
"""Ctrl-C, as shells number it."""


class UsageError(Exception):
    """What was written on the command line names nothing that is there."""


class UserCodeError(Exception):
    """The user's own code raised; the message is its traceback."""
