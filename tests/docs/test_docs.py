"""The documents say what the code does: generated pages, floors, links, examples, decisions, glossary."""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from dure.client.simulate import run_frames
from dure.errors import all_errors
from dure.federation.plan import plan_of
from dure.guard.rules import RULES, Limits
from dure.hub.entry import main as hub
from dure.standardise.mapping import MappingPlan
from dure.study.document import parse_document
from dure.study.lifecycle import STATES, TRANSITIONS
from dure.study.method import installed_methods
from dure.study.spec import Step, Study

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md"])
DECISIONS = sorted((DOCS / "decisions").glob("*.md"))


def text(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(name), re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """A page's headings as GitHub links to them."""
    body = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", body, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@cache
def generate() -> ModuleType:
    os.environ["DURE_LANGUAGE"] = "en"
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_current() -> None:
    ran = subprocess.run(
        [sys.executable, "docs/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "DURE_LANGUAGE": "ko"},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_a_page_that_is_not_current_is_named(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(generate(), "HERE", tmp_path)
    assert generate().main(["--check"]) == 1
    assert "docs/reference/errors.md" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_every_error_has_its_section() -> None:
    headings = re.findall(r"^## (.+)$", text("reference/errors.md"), re.MULTILINE)
    assert headings == [cls.code() for cls in all_errors()]


def test_every_rule_and_limit_is_documented_and_has_a_place() -> None:
    page = text("reference/rules.md")
    assert set(generate().ENFORCED) == set(RULES)
    assert all(f"`{name}`" in page for name in [*RULES, *Limits.model_fields])


def test_what_is_not_enforced_is_said_loudly() -> None:
    page = text("reference/rules.md").split("## NOT enforced in this version")[1]
    for rule in ("cohorts put together", "membership test", "time grids", "complete cases"):
        assert rule in page


def test_every_method_and_parameter_is_documented() -> None:
    page = text("reference/methods.md")
    for method in installed_methods().values():
        section = page.split(f"## {method.name}\n")[1].split("\n## ")[0]
        assert all(f"`{name}`" in section for name in method.parameters.model_fields)


def test_every_state_and_action_is_documented() -> None:
    page = text("reference/lifecycle.md")
    assert all(f"`{name}`" in page for name in [*STATES, *(t.action for t in TRANSITIONS)])


def test_every_command_is_documented() -> None:
    import typer

    from dure.cli.commands import app

    page = text("reference/cli.md")
    for path, command in generate().walk(typer.main.get_command(app), "dure"):
        section = page.split(f"## {path}\n")[1].split("\n## ")[0]
        names = [parameter.opts[0] for parameter in command.params if parameter.param_type_name == "option"]
        assert [name for name in names if f"`{name}`" not in section and name != "--help"] == []


def test_the_hubs_own_command_is_documented(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        hub(["status", "--help"])
    section = text("reference/cli.md").split("## dure-hub status\n")[1]
    options = set(re.findall(r"--[a-z]+", capsys.readouterr().out)) - {"--help"}
    assert options == set(re.findall(r"--[a-z]+", section))


def contracts() -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read(ROOT / ".importlinter", encoding="utf-8")
    return found


def test_the_floors_are_those_that_are_enforced() -> None:
    layers = contracts()["importlinter:contract:floors"]["layers"]
    floors = blocks("architecture.md", "floors")[0]
    assert [line.strip() for line in floors.splitlines()] == layers.strip().splitlines()


def test_every_room_has_its_sentence() -> None:
    rooms = re.findall(r"^\| `(\w+)` \|", text("architecture.md").split("## Floors")[0], re.MULTILINE)
    layers = contracts()["importlinter:contract:floors"]["layers"]
    assert rooms
    assert set(rooms) == set(re.findall(r"\w+", layers))


def test_the_blind_side_is_the_one_that_is_enforced() -> None:
    contract = contracts()["importlinter:contract:blind-hub"]
    sentence = re.search(r"4\. \*\*The hub is blind\.\*\*(.*?)\n5\.", text("architecture.md"), re.DOTALL)
    assert sentence
    named = {*contract["source_modules"].split(), *contract["forbidden_modules"].split()}
    assert all(f"`{name.removeprefix('dure.')}`" in sentence[1] for name in named)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    body = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", body):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), target
        assert not anchor or anchor in anchors(goal), target


def test_the_map_leads_to_every_page() -> None:
    linked = {(DOCS / target.partition("#")[0]).resolve() for target in re.findall(r"\]\(([^)]+)\)", text("index.md"))}
    assert {page for page in PAGES if page.name != "index.md"} <= linked


def test_the_method_of_write_a_method_runs(capsys: Any) -> None:
    names: dict[str, Any] = {"__name__": "write_a_method"}
    for block in blocks("write-a-method.md", "python"):
        exec(compile(block, "docs/write-a-method.md", "exec"), names)
    assert "61.3" in capsys.readouterr().out
    assert names["method"].name == "mean"


def test_the_plan_of_standardise_is_a_plan() -> None:
    plan = parse_document(blocks("standardise.md", "yaml")[0], MappingPlan)
    assert {column.column for column in plan.columns} <= set(plan.named_columns())


def study() -> Study:
    return parse_document(blocks("studies.md", "yaml")[0], Study)


def further_steps() -> list[list[Step]]:
    return [[Step.model_validate(step) for step in yaml.safe_load(block)] for block in blocks("studies.md", "yaml")[1:]]


def test_the_study_of_studies_can_be_asked() -> None:
    plan_of(study(), installed_methods()).check(("A", "B", "C"))


@pytest.mark.filterwarnings("ignore")
def test_the_steps_of_studies_that_exist_run() -> None:
    random = np.random.default_rng(2)

    def people(n: int) -> pl.DataFrame:
        age, sex = random.normal(60, 9, n), random.choice(["female", "male"], n)
        pressure = random.normal(130, 15, n)
        stroke = random.random(n) < 1 / (1 + np.exp(-0.06 * (age - 60) - 0.02 * (pressure - 130)))
        treated = random.integers(0, 2, n)
        frame = {"age": age, "sex": sex, "pressure": pressure, "stroke": stroke.astype(int), "treated": treated}
        return pl.DataFrame(frame)

    frames = {name: people(150) for name in "ABCD"}
    grants = frozenset(("per_hospital", "difference"))
    ran = []
    for steps in ([*study().steps], *further_steps()):
        known = tuple(step for step in steps if step.method in installed_methods())
        if len(known) == len(steps):
            outcomes, _ = run_frames(frames, known, grants=grants)  # type: ignore[arg-type]
            assert {outcome.status for outcome in outcomes.values()} == {"finished"}
            ran += [step.name for step in steps]
    assert {"model", "validation_without", "stacked"} <= set(ran)


def test_steps_on_paper_are_said_to_be_on_paper() -> None:
    headings = re.split(r"^### ", text("studies.md"), flags=re.MULTILINE)[1:]
    for heading, steps in zip(headings, further_steps(), strict=True):
        absent = {step.method for step in steps} - set(installed_methods())
        assert bool(absent) == ("does not exist yet" in heading.splitlines()[0])


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_has_its_four_headings(page: Path) -> None:
    headings = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == ["Context", "Decision", "What was measured", "When to revisit"]
    assert page.read_text(encoding="utf-8").startswith(f"# {int(page.name[:4])}. ")


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_the_glossary_has_both_languages() -> None:
    lines = [line.strip("| ").split(" | ") for line in text("glossary.md").splitlines() if line.startswith("| ")][1:]
    assert len(lines) >= 60
    for english, korean, meaning in lines:
        assert english
        assert meaning
        assert re.search("[가-힣]", korean), english
    assert len({line[0] for line in lines}) == len(lines)


def test_the_glossarys_words_are_those_of_the_program() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    words = {
        line.split(" | ")[0].strip("| "): line.split(" | ")[1]
        for line in text("glossary.md").splitlines()
        if " | " in line
    }
    for term in ("cohort", "permit", "release", "attrition", "level", "separation", "validation", "audit log", "gate"):
        assert words[term] in source, term


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_path_of_one_machine(page: Path) -> None:
    assert not re.search(r"/(home|root|work|Users|tmp)/", page.read_text(encoding="utf-8"))
