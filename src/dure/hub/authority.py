"""Who belongs to the alliance: its certificate authority, invitations, enrolment, renewal and revocation."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dure.errors import FileMissing, InvalidDocument, MemberConflict, MessageRefused, TokenRefused, UnknownHospital
from dure.federation.invitation import EXPIRED, INVITED, USED, Invitation
from dure.federation.membership import HUB, OwnKeys
from dure.guard import certificates
from dure.guard.keys import create_signer
from dure.guard.permissions import MemberRole
from dure.hub.store import Member, Store
from dure.language import Words
from dure.study.permit import read_key
from dure.study.signed import key_of

VALID = timedelta(days=90)
HUB_VALID = timedelta(days=825)


@dataclass(frozen=True)
class Hub:
    """A hub's folder: `hub.json`, the authority, its own keys, and where its store is."""

    folder: Path
    alliance: str
    scheme: str
    host: str
    port: int
    store: str
    listen: str = "0.0.0.0"

    @property
    def place(self) -> Path | str:
        return self.store if self.store.startswith("postgres") else self.folder / self.store

    def keys(self, known: Any) -> OwnKeys:
        return OwnKeys(self.folder / "key.pem", known)

    def open_store(self) -> Store:
        """The store, with the audit log of this folder."""
        return Store(self.place, self.folder)


def create_hub(
    folder: Path,
    alliance: str,
    host: str,
    port: int,
    scheme: str = "tcp",
    store: str = "hub.db",
    listen: str = "0.0.0.0",
) -> Hub:
    """A new alliance: its authority, the hub's keys and settings. Raises InvalidDocument where there is one already."""
    if (folder / "hub.json").exists():
        problem = Words("There is a hub in this folder already", "이 폴더에는 이미 허브가 있습니다")
        hint = Words(
            "Choose another folder; an alliance has one hub.", "다른 폴더를 고르십시오. 연합의 허브는 하나입니다."
        )
        raise InvalidDocument(path=folder / "hub.json", line=1, field="hub", problem=problem, hint=hint)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    (folder / "key.pem").unlink(missing_ok=True)  # of an earlier attempt that was cut short
    create_signer(folder / "key.pem")
    authority_key = certificates.create_key()
    authority = certificates.create_authority(alliance, authority_key)
    certificates.write_private(folder / "authority.key", authority_key)
    (folder / "authority.pem").write_bytes(authority)
    _own_certificate(folder, authority, authority_key, host)
    settings = {
        "alliance": alliance,
        "scheme": scheme,
        "host": host,
        "port": port,
        "store": store,
        "listen": listen,
    }
    certificates.write_private(folder / "hub.json", json.dumps(settings, ensure_ascii=False, indent=1).encode())
    return read_hub(folder)


def read_hub(folder: Path) -> Hub:
    """Raises FileMissing, or KeyExposed where other users may read a key."""
    if not (folder / "hub.json").is_file():
        raise FileMissing(path=folder / "hub.json")
    for name in ("authority.key", "tls.pem"):
        certificates.read_private(folder / name)
    return Hub(folder, **json.loads((folder / "hub.json").read_text(encoding="utf-8")))


def renew_own(hub: Hub, now: datetime | None = None) -> None:
    """A new certificate for the hub itself once a third of its time is left."""
    own = certificates.read_private(hub.folder / "tls.pem")
    if certificates.expires(own) - (now or datetime.now(UTC)) < HUB_VALID / 3:
        authority_key = certificates.read_private(hub.folder / "authority.key")
        _own_certificate(hub.folder, (hub.folder / "authority.pem").read_bytes(), authority_key, hub.host)


def _own_certificate(folder: Path, authority: bytes, authority_key: bytes, host: str) -> None:
    key = certificates.create_key()
    request = certificates.request(key, HUB)
    certificate = certificates.issue(authority, authority_key, request, HUB, HUB_VALID, hosts=(host,))
    certificates.write_private(folder / "tls.pem", key + certificate)


class Authority:
    """Admits members to one hub; every change is in its store before it is told to anybody."""

    def __init__(self, hub: Hub, store: Store, valid: timedelta = VALID) -> None:
        self.hub, self.store, self.valid = hub, store, valid
        self._certificate = (hub.folder / "authority.pem").read_bytes()
        self._key = certificates.read_private(hub.folder / "authority.key")

    def invite(self, name: str, role: MemberRole = "hospital", valid: timedelta = timedelta(hours=72)) -> str:
        """The text of an invitation; inviting a member again lets it come back with new keys after a revocation."""
        if name == self.hub.alliance:  # its people, the office among them, are told from a member's by this name
            raise MemberConflict(name=name, problem=Words("It is the alliance's own name", "연합 자신의 이름입니다"))
        present = next((member for member in self.store.members() if member.name == name), None)
        if present is not None and not present.revoked:
            raise MemberConflict(name=name, problem=Words("It has joined already", "이미 가입했습니다"))
        if present is not None and present.role != role:
            raise MemberConflict(name=name, problem=Words("It joined in another role", "다른 역할로 가입했습니다"))
        identity, expires = INVITED + secrets.token_hex(8), datetime.now(UTC) + valid
        key = certificates.create_key()
        certificate = self._issue(certificates.request(key, identity), identity, valid)
        self.store.close_invitations(name)  # one is open for a name: a lost one is worth nothing once the next is made
        self.store.add_invitation(identity, name, role, expires.isoformat())
        self.store.add_serial(certificates.serial(certificate), identity)
        hub = self.hub
        return Invitation(
            alliance=hub.alliance,
            name=name,
            role=role,
            identity=identity,
            member=identity_of(name),
            scheme=hub.scheme,
            host=hub.host,
            port=hub.port,
            hub_key=hub.keys(lambda peer: None).public,
            authority=self._certificate,
            certificate=certificate,
            key=key,
            expires=expires.isoformat(),
        ).to_text()

    def enrol(self, identity: str, request: bytes, key: dict[str, Any]) -> tuple[str, bytes]:
        """The new member's name and certificate. The same request gets the same certificate again.

        Raises TokenRefused where the invitation is unknown, expired, or was used with other keys.
        """
        found = self.store.invitation(identity)
        if found is None:
            raise TokenRefused(problem=Words("The hub does not know it", "허브가 모르는 초대장입니다"))
        name, role, expires, used = found
        if used is not None:
            member = next((member for member in self.store.members() if member.name == name), None)
            certificate = (member.certificate or "").encode() if member and not member.revoked else b""
            if (
                not certificate
                or member is None
                or member.key != key
                or not certificates.same_key(certificate, request)
            ):
                raise TokenRefused(problem=USED)
            return name, certificate
        if datetime.now(UTC) >= datetime.fromisoformat(expires):
            raise TokenRefused(problem=EXPIRED)
        _check_key(key)  # before anything is written
        certificate = self._issue(request, identity_of(name), self.valid)
        with self.store.transaction():
            if not self.store.use_invitation(identity):
                raise TokenRefused(problem=USED)
            self.store.add_serial(certificates.serial(certificate), name)
            present = next((member for member in self.store.members() if member.name == name), None)
            if present is not None and (not present.revoked or present.role != role):
                raise TokenRefused(problem=USED)
            if present is not None:
                self.store.replace_member(name, key, certificate.decode())
            else:
                self.store.add_member(name, identity_of(name), role, key, certificate.decode())
        return name, certificate

    def renew(self, member: Member, request: bytes) -> bytes:
        """A further certificate; the earlier ones hold until they expire, so that nothing is cut in between."""
        certificate = self._issue(request, member.identity, self.valid)
        with self.store.transaction():
            self.store.add_serial(certificates.serial(certificate), member.name)
            self.store.set_certificate(member.name, certificate.decode())
        return certificate

    def revoke(self, name: str) -> None:
        """From now on the member's certificates and signatures are refused. Raises UnknownHospital."""
        names = [member.name for member in self.store.members() if not member.revoked]
        if name not in names:
            raise UnknownHospital(name, names)
        self.store.revoke(name)

    def _issue(self, request: bytes, identity: str, valid: timedelta) -> bytes:
        try:
            return certificates.issue(self._certificate, self._key, request, identity, valid)
        except ValueError:
            problem = Words("The signing request is not sound", "인증서 서명 요청이 올바르지 않습니다")
            hint = Words("Run the enrolment again.", "가입을 다시 실행하십시오.")
            raise MessageRefused(problem=problem, hint=hint) from None


def _check_key(document: Any) -> None:
    """Raise MessageRefused unless it is an Ed25519 public key of 64 hex digits, under its own identifier."""
    try:
        key = read_key(document)
        public = str(key.keyval["public"])
        sound = re.fullmatch("[0-9a-f]{64}", public) and key == key_of(bytes.fromhex(public))
    except (ValueError, TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        problem = Words("The key is not an Ed25519 public key", "Ed25519 공개키가 아닙니다")
        hint = Words("Run the enrolment again.", "가입을 다시 실행하십시오.")
        raise MessageRefused(problem=problem, hint=hint)


def identity_of(name: str) -> str:
    """A member's name on the wire: letters and digits only, whatever the language of the name."""
    return "m-" + hashlib.sha256(name.encode()).hexdigest()[:16]


def fingerprint_of(member: Member) -> dict[str, str]:
    """What the member sees of itself, to be compared on the telephone."""
    key = bytes.fromhex(str(read_key(member.key).keyval["public"]))
    certificate = certificates.fingerprint(member.certificate.encode()) if member.certificate else "–"
    return {"key": certificates.grouped(key), "certificate": certificate}
