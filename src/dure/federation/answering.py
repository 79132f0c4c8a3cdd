"""The answering half of calls: which sessions hold, what has been asked in them, and what the handler replied."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from dure.errors import DureError, ProtocolMismatch
from dure.federation import frames
from dure.federation.frames import PART, SPEAKS, Payload, Wire
from dure.federation.messages import error_data

HOLD = 5.0
"""Seconds after which a call that is still being worked on is answered `later`."""
KEPT = 300.0
"""Seconds for which a reply can be fetched again."""
OPEN_CALLS = 256
Handler = Callable[[str, str, bytes], "bytes | Future[bytes]"]
"""(peer, topic, body) → reply, at once or as a future; a DureError becomes the caller's error."""


@dataclass
class Incoming:
    """A call from a peer: its body while it arrives, then its reply."""

    header: Mapping[str, Any]
    parts: dict[int, bytes] = field(default_factory=dict)
    reply: Future[bytes] = field(default_factory=Future)
    started: bool = False
    touched: float = field(default_factory=time.monotonic)


@dataclass
class Session:
    key: bytes
    shown: bytes = b""
    active: bool = False
    numbers: Iterable[int] = field(default_factory=lambda: count(1))
    incoming: dict[int, Incoming] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    floor: int = 0


class Answering:
    """Answers the peers of one end. `most` bounds a body in bytes; `change` is told when a session begins to hold."""

    def __init__(self, wire: Wire, handle: Handler, most: int, change: threading.Condition) -> None:
        self.sessions: dict[str, Session] = {}
        self.on_session: Callable[[str], None] = lambda peer: None
        self._wire, self._handle, self._most, self._change = wire, handle, most, change
        self._offered: dict[str, Session] = {}
        """Sessions answered to a hello; each holds once the peer has signed something in it."""

    def forget(self, peer: str) -> None:
        with self._change:
            self.sessions.pop(peer, None)
            self._offered.pop(peer, None)

    def shown(self, peer: str, header: Mapping[str, Any]) -> bytes:
        """The key that a peer who is not enrolled yet has named in its hello."""
        if header.get("k") == "hello" and "q" in header:
            return bytes(header["shown"])
        session = self._offered.get(peer) or self.sessions.get(peer)
        return session.shown if session else b""

    def answer(self, peer: str, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], Payload]:
        if header["k"] == "hello":
            return self._welcome(peer, header), b""
        session = self._agreed(peer, header["s"])
        if session is None:
            return frames.refused("session", frames.SESSION), b""
        if header["k"] == "beat":
            return {"k": "beat"}, b""
        number = header["n"]
        incoming = session.incoming.get(number)
        if header["k"] == "call":
            if incoming is None:
                incoming, refusal = self._open(session, header)
                if incoming is None:
                    return refusal, b""
            elif any(incoming.header[name] != header[name] for name in ("topic", "size", "d")):
                return frames.refused("replayed", frames.REPLAYED), b""
            if header["size"] > PART:
                if not incoming.started:
                    return {"k": "send", "have": sorted(incoming.parts)}, b""
            elif not incoming.started:
                incoming.parts[0] = payload
        elif incoming is None:
            return frames.refused("forgotten", frames.SESSION), b""
        incoming.touched = time.monotonic()
        if header["k"] == "part":
            if not 0 <= header["i"] < -(-incoming.header["size"] // PART) or len(payload) > PART:
                return frames.refused("form", frames.FORM), b""
            if not incoming.started:
                incoming.parts[header["i"]] = payload
            return {"k": "part"}, b""
        if header["k"] == "pull":
            body = memoryview(incoming.reply.result(0))
            return {"k": "part"}, body[header["i"] * PART : (header["i"] + 1) * PART]
        if header["k"] == "close":
            session.incoming.pop(number, None)
            return {"k": "closed"}, b""
        if not self._start(peer, incoming):
            return {"k": "send", "have": sorted(incoming.parts)}, b""
        return self._outcome(incoming)

    def _welcome(self, peer: str, header: dict[str, Any]) -> dict[str, Any]:
        common = set(header["speaks"]) & set(SPEAKS)
        if not common:
            there, here = (", ".join(map(str, sorted(versions))) for versions in (header["speaks"], SPEAKS))
            return frames.refused("protocol", ProtocolMismatch(theirs=there, ours=here))
        nonce = os.urandom(16)
        session = Session(frames.session_key(header["nonce"], nonce, peer, self._wire.name), header["shown"])
        self._offered[peer] = session
        self._wire.drop(peer, but_newest=True)
        return {"k": "hello", "version": max(common), "nonce": nonce}

    def _agreed(self, peer: str, key: bytes) -> Session | None:
        """The session of that key; one that was offered begins to hold with the first frame signed in it."""
        offered = self._offered.get(peer)
        if offered is not None and offered.key == key:
            offered.active = True
            with self._change:
                self.sessions[peer] = offered
                self._offered.pop(peer, None)
                self._change.notify_all()
            self.on_session(peer)
        session = self.sessions.get(peer)
        return session if session is not None and session.key == key else None

    def _open(self, session: Session, header: dict[str, Any]) -> tuple[Incoming | None, dict[str, Any]]:
        number, now = header["n"], time.monotonic()
        with self._change:
            for old, entry in list(session.incoming.items()):
                if now - entry.touched > KEPT or (len(session.incoming) > OPEN_CALLS and entry.reply.done()):
                    del session.incoming[old]
            if number in session.incoming:
                return session.incoming[number], {}
            if number in session.seen or number <= session.floor:
                return None, frames.refused("replayed", frames.REPLAYED)
            size = header["size"]
            if not 0 <= size <= self._most:
                return None, frames.refused("size", frames.too_large(size, self._most))
            arriving = sum(entry.header["size"] for entry in session.incoming.values() if not entry.started)
            if len(session.incoming) > OPEN_CALLS or arriving + size > self._most:
                return None, frames.refused("busy", frames.BUSY)
            session.seen.add(number)
            if len(session.seen) > 10_000:
                session.floor = max(session.seen) - 5_000
                session.seen = {seen for seen in session.seen if seen > session.floor}
            session.incoming[number] = incoming = Incoming(header)
        return incoming, {}

    def _start(self, peer: str, incoming: Incoming) -> bool:
        """Hand a complete body to the handler, once; False while parts are missing."""
        header = incoming.header
        with self._change:
            if incoming.started:
                return True
            if len(incoming.parts) < max(1, -(-header["size"] // PART)):
                return False
            incoming.started = True
        body = b"".join(incoming.parts[place] for place in sorted(incoming.parts))
        incoming.parts = {}
        if len(body) != header["size"] or frames.digest(body) != header["d"]:
            incoming.reply.set_exception(frames.SIGNATURE)
            return True
        try:
            found = self._handle(peer, header["topic"], body)
        except DureError as error:
            incoming.reply.set_exception(error)
        except Exception as error:  # the peer hears that something failed; the words might hold a value
            incoming.reply.set_exception(DureError(kind=type(error).__name__))
        else:
            if isinstance(found, Future):
                incoming.reply = found
            else:
                incoming.reply.set_result(found)
        return True

    def _outcome(self, incoming: Incoming) -> tuple[dict[str, Any], Payload]:
        try:
            body = incoming.reply.result(HOLD)
        except NotYet:
            return {"k": "later"}, b""
        except DureError as error:
            return {"k": "error", "error": error_data(error)}, b""
        except Exception:
            return {"k": "error", "error": error_data(DureError())}, b""
        about = {"k": "done", "size": len(body), "d": frames.digest(body)}
        return about, body if len(body) <= PART else b""
