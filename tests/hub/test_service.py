"""The hub's service in one process, without a socket: what a member's body or a stored document cannot stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dure.errors import MessageRefused
from dure.federation.invitation import Invitation
from dure.guard import certificates
from dure.guard.keys import create_signer
from dure.hub.authority import create_hub, identity_of
from dure.hub.service import HubService
from dure.study.packing import pack
from dure.study.permit import key_document


@pytest.fixture
def hub(tmp_path: Path) -> Any:
    """A hub with one hospital, Hungary."""
    create_hub(tmp_path / "hub", "Alliance", "127.0.0.1", 8002)
    service = HubService(tmp_path / "hub")
    identity = Invitation.from_text(service.authority.invite("Hungary")).identity
    request = certificates.request(certificates.create_key(), identity)
    service.authority.enrol(identity, request, key_document(create_signer(tmp_path / "key.pem").public_key))
    yield service
    service._end()


BODIES = (b"", b"rubbish", pack(3), pack({}), pack([1]))
JOINS = ("join", pack({}))
"""What may be said: nothing about pausing."""


@pytest.mark.parametrize(
    ("topic", "body"),
    [
        said
        for topic in ("join", "renew", "permit", "status")
        for said in ((topic, body) for body in BODIES)
        if said != JOINS
    ],
)
def test_a_body_that_cannot_be_read_is_refused_and_logged(hub: Any, topic: str, body: bytes) -> None:
    with pytest.raises(MessageRefused):
        hub._handle(identity_of("Hungary"), topic, body)
    refused = [entry for entry in hub.log.entries() if entry["event"] == "refused"]
    assert [(entry["member"], entry["topic"], entry["error"]) for entry in refused] == [
        ("Hungary", topic, "message-refused")
    ]


def test_one_stored_document_that_cannot_be_carried_does_not_stop_the_others(
    hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []

    def look(hash_: str, document: str, connected: object) -> None:
        looked.append(hash_)
        if hash_ == "bad":
            raise KeyError(hash_)

    monkeypatch.setattr(hub.store, "studies", lambda: [("bad", "", "submitted"), ("good", "", "submitted")])
    monkeypatch.setattr(hub._inboxes, "look", look)
    hub._deliver()
    assert looked == ["bad", "good"]
