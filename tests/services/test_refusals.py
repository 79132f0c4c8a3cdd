"""Who and what is refused, each on real sockets against a hub in a process of its own, and said in plain words."""

from __future__ import annotations

import base64
import contextlib
import errno
import os
import resource
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgpack
import pytest

from dure.errors import (
    HubUnreachable,
    KeyExposed,
    MemberConflict,
    MessageRefused,
    NotAMember,
    ProtocolMismatch,
    TokenRefused,
)
from dure.federation import calls as calling
from dure.federation import frames
from dure.federation.calls import Calls
from dure.federation.flare_driver import TlsDriver
from dure.federation.flare_wire import HUB, Credentials, FlareWire, Mode
from dure.federation.health import FILES
from dure.federation.invitation import PREFIX, Invitation
from dure.federation.membership import Line, OwnKeys, enrol, read_membership
from dure.guard import certificates
from dure.guard.keys import create_signer
from dure.hub.authority import identity_of
from dure.study.packing import pack

SCHEMES = ("tcp", "grpc")


@pytest.fixture(scope="module", params=SCHEMES)
def town(request: Any, tmp_path_factory: pytest.TempPathFactory, services: Any) -> Iterator[Any]:
    """One hub for all refusals of a scheme: whatever is tried, it goes on serving the others."""
    made = services.Town(tmp_path_factory.mktemp(request.param), request.param, patience=5)
    services.until(lambda: _listens(made.hub.port), what="the hub's port")
    yield made
    assert made.processes["hub"].started.poll() is None, made.processes["hub"].said()
    made.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def joined(town: Any, folder: Path, name: str, role: str = "hospital") -> Path:
    enrol(town.authority.invite(name, role), folder)
    return folder


def up(folder: Path, seconds: float = 60.0) -> None:
    """Whether a member's folder is taken by the hub; raises what it says."""
    line = Line(folder, lambda peer, topic, body: b"")
    line.open()
    try:
        line.wait(seconds)
    finally:
        line.close()


def talk(town: Any, folder: Path, name: str | None = None) -> tuple[FlareWire, Calls]:
    """A wire of one's own under a member's certificate, to say what the product would not."""
    membership = read_membership(folder)
    hub_key = bytes.fromhex(membership.hub_key)
    keys = OwnKeys(folder / "key.pem", lambda peer: hub_key if peer == HUB else None)
    files = Credentials(folder / "authority.pem", folder / "tls.pem", folder / "tls.pem")
    wire = FlareWire(name or membership.identity, files, town.hub.scheme)
    return wire, Calls(wire, keys, lambda peer, topic, body: b"")


def test_a_member_is_taken(town: Any, tmp_path: Path) -> None:
    up(joined(town, tmp_path / "good", f"Good {tmp_path.name}"))


def test_a_member_that_stops_while_its_line_comes_up_ends_at_once(
    town: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wire closes what it knows of; a connection in its handshake it does not know of yet."""
    if town.hub.scheme != "tcp":
        pytest.skip("gRPC makes its connections by itself")
    wire, _ = talk(town, joined(town, tmp_path / "stops", f"Stops {tmp_path.name}"))
    add, shaken, known = TlsDriver.add_connection, threading.Event(), threading.Event()

    def late(self: TlsDriver, connection: Any) -> None:
        if threading.current_thread().name.startswith("conn_mgr") and connection.connector.mode == Mode.ACTIVE:
            shaken.set()
            known.wait(20)
        add(self, connection)

    monkeypatch.setattr(TlsDriver, "add_connection", late)
    wire.connect("127.0.0.1", town.hub.port)
    assert shaken.wait(20)
    stopping = threading.Thread(target=wire.stop, daemon=True)
    stopping.start()
    stopping.join(1)
    known.set()
    stopping.join(20)
    assert not stopping.is_alive()


def test_a_certificate_of_another_authority(town: Any, tmp_path: Path) -> None:
    folder = joined(town, tmp_path / "a", f"Foreign {tmp_path.name}")
    key = certificates.create_key()
    stranger = certificates.create_authority("Another alliance", key)
    own, identity = certificates.create_key(), read_membership(folder).identity
    request = certificates.request(own, identity)
    forged = certificates.issue(stranger, key, request, identity, timedelta(days=1))
    certificates.write_private(folder / "tls.pem", own + forged)
    with pytest.raises(HubUnreachable):
        up(folder, 4)


def test_no_certificate_at_all_and_no_tls_at_all_do_not_keep_others_out(town: Any, tmp_path: Path) -> None:
    """A caller who says nothing must not hold the door; FLARE's own TCP driver would wait for it."""
    address = ("127.0.0.1", town.hub.port)
    silent = [socket.create_connection(address, timeout=5) for _ in range(20)]
    rude = socket.create_connection(address, timeout=5)
    rude.sendall(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(2000))
    context = ssl.create_default_context(cafile=str(town.hub.folder / "authority.pem"))
    context.check_hostname = False
    with socket.create_connection(address, timeout=5) as plain:
        assert said_to_anonymous(context, plain) == b""
    began = time.monotonic()
    up(joined(town, tmp_path / "a", f"Behind the silent {tmp_path.name}"))
    assert time.monotonic() - began < 8
    for one in (*silent, rude):
        one.close()


def test_a_thousand_silent_callers_keep_nobody_out(town: Any, tmp_path: Path) -> None:
    """Nor does a process that holds a thousand files itself: FLARE's own TCP driver waits by `select`, which takes
    no file numbered 1024 or higher, and such a connection could never say a word."""
    address = ("127.0.0.1", town.hub.port)
    with contextlib.ExitStack() as held:
        try:
            for _ in range(1100):
                held.enter_context(contextlib.closing(socket.create_connection(address, timeout=20)))
        except OSError as error:
            if error.errno == errno.EMFILE:
                pytest.skip("this machine lets a process open fewer than 1,100 files")
            raise
        up(joined(town, tmp_path / "a", f"Behind a thousand {tmp_path.name}"))


def test_a_service_may_open_more_files_than_the_shell_it_was_started_from() -> None:
    code = (
        "import resource\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))\n"
        "from dure.federation.health import until_stopped\n"
        "class Service:\n"
        "    def run(self): print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
        "    def stop(self): pass\n"
        "until_stopped(Service())\n"
    )
    may = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert may == (FILES if hard == resource.RLIM_INFINITY else min(FILES, hard))


def test_a_hospital_under_another_ones_name(town: Any, tmp_path: Path) -> None:
    """Its own good certificate, but the other's name on the wire; then the other's certificate with its own key."""
    victim = joined(town, tmp_path / "victim", f"Victim {tmp_path.name}")
    thief = joined(town, tmp_path / "thief", f"Thief {tmp_path.name}")
    wire, calls = talk(town, thief, read_membership(victim).identity)
    wire.connect("127.0.0.1", town.hub.port)
    with pytest.raises(calling.Unreachable):
        calls.hello(HUB, 4)
    wire.stop()
    shutil.copy(victim / "tls.pem", thief / "tls.pem")
    shutil.copy(victim / "member.json", thief / "member.json")
    with pytest.raises(MessageRefused, match="not signed by the member"):
        up(thief)
    up(victim)


def test_a_token_that_is_cut_expired_or_used(town: Any, tmp_path: Path) -> None:
    name = f"Late {tmp_path.name}"
    text = town.authority.invite(name, valid=timedelta(seconds=0.5))
    time.sleep(0.6)
    with pytest.raises(TokenRefused, match="expired"):
        enrol(text, tmp_path / "late")
    # A clock that is wrong, or an honest face on an old token: the hub looks itself.
    changed = replace(_raw(text), expires="2999-01-01T00:00:00+00:00")
    with pytest.raises((TokenRefused, HubUnreachable)):
        enrol(changed.to_text(), tmp_path / "late", patience=4)
    with pytest.raises(TokenRefused, match="cut"):
        enrol(text[:-40], tmp_path / "cut")
    used = town.authority.invite(name)
    enrol(used, tmp_path / "first")
    with pytest.raises(TokenRefused, match="used before"):
        enrol(used, tmp_path / "second")
    assert not (tmp_path / "second" / "member.json").exists()
    up(tmp_path / "first")


def test_an_enrolment_cut_short_goes_on_with_the_same_token(town: Any, tmp_path: Path) -> None:
    text = town.authority.invite(f"Cut short {tmp_path.name}")
    folder = tmp_path / "a"
    enrol(text, folder)
    key = (folder / "tls.pem").read_bytes()
    for name in ("member.json", "authority.pem", "tls.pem"):  # as if it had died when the hub had already answered
        (folder / name).unlink()
    private = key[: key.index(b"-----BEGIN CERTIFICATE")]
    certificates.write_private(folder / "tls.key.pending", private)
    enrol(text, folder)
    up(folder)


def test_an_invitation_opens_nothing_but_enrolment(town: Any, tmp_path: Path) -> None:
    invitation = Invitation.from_text(town.authority.invite(f"Curious {tmp_path.name}"))
    folder = tmp_path / "a"
    folder.mkdir()
    create_signer(folder / "key.pem")
    certificates.write_private(folder / "tls.pem", invitation.key + invitation.certificate)
    (folder / "authority.pem").write_bytes(invitation.authority)
    keys = OwnKeys(folder / "key.pem", lambda peer: invitation.hub_key if peer == HUB else None)
    files = Credentials(folder / "authority.pem", folder / "tls.pem", folder / "tls.pem")
    wire = FlareWire(invitation.identity, files, town.hub.scheme)
    calls = Calls(wire, keys, lambda peer, topic, body: b"")
    wire.connect("127.0.0.1", town.hub.port)
    calls.hello(HUB, 10, shown=keys.public)
    for topic in ("studies", "submit", "permit", "join", "renew"):
        with pytest.raises(NotAMember):
            calls.call(HUB, topic, b"", 5)
    wire.stop()


def test_a_revoked_member_and_its_return(town: Any, tmp_path: Path, services: Any) -> None:
    name = f"Gone {tmp_path.name}"
    folder = joined(town, tmp_path / "a", name)
    line = Line(folder, lambda peer, topic, body: b"")
    line.open()
    line.wait(60)
    town.authority.revoke(name)
    services.until(lambda: cut_off(line), 15, "being cut off while connected")
    line.close()
    with pytest.raises((NotAMember, HubUnreachable), match=r"not a member|may not accept"):
        up(folder, 5)
    with pytest.raises(MemberConflict, match="another role"):
        town.authority.invite(name, "researcher")
    enrol(town.authority.invite(name), tmp_path / "again")
    up(tmp_path / "again")
    with pytest.raises((MessageRefused, HubUnreachable)):  # the old keys stay worthless
        up(folder, 5)


def test_a_replayed_request(town: Any, tmp_path: Path) -> None:
    """Frames recorded from a hospital's own session are worth nothing in a later one, and are not done twice in it."""
    folder = joined(town, tmp_path / "a", f"Recorded {tmp_path.name}")
    wire, calls = talk(town, folder)
    sent: list[bytes] = []
    send = wire.send

    def record(peer: str, frame: bytes) -> None:
        sent.append(frame)
        send(peer, frame)

    wire.send = record  # type: ignore[method-assign]
    wire.connect("127.0.0.1", town.hub.port)
    calls.hello(HUB, 10)
    calls.call(HUB, "join", pack({}), 10)
    calls.call(HUB, "studies", b"", 10)
    recorded = sent[-1]
    header = frames.unseal(recorded)[0]
    changed = {**header, "d": frames.digest(b"x"), "size": 1}
    with pytest.raises(MessageRefused, match="sent before"):
        calls._exchange(HUB, changed, b"x", calling._Patience(5))
    wire.stop()

    wire, calls = talk(town, folder)
    replies: list[dict[str, Any]] = []
    wire.connect("127.0.0.1", town.hub.port)
    calls.hello(HUB, 10)
    calls.call(HUB, "join", pack({}), 10)
    hear = wire.on_frame

    def listen(peer: str, frame: bytes) -> None:
        replies.append(frames.unseal(frame)[0])
        hear(peer, frame)

    wire.on_frame = listen
    wire.send(HUB, recorded)
    deadline = time.monotonic() + 10
    while not replies and time.monotonic() < deadline:
        time.sleep(0.02)
    assert replies[0]["k"] == "refused"
    assert replies[0]["code"] == "session"
    wire.stop()


def test_a_request_signed_by_nobody_or_changed_on_the_way(town: Any, tmp_path: Path) -> None:
    folder = joined(town, tmp_path / "a", f"Changed {tmp_path.name}")
    wire, calls = talk(town, folder)
    wire.connect("127.0.0.1", town.hub.port)
    calls.hello(HUB, 10)
    calls.call(HUB, "join", pack({}), 10)
    sealed = calls._sealed

    def spoilt(peer: str, header: dict[str, Any], payload: bytes) -> bytes:
        head, _, body = msgpack.unpackb(sealed(peer, header, payload))
        return bytes(msgpack.packb([head, bytes(64), body]))

    calls._sealed = spoilt  # type: ignore[method-assign]
    with pytest.raises(MessageRefused, match="not signed"):
        calls.call(HUB, "studies", b"", 5)
    calls._sealed = sealed  # type: ignore[method-assign]

    def swapped(peer: str, header: dict[str, Any], payload: bytes) -> bytes:
        return sealed(peer, header, b"another body" if header["k"] == "call" else payload)

    calls._sealed = swapped  # type: ignore[method-assign]
    with pytest.raises(MessageRefused):
        calls.call(HUB, "submit", b"the body!!!!", 5)
    wire.stop()


def test_an_oversized_message(town: Any, tmp_path: Path) -> None:
    """A body above the limit is refused when it is announced; a frame of impossible length ends its connection."""
    folder = joined(town, tmp_path / "a", f"Large {tmp_path.name}")
    wire, calls = talk(town, folder)
    wire.connect("127.0.0.1", town.hub.port)
    calls.hello(HUB, 10)
    calls.call(HUB, "join", pack({}), 10)
    session = calls.answering.sessions[HUB]
    announced = {"k": "call", "topic": "submit", "size": frames.LARGEST + 1, "d": b"", "s": session.key, "n": 999}
    with pytest.raises(MessageRefused, match="at most 16 MiB"):
        calls._exchange(HUB, announced, b"", calling._Patience(5))
    large = {"k": "call", "topic": "submit", "size": 10 << 20, "d": b"", "s": session.key}
    assert calls._exchange(HUB, {**large, "n": 1000}, b"", calling._Patience(5))[0]["k"] == "send"
    with pytest.raises(MessageRefused, match="Too many"):  # two bodies that are within the limit one by one
        calls._exchange(HUB, {**large, "n": 1001}, b"", calling._Patience(5))
    for place in (-1, 10, 1 << 40):
        part = {"k": "part", "i": place, "s": session.key, "n": 1000}
        with pytest.raises(MessageRefused, match="not a message"):
            calls._exchange(HUB, part, b"x" * 1000, calling._Patience(5))
    wire.stop()
    if town.hub.scheme == "tcp":
        context = ssl.create_default_context(cafile=str(folder / "authority.pem"))
        context.check_hostname = False
        context.load_cert_chain(folder / "tls.pem")
        plain = socket.create_connection(("127.0.0.1", town.hub.port), timeout=5)
        with plain, context.wrap_socket(plain) as secured:
            secured.settimeout(10)
            secured.sendall(struct.pack(">IHBBHHHH", 1 << 30, 0, 1, 0, 0, 1, 0, 0))
            assert secured.recv(1) == b""
    up(folder)


def test_another_protocol_version(town: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = joined(town, tmp_path / "a", f"Future {tmp_path.name}")
    monkeypatch.setattr(calling, "SPEAKS", (7, 8))
    with pytest.raises(ProtocolMismatch) as found:
        up(folder)
    assert "7, 8" in str(found.value)
    assert found.value.fields["ours"] == "2"
    assert "갱신" in found.value.text("ko")
    monkeypatch.setattr(calling, "SPEAKS", (2, 7, 8))  # one version in common is enough
    up(folder)


def test_renewal_while_connected(town: Any, tmp_path: Path) -> None:
    folder = joined(town, tmp_path / "a", f"Renewed {tmp_path.name}")
    before = (folder / "tls.pem").read_bytes()
    line = Line(folder, lambda peer, topic, body: b"")
    line.open()
    line.wait(60)
    line.renew()
    time.sleep(0.3)
    line.wait(60)
    assert line.call("studies", b"", 60)
    line.close()
    after = (folder / "tls.pem").read_bytes()
    assert certificates.serial(after) != certificates.serial(before)
    assert after[:200] != before[:200], "a new key, too"
    up(folder)


def test_a_key_that_others_may_read(town: Any, tmp_path: Path) -> None:
    folder = joined(town, tmp_path / "a", f"Open {tmp_path.name}")
    assert {oct(path.stat().st_mode & 0o777) for path in folder.glob("*.pem") if path.name != "authority.pem"} == {
        "0o600"
    }
    (folder / "tls.pem").chmod(0o640)
    with pytest.raises(KeyExposed, match="0640"):
        up(folder)


def test_the_hubs_place_taken_by_a_member(town: Any, tmp_path: Path, services: Any) -> None:
    """A member with a good certificate listens where the hub should be: it is not taken for the hub."""
    impostor = joined(town, tmp_path / "impostor", f"Impostor {tmp_path.name}")
    victim = joined(town, tmp_path / "victim", f"Misled {tmp_path.name}")
    port = services.free_port()
    files = Credentials(impostor / "authority.pem", impostor / "tls.pem", impostor / "tls.pem")
    wire = FlareWire(HUB, files, town.hub.scheme)
    Calls(wire, OwnKeys(impostor / "key.pem", lambda peer: None), lambda peer, topic, body: b"")
    wire.listen("127.0.0.1", port)
    text = (victim / "member.json").read_text(encoding="utf-8").replace(str(town.hub.port), str(port))
    (victim / "member.json").write_text(text, encoding="utf-8")
    with pytest.raises(HubUnreachable):
        up(victim, 5)
    wire.stop()


def cut_off(line: Line) -> bool:
    try:
        line.call("studies", b"", patience=2)
    except (NotAMember, HubUnreachable):
        return True
    return False


def said_to_anonymous(context: ssl.SSLContext, plain: socket.socket) -> bytes:
    """What a listener says to a caller without a certificate: nothing, before or after it closes."""
    try:
        with context.wrap_socket(plain) as anonymous:
            anonymous.settimeout(10)
            anonymous.sendall(struct.pack(">I", 100))
            return anonymous.recv(100)
    except OSError:
        return b""


def _raw(text: str) -> Invitation:
    body = text.removeprefix(PREFIX)
    return Invitation(**msgpack.unpackb(zlib.decompress(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))))


def test_names_on_the_wire_are_plain(services: Any) -> None:
    assert identity_of("서울대학교병원") != identity_of("연세의료원")
    assert identity_of("서울대학교병원").isascii()
