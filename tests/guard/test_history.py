"""History: cohorts that differ by a few people are refused, equal questions get equal answers, and too many end."""

from __future__ import annotations

import sqlite3
import stat
import time
import types
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dure.errors import NotPermitted, Refused
from dure.federation.answer import Told
from dure.federation.messages import Answer, Ask, error_from
from dure.federation.plan import plan_of
from dure.guard import history as rules
from dure.guard.permissions import Actor
from dure.guard.rules import DEFAULT
from dure.hub.runs import results
from dure.site import history as store
from dure.site import inbox
from dure.site.history import HistoryStore, StudyHistory, unlock
from dure.study.method import installed_methods
from dure.study.permit import Permit
from dure.study.rows import Rows

TABLE = {"name": "table", "method": "table_one", "parameters": {"variables": ["sex"]}}
MODEL = {"name": "model", "method": "regression", "parameters": {"formula": "secret ~ pressure", "family": "binomial"}}
SCORE = {
    "name": "score",
    "method": "propensity",
    "parameters": {"treatment": "secret", "formula": "pressure + C(sex)"},
}
WEIGHTED = {
    "name": "weighted",
    "method": "weighting",
    "parameters": {"treatment": "secret", "score": "score.score", "balance": ["pressure"]},
    "uses": ["score"],
}


@pytest.fixture
def hospital(made: types.ModuleType, tmp_path: Path) -> Any:
    return made.Hospital(tmp_path, "one", 200)


def rule(answer: Answer) -> str:
    return str(answer.error["fields"]["rule"]) if answer.kind == "error" else ""


def events(hospital: Any, event: str) -> list[dict[str, Any]]:
    return [entry for entry in hospital.site.audit.entries() if entry["event"] == event]


# ── arithmetic ──

IDS = st.sets(st.integers(-(2**62), 2**62) | st.integers(0, 40), max_size=60)


def people(ids: set[int]) -> rules.People:
    return rules.people_of(np.array(sorted(ids), dtype=np.int64))


@given(IDS, IDS)
def test_the_difference_is_that_of_sets(one: set[int], other: set[int]) -> None:
    assert rules.difference(people(one), people(other)) == len(one ^ other)


@given(IDS)
def test_people_are_kept_exactly(ids: set[int]) -> None:
    assert rules.unpacked(rules.packed(people(ids))).tolist() == sorted(ids)


def test_a_million_people_are_compared_within_a_second(tmp_path: Path, made: types.ModuleType) -> None:
    ids = np.arange(3_000_000, dtype=np.int64)[np.random.default_rng(1).random(3_000_000) < 1 / 3]
    asked = made.study()
    history = _history(tmp_path, asked)
    ask = Ask("run", asked.hash, "count", 0, ("a", "b", "c"))
    first = _rows(ids)
    history.check(ask, first)
    history.record(ask, b"", first, Told(b"", b"", []))
    second = _rows(ids[5:])
    began = time.process_time()  # not the clock: other tests run beside this one
    with pytest.raises(Refused):
        history.check(ask, second)
    assert time.process_time() - began < 1
    assert (tmp_path / "history.db").stat().st_size < 4 * 2**20


# ── cohorts ──


@pytest.mark.parametrize(("out", "said"), [(1, "history_overlap"), (9, "history_overlap"), (10, ""), (40, "")])
def test_cohorts_that_differ_by_one_to_nine_people_are_refused(
    made: types.ModuleType, hospital: Any, out: int, said: str
) -> None:
    assert hospital.answer(made.study()).kind == "summary"
    assert rule(hospital.answer(made.study(made.without(*range(1, out + 1))))) == said


def test_people_who_come_and_others_who_go_are_counted_together(made: types.ModuleType, hospital: Any) -> None:
    """Equal in number, six people exchanged."""
    assert hospital.answer(made.study(made.without(1, 2, 3))).kind == "summary"
    assert rule(hospital.answer(made.study(made.without(4, 5, 6)))) == "history_overlap"


def test_a_cohort_that_only_reads_differently_is_the_same(made: types.ModuleType, hospital: Any) -> None:
    assert hospital.answer(made.study()).kind == "summary"
    everybody = {"name": made.WORDS, "age": {"at_least": 0}}
    assert hospital.answer(made.study(everybody)).kind == "summary"


def test_how_many_differ_and_from_which_study_stays_at_the_hospital(made: types.ModuleType, hospital: Any) -> None:
    first = made.study()
    hospital.answer(first)
    reply = hospital.answer(made.study(made.without(1, 2, 3)))
    error = error_from(reply.error)
    for text in (error.text("en"), error.text("ko"), repr(reply.error)):
        assert "3" not in text
        assert first.hash not in text
    detail = events(hospital, "refused")[0]["detail"]
    assert "differs by 3 people" in detail
    assert first.hash in detail


def test_an_answer_that_never_left_leaves_no_history(made: types.ModuleType, hospital: Any) -> None:
    refused = hospital.answer(made.study(), hospitals=("one", "x"))
    assert rule(refused) == "minimum_hospitals"
    small = made.study(made.without(*range(1, 196)))
    assert rule(hospital.answer(small)) == "minimum_cohort"
    assert hospital.answer(made.study(made.without(1))).kind == "summary"


def test_a_hospital_may_ask_for_more_people_between_cohorts(made: types.ModuleType, hospital: Any) -> None:
    hospital.settings(limits={"minimum_difference": 50})
    hospital.answer(made.study())
    assert rule(hospital.answer(made.study(made.without(*range(1, 41))))) == "history_overlap"


def test_of_two_studies_at_the_same_moment_one_is_refused(made: types.ModuleType, tmp_path: Path) -> None:
    """Both were compared before either left."""
    one, other = (_history(tmp_path, made.study(title=title)) for title in ("one", "other"))
    asks = [Ask("run", found.study.hash, "count", 0, ("a", "b", "c")) for found in (one, other)]
    rows = [_rows(np.arange(100)), _rows(np.arange(99))]
    for history, ask, found in zip((one, other), asks, rows):
        history.check(ask, found)
    one.record(asks[0], b"", rows[0], Told(b"1", b"", []))
    with pytest.raises(Refused):
        other.record(asks[1], b"", rows[1], Told(b"2", b"", []))
    assert len(other.store.rows("SELECT * FROM cohort")) == 1


def test_the_file_is_for_its_owner_only(made: types.ModuleType, hospital: Any) -> None:
    hospital.answer(made.study())
    for path in hospital.site.folder.glob("history.db*"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name


# ── the database was refreshed ──


def without_first(hospital: Any, count: int) -> None:
    there = np.ones(len(hospital.people), dtype=bool)
    there[:count] = False
    hospital.write(there)


def test_after_a_refresh_by_three_people_only_the_old_answer_leaves(made: types.ModuleType, hospital: Any) -> None:
    first = hospital.answer(made.study())
    without_first(hospital, 3)
    again = hospital.answer(made.study(title="again"))
    assert np.array_equal(again.arrays["persons"], first.arrays["persons"])
    assert rule(hospital.answer(made.study(steps=[TABLE]))) == "history_overlap"


def test_after_a_refresh_by_twelve_people_a_new_question_is_answered(made: types.ModuleType, hospital: Any) -> None:
    hospital.answer(made.study())
    without_first(hospital, 12)
    assert hospital.answer(made.study(steps=[TABLE])).kind == "summary"


def test_rounds_about_other_people_are_not_mixed(made: types.ModuleType, hospital: Any) -> None:
    """The first round was answered from history, about people of whom twelve are gone."""
    model = made.study(steps=[MODEL])
    first = hospital.answer(model)
    without_first(hospital, 12)
    again = made.study(steps=[MODEL], title="again")
    assert hospital.answer(again).to_bytes() == first.to_bytes()
    later = hospital.answer(again, round=1, state={"any": 1.0})
    assert rule(later) == "history_overlap"
    assert "other people" in events(hospital, "refused")[-1]["detail"]


# ── equivalent questions ──


def test_an_equivalent_question_gets_the_stored_answer(made: types.ModuleType, hospital: Any) -> None:
    first = hospital.answer(made.study())
    hospital.site.database.unlink()
    hospital.restart()
    again = hospital.answer(made.study(title="another title"), run="another run")
    assert again.to_bytes() == first.to_bytes()
    left = events(hospital, "left")
    assert "answered_from" not in left[0]
    assert left[1]["answered_from"] == "history"
    assert left[1]["arrays"] == left[0]["arrays"]


def test_names_of_criteria_and_labels_do_not_make_another_question(made: types.ModuleType, hospital: Any) -> None:
    first = hospital.answer(made.study(made.without(1)))
    named = made.without(1) | {"name": {"en": "other", "ko": "다른"}}
    hospital.site.database.unlink()
    hospital.restart()
    assert hospital.answer(made.study(named)).to_bytes() == first.to_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"hospitals": ("one", "x", "z")},
        {"round": 1},
        {"state": {"beta": [0.0]}},
    ],
    ids=["hospitals", "round", "state"],
)
def test_another_question_is_computed(made: types.ModuleType, hospital: Any, changes: dict[str, Any]) -> None:
    hospital.answer(made.study())
    assert hospital.answer(made.study(title="again"), **changes).kind == "summary"
    assert "answered_from" not in events(hospital, "left")[-1]


def test_what_one_study_may_see_is_not_given_to_one_that_may_not(made: types.ModuleType, hospital: Any) -> None:
    step = {"name": "count", "method": "feasibility", "parameters": {"by_hospital": True}}
    first = made.study(steps=[step])
    hospital.receive(first, grants=("per_hospital",))
    assert hospital.answer(first).kind == "summary"
    assert rule(hospital.answer(made.study(steps=[step], title="again"))) == "per_hospital_permit"


def test_a_whole_study_is_repeated_from_history(made: types.ModuleType, tmp_path: Path) -> None:
    """Rounds, what is kept between them, derived columns: the databases are gone when it is asked again."""
    alliance = made.Alliance(tmp_path, [150] * 3)
    steps = [made.COUNT, MODEL, SCORE, WEIGHTED]
    _, first = alliance.ask(made.study(steps=steps))
    assert {name: outcome.status for name, outcome in first.items()} == dict.fromkeys(
        ("count", "model", "score", "weighted"), "finished"
    )
    for hospital in alliance.hospitals.values():
        hospital.site.database.unlink()
        hospital.restart()
    _, again = alliance.ask(made.study(steps=steps, title="again"))
    for name in ("model", "weighted"):
        one, other = (found[name].folds[None].released.tables for found in (first, again))
        assert one.keys() == other.keys()
        assert all(one[table].frame.equals(other[table].frame, null_equal=True) for table in one)


def test_an_answer_too_large_to_keep_leaves_again_only_if_it_is_the_same(
    made: types.ModuleType, hospital: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_BYTES", 10)
    first = hospital.answer(made.study())
    assert hospital.answer(made.study(title="again")).to_bytes() == first.to_bytes()
    hospital.secret[3] = not hospital.secret[3]
    hospital.write(np.ones(200, dtype=bool))  # the same people, one of them with another diagnosis
    assert rule(hospital.answer(made.study(title="after"))) == "history_overlap"
    assert "another answer" in events(hospital, "refused")[-1]["detail"]


def test_a_hospital_that_dies_as_an_answer_leaves_gives_the_same_one_again(
    made: types.ModuleType, hospital: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        # The first write says that a round was asked; it dies at the one that holds the answer.
        broken.setattr("dure.site.memory.StoredMemory.write", lambda *given: given[-1].reply and 1 / 0)
        assert hospital.answer(made.study()).error["code"] == "unexpected"
    hospital.site.database.unlink()
    hospital.restart()
    assert hospital.answer(made.study()).kind == "summary"
    assert events(hospital, "left")[-1]["answered_from"] == "history"


# ── numbers released of the same people ──


def test_numbers_of_earlier_studies_about_the_same_people_count(made: types.ModuleType, tmp_path: Path) -> None:
    """A hundred and twenty people: 39 numbers, whoever asks, and under whatever title."""
    alliance = made.Alliance(tmp_path, [40] * 3, tags=9)
    variables = {
        f"tag{tag}": {"label": made.WORDS, "present": {"domain": "observation", "concepts": [made.TAG + tag]}}
        for tag in range(9)
    }

    def asked(*tags: int, criteria: tuple[Any, ...] = ()) -> Any:
        names = [f"tag{tag}" for tag in tags]
        step = {"name": "counts", "method": "feasibility", "parameters": {"by": ["secret", *names]}}
        return made.study(*criteria, steps=[step], variables={name: variables[name] for name in names})

    first, second = asked(*range(9)), asked(*range(8, -1, -1))  # 21 numbers each
    assert alliance.ask(first, "one")[1]["counts"].status == "finished"
    _, refused = alliance.ask(second, "two")
    assert refused["counts"].folds[None].error.rule == "numbers_per_person"
    few = asked(0, 1, criteria=({"name": made.WORDS, "sex": [made.FEMALE]},))
    assert alliance.ask(few, "three")[1]["counts"].status == "finished"  # other people
    # what is released later changes nothing about what was released before
    again = results(alliance.store, first.hash, installed_methods())
    assert again["counts"].status == "finished"
    assert results(alliance.store, second.hash, installed_methods())["counts"].status == "refused"


# ── lockout ──


def test_after_seven_similar_studies_a_proposer_is_locked_out_and_nobody_else(
    made: types.ModuleType, hospital: Any
) -> None:
    hospital.answer(made.study(), "first")
    for number in range(7):
        assert hospital.answer(made.study(title=f"again {number}"), "curious").kind == "summary", number
    assert rule(hospital.answer(made.study(made.tagged(0), title="something else"), "curious")) == "lockout"
    assert hospital.answer(made.study(title="again 6"), "curious", run="its own").kind == "summary"
    assert hospital.answer(made.study(title="mine"), "somebody else").kind == "summary"


def test_refused_cohorts_and_cohorts_that_are_nearly_the_same_count_too(made: types.ModuleType, tmp_path: Path) -> None:
    hospital = made.Hospital(tmp_path, "large", 1000)
    assert hospital.answer(made.study(), "curious").kind == "summary"
    for number in range(4):
        assert rule(hospital.answer(made.study(made.without(number + 1)), "curious")) == "history_overlap"
    for number in range(3):
        out = range(100 + 20 * number, 115 + 20 * number)  # 15 of 1000 people: allowed, and alike
        assert hospital.answer(made.study(made.without(*out)), "curious").kind == "summary"
    assert rule(hospital.answer(made.study(made.without(*range(1, 400))), "curious")) == "lockout"


def test_many_rounds_and_steps_of_one_study_are_one_question(made: types.ModuleType, tmp_path: Path) -> None:
    alliance = made.Alliance(tmp_path, [150] * 3)
    steps = [made.COUNT, MODEL, TABLE]
    alliance.ask(made.study(steps=steps), "first")
    _, again = alliance.ask(made.study(steps=steps, title="again"), "second")
    assert {outcome.status for outcome in again.values()} == {"finished"}
    found = alliance.hospitals["h0"].runner.history.rows("SELECT proposer FROM alike")
    assert found == [("second",)]


def test_the_board_lifts_a_lockout_and_others_may_not(made: types.ModuleType, hospital: Any) -> None:
    hospital.settings(limits={"similar_questions": 1})
    hospital.answer(made.study(), "curious")
    hospital.answer(made.study(title="again"), "curious")
    after = made.study(title="after")
    assert rule(hospital.answer(after, "curious")) == "lockout"
    assert [name for name, _ in hospital.runner.history.locked_out()] == ["curious"]
    with pytest.raises(NotPermitted):
        unlock(hospital.site, "curious", Actor("Kim", "steward", "one"))
    assert unlock(hospital.site, "curious", Actor("Lee", "drb", "one"))
    assert not unlock(hospital.site, "curious")
    assert hospital.answer(after, "curious").kind == "summary"
    assert [entry["proposer"] for entry in events(hospital, "unlocked")] == ["curious"]


def test_similar_questions_of_long_ago_do_not_count(tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    remembered = HistoryStore(tmp_path / "history.db", lambda: now)
    for number in range(6):
        remembered.note_alike("curious", f"study {number}", "", DEFAULT)
    now += timedelta(days=31)
    for number in range(6, 12):
        remembered.note_alike("curious", f"study {number}", "", DEFAULT)
    assert not remembered.locked("curious", "another")
    remembered.note_alike("curious", "study 12", "", DEFAULT)
    assert remembered.locked("curious", "another")


def test_the_proposer_is_whom_the_hub_named(made: types.ModuleType, hospital: Any) -> None:
    asked = made.study()
    inbox.receive(hospital.site, asked)
    assert inbox.proposer(hospital.site, asked.hash) == ""
    hospital.receive(asked, "Kim")
    assert inbox.proposer(hospital.site, asked.hash) == "Kim"


def test_a_write_that_fails_leaves_the_store_usable(tmp_path: Path) -> None:
    remembered = HistoryStore(tmp_path / "history.db")

    def write() -> None:
        with remembered.transaction() as connection:
            connection.execute("INSERT INTO cohort (digest, people, ids) VALUES ('a', 1, x'00')")
            connection.execute("INSERT INTO nothing VALUES (1)")

    with pytest.raises(sqlite3.Error):
        write()
    assert remembered.rows("SELECT * FROM cohort") == []
    remembered.close()


def _rows(ids: np.ndarray) -> Rows:
    import polars as pl

    return Rows(pl.DataFrame({"x": np.zeros(len(ids))}), "a", {}, (len(ids),), ids.astype(np.int64))


def _history(folder: Path, asked: Any) -> StudyHistory:
    now = datetime.now(UTC)
    permit = Permit(study=asked.hash, hospital="a", methods={}, issued=now, expires=now + timedelta(days=1))
    plan = plan_of(asked, installed_methods())
    return StudyHistory(HistoryStore(folder / "history.db"), asked, plan, permit, DEFAULT, "somebody")
