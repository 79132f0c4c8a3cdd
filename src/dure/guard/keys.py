"""A hospital's signing key: made here, kept here, readable by its owner alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner

from dure.errors import FileMissing, InvalidDocument
from dure.language import Words


def create_signer(path: Path) -> CryptoSigner:
    """A new Ed25519 key written to `path` (mode 0600); an existing key is never overwritten."""
    signer = CryptoSigner.generate_ed25519()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(handle, "wb") as file:
        file.write(signer.private_bytes)
    return signer


def read_signer(path: Path) -> CryptoSigner:
    """The key at `path`; raises FileMissing, or InvalidDocument if others may read it or it is no Ed25519 key."""
    if not path.is_file():
        raise FileMissing(path=path)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InvalidDocument(
            path=path,
            line=1,
            field="key",
            problem=Words(
                "Other users of this machine may read this key",
                "이 컴퓨터의 다른 사용자가 이 키를 읽을 수 있습니다",
            ),
            hint=Words(f"Run: chmod 600 {path}", f"실행하십시오: chmod 600 {path}"),
        )
    try:
        key: object = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # no PEM, one with a password, or a kind unknown here
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidDocument(
            path=path,
            line=1,
            field="key",
            problem=Words("It is not an Ed25519 key", "Ed25519 키가 아닙니다"),
            hint=Words("Move it away and let dure make a new one.", "다른 곳으로 옮기고 dure가 새로 만들게 하십시오."),
        )
    return CryptoSigner(key)
