"""A member's side of the alliance: the folder with its keys and certificate, enrolment, and its line to the hub."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from dure.errors import DureError, FileMissing, HubUnreachable, MemberConflict, MessageRefused, NotAMember, TokenRefused
from dure.federation.answering import Handler
from dure.federation.calls import Calls, SessionLost
from dure.federation.frames import LARGEST, Unreachable
from dure.federation.invitation import INVITED, Invitation
from dure.guard import certificates
from dure.guard.keys import create_signer, read_signer
from dure.language import Words
from dure.study.packing import pack, unpack
from dure.study.permit import key_document

HUB = "hub"
BEAT = 10.0
"""Seconds between signs of life."""
FILES = ("member.json", "authority.pem", "tls.pem", "key.pem")


@dataclass(frozen=True)
class Membership:
    """What a member knows of its alliance; `identity` is its name on the wire."""

    alliance: str
    name: str
    role: str
    identity: str
    scheme: str
    host: str
    port: int
    hub_key: str

    @property
    def address(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


class OwnKeys:
    """This end's Ed25519 key from its folder, and what is known of others' (`dure.federation.calls.Keys`)."""

    def __init__(self, path: Path, known: Callable[[str], bytes | None]) -> None:
        read_signer(path)  # its checks: there, an Ed25519 key, nobody else may read it
        private = load_pem_private_key(path.read_bytes(), password=None)
        assert isinstance(private, Ed25519PrivateKey)
        self._private, self._known = private, known
        self.public = private.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data)

    def verify(self, peer: str, data: bytes, signature: bytes, shown: bytes) -> bool:
        key = self._known(peer) or (shown if peer.startswith(INVITED) else b"")
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


def read_membership(folder: Path) -> Membership:
    """The member of a folder; raises NotAMember, FileMissing or KeyExposed."""
    if not (folder / "member.json").is_file():
        problem = Words("No member has enrolled in this folder", "이 폴더에는 가입한 회원이 없습니다")
        raise NotAMember(name=folder.name, problem=problem)
    for name in FILES:
        if not (folder / name).is_file():
            raise FileMissing(path=folder / name)
    certificates.read_private(folder / "tls.pem")
    return Membership(**json.loads((folder / "member.json").read_text(encoding="utf-8")))


def fingerprints(folder: Path) -> dict[str, str]:
    """What both sides read to each other: the member's own key, its certificate, and the hub's key."""
    own = OwnKeys(folder / "key.pem", lambda peer: None).public
    hub = bytes.fromhex(read_membership(folder).hub_key)
    certificate = certificates.fingerprint((folder / "tls.pem").read_bytes())
    return {"key": certificates.grouped(own), "certificate": certificate, "hub": certificates.grouped(hub)}


def enrol(text: str, folder: Path, patience: float = 30.0, address: str | None = None) -> Membership:
    """Join with an invitation: make keys here, have the certificate signed by the hub, write the folder.

    `address`: host:port where the hub is reached from here, if not at the invitation's. Cut short, it can be run
    again with the same invitation. Raises TokenRefused, HubUnreachable, DureError.
    """
    invitation = Invitation.from_text(text)
    if address:
        host, _, port = address.rpartition(":")
        invitation = replace(invitation, host=host, port=int(port))
    if (folder / "member.json").exists() and read_membership(folder).identity != invitation.member:
        problem = Words("Another member has enrolled in this folder", "이 폴더에는 다른 회원이 가입해 있습니다")
        raise MemberConflict(name=invitation.name, problem=problem)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not (folder / "key.pem").exists():
        create_signer(folder / "key.pem")
    pending = folder / "tls.key.pending"  # kept until the certificate is here: a repeated request is the same one
    if not pending.exists():
        certificates.write_private(pending, certificates.create_key())
    tls_key = certificates.read_private(pending)
    asked = {
        "request": certificates.request(tls_key, invitation.member),
        "key": key_document(read_signer(folder / "key.pem").public_key),
    }
    reply = unpack(_ask_once(invitation, folder, pack(asked), patience))
    certificate = reply["certificate"]
    if not certificates.signed_by(certificate, invitation.authority):
        problem = Words("The certificate is not the alliance's", "연합이 발급한 인증서가 아닙니다")
        raise TokenRefused(problem=problem)
    given = {name: getattr(invitation, name) for name in ("alliance", "name", "role", "scheme", "host", "port")}
    membership = Membership(**given, identity=invitation.member, hub_key=invitation.hub_key.hex())
    (folder / "authority.pem").write_bytes(invitation.authority)
    certificates.write_private(folder / "tls.pem", tls_key + certificate)
    certificates.write_private(folder / "member.json", json.dumps(asdict(membership), ensure_ascii=False).encode())
    pending.unlink()
    return membership


def _ask_once(invitation: Invitation, folder: Path, body: bytes, patience: float) -> bytes:
    from dure.federation.flare_wire import FlareWire

    keys = OwnKeys(folder / "key.pem", lambda peer: invitation.hub_key if peer == HUB else None)
    with TemporaryDirectory(prefix="dure-") as name:
        for file, data in (
            ("authority.pem", invitation.authority),
            ("tls.pem", invitation.key + invitation.certificate),
        ):
            certificates.write_private(Path(name) / file, data)
        wire = FlareWire(invitation.identity, _credentials(Path(name)), invitation.scheme)  # type: ignore[arg-type]
        calls = Calls(wire, keys, lambda peer, topic, data: b"")
        try:
            wire.connect(invitation.host, invitation.port)
            calls.hello(HUB, patience, shown=keys.public)
            return calls.call(HUB, "enrol", body, patience)
        except Unreachable as lost:
            raise _unreachable(f"{invitation.host}:{invitation.port}", wire.problem or lost.reason) from None
        finally:
            wire.stop()


class Line:
    """A member's line to the hub: connected, greeted again whenever either side was restarted, and kept alive.

    `handle` answers what the hub asks; `joined` says what the hub is told after each greeting.
    """

    def __init__(self, folder: Path, handle: Handler, joined: Callable[[], Any] = dict, most: int = LARGEST) -> None:
        from dure.federation.flare_wire import FlareWire

        self.folder, self.membership = folder, read_membership(folder)
        hub_key = bytes.fromhex(self.membership.hub_key)
        keys = OwnKeys(folder / "key.pem", lambda peer: hub_key if peer == HUB else None)
        self._wire = FlareWire(self.membership.identity, _credentials(folder), self.membership.scheme)  # type: ignore[arg-type]
        self.calls = Calls(self._wire, keys, handle, most)
        self._joined, self._wake, self._stop = joined, threading.Event(), threading.Event()
        self.calls.on_lost = lambda peer: self._wake.set()
        self.problem: DureError | None = None
        """Why the hub does not take this member, where it said so."""
        self.heard = 0.0
        """Time of the hub's last sign of life."""
        connected = self._wire.on_connected

        def came(peer: str) -> None:
            connected(peer)
            self._wake.set()

        self._wire.on_connected = came
        self._thread = threading.Thread(target=self._keep, name="line", daemon=True)

    def open(self) -> None:
        self._wire.connect(self.membership.host, self.membership.port)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._wake.set()
        self._wire.stop()

    def up(self) -> bool:
        return self.calls.known(HUB) and self.problem is None

    @property
    def reason(self) -> str:
        """Why the line is not up, as far as is known."""
        return self.problem.text("en") if self.problem else self._wire.problem

    def wait(self, seconds: float) -> None:
        """Until the line is up; raises what the hub said, or HubUnreachable."""
        deadline = time.monotonic() + seconds
        while not self.up():
            if self.problem is not None:
                raise self.problem
            if time.monotonic() > deadline:
                raise _unreachable(self.membership.address, self._wire.problem or "no connection")
            time.sleep(0.02)

    def call(self, topic: str, body: bytes = b"", patience: float = 30.0, limit: float = float("inf")) -> bytes:
        """Ask the hub; raises HubUnreachable, or what the hub answered."""
        try:
            return self.calls.call(HUB, topic, body, patience, limit)
        except Unreachable as lost:
            raise _unreachable(self.membership.address, self._wire.problem or lost.reason) from None

    def renew(self) -> None:
        """A new key and certificate over the line as it is, then connect again with them."""
        key = certificates.create_key()
        asked = {"request": certificates.request(key, self.membership.identity)}
        certificate = unpack(self.call("renew", pack(asked)))["certificate"]
        if not certificates.signed_by(certificate, (self.folder / "authority.pem").read_bytes()):
            raise MessageRefused(
                problem=Words("The new certificate is not the alliance's", "새 인증서가 연합의 것이 아닙니다"),
                hint=Words("Tell the alliance's office.", "연합 사무국에 알리십시오."),
            )
        certificates.write_private(self.folder / "tls.pem", key + certificate)
        self._wire.drop(HUB)

    def _keep(self) -> None:
        while not self._stop.is_set():
            self._wake.wait(BEAT)
            self._wake.clear()
            if self._stop.is_set():
                return
            try:
                self._greet()
                self.problem, self.heard = None, time.time()
            except (Unreachable, SessionLost):
                continue  # the wire connects again by itself, and the next beat greets again
            except DureError as error:
                self.problem = error
            except Exception as error:  # whatever a hub may say: this thread is the line, and has to live
                self.problem = _unreachable(self.membership.address, type(error).__name__)

    def _greet(self) -> None:
        """A sign of life; where the hub does not know the session, a new one."""
        try:
            self.calls.beat(HUB, BEAT)
        except SessionLost:
            self.calls.hello(HUB, BEAT)
            self.calls.call(HUB, "join", pack(self._joined()), BEAT)


def _credentials(folder: Path) -> Any:
    from dure.federation.flare_wire import Credentials

    return Credentials(folder / "authority.pem", folder / "tls.pem", folder / "tls.pem")


def _unreachable(address: str, reason: str) -> HubUnreachable:
    return HubUnreachable(address=address, problem=Words(f"It said: {reason}", f"이유: {reason}"))
