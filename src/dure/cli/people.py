"""Who acts in a folder: a signed-in person, or its owner where no account exists."""

from __future__ import annotations

from pathlib import Path

from dure.guard.permissions import Actor, owner


def acting(folder: Path) -> Actor:
    return owner(folder.name)
