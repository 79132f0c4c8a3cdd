"""The engine between hospitals: each hospital's message is a call over FLARE's communicator; none waits for another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

from dure.errors import DureError
from dure.federation.calls import Calls
from dure.federation.engine import Failure
from dure.federation.frames import Unreachable

ASK = "ask"
"""The topic of a round's question."""
MISSED = 3.0
"""Seconds into a round after which a hospital without a line is named."""


class Abandoned(Exception):
    """The run was cancelled, or the hub is stopping; what the ledger holds stays."""


class FlareEngine:
    """`identities`: hospital → its name on the wire. `patience`: seconds of silence after which one does not answer.

    `notice(hospital)` is called while a hospital says that it is still working, `silent(hospital)` once in a round when
    it has had no line for a while, or did not answer. `abandon` ends an `ask` under way.
    """

    def __init__(
        self,
        calls: Calls,
        identities: Mapping[str, str],
        patience: float = 30.0,
        notice: Callable[[str], None] = lambda hospital: None,
        silent: Callable[[str], None] = lambda hospital: None,
        abandon: threading.Event | None = None,
    ) -> None:
        self._calls, self._identities, self._patience = calls, identities, patience
        self._notice, self._silent, self._abandon = notice, silent, abandon or threading.Event()
        self._pool = ThreadPoolExecutor(max(1, len(identities)), thread_name_prefix="ask")

    def ask(self, messages: Mapping[str, bytes], timeout: float) -> Mapping[str, bytes | Failure]:
        """`timeout`: seconds for a whole answer, however alive its hospital is. Raises Abandoned."""
        asked = {self._pool.submit(self._one, name, message, timeout): name for name, message in messages.items()}
        pending: set[Future[bytes | Failure]] = set(asked)
        told: set[str] = set()
        began = time.monotonic()
        while pending:
            if self._abandon.is_set():
                raise Abandoned
            _, pending = wait(pending, timeout=0.5)
            if time.monotonic() - began > MISSED:
                for name in {asked[future] for future in pending} - told:
                    if not self._calls.known(self._identities.get(name, "")):
                        told.add(name)
                        self._silent(name)
        if self._abandon.is_set():  # what came may be the end of asking, not of a hospital
            raise Abandoned
        replies = {name: future.result() for future, name in asked.items()}
        for name in {name for name, reply in replies.items() if isinstance(reply, Failure)} - told:
            self._silent(name)
        return replies

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _one(self, hospital: str, message: bytes, timeout: float) -> bytes | Failure:
        peer = self._identities.get(hospital)
        if peer is None:
            return Failure("it is not a member now")
        try:
            return self._calls.call(
                peer,
                ASK,
                message,
                min(self._patience, timeout),
                timeout,
                lambda: self._notice(hospital),
                self._abandon.is_set,
            )
        except Unreachable as lost:
            return Failure(lost.reason)
        except (KeyError, TypeError, ValueError, AttributeError):
            return Failure("its reply cannot be read")
        except DureError as error:  # refused before it reached the hospital's runner
            return Failure(error.text("en").removesuffix("."))
