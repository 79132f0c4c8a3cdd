"""A hospital's runner: no row is read without a permit, its own limits hold, and its log lists all that left."""

from __future__ import annotations

import json
import sqlite3
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dure.errors import FileMissing, InvalidDocument, InvalidParameter, LedgerBroken
from dure.federation.messages import Answer, Ask, error_from
from dure.guard.rules import DEFAULT
from dure.hub.runs import run_study
from dure.site import inbox
from dure.site.memory import Remembered, StoredMemory
from dure.site.runner import Runner
from dure.site.settings import Site, create_site
from dure.study.method import source_hash
from dure.study.permit import Permit, permitted_step, sign

HOSPITALS = ("Cleveland", "Hungary", "Switzerland", "VA Long Beach")


@pytest.fixture
def site(stage: Any, tmp_path: Path) -> Site:
    """Cleveland, without its database: whoever reads a row fails."""
    found: Site = stage.sites(tmp_path, "Cleveland")["Cleveland"]
    found.database.unlink()
    return found


def ask(study: Any, step: str = "attrition", round_: int = 0, hospitals: tuple[str, ...] = HOSPITALS) -> bytes:
    return Ask("run", study.hash, step, round_, hospitals).to_bytes()


def reply(site: Site, stage: Any, message: bytes) -> Answer:
    return Answer.from_bytes(Runner(site, stage.methods).answer(message))


def permit_with(stage: Any, site: Site, study: Any, /, **changes: Any) -> None:
    """A permit written into the inbox as if this hospital had signed it so."""
    inbox.receive(site, study)
    now = datetime.now(UTC)
    true: dict[str, Any] = {
        "study": study.hash,
        "hospital": site.hospital,
        "methods": {step.method: source_hash(stage.methods[step.method]) for step in study.steps},
        "steps": {step.name: permitted_step(step) for step in study.steps},
        "cohort": study.cohort_hash,
        "per_hospital": True,
        "issued": now - timedelta(days=2),
        "expires": now + timedelta(days=2),
    }
    envelope = sign(Permit(**(true | changes)), changes.get("signer") or site.signer())
    (site.folder / "inbox" / study.hash.removeprefix("sha256:") / "permit.json").write_text(json.dumps(envelope))


# ── before a permit ──


def test_without_a_permit_no_row_is_read(stage: Any, site: Site) -> None:
    study = stage.study("attrition")
    inbox.receive(site, study)
    answer = reply(site, stage, ask(study))
    assert (answer.kind, answer.error["code"], dict(answer.arrays)) == ("error", "permit-error", {})
    assert "has not permitted" in error_from(answer.error).text("en")


def test_a_study_that_never_came_is_not_answered(stage: Any, site: Site) -> None:
    answer = reply(site, stage, ask(stage.study("attrition")))
    assert (answer.kind, answer.error["code"]) == ("error", "file-missing")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"study": "sha256:" + "0" * 64}, "another version of the study"),
        ({"hospital": "Hungary"}, "signed for another hospital"),
        ({"expires": datetime.now(UTC) - timedelta(days=1)}, "expired"),
        ({"issued": datetime.now(UTC) + timedelta(days=1)}, "not yet valid"),
        ({"methods": {"feasibility": "sha256:" + "0" * 64}}, "does not cover the method 'feasibility'"),
        ({"methods": {}}, "does not cover the method 'feasibility'"),
        ({"steps": {}}, "does not cover the step 'attrition'"),
        ({"cohort": "sha256:" + "0" * 64}, "or the cohort"),
    ],
    ids=["other-study", "other-hospital", "expired", "not-yet", "other-source", "no-method", "no-step", "other-cohort"],
)
def test_a_permit_that_does_not_cover_the_question_reads_no_row(
    stage: Any, site: Site, changes: dict[str, Any], said: str
) -> None:
    study = stage.study("attrition")
    permit_with(stage, site, study, **changes)
    answer = reply(site, stage, ask(study))
    assert (answer.kind, answer.error["code"]) == ("error", "permit-error")
    assert said in error_from(answer.error).text("en")
    assert [entry["error"] for entry in site.audit.entries() if entry["event"] == "failed"] == ["permit-error"]


def test_the_same_permit_unchanged_reaches_for_the_rows(stage: Any, site: Site) -> None:
    study = stage.study("attrition")
    permit_with(stage, site, study, visible_updates=True)
    assert reply(site, stage, ask(study)).error["code"] == "file-missing"  # the database, which is not there


def test_no_part_of_a_sum_leaves_in_the_clear_without_that_right_in_the_permit(stage: Any, site: Site) -> None:
    study = stage.study("attrition")
    permit_with(stage, site, study)
    answer = reply(site, stage, ask(study))
    assert (answer.kind, answer.error["code"]) == ("error", "sum-refused")
    assert "visible_updates" in error_from(answer.error).text("en")
    assert reply(site, stage, ask(study, hospitals=("Cleveland",))).error["code"] == "file-missing"  # it is the sum


def test_a_permit_changed_after_signing_reads_no_row(stage: Any, site: Site) -> None:
    study = stage.study("attrition")
    permit_with(stage, site, study)
    path = site.folder / "inbox" / study.hash.removeprefix("sha256:") / "permit.json"
    envelope = json.loads(path.read_text())
    envelope["signatures"][0]["sig"] = "00" * 64
    path.write_text(json.dumps(envelope))
    answer = reply(site, stage, ask(study))
    assert "signature" in error_from(answer.error).text("en")


def test_a_declined_study_is_not_answered_any_more(stage: Any, site: Site) -> None:
    study = stage.study("attrition")
    inbox.receive(site, study)
    inbox.permit(site, study.hash, stage.methods)
    assert inbox.waiting(site) == []
    inbox.decline(site, study.hash)
    assert reply(site, stage, ask(study)).error["code"] == "permit-error"
    assert [entry["event"] for entry in site.audit.entries()][-3:] == ["permitted", "withdrawn", "failed"]


@pytest.mark.parametrize("message", [b"", b"\x00", b"rubbish", b"\x81\xa1a\x01"], ids=["empty", "zero", "text", "map"])
def test_a_message_that_is_no_question_gets_an_answer(stage: Any, site: Site, message: bytes) -> None:
    assert reply(site, stage, message).error["code"] == "permit-error"


def test_a_step_that_the_study_does_not_have_is_answered_without_a_traceback(stage: Any, site: Site) -> None:
    study = stage.study("attrition")
    permit_with(stage, site, study)
    answer = reply(site, stage, ask(study, "another"))
    assert (answer.kind, answer.error) == ("error", {"code": "unexpected", "fields": {}})
    assert "could not answer" in error_from(answer.error, "Cleveland", "another").text("en")


def test_a_broken_database_is_an_answer_that_names_no_value(stage: Any, site: Site) -> None:
    study = stage.study("attrition")
    permit_with(stage, site, study)
    site.database.write_bytes(b"no database, but Kim, 010-1234-5678")
    answer = reply(site, stage, ask(study))
    assert answer.kind == "error"
    assert b"Kim" not in answer.to_bytes()


# ── the hospital's own limits ──


def run(stage: Any, folder: Path, alliance: Any) -> Any:
    return run_study(alliance.store, alliance.study.hash, alliance.engine, stage.methods, name="run")


def test_a_hospital_that_asks_for_twenty_people_is_out_with_fifteen(stage: Any, tmp_path: Path) -> None:
    for limits, dropped in (({}, set()), ({"minimum_cohort": 20}, {"Switzerland"})):
        folder = tmp_path / str(len(limits))
        sites = stage.sites(folder)
        stage.keep(sites["Switzerland"], 15)
        sites["Switzerland"] = stage.settings(sites["Switzerland"], **limits)
        played, outcomes = run(stage, folder, stage.join(folder, sites, stage.study("attrition")))
        assert outcomes["attrition"].status == "finished"
        assert set(played.dropped) == dropped


def test_tighter_limits_withhold_at_the_site_what_others_show(stage: Any, tmp_path: Path) -> None:
    sites = stage.sites(tmp_path)
    sites["VA Long Beach"] = stage.settings(sites["VA Long Beach"], minimum_people=60)
    alliance = stage.join(tmp_path, sites, stage.study("table_hospitals"))
    _, outcomes = run(stage, tmp_path, alliance)
    released = outcomes["table_hospitals"].folds[None].released.tables["table_one"].frame
    rows = {row["group"]: row for row in released.filter(variable="cholesterol").to_dicts()}
    assert rows["VA Long Beach"]["missing"] is None
    assert rows["Cleveland"]["n"] == 305
    first = next(entry for entry in sites["VA Long Beach"].audit.entries() if entry["event"] == "left")
    assert {array["name"]: array["withheld"] for array in first["arrays"]}["missing_numbers"] == 1


def test_tighter_limits_of_one_hospital_hold_for_every_sum_it_takes_part_in(stage: Any, tmp_path: Path) -> None:
    sites = stage.sites(tmp_path)
    sites["VA Long Beach"] = stage.settings(sites["VA Long Beach"], minimum_people=25)
    _, outcomes = run(stage, tmp_path, stage.join(tmp_path, sites, stage.study("model")))
    fold = outcomes["model"].folds[None]
    assert (fold.status, fold.error.rule) == ("refused", "minimum_people")


@pytest.mark.parametrize(
    ("name", "value"), [("minimum_people", 9), ("minimum_hospitals", 1), ("parameters_per_person", 0.5)]
)
def test_a_hospital_cannot_loosen_a_rule(stage: Any, site: Site, name: str, value: float) -> None:
    loose = stage.settings(site, **{name: value})
    with pytest.raises(InvalidParameter, match="never loosen"):
        _ = loose.limits
    study = stage.study("attrition")
    permit_with(stage, loose, study)
    assert reply(loose, stage, ask(study)).error["code"] == "invalid-parameter"


def test_a_rule_that_was_loosened_after_the_permit_was_signed_holds_as_it_was_permitted(
    stage: Any, tmp_path: Path
) -> None:
    """Boards approved under twenty people; the settings say ten again."""
    site = stage.settings(stage.sites(tmp_path, "Hungary")["Hungary"], minimum_cohort=20)
    study = stage.study("attrition")
    inbox.receive(site, study)
    inbox.permit(site, study.hash, stage.methods, ("per_hospital", "visible_updates"))
    site = stage.settings(site)
    stage.keep(site, 15)
    assert reply(site, stage, ask(study)).error["fields"]["rule"] == "minimum_cohort"


def test_without_limits_of_its_own_the_alliances_hold(site: Site) -> None:
    assert site.limits == DEFAULT


# ── settings, key, inbox ──


def test_a_misspelt_setting_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("hospital: A\ndatabse: x.duckdb\n", encoding="utf-8")
    with pytest.raises(InvalidDocument, match="line 2") as caught:
        Site(tmp_path)
    assert "database" in caught.value.text("en")


def test_a_new_site_keeps_its_key_to_itself_and_an_old_one_keeps_its_key(tmp_path: Path) -> None:
    first = create_site(tmp_path / "here", "한빛병원")
    key = (first.folder / "key.pem").read_bytes()
    assert stat.S_IMODE((first.folder / "key.pem").stat().st_mode) == 0o600
    assert create_site(tmp_path / "here", "another").hospital == "한빛병원"
    assert (first.folder / "key.pem").read_bytes() == key
    assert key not in json.dumps(first.public_key()).encode()


def test_a_site_without_its_key_cannot_sign(stage: Any, site: Site) -> None:
    study = stage.study("attrition")
    inbox.receive(site, study)
    (site.folder / "key.pem").unlink()
    with pytest.raises(FileMissing):
        inbox.permit(site, study.hash, stage.methods)


def test_the_inbox_hands_back_the_study_that_was_put_into_it(stage: Any, site: Site) -> None:
    study = stage.study("attrition", "model")
    inbox.receive(site, study)
    assert [found.hash for found in inbox.waiting(site)] == [study.hash]
    assert inbox.study_of(site, study.hash) == study


# ── the log and the store of rounds ──


def in_the_clear(stage: Any, folder: Path) -> Any:
    """Four hospitals whose permits let their parts be seen, so that a reply can be read here."""
    sites = stage.sites(folder)
    return stage.join(
        folder, sites, stage.study("attrition"), dict.fromkeys(sites, ("per_hospital", "visible_updates"))
    )


def test_the_log_lists_every_array_that_left_and_verifies(stage: Any, tmp_path: Path) -> None:
    alliance = stage.alliance(tmp_path, "attrition", "table_one", "model", "validation")
    _, outcomes = run(stage, tmp_path, alliance)
    for name, site in alliance.sites.items():
        again = Site(site.folder)
        assert again.audit.verify() == site.audit.count > 8
        logged = {
            (entry["step"], entry["round"], array["name"], tuple(array["shape"]), array["bytes"])
            for entry in again.audit.entries()
            if entry["event"] == "left"
            for array in entry["arrays"]
            if array["bytes"]
        }
        sent = {
            (item.step, item.round, item.array, item.shape, item.bytes)
            for outcome in outcomes.values()
            for item in outcome.left
            if item.hospital == name
        }
        assert logged == sent
        assert len(sent) > 30


def test_a_line_taken_out_of_the_log_is_noticed(stage: Any, tmp_path: Path) -> None:
    alliance = stage.alliance(tmp_path, "attrition")
    run(stage, tmp_path, alliance)
    path = alliance.sites["Hungary"].folder / "audit.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[2:]), encoding="utf-8")
    with pytest.raises(LedgerBroken, match="Line 2"):
        Site(alliance.sites["Hungary"].folder)


def test_a_repeated_question_gets_the_same_bytes_without_reading_a_row(stage: Any, tmp_path: Path) -> None:
    alliance = in_the_clear(stage, tmp_path)
    site = alliance.sites["Cleveland"]
    message = ask(alliance.study)
    first = alliance.runners["Cleveland"].answer(message)
    assert Answer.from_bytes(first).kind == "summary"
    site.database.unlink()
    assert Runner(Site(site.folder), stage.methods).answer(message) == first
    assert [entry["event"] for entry in Site(site.folder).audit.entries()][-2:] == ["left", "repeated"]


def test_the_cohort_in_the_database_is_the_hospitals_own_patients(stage: Any, tmp_path: Path) -> None:
    alliance = in_the_clear(stage, tmp_path)
    found = Answer.from_bytes(alliance.runners["Switzerland"].answer(ask(alliance.study)))
    assert np.asarray(found.arrays["persons"]).tolist() == [123, 123, 123]


def test_the_store_keeps_the_last_two_rounds_and_forgets_rounds_of_a_restarted_loop(tmp_path: Path) -> None:
    memory = StoredMemory(tmp_path / "rounds.db")
    for number in range(4):
        memory.write("run", "model", None, number, Remembered(str(number), b"reply", b"kept"))
    kept = [number for number in range(4) if memory.read("run", "model", None, number)]
    assert kept == [2, 3]
    memory.write("run", "model", "Hungary", 0, Remembered("fold", b"", b""))
    memory.write("run", "model", None, 0, Remembered("again", b"", b""))
    assert [number for number in range(4) if memory.read("run", "model", None, number)] == [0]
    last = memory.last("run", "model", None)
    assert last is not None
    assert last.digest == "again"
    assert memory.read("run", "model", "Hungary", 0) is not None
    memory.close()
    again = StoredMemory(tmp_path / "rounds.db")
    assert again.last("run", "model", None) == last
    again.close()


def test_a_write_that_fails_leaves_the_store_of_rounds_usable(tmp_path: Path) -> None:
    memory = StoredMemory(tmp_path / "rounds.db")
    with pytest.raises(sqlite3.Error):
        memory.write("run", "model", None, 0, Remembered(object(), b"", b""))  # type: ignore[arg-type]
    memory.write("run", "model", None, 0, Remembered("0", b"reply", b""))
    found = memory.read("run", "model", None, 0)
    assert found is not None
    assert found.reply == b"reply"
    memory.close()


def test_an_answer_that_was_computed_while_the_hospital_withdrew_does_not_leave(
    stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site: Site = stage.sites(tmp_path, "Cleveland")["Cleveland"]
    study = stage.study("attrition")
    permit_with(stage, site, study, visible_updates=True)
    runner = Runner(site, stage.methods)
    rows = runner.rows

    def withdrawing(*given: Any) -> Any:
        found = rows(*given)
        inbox.withdraw(site, study.hash)
        return found

    monkeypatch.setattr(runner, "rows", withdrawing)
    answer = Answer.from_bytes(runner.answer(ask(study)))
    assert (answer.kind, answer.error["code"]) == ("error", "permit-error")
    assert "left" not in [entry["event"] for entry in site.audit.entries()]
