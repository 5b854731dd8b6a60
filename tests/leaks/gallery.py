"""All entries of the gallery, by name."""

from __future__ import annotations

from . import asks, containers, lost, made, numbers, sizes, state, writes
from .entry import GALLERY as GALLERY

PAGES = (numbers, sizes, containers, asks, made, state, writes, lost)
"""Where the entries are; importing them adds them."""
