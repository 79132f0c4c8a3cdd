"""The engine inside one process: hospitals are functions. The demonstration and `simulate` run on it."""

from __future__ import annotations

from collections.abc import Mapping

from dure.federation.engine import Answerer, Failure


class LocalEngine:
    def __init__(self, hospitals: Mapping[str, Answerer]) -> None:
        self.hospitals = dict(hospitals)

    def ask(self, messages: Mapping[str, bytes], timeout: float) -> Mapping[str, bytes | Failure]:
        """Ask one after the other; time-outs do not apply inside a process."""
        return {
            name: self.hospitals[name](message) if name in self.hospitals else Failure("not in this process")
            for name, message in messages.items()
        }
