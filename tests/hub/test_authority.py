"""Who joins an alliance: what an invitation is exchanged for, and the keys that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dure.errors import MessageRefused
from dure.federation.invitation import Invitation
from dure.guard import certificates
from dure.guard.keys import create_signer
from dure.hub.authority import Authority, create_hub
from dure.study.permit import key_document


@pytest.mark.parametrize(
    "changes",
    [
        {"keyval": {"public": "00" * 31}},
        {"keyval": {"public": "zz" * 32}},
        {"keyval": {}},
        {"keyval": None},
        {"keytype": "rsa", "scheme": "rsassa-pss-sha256"},
        {"keyid": "of another key"},
    ],
    ids=["short", "no-hex", "no-key", "nothing", "rsa", "identifier"],
)
def test_a_key_that_is_not_ed25519_is_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    hub = create_hub(tmp_path / "hub", "Alliance", "127.0.0.1", 8002)
    store = hub.open_store()
    authority = Authority(hub, store)
    identity = Invitation.from_text(authority.invite("Hospital")).identity
    request = certificates.request(certificates.create_key(), identity)
    key = key_document(create_signer(tmp_path / "key.pem").public_key)
    with pytest.raises(MessageRefused):
        authority.enrol(identity, request, key | changes)
    assert store.members() == []
    assert authority.enrol(identity, request, key)[0] == "Hospital"  # the invitation was not used up
    store.close()
