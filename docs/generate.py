"""Writes docs/reference from the code: errors, rules, methods, life-cycle and commands.

`python docs/generate.py` writes the pages; with `--check` it writes nothing and exits 1 if one is not current.
"""

from __future__ import annotations

import os

os.environ["DURE_LANGUAGE"] = "en"  # help texts are made on import

import itertools
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).parent))

import accuracy as measures
import numpy as np
import threats
import typer
from pydantic_core import PydanticUndefined

from dure.cli.commands import app
from dure.client.simulate import run_frames
from dure.errors import all_errors
from dure.federation.ledger import Outcome
from dure.federation.rounds import Run
from dure.federation.sums import Left
from dure.guard.rules import DEFAULT, OFF, RULES, Limits
from dure.study.lifecycle import STATES, TRANSITIONS, diagram
from dure.study.method import Example, Method, installed_methods
from dure.study.permit import GRANTS
from dure.study.spec import Step
from dure.study.summary import ArraySpec, Declaration

HERE = Path(__file__).parent / "reference"
ORIGIN = "<!-- Written by docs/generate.py from the code. Change the code, then run `make docs`. -->"

ENFORCED: dict[str, str] = {
    "as_declared": "`guard/gate.py` `check`, at the hospital: names, shapes, whole and non-negative counts, finite "
    "numbers, and zeros in the rows of other hospitals. The hub checks the length of the masked vector "
    "(`federation/secure_sum`).",
    "minimum_cohort": "`guard/gate.py` `check`, at the hospital, on the rows of its cohort.",
    "minimum_hospitals": "`guard/gate.py` `before_rows`, at the hospital; and `federation/rounds.py`, at the hub, "
    "before anybody is asked.",
    "per_hospital_permit": "`guard/gate.py` `check`, at the hospital, for every array declared `per_hospital` or "
    "`opens_hospitals`.",
    "difference_permit": "`guard/gate.py` `before_rows`, at the hospital, for the scope `all_but_one`; and "
    "`federation/rounds.py`, at the hub, which waits (`run-waits`).",
    "history_overlap": "`site/history.py`, at the hospital, before anything is computed and once more as it leaves: "
    "the people of the cohort against those of every earlier answer ([What a hospital remembers](../history.md)). Not "
    "for open questions, which carry noise.",
    "lockout": "`site/history.py`, at the hospital, before anything is read. Counted: studies, each once.",
    "budget": "`site/open_feasibility.py`, at the hospital, before noise is drawn; `guard/budget.py`, OpenDP.",
    "minimum_people": "`guard/gate.py` `check_total`, on the opened total, for count arrays that refuse "
    '(`on_small="refuse"`), with their complements and zeros; `check`, at the hospital, for per-hospital arrays '
    "(withheld cell by cell) and for sums that show single hospitals. Tables suppress on release instead "
    "(`guard/release.py`). A moment is not checked by itself: the counts declared beside it are.",
    "parameters_per_person": "`guard/release.py` `check_model`, before a Result is released or used by a later step.",
    "parameters_per_event": "`guard/release.py` `check_model`, as above, for outcomes of two classes.",
    "round_counts": "`guard/release.py` `release`, for every count column of a table and every fact that counts "
    "people.",
    "numbers_per_person": "`federation/rounds.py` `_within_cap`, over the whole study and what studies of the same "
    "cohort released before (`hub/runs.py`). Counted: numbers in released tables, except columns that restate others. "
    "Not counted: single facts (n, deviance), and what a hospital answers alone (scope `each`). Off in `simulate` and "
    "`dure try`.",
}

NOT_YET: tuple[tuple[str, str, str], ...] = (
    (
        "history of cohorts put together",
        "Nobody learns of a few people by subtracting answers.",
        "Each cohort is compared with each earlier one, not with several together; and people are compared, not their "
        "values ([What a hospital remembers](../history.md#not-protected)).",
    ),
    (
        "membership test for model weights",
        "Weights need secure sum, a minimum of people and a passed membership test (or differential privacy).",
        "Arrays of the kind `weights` pass the same checks as sums of numbers, and no more. Weights reach the hub's "
        "run and the hospitals; `release` removes what is `portable`, so they are not in a released Result.",
    ),
    (
        "time grids",
        "A fine time grid is accepted only where enough people leave in each interval.",
        "`cox` across hospitals refuses such a grid before any risk set leaves, and names a coarser one. `survival` "
        "accepts any grid, and the hub's process sees its counts: released curves stand only where enough events lie "
        "between two points, and medians, restricted means and tests are told only of groups with enough people and "
        "events.",
    ),
    (
        "people behind a single statistic",
        "Every released number has enough people behind it.",
        "Tables declare who stands behind a column; single facts do not. dure's own methods tell tests, medians, means "
        "and contrasts only of groups with enough people and events; another package's method has to be as careful. "
        "With weights an effective size is asked too, but nobody watches weights or offsets with which one person "
        "outweighs all others in a model.",
    ),
    (
        "resolution of quantiles",
        "Quantiles at a declared resolution, never a minimum or a maximum.",
        "`quantiles`, `table_one` and `survival` tell multiples of what was declared, with enough people on both "
        "sides. How fine a resolution may be is for boards to judge: one finer than people's distances tells a "
        "person's value. No rule watches other packages' methods.",
    ),
    (
        "people behind a difference of columns",
        "A dummy of three people never yields a released model.",
        "Found in any single column, however it is coded (counts, or the spread of nearly two values). Not found in "
        "the difference of two columns of numbers.",
    ),
    (
        "complete cases of formulas",
        "Analyses that differ by fewer than 10 people are refused.",
        "A formula that is undefined for a few people (`log(5 - x)`) leaves them out, and nothing compares it with the "
        "same formula without that term.",
    ),
)


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]] | list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def errors() -> str:
    parts = [
        "# Errors",
        "Every error says three things: what happened, why, and what to do now. The heading is the error's code, as "
        "the command line prints it. `{names}` are filled in when the error happens; they are names of columns, steps, "
        "files or rules, never a patient's value.",
    ]
    for cls in all_errors():
        parts.append(f"## {cls.code()}")
        above = cls.__mro__[1]
        inside = f" Part of [`{above.code()}`](#{above.code()})." if cls is not all_errors()[0] else ""
        own = (cls.__doc__ or "").strip().split("\n")[0]
        parts.append(f"`dure.errors.{cls.__name__}`.{inside}{' ' + own if own else ''}")
        if "what" not in vars(cls):
            parts.append("A group: the errors in it say what happened.")
            continue
        sentences = {"What happened": cls.what, "Why": cls.why, "What to do": cls.remedy}
        rows = [(name, _template(words.en), _template(words.ko)) for name, words in sentences.items()]
        parts.append(table(("", "English", "한국어"), rows))
    return "\n\n".join(parts)


def _template(text: str) -> str:
    return "(told by the case)" if text in ("{problem}", "{problem}.", "{reason}", "{hint}", "{way_out}") else text


def rules() -> str:
    places = {"site": "hospital", "total": "opened total", "release": "release"}
    said = [
        (
            f"`{rule.name}`",
            places[rule.where],
            f"{rule.says.en}<br>{rule.says.ko}",
            f"{rule.way_out.en}<br>{rule.way_out.ko}",
        )
        for rule in RULES.values()
    ]
    limits = [
        (f"`{name}`", f"{getattr(DEFAULT, name):g}", described(field)) for name, field in Limits.model_fields.items()
    ]
    return "\n\n".join(
        [
            "# Rules",
            "What may leave a hospital and what may be released. The rules are data in `dure.guard.rules`; the gate "
            "is `dure.guard.gate`; release is `dure.guard.release`. A refusal tells the researcher the rule and "
            "the way out, never a count. Where a hospital refused, the cell and the count stay in its audit log.",
            "## The rules of this version",
            table(("rule", "where", "what it says", "what would pass"), said),
            "## Limits",
            "A hospital may tighten any of them in `limits:` of its `site.yaml`, never loosen one.",
            table(("limit", "default", "meaning"), limits),
            "## Where each rule is enforced",
            table(("rule", "place in the code"), [(f"`{name}`", ENFORCED[name]) for name in RULES]),
            "## Permissions in a permit",
            table(
                ("permission", "English", "한국어"),
                [(f"`{name}`", words.en, words.ko) for name, words in GRANTS.items()],
            ),
            "## NOT enforced in this version",
            "These belong to the alliance's rule set, and this version does **not** enforce them. A board that needs "
            "one of them must not rely on this software for it.",
            table(("rule", "what it asks", "what this version does"), list(NOT_YET)),
        ]
    )


class Recorded:
    """A method that notes what it declares."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self.specs: dict[str, ArraySpec] = {}

    def declare(self, question: Any, state: Any) -> Declaration:
        declaration = self._method.declare(question, state)
        self.specs |= {spec.name: spec for spec in declaration}
        return declaration

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)


LAWS = {
    "lossless": "lossless: any split of the people over hospitals gives the pooled answer",
    "by_hospital": "by hospital: equals a pooled analysis that keeps `site`",
    "approximate": "approximate: not the pooled answer; it has tests of its own",
}


def methods() -> str:
    parts = [
        "# Methods",
        "Every method that this installation offers, with its parameters and with what each hospital sends in each "
        "round. The arrays are those of the method's own example, with its people split over four hospitals; shapes "
        "follow from the question, never from the people. An array marked *per hospital* has one row for each "
        "hospital and travels with a companion (`….withheld`) that says which numbers were withheld.",
    ]
    for method in installed_methods().values():
        module = type(method).__module__
        if not module.startswith(("dure.", "dure_network")):
            continue
        outside = "" if module.startswith("dure.") else " It comes from the example package `dure-network`."
        parts += [
            f"## {method.name}",
            f"{method.title.en} · {method.title.ko}. {method.about.en}{outside}",
            method.about.ko,
            f"Law: {LAWS[method.law]}.",
            table(("parameter", "default", "meaning"), list(_parameters(method))),
            *_rounds(method),
        ]
    return "\n\n".join(parts)


def _parameters(method: Method) -> Iterator[tuple[str, ...]]:
    for name, field in method.parameters.model_fields.items():
        default = "required" if field.default is PydanticUndefined else f"`{field.default!r}`"
        yield f"`{name}`", default, described(field)


def described(field: Any) -> str:
    """A field's description in both languages, where it has both."""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    return "<br>".join(str(words) for words in (field.description, extra.get("ko")) if words)


@cache
def _asked(method: Method) -> tuple[Outcome, Run, Recorded, Example]:
    """The method's example asked of four hospitals."""
    example = method.example(np.random.default_rng(0))
    frames = {name: example.frame[i::4] for i, name in enumerate("ABCD")}
    recorded = Recorded(method)
    step = Step(name="step", method=method.name, parameters=dict(example.parameters))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        outcomes, run = run_frames(frames, (step,), OFF, methods={method.name: recorded})  # type: ignore[dict-item]
    return outcomes["step"], run, recorded, example


def _rounds(method: Method) -> list[str]:
    """The example's parameters, its derived columns, and what left one of four hospitals."""
    outcome, run, recorded, example = _asked(method)
    left = [item for item in outcome.left if item.hospital == "A"]
    rows = [
        (span, f"`{item.array}`", "×".join(map(str, item.shape)) or "1", *_kind(recorded.specs.get(item.array)))
        for span, items in _spans(left)
        for item in items
    ]
    derived = method.derives(run.plan.question(run.plan.steps[0], run.hospitals))
    parts = [
        "Example: " + ", ".join(f"`{name}: {value}`" for name, value in example.parameters.items())
        if example.parameters
        else "Example: no parameters.",
        table(("round", "array", "shape", "kind", "people behind it", "shows one hospital"), rows),
    ]
    if derived:
        names = ", ".join(f"`{name}` ({column.kind})" for name, column in derived.items())
        parts.append(f"Columns that stay at each hospital for later steps: {names}.")
    return parts


def _kind(spec: ArraySpec | None) -> tuple[str, str, str]:
    if spec is None:
        return "count", "", "yes: which numbers were withheld"
    people = ", ".join(f"`{name}`" for name in spec.people) or ("itself" if spec.kind == "count" else "")
    return spec.kind, people, "yes" if spec.per_hospital else ""


def _spans(left: list[Left]) -> Iterator[tuple[str, list[Left]]]:
    """Rounds that send the same arrays, together."""
    rounds = [(number, list(items)) for number, items in itertools.groupby(left, key=lambda item: item.round)]

    def arrays(entry: tuple[int, list[Left]]) -> list[tuple[str, tuple[int, ...]]]:
        return [(item.array, item.shape) for item in entry[1]]

    for _, group in itertools.groupby(rounds, key=arrays):
        same = list(group)
        first, last = same[0][0] + 1, same[-1][0] + 1
        yield (str(first) if first == last else f"{first}–{last}"), same[0][1]


def accuracy() -> str:
    """Method × oracle × difference × law × rounds × what leaves × rules × cost."""
    ran = {}
    for method in installed_methods().values():
        if type(method).__module__.startswith("dure.methods"):
            outcome = _asked(method)[0]
            own = [item for item in outcome.left if item.hospital == "A"]
            ran[method.name] = {
                "law": method.law,
                "rounds": outcome.folds[None].rounds,
                "numbers": sum(item.bytes // 8 for item in own),
                "rules": sorted({rule for item in own for rule in item.rules}),
            }
    return measures.page(ran, table)


def lifecycle() -> str:
    states = [
        (f"`{state}`", words.en, words.ko, turn or "nobody: it is over") for state, (words, turn) in STATES.items()
    ]
    moves = [(f"`{t.before}`", f"`{t.action}`", t.role, f"`{t.after}`") for t in TRANSITIONS]
    return "\n\n".join(
        [
            "# The life of a study",
            "Every state, who may move a study on, and whose turn it is. The table is `dure.study.lifecycle`; an "
            "action that is not in it raises [`lifecycle-error`](errors.md#lifecycle-error).",
            f"```mermaid\n{diagram()}\n```",
            "## States",
            table(("state", "English", "한국어", "whose turn"), states),
            "## Actions",
            table(("from", "action", "by", "to"), moves),
            "Each hospital has a review of its own inside `in_review`: two gates, then its answer (`permitted`, "
            "`changes_asked`, `declined`, later perhaps `withdrawn`). Which command does what: "
            "[who decides](../governance.md).",
        ]
    )


def cli() -> str:
    parts = [
        "# Commands",
        "Options of `dure` itself stand before the command: `dure --language ko methods`. Only `--debug` may also "
        "stand after it. `DURE_LANGUAGE=ko` (or `en`) sets the language for every command. Exit codes: 0 done; 1 an "
        "error; 2 wrong usage; 3 done, but something could not be answered, which was said; 130 stopped by the user.",
    ]
    for path, command in walk(typer.main.get_command(app), "dure"):
        parts += [f"## {path}", str(command.help)]
        if getattr(command, "commands", None) and path != "dure":
            continue
        rows = [_option(parameter) for parameter in command.params if parameter.name != "help"]
        if rows:
            parts.append(table(("name", "default", "meaning"), rows))
    parts += [
        "## dure-hub status",
        "The hub's own program, which never loads what reads rows. `--store FILE` (required) is the hub's file; "
        "`--json` prints every study with its state, the answer of each hospital, and the status of each step.",
    ]
    return "\n\n".join(parts)


def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from walk(inner, f"{path} {name}")


def _option(parameter: Any) -> tuple[str, str, str]:
    name = parameter.opts[0] if parameter.param_type_name == "option" else parameter.name.upper()
    choices = get_args(getattr(getattr(parameter, "type_descriptor", None), "annotation", None))
    known = [choice for choice in choices if isinstance(choice, str)]
    default: object = "required" if parameter.required else parameter.default
    shown = {None: "none", False: "off", "": "none"}.get(default, str(default))  # type: ignore[call-overload]
    meaning = str(getattr(parameter, "help", None) or "")
    return f"`{name}`", shown, meaning + (f" ({', '.join(known)})" if known else "")


PAGES: Mapping[str, Callable[[], str]] = {
    "errors": errors,
    "rules": rules,
    "methods": methods,
    "accuracy": accuracy,
    "lifecycle": lifecycle,
    "permissions": threats.permissions,
    "cli": cli,
}


def pages() -> dict[Path, str]:
    """Every generated page as it should be."""
    found = {HERE / f"{name}.md": make for name, make in PAGES.items()}
    found[HERE.parent / "threat-model.md"] = threats.page
    return {path: f"{ORIGIN}\n\n{make().rstrip()}\n" for path, make in found.items()}


def main(arguments: list[str]) -> int:
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            place = "docs/reference" if path.parent == HERE else "docs"
            print(f"not current: {place}/{path.name}; run: make docs", file=sys.stderr)
        return 1 if stale else 0
    HERE.mkdir(parents=True, exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    print(f"{len(PAGES)} pages, {len(stale)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
