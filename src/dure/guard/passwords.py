"""Passwords: which are taken, and their Argon2id hashes (RFC 9106) as text that names its own parameters."""

from __future__ import annotations

import base64
import os
import threading
import unicodedata

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from dure.errors import WeakPassword
from dure.language import Words

LEAST, MOST = 12, 256
"""Characters of a password."""
DIFFERENT = 5
"""Characters that differ from one another, at least: `aaaaaaaaaaaa` is none."""
MEMORY, PASSES, LANES, LENGTH = 64 * 1024, 3, 4, 32
"""KiB, iterations, lanes, bytes: the second recommended choice of RFC 9106, section 4; above OWASP's minimum."""
_ONE = threading.Lock()
"""One at a time in a process: each takes 64 MiB."""


def check_password(password: str, name: str) -> None:
    """Raises WeakPassword, which says why and never repeats the password."""
    known = _normal(password)
    problem: Words | None = None
    if len(known) < LEAST:
        problem = Words(f"It has fewer than {LEAST} characters", f"{LEAST}자보다 짧습니다")
    elif len(known) > MOST:
        problem = Words(f"It has more than {MOST} characters", f"{MOST}자보다 깁니다")
    elif len(set(known)) < DIFFERENT:
        problem = Words(
            f"It has fewer than {DIFFERENT} different characters", f"서로 다른 글자가 {DIFFERENT}개보다 적습니다"
        )
    elif len(name) >= 3 and _normal(name).casefold() in known.casefold():
        problem = Words("The name of the account is part of it", "계정 이름이 들어 있습니다")
    if problem is not None:
        raise WeakPassword(problem=problem, least=LEAST)


def hashed(password: str) -> str:
    """`$argon2id$v=19$m=…,t=…,p=…$salt$hash` of a password under a fresh salt."""
    with _ONE:
        kdf = Argon2id(salt=os.urandom(16), length=LENGTH, iterations=PASSES, lanes=LANES, memory_cost=MEMORY)
        return str(kdf.derive_phc_encoded(_bytes(password)))


def fits(password: str, encoded: str) -> bool:
    """Whether the password is the hashed one. Takes as long for a wrong one, and for `nobody()`."""
    with _ONE:
        try:
            Argon2id.verify_phc_encoded(_bytes(password), encoded)
        except InvalidKey:
            return False
    return True


def nobody() -> str:
    """A hash that no password has, and that costs as much to try as anybody's."""
    salt, value = (base64.b64encode(os.urandom(n)).decode().rstrip("=") for n in (16, LENGTH))
    return f"$argon2id$v=19$m={MEMORY},t={PASSES},p={LANES}${salt}${value}"


def _bytes(password: str) -> bytes:
    return _normal(password)[: 4 * MOST].encode()


def _normal(text: str) -> str:
    """One spelling whatever the keyboard: Hangul typed on one system is decomposed, on another composed."""
    return unicodedata.normalize("NFKC", text)
