"""A call on behalf of a person: the token of a session in front of a topic's body.

The first byte of such a body is one with which neither JSON nor msgpack begins, so that bodies without a session,
those of members whose key alone acts, stay as they are.
"""

from __future__ import annotations

from dure.federation.frames import FORM
from dure.study.packing import pack, unpack

MARK = b"\xc1"
LONGEST = 128
"""Bytes of a token, at most."""


def on_behalf(token: str, body: bytes) -> bytes:
    """The body with the session in front; without a token, the body itself."""
    return MARK + pack({"session": token, "body": body}) if token else body


def opened(body: bytes) -> tuple[str, bytes]:
    """The token (empty: none was sent) and the topic's body. Raises MessageRefused where it is cut."""
    if not body.startswith(MARK):
        return "", body
    try:
        said = unpack(body[len(MARK) :])
        token, inner = said["session"], said["body"]
    except (ValueError, KeyError, TypeError):
        raise FORM from None
    if not isinstance(token, str) or len(token) > LONGEST or not isinstance(inner, bytes):
        raise FORM
    return token, inner
