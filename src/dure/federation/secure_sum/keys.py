"""One session's keys: made fresh for every sum, signed by the hospital's own key, agreed in pairs, and shares sealed.

X25519 (RFC 7748) → HKDF-SHA256 (RFC 5869) → AES-256; signatures are Ed25519 (RFC 8032). Everything signed or bound
is a msgpack array that begins with the name of what it is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dure.federation.secure_sum.masks import Stream
from dure.study.packing import pack

Roster = Mapping[str, bytes]
"""Hospital → its Ed25519 public key (32 bytes)."""
Advert = Mapping[str, bytes]
"""What a hospital says of its keys: `mask`, `seal` (X25519), `seed` (a commitment), `signature`."""
Random = Callable[[int], bytes]
FIELDS = ("mask", "seal", "seed", "signature")
KEYS, SET, PAIR, OWN, NOISE, SEAL, SEED, NEXT = (
    f"dure/sum/2/{name}" for name in ("keys", "set", "pair", "own", "noise", "seal", "seed", "next")
)


def next_session(session: bytes) -> bytes:
    """The session whose keys are agreed along the way of this one."""
    return hashlib.sha256(pack([NEXT, session])).digest()


def commitment(session: bytes, hospital: str, seed: bytes) -> bytes:
    return hashlib.sha256(pack([SEED, session, hospital, seed])).digest()


def public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def fresh(session: bytes, hospital: str, random: Random = os.urandom) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """(secrets, advert without its signature) of one hospital in one session."""
    secrets = {name: random(32) for name in ("mask", "seal", "seed")}
    advert = {name: public(secrets[name]) for name in ("mask", "seal")}
    return secrets, advert | {"seed": commitment(session, hospital, secrets["seed"])}


def keys_statement(
    session: bytes, about: tuple[str, str], members: Iterable[str], roster: Roster, hospital: str, advert: Advert
) -> bytes:
    """What a hospital signs of its keys. `about`: the study's hash and the run; `members`: of the study's sums."""
    named = [[name, roster[name]] for name in sorted(roster)]
    mine = [advert[part] for part in ("mask", "seal", "seed")]
    return pack([KEYS, session, *about, sorted(members), named, hospital, *mine])


def digest_of(adverts: Mapping[str, Advert]) -> bytes:
    """Of all keys of a session: who signs it has seen the same keys as the others."""
    return hashlib.sha256(
        pack([[name, *(adverts[name][part] for part in FIELDS)] for name in sorted(adverts)])
    ).digest()


def set_statement(session: bytes, keys: bytes, question: bytes, alive: list[str]) -> bytes:
    """What the hospitals of a sum sign: the session, all keys, the question, and whose numbers are in the sum."""
    return pack([SET, session, keys, question, sorted(alive)])


def signed(key: bytes, statement: bytes, signature: Any) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, statement)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def pair_stream(session: bytes, question: bytes, mine: str, private: bytes, theirs: str, key: bytes) -> Stream:
    """The mask that two hospitals share for one question: the one first by name adds it, the other takes it away.
    Where they were asked different questions, nothing cancels."""
    first, second = sorted((mine, theirs))
    about = pack([PAIR, question, first, second])
    return Stream(_agreed(session, private, key, about), 1 if mine == first else -1)


def own_stream(session: bytes, hospital: str, seed: bytes, sign: int = 1) -> Stream:
    return Stream(_derived(session, seed, pack([OWN, hospital])), sign)


def noise_stream(session: bytes, hospital: str, private: bytes) -> Stream:
    """What a hospital sends that withholds its numbers; of a secret that it never shares."""
    return Stream(_derived(session, private, pack([NOISE, hospital])), 1)


def seal(session: bytes, mine: str, private: bytes, theirs: str, key: bytes, plain: bytes, random: Random) -> bytes:
    """Shares on their way through the hub: nonce (12 bytes), then AES-256-GCM."""
    about = pack([SEAL, session, mine, theirs])
    nonce = random(12)
    return nonce + AESGCM(_agreed(session, private, key, about)).encrypt(nonce, plain, about)


def unseal(session: bytes, mine: str, private: bytes, theirs: str, key: bytes, sealed: bytes) -> bytes | None:
    """What `theirs` sealed for `mine`; None if it is not exactly that."""
    about = pack([SEAL, session, theirs, mine])
    try:
        return AESGCM(_agreed(session, private, key, about)).decrypt(sealed[:12], sealed[12:], about)
    except (InvalidTag, ValueError, TypeError):
        return None


def _agreed(session: bytes, private: bytes, key: bytes, about: bytes) -> bytes:
    """Raises ValueError for a public key that gives no secret (RFC 7748, section 6.1)."""
    shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(key))
    return _derived(session, shared, about)


def _derived(session: bytes, secret: bytes, about: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=session, info=about).derive(secret)
