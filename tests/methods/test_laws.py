"""Every installed method is held to the law it states, and to the gate, without being named here."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dure.client.frames import columns_of
from dure.client.simulate import Simulated, run_frames, simulate
from dure.errors import DataError, NotEstimable, Refused
from dure.federation.answer import Desk, answer, total_of
from dure.federation.kept import InMemory
from dure.federation.ledger import InMemoryLedger
from dure.federation.messages import Answer, Ask
from dure.federation.plan import Plan
from dure.guard import gate
from dure.guard.rules import DEFAULT, OFF
from dure.study.method import Method, Question, installed_methods
from dure.study.packing import pack, unpack
from dure.study.result import Result, pack_result, unpack_result
from dure.study.rows import Rows
from dure.study.spec import Step
from dure.study.summary import Declaration, add

METHODS = list(installed_methods().values())
EVERY = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
NO_ANSWER_OF_PATIENTS = {"rounds", "sites"}
GRANTS = frozenset(("per_hospital", "difference"))
QUICK = settings(max_examples=20, deadline=None, derandomize=True)


def parameters(method: Method) -> dict[str, Any]:
    return dict(method.example(np.random.default_rng(0)).parameters)


@cache
def people(name: str, times: int = 1) -> pl.DataFrame:
    """The method's example; several of them one after the other where the rules need more people."""
    method = installed_methods()[name]
    return pl.concat([method.example(np.random.default_rng(seed)).frame for seed in range(times)])


@cache
def pooled(name: str) -> Simulated:
    return simulate({"all": people(name)}, name, parameters(installed_methods()[name]), rules="off")


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, list[float]]:
    """A seed for the order of rows, and where hospitals begin: 1 to 8 of them, some with nobody or one person."""
    places = draw(st.lists(st.floats(0, 1), max_size=7))
    alone = draw(st.lists(st.sampled_from(places), max_size=2)) if places else []
    return draw(st.integers(0, 2**32 - 1)), sorted([*places, *alone])[:7]


def split(frame: pl.DataFrame, cut: tuple[int, list[float]]) -> dict[str, pl.DataFrame]:
    seed, places = cut
    order = np.random.default_rng(seed).permutation(frame.height)
    edges = [0, *(round(place * frame.height) for place in places), frame.height]
    return {f"h{i}": frame[order[a:b].tolist()] for i, (a, b) in enumerate(itertools.pairwise(edges))}


def evenly(frame: pl.DataFrame, hospitals: int) -> dict[str, pl.DataFrame]:
    return {f"h{i}": frame[i::hospitals] for i in range(hospitals)}


def assert_same_table(one: pl.DataFrame, other: pl.DataFrame) -> None:
    assert one.columns == other.columns
    assert one.height == other.height
    for column, dtype in one.schema.items():
        if not dtype.is_numeric():
            assert one[column].to_list() == other[column].to_list(), column
            continue
        assert one[column].is_null().to_list() == other[column].is_null().to_list(), column
        left, right = (frame[column].drop_nulls().cast(pl.Float64).to_numpy() for frame in (one, other))
        np.testing.assert_allclose(left, right, rtol=1e-8, atol=1e-10, err_msg=column)


def assert_same_facts(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name in one.keys() - NO_ANSWER_OF_PATIENTS:
        if isinstance(one[name], float):
            assert one[name] == pytest.approx(other[name], rel=1e-8, abs=1e-10, nan_ok=True), name
        else:
            assert one[name] == other[name], name


# ── the laws ──


@EVERY
def test_a_method_states_a_law(method: Method) -> None:
    assert method.law in ("lossless", "by_hospital", "approximate")
    if method.law == "approximate":
        pytest.skip(f"{method.name} is approximate: it has tests of its own")


@pytest.mark.parametrize("name", [method.name for method in METHODS if method.law == "lossless"])
@QUICK
@given(cut=cuts())
def test_lossless_means_that_any_split_gives_the_pooled_answer(name: str, cut: tuple[int, list[float]]) -> None:
    found = simulate(split(people(name), cut), name, parameters(installed_methods()[name]), rules="off")
    assert found.tables.keys() == pooled(name).tables.keys()
    for table, frame in pooled(name).tables.items():
        assert_same_table(found[table], frame)
    assert_same_facts(found.facts, pooled(name).facts)


@pytest.mark.parametrize("name", [method.name for method in METHODS if method.law == "by_hospital"])
@QUICK
@given(cut=cuts())
def test_by_hospital_means_each_hospital_as_if_alone_and_the_rest_pooled(
    name: str, cut: tuple[int, list[float]]
) -> None:
    asked, frames = parameters(installed_methods()[name]), split(people(name), cut)
    instead = installed_methods()[name].example(np.random.default_rng(0)).pooled
    if instead is not None:
        frames = {ward: part.with_columns(ward=pl.lit(ward)) for ward, part in frames.items()}
        found = simulate(frames, name, asked, rules="off")
        together = simulate({"all": pl.concat(frames.values())}, name, instead, rules="off")
        for table, frame in together.tables.items():
            assert_same_table(found[table], frame)
        assert_same_facts(found.facts, together.facts)
        return
    found = simulate(frames, name, asked, rules="off")
    for table, frame in found.tables.items():
        frame = frame.drop("withheld", strict=False)
        if "hospital" not in frame.columns:
            assert_same_table(frame, pooled(name)[table])
            continue
        for hospital, part in frames.items():
            own = frame.filter(pl.col("hospital") == hospital)
            try:
                alone = simulate({hospital: part}, name, asked, rules="off")
            except (DataError, NotEstimable):
                assert part.height == 0
                assert all(not any(own[column]) for column, dtype in own.schema.items() if dtype.is_numeric())
                continue
            assert_same_table(own, alone[table].drop("withheld", strict=False))
    assert_same_facts(found.facts, pooled(name).facts)


# ── what every method owes the rounds ──


def plan_for(method: Method, frames: Mapping[str, pl.DataFrame], minimum: int = 0) -> Plan:
    step = Step(name="step", method=method.name, parameters=parameters(method))
    return Plan("test", (step,), columns_of(frames), installed_methods(), minimum_people=minimum)


def rows_of(frames: Mapping[str, pl.DataFrame]) -> list[Rows]:
    columns = columns_of(frames)
    return [Rows(frame, name, columns, (frame.height,), np.arange(frame.height)) for name, frame in frames.items()]


def question_for(method: Method, frames: Mapping[str, pl.DataFrame]) -> Question:
    plan = plan_for(method, frames)
    return plan.question(plan.steps[0], tuple(frames))


def assert_as_declared(summary: Mapping[str, Any], declaration: Declaration) -> None:
    assert set(summary) == {spec.name for spec in declaration}
    for spec in declaration:
        assert np.shape(summary[spec.name]) == spec.shape, spec.name
        whole = np.issubdtype(np.asarray(summary[spec.name]).dtype, np.integer)
        assert whole or spec.kind != "count", spec.name


@EVERY
def test_each_round_sends_what_it_declared_and_everything_survives_packing(method: Method) -> None:
    frames = evenly(people(method.name), 3)
    question, hospitals = question_for(method, frames), tuple(frames)
    state, kept, concluded = method.start(question), {name: {} for name in hospitals}, None
    for _ in range(200):
        assert pack(unpack(pack(state))) == pack(state)
        state = unpack(pack(state))
        declaration = method.declare(question, state)
        parts = []
        for rows in rows_of(frames):  # built anew each round: nothing may hang on what a process remembers
            summary, keeps = method.summarise(rows, question, state, kept[rows.hospital])
            assert_as_declared(summary, declaration)
            assert pack(unpack(pack(keeps))) == pack(keeps)
            kept[rows.hospital] = unpack(pack(keeps))
            asked = gate.Asked(rows.hospital, hospitals, rows.n, GRANTS, OFF)
            parts.append(gate.check(summary, declaration, asked).summary)
        concluded = method.conclude(total_of(add(parts, gate.sent(declaration))), question, state)
        if isinstance(concluded, Result):
            break
        state = concluded
    assert isinstance(concluded, Result)
    again = unpack_result(pack_result(concluded))
    assert pack_result(again) == pack_result(concluded)
    for name, table in concluded.tables.items():
        assert again.tables[name].frame.equals(table.frame)
        assert again.tables[name].withheld == dict(table.withheld)
    derived = method.derives(question)
    for rows in rows_of(frames):
        values = method.derive(rows, question, again, kept[rows.hospital])
        assert values.keys() == derived.keys()
        assert all(len(column) == rows.n for column in values.values())


@EVERY
def test_running_twice_writes_the_same_ledger_byte_for_byte(method: Method) -> None:
    step = Step(name="step", method=method.name, parameters=parameters(method))
    ledgers = []
    for _ in range(2):
        ledger = InMemoryLedger()
        run_frames(evenly(people(method.name), 4), (step,), OFF, GRANTS, ledger=ledger)
        ledgers.append(ledger.entries)
    assert ledgers[0]
    assert ledgers[0] == ledgers[1]


@EVERY
@pytest.mark.parametrize("size", [1, 37, 10_000])
def test_summaries_of_batches_add_up_to_the_summary_of_all_rows(method: Method, size: int) -> None:
    frames = evenly(people(method.name), 2)
    question = question_for(method, frames)
    state = method.start(question)
    declaration = method.declare(question, state)
    for rows in rows_of(frames):
        whole, _ = method.summarise(rows, question, state, {})
        pieces = add((method.summarise(batch, question, state, {})[0] for batch in rows.batches(size)), declaration)
        for spec in declaration:
            if spec.per_hospital and spec.kind == "moment" and method.law == "by_hospital":
                continue  # a number computed inside one hospital is no sum
            if spec.kind == "count":
                np.testing.assert_array_equal(pieces[spec.name], whole[spec.name])
            else:
                np.testing.assert_allclose(pieces[spec.name], whole[spec.name], rtol=1e-12, atol=1e-12)


@EVERY
def test_a_method_speaks_both_languages_and_describes_its_parameters(method: Method) -> None:
    assert method.title.ko != method.title.en
    assert method.about.ko != method.about.en
    assert all(field.description for field in method.parameters.model_fields.values())


# ── the gate holds every method ──


@EVERY
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_hospital_with_three_patients_is_refused_while_the_others_go_on(method: Method) -> None:
    many = people(method.name, 20)
    frames = {"small": many[:3], **evenly(many[3:], 4)}
    step = Step(name="step", method=method.name, parameters=parameters(method))
    outcomes, run = run_frames(frames, (step,), DEFAULT, frozenset())
    assert outcomes["step"].status == "finished"
    assert outcomes["step"].hospitals == ("h0", "h1", "h2", "h3")
    assert {entry.hospital for entry in outcomes["step"].left} == {"h0", "h1", "h2", "h3"}
    refused = run.dropped["small"]
    assert isinstance(refused, Refused)
    assert refused.rule == "minimum_cohort"
    assert refused.detail == ""
    for language in ("en", "ko"):
        assert not any(letter.isdigit() for letter in refused.text(language))


@EVERY
def test_what_a_refused_hospital_answers_does_not_depend_on_its_patients(method: Method) -> None:
    many = people(method.name, 20)
    replies = []
    for start, count in ((0, 3), (11, 7), (50, 1)):
        frames = {"small": many[start : start + count], **evenly(many, 4)}
        plan = plan_for(method, evenly(many, 4), minimum=10)
        rows = Rows(frames["small"], "small", plan.columns, (count,), np.arange(count))
        desk = Desk("small", plan, GRANTS, DEFAULT, lambda rows=rows: rows, InMemory())
        question = plan.question(plan.steps[0], tuple(frames))
        state = method.start(question)
        replies.append(answer(Ask("run", "test", "step", 0, tuple(frames), state), desk))
    assert replies[0] == replies[1] == replies[2]
    reply = Answer.from_bytes(replies[0])
    assert reply.kind == "error"
    assert not reply.arrays
    assert not reply.result


@EVERY
def test_two_hospitals_need_per_hospital_permits(method: Method) -> None:
    frames, asked = evenly(people(method.name, 20), 2), parameters(method)
    with pytest.raises(Refused) as caught:
        simulate(frames, method.name, asked)
    assert caught.value.rule == "minimum_hospitals"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert simulate(frames, method.name, asked, rules={"per_hospital": True}).facts["sites"] == ["h0", "h1"]
