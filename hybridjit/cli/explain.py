"""``explain HJ101``: a section of docs/errors.md, of which an installed package has a copy."""

from __future__ import annotations

import difflib
import re
from argparse import Namespace
from importlib.resources import files
from pathlib import Path

from .._describe import listed
from .._errors import compose
from .usage import FINE, UsageError


def explain_command(given: Namespace) -> int:
    """Prints the section about a code or an error class; without one, what there is."""
    sections = sections_of(page())
    if given.code is None:
        print("\n".join(name for name in sections))
        return FINE
    wanted = _anchor(given.code.rpartition("#")[2])  # messages point to docs/errors.md#hj101
    for name, text in sections.items():
        if _anchor(name) == wanted:
            print(text)
            return FINE
    anchors = {_anchor(name): name for name in sections}
    near = [anchors[each] for each in difflib.get_close_matches(wanted, anchors, cutoff=0.5)]
    names = near or list(sections)
    raise UsageError(
        compose(
            f"nothing is known of {given.code}",
            differences=[f"near it are {listed(names)}" if near else f"there are {listed(names, len(names))}"],
            instead=f"hybridjit explain {names[0]}",
        )
    )


def page() -> str:
    """The page: the copy in the package, or where it is worked on the page itself."""
    copy = files("hybridjit") / "errors.md"
    if copy.is_file():
        return copy.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")


def sections_of(page: str) -> dict[str, str]:
    """The sections by heading; a line within a block of code is none."""
    found: dict[str, list[str]] = {}
    current: list[str] = []
    inside = False
    for line in page.splitlines():
        inside ^= line.lstrip().startswith("```")
        if line.startswith("## ") and not inside:
            current = found.setdefault(line[3:].strip(), [])
        current.append(line)
    return {name: "\n".join(lines).rstrip() for name, lines in found.items()}


def _anchor(heading: str) -> str:
    """A heading as links spell it."""
    return re.sub(r"[^a-z0-9-]", "", heading.strip().lower().replace(" ", "-"))
