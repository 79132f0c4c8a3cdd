"""What the hub carries into hospitals' inboxes: studies, and signed decisions of boards that hospitals share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any, Protocol

from dure.errors import DecisionRefused, DureError, LifecycleError
from dure.federation.frames import Unreachable
from dure.guard.journal import Journal
from dure.hub import studies
from dure.hub.store import Store
from dure.study.board import read_decision
from dure.study.packing import pack

LAST_WORDS = (DecisionRefused, LifecycleError)
"""What a hospital says against a decision itself. Anything else, a full disk or a missing file, may pass."""


class Sender(Protocol):
    """What a courier needs of its hub."""

    store: Store
    journal: Journal

    def identities(self) -> dict[str, str]:
        """Member → its name on the wire."""
        ...

    def ask_site(self, identity: str, topic: str, body: bytes) -> bytes:
        """A call that is done at once or not at all. Raises Unreachable or DureError."""
        ...

    def tell(self, hash_: str, event: str, **details: Any) -> None:
        """Something happened in a study."""
        ...

    def spread(self, hash_: str, event: str, **details: Any) -> None:
        """What is in the study's record already."""
        ...


class Courier:
    """Carries to hospitals that are connected and do not hold it yet; what fails is tried again at the next look."""

    def __init__(self, sender: Sender, pool: Executor) -> None:
        self._sender, self._pool = sender, pool
        self._carried: set[tuple[str, str]] = set()

    def look(self, hash_: str, document: str, connected: Mapping[str, bool]) -> None:
        """One study that is in review or runs."""
        store = self._sender.store
        held = store.delivered(hash_)
        there = [name for name in store.hospitals() if connected.get(name)]
        proposer = store.submission(hash_)[1]
        for name in there:
            if name not in held:
                self._carry(hash_, name, "study", pack({"document": document, "proposer": proposer}), hash_)
        for envelope in store.board_decisions(hash_).values():
            digest = "decision:" + hashlib.sha256(json.dumps(envelope, sort_keys=True).encode()).hexdigest()
            taken = store.delivered(digest)
            for name in read_decision(envelope, None).hospitals:
                if name in there and name in held and name not in taken:
                    self._carry(hash_, name, "decision", pack(envelope), digest)

    def _carry(self, hash_: str, hospital: str, topic: str, body: bytes, what: str) -> None:
        if (what, hospital) not in self._carried:
            self._carried.add((what, hospital))
            self._pool.submit(self._hand_over, hash_, hospital, topic, body, what)

    def _hand_over(self, hash_: str, hospital: str, topic: str, body: bytes, what: str) -> None:
        sender = self._sender
        try:
            sender.ask_site(sender.identities()[hospital], topic, body)
            if topic == "study":
                studies.delivered(sender.store, hash_, hospital)
                sender.spread(hash_, "delivered", hospital=hospital)
            else:
                sender.store.put_delivered(what, hospital)
                sender.tell(hash_, "decision delivered", hospital=hospital)
        except (Unreachable, DureError, KeyError) as error:
            why = error.text("en") if isinstance(error, DureError) else type(error).__name__
            sender.journal.say("not delivered", level="warning", study=hash_, hospital=hospital, why=why)
            if topic == "decision" and isinstance(error, LAST_WORDS):
                sender.store.put_delivered(what, hospital)
                sender.tell(hash_, "decision refused", hospital=hospital, en=error.text("en"), ko=error.text("ko"))
        finally:
            self._carried.discard((what, hospital))
