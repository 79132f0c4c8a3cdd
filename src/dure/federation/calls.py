"""Calls between the hub and its members over a wire of frames: signed, numbered, chunked, bounded, and patient.

A call is a topic and bytes, answered by bytes. Every frame's header is signed by its sender's own key and names the
session, so that a certificate alone speaks for nobody and a recorded frame is worth nothing later. Bodies travel in
parts, a few at a time; a lost part is sent again, not the whole; who works long says `later` and is asked again, so
that silence always means trouble. docs/architecture.md, *Between hospitals*, writes the protocol down.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

import msgpack

from dure.errors import DureError, MessageRefused, ProtocolMismatch
from dure.federation.messages import error_data, error_from
from dure.language import Words

SPEAKS = (1,)
"""Versions of this protocol that this software speaks."""
PART = 1 << 20
LARGEST_FRAME = PART + (1 << 12)
WINDOW = 4
"""Parts of one body under way at a time."""
HOLD = 5.0
"""Seconds after which a call that is still being worked on is answered `later`."""
SLACK = 10.0
"""Seconds beyond HOLD after which a missing reply counts as lost."""
KEPT = 300.0
"""Seconds for which a reply can be fetched again."""
OPEN_CALLS = 256
LARGEST = 1 << 30
"""Bytes of the largest body taken, unless a process sets less."""

Handler = Callable[[str, str, bytes], "bytes | Future[bytes]"]
"""(peer, topic, body) → reply, at once or as a future; a DureError becomes the caller's error."""


class Unreachable(Exception):
    """No connection to the peer, or no sign of life from it: `reason` is for people."""

    def __init__(self, peer: str, reason: str) -> None:
        self.peer, self.reason = peer, reason
        super().__init__(f"{peer}: {reason}")


class SessionLost(Exception):
    """The peer does not know this session: one of the two was started again since it was agreed."""


class CallForgotten(Exception):
    """The peer has given up this call, which nobody asked about for long: it has to be made again."""


class Wire(Protocol):
    """What calls stand on: frames to named peers, and word of who comes and goes."""

    name: str
    on_frame: Callable[[str, bytes], None]
    on_connected: Callable[[str], None]
    on_disconnected: Callable[[str], None]

    def send(self, peer: str, frame: bytes) -> None: ...

    def drop(self, peer: str, but_newest: bool = False) -> None: ...

    def stop(self) -> None: ...


class Keys(Protocol):
    """This end's signing key, and everybody's public ones."""

    def sign(self, data: bytes) -> bytes: ...

    def verify(self, peer: str, data: bytes, signature: bytes, shown: bytes) -> bool:
        """Whether `peer` signed; `shown` is the key a not yet enrolled peer names in its hello.

        Raises DureError for those who may not speak at all.
        """
        ...


@dataclass
class _Incoming:
    """A call from a peer: its body while it arrives, then its reply."""

    header: Mapping[str, Any]
    parts: dict[int, bytes] = field(default_factory=dict)
    reply: Future[bytes] = field(default_factory=Future)
    started: bool = False
    touched: float = field(default_factory=time.monotonic)


@dataclass
class _Session:
    key: bytes
    shown: bytes = b""
    active: bool = False
    numbers: Iterable[int] = field(default_factory=lambda: count(1))
    incoming: dict[int, _Incoming] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    floor: int = 0


class Calls:
    """One end of the wire. `handle` answers what peers call; `most` bounds a body in bytes."""

    def __init__(self, wire: Wire, keys: Keys, handle: Handler, most: int = LARGEST) -> None:
        self.wire, self.keys, self.handle, self.most = wire, keys, handle, most
        self.on_session: Callable[[str], None] = lambda peer: None
        self.on_lost: Callable[[str], None] = lambda peer: None
        self._sessions: dict[str, _Session] = {}
        self._offered: dict[str, _Session] = {}
        """Sessions answered to a hello; each holds once the peer has signed something in it."""
        self._waiting: dict[int, tuple[str, Future[tuple[dict[str, Any], bytes]]]] = {}
        self._requests = count(1)
        self._connected: set[str] = set()
        self._change = threading.Condition()
        wire.on_frame, wire.on_connected, wire.on_disconnected = self._frame, self._came, self._went

    # ── calling ──

    def hello(self, peer: str, patience: float, shown: bytes = b"") -> int:
        """Agree on a session with the hub; the protocol version. Raises Unreachable, ProtocolMismatch, DureError."""
        nonce = os.urandom(16)
        said = {"k": "hello", "speaks": list(SPEAKS), "nonce": nonce, "shown": shown, "s": b""}
        reply, _ = self._exchange(peer, said, b"", _Patience(patience), signed_by_session=False)
        session = _Session(_session_key(nonce, reply["nonce"], self.wire.name, peer), shown, active=True)
        with self._change:
            self._sessions[peer] = session
            self._change.notify_all()
        return int(reply["version"])

    def known(self, peer: str) -> bool:
        """Whether a session with the peer holds and a connection is up."""
        session = self._sessions.get(peer)
        return session is not None and session.active and peer in self._connected

    def forget(self, peer: str) -> None:
        """End the session and the connections: a member was revoked, or has to begin again."""
        with self._change:
            self._sessions.pop(peer, None)
            self._offered.pop(peer, None)
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
        """The peer's reply. `patience`: seconds without a sign of life; `limit`: seconds altogether.

        `notice` is called whenever the peer says that it is still working. Raises Unreachable, or the DureError that
        the peer answered with. A peer that was started again is called again: handlers give the same answer twice.
        """
        waits = _Patience(patience, limit, abandoned)
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
        session = self._sessions.get(peer)
        if session is None:
            raise SessionLost
        try:
            self._exchange(peer, {"k": "beat", "s": session.key}, b"", _Patience(patience))
        except SessionLost:
            self._lost(peer, session)
            raise

    def _attempt(
        self, peer: str, session: _Session, topic: str, body: bytes, waits: _Patience, notice: Callable[[], None]
    ) -> bytes:
        number = next(session.numbers)  # type: ignore[call-overload]
        about = {"s": session.key, "n": number}
        whole = len(body) <= PART
        call = {"k": "call", "topic": topic, "size": len(body), "d": _digest(body), **about}
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
            raise _too_large(size, self.most)
        if size > PART:
            payload = self._pull(peer, about, size, waits)
        if len(payload) != size or _digest(payload) != reply["d"]:
            raise MessageRefused(
                problem=Words("A body is not the one that was signed", "본문이 서명된 것과 다릅니다"),
                hint=TRY_AGAIN,
            )
        return payload

    def _push(self, peer: str, about: dict[str, Any], body: bytes, have: set[int], waits: _Patience) -> None:
        places = [place for place in range(-(-len(body) // PART)) if place not in have]
        view = memoryview(body)

        def one(place: int) -> None:
            part = bytes(view[place * PART : (place + 1) * PART])
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

    def _session(self, peer: str, waits: _Patience) -> _Session:
        with self._change:
            while True:
                session = self._sessions.get(peer)
                if session is not None and session.active:
                    return session
                if waits.over():
                    raise Unreachable(peer, "not connected")
                self._change.wait(min(0.2, waits.left()))

    def _lost(self, peer: str, session: _Session) -> None:
        with self._change:
            if self._sessions.get(peer) is session:
                del self._sessions[peer]
        self.on_lost(peer)

    def _exchange(
        self, peer: str, said: dict[str, Any], payload: bytes, waits: _Patience, signed_by_session: bool = True
    ) -> tuple[dict[str, Any], bytes]:
        """One frame and its reply, sent again until the peer's silence has lasted too long."""
        silent = 0
        while True:
            try:
                reply, body = self._once(peer, said, payload, min(HOLD + SLACK, waits.left()))
            except Unreachable as lost:
                if waits.over():
                    raise
                if lost.reason == SILENT:
                    silent += 1
                    if silent % 2 == 0:  # the connection may be dead without a word; a new one tells
                        self.wire.drop(peer)
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

    def _once(self, peer: str, said: dict[str, Any], payload: bytes, seconds: float) -> tuple[dict[str, Any], bytes]:
        request = next(self._requests)
        waiting: Future[tuple[dict[str, Any], bytes]] = Future()
        self._waiting[request] = (peer, waiting)
        try:
            self.wire.send(peer, self._signed(peer, {**said, "q": request}, payload))
            return waiting.result(max(seconds, 0.05))
        except NotYet:
            raise Unreachable(peer, SILENT) from None
        finally:
            self._waiting.pop(request, None)

    # ── answering ──

    def _frame(self, peer: str, frame: bytes) -> None:
        try:
            head, signature, payload = msgpack.unpackb(frame)
            header = msgpack.unpackb(head)
            if not isinstance(header, dict) or not isinstance(payload, bytes):
                return
            refusal: DureError | None = None if self._sound(peer, header, head, signature) else SIGNATURE
        except DureError as error:  # a stranger, or somebody who was revoked
            refusal = error
        except (ValueError, TypeError, KeyError, msgpack.UnpackException):
            return  # not a frame of this protocol: nothing to answer to
        if "a" in header:
            peer_waiting = self._waiting.get(header["a"])
            if refusal is None and peer_waiting and peer_waiting[0] == peer and not peer_waiting[1].done():
                peer_waiting[1].set_result((header, payload))
            return
        try:
            reply, body = (_refused("signature", refusal), b"") if refusal else self._answer(peer, header, payload)
        except (KeyError, TypeError, ValueError):
            reply, body = _refused("form", FORM), b""
        with contextlib.suppress(Unreachable):  # it asks again once it is back
            self.wire.send(peer, self._signed(peer, {**reply, "a": header.get("q", 0)}, body))

    def _answer(self, peer: str, header: dict[str, Any], payload: bytes) -> tuple[dict[str, Any], bytes]:
        if header["k"] == "hello":
            return self._welcome(peer, header), b""
        session = self._agreed(peer, header["s"])
        if session is None:
            return _refused("session", SESSION), b""
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
                return _refused("replayed", REPLAYED), b""
            if header["size"] > PART:
                if not incoming.started:
                    return {"k": "send", "have": sorted(incoming.parts)}, b""
            elif not incoming.started:
                incoming.parts[0] = payload
        elif incoming is None:
            return _refused("forgotten", SESSION), b""
        incoming.touched = time.monotonic()
        if header["k"] == "part":
            incoming.parts[header["i"]] = payload
            return {"k": "part"}, b""
        if header["k"] == "pull":
            body = incoming.reply.result(0)
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
            return _refused("protocol", ProtocolMismatch(theirs=there, ours=here))
        nonce = os.urandom(16)
        session = _Session(_session_key(header["nonce"], nonce, peer, self.wire.name), header["shown"])
        self._offered[peer] = session
        self.wire.drop(peer, but_newest=True)
        return {"k": "hello", "version": max(common), "nonce": nonce}

    def _agreed(self, peer: str, key: bytes) -> _Session | None:
        """The session of that key; one that was offered begins to hold with the first frame signed in it."""
        offered = self._offered.get(peer)
        if offered is not None and offered.key == key:
            offered.active = True
            with self._change:
                self._sessions[peer] = offered
                self._offered.pop(peer, None)
                self._change.notify_all()
            self.on_session(peer)
        session = self._sessions.get(peer)
        return session if session is not None and session.key == key else None

    def _open(self, session: _Session, header: dict[str, Any]) -> tuple[_Incoming | None, dict[str, Any]]:
        number, now = header["n"], time.monotonic()
        with self._change:
            for old, entry in list(session.incoming.items()):
                if now - entry.touched > KEPT or (len(session.incoming) > OPEN_CALLS and entry.reply.done()):
                    del session.incoming[old]
            if number in session.incoming:
                return session.incoming[number], {}
            if number in session.seen or number <= session.floor:
                return None, _refused("replayed", REPLAYED)
            if header["size"] > self.most:
                return None, _refused("size", _too_large(header["size"], self.most))
            if len(session.incoming) > OPEN_CALLS:
                return None, _refused("busy", BUSY)
            session.seen.add(number)
            if len(session.seen) > 10_000:
                session.floor = max(session.seen) - 5_000
                session.seen = {seen for seen in session.seen if seen > session.floor}
            session.incoming[number] = incoming = _Incoming(header)
        return incoming, {}

    def _start(self, peer: str, incoming: _Incoming) -> bool:
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
        if len(body) != header["size"] or _digest(body) != header["d"]:
            incoming.reply.set_exception(SIGNATURE)
            return True
        try:
            found = self.handle(peer, header["topic"], body)
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

    def _outcome(self, incoming: _Incoming) -> tuple[dict[str, Any], bytes]:
        try:
            body = incoming.reply.result(HOLD)
        except NotYet:
            return {"k": "later"}, b""
        except DureError as error:
            return {"k": "error", "error": error_data(error)}, b""
        except Exception:
            return {"k": "error", "error": error_data(DureError())}, b""
        about = {"k": "done", "size": len(body), "d": _digest(body)}
        return about, body if len(body) <= PART else b""

    # ── frames and who is there ──

    def _signed(self, peer: str, header: dict[str, Any], payload: bytes) -> bytes:
        head = msgpack.packb(header)
        return bytes(msgpack.packb([head, self.keys.sign(_bound(self.wire.name, peer, head)), payload]))

    def _sound(self, peer: str, header: dict[str, Any], head: bytes, signature: bytes) -> bool:
        return self.keys.verify(peer, _bound(peer, self.wire.name, head), signature, self._shown(peer, header))

    def _shown(self, peer: str, header: dict[str, Any]) -> bytes:
        if header.get("k") == "hello" and "q" in header:
            return bytes(header["shown"])
        session = self._offered.get(peer) or self._sessions.get(peer)
        return session.shown if session else b""

    def _came(self, peer: str) -> None:
        with self._change:
            self._connected.add(peer)
            self._change.notify_all()

    def _went(self, peer: str) -> None:
        with self._change:
            self._connected.discard(peer)
        for there, waiting in list(self._waiting.values()):
            if there == peer and not waiting.done():
                waiting.set_exception(Unreachable(peer, "the connection was lost"))


SILENT = "it did not answer in time"
TRY_AGAIN = Words(
    "Try again; if it happens twice, tell the alliance's office.", "다시 시도하고, 반복되면 연합 사무국에 알리십시오."
)


def _refusal(en: str, ko: str) -> MessageRefused:
    return MessageRefused(problem=Words(en, ko), hint=TRY_AGAIN)


SIGNATURE = _refusal("It was not signed by the member it came from", "보낸 회원의 서명이 아닙니다")
FORM = _refusal("It is not a message of this protocol", "이 규약의 메시지가 아닙니다")
SESSION = _refusal("It belongs to a session that has ended", "이미 끝난 세션의 메시지입니다")
REPLAYED = _refusal("It was sent before", "이미 보냈던 메시지입니다")
BUSY = _refusal("Too many calls are open", "열려 있는 호출이 너무 많습니다")


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

    def left(self) -> float:
        if self.abandoned():
            return 0.0
        now = time.monotonic()
        return max(0.0, min(self.last + self.silence - now, self.began + self.limit - now))

    def over(self) -> bool:
        return self.left() <= 0


def _refused(code: str, error: DureError) -> dict[str, Any]:
    return {"k": "refused", "code": code, "error": error_data(error)}


def _too_large(size: int, most: int) -> MessageRefused:
    return MessageRefused(
        problem=Words(
            f"Its body has {size / 2**20:.0f} MiB; at most {most / 2**20:.0f} MiB are taken",
            f"본문이 {size / 2**20:.0f} MiB인데 최대 {most / 2**20:.0f} MiB까지 받습니다",
        ),
        hint=Words(
            "Send less in one round, or raise the limit on both sides.",
            "한 라운드에 덜 보내거나 양쪽의 한도를 올리십시오.",
        ),
    )


def _session_key(first: bytes, second: bytes, member: str, hub: str) -> bytes:
    return hashlib.sha256(b"\0".join((b"dure session", first, second, member.encode(), hub.encode()))).digest()


def _bound(sender: str, receiver: str, head: bytes) -> bytes:
    return b"\0".join((b"dure call", sender.encode(), receiver.encode(), head))


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
