"""Frames between the hub and its members: signed headers, what may refuse one, and the wire they travel on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import msgpack

from dure.errors import DureError, MessageRefused
from dure.federation.messages import error_data
from dure.language import Words

SPEAKS = (2,)
"""Versions of this protocol that this software speaks."""
PART = 1 << 21
"""Bytes of a body in one frame. A few of them under way must pass a slow line within `calls.BULK`."""
LARGEST_FRAME = PART + (1 << 12)
LARGEST = 1 << 30
"""Bytes of the largest body taken, unless a process sets less."""


Payload = bytes | bytearray | memoryview


class Unreachable(Exception):
    """No connection to the peer, or no sign of life from it: `reason` is for people."""

    def __init__(self, peer: str, reason: str) -> None:
        self.peer, self.reason = peer, reason
        super().__init__(f"{peer}: {reason}")


class Wire(Protocol):
    """What calls stand on: frames to named peers, and word of who comes and goes."""

    name: str
    on_frame: Callable[[str, Payload], None]
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


def seal(keys: Keys, sender: str, receiver: str, header: dict[str, Any], payload: Payload) -> bytes:
    """A frame: the header, the sender's signature of it for this receiver, and a payload that the header may bind."""
    head = msgpack.packb(header)
    return bytes(msgpack.packb([head, keys.sign(bound(sender, receiver, head)), payload]))


def unseal(frame: Payload) -> tuple[dict[str, Any], bytes, bytes, bytes]:
    """(header, header's bytes, signature, payload), not yet verified; raises ValueError on anything else."""
    try:
        head, signature, payload = msgpack.unpackb(frame)
        header = msgpack.unpackb(head)
    except (ValueError, TypeError, msgpack.UnpackException):
        raise ValueError("not a frame") from None
    if not isinstance(header, dict) or not isinstance(payload, bytes) or not isinstance(signature, bytes):
        raise ValueError("not a frame")
    return header, head, signature, payload


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


def refused(code: str, error: DureError) -> dict[str, Any]:
    return {"k": "refused", "code": code, "error": error_data(error)}


def too_large(size: int, most: int) -> MessageRefused:
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


def session_key(first: bytes, second: bytes, member: str, hub: str) -> bytes:
    return hashlib.sha256(b"\0".join((b"dure session", first, second, member.encode(), hub.encode()))).digest()


def bound(sender: str, receiver: str, head: bytes) -> bytes:
    return b"\0".join((b"dure call", sender.encode(), receiver.encode(), head))


def digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
