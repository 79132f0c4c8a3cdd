"""Documents signed with an Ed25519 key, as DSSE envelopes of plain data.

DSSE: https://github.com/secure-systems-lab/dsse (protocol v1), through securesystemslib.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import Key, Signer, SSlibKey

Signed = TypeVar("Signed", bound=BaseModel)


class Unsigned(ValueError):
    """The envelope is of another kind, or its signature is not the key's."""


def seal(document: BaseModel, kind: str, signer: Signer) -> dict[str, Any]:
    """The signed envelope; `kind` is the payload type, which is signed too."""
    payload = json.dumps(document.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    envelope = Envelope(payload.encode(), kind, {})
    envelope.sign(signer)
    data: dict[str, Any] = envelope.to_dict()
    return data


def unseal(envelope: dict[str, Any], kind: str, model: type[Signed], key: Key | None) -> Signed:
    """What is inside an envelope that `key` truly signed; with None only what it says.

    Raises Unsigned, or pydantic's ValidationError where the content is of another form.
    """
    try:
        opened = Envelope.from_dict(json.loads(json.dumps(envelope)))
        if opened.payload_type != kind:
            raise Unsigned("another kind of document")
        if key is not None:
            opened.verify([key], 1)
    except (VerificationError, KeyError, TypeError, AttributeError) as error:
        raise Unsigned(type(error).__name__) from None
    except ValueError as error:
        raise error if isinstance(error, Unsigned) else Unsigned(type(error).__name__) from None
    return model.model_validate_json(opened.payload)


def key_of(public: bytes) -> Key:
    """An Ed25519 key from its 32 bytes, as invitations, memberships and settings hold it; raises ValueError."""
    key: Key = SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(public))
    return key
