"""An invitation: one line of text with which a member joins (hospital, researcher, company, …), once, in its time.

It carries the hub's address, what the hub is recognised by, and a certificate that opens the hub's door for one thing
only: handing in a signing request. It is a secret until it is used, and worth nothing afterwards.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import msgpack

from dure.errors import TokenRefused
from dure.language import Words

PREFIX = "dure-invitation-1."
INVITED = "invited-"
"""Names on the wire of those who are not members yet."""


@dataclass(frozen=True)
class Invitation:
    """`identity` is the name on the wire until enrolled, `member` the one afterwards; `hub_key` is raw Ed25519."""

    alliance: str
    name: str
    role: str
    identity: str
    member: str
    scheme: str
    host: str
    port: int
    hub_key: bytes
    authority: bytes
    certificate: bytes
    key: bytes
    expires: str

    def to_text(self) -> str:
        packed = zlib.compress(msgpack.packb(asdict(self)), 9)
        return PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> Invitation:
        """Raises TokenRefused where it is cut, not an invitation, or has expired."""
        text = "".join(text.split())
        try:
            if not text.startswith(PREFIX):
                raise ValueError
            body = text.removeprefix(PREFIX)
            invitation = cls(
                **msgpack.unpackb(zlib.decompress(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))))
            )
            expires = datetime.fromisoformat(invitation.expires)
        except (ValueError, TypeError, zlib.error, msgpack.UnpackException):
            problem = Words("It is cut or is not an invitation", "잘렸거나 초대장이 아닙니다")
            raise TokenRefused(problem=problem) from None
        if datetime.now(UTC) >= expires:
            raise TokenRefused(problem=EXPIRED)
        return invitation


EXPIRED = Words("It has expired", "기한이 지났습니다")
USED = Words("It was used before", "이미 쓴 초대장입니다")
