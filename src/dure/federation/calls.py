"""Calls between the hub and its members over a wire of frames: signed, numbered, chunked, bounded, and patient.

A call is a topic and bytes, answered by bytes. Every frame's header is signed by its sender's own key and names the
session, so that a certificate alone speaks for nobody and a recorded frame is worth nothing later. Bodies travel in
parts, a few at a time; a lost part is sent again, not the whole; who works long says `later` and is asked again, so
that silence always means trouble. docs/architecture.md, *Between hospitals*, writes the protocol down.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from dure.errors import DureError, MessageRefused
from dure.federation.answering import HOLD, Answering, Handler, Session
from dure.federation.frames import (
    FORM,
    LARGEST,
    PART,
    SIGNATURE,
    SPEAKS,
    TRY_AGAIN,
    Keys,
    Payload,
    Unreachable,
    Wire,
    bound,
    digest,
    refused,
    seal,
    session_key,
    too_large,
    unseal,
)
from dure.federation.messages import error_from
from dure.language import Words

SLACK = 10.0
"""Seconds beyond HOLD after which a missing reply counts as lost."""
WINDOW = 4
"""Parts of one body under way at a time."""
BULK = 180.0
"""Seconds a part may take: four of 2 MiB on a line of half a megabit a second. A lost connection ends it at once."""
DEAF = 120.0
"""Seconds without any frame from a peer that owes one, after which its connection is given up for a new one."""


class SessionLost(Exception):
    """The peer does not know this session: one of the two was started again since it was agreed."""


class CallForgotten(Exception):
    """The peer has given up this call, which nobody asked about for long: it has to be made again."""


class Calls:
    """One end of the wire. `handle` answers what peers call; `most` bounds a reply, `takes` a call (bytes)."""

    def __init__(self, wire: Wire, keys: Keys, handle: Handler, most: int = LARGEST, takes: int = LARGEST) -> None:
        self.wire, self.keys, self.most = wire, keys, most
        self.on_lost: Callable[[str], None] = lambda peer: None
        self._waiting: dict[int, tuple[str, bytes, Future[tuple[dict[str, Any], bytes]]]] = {}
        """Request → peer, session and what will be its reply."""
        self._requests = count(1)
        self._connected: set[str] = set()
        self._heard: dict[str, float] = {}
        self._change = threading.Condition()
        self.answering = Answering(wire, handle, takes, self._change)
        wire.on_frame, wire.on_connected, wire.on_disconnected = self._frame, self._came, self._went

    # ── calling ──

    def hello(self, peer: str, patience: float, shown: bytes = b"") -> int:
        """Agree on a session with the hub; the protocol version. Raises Unreachable, ProtocolMismatch, DureError."""
        nonce = os.urandom(16)
        said = {"k": "hello", "speaks": list(SPEAKS), "nonce": nonce, "shown": shown, "s": b""}
        reply, _ = self._exchange(peer, said, b"", _Patience(patience), signed_by_session=False)
        session = Session(session_key(nonce, reply["nonce"], self.wire.name, peer), shown, active=True)
        with self._change:
            self.answering.sessions[peer] = session
            self._change.notify_all()
        return int(reply["version"])

    def known(self, peer: str) -> bool:
        """Whether a session with the peer holds and a connection is up."""
        session = self.answering.sessions.get(peer)
        return session is not None and session.active and peer in self._connected

    def forget(self, peer: str) -> None:
        """End the session and the connections: a member was revoked, or has to begin again."""
        self.answering.forget(peer)
        self.wire.drop(peer)

    def call(
        self,
        peer: str,
        topic: str,
        body: bytes,
        patience: float = 60.0,
        limit: float = float("inf"),
        notice: Callable[[], None] = lambda: None,
        abandoned: Callable[[], bool] = lambda: False,
    ) -> bytes:
        """The peer's reply. `patience`: seconds without a sign of life (two HOLDs or more); `limit`: altogether.

        `notice` is called whenever the peer says that it is still working. Raises Unreachable, or the DureError that
        the peer answered with. A peer that was started again is called again: handlers give the same answer twice.
        """
        waits = _Patience(max(patience, 2 * HOLD), limit, abandoned)
        while True:
            session = self._session(peer, waits)
            try:
                return self._attempt(peer, session, topic, body, waits, notice)
            except SessionLost:
                self._lost(peer, session)
            except CallForgotten:
                continue

    def beat(self, peer: str, patience: float) -> None:
        """A sign of life in both directions; raises Unreachable or SessionLost."""
        session = self.answering.sessions.get(peer)
        if session is None:
            raise SessionLost
        try:
            self._exchange(peer, {"k": "beat", "s": session.key}, b"", _Patience(patience))
        except SessionLost:
            self._lost(peer, session)
            raise

    def _attempt(
        self, peer: str, session: Session, topic: str, body: bytes, waits: _Patience, notice: Callable[[], None]
    ) -> bytes:
        number = next(session.numbers)  # type: ignore[call-overload]
        about = {"s": session.key, "n": number}
        whole = len(body) <= PART
        call = {"k": "call", "topic": topic, "size": len(body), "d": digest(body), **about}
        reply, payload = self._exchange(peer, call, body if whole else b"", waits)
        if reply["k"] == "send":
            self._push(peer, about, body, set(reply["have"]), waits)
            reply, payload = self._exchange(peer, {"k": "await", **about}, b"", waits)
        while reply["k"] == "later":
            notice()
            reply, payload = self._exchange(peer, {"k": "await", **about}, b"", waits)
        if reply["k"] == "error":
            raise error_from(reply["error"], peer, topic)
        size = int(reply["size"])
        if size > self.most:
            raise too_large(size, self.most)
        if size > PART:
            payload = self._pull(peer, about, size, waits)
        if len(payload) != size or digest(payload) != reply["d"]:
            raise MessageRefused(
                problem=Words("A body is not the one that was signed", "본문이 서명된 것과 다릅니다"),
                hint=TRY_AGAIN,
            )
        return payload

    def _push(self, peer: str, about: dict[str, Any], body: bytes, have: set[int], waits: _Patience) -> None:
        places = [place for place in range(-(-len(body) // PART)) if place not in have]
        view = memoryview(body)

        def one(place: int) -> None:
            part = view[place * PART : (place + 1) * PART]
            self._exchange(peer, {"k": "part", "i": place, **about}, part, waits)

        with ThreadPoolExecutor(WINDOW) as pool:
            for done in [pool.submit(one, place) for place in places]:
                done.result()

    def _pull(self, peer: str, about: dict[str, Any], size: int, waits: _Patience) -> bytes:
        def one(place: int) -> bytes:
            return self._exchange(peer, {"k": "pull", "i": place, **about}, b"", waits)[1]

        with ThreadPoolExecutor(WINDOW) as pool:
            body = b"".join(pool.map(one, range(-(-size // PART))))
        self._exchange(peer, {"k": "close", **about}, b"", waits)
        return body

    def _session(self, peer: str, waits: _Patience) -> Session:
        with self._change:
            while True:
                session = self.answering.sessions.get(peer)
                if session is not None and session.active:
                    return session
                if waits.over():
                    raise Unreachable(peer, "not connected")
                self._change.wait(min(0.2, waits.left()))

    def _lost(self, peer: str, session: Session) -> None:
        with self._change:
            if self.answering.sessions.get(peer) is session:
                del self.answering.sessions[peer]
        self.on_lost(peer)

    def _exchange(
        self, peer: str, said: dict[str, Any], payload: Payload, waits: _Patience, signed_by_session: bool = True
    ) -> tuple[dict[str, Any], bytes]:
        """One frame and its reply, sent again until the peer's silence has lasted too long."""
        bulk = BULK if said["k"] in ("part", "pull") else 0.0
        began = time.monotonic()
        while True:
            try:
                reply, body = self._once(peer, said, payload, min(bulk or HOLD + SLACK, waits.left(bulk)))
            except Unreachable as lost:
                if lost.reason == SILENT and time.monotonic() - self._heard.setdefault(peer, began) > DEAF:
                    self.wire.drop(peer)  # something in between keeps a dead connection open
                    self._heard[peer] = time.monotonic()
                if waits.left(bulk) <= 0:
                    raise
                with self._change:
                    self._change.wait(min(0.2, waits.left()))
                continue
            if reply["k"] != "refused":
                waits.heard()
                return reply, body
            if reply["code"] == "session" and signed_by_session:
                raise SessionLost
            if reply["code"] == "forgotten":
                raise CallForgotten
            raise error_from(reply["error"], peer)

    def _once(self, peer: str, said: dict[str, Any], payload: Payload, seconds: float) -> tuple[dict[str, Any], bytes]:
        request = next(self._requests)
        waiting: Future[tuple[dict[str, Any], bytes]] = Future()
        self._waiting[request] = (peer, said["s"], waiting)
        try:
            self.wire.send(peer, self._sealed(peer, {**said, "q": request}, payload))
            return waiting.result(max(seconds, 0.05))
        except NotYet:
            raise Unreachable(peer, SILENT) from None
        finally:
            self._waiting.pop(request, None)

    # ── frames, and who is there ──

    def _frame(self, peer: str, frame: Payload) -> None:
        try:
            header, head, signature, payload = unseal(frame)
            data, shown = bound(peer, self.wire.name, head), self.answering.shown(peer, header)
            refusal: DureError | None = None if self.keys.verify(peer, data, signature, shown) else SIGNATURE
        except DureError as error:  # a stranger, or somebody who was revoked
            refusal = error
        except (ValueError, TypeError, KeyError):
            return  # not a frame of this protocol: nothing to answer to
        if refusal is None:
            self._heard[peer] = time.monotonic()
        if "a" in header:
            there, session, waiting = self._waiting.get(header["a"], ("", b"", Future()))
            if refusal is None and there == peer and session == header.get("s") and not waiting.done():
                waiting.set_result((header, payload))
            return
        try:
            reply, body = (
                (refused("signature", refusal), b"") if refusal else self.answering.answer(peer, header, payload)
            )
        except (KeyError, TypeError, ValueError):
            reply, body = refused("form", FORM), b""
        with contextlib.suppress(Unreachable):  # it asks again once it is back
            self.wire.send(peer, self._sealed(peer, {**reply, "a": header.get("q", 0), "s": header.get("s")}, body))

    def _sealed(self, peer: str, header: dict[str, Any], payload: Payload) -> bytes:
        return seal(self.keys, self.wire.name, peer, header, payload)

    def _came(self, peer: str) -> None:
        with self._change:
            self._connected.add(peer)
            self._heard[peer] = time.monotonic()
            self._change.notify_all()

    def _went(self, peer: str) -> None:
        with self._change:
            self._connected.discard(peer)
        for there, _, waiting in list(self._waiting.values()):
            if there == peer and not waiting.done():
                waiting.set_exception(Unreachable(peer, "the connection was lost"))


SILENT = "it did not answer in time"


@dataclass
class _Patience:
    """How long silence is borne: `silence` seconds since the last sign of life, `limit` seconds altogether."""

    silence: float
    limit: float = float("inf")
    abandoned: Callable[[], bool] = lambda: False
    began: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)

    def heard(self) -> None:
        self.last = time.monotonic()

    def left(self, least: float = 0.0) -> float:
        """Seconds from now; `least`: what a large part may take, however impatient the caller is otherwise."""
        if self.abandoned():
            return 0.0
        now = time.monotonic()
        return max(0.0, min(self.last + max(self.silence, least) - now, self.began + self.limit - now))

    def over(self) -> bool:
        return self.left() <= 0
