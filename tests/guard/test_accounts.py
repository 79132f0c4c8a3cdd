"""Accounts, passwords, sign-in and sessions, each in a real folder; time passes by ageing what is stored."""

from __future__ import annotations

import json
import re
import sqlite3
import stat
import subprocess
import sys
import threading
import unicodedata
from pathlib import Path

import pytest

from dure.errors import (
    AccountConflict,
    DureError,
    FileMissing,
    KeyExposed,
    LedgerBroken,
    NotPermitted,
    NotSignedIn,
    SignInRefused,
    TooManyAttempts,
    WeakPassword,
)
from dure.guard import passwords
from dure.guard.accounts import FOR_ALL, FOR_ONE, IDLE, LONGEST, WINDOW, Accounts
from dure.guard.acting import acting, forget_session, keep_session, may, session
from dure.guard.audit import AuditLog
from dure.guard.permissions import AT, Place

GOOD = "five wild cranes over Suncheon"
OTHER = "an entirely different sentence"


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("DURE_SESSION", raising=False)


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    folder = tmp_path / "hospital"
    folder.mkdir()
    (folder / "site.yaml").write_text("hospital: Hanbit\ndatabase: omop.duckdb\n", encoding="utf-8")
    return folder


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "hub.json").write_text(json.dumps({"alliance": "Durum"}), encoding="utf-8")
    return folder


@pytest.fixture
def staffed(hospital: Path) -> Accounts:
    accounts = Accounts(hospital)
    accounts.add("Kim", "steward", GOOD)
    accounts.add("Lee", "irb", OTHER, by="Kim")
    return accounts


def age(accounts: Accounts, seconds: float) -> None:
    """As if so much time had passed since everything that is stored."""
    with sqlite3.connect(accounts.path) as database:
        database.execute("UPDATE attempt SET time = time - ?", (seconds,))
        database.execute("UPDATE session SET began = began - ?, used = used - ?", (seconds, seconds))


def fail(accounts: Accounts, name: str, times: int, door: str = "") -> None:
    for _ in range(times):
        with pytest.raises(SignInRefused):
            accounts.sign_in(name, "certainly not this one", door)


def test_a_folder_without_accounts_belongs_to_whoever_holds_it_and_reading_makes_no_file(hospital: Path) -> None:
    assert acting(hospital).role == "owner"
    assert may(hospital, "pause").organisation == "Hanbit"
    assert Accounts(hospital).people() == []
    assert not (hospital / "people.db").exists()
    with pytest.raises(SignInRefused):
        Accounts(hospital).sign_in("Kim", GOOD)
    assert not (hospital / "people.db").exists()


def test_the_first_account_keeps_the_others_and_ends_the_owner(hospital: Path, hub: Path) -> None:
    for folder, first, wrong in ((hospital, "steward", "irb"), (hub, "office", "researcher")):
        accounts = Accounts(folder)
        with pytest.raises(AccountConflict, match=f"--role {first}"):
            accounts.add("Park", wrong, GOOD)  # type: ignore[arg-type]
        assert acting(folder).role == "owner"
        accounts.add("Kim", first, GOOD)  # type: ignore[arg-type]
        with pytest.raises(NotSignedIn, match="dure sign-in"):
            acting(folder)
        accounts.add("Park", wrong, GOOD)  # type: ignore[arg-type]


def test_the_first_account_of_a_hub_is_the_alliances_own(hub: Path) -> None:
    with pytest.raises(AccountConflict, match="Durum"):
        Accounts(hub).add("Kim", "office", GOOD, "Some company")


@pytest.mark.parametrize(("place", "role"), [("hub", "company"), ("site", "steward"), ("site", "researcher")])
def test_roles_are_those_of_the_place(place: Place, role: str, hospital: Path, hub: Path) -> None:
    accounts = Accounts(hub if place == "hub" else hospital)
    accounts.add("First", AT[place][0], GOOD)
    accounts.add("Second", role, GOOD)  # type: ignore[arg-type]
    if place == "site":
        for foreign in ("office", "company"):
            with pytest.raises(AccountConflict, match="Nobody has the role"):
                accounts.add("Third", foreign, GOOD)  # type: ignore[arg-type]


def test_a_name_is_there_once_and_is_a_name(staffed: Accounts) -> None:
    with pytest.raises(AccountConflict, match="There is an account of this name"):
        staffed.add("Kim", "irb", GOOD)
    for name in ("", "  ", "x" * 101, "two\nlines"):
        with pytest.raises(AccountConflict, match="not a name"):
            staffed.add(name, "irb", GOOD)
    with pytest.raises(AccountConflict, match="no account"):
        staffed.set_password("Nobody", GOOD, "Kim")


def test_neither_a_folder_of_another_kind_nor_a_file_of_another_kind_is_taken(tmp_path: Path, hospital: Path) -> None:
    with pytest.raises(FileMissing):
        Accounts(tmp_path)
    (hospital / "people.db").write_bytes(b"this is no database, it only has its name" * 100)
    (hospital / "people.db").chmod(0o600)
    with pytest.raises(LedgerBroken, match=r"people\.db"):
        acting(hospital)


# ── passwords ──


@pytest.mark.parametrize(
    ("password", "why"),
    [("eleven char", "fewer than 12"), ("ababababababab", "different"), ("Kim Kim Kim Kim!x", "name of the account")],
)
def test_a_weak_password_is_not_taken_and_not_repeated(hospital: Path, password: str, why: str) -> None:
    with pytest.raises(WeakPassword, match=why) as found:
        Accounts(hospital).add("Kim", "steward", password)
    assert password not in found.value.text("en") + found.value.text("ko")
    assert not Accounts(hospital).exist()


def test_twelve_hangul_are_enough_however_the_keyboard_composes_them(hospital: Path) -> None:
    accounts = Accounts(hospital)
    accounts.add("Kim", "steward", "가을하늘공활한데높고구름")
    decomposed = unicodedata.normalize("NFD", "가을하늘공활한데높고구름")
    assert accounts.prove("Kim", decomposed).name == "Kim"


def test_a_korean_name_is_one_however_it_is_composed(hospital: Path) -> None:
    accounts = Accounts(hospital)
    accounts.add("김한빛", "steward", GOOD)
    accounts.add(unicodedata.normalize("NFD", "이새싹"), "irb", GOOD)
    assert [person.name for person in accounts.people()] == ["김한빛", "이새싹"]
    assert accounts.sign_in(unicodedata.normalize("NFD", "김한빛"), GOOD)
    with pytest.raises(AccountConflict):
        accounts.add(unicodedata.normalize("NFD", "김한빛"), "irb", GOOD)


@pytest.mark.usefixtures("full_cost")
def test_what_is_stored_is_argon2id_at_least_as_costly_as_owasp_asks(staffed: Accounts) -> None:
    with sqlite3.connect(staffed.path) as database:
        rows = [row[0] for row in database.execute("SELECT password FROM person")]
    for encoded in (*rows, passwords.nobody()):
        found = re.fullmatch(r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$[\w+/]{22}\$[\w+/]{43}", encoded)
        assert found, encoded
        memory, passes, _ = map(int, found.groups())
        assert memory >= 19456
        assert passes >= 2
    assert len(set(rows)) == len(rows)


def test_nobody_can_be_tried_and_has_no_password() -> None:
    assert not passwords.fits(GOOD, passwords.nobody())


@pytest.mark.usefixtures("full_cost")
def test_an_unknown_name_costs_the_work_of_a_known_one(staffed: Accounts, monkeypatch: pytest.MonkeyPatch) -> None:
    """One hash of the same memory and passes each, so that time does not tell who has an account."""
    staffed.disable("Lee", "Kim")
    work, real = [], passwords.fits

    def counted(password: str, encoded: str) -> bool:
        work.append(encoded.rsplit("$", 2)[0])
        return real(password, encoded)

    monkeypatch.setattr(passwords, "fits", counted)
    for name, door in (("Kim", ""), ("Mallory", ""), ("Lee", ""), ("Kim", "Company")):
        fail(staffed, name, 1, door)
    cost = passwords.hashed(GOOD).rsplit("$", 2)[0]
    assert work == [cost] * 4
    fail(staffed, "Kim", FOR_ONE - 1)
    work.clear()
    with pytest.raises(TooManyAttempts):
        staffed.sign_in("Kim", GOOD)
    assert work == [], "a refused attempt must not cost what an attempt costs"


# ── attempts ──


def test_a_wrong_name_and_a_wrong_password_hear_the_same(staffed: Accounts) -> None:
    said = set()
    for name, password in (("Kim", "not the password"), ("Mallory", GOOD), ("Lee", GOOD)):
        with pytest.raises(SignInRefused) as found:
            staffed.sign_in(name, password)
        said.add((found.value.text("en"), str(found.value.fields)))
    assert len(said) == 1


def test_after_five_failures_a_name_waits_with_the_right_password_too_and_others_do_not(staffed: Accounts) -> None:
    fail(staffed, "Kim", FOR_ONE)
    with pytest.raises(TooManyAttempts, match="15 more minutes"):
        staffed.sign_in("Kim", GOOD)
    staffed.sign_in("Lee", OTHER)


def test_attempts_during_the_wait_do_not_make_it_longer(staffed: Accounts) -> None:
    fail(staffed, "Kim", FOR_ONE)
    for _ in range(30):
        with pytest.raises(TooManyAttempts):
            staffed.sign_in("Kim", "again")
    age(staffed, WINDOW / 3)
    with pytest.raises(TooManyAttempts, match="10 more minutes"):
        staffed.sign_in("Kim", GOOD)
    age(staffed, WINDOW * 2 / 3)
    assert staffed.sign_in("Kim", GOOD)


def test_a_clock_that_was_set_back_shuts_nobody_out(staffed: Accounts) -> None:
    fail(staffed, "Kim", FOR_ONE)
    age(staffed, -10 * WINDOW)
    assert staffed.sign_in("Kim", GOOD)


def test_twenty_failures_of_any_names_close_the_door(staffed: Accounts) -> None:
    for number in range(FOR_ALL // 4):
        fail(staffed, f"Guess {number}", 4)
    with pytest.raises(TooManyAttempts):
        staffed.sign_in("Kim", GOOD)
    age(staffed, WINDOW)
    assert staffed.sign_in("Kim", GOOD)


def test_the_limit_outlives_the_process(staffed: Accounts) -> None:
    code = (
        "import sys; from pathlib import Path; from dure.guard.accounts import Accounts\n"
        "try: Accounts(Path(sys.argv[1])).sign_in('Kim', 'certainly not this one')\n"
        "except Exception as error: print(type(error).__name__)"
    )
    said = [
        subprocess.run([sys.executable, "-c", code, str(staffed.folder)], capture_output=True, text=True).stdout.strip()
        for _ in range(FOR_ONE + 1)
    ]
    assert said == ["SignInRefused"] * FOR_ONE + ["TooManyAttempts"]


def test_many_attempts_at_once_are_no_way_around_the_limit(staffed: Accounts) -> None:
    said: list[str] = []

    def attempt() -> None:
        try:
            staffed.sign_in("Kim", "certainly not this one")
        except DureError as error:
            said.append(type(error).__name__)

    threads = [threading.Thread(target=attempt) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said.count("SignInRefused") == FOR_ONE
    assert said.count("TooManyAttempts") == 16 - FOR_ONE


def test_success_forgets_the_failures_of_that_name_only(staffed: Accounts) -> None:
    fail(staffed, "Kim", FOR_ONE - 1)
    fail(staffed, "Lee", FOR_ONE)
    staffed.sign_in("Kim", GOOD)
    fail(staffed, "Kim", FOR_ONE)
    with pytest.raises(TooManyAttempts):
        staffed.sign_in("Lee", OTHER)


def test_a_members_line_cannot_close_the_door_to_others(hub: Path) -> None:
    accounts = Accounts(hub)
    accounts.add("Kim", "office", GOOD)
    accounts.add("Yoon", "company", OTHER, "Pharm")
    for number in range(FOR_ALL):
        fail(accounts, "Kim" if number < FOR_ONE else f"Guess {number}", 1, "Pharm")
    with pytest.raises(TooManyAttempts):
        accounts.sign_in("Yoon", OTHER, "Pharm")
    assert accounts.sign_in("Kim", GOOD)


def test_over_a_members_line_only_its_own_people_come_in(hub: Path) -> None:
    accounts = Accounts(hub)
    accounts.add("Kim", "office", GOOD)
    accounts.add("Yoon", "company", OTHER, "Pharm")
    for name, password, door in (("Kim", GOOD, "Pharm"), ("Yoon", OTHER, "Another company")):
        with pytest.raises(SignInRefused):
            accounts.sign_in(name, password, door)
    token = accounts.sign_in("Yoon", OTHER, "Pharm")
    assert accounts.who(token, "Pharm").organisation == "Pharm"
    with pytest.raises(NotSignedIn):
        accounts.who(token, "Another company")


# ── sessions ──


def test_a_session_ends_unused_after_half_an_hour_and_in_any_case_after_half_a_day(staffed: Accounts) -> None:
    token = staffed.sign_in("Kim", GOOD)
    for _ in range(int(LONGEST // (IDLE - 60))):
        age(staffed, IDLE - 60)
        assert staffed.who(token).name == "Kim"
    age(staffed, IDLE - 60)
    with pytest.raises(NotSignedIn):  # in use all the time, but since more than twelve hours
        staffed.who(token)
    token = staffed.sign_in("Kim", GOOD)
    age(staffed, IDLE + 1)
    with pytest.raises(NotSignedIn):
        staffed.who(token)


def test_signing_out_a_new_password_and_closing_the_account_each_end_sessions(staffed: Accounts) -> None:
    staffed.add("Choi", "steward", OTHER, by="Kim")
    kim, lee = staffed.sign_in("Kim", GOOD), staffed.sign_in("Lee", OTHER)
    another = staffed.sign_in("Kim", GOOD)
    staffed.sign_out(kim)
    with pytest.raises(NotSignedIn):
        staffed.who(kim)
    assert staffed.who(another).name == "Kim"
    staffed.set_password("Kim", "quite another sentence now", by="Kim")
    with pytest.raises(NotSignedIn):
        staffed.who(another)
    fail(staffed, "Kim", 1)
    assert staffed.who(lee).name == "Lee"
    staffed.disable("Lee", by="Kim")
    with pytest.raises(NotSignedIn):
        staffed.who(lee)
    with pytest.raises(SignInRefused):
        staffed.sign_in("Lee", OTHER)
    staffed.enable("Lee", by="Kim")
    assert staffed.sign_in("Lee", OTHER)


def test_the_last_one_who_keeps_the_accounts_stays(staffed: Accounts) -> None:
    with pytest.raises(AccountConflict, match="Nobody would be left"):
        staffed.disable("Kim", by="Kim")
    staffed.add("Choi", "steward", OTHER, by="Kim")
    staffed.disable("Kim", by="Choi")
    with pytest.raises(AccountConflict):
        staffed.disable("Choi", by="Choi")


def test_neither_token_nor_password_is_anywhere_in_the_folder(staffed: Accounts) -> None:
    token = staffed.sign_in("Kim", GOOD)
    fail(staffed, "my secret typed as a name", 1)
    written = b"".join(path.read_bytes() for path in staffed.folder.iterdir())
    assert b"Kim" in written
    for secret in (token, GOOD, OTHER, "certainly not this one", "my secret typed as a name"):
        assert secret.encode() not in written
    assert stat.S_IMODE(staffed.path.stat().st_mode) == 0o600


def test_a_file_of_accounts_that_others_may_read_is_refused(staffed: Accounts) -> None:
    staffed.path.chmod(0o640)
    with pytest.raises(KeyExposed, match=r"people\.db"):
        staffed.people()


def test_every_sign_in_and_every_change_is_in_the_audit_log(staffed: Accounts) -> None:
    staffed.sign_out(staffed.sign_in("Kim", GOOD))
    fail(staffed, "Kim", 1)
    fail(staffed, "Mallory", 1)
    staffed.set_password("Lee", "yet one more good sentence", by="Kim")
    staffed.disable("Lee", by="Kim")
    log = AuditLog(staffed.folder / "audit.jsonl")
    told = [(entry["event"], entry.get("person"), entry.get("by")) for entry in log.entries()]
    assert told == [
        ("account added", "Kim", "Kim"),
        ("account added", "Lee", "Kim"),
        ("signed in", "Kim", None),
        ("signed out", "Kim", None),
        ("sign-in failed", "Kim", None),
        ("sign-in failed", None, None),
        ("password changed", "Lee", "Kim"),
        ("account disabled", "Lee", "Kim"),
    ]


# ── who acts ──


def test_who_is_signed_in_acts_and_a_refusal_is_written_down(
    staffed: Accounts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = staffed.folder
    keep_session(folder, staffed.sign_in("Lee", OTHER))
    (kept,) = (tmp_path / "state" / "dure" / "sessions").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    assert acting(folder).name == "Lee"
    monkeypatch.chdir(folder.parent)
    assert acting(Path("hospital")).name == "Lee", "a folder is the same however it is written"
    assert may(folder, "see_review").name == "Lee"
    with pytest.raises(NotPermitted, match="data steward"):
        may(folder, "pause")
    monkeypatch.setenv("DURE_SESSION", staffed.sign_in("Kim", GOOD))
    assert may(folder, "pause").name == "Kim"
    noted = [
        (e["event"], e["person"], e["action"]) for e in AuditLog(folder / "audit.jsonl").entries() if "action" in e
    ]
    assert noted == [("not permitted", "Lee", "pause"), ("acted", "Kim", "pause")]
    monkeypatch.delenv("DURE_SESSION")
    forget_session(folder)
    assert session(folder) == ""
    with pytest.raises(NotSignedIn):
        may(folder, "see_review")


def test_a_kept_session_that_others_may_read_is_refused(staffed: Accounts, tmp_path: Path) -> None:
    keep_session(staffed.folder, staffed.sign_in("Kim", GOOD))
    (kept,) = (tmp_path / "state" / "dure" / "sessions").iterdir()
    kept.chmod(0o644)
    with pytest.raises(KeyExposed):
        acting(staffed.folder)
