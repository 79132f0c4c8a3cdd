"""Signed heads of a log: what rewriting, cutting, forking and forging look like to those who have seen it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from dure.errors import DureError, FileMissing, LedgerBroken, LogForked, MessageRefused
from dure.guard import tree_heads
from dure.guard.audit import AuditLog
from dure.guard.log_check import Checked, Keys, check_log
from dure.guard.log_proof import check_proof, prove
from dure.guard.merkle import consistent, included
from dure.guard.tree_heads import HEADS, WITNESSED, Heads, countersign, read_head, read_seen, sign_head
from dure.study.packing import pack, unpack

NAMES = ("hub", "north", "south")
SIGNERS = {name: CryptoSigner.generate_ed25519() for name in (*NAMES, "stranger")}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads are signed whenever they are asked for."""
    monkeypatch.setattr(tree_heads, "EVERY", 0.0)


@dataclass
class Party:
    """A folder with a log and its heads, as a service opens them."""

    name: str
    folder: Path
    heads: Heads

    @classmethod
    def open(cls, base: Path, name: str) -> Party:
        folder = base / name
        folder.mkdir(exist_ok=True)
        log = AuditLog(folder / "audit.jsonl")
        return cls(name, folder, Heads(folder, log, name, SIGNERS[name]))

    def write(self, lines: int = 1, event: str = "asked") -> None:
        for line in range(lines):
            self.heads.log.append(event, line=line)

    def shows(self, other: Party) -> bool:
        """Sign, and have the head countersigned, over bytes as the wire carries them."""
        self.heads.sign()
        key = SIGNERS[other.name].public_key
        return self.heads.show(
            other.name, key, lambda body: other.heads.receive(self.name, SIGNERS[self.name].public_key, body)
        )

    def check(self, *against: Party) -> Checked:
        return check_log(self.folder, keys_of(self.name), [party.folder for party in against])

    @property
    def log(self) -> Path:
        return self.folder / "audit.jsonl"


def keys_of(name: str) -> Keys:
    others = {other: [SIGNERS[other].public_key] for other in NAMES if other != name}
    return Keys(name, SIGNERS[name].public_key, others)


@pytest.fixture
def parties(tmp_path: Path) -> tuple[Party, Party, Party]:
    """A hub of nine lines that two hospitals have seen twice, and they theirs."""
    hub, north, south = (Party.open(tmp_path, name) for name in NAMES)
    for _ in range(2):
        hub.write(4)
        for site in (north, south):
            site.write(3)
            assert hub.shows(site)
            assert site.shows(hub)
    hub.write()
    hub.heads.sign()
    return hub, north, south


def rewritten(path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    """The log anew, with a chain that fits."""
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.unlink()
    log = AuditLog(path)
    for entry in change(entries):
        kept = {name: value for name, value in entry.items() if name not in ("number", "time", "before", "hash")}
        log.append(kept.pop("event"), **kept)


# ── what is sound ──


def test_a_log_that_only_grew_is_sound_and_says_who_has_seen_it(parties: tuple[Party, ...]) -> None:
    hub, north, south = parties
    found = hub.check(north, south)
    assert (found.lines, found.heads) == (9, 3)
    assert {name: head.size for name, head in found.countersigned.items()} == {"north": 8, "south": 8}
    assert {name: head.size for name, head in found.seen.items()} == {"north": 6, "south": 6}
    assert north.check(hub, south).seen["hub"].size == 8


def test_services_that_start_again_go_on_where_they_were(parties: tuple[Party, ...], tmp_path: Path) -> None:
    for _ in range(2):
        hub, north = Party.open(tmp_path, "hub"), Party.open(tmp_path, "north")
        assert hub.shows(north)  # after one call that asks for a proof from the state it knows
        hub.write(3)
        assert hub.shows(north)
    assert not hub.heads.owes("north")
    assert hub.check(north).countersigned["north"].size == 15
    assert hub.heads.problem is None


def test_a_head_is_signed_once_while_nothing_is_added(parties: tuple[Party, ...]) -> None:
    hub = parties[0]
    before = (hub.folder / HEADS).read_bytes()
    hub.heads.sign()
    hub.heads.close()
    assert (hub.folder / HEADS).read_bytes() == before


def test_the_log_proves_its_lines_and_its_states(parties: tuple[Party, ...]) -> None:
    log = parties[0].heads.log
    lines = log.path.read_bytes().splitlines()
    size, root = log.tree_head()
    assert size == len(lines) == 9
    for number, line in enumerate(lines):
        assert included(line, number, size, log.inclusion(number, size), root)
        assert consistent(number, size, log.tree_head(number)[1], root, log.consistency(number, size))


# ── what is not ──


@pytest.mark.parametrize("keep_heads", [True, False])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda lines: [{**lines[0], "line": 7}, *lines[1:]], id="one line rewritten"),
        pytest.param(lambda lines: lines[:2] + lines[3:], id="one line taken out"),
        pytest.param(lambda lines: lines[:6], id="cut to before what was seen"),
        pytest.param(lambda lines: [lines[1], lines[0], *lines[2:]], id="two lines exchanged"),
        pytest.param(lambda lines: [*lines[:3], lines[0], *lines[3:]], id="a line put in"),
        pytest.param(lambda lines: [{**lines[0], "event": "left"}, *lines[1:], *lines], id="longer than before"),
        pytest.param(lambda lines: lines, id="the same lines at another time"),
    ],
)
def test_a_chain_built_anew_fits_in_itself_and_not_to_what_was_signed(
    parties: tuple[Party, ...], tmp_path: Path, change: Any, keep_heads: bool
) -> None:
    hub, north, south = parties
    rewritten(hub.log, change)
    assert AuditLog(hub.log).verify() == AuditLog(hub.log).count > 0
    if keep_heads:
        with pytest.raises(LogForked, match="'hub' is not the one that was seen"):
            hub.check()
    else:  # nothing in the folder itself tells any more; those who have seen it do
        (hub.folder / HEADS).unlink()
        assert hub.check().heads == 0
    (hub.folder / HEADS).unlink(missing_ok=True)
    with pytest.raises(LogForked, match="north"):
        hub.check(north, south)
    again = Party.open(tmp_path, "hub")
    with pytest.raises(LogForked):
        again.shows(north)
    assert [seen.who for seen in read_seen(north.folder) if seen.against] == ["hub"]
    assert [entry["of"] for entry in north.heads.log.entries() if entry["event"] == "fork"] == ["hub"]
    with pytest.raises(LogForked):  # the evidence stays, and speaks without the hub's folder
        north.check()


def test_a_hub_that_finds_its_own_log_changed_says_so_and_signs_against_itself(
    parties: tuple[Party, ...], tmp_path: Path
) -> None:
    hub, north, _ = parties
    rewritten(hub.log, lambda lines: lines[:7])
    again = Party.open(tmp_path, "hub")
    again.heads.sign()
    assert again.heads.problem is not None
    assert "9 lines" in again.heads.problem.text("en")
    assert [entry["event"] for entry in again.heads.log.entries()][-1] == "fork"
    with pytest.raises(LogForked):
        again.check()
    with pytest.raises(LogForked):
        again.shows(north)


def test_two_hospitals_that_were_shown_different_logs_of_one_size_find_it_when_they_compare(
    tmp_path: Path,
) -> None:
    hub, north, south = (Party.open(tmp_path, name) for name in NAMES)
    hub.write(3, "asked")
    assert hub.shows(north)
    other = Party.open(tmp_path / "north", "hub")  # the same key, another log
    other.write(3, "opened")
    assert other.shows(south)
    for site in (north, south):
        site.write()
        assert site.check().lines == 1  # each alone sees a log that only grows
    with pytest.raises(LogForked, match=r"two versions of 3 lines: .* to north, .* to south"):
        north.check(south)
    with pytest.raises(LogForked, match="south"):
        hub.check(north, south)
    with pytest.raises(LogForked):  # and a hospital that gets the other's head does not countersign it
        other.shows(north)
    with pytest.raises(LogForked):  # which now holds both signatures of the hub
        hub.check(north)


def test_a_fork_is_written_down_once_however_long_it_grows(parties: tuple[Party, ...], tmp_path: Path) -> None:
    hub, north, _ = parties
    rewritten(hub.log, lambda lines: lines[1:])
    (hub.folder / HEADS).unlink()
    again = Party.open(tmp_path, "hub")
    for _ in range(3):
        again.write()
        with pytest.raises(LogForked):
            again.shows(north)
    lines = north.heads.log.verify()
    reopened = Party.open(tmp_path, "north")
    with pytest.raises(LogForked):
        again.shows(reopened)
    assert reopened.heads.log.verify() == lines
    assert sum(entry["event"] == "fork" for entry in reopened.heads.log.entries()) == 1


def test_an_old_head_that_comes_late_is_no_fork(parties: tuple[Party, ...]) -> None:
    hub, north, _ = parties
    late = hub.heads.offer("north")
    hub.write(2)
    assert hub.shows(north)
    key = SIGNERS["hub"].public_key
    assert unpack(north.heads.receive("hub", key, pack({**late, "since": 0}))) == {"last": 11}
    assert not [seen for seen in read_seen(north.folder) if seen.against]


@pytest.mark.parametrize("forged", [12, 7], ids=["longer", "shorter-and-late"])
def test_a_log_that_never_brings_a_proof_is_noted_once(parties: tuple[Party, ...], tmp_path: Path, forged: int) -> None:
    """Somebody with the hub's key goes on as if the witness had seen nothing, so that nothing is ever compared."""
    hub, north, _ = parties
    late = sign_head("hub", forged, bytes(32), SIGNERS["hub"])
    hub.write()
    assert hub.shows(north)
    key, seen = SIGNERS["hub"].public_key, hub.heads.offer("north")
    for _ in range(tree_heads.UNPROVED + 2):
        assert "last" in north.heads.witness("hub", key, {"head": late, "since": 0, "proof": []})
        assert "countersigned" in north.heads.witness("hub", key, seen)  # what it knows already proves nothing
    found = [entry for entry in north.heads.log.entries() if entry["event"] == "no proof"]
    assert [(entry["of"], entry["head"]) for entry in found] == [("hub", late)]
    assert north.check().unproved == ("hub",)
    assert hub.check(north).unproved == ()


def test_a_service_that_starts_again_and_again_brings_its_proofs(parties: tuple[Party, ...], tmp_path: Path) -> None:
    north = parties[1]
    for _ in range(tree_heads.UNPROVED + 2):
        again = Party.open(tmp_path, "hub")  # knows nothing of the witness, and is asked for a proof
        again.write()
        assert again.shows(north)
    assert north.check().unproved == ()


# ── signatures ──


@pytest.mark.parametrize(
    "proof",
    [[200_000_000], [bytes(31)], [bytes(32)] * 65, {b"": 1}, bytes(32)],
    ids=["sizes", "short", "many", "map", "bytes"],
)
def test_a_proof_of_another_form_is_refused_and_is_no_fork(parties: tuple[Party, ...], proof: Any) -> None:
    hub, north, _ = parties
    offer = {"head": sign_head("hub", 99, bytes(32), SIGNERS["hub"]), "since": 8, "proof": proof}
    with pytest.raises(MessageRefused):
        north.heads.receive("hub", SIGNERS["hub"].public_key, pack(offer))
    assert hub.shows(north)


def test_no_head_is_signed_over_a_line_that_a_loss_of_power_could_take(
    parties: tuple[Party, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, north, _ = parties
    safe: dict[int, int] = {}
    sync = os.fsync

    def synced(file: int) -> None:
        sync(file)
        safe[os.fstat(file).st_ino] = os.fstat(file).st_size

    monkeypatch.setattr(os, "fsync", synced)
    hub.heads.log.append("asked")
    hub.heads.log.append("opened", False)
    assert safe[hub.log.stat().st_ino] < hub.log.stat().st_size
    assert hub.shows(north)
    os.truncate(hub.log, safe[hub.log.stat().st_ino])  # what is left when the power goes
    again = Party.open(hub.folder.parent, "hub")
    again.write()
    assert again.shows(north)
    assert again.heads.problem is None


def test_a_head_signed_by_another_key_is_not_witnessed(parties: tuple[Party, ...]) -> None:
    hub, north, _ = parties
    offer = {**hub.heads.offer("north"), "head": sign_head("hub", 9, hub.heads.log.tree_head()[1], SIGNERS["stranger"])}
    seen = (north.folder / WITNESSED).read_bytes()
    for body in (pack(offer), pack({}), b"rubbish", pack({"head": {}, "since": 0, "proof": []})):
        with pytest.raises(MessageRefused):
            north.heads.receive("hub", SIGNERS["hub"].public_key, body)
    assert (north.folder / WITNESSED).read_bytes() == seen


def test_a_countersignature_by_another_key_is_refused_when_it_comes_and_when_it_lies_there(
    parties: tuple[Party, ...],
) -> None:
    hub, _, _ = parties
    forged = countersign(hub.heads.offer("north")["head"], SIGNERS["stranger"])
    with pytest.raises(ValueError, match="signed"):
        hub.heads.taken("north", SIGNERS["north"].public_key, {"countersigned": forged})
    with pytest.raises(ValueError, match="signed"):
        hub.heads.taken("north", SIGNERS["north"].public_key, {"countersigned": hub.heads.offer("north")["head"]})
    stranger = SIGNERS["stranger"].public_key
    hub.heads.taken("north", stranger, {"countersigned": forged})  # somebody writes it into the file nevertheless
    with pytest.raises(LedgerBroken, match="signature of north"):
        hub.check()


def test_a_keyid_that_lies_does_not_help(parties: tuple[Party, ...]) -> None:
    hub = parties[0]
    forged = countersign(hub.heads.offer("north")["head"], SIGNERS["stranger"])
    forged["signatures"][1]["keyid"] = SIGNERS["north"].public_key.keyid
    with pytest.raises(ValueError, match="signed"):
        read_head(forged, SIGNERS["hub"].public_key, SIGNERS["north"].public_key)


def test_a_witness_of_one_log_says_nothing_of_another(parties: tuple[Party, ...]) -> None:
    """A hospital's signature on the hub's head is no head of the hospital's own log."""
    hub, _, _ = parties
    signed = countersign(hub.heads.offer("north")["head"], SIGNERS["north"])
    with pytest.raises(ValueError, match="another's log"):
        read_head(signed, SIGNERS["north"].public_key)


@pytest.mark.parametrize("file", [HEADS, WITNESSED])
def test_a_changed_head_in_a_folder_is_found(parties: tuple[Party, ...], file: str) -> None:
    hub = parties[0]
    path = hub.folder / file
    lines = path.read_text(encoding="utf-8").splitlines()
    found = json.loads(lines[0])
    payload = json.loads(base64.b64decode(found["envelope"]["payload"]))
    payload["size"] += 1
    found["envelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    path.write_text("\n".join([json.dumps(found), *lines[1:]]) + "\n", encoding="utf-8")
    with pytest.raises(LedgerBroken, match="Line 1 does not bear the signature"):
        hub.check()


@given(st.data())
def test_one_changed_byte_anywhere_in_a_log_or_its_heads_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    base = tmp_path_factory.mktemp("heads")
    hub, north = Party.open(base, "hub"), Party.open(base, "north")
    hub.write(3)
    assert hub.shows(north)
    hub.heads.log.append("남은 것", note="한글")
    path = data.draw(st.sampled_from([hub.log, hub.folder / HEADS]))
    whole = path.read_bytes()
    # The last newline: a line without it was cut by a crash, and is no line of the log.
    place = data.draw(st.integers(0, len(whole) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda new: new != whole[place]))
    path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
    if path == hub.log:
        with pytest.raises((LedgerBroken, LogForked)):
            hub.check(north)
        return
    try:  # outside the signed payload, base64 and JSON leave room for other ways to write the same
        found = hub.check(north)
    except DureError:
        return
    assert found.lines == 4
    assert {head.size for head in found.countersigned.values()} <= {3}


def test_a_line_cut_by_a_crash_is_no_head_and_the_next_one_stands_alone(parties: tuple[Party, ...]) -> None:
    hub, north, _ = parties
    for file in (HEADS, WITNESSED):
        with (hub.folder / file).open("ab") as opened:
            opened.write(b'{"envelope": {"pay')
    assert hub.check().lines == 9
    hub.write()
    assert hub.shows(north)
    assert hub.check().countersigned["north"].size == 10


# ── proofs for others ──


def test_a_line_is_proved_to_somebody_without_the_log(parties: tuple[Party, ...], tmp_path: Path) -> None:
    hub = parties[0]
    file = tmp_path / "proof.json"
    proof = prove(hub.folder, 4, SIGNERS["hub"].public_key)
    file.write_text(json.dumps(proof), encoding="utf-8")
    entry, head, key = check_proof(file)
    assert (entry["number"], head.size, key) == (4, 9, SIGNERS["hub"].public_key)
    for changed in (
        {"line": proof["line"].replace("asked", "left")},
        {"number": 5},
        {"path": proof["path"][1:]},
        {"key": prove_key("stranger")},
        {"head": sign_head("hub", 9, b"\1" * 32, SIGNERS["hub"])},
    ):
        file.write_text(json.dumps(proof | changed), encoding="utf-8")
        with pytest.raises(DureError, match="does not show"):
            check_proof(file)
    with pytest.raises(DureError, match="No signed head covers"):
        prove(hub.folder, 9, SIGNERS["hub"].public_key)


def prove_key(name: str) -> dict[str, Any]:
    key = SIGNERS[name].public_key
    return {"keyid": key.keyid, **key.to_dict()}


def test_a_folder_without_a_log_or_without_its_key_is_said_to_be_so(parties: tuple[Party, ...], tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        check_log(tmp_path / "nowhere", keys_of("hub"))
    with pytest.raises(FileMissing, match=r"key\.pem"):
        check_log(parties[0].folder, Keys("hub", None))
    copy = tmp_path / "copy"
    shutil.copytree(parties[0].folder, copy)
    assert check_log(copy, keys_of("hub")).lines == 9


def test_a_log_is_checked_while_its_service_writes_and_signs(parties: tuple[Party, ...]) -> None:
    hub, north, _ = parties
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            hub.write()
            hub.shows(north)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        found = [hub.check(north).lines for _ in range(15)]
    finally:
        stop.set()
        thread.join()
    assert found == sorted(found)
    assert found[-1] > found[0]
