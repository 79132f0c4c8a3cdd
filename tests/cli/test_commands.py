"""Every command says what it is for, and does it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from lifelines import KaplanMeierFitter

from dure.cli.commands import run
from dure.study.method import installed_methods

COMMANDS = [
    (),
    ("demo",),
    ("try",),
    ("methods",),
    ("study",),
    ("study", "check"),
    ("study", "preview"),
    ("site",),
    ("site", "standardise"),
    ("site", "quality"),
    ("site", "audit"),
    ("site", "egress"),
    ("audit",),
    ("audit", "verify"),
    ("audit", "show"),
    ("audit", "prove"),
    ("audit", "check-proof"),
    ("hub",),
    ("hub", "status"),
    ("people",),
    ("people", "add"),
    ("people", "list"),
    ("people", "disable"),
    ("people", "enable"),
    ("people", "password"),
    ("sign-in",),
    ("sign-out",),
    ("whoami",),
    ("study", "sign-in"),
    ("study", "sign-out"),
    ("study", "password"),
]
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def dure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("DURE_LANGUAGE", "en")

    def call(*arguments: object) -> tuple[int, str]:
        code = run([str(argument) for argument in arguments])
        shown = capsys.readouterr()
        assert shown.err == ""
        return code, " ".join(shown.out.split())

    return call


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random, n = np.random.default_rng(11), 600
    age = random.normal(60, 9, n).round(1)
    dead = (random.random(n) < 1 / (1 + np.exp(-(age - 60) / 8))).astype(int)
    frame = pl.DataFrame(
        {
            "clinic": [("Hanbit", "Saessak", "Onnuri")[i % 3] for i in range(n)],
            "age": age,
            "sex": np.where(random.random(n) < 0.5, "m", "f"),
            "dead": dead,
            "days": random.exponential(20, n).round(2) + 0.1,
            "cost": (3 * age + random.normal(0, 5, n)).round(2),
        }
    )
    path = tmp_path_factory.mktemp("table") / "people.csv"
    frame.write_csv(path)
    return path


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command) or "dure")
def test_every_command_has_help(dure: Command, command: tuple[str, ...]) -> None:
    code, said = dure(*command, "--help")
    assert code == 0
    assert "Usage" in said
    for other in COMMANDS:
        if other[:-1] == command and other:
            assert other[-1] in said


def test_help_speaks_korean(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "dure.cli", "--language", "ko", "--help"], cwd=tmp_path, capture_output=True, text=True
    )
    assert found.returncode == 0
    assert "병원들이 함께 연구하되" in found.stdout
    assert "자신의 표로 연합을 해 봅니다" in found.stdout


def test_methods_lists_every_installed_one(dure: Command) -> None:
    code, said = dure("methods")
    assert code == 0
    for name, method in installed_methods().items():
        assert name in said
        assert method.title.en in said


def test_one_method_shows_its_parameters(dure: Command) -> None:
    code, said = dure("methods", "regression")
    assert code == 0
    for parameter in installed_methods()["regression"].parameters.model_fields:
        assert parameter in said
    assert "required" in said
    assert "table_one" not in said


@pytest.mark.parametrize(
    ("typed", "meant"), [("regresion", "regression"), ("Survival", "survival"), ("tabel_one", "table_one")]
)
def test_a_misspelt_method_gets_the_nearest(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, typed: str, meant: str
) -> None:
    monkeypatch.setenv("DURE_LANGUAGE", "en")
    assert run(["methods", typed]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"There is no method '{typed}'" in said
    assert f"Did you mean '{meant}'?" in said


def numbers_of(said: str, term: str) -> list[float]:
    words = said.split()
    place = words.index(term)
    return [float(word) for word in words[place + 1 : place + 3]]


def test_try_fits_a_yes_or_no_outcome_as_statsmodels_does(dure: Command, table: Path) -> None:
    code, said = dure("try", table, "--hospital", "clinic", "--outcome", "dead")
    assert code == 0
    frame = pl.read_csv(table)
    columns = ("age", "days", "cost")
    design = np.column_stack(
        [np.ones(frame.height), frame["age"], frame["sex"] == "m", frame["days"], frame["cost"]]
    ).astype(float)
    fit = sm.Logit(frame["dead"].to_numpy(), design).fit(disp=0)
    estimate, error = numbers_of(said.split("coefficients")[1], "sex[T.m]")
    assert estimate == pytest.approx(fit.params[2], rel=1e-3)
    assert error == pytest.approx(fit.bse[2], rel=1e-3)
    assert all(name in said for name in (*columns, "Validation", "auroc", "calibration", "the event is dead = 1"))
    for hospital in ("Hanbit", "Saessak", "Onnuri"):
        assert f"Left {hospital}:" in said


def test_try_fits_a_number_as_statsmodels_does(dure: Command, table: Path) -> None:
    code, said = dure("try", table, "--hospital", "clinic", "--outcome", "cost")
    assert code == 0
    frame = pl.read_csv(table)
    design = np.column_stack(
        [np.ones(frame.height), frame["age"], frame["sex"] == "m", frame["dead"], frame["days"]]
    ).astype(float)
    fit = sm.OLS(frame["cost"].to_numpy(), design).fit()
    estimate, error = numbers_of(said.split("coefficients")[1], "age")
    assert estimate == pytest.approx(fit.params[1], rel=1e-3)
    assert error == pytest.approx(fit.bse[1], rel=1e-3)
    assert "auroc" not in said


def test_try_with_time_is_survival(dure: Command, table: Path) -> None:
    code, said = dure("try", table, "--hospital", "clinic", "--outcome", "dead", "--time", "days", "--group", "sex")
    assert code == 0
    assert "Survival · curve" in said
    assert "at_risk" in said
    assert "coefficients" not in said


def test_try_shows_curves_and_medians_as_lifelines_does_on_a_round_grid(dure: Command, table: Path) -> None:
    _, said = dure("try", table, "--hospital", "clinic", "--outcome", "dead", "--time", "days")
    grid = re.search(r"\(width, end: ([\d.]+), ([\d.]+)\)", said)
    assert grid is not None
    width, end = float(grid[1]), float(grid[2])
    frame = pl.read_csv(table)
    assert end < frame["days"].max()  # the longest follow-up is one person's
    times = np.ceil(frame["days"].to_numpy() / width * (1 - 1e-12)) * width
    times, events = np.minimum(times, end + width), frame["dead"].to_numpy() * (times <= end)
    fit = KaplanMeierFitter().fit(times, events)
    shown = said.split("Survival · curve")[1].split("Survival · medians")[0]
    rows = re.findall(r"all ([\d.]+) \d+ \d+ (0\.\d+)", shown)
    assert len(rows) > 5
    for time, survival in rows:
        assert float(survival) == pytest.approx(float(fit.predict(float(time))), abs=2e-4)
    median = re.search(r"medians .*?all ([\d.]+)", said)
    assert median is not None
    assert float(median[1]) == pytest.approx(fit.median_survival_time_)


def test_try_takes_the_word_that_says_something_happened_for_the_event(dure: Command, tmp_path: Path) -> None:
    random, n = np.random.default_rng(5), 300
    died = random.random(n) < 0.4
    frame = pl.DataFrame(
        {
            "clinic": [f"H{i % 3}" for i in range(n)],
            "mass[kg/m2]": np.where(died, 28.0, 24.0) + random.normal(0, 3, n),
            "status": np.where(died, "사망", "생존"),
        }
    )
    frame.write_csv(tmp_path / "t.csv", separator=";", decimal_comma=True)
    code, said = dure("try", tmp_path / "t.csv", "--hospital", "clinic", "--outcome", "status")
    assert code == 0
    assert "status = 사망" in said
    assert "mass[kg/m2]" in said  # square brackets are no markup
    assert numbers_of(said.split("coefficients")[1], "`mass[kg/m2]`" if "`mass" in said else "mass[kg/m2]")[0] > 0
    _, turned = dure("try", tmp_path / "t.csv", "--hospital", "clinic", "--outcome", "status", "--event", "생존")
    assert "status = 생존" in turned


def test_try_names_the_line_that_has_too_few_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("clinic,age,dead\nA,1,0\nB,2\nC,3,1\n", encoding="utf-8")
    assert run(["try", str(tmp_path / "t.csv"), "--hospital", "clinic", "--outcome", "dead"]) == 1
    assert "line 3" in " ".join(capsys.readouterr().err.replace("│", " ").split())  # wherever the box breaks its lines


def test_try_speaks_korean_in_its_tables(dure: Command, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DURE_LANGUAGE", "ko")
    _, said = dure("try", table, "--hospital", "clinic", "--outcome", "dead")
    assert all(word in said for word in ("변수", "수준", "결측", "표준오차", "회귀분석", "사건은 dead = 1"))
    assert "reason" not in said


def test_try_leaves_the_folder_as_it_was(dure: Command, table: Path) -> None:
    before = sorted(table.parent.iterdir()), table.read_bytes()
    dure("try", table, "--hospital", "clinic", "--outcome", "dead")
    assert (sorted(table.parent.iterdir()), table.read_bytes()) == before


def test_preview_shows_what_would_leave_and_who_must_permit(dure: Command) -> None:
    from dure.demo import offices

    code, said = dure("study", "preview", offices.STUDY)
    assert code == 0
    assert "by_hospital 4×3 count ✓" in said
    assert "per_hospital:" in said
    assert "difference: model_without" in said


def test_a_hospital_standardises_checks_and_verifies(dure: Command, tmp_path: Path) -> None:
    from dure.demo import offices
    from dure.site.settings import create_site

    export = offices.write_exports(tmp_path / "exports")["Hungary"]
    site = create_site(tmp_path / "site", "Hungary")
    plan = offices.plan_path("Hungary")
    code, said = dure(
        "site", "standardise", plan, "--exports", export, "--database", site.database, "--concepts", offices.CONCEPTS
    )
    assert code == 0
    assert "294 rows read" in said
    code, said = dure("site", "quality", plan, "--database", site.database)
    assert code == 0
    site.audit.append("standardised", rows=294)
    code, said = dure("site", "audit", site.folder)
    assert (code, said) == (0, "Hungary: 1 entries, unbroken")
