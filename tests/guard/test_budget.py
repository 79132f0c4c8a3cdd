"""Open questions: noise of the stated distribution, a budget that adds up and ends, and no board on the way."""

from __future__ import annotations

import sys
import types
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("opendp", reason="open questions need the extra 'budget'")

from dure.errors import InvalidDocument, MissingPackage, Refused
from dure.federation.messages import error_from
from dure.guard.budget import check_budget, loss, measurement, with_noise
from dure.guard.rules import RULES
from dure.hub import studies
from dure.site import inbox, open_feasibility
from dure.site.history import HistoryStore
from dure.site.open_feasibility import OpenNoise
from dure.site.settings import OpenFeasibility
from dure.study.method import Question, installed_methods
from dure.study.rows import Column
from dure.study.spec import Study

TWO = {"name": "two", "method": "feasibility", "parameters": {}}
OFFERED = {"epsilon_per_study": 1.0, "epsilon_per_month": 2.0}


@pytest.fixture
def alliance(made: types.ModuleType, tmp_path: Path) -> Any:
    found = made.Alliance(tmp_path, [200, 200, 200])
    for hospital in found.hospitals.values():
        hospital.settings(open_feasibility=OFFERED)
    return found


def ask(alliance: Any, asked: Any, proposer: str = "somebody") -> dict[str, Any]:
    """The study arrives at the hospitals, which sign by themselves; then it runs."""
    studies.submit(alliance.store, asked, installed_methods(), proposer)
    for name, hospital in alliance.hospitals.items():
        hospital.arrive(asked, proposer)
        assert open_feasibility.admit(hospital.site, asked, installed_methods())
        studies.receive_permit(alliance.store, asked.hash, name, inbox.own_permit(hospital.site, asked.hash))
    return dict(alliance.run(asked)[1])


def working(outcome: Any, table: str = "attrition", column: str = "persons") -> list[int]:
    return list(outcome.folds[None].working.tables[table].frame[column])


# ── noise ──


@pytest.mark.parametrize(("sensitivity", "epsilon"), [(1, 1.0), (3, 0.5), (5, 0.25)])
def test_noise_is_discrete_laplace_of_the_stated_scale(sensitivity: int, epsilon: float) -> None:
    """χ² against P(k) = (1−a)/(1+a)·a^|k| with a = exp(−ε/Δ), on 40,000 draws. (OpenDP's randomness is the system's, so
    one run in 10,000 may fail.)"""
    draws = with_noise({"n": np.zeros(40_000, dtype=np.int64)}, sensitivity, epsilon)["n"]
    assert draws.dtype == np.int64
    a = np.exp(-epsilon / sensitivity)
    most = int(np.ceil(3 * sensitivity / epsilon))
    k = np.arange(-most, most + 1)
    inside = (1 - a) / (1 + a) * a ** np.abs(k)
    tail = (1 - inside.sum()) / 2
    expected = np.concatenate([[tail], inside, [tail]]) * len(draws)
    seen = np.bincount(np.clip(draws, -most - 1, most + 1) + most + 1, minlength=len(expected))
    assert stats.chisquare(seen, expected).pvalue > 1e-4


def test_every_count_has_noise_of_its_own_and_keeps_its_shape() -> None:
    counts = {"a": np.full((30, 40), 1000), "b": np.array(7)}
    noisy = with_noise(counts, 1, 0.5)
    assert {name: values.shape for name, values in noisy.items()} == {"a": (30, 40), "b": ()}
    assert len(np.unique(noisy["a"])) > 5
    assert counts["a"].min() == counts["a"].max() == 1000


def test_the_charge_is_what_opendp_proves() -> None:
    for sensitivity, epsilon in ((1, 0.1), (3, 1 / 3), (7, 1.0)):
        assert loss(sensitivity, epsilon) <= epsilon
        assert loss(sensitivity, epsilon) == pytest.approx(epsilon, abs=1e-9)
        assert measurement(sensitivity, epsilon).map(2 * sensitivity) == pytest.approx(2 * epsilon)


def test_losses_add_up_as_in_opendps_own_odometer() -> None:
    import opendp.prelude as dp

    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64")
    odometer = dp.c.make_fully_adaptive_composition(*space, dp.max_divergence())([10, 20, 30])
    asked = [(3, 0.5), (3, 0.25), (3, 0.125)]
    for sensitivity, epsilon in asked:
        odometer(measurement(sensitivity, epsilon))
    assert odometer.privacy_loss(3) == pytest.approx(sum(loss(*each) for each in asked))


def test_one_person_changes_one_cell_of_every_table_and_every_line_of_the_attrition() -> None:
    feasibility = installed_methods()["feasibility"]
    columns = {"sex": Column("category", ("f", "m")), "ill": Column("flag", ("0", "1"))}
    parameters = feasibility.parameters.model_validate({"by": ["sex", "ill"], "crossed": [["sex", "ill"]]})
    question = Question(parameters, columns, ("a", "b", "c"), criteria=tuple(RULES["budget"].says for _ in range(4)))
    assert feasibility.sensitivity(question) == 4 + 2 + 1  # type: ignore[attr-defined]


# ── budget ──


def test_a_budget_ends_where_it_ends() -> None:
    check_budget([0.1] * 9, 0.1, 1.0, "study")
    with pytest.raises(Refused) as caught:
        check_budget([0.1] * 9, 0.11, 1.0, "study")
    assert caught.value.rule == "budget"
    assert "1.01" in caught.value.detail
    assert "1.01" not in caught.value.text("en")


def test_the_month_of_a_proposer_ends_and_begins_again(made: types.ModuleType, tmp_path: Path) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    store = HistoryStore(tmp_path / "history.db", lambda: now)
    feasibility = installed_methods()["feasibility"]
    question = Question(feasibility.parameters(), {}, ("a", "b", "c"))

    def asks(number: int, proposer: str = "curious") -> None:
        asked = made.study(title=str(number), steps=[TWO], open={"epsilon": 1.0})
        noise = OpenNoise(store, asked, proposer, OpenFeasibility(), installed_methods())
        noise({"persons": np.array([100])}, question)
        with store.transaction() as connection:
            noise.charge(connection)

    asks(1)
    asks(2)
    with pytest.raises(Refused, match="budget"):
        asks(3)
    asks(3, "somebody else")
    now += timedelta(days=31)
    asks(3)
    assert [epsilon for (epsilon,) in store.rows("SELECT epsilon FROM charge")] == [1.0] * 4


# ── a study from its arrival to its release ──


def test_an_open_question_is_answered_without_a_board_and_with_noise(made: types.ModuleType, alliance: Any) -> None:
    outcomes = ask(alliance, made.study(open={"epsilon": 1.0}, steps=[made.COUNT, TWO]))
    assert {outcome.status for outcome in outcomes.values()} == {"finished"}
    released = outcomes["two"].folds[None].released.tables["attrition"].frame["persons"]
    assert all(value % 5 == 0 for value in released)
    for hospital in alliance.hospitals.values():
        permitted = next(entry for entry in hospital.site.audit.entries() if entry["event"] == "permitted")
        assert permitted["open"] == 1.0
        spent = hospital.runner.history.rows("SELECT epsilon FROM charge")
        assert sum(epsilon for (epsilon,) in spent) == pytest.approx(1.0)


def test_the_noise_is_there_before_anything_leaves(made: types.ModuleType, tmp_path: Path) -> None:
    hospital = made.Hospital(tmp_path, "one", 200)
    hospital.settings(open_feasibility={"epsilon_per_study": 1.0, "epsilon_per_month": 1000.0})
    seen = []
    for number in range(30):
        asked = made.study(title=str(number), steps=[TWO], open={"epsilon": 1.0 - number / 1000})
        hospital.arrive(asked, f"proposer {number}")
        assert open_feasibility.admit(hospital.site, asked, installed_methods())
        seen.append(int(hospital.answer(asked, f"proposer {number}").arrays["persons"][0]))
    assert len(set(seen)) > 1
    assert abs(np.mean(seen) - 200) < 2  # sd of one draw 1.3, of the mean 0.24


def test_asking_again_gets_the_same_noise_and_costs_nothing(made: types.ModuleType, alliance: Any) -> None:
    first = ask(alliance, made.study(open={"epsilon": 0.5}))
    for number in range(4):
        again = ask(alliance, made.study(open={"epsilon": 0.5}, title=f"again {number}"))
        assert working(again["count"]) == working(first["count"])
        assert working(again["count"], "by_secret", "n") == working(first["count"], "by_secret", "n")
    for hospital in alliance.hospitals.values():
        assert hospital.runner.history.rows("SELECT sum(epsilon) FROM charge") == [(pytest.approx(0.5),)]


def test_beyond_the_budget_a_hospital_refuses_by_name(made: types.ModuleType, alliance: Any) -> None:
    for number in range(2):
        asked = made.study(made.without(number + 1), open={"epsilon": 1.0}, steps=[TWO])
        assert ask(alliance, asked)["two"].status == "finished"
    outcomes = ask(alliance, made.study(made.without(9), open={"epsilon": 0.1}, steps=[TWO]))
    error = outcomes["two"].folds[None].error
    assert isinstance(error, Refused)
    assert error.rule == "budget"
    other = ask(alliance, made.study(made.without(9), open={"epsilon": 0.2}, steps=[TWO]), "somebody else")
    assert other["two"].status == "finished"


def test_an_answer_that_never_left_costs_nothing(
    made: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital = made.Hospital(tmp_path, "one", 200)
    hospital.settings(open_feasibility=OFFERED)
    asked = made.study(open={"epsilon": 1.0}, steps=[TWO])
    hospital.arrive(asked)
    assert open_feasibility.admit(hospital.site, asked, installed_methods())
    with monkeypatch.context() as broken:
        broken.setattr("dure.federation.answer.gate.check", lambda *given: 1 / 0)  # dies between noise and answer
        assert hospital.answer(asked).error["code"] == "unexpected"
    assert hospital.runner.history.rows("SELECT * FROM charge") == []
    assert hospital.answer(asked).kind == "summary"


def test_a_small_cohort_is_not_told_by_a_refusal(made: types.ModuleType, tmp_path: Path) -> None:
    """Three people: a study that boards have read is refused, which tells that they are few; noise tells nothing."""
    hospital = made.Hospital(tmp_path, "one", 200)
    hospital.settings(open_feasibility=OFFERED)
    three = made.without(*range(4, 201))
    assert hospital.answer(made.study(three, steps=[TWO])).error["fields"]["rule"] == "minimum_cohort"
    for criteria in ([three], [three, made.without(1)]):  # nor are cohorts compared
        asked = made.study(*criteria, steps=[TWO], open={"epsilon": 0.5})
        hospital.arrive(asked)
        assert open_feasibility.admit(hospital.site, asked, installed_methods())
        assert hospital.answer(asked).kind == "summary"


def test_open_questions_may_release_fewer_numbers(made: types.ModuleType, tmp_path: Path) -> None:
    """Two hundred people: twenty numbers of an open question, sixty-six of one that boards have read."""
    alliance = made.Alliance(tmp_path, [70, 70, 60], tags=12)
    for hospital in alliance.hospitals.values():
        hospital.settings(open_feasibility=OFFERED)
    names = [f"tag{tag}" for tag in range(12)]
    variables = {
        name: {"label": made.WORDS, "present": {"domain": "observation", "concepts": [made.TAG + tag]}}
        for tag, name in enumerate(names)
    }
    step = {"name": "many", "method": "feasibility", "parameters": {"by": names}}
    asked = {"steps": [step], "variables": variables}
    assert alliance.ask(made.study(**asked))[1]["many"].status == "finished"
    found = ask(alliance, made.study(**asked, open={"epsilon": 1.0}))["many"].folds[None]
    assert (found.status, found.error.rule) == ("refused", "numbers_per_person")


# ── who offers it, and what can be asked ──


@pytest.mark.parametrize("offered", [None, {"epsilon_per_study": 0.2}], ids=["not-offered", "less-offered"])
def test_a_hospital_that_does_not_offer_it_leaves_it_to_its_boards(
    made: types.ModuleType, tmp_path: Path, offered: dict[str, float] | None
) -> None:
    hospital = made.Hospital(tmp_path, "one", 200)
    if offered:
        hospital.settings(open_feasibility=offered)
    asked = made.study(open={"epsilon": 0.5}, steps=[TWO])
    hospital.arrive(asked)
    assert not open_feasibility.admit(hospital.site, asked, installed_methods())
    assert inbox.own_permit(hospital.site, asked.hash) is None
    assert [found.hash for found in inbox.waiting(hospital.site)] == [asked.hash]


def test_a_hospital_that_stops_offering_it_answers_no_more(made: types.ModuleType, tmp_path: Path) -> None:
    hospital = made.Hospital(tmp_path, "one", 200)
    hospital.settings(open_feasibility=OFFERED)
    asked = made.study(open={"epsilon": 0.5}, steps=[TWO])
    hospital.arrive(asked)
    open_feasibility.admit(hospital.site, asked, installed_methods())
    hospital.settings(open_feasibility=None)
    answer = hospital.answer(asked)
    assert answer.error["code"] == "permit-error"
    assert "open questions" in error_from(answer.error).text("en")


@pytest.mark.parametrize(
    "step",
    [
        {"name": "table", "method": "table_one", "parameters": {"variables": ["sex"]}},
        {"name": "own", "method": "feasibility", "parameters": {}, "scope": "each"},
        {"name": "rest", "method": "feasibility", "parameters": {}, "scope": "all_but_one"},
        {"name": "by", "method": "feasibility", "parameters": {"by_hospital": True}},
    ],
    ids=lambda step: step["name"],
)
def test_only_counts_over_all_hospitals_can_be_asked_openly(made: types.ModuleType, step: dict[str, Any]) -> None:
    made.study(steps=[step])
    with pytest.raises(ValueError, match="only steps of `feasibility`"):
        made.study(steps=[step], open={"epsilon": 0.5})


@pytest.mark.parametrize("epsilon", [0, -1, 1.01])
def test_epsilon_is_at_most_one(made: types.ModuleType, epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        made.study(open={"epsilon": epsilon})


def test_a_study_that_is_not_open_keeps_its_hash(made: types.ModuleType) -> None:
    asked = made.study()
    assert asked.open is None
    assert '"open"' not in Study.model_dump_json(asked, exclude_defaults=True)


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    with pytest.raises(MissingPackage, match=r"dure\[budget\]"):
        with_noise({"n": np.array([1])}, 1, 1.0)


def test_settings_with_a_budget_that_is_none_are_refused(made: types.ModuleType, tmp_path: Path) -> None:
    hospital = made.Hospital(tmp_path, "one", 20)
    with pytest.raises(InvalidDocument):
        hospital.settings(open_feasibility={"epsilon_per_study": 3})
