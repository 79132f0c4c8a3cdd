"""A hospital's permit: what it allows for one study, signed with its Ed25519 key (`dure.study.signed`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field, ValidationError
from securesystemslib.signer import Key, Signer, SSlibKey

from dure.errors import PermitError
from dure.language import Words
from dure.study.document import Strict
from dure.study.signed import Unsigned, seal, unseal
from dure.study.spec import Step, Study

PAYLOAD_TYPE = "application/vnd.dure.permit+json"

Grant = Literal["per_hospital", "difference", "visible_updates"]
GRANTS: dict[Grant, Words] = {
    "per_hospital": Words(
        "numbers of this hospital alone may be opened to the hub's process and released, under all rules on it alone",
        "이 병원만의 수치를, 이 병원 단독으로 모든 규칙을 지키는 한, 허브 프로세스가 열고 공개할 수 있음",
    ),
    "difference": Words(
        "sums with and without this hospital may both be opened to the hub's process",
        "이 병원을 포함한 합과 뺀 합을 모두 허브가 열 수 있음",
    ),
    "visible_updates": Words(
        "this hospital's own part of a sum may reach the hub's process unmasked",
        "이 병원 몫의 수치가 가려지지 않은 채 허브 프로세스에 닿을 수 있음",
    ),
}


class PermittedStep(Strict):
    """One step as it was permitted: its method, and the SHA-256 of the step's own document."""

    method: str
    digest: str


class Permit(Strict):
    """What was permitted. `study` is the spec's hash; `methods` binds each method to its source hash, `steps` each step
    and `cohort` who is asked about and what is known of them; `limits` are those that this hospital tightened, so that
    they hold for sums and releases it takes part in too; `rules` are all limits in force when it was signed; `releases`
    is how often results may be released; `boards` says which board approved, and when; `open` is the epsilon of a study
    that the hospital answers openly, with noise and without boards.
    """

    study: str
    hospital: str
    methods: dict[str, str]
    steps: dict[str, PermittedStep] = Field(default_factory=dict)
    cohort: str = ""
    per_hospital: bool = False
    difference: bool = False
    visible_updates: bool = False
    limits: dict[str, float] = Field(default_factory=dict)
    rules: dict[str, float] = Field(default_factory=dict)
    releases: int = Field(1, ge=0)
    boards: dict[str, str] = Field(default_factory=dict)
    open: float | None = None
    issued: datetime
    expires: datetime

    def grants(self) -> frozenset[Grant]:
        return frozenset(grant for grant in GRANTS if getattr(self, grant))


def sign(permit: Permit, signer: Signer) -> dict[str, Any]:
    """The signed envelope as plain data."""
    return seal(permit, PAYLOAD_TYPE, signer)


def verify(envelope: dict[str, Any], key: Key, hospital: str) -> Permit:
    """The permit inside an envelope truly signed by `hospital`'s key; raises PermitError."""
    try:
        permit = unseal(envelope, PAYLOAD_TYPE, Permit, key)
    except ValidationError:
        raise _problem(hospital, "Its content cannot be read", "내용을 읽을 수 없습니다") from None
    except Unsigned:
        raise _problem(hospital, "Its signature is not the hospital's", "병원의 서명이 아닙니다") from None
    if permit.hospital != hospital:
        raise _problem(hospital, "It was signed for another hospital", "다른 병원의 허가서입니다")
    return permit


def read_permit(envelope: dict[str, Any]) -> Permit:
    """What an envelope says, without asking who signed it: for one that was verified when it came."""
    return unseal(envelope, PAYLOAD_TYPE, Permit, None)


def check_permit(permit: Permit, study_hash: str, method: str, method_hash: str, now: datetime | None = None) -> None:
    """Raise PermitError unless the permit covers this study, this method's source, and this moment."""
    moment = now or datetime.now(UTC)
    if permit.study != study_hash:
        raise _problem(permit.hospital, "It is for another version of the study", "연구의 다른 판에 대한 허가서입니다")
    if not permit.issued <= moment < permit.expires:
        raise _problem(permit.hospital, "It has expired or is not yet valid", "유효 기간이 아닙니다")
    if permit.methods.get(method) != method_hash:
        raise _problem(
            permit.hospital,
            f"It does not cover the method '{method}' as it is installed",
            f"지금 설치된 '{method}' 방법을 허가하지 않았습니다",
        )


def check_scope(permit: Permit, study: Study, step: str) -> None:
    """Raise PermitError unless the permit names this step and this cohort as they are in the study."""
    asked = permit.steps.get(step)
    if asked is None or asked != permitted_step(study.step(step)) or permit.cohort != study.cohort_hash:
        raise _problem(
            permit.hospital,
            f"It does not cover the step '{step}' or the cohort as they are in the study",
            f"연구에 있는 '{step}' 단계나 코호트를 허가하지 않았습니다",
        )


def permitted_step(step: Step) -> PermittedStep:
    return PermittedStep(method=step.method, digest=step.digest)


def key_document(key: Key) -> dict[str, Any]:
    """A public key as plain data, to hand to the alliance."""
    return {"keyid": key.keyid, **key.to_dict()}


def read_key(document: dict[str, Any]) -> Key:
    data = dict(document)
    key: Key = SSlibKey.from_dict(data.pop("keyid"), data)
    return key


def _problem(hospital: str, en: str, ko: str) -> PermitError:
    return PermitError(hospital=hospital, problem=Words(en, ko))
