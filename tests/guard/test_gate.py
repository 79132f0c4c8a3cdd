"""Every rule of the table fires where it must and keeps quiet where it need not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import pytest

from dure.client.simulate import run_frames
from dure.errors import Refused
from dure.federation.ledger import InMemoryLedger
from dure.federation.local_engine import LocalEngine
from dure.federation.plain_sum import PlainSum
from dure.federation.rounds import Run
from dure.guard import gate
from dure.guard.budget import check_budget
from dure.guard.history import check_overlap, difference, people_of
from dure.guard.release import release
from dure.guard.rules import DEFAULT, OFF, RULES, Limits, refusal
from dure.site.history import HistoryStore
from dure.study.permit import Grant
from dure.study.result import Fitted, Result, Table
from dure.study.spec import Step
from dure.study.summary import ArraySpec, Summary

THREE = ("a", "b", "c")
NONE: frozenset[Grant] = frozenset()
ALONE: frozenset[Grant] = frozenset({"per_hospital"})


def asked(**more: Any) -> gate.Asked:
    values: dict[str, Any] = {"hospital": "a", "hospitals": THREE, "cohort": 50, "grants": NONE, "limits": DEFAULT}
    return gate.Asked(**{**values, **more})


COUNT = ArraySpec("n", (), "count", on_small="refuse")
SINGLE = ArraySpec("n", (3,), "count", per_hospital=True)
OPEN = ArraySpec("n", (3,), "count", opens_hospitals=True, on_small="refuse", labels=("x=1", "x=2", "x=3"))


def count(value: int) -> Summary:
    return {"n": np.array(value)}


def own(*values: int) -> Summary:
    return {"n": np.array(values)}


def fitted(parameters: int, n: int, events: int | None = None) -> Result:
    return Result("m", fitted=Fitted(parameters, n, events, None if events is None else n - events))


def crowded(rows: int) -> Callable[[], object]:
    """A run whose one step releases `rows` numbers about ninety people."""

    def run() -> object:
        x = np.arange(30) % 3
        frames = {name: pl.DataFrame({f"v{i}": x.astype(float) + i for i in range(rows)}) for name in THREE}
        step = Step(name="one", method="table_one", parameters={"variables": [f"v{i}" for i in range(rows)]})
        _, played = run_frames(frames, (step,), DEFAULT)
        capped = Run(
            "capped", played.plan, THREE, played.grants, DEFAULT, _engine(played), PlainSum(), InMemoryLedger()
        )
        fold = capped.steps()["one"].folds[None]
        if fold.error:
            raise fold.error
        return fold.released

    return run


def _engine(run: Run) -> LocalEngine:
    assert isinstance(run.engine, LocalEngine)
    return LocalEngine(run.engine.hospitals)


def small_shown(value: int) -> Callable[[], None]:
    """Refused in words here, so that the table's cell can stand in one list with the rules that raise."""

    def run() -> None:
        table = Table(pl.DataFrame({"n": [value]}), counts=("n",))
        shown = release(Result("m", {"t": table}), DEFAULT).tables["t"]
        if shown.withheld:
            raise Refused("round_counts", RULES["round_counts"].says, RULES["round_counts"].way_out)
        assert shown.frame["n"].to_list() == [5 * round(value / 5)]

    return run


def compared(out: int) -> None:
    """A cohort of a hundred, and the same without some."""
    one, other = people_of(np.arange(100)), people_of(np.arange(out, 100))
    check_overlap(difference(one, other), DEFAULT.minimum_difference, ["an earlier study"])


def alike(studies: int) -> None:
    """A proposer whose studies were alike so often asks another question."""
    with TemporaryDirectory() as folder:
        store = HistoryStore(Path(folder) / "history.db")
        for number in range(studies):
            store.note_alike("curious", str(number), "an equivalent question", DEFAULT)
        locked = store.locked("curious", "another")
        store.close()
    if locked:
        raise refusal("lockout")


FIRES: dict[str, list[Callable[[], object]]] = {
    "as_declared": [
        lambda: gate.check({}, (COUNT,), asked()),
        lambda: gate.check({**count(20), "more": np.array(1)}, (COUNT,), asked()),
        lambda: gate.check({"n": np.array([20, 20])}, (COUNT,), asked()),
        lambda: gate.check({"n": np.array(20.0)}, (COUNT,), asked()),
        lambda: gate.check(count(-1), (COUNT,), asked()),
        lambda: gate.check({"m": np.array(np.nan)}, (ArraySpec("m", (), "moment"),), asked()),
        lambda: gate.check({"m": np.array(np.inf)}, (ArraySpec("m", (), "moment"),), asked()),
        lambda: gate.check({"m": np.array(1 + 2j)}, (ArraySpec("m", (), "moment"),), asked()),
        lambda: gate.check({"m": np.array("text")}, (ArraySpec("m", (), "moment"),), asked()),
        lambda: gate.check({"m": np.array(object())}, (ArraySpec("m", (), "moment"),), asked()),
        lambda: gate.check(own(20, 20, 0), (SINGLE,), asked(grants=ALONE)),
    ],
    "minimum_cohort": [lambda n=n: gate.check(count(n), (COUNT,), asked(cohort=n)) for n in (1, 9)],
    "minimum_hospitals": [
        lambda: gate.check(count(50), (COUNT,), asked(hospitals=("a", "b"))),
        lambda: gate.check(count(50), (COUNT,), asked(hospitals=("a",))),
        lambda: gate.before_rows(asked(hospitals=("a", "b"), grants=frozenset({"difference"}))),
    ],
    "per_hospital_permit": [
        lambda: gate.check(own(20, 0, 0), (SINGLE,), asked()),
        lambda: gate.check(own(20, 20, 20), (OPEN,), asked()),
    ],
    "difference_permit": [
        lambda: gate.check(count(50), (COUNT,), asked(differs=True)),
        lambda: gate.check(count(50), (COUNT,), asked(differs=True, grants=ALONE)),
    ],
    "minimum_people": [
        lambda: gate.check_total(count(9), (COUNT,), DEFAULT),
        lambda: gate.check_total(count(0), (COUNT,), DEFAULT),
        lambda: gate.check_total(
            {"n": np.array(100), "c": np.array([91])},
            (COUNT, ArraySpec("c", (1,), "count", whole="n", on_small="refuse")),
            DEFAULT,
        ),
        lambda: gate.check(count(9), (COUNT,), asked(hospitals=("a", "b"), grants=ALONE)),
        lambda: gate.check(own(9, 20, 20), (OPEN,), asked(grants=ALONE)),
    ],
    "parameters_per_person": [lambda: release(fitted(34, 100), DEFAULT)],
    "parameters_per_event": [
        lambda: release(fitted(4, 1000, 39), DEFAULT),
        lambda: release(fitted(4, 1000, 961), DEFAULT),
    ],
    "round_counts": [small_shown(9), small_shown(0)],
    "numbers_per_person": [crowded(12)],
    "history_overlap": [lambda out=out: compared(out) for out in (1, 9)],
    "lockout": [lambda: alike(7)],
    "budget": [lambda: check_budget([0.5, 0.4], 0.2, 1.0, "this study")],
}
QUIET: dict[str, list[Callable[[], object]]] = {
    "as_declared": [
        lambda: gate.check(count(20), (COUNT,), asked()),
        lambda: gate.check({"m": np.array(-1.5)}, (ArraySpec("m", (), "moment"),), asked()),
        lambda: gate.check(own(20, 0, 0), (SINGLE,), asked(grants=ALONE)),
    ],
    "minimum_cohort": [lambda n=n: gate.check(count(n), (COUNT,), asked(cohort=n)) for n in (0, 10)],
    "minimum_hospitals": [
        lambda: gate.before_rows(asked()),
        lambda: gate.before_rows(asked(hospitals=("a",), grants=ALONE)),
    ],
    "per_hospital_permit": [
        lambda: gate.check(own(20, 0, 0), (SINGLE,), asked(grants=ALONE)),
        lambda: gate.check(own(20, 20, 20), (OPEN,), asked(grants=ALONE)),
    ],
    "difference_permit": [
        lambda: gate.check(count(50), (COUNT,), asked(differs=True, grants=frozenset({"difference"}))),
        lambda: gate.check(count(50), (COUNT,), asked()),
    ],
    "minimum_people": [
        lambda: gate.check_total(count(10), (COUNT,), DEFAULT),
        lambda: gate.check_total(count(3), (ArraySpec("n", (), "count"),), DEFAULT),
        lambda: gate.check_total(
            {"n": np.array(100), "c": np.array([90])},
            (COUNT, ArraySpec("c", (1,), "count", whole="n", on_small="refuse")),
            DEFAULT,
        ),
        lambda: gate.check(count(3), (COUNT,), asked()),  # masked in a sum of three hospitals
        lambda: gate.check(own(10, 0, 0), (OPEN,), asked(grants=ALONE)),
    ],
    "parameters_per_person": [lambda: release(fitted(33, 100), DEFAULT)],
    "parameters_per_event": [
        lambda: release(fitted(4, 1000, 40), DEFAULT),
        lambda: release(fitted(4, 1000, 960), DEFAULT),
    ],
    "round_counts": [small_shown(10), small_shown(12), small_shown(13)],
    "numbers_per_person": [crowded(6)],
    "history_overlap": [lambda out=out: compared(out) for out in (0, 10, 50)],
    "lockout": [lambda: alike(6)],
    "budget": [lambda: check_budget([0.1] * 9, 0.1, 1.0, "this study")],
}


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_fires_and_names_itself(rule: str) -> None:
    assert FIRES[rule]
    for attempt in FIRES[rule]:
        with pytest.raises(Refused) as caught:
            attempt()
        assert caught.value.rule == rule


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_keeps_quiet_where_it_is_kept(rule: str) -> None:
    assert QUIET[rule]
    for attempt in QUIET[rule]:
        attempt()


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_says_in_both_languages_what_it_wants_and_what_would_pass(rule: str) -> None:
    said = [RULES[rule].says, RULES[rule].way_out]
    assert RULES[rule].name == rule
    assert all(words.en != words.ko for words in said)


def test_a_hospitals_small_number_is_withheld_with_the_class_that_is_too_small() -> None:
    cases, others = (ArraySpec(name, (3, 2), "count", per_hospital=True) for name in ("cases", "others"))
    area = ArraySpec("area", (3, 2), "moment", people=("cases", "others"), per_hospital=True)
    summary = {
        "cases": np.array([[12, 9], [0, 0], [0, 0]]),
        "others": np.array([[30, 9], [0, 0], [0, 0]]),
        "area": np.array([[0.7, 0.8], [0, 0], [0, 0]]),
    }
    passed = gate.check(summary, (cases, others, area), asked(grants=ALONE))
    assert passed.summary["area"].tolist()[0] == [0.7, 0.0]
    assert passed.summary["cases"].tolist()[0] == [12, 0]
    assert passed.summary["area.withheld"].tolist()[0] == [0, 1]
    assert passed.withheld == {"cases": 1, "others": 1, "area": 1}
    small_second = {**summary, "cases": np.array([[12, 30], [0, 0], [0, 0]])}
    assert gate.check(small_second, (cases, others, area), asked(grants=ALONE)).summary["area.withheld"][0, 1] == 2


def test_a_count_of_one_hospital_is_withheld_when_its_complement_is_small() -> None:
    n = ArraySpec("n", (3,), "count", per_hospital=True)
    level = ArraySpec("level", (3, 2), "count", whole="n", per_hospital=True)
    summary = {"n": np.array([40, 0, 0]), "level": np.array([[35, 20], [0, 0], [0, 0]])}
    passed = gate.check(summary, (n, level), asked(grants=ALONE))
    assert passed.summary["level"].tolist()[0] == [0, 20]
    assert passed.summary["level.withheld"].tolist()[0] == [2, 0]


def test_without_rules_a_number_behind_which_nobody_stands_is_still_withheld() -> None:
    cases = ArraySpec("cases", (1,), "count", per_hospital=True)
    area = ArraySpec("area", (1,), "moment", people=("cases",), per_hospital=True)
    one = asked(hospitals=("a",), grants=ALONE, limits=OFF)
    passed = gate.check({"cases": np.array([0]), "area": np.array([0.0])}, (cases, area), one)
    assert passed.summary["area.withheld"].tolist() == [1]
    assert passed.summary["cases.withheld"].tolist() == [0]


def test_the_way_out_names_the_levels_whose_merging_would_pass_and_no_count() -> None:
    spec = ArraySpec("n", (3,), "count", on_small="refuse", labels=("stage=I", "stage=II", "stage=III"))
    with pytest.raises(Refused) as caught:
        gate.check_total({"n": np.array([200, 47, 4])}, (spec,), DEFAULT)
    assert "'III' + 'II' (stage)" in caught.value.text("en")
    assert "'III' + 'II' (stage)" in caught.value.text("ko")
    for number in ("200", "47", "4"):
        assert number not in caught.value.text("en")


def test_counts_stay_in_the_hospitals_own_detail() -> None:
    with pytest.raises(Refused) as caught:
        gate.check(count(7), (COUNT,), asked(cohort=7))
    assert "7" in caught.value.detail
    assert "7" not in str(caught.value)
    assert "7" not in repr(caught.value)


def test_tighter_limits_of_a_hospital_hold_at_its_gate() -> None:
    with pytest.raises(Refused) as caught:
        gate.check(count(15), (COUNT,), asked(cohort=15, limits=Limits(minimum_cohort=20)))
    assert caught.value.rule == "minimum_cohort"
