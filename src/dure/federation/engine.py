"""The engine port: bytes to every hospital, bytes or a failure back. Rounds and sums stand on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

Answerer = Callable[[bytes], bytes]
"""What a hospital does with a message: engines receive it as an argument and know nothing else of a site."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A hospital that did not answer: `reason` is for people (time-out, unreachable)."""

    reason: str


class Engine(Protocol):
    def ask(self, messages: Mapping[str, bytes], timeout: float) -> Mapping[str, bytes | Failure]:
        """Send each hospital its message; exactly one entry per hospital comes back, in any order."""
        ...
