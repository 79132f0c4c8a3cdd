"""The governed demonstration: what each hospital did, which numbers left, and what others can check afterwards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from dure.cli.audit import EVENTS
from dure.cli.commands import app
from dure.client.simulate import run_frames
from dure.demo.cast import COMPANY, SEVEN, SHARING
from dure.demo.governed import ASKS, DECLINES, DROPS, WITHDRAWS, play
from dure.errors import LogForked
from dure.federation.plan import plan_of
from dure.guard.log_check import check_log
from dure.guard.rules import OFF
from dure.site.egress import FILE, Egress
from dure.site.runner import Runner
from dure.site.settings import Site, keys_of

pytest.importorskip("statsmodels", reason="the demonstration's data need the extra 'demo'")


class Quiet:
    def heading(self, words: Any) -> None: ...

    def line(self, words: Any) -> None: ...

    def working(self, words: Any) -> None: ...


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("governed")
    told, result = play(folder, Quiet())
    return folder, told, result


def said(result: dict[str, Any], who: str) -> str:
    return " | ".join(event["en"] for event in result["events"] if event["who"] == who)


def test_everybody_did_what_the_story_says(played: Any) -> None:
    _, _, result = played
    assert set(result["answers"]) == set(SEVEN)
    assert {name: kind for name, kind in result["answers"].items() if kind != "permitted"} == {
        DECLINES: "declined",
        WITHDRAWS: "withdrawn",
    }
    assert "its ethics board asks" in said(result, ASKS)
    assert "falls silent" in said(result, DROPS)
    assert "withdraws" in said(result, WITHDRAWS)
    assert said(result, COMPANY).count("refused (") == 2
    assert "2 permits of the old version are void" in said(result, "Alliance")
    assert result["state"] == "released"
    assert {one["name"] for one in result["release"]["approved_by"]} == {"office", "release board"}


def test_every_number_that_left_was_masked_and_is_in_the_hospitals_own_list(played: Any) -> None:
    folder, _, result = played
    for name, arrays in result["left"].items():
        path = folder / "seven" / name.lower().replace(" ", "_") / FILE
        listed = list(Egress(path).read()) if path.exists() else []
        assert [(one.step, one.round, one.array) for one in listed] == [
            (one["step"], one["round"], one["array"]) for one in arrays
        ]
        assert all(one["masked"] for one in arrays)
        assert all(one.numbers is not None for one in listed)
    assert result["left"][DECLINES] == []
    assert {one["step"] for one in result["left"][WITHDRAWS]} == {"attrition", "model"}
    assert max(one["round"] for one in result["left"][WITHDRAWS] if one["step"] == "model") == 1


def test_the_released_model_is_that_of_the_pooled_rows_of_those_who_stayed(played: Any) -> None:
    folder, told, result = played
    stayed = tuple(name for name, kind in result["answers"].items() if kind == "permitted")
    assert result["hospitals"]["model"] == [name for name in SEVEN if name in stayed]
    assert "attrition" not in result["released"]  # the one that withdrew is part of it
    plan = plan_of(told.study, _methods())
    frames = {name: Runner(_site(folder, name), _methods()).rows(told.study, plan).frame for name in stayed}
    pooled = {"pooled": pl.concat(frames.values(), how="vertical_relaxed")}
    step = told.study.step("model")
    outcomes, _ = run_frames(pooled, (step,), OFF, frozenset({"per_hospital"}), columns=plan.columns)
    fold = outcomes["model"].folds[None]
    assert fold.working is not None
    expected = fold.working.tables["coefficients"].frame
    found = {row["term"]: row for row in result["released"]["model"]["coefficients"]}
    for row in expected.to_dicts():
        for column in ("estimate", "std_error"):
            np.testing.assert_allclose(found[row["term"]][column], row[column], rtol=1e-8)


def _site(folder: Path, name: str) -> Site:
    return Site(folder / "seven" / name.lower().replace(" ", "_"))


def _methods() -> Any:
    from dure.study.method import installed_methods

    return installed_methods()


def test_every_line_of_every_log_has_words_in_both_languages(played: Any) -> None:
    folder, _, _ = played
    logs = list(folder.rglob("audit.jsonl"))
    assert len(logs) >= 8
    found = {json.loads(line)["event"] for log in logs for line in log.read_text(encoding="utf-8").splitlines()}
    assert "board decided: decline" in found
    assert sorted(found - set(EVENTS)) == []


def test_one_board_decided_for_two_hospitals(played: Any) -> None:
    folder, _, _ = played
    for name in SHARING:
        entries = [entry for entry in _site(folder, name).audit.entries() if entry["event"].startswith("board decided")]
        assert [entry["by"] for entry in entries if entry["board"] == "drb"] == ["Joint board"]


@pytest.mark.parametrize("language", ["en", "ko"])
def test_the_logs_verify_by_command_and_the_list_of_what_left_is_readable(
    played: Any, language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, told, _ = played
    monkeypatch.setenv("DURE_LANGUAGE", language)
    monkeypatch.setenv("DURE_SESSION", _session(told, folder / "hub", "auditor"))
    site = folder / "seven" / "hungary_south"
    runner = CliRunner()
    shown = runner.invoke(app, ["audit", "verify", str(folder / "hub"), "--against", str(site)])
    assert shown.exit_code == 0, shown.output
    monkeypatch.setenv("DURE_SESSION", _session(told, site, "irb"))
    shown = runner.invoke(app, ["site", "egress", str(site), "--numbers", "--json"])
    assert shown.exit_code == 0, shown.output
    listed = json.loads(shown.output)
    assert sum(np.size(one["values"]) for one in listed) > 1000


def _session(told: Any, folder: Path, name: str) -> str:
    from dure.guard.accounts import Accounts

    return Accounts(folder).sign_in(name, told.cast._passwords[folder, name])


def test_a_hub_that_rewrites_its_log_is_caught_by_what_a_hospital_has_seen(played: Any) -> None:
    folder, told, _ = played
    path, site = folder / "hub" / "audit.jsonl", folder / "seven" / "long_beach_b"
    true = path.read_bytes()
    try:
        lines = true.splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:-30]))
        from dure.hub.witnessing import keys_of as hub_keys

        with pytest.raises(LogForked):
            check_log(folder / "hub", hub_keys(told.cast.hub, told.cast.hub.open_store()), [site])
    finally:
        path.write_bytes(true)
    assert check_log(site, keys_of(site), [folder / "hub"]).lines > 20


def test_the_page_says_it_in_both_languages_and_asks_nobody(played: Any) -> None:
    folder, _, result = played
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    for event in result["events"]:
        for language in ("en", "ko"):
            assert event[language].replace("&", "&amp;").replace("'", "&#39;") in text
    for name in SEVEN:
        assert f"<summary>{name}" in text
