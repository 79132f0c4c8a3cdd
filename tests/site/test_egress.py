"""The list of every number that left a hospital: complete, once, with study and permit, and readable."""

from __future__ import annotations

import csv
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from dure.cli.commands import app
from dure.federation.answer import Departure
from dure.federation.messages import Answer, Ask
from dure.guard.audit import digest
from dure.hub.runs import run_study
from dure.language import Words
from dure.site import inbox
from dure.site.egress import FILE, Egress, Left
from dure.site.runner import Runner
from dure.site.settings import Site
from dure.study.result import Fitted, Result, pack_result
from dure.study.summary import ArraySpec


def read(site: Site, **asked: Any) -> list[Left]:
    kept = Egress(site.folder / FILE)
    found = list(kept.read(**asked))
    kept.close()
    return found


def run(stage: Any, alliance: Any) -> Any:
    return run_study(alliance.store, alliance.study.hash, alliance.engine, stage.methods, name="run")


@pytest.fixture
def played(stage: Any, tmp_path: Path) -> Any:
    """A run of three steps, and what each hospital replied, as the hub received it."""
    alliance = stage.alliance(tmp_path, "attrition", "table_one", "model")
    for name in alliance.sites:  # in the clear, so that what the hub received can be compared with the list
        stage.sign_again(alliance, name, ("per_hospital", "difference", "visible_updates"))
    replies: dict[str, list[tuple[Ask, Answer]]] = {name: [] for name in alliance.sites}
    for name, runner in alliance.runners.items():

        def listened(message: bytes, answer: Any = runner.answer, said: Any = replies[name]) -> bytes:
            reply: bytes = answer(message)
            said.append((Ask.from_bytes(message), Answer.from_bytes(reply)))
            return reply

        runner.answer = listened
    run(stage, alliance)
    return alliance, replies


# ── complete, and once ──


def test_what_left_under_masks_is_listed_with_its_numbers_all_the_same(stage: Any, tmp_path: Path) -> None:
    alliance = stage.alliance(tmp_path, "attrition", "model")
    run(stage, alliance)
    for site in alliance.sites.values():
        listed = read(site)
        assert len(listed) > 10
        assert all(left.masked and left.numbers is not None for left in listed)


def test_every_number_that_the_hub_received_is_in_the_list(played: Any) -> None:
    alliance, replies = played
    for name, site in alliance.sites.items():
        sent = {
            (ask.step, ask.round, array): np.asarray(values)
            for ask, reply in replies[name]
            for array, values in reply.arrays.items()
            if np.asarray(values).size
        }
        listed = {(left.step, left.round, left.array): left for left in read(site)}
        assert set(listed) == set(sent)
        assert len(sent) > 30
        for place, values in sent.items():
            left = listed[place]
            assert (left.shape, left.count, left.bytes) == (values.shape, values.size, values.nbytes)
            assert left.numbers is not None
            assert np.array_equal(left.numbers, values)
            assert [value for _, value in left.cells()] == values.ravel().tolist()


def test_each_names_its_study_its_permit_and_the_line_in_the_log(played: Any) -> None:
    alliance, _ = played
    for site in alliance.sites.values():
        permit = digest(inbox.own_permit(site, alliance.study.hash))
        lines = [entry for entry in site.audit.entries() if entry["event"] == "left"]
        assert {entry["permit"] for entry in lines} == {permit}
        assert {(left.study, left.permit, left.title) for left in read(site)} == {
            (alliance.study.hash, permit, alliance.study.title.words())
        }
        logged = {(e["step"], e["round"], array["name"]) for e in lines for array in e["arrays"] if array["bytes"]}
        assert logged == {(left.step, left.round, left.array) for left in read(site)}
        assert all(set(left.rules) >= {"as_declared"} for left in read(site))


def test_hub_and_hospital_log_the_same_digests(played: Any) -> None:
    """What the hub says it asked and declared is what the hospital says it answered."""
    alliance, _ = played
    hub = list(alliance.store.log.entries())
    asked = {(e["step"], e["round"]): e for e in hub if e["event"] == "asked"}
    permits = {e["hospital"]: e["permit"] for e in hub if e["event"] == "answered"}
    for name, site in alliance.sites.items():
        lines = [entry for entry in site.audit.entries() if entry["event"] == "left"]
        assert len(lines) == len(asked)
        for line in lines:
            told = asked[line["step"], line["round"]]
            assert line["question"] == told["questions"][name]
            assert line["declaration"] == told["declaration"]
            assert line["permit"] == permits[name]
    opened = [entry for entry in hub if entry["event"] == "opened"]
    assert {tuple(entry["members"]) for entry in opened} == {tuple(alliance.sites)}


def test_no_number_of_a_study_is_in_the_hubs_log(played: Any) -> None:
    alliance, replies = played
    text = alliance.store.log.path.read_text(encoding="utf-8")
    totals = sum(
        np.asarray(reply.arrays["sums"]) for said in replies.values() for _, reply in said if "sums" in reply.arrays
    )
    told = [repr(float(value)) for value in np.ravel(totals)]
    assert len(told) == 10
    assert not [value for value in told if value in text]


def test_the_same_round_again_is_listed_once(stage: Any, tmp_path: Path) -> None:
    alliance = stage.alliance(tmp_path, "attrition")
    site = alliance.sites["Cleveland"]
    stage.sign_again(alliance, "Cleveland", ("per_hospital", "visible_updates"))
    message = Ask("run", alliance.study.hash, "attrition", 0, tuple(alliance.sites)).to_bytes()
    first = alliance.runners["Cleveland"].answer(message)
    before = read(site)
    assert Runner(Site(site.folder), stage.methods).answer(message) == first
    (site.folder / "rounds.db").unlink()  # as if the process had died between the list and its own memory
    for file in site.folder.glob("rounds.db-*"):
        file.unlink()
    assert Runner(Site(site.folder), stage.methods).answer(message) == first
    assert [left.sha256 for left in read(site)] == [left.sha256 for left in before]
    assert len(before) == 3


def test_a_refused_answer_leaves_nothing_to_list(stage: Any, tmp_path: Path) -> None:
    sites = stage.sites(tmp_path)
    stage.keep(sites["Hungary"], 5)
    alliance = stage.join(tmp_path, sites, stage.study("attrition"))
    message = Ask("run", alliance.study.hash, "attrition", 0, tuple(alliance.sites)).to_bytes()
    assert Answer.from_bytes(alliance.runners["Hungary"].answer(message)).kind == "error"
    assert not (sites["Hungary"].folder / FILE).exists()


def test_released_tables_of_one_hospital_are_listed_cell_by_cell(stage: Any, tmp_path: Path) -> None:
    study = stage.study("table_one")
    alone = study.steps[0].model_copy(update={"scope": "each"})
    alliance = stage.join(tmp_path, stage.sites(tmp_path), study.model_copy(update={"steps": (alone,)}))
    _, outcomes = run(stage, alliance)
    fold = outcomes["table_one"].folds["Hungary"]
    assert fold.status == "finished"
    listed = {left.array: left for left in read(alliance.sites["Hungary"]) if left.kind == "table"}
    assert set(listed) == {name for name, table in fold.released.tables.items() if any(shown(table.frame))}
    for name, left in listed.items():
        assert [value for _, value in left.cells()] == shown(fold.released.tables[name].frame)
        assert len({cell for cell, _ in left.cells()}) == left.count
        assert "per_hospital_permit" in left.rules
    assert any("sex" in cell and cell.endswith(" · n") for cell, _ in listed["table_one"].cells())


def shown(frame: pl.DataFrame) -> list[float]:
    """Every number of a table, row by row."""
    numeric = [name for name, kind in frame.schema.items() if kind.is_numeric()]
    return [float(value) for row in frame.select(numeric).rows() for value in row if value is not None]


def test_a_step_that_releases_nothing_lists_nothing(stage: Any, tmp_path: Path) -> None:
    study = stage.study("table_one")
    silent = study.steps[0].model_copy(update={"scope": "each", "release": False})
    alliance = stage.join(tmp_path, stage.sites(tmp_path), study.model_copy(update={"steps": (silent,)}))
    run(stage, alliance)
    assert read(alliance.sites["Hungary"]) == []


# ── the file ──


def departure(kind: Any, values: np.ndarray[Any, Any], masked: bool = False, **spec: Any) -> Departure:
    ask = Ask("run", "sha256:" + "a" * 64, "net", 0, ("A", "B", "C"))
    declared = (ArraySpec("w", values.shape, kind, **spec),)
    reply = Answer("A", "summary", arrays={"w": values}, rules={"w": ["as_declared"]})
    return Departure(ask, "q" * 64, declared, reply, masked)


def test_only_its_owner_may_read_it(played: Any) -> None:
    alliance, _ = played
    for site in alliance.sites.values():
        for path in site.folder.glob(f"{FILE}*"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


@pytest.mark.parametrize(("kind", "size", "keep", "kept"), [
    ("weights", 131_073, False, False),
    ("weights", 131_072, False, True),
    ("weights", 131_073, True, True),
    ("moment", 131_073, False, True),
])  # fmt: skip
def test_large_weights_are_noted_by_size_and_digest(
    stage: Any, tmp_path: Path, kind: str, size: int, keep: bool, kept: bool
) -> None:
    values = np.random.default_rng(1).normal(size=size)
    egress = Egress(tmp_path / FILE, keep)
    egress.write(departure(kind, values), stage.study("attrition"), "sha256:p")
    (left,) = egress.read()
    assert (left.count, left.bytes, len(left.sha256)) == (size, 8 * size, 64)
    assert (left.numbers is not None) == kept
    assert len(list(left.cells())) == (size if kept else 0)
    egress.write(departure(kind, values + 1), stage.study("attrition"), "sha256:p")
    assert len(list(egress.read())) == 1  # the same question
    egress.close()


def test_the_setting_for_weights_is_read_from_site_yaml(stage: Any, tmp_path: Path) -> None:
    site = stage.sites(tmp_path, "Cleveland")["Cleveland"]
    assert not site.file.keep_weights
    path = site.folder / "site.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "keep_weights: true\n", encoding="utf-8")
    assert Runner(Site(site.folder), stage.methods).egress._keep_weights


@pytest.mark.parametrize(
    ("shape", "labels", "names"),
    [
        ((), (), ["1"]),
        ((), ("events",), ["events"]),
        ((2,), (), ["1", "2"]),
        ((2,), ("a", "b"), ["a", "b"]),
        ((2, 3), ("a", "b", "c"), ["1 · a", "1 · b", "1 · c", "2 · a", "2 · b", "2 · c"]),
        ((2, 3), ("a", "b"), ["1 · a", "2 · a", "3 · a", "1 · b", "2 · b", "3 · b"]),
        ((2, 2), (), ["1, 1", "1, 2", "2, 1", "2, 2"]),
    ],
)
def test_a_number_bears_the_name_of_its_cell(
    stage: Any, tmp_path: Path, shape: tuple[int, ...], labels: tuple[str, ...], names: list[str]
) -> None:
    egress = Egress(tmp_path / FILE)
    values = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    egress.write(departure("count", values, True, labels=labels), stage.study("attrition"), "sha256:p")
    (left,) = egress.read()
    egress.close()
    assert [name for name, _ in left.cells()] == names
    assert [value for _, value in left.cells()] == list(range(len(names)))
    assert left.masked
    assert left.title == Words(left.title.en, left.title.ko)


# ── for people ──


def told(*arguments: Any) -> str:
    found = CliRunner().invoke(app, ["site", "egress", *map(str, arguments)])
    assert found.exit_code == 0, found.output
    return found.output


def test_the_command_lists_arrays_numbers_and_totals(played: Any, tmp_path: Path, monkeypatch: Any) -> None:
    alliance, _ = played
    site = alliance.sites["Hungary"]
    monkeypatch.setenv("COLUMNS", "160")
    lefts = read(site)
    said = told(site.folder)
    assert alliance.study.hash[7:19] in said
    assert digest(inbox.own_permit(site, alliance.study.hash))[7:19] in said
    assert all(left.array in said for left in lefts)
    assert f"{sum(left.count for left in lefts):,} numbers in {len(lefts)} arrays" in said
    said = told(site.folder, "--step", "attrition", "--numbers")
    assert "294" in said
    assert "hessian" not in said
    found = json.loads(told(site.folder, "--study", alliance.study.hash[7:15], "--json", "--numbers"))
    assert [entry["array"] for entry in found] == [left.array for left in lefts]
    assert found[0]["values"] == lefts[0].numbers.tolist()  # type: ignore[union-attr]
    told(site.folder, "--csv", tmp_path / "left.csv", "--numbers")
    with (tmp_path / "left.csv").open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(left.count for left in lefts)
    assert {row["study"] for row in rows} == {alliance.study.hash}


def test_the_command_speaks_korean_and_says_when_nothing_has_left(
    played: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    alliance, _ = played
    monkeypatch.setenv("DURE_LANGUAGE", "ko")
    said = told(alliance.sites["Hungary"].folder)
    assert "나갔습니다" in said
    assert "허가서" in said
    monkeypatch.setenv("DURE_LANGUAGE", "en")
    from dure.site.settings import create_site

    assert "Nothing has left" in told(create_site(tmp_path / "new", "New").folder)


def test_counts_of_a_fitted_model_and_facts_of_any_depth_are_listed(stage: Any, tmp_path: Path) -> None:
    """They leave in the packed Result of one hospital, beside its tables."""
    facts = {"auroc": 0.8, "median": {"a": [1, 2], "b": None}, "said": "<10", "converged": True}
    result = Result(method="m", facts=facts, fitted=Fitted(3, 293, 106, 187))
    ask = Ask("run", "sha256:" + "a" * 64, "alone", 0, ("A",), alone=True)
    reply = Answer("A", "result", result=pack_result(result), rules={"result": ["per_hospital_permit"]})
    egress = Egress(tmp_path / FILE)
    egress.write(Departure(ask, "q" * 64, (), reply), stage.study("attrition"), "sha256:p")
    (left,) = egress.read()
    egress.close()
    assert (left.kind, left.rules) == ("facts", ("per_hospital_permit",))
    assert dict(left.cells()) == {
        "auroc": 0.8,
        "median.a.1": 1.0,
        "median.a.2": 2.0,
        "fitted.parameters": 3.0,
        "fitted.n": 293.0,
        "fitted.events": 106.0,
        "fitted.non_events": 187.0,
    }
