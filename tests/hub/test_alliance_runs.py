"""Runs between four real hospitals: who is left out, who is waited for, and what a run never repeats."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dure.demo.oracle import cleaned
from dure.errors import PermitError, Refused, RunWaits, SiteFailed, SitePaused
from dure.federation.engine import Failure
from dure.federation.ledger import Outcome
from dure.federation.messages import Answer
from dure.federation.secure_sum.exchange import read_question
from dure.guard.keys import create_signer
from dure.guard.rules import RULES
from dure.hub import entry, studies
from dure.hub.runs import results, run_study
from dure.hub.study_run import StudyRun
from dure.site import inbox
from dure.study.packing import pack, unpack
from dure.study.permit import key_document

FIRST, LATER = 5, 3
"""Exchanges of the first masked sum of a run, which agrees keys, and of each later one."""
THREE = ("Cleveland", "Hungary", "VA Long Beach")


class Played:
    """One alliance run over a wire that keeps every message."""

    def __init__(self, stage: Any, folder: Path, alliance: Any) -> None:
        from_stage = type(stage).__init__.__globals__["Wire"]
        self.alliance, self.wire = alliance, from_stage(alliance.engine)

    def go(self) -> dict[str, Outcome]:
        run, outcomes = run_study(
            self.alliance.store, self.alliance.study.hash, self.wire, self.alliance.methods, name="run"
        )
        self.run = run
        return dict(outcomes)

    def errors(self, hospital: str) -> list[bytes]:
        """What a hospital replied beside the messages of sums."""
        return [reply for reply in self.wire.replied[hospital] if unpack(reply).get("kind") == "error"]

    def state(self) -> str:
        return studies.read(self.alliance.store, self.alliance.study.hash)[1]


def with_few_at_switzerland(stage: Any, folder: Path, people: int) -> Played:
    sites = stage.sites(folder)
    stage.keep(sites["Switzerland"], people)
    played = Played(stage, folder, stage.join(folder, sites, stage.study("attrition", "table_hospitals", "model")))
    played.outcomes = played.go()
    return played


@pytest.fixture(scope="module")
def three_people(stage: Any, tmp_path_factory: pytest.TempPathFactory) -> Played:
    return with_few_at_switzerland(stage, tmp_path_factory.mktemp("three"), 3)


@pytest.fixture(scope="module")
def seven_people(stage: Any, tmp_path_factory: pytest.TempPathFactory) -> Played:
    return with_few_at_switzerland(stage, tmp_path_factory.mktemp("seven"), 7)


def test_a_hospital_of_three_people_is_left_out_and_the_other_three_finish(three_people: Played) -> None:
    assert [outcome.status for outcome in three_people.outcomes.values()] == ["finished"] * 3
    assert three_people.run.taking_part == THREE
    refused = three_people.run.dropped["Switzerland"]
    assert isinstance(refused, Refused)
    assert refused.rule == "minimum_cohort"
    model = three_people.outcomes["model"].folds[None].working
    assert model is not None
    complete = cleaned().drop(columns="cholesterol").dropna()
    assert model.facts["n"] == int((complete["hospital"] != "Switzerland").sum())


def test_what_the_small_hospital_says_is_the_rule_and_the_way_out_and_nothing_else(three_people: Played) -> None:
    (reply,) = three_people.errors("Switzerland")
    rule = RULES["minimum_cohort"]
    assert unpack(reply) == {
        "hospital": "Switzerland",
        "kind": "error",
        "arrays": {},
        "rules": {},
        "result": b"",
        "error": {
            "code": "refused",
            "fields": {
                "rule": "minimum_cohort",
                "reason": {"en": rule.says.en, "ko": rule.says.ko},
                "way_out": {"en": rule.way_out.en, "ko": rule.way_out.ko},
                "place": "",
            },
        },
    }


def test_the_hub_cannot_tell_three_people_from_seven(stage: Any, three_people: Played, seven_people: Played) -> None:
    assert three_people.errors("Switzerland") == seven_people.errors("Switzerland")
    sizes = [[len(reply) for reply in played.wire.replied["Switzerland"]] for played in (three_people, seven_people)]
    assert sizes[0] == sizes[1]
    three, seven = (stage.entries(played.alliance.store) for played in (three_people, seven_people))
    assert three == seven
    assert len(three) == 7  # three steps, who was left out, whose sums were opened, and how many numbers were released


def test_the_count_stands_in_the_hospitals_own_log_and_nowhere_at_the_hub(three_people: Played) -> None:
    site = three_people.alliance.sites["Switzerland"]
    details = [entry["detail"] for entry in site.audit.entries() if entry["event"] == "refused"]
    assert details == ["cohort of 3"]
    hub = b"".join(path.read_bytes() for path in sorted(three_people.alliance.store.path.parent.iterdir()))
    sent = b"".join(three_people.wire.replied["Switzerland"])
    assert b"cohort of 3" not in hub + sent
    assert b"Switzerland" in hub


def test_every_hospital_left_out_by_the_first_step_stays_out_when_the_run_is_opened_again(
    stage: Any, tmp_path: Path
) -> None:
    sites = stage.sites(tmp_path)
    stage.keep(sites["Switzerland"], 3)
    played = Played(stage, tmp_path, stage.join(tmp_path, sites, stage.study("attrition", "table_hospitals")))
    played.wire.cut = {"Hungary"}  # the first round: one small, one unreachable
    first = played.go()
    assert {outcome.status for outcome in first.values()} == {"waiting"}
    played.wire.cut = set()
    assert {outcome.status for outcome in played.go().values()} == {"finished"}
    assert played.run.taking_part == THREE


# ── one hospital's numbers ──


def test_the_swiss_auroc_is_withheld_because_too_few_have_no_disease(stage: Any, tmp_path: Path) -> None:
    played = Played(stage, tmp_path, stage.alliance(tmp_path, "model", "validation"))
    released = played.go()["validation"].folds[None].released
    assert released is not None
    rows = {row["hospital"]: row for row in released.tables["auroc"].frame.to_dicts()}
    assert rows["Switzerland"]["auroc"] is None
    assert rows["Switzerland"]["n"] is None
    assert rows["Switzerland"]["reason"] == "withheld: fewer than 10 non-cases"
    assert all(0.5 < rows[name]["auroc"] < 1 for name in THREE)
    # The number did not leave the hospital either: under the masks its own row of the array is zero.
    memory = played.alliance.runners["Switzerland"].memory
    run = f"{played.alliance.study.hash} run"
    stored = [entry for round_ in range(9) if (entry := memory.read(run, "validation", None, round_))]
    last = next(reply for entry in stored if "auroc" in (reply := Answer.from_bytes(entry.reply)).arrays)
    place = list(played.alliance.sites).index("Switzerland")
    assert last.arrays["auroc"][place].tolist() == [0.0]
    assert last.arrays["auroc_variance"][place].tolist() == [0.0]
    assert last.arrays["non_cases"][place].tolist() == [0]


# ── waiting for a permission ──


def test_leave_one_out_waits_for_exactly_the_hospital_without_the_grant(stage: Any, tmp_path: Path) -> None:
    sites = stage.sites(tmp_path)
    grants = dict.fromkeys(sites, ("per_hospital", "difference")) | {"Hungary": ("per_hospital",)}
    study = stage.study("attrition", "model", "model_without", "validation_without")
    played = Played(stage, tmp_path, stage.join(tmp_path, sites, study, grants))
    outcomes = played.go()
    assert played.state() == "waiting"
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "attrition": "finished",
        "model": "finished",
        "model_without": "waiting",
        "validation_without": "skipped",
    }
    error = outcomes["model_without"].folds[None].error
    assert isinstance(error, RunWaits)
    assert (error.step, error.hospitals, error.grant) == ("model_without", ["Hungary"], "difference")
    assert all(word in error.text("en") for word in ("Hungary", "difference", "model_without"))
    assert all(word in error.text("ko") for word in ("Hungary", "difference", "model_without"))

    before = {place: entry for place, entry in stage.entries(played.alliance.store).items() if place[0]}
    asked = len(played.wire.asked["Cleveland"])
    stage.sign_again(played.alliance, "Hungary", ("per_hospital", "difference"))
    outcomes = played.go()
    assert played.state() == "release_review"
    assert {outcome.status for outcome in outcomes.values()} == {"finished"}
    after = stage.entries(played.alliance.store)
    assert {place: after[place] for place in before} == before
    assert {step for step, _ in before} == {"attrition", "model"}
    later = [unpack(message)["step"] for message in played.wire.asked["Cleveland"][asked:]]
    assert set(later) == {"model_without", "validation_without"}
    assert played.alliance.store.runs(played.alliance.study.hash) == ["run"]
    (shown,) = entry._status(played.alliance.store.path)
    assert shown["steps"] == dict.fromkeys(outcomes, "finished")


def test_the_run_still_waits_when_another_hospital_signs(stage: Any, tmp_path: Path) -> None:
    sites = stage.sites(tmp_path)
    grants = dict.fromkeys(sites, ("per_hospital",)) | {"Cleveland": ("per_hospital", "difference")}
    played = Played(stage, tmp_path, stage.join(tmp_path, sites, stage.study("model_without"), grants))
    played.go()
    stage.sign_again(played.alliance, "Hungary", ("per_hospital", "difference"))
    error = played.go()["model_without"].folds[None].error
    assert isinstance(error, RunWaits)
    assert error.hospitals == ["Switzerland", "VA Long Beach"]
    assert "Cleveland" not in played.wire.asked


def test_a_hospital_that_leaves_between_two_steps_is_not_shown_by_the_difference(stage: Any, tmp_path: Path) -> None:
    sites = stage.sites(tmp_path)
    grants = dict.fromkeys(sites, ("per_hospital",))
    played = Played(stage, tmp_path, stage.join(tmp_path, sites, stage.study("attrition", "model"), grants))
    played.wire.cut = {"Switzerland"}
    played.wire.engine = CutAfter(played.wire, played.alliance.engine, FIRST)
    assert {n: o.status for n, o in played.go().items()} == {"attrition": "finished", "model": "waiting"}
    studies.receive_permit(played.alliance.store, played.alliance.study.hash, "Switzerland", None)
    asked = len(played.wire.asked["Cleveland"])
    error = played.go()["model"].folds[None].error
    assert isinstance(error, RunWaits)
    assert (error.hospitals, error.grant) == (["Switzerland"], "difference")
    assert len(played.wire.asked["Cleveland"]) == asked


class CutAfter:
    """Cuts Switzerland's line after so many exchanges."""

    def __init__(self, wire: Any, engine: Any, exchanges: int) -> None:
        self.wire, self.engine, self.exchanges = wire, engine, exchanges
        wire.cut = set()

    def ask(self, messages: Any, timeout: float) -> Any:
        replies = self.engine.ask(messages, timeout)
        self.exchanges -= 1
        if self.exchanges <= 0:
            self.wire.cut = {"Switzerland"}
        return replies


# ── a hospital that does not answer ──


def test_an_unreachable_hospital_is_named_and_the_run_goes_on_from_its_last_round(stage: Any, tmp_path: Path) -> None:
    played = Played(stage, tmp_path, stage.alliance(tmp_path, "attrition", "model", "validation"))
    played.wire.engine = CutAfter(played.wire, played.alliance.engine, FIRST + 3 * LATER)
    outcomes = played.go()
    assert played.state() == "waiting"
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        "attrition": "finished",
        "model": "waiting",
        "validation": "skipped",
    }
    error = outcomes["model"].folds[None].error
    assert isinstance(error, SiteFailed)
    assert "Switzerland" in error.text("en")
    assert "the line is cut" in error.text("en")
    reached = outcomes["model"].folds[None].rounds
    assert reached == 3

    asked = len(played.wire.asked["Cleveland"])
    played.wire.cut, played.wire.engine = set(), played.alliance.engine
    outcomes = played.go()
    assert {outcome.status for outcome in outcomes.values()} == {"finished"}
    first = unpack(played.wire.asked["Cleveland"][asked])
    assert (first["step"], first["round"]) == ("model", reached)
    assert played.state() == "release_review"

    undisturbed = Played(stage, tmp_path / "other", stage.alliance(tmp_path / "other", *outcomes))
    undisturbed.go()
    found, expected = (answers(stage.entries(one.alliance.store)) for one in (played, undisturbed))
    assert found == expected


def answers(entries: dict[tuple[str, str], bytes]) -> dict[tuple[str, str], tuple[Any, ...]]:
    """What the ledger holds but for how often arrays left: a hospital that was asked again sent them again."""
    read = {place: unpack(entry) for place, entry in entries.items() if place[0]}
    return {
        place: (*(entry[name] for name in ("status", "round", "result", "hospitals")), {str(x) for x in entry["left"]})
        for place, entry in read.items()
    }


def test_of_two_errors_the_one_that_passes_is_kept_so_that_the_step_can_resume(stage: Any, tmp_path: Path) -> None:
    sites = stage.sites(tmp_path)
    stage.keep(sites["Cleveland"], 3)
    played = Played(stage, tmp_path, stage.join(tmp_path, sites, stage.study("attrition")))
    played.wire.cut = {"VA Long Beach"}
    error = played.go()["attrition"].folds[None].error
    assert isinstance(error, SiteFailed)
    assert error.fields["hospital"] == "VA Long Beach"


def test_an_answer_that_is_not_what_was_declared_is_thrown_away_and_asked_again(stage: Any, tmp_path: Path) -> None:
    played = Played(stage, tmp_path, stage.alliance(tmp_path, "attrition"))
    whole = played.alliance.engine

    class Garbled:
        def ask(self, messages: Any, timeout: float) -> Any:
            replies = dict(whole.ask(messages, timeout))
            return replies | {"Hungary": replies["Hungary"][:-7]}

    played.wire.engine = Garbled()
    outcome = played.go()["attrition"]
    error = outcome.folds[None].error
    assert outcome.status == "waiting"
    assert error is not None
    assert error.code() == "answer-broken"
    assert "Hungary" in error.text("en")
    played.wire.engine = whole
    assert played.go()["attrition"].status == "finished"


def test_a_hospital_cannot_answer_for_another(stage: Any, tmp_path: Path) -> None:
    played = Played(stage, tmp_path, stage.alliance(tmp_path, "attrition"))
    whole = played.alliance.engine

    class Swapped:
        def ask(self, messages: Any, timeout: float) -> Any:
            replies = dict(whole.ask(messages, timeout))
            return replies | {"Hungary": replies["Cleveland"]}

    played.wire.engine = Swapped()
    error = played.go()["attrition"].folds[None].error
    assert error is not None
    assert error.code() == "answer-broken"


# ── two hospitals ──


def test_two_hospitals_are_refused_unless_both_permit_their_own_numbers(stage: Any, tmp_path: Path) -> None:
    pair = ("Cleveland", "Hungary")
    for name, grants, status in (
        ("none", {"Cleveland": (), "Hungary": ()}, "refused"),
        ("one", {"Cleveland": ("per_hospital",), "Hungary": ()}, "refused"),
        ("both", dict.fromkeys(pair, ("per_hospital",)), "finished"),
    ):
        folder = tmp_path / name
        sites = stage.sites(folder, *pair)
        study = stage.study("model")
        short = {"formula": "disease ~ age + sex", "family": "binomial"}
        study = study.model_copy(update={"steps": (study.steps[0].model_copy(update={"parameters": short}),)})
        played = Played(stage, folder, stage.join(folder, sites, study, grants))
        fold = played.go()["model"].folds[None]
        assert fold.status == status, (name, fold.error)
        if status == "refused":
            assert isinstance(fold.error, Refused)
            assert fold.error.rule == "minimum_hospitals"
            assert played.wire.asked == {}


def test_a_run_does_not_start_on_a_permit_that_has_run_out(
    stage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = Played(stage, tmp_path, stage.alliance(tmp_path, "attrition"))
    later = datetime.now(UTC) + timedelta(days=366)

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return later

    monkeypatch.setattr(studies, "datetime", Later)
    with pytest.raises(PermitError, match="expired"):
        played.go()
    assert played.wire.asked == {}


@pytest.fixture
def lapsing(stage: Any, tmp_path: Path) -> Any:
    """All four have permitted the study; then Hungary's permit expires."""
    study = stage.study("attrition")
    alone = study.steps[0].model_copy(update={"name": "alone", "scope": "each", "parameters": {}})
    study = study.model_copy(update={"steps": (*study.steps, alone)})
    alliance = stage.join(tmp_path, stage.sites(tmp_path), study)
    site, short = alliance.sites["Hungary"], datetime.now(UTC) - timedelta(seconds=1)
    envelope = inbox.permit(site, study.hash, stage.methods, ("difference", "per_hospital"), short)
    alliance.store.put_permit(study.hash, "Hungary", envelope)
    return Played(stage, tmp_path, alliance)


def test_a_hospital_whose_permit_has_run_out_is_left_out_where_the_others_are_enough(lapsing: Any) -> None:
    told: list[tuple[str, str]] = []
    store, hash_, methods = lapsing.alliance.store, lapsing.alliance.study.hash, lapsing.alliance.methods

    def progress(event: str, details: Any) -> None:
        if event == "dropped":
            told.append((details["hospital"], details["error"].code()))

    run, outcomes = run_study(store, hash_, lapsing.wire, methods, progress=progress)
    assert [outcome.status for outcome in outcomes.values()] == ["finished", "finished"]
    assert run.hospitals == ("Cleveland", "Switzerland", "VA Long Beach")
    assert "Hungary" not in lapsing.wire.asked
    assert told == [("Hungary", "permit-error")]
    again = results(store, hash_, methods)  # nor does it wait for Hungary when they are read
    assert [set(outcome.folds) for outcome in again.values()] == [{None}, set(run.hospitals)]


def test_a_hospital_that_joined_again_with_another_key_does_not_stop_the_others(lapsing: Any, tmp_path: Path) -> None:
    """Until it signs again: the permit that lies here was signed with the key that was revoked."""
    store, hash_ = lapsing.alliance.store, lapsing.alliance.study.hash
    store.replace_member("Hungary", key_document(create_signer(tmp_path / "new.pem").public_key), "")
    assert set(studies.permits(store, hash_)) == {"Cleveland", "Switzerland", "VA Long Beach"}
    assert "signature" in str(studies.lapsed(store, hash_)["Hungary"])


def test_a_permit_that_comes_when_the_sums_have_begun_stops_nobody(lapsing: Any, stage: Any) -> None:
    """The study's sums have members: whoever signs again later is in none of them."""
    real, cut = lapsing.wire.ask, True

    def ask(messages: Any, timeout: float) -> Any:
        alone = any(getattr(read_question(message), "alone", False) for message in messages.values())
        return {name: Failure("cut") for name in messages} if alone and cut else real(messages, timeout)

    lapsing.wire.ask = ask
    assert lapsing.go()["attrition"].status == "finished"
    stage.sign_again(lapsing.alliance, "Hungary", ("difference", "per_hospital"))
    cut = False
    outcomes = lapsing.go()
    assert {outcome.status for outcome in outcomes.values()} == {"finished"}
    assert lapsing.run.hospitals == ("Cleveland", "Switzerland", "VA Long Beach")
    again = results(lapsing.alliance.store, lapsing.alliance.study.hash, lapsing.alliance.methods)
    assert set(again["alone"].folds) == set(lapsing.run.hospitals)


def test_a_permit_that_runs_out_after_a_sum_with_its_hospital_is_waited_for(
    stage: Any, lapsing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sum without it beside the one with it would show its part."""
    store = lapsing.alliance.store
    everybody = tuple(sorted(lapsing.alliance.sites))
    store.ledger("run").write("", "opened", pack([list(everybody)]))
    waiting = lapsing.go()["attrition"].folds[None].error
    assert isinstance(waiting, PermitError)
    assert "'Hungary'" in waiting.text("en")
    assert "expired" in waiting.text("en")
    assert lapsing.wire.asked.keys() == set(everybody) - {"Hungary"}  # each its own, in the second step
    stage.sign_again(lapsing.alliance, "Hungary", ("difference", "per_hospital"))
    assert {outcome.status for outcome in lapsing.go().values()} == {"finished"}
    assert set(lapsing.run.outcomes["alone"].folds) == set(everybody)


def test_every_hospital_that_is_left_out_is_told_once() -> None:
    told: list[str] = []
    office = SimpleNamespace(tell=lambda hash_, event, **said: told.append(f"{event}: {said['hospital']}"))
    run = StudyRun(office, "sha256:" + "0" * 64)  # type: ignore[arg-type]
    for name in ("Cleveland", "Hungary", "Cleveland"):
        run._progress("dropped", {"hospital": name, "error": SitePaused(hospital=name)})
    assert told == ["left out: Cleveland", "left out: Hungary"]


def test_results_are_read_again_from_the_ledger_without_asking_or_writing(stage: Any, tmp_path: Path) -> None:
    played = Played(stage, tmp_path, stage.alliance(tmp_path, "attrition", "model"))
    outcomes = played.go()
    before, asked = stage.entries(played.alliance.store), len(played.wire.asked["Cleveland"])
    again = results(played.alliance.store, played.alliance.study.hash, played.alliance.methods, name="run")
    for name, outcome in outcomes.items():
        first, second = outcome.folds[None].released, again[name].folds[None].released
        assert first is not None
        assert second is not None
        assert {t: v.frame.to_dicts() for t, v in first.tables.items()} == {
            t: v.frame.to_dicts() for t, v in second.tables.items()
        }
        assert again[name].left == outcome.left
    assert stage.entries(played.alliance.store) == before
    assert len(played.wire.asked["Cleveland"]) == asked


def test_reading_results_of_a_run_that_never_was_starts_none(stage: Any, tmp_path: Path) -> None:
    played = Played(stage, tmp_path, stage.alliance(tmp_path, "attrition"))
    found = results(played.alliance.store, played.alliance.study.hash, played.alliance.methods, name="other")
    assert found["attrition"].status == "waiting"
    assert stage.entries(played.alliance.store) == {}
    assert played.state() == "permitted"
