"""The audit log, the hospital's key and its signed permits: what tampering looks like."""

from __future__ import annotations

import base64
import hashlib
import json
import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st
from securesystemslib.signer import CryptoSigner

from dure.errors import FileMissing, InvalidDocument, LedgerBroken, PermitError
from dure.guard.audit import START, AuditLog
from dure.guard.keys import create_signer, read_signer
from dure.study.method import installed_methods, source_hash
from dure.study.permit import Permit, check_permit, key_document, read_key, sign, verify

# ── audit ──


def written(path: Path, entries: int = 5) -> AuditLog:
    log = AuditLog(path)
    for number in range(entries):
        log.append("left", step=f"s{number}", note="한글 – text")
    return log


def test_entries_follow_one_another_and_survive_reopening(tmp_path: Path) -> None:
    log = written(tmp_path / "deep" / "audit.jsonl")
    again = AuditLog(log.path)
    assert (again.head, again.count, again.verify()) == (log.head, 5, 5)
    again.append("refused", rule="minimum_people")
    assert [entry["number"] for entry in again.entries()] == list(range(6))
    assert next(again.entries())["before"] == START


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.booleans() | st.none(), inner),
    max_leaves=8,
)


@given(details=PLAIN)
@example(details={2: "numbers", 10: "are sorted otherwise than text"})
@example(details={1: 1, "1": "one"})
@example(details={2: 1, "text": 1})
def test_whatever_is_written_the_log_reads_back(tmp_path_factory: pytest.TempPathFactory, details: Any) -> None:
    """Messages are written into it whose parts come from others; a line that nobody can read would end the log."""
    log = written(tmp_path_factory.mktemp("log") / "audit.jsonl", 1)
    try:
        log.append("asked", details=details)
    except (TypeError, ValueError):  # keys of two kinds: nothing is written
        assert log.verify() == AuditLog(log.path).count == 1
    log.append("left")
    assert AuditLog(log.path).verify() == log.count == log.verify()


@pytest.mark.parametrize("line", range(5))
@pytest.mark.parametrize("change", ["edit", "remove", "swap", "blank", "double", "not json"])
def test_a_changed_line_is_noticed(tmp_path: Path, line: int, change: str) -> None:
    log = written(tmp_path / "audit.jsonl")
    lines = log.path.read_text(encoding="utf-8").splitlines()
    if change == "edit":
        entry = json.loads(lines[line])
        lines[line] = json.dumps({**entry, "step": "other"}, ensure_ascii=False, sort_keys=True)
    elif change == "remove":
        del lines[line]
    elif change == "swap":
        other = (line + 1) % 5
        lines[line], lines[other] = lines[other], lines[line]
    elif change == "blank":
        lines[line] = "{}"
    elif change == "double":
        lines.insert(line, lines[line])
    else:
        lines[line] = lines[line][:-5]
    log.path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if change == "remove" and line == 4:  # a cut end is a shorter log: only the noted head tells
        assert AuditLog(log.path).head != log.head
        return
    with pytest.raises(LedgerBroken, match=r"Line \d does not follow"):
        AuditLog(log.path)


def test_a_line_rewritten_with_a_hash_of_its_own_does_not_fit_the_next(tmp_path: Path) -> None:
    log = written(tmp_path / "audit.jsonl", 3)
    lines = log.path.read_text(encoding="utf-8").splitlines()
    forged = {**json.loads(lines[1]), "step": "other"}
    del forged["hash"]
    text = json.dumps(forged, ensure_ascii=False, sort_keys=True)
    forged["hash"] = hashlib.sha256(text.encode()).hexdigest()
    lines[1] = json.dumps(forged, ensure_ascii=False, sort_keys=True)
    log.path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(LedgerBroken, match="Line 3 does not follow"):
        AuditLog(log.path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_changed_character_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    log = written(tmp_path_factory.mktemp("audit") / "audit.jsonl", 3)
    text = log.path.read_text(encoding="utf-8")
    place = data.draw(st.integers(0, len(text) - 2))
    letter = data.draw(st.sampled_from("09afzZ가 {}\"'").filter(lambda new: new != text[place]))
    log.path.write_text(text[:place] + letter + text[place + 1 :], encoding="utf-8")
    with pytest.raises(LedgerBroken):
        AuditLog(log.path).verify()


@pytest.mark.parametrize("left", [1, 20, 100])
def test_a_line_cut_by_a_crash_is_dropped_and_the_log_goes_on(tmp_path: Path, left: int) -> None:
    log = written(tmp_path / "audit.jsonl", 2)
    whole = log.path.read_bytes()
    log.append("left", step="cut", note="한글 – text")
    log.path.write_bytes(whole + log.path.read_bytes()[len(whole) :][:left])
    again = AuditLog(log.path)
    assert again.count == 2
    again.append("left", step="next")
    assert AuditLog(log.path).verify() == 3


def test_a_crash_in_the_middle_of_a_korean_letter_is_no_break(tmp_path: Path) -> None:
    log = written(tmp_path / "audit.jsonl", 2)
    whole = log.path.read_bytes()
    log.path.write_bytes(whole + '{"before": "x", "note": "한'.encode()[:-1])
    assert AuditLog(log.path).count == 2
    assert log.path.read_bytes() == whole


# ── keys ──


def test_a_new_key_is_readable_by_its_owner_alone_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "hospital.pem"
    signer = create_signer(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_signer(path).public_key == signer.public_key
    with pytest.raises(FileExistsError):
        create_signer(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "hospital.pem"
    create_signer(path)
    path.chmod(mode)
    with pytest.raises(InvalidDocument, match="chmod 600"):
        read_signer(path)


def test_a_missing_key_and_one_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        read_signer(tmp_path / "none.pem")
    path = tmp_path / "other.pem"
    path.write_bytes(X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    with pytest.raises(InvalidDocument, match="Ed25519"):
        read_signer(path)


def test_a_file_that_is_no_key_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "broken.pem"
    path.write_text("this is no key")
    path.chmod(0o600)
    with pytest.raises(InvalidDocument, match="Ed25519"):
        read_signer(path)


# ── permits ──

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SIGNER = CryptoSigner.generate_ed25519()


def permit(**more: Any) -> Permit:
    values: dict[str, Any] = {
        "study": "sha256:abc",
        "hospital": "north",
        "methods": {"regression": "sha256:m"},
        "issued": NOW,
        "expires": NOW + timedelta(days=30),
    }
    return Permit(**{**values, **more})


def opened(envelope: dict[str, Any]) -> dict[str, Any]:
    return json.loads(base64.b64decode(envelope["payload"]))


def resealed(envelope: dict[str, Any], **changes: Any) -> dict[str, Any]:
    payload = json.dumps({**opened(envelope), **changes}).encode()
    return {**envelope, "payload": base64.b64encode(payload).decode()}


def test_a_signed_permit_comes_back_as_it_was() -> None:
    given_ = permit(per_hospital=True)
    key = read_key(json.loads(json.dumps(key_document(SIGNER.public_key))))
    assert verify(json.loads(json.dumps(sign(given_, SIGNER))), key, "north") == given_
    assert given_.grants() == {"per_hospital"}
    assert permit(difference=True).grants() == {"difference"}
    assert permit().grants() == frozenset()


@pytest.mark.parametrize(
    "change",
    [
        {"per_hospital": True},
        {"difference": True},
        {"study": "sha256:other"},
        {"expires": "2099-01-01T00:00:00Z"},
        {"methods": {"regression": "sha256:other"}},
        {"hospital": "south"},
    ],
)
def test_a_changed_permit_is_not_the_hospitals(change: dict[str, Any]) -> None:
    with pytest.raises(PermitError, match="signature"):
        verify(resealed(sign(permit(), SIGNER), **change), SIGNER.public_key, "north")


def test_another_key_another_type_and_no_signature_are_refused() -> None:
    other = CryptoSigner.generate_ed25519()
    envelope = sign(permit(), SIGNER)
    with pytest.raises(PermitError):
        verify(sign(permit(), other), SIGNER.public_key, "north")
    with pytest.raises(PermitError):
        verify({**envelope, "signatures": []}, SIGNER.public_key, "north")
    with pytest.raises(PermitError):
        verify({**envelope, "payloadType": "application/json"}, SIGNER.public_key, "north")
    with pytest.raises(PermitError):
        verify({}, SIGNER.public_key, "north")
    with pytest.raises(PermitError):
        verify({**envelope, "payload": "%%%"}, SIGNER.public_key, "north")


def test_a_forged_keyid_does_not_help() -> None:
    other = CryptoSigner.generate_ed25519()
    envelope = sign(permit(), other)
    for signature in envelope["signatures"]:
        signature["keyid"] = SIGNER.public_key.keyid
    with pytest.raises(PermitError):
        verify(envelope, SIGNER.public_key, "north")


def test_a_true_permit_of_another_hospital_is_refused() -> None:
    with pytest.raises(PermitError, match="another hospital"):
        verify(sign(permit(hospital="south"), SIGNER), SIGNER.public_key, "north")


def test_a_permit_holds_for_its_study_its_methods_and_its_days() -> None:
    def check(moment: datetime = NOW, study: str = "sha256:abc", method: str = "regression", source: str = "sha256:m"):
        check_permit(permit(), study, method, source, moment)

    check()
    check(NOW + timedelta(days=30, microseconds=-1))
    with pytest.raises(PermitError, match="another version of the study"):
        check(study="sha256:abd")
    with pytest.raises(PermitError, match="expired"):
        check(NOW + timedelta(days=30))
    with pytest.raises(PermitError, match="not yet valid"):
        check(NOW - timedelta(microseconds=1))
    with pytest.raises(PermitError, match="does not cover the method 'regression'"):
        check(source="sha256:n")
    with pytest.raises(PermitError, match="does not cover the method 'survival'"):
        check(method="survival")


def test_the_hash_of_a_method_is_its_own_and_stays_the_same() -> None:
    hashes = [source_hash(method) for method in installed_methods().values()]
    assert len(set(hashes)) == len(hashes)
    assert all(found.startswith("sha256:") and len(found) == 71 for found in hashes)
    assert hashes == [source_hash(method) for method in installed_methods().values()]


def test_two_logs_on_one_file_follow_each_other(tmp_path: Path) -> None:
    one, other = AuditLog(tmp_path / "audit.jsonl"), AuditLog(tmp_path / "audit.jsonl")
    for number in range(6):
        (one if number % 3 else other).append("asked", step=number)
    assert AuditLog(tmp_path / "audit.jsonl").verify() == 6
    assert [entry["step"] for entry in one.entries()] == list(range(6))


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from dure.guard.audit import AuditLog\n"
        "log = AuditLog(Path(sys.argv[1]))\n"
        "for number in range(40): log.append('asked', who=sys.argv[2], number_of_it=number)"
    )
    path = str(tmp_path / "audit.jsonl")
    writers = [subprocess.Popen([sys.executable, "-c", code, path, who]) for who in "abc"]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    entries = list(AuditLog(tmp_path / "audit.jsonl").entries())
    assert len(entries) == 120
    for who in "abc":
        assert [entry["number_of_it"] for entry in entries if entry["who"] == who] == list(range(40))


def test_a_log_replaced_under_a_running_process_is_not_taken_for_its_own(tmp_path: Path) -> None:
    log = written(tmp_path / "audit.jsonl", 4)
    kept = log.path.read_bytes()
    anew = written(tmp_path / "anew.jsonl", 6)
    anew.path.replace(log.path)
    for _ in range(2):  # not only the first time
        with pytest.raises(LedgerBroken, match="lacks lines"):
            log.append("left")
    log.path.write_bytes(b"".join(kept.splitlines(keepends=True)[:3]))
    with pytest.raises(LedgerBroken, match="lacks lines"):
        log.tree_head()
    log.path.unlink()
    with pytest.raises(LedgerBroken, match="lacks lines"):
        log.tree_head()
    log.path.write_bytes(kept)
    log.append("left")
    assert AuditLog(log.path).verify() == 5


def test_a_line_written_in_another_way_is_a_changed_line(tmp_path: Path) -> None:
    log = written(tmp_path / "audit.jsonl", 2)
    whole = log.path.read_bytes()
    for changed in (
        whole.replace(b'": ', b'":  ', 1),
        whole.replace(b"{", b'{"step": "other", ', 1),
        whole.replace("한".encode(), b"\\ud55c", 1),
        whole.replace(b"\n", b"\n\n", 1),
        whole.replace(b"\n", b"\r\n", 1),
    ):
        log.path.write_bytes(changed)
        with pytest.raises(LedgerBroken):
            AuditLog(log.path)


def test_an_entry_costs_the_same_in_a_long_log_and_reads_nothing_again(tmp_path: Path) -> None:
    log = written(tmp_path / "audit.jsonl", 50)
    read: list[int] = []

    class Watched(AuditLog):
        def _lines(self, file: Any, start: int) -> list[bytes]:
            found = super()._lines(file, start)
            read.append(len(found))
            return found

    watched = Watched(log.path)
    for number in range(20):
        watched.append("asked", number_of_it=number)
    log.append("asked")
    watched.append("asked")
    assert read == [50, 1]  # when it was opened; and what the other wrote
    assert AuditLog(log.path).verify() == 72


def test_threads_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.jsonl")
    threads = [
        threading.Thread(target=lambda: [log.append("asked") for _ in range(25)])  # type: ignore[func-returns-value]
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert AuditLog(log.path).verify() == log.count == 100
    assert log.tree_head() == AuditLog(log.path).tree_head()
