"""What a hospital's service does before a worker is started, and what one bad file cannot stop."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from dure.errors import DureError, MessageRefused
from dure.federation.membership import Membership
from dure.federation.messages import Answer, Ask
from dure.federation.secure_sum.exchange import Exchange
from dure.guard import certificates
from dure.guard.audit import AuditLog
from dure.hub.authority import create_hub
from dure.site import inbox
from dure.site.service import SiteService
from dure.site.settings import Site
from dure.study.packing import pack, unpack
from dure.study.spec import canonical_json


@pytest.fixture
def service(stage: Any, tmp_path: Path) -> SiteService:
    """Cleveland's service, with the files of a membership and no line to a hub."""
    site: Site = stage.sites(tmp_path, "Cleveland")["Cleveland"]
    hub = create_hub(tmp_path / "alliance", "Alliance", "127.0.0.1", 8002)
    key = hub.keys(lambda peer: None).public.hex()
    member = Membership("Alliance", "Cleveland", "hospital", "m-1", "tcp", "127.0.0.1", 8002, key)
    for name in ("authority.pem", "tls.pem"):
        certificates.write_private(site.folder / name, (hub.folder / name).read_bytes())
    certificates.write_private(site.folder / "member.json", json.dumps(asdict(member)).encode())
    return SiteService(site.folder)


@pytest.mark.parametrize(
    ("study", "code"),
    [
        ("sha256:" + "0" * 64, "file-missing"),
        ("sha256:../../key", "permit-error"),
        ("sha256:" + "0" * 64 + "/..", "permit-error"),
        ("sha256:" + "0" * 64 + "\n", "permit-error"),
        ("", "permit-error"),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_no_process_is_started_for_a_study_that_is_not_here(
    service: SiteService, study: str, code: str, masked: bool
) -> None:
    question = (
        Exchange("keys", bytes(32), "run", study, "attrition", 0, None).to_bytes()
        if masked
        else Ask("run", study, "attrition", 0, ("Cleveland",)).to_bytes()
    )
    reply = service._ask(question)
    assert isinstance(reply, bytes)
    assert Answer.from_bytes(reply).error["code"] == code
    assert service._workers == {}
    assert [entry["error"] for entry in service.site.audit.entries() if entry["event"] == "failed"] == [code]


WRONG: dict[str, Any] = {
    "run": {2: 1, 10: 1},
    "study": {"a": 1},
    "step": None,
    "round": True,
    "fold": {2: 1, 10: 1},
    "hospitals": [1],
    "state": {1: 1},
    "results": {"a": 1},
    "own": {1: b""},
    "alone": 1,
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("field", WRONG)
def test_a_question_whose_fields_are_of_another_kind_is_refused_and_written_nowhere(
    service: SiteService, stage: Any, field: str, masked: bool
) -> None:
    study = stage.study("attrition")
    inbox.receive(service.site, study)
    true = (
        Exchange("keys", bytes(32), "run", study.hash, "attrition", 0, None)
        if masked
        else (Ask("run", study.hash, "attrition", 0, ("Cleveland",)))
    )
    before = service.site.audit.verify()
    raw = unpack(true.to_bytes())
    with pytest.raises(MessageRefused):
        service._ask(pack(raw | {field: WRONG[field]}))
    assert AuditLog(service.site.audit.path).verify() == before


@pytest.mark.parametrize("who", [{2: 1, 10: 1}, "Company\n\n## Approved", "Company\x1b[8m", "Company\u202e"])
def test_a_study_whose_proposer_is_no_name_is_refused(service: SiteService, stage: Any, who: Any) -> None:
    study = stage.study("attrition")
    with pytest.raises(MessageRefused):
        service._handle("hub", "study", pack({"document": canonical_json(study), "proposer": who}))
    assert not inbox.holds(service.site, study.hash)
    AuditLog(service.site.audit.path).verify()


def test_no_process_is_started_for_a_study_without_a_permit(service: SiteService, stage: Any) -> None:
    study = stage.study("attrition")
    inbox.receive(service.site, study)
    reply = service._ask(Ask("run", study.hash, "attrition", 0, ("Cleveland",)).to_bytes())
    assert isinstance(reply, bytes)
    assert Answer.from_bytes(reply).error["code"] == "permit-error"
    assert service._workers == {}


def test_one_answer_that_the_hub_cannot_take_does_not_block_those_behind_it(service: SiteService, stage: Any) -> None:
    studies = [stage.study("attrition"), stage.study("attrition", "table_one")]
    for study in studies:
        inbox.receive(service.site, study)
        inbox.permit(service.site, study.hash, stage.methods)
    first, _ = [given.study for given in inbox.unsent(service.site)]

    class Line:
        def call(self, topic: str, body: bytes) -> bytes:
            if topic == "permit" and unpack(body)["study"] == first:
                raise DureError(kind="KeyError")
            return b""

    service._line = Line()  # type: ignore[assignment]
    with pytest.raises(DureError):
        service._hand_in()
    assert [given.study for given in inbox.unsent(service.site)] == [first]


def test_one_study_whose_decision_cannot_be_read_does_not_stop_the_others(
    service: SiteService, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled: list[str] = []

    def settle(site: Site, hash_: str, methods: object) -> None:
        if hash_ == "bad":
            raise KeyError(hash_)
        settled.append(hash_)

    monkeypatch.setattr("dure.site.reviews.unsettled", lambda site: ["bad", "good"])
    monkeypatch.setattr("dure.site.reviews.settle", settle)
    service._settle()
    assert settled == ["good"]
