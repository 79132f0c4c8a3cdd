"""Released results as files a person can use: CSV and Parquet tables, one JSON with everything, one HTML page.

What stands beside the numbers: the parameters with their defaults, hashes of method source, parameters and result,
versions, what was refused, suppressed or rounded, and a paragraph for a paper's methods section.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

from dure.errors import InvalidParameter
from dure.language import LANGUAGES, Language, Words
from dure.report import charts
from dure.report.result_page import Section, page
from dure.report.tables import Naming
from dure.study.result import Result, Table, pack_result

Format = Literal["csv", "parquet", "json", "html"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class Answered:
    """One released Result (or why there is none) and everything a reader needs to judge and to repeat it."""

    name: str
    method: str
    title: Words
    parameters: Mapping[str, Any]
    hospitals: tuple[str, ...]
    rounds: int
    result: Result | None
    error: Words | None = None
    fold: str = ""
    refused: Mapping[str, Words] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    rounded_to: int = 1

    @property
    def label(self) -> str:
        return ".".join(filter(None, (self.name, self.fold)))


def hashes(parameters: Mapping[str, Any], result: Result | None, **more: str) -> dict[str, str]:
    """SHA-256 of the parameters and of the released result, beside those given."""
    text = json.dumps(parameters, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    found = {**more, "parameters": "sha256:" + hashlib.sha256(text.encode()).hexdigest()}
    if result is not None:
        found["result"] = "sha256:" + hashlib.sha256(pack_result(result)).hexdigest()
    return found


def changed(result: Result, rounded_to: int) -> list[dict[str, Any]]:
    """What the release rules did to each table: columns that were rounded, cells that were suppressed."""
    found = []
    for name, table in result.tables.items():
        suppressed = [
            {"row": row, "column": column, "shown": shown} for (row, column), shown in sorted(table.withheld.items())
        ]
        rounded = [column for column in table.counts if rounded_to > 1]
        if rounded or suppressed:
            found.append({"table": name, "rounded": rounded, "rounded_to": rounded_to, "suppressed": suppressed})
    return found


def paragraph(answered: Answered, language: Language = "en") -> str:
    """The methods section's sentences with numbered references, or nothing where the method has none."""
    result = answered.result
    if result is None or result.paragraph is None:
        return ""
    number = answered.versions.get("dure", version("dure"))
    count = len(answered.hospitals)
    shared = Words(
        f"The analysis was federated over {count} hospitals with dure {number}: each hospital summarised its own "
        f"patients, and only these summaries were used; no patient-level data left a hospital.",
        f"분석은 dure {number}를 사용해 병원 {count}곳에서 연합 방식으로 수행하였다. 각 병원이 자기 환자를 요약한 값만 "
        f"분석에 사용하였으며, 환자 단위 자료는 병원 밖으로 나가지 않았다.",
    )
    lines = [f"{result.paragraph.say(language)} {shared.say(language)}"]
    lines += [f"[{place}] {work}" for place, work in enumerate(result.references, start=1)]
    return "\n".join(lines)


def as_data(answered: Answered, naming: Naming) -> dict[str, Any]:
    """Everything of one answer as plain data; tables as rows, figures as Vega-Lite in both languages."""
    result = answered.result
    found: dict[str, Any] = {
        "step": answered.name,
        "fold": answered.fold or None,
        "method": answered.method,
        "parameters": dict(answered.parameters),
        "hospitals": list(answered.hospitals),
        "rounds": answered.rounds,
        "hashes": dict(answered.hashes),
        "versions": dict(answered.versions),
        "refused": {
            **{place: {"en": words.en, "ko": words.ko} for place, words in answered.refused.items()},
            **({"": {"en": answered.error.en, "ko": answered.error.ko}} if answered.error else {}),
        },
    }
    if result is None:
        return found
    return found | {
        "facts": dict(result.facts),
        "tables": {name: table.frame.to_dicts() for name, table in result.tables.items()},
        "changed": changed(result, answered.rounded_to),
        "figures": {
            name: {
                language: charts.spec(figure, result.tables[figure.table], language, naming) for language in LANGUAGES
            }
            for name, figure in charts.drawable(result).items()
        },
        "notes": [{"en": note.en, "ko": note.ko} for note in result.notes],
        "paragraph": {language: paragraph(answered, language) for language in LANGUAGES},
        "references": list(result.references),
    }


def write(
    answers: Sequence[Answered],
    folder: Path,
    formats: Collection[Format] = FORMATS,
    more: Mapping[str, Any] | None = None,
    title: Words | None = None,
    labels: Mapping[str, Words] | None = None,
) -> list[Path]:
    """The answers as files in `folder`; their paths. Raises InvalidParameter for an unknown format.

    `<step>.<table>.csv` and `.parquet`; `result.json` with `more` beside the answers; `result.html`. `labels` names
    columns on the page and in figures; tables keep the columns' own names.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        known = ", ".join(FORMATS)
        problem = Words(f"'{unknown[0]}' is not one of: {known}", f"'{unknown[0]}'은(는) 다음에 없습니다: {known}")
        raise InvalidParameter(method="write", parameter="formats", problem=problem)
    folder.mkdir(parents=True, exist_ok=True)
    naming = Naming(labels or {})
    paths: list[Path] = []
    for answered in answers:
        for name, table in (answered.result.tables if answered.result else {}).items():
            paths += _tables(table, folder / f"{answered.label}.{name}", formats)
    if "json" in formats:
        data = {**(more or {}), "answers": [as_data(answered, naming) for answered in answers]}
        text = json.dumps(_finite(data), ensure_ascii=False, indent=1, default=str, allow_nan=False)
        paths.append(_write(folder / "result.json", text))
    if "html" in formats:
        named = title or (answers[0].title if len(answers) == 1 else None)
        sections = [section(answered) for answered in answers]
        paths.append(_write(folder / "result.html", page(sections, named, naming=naming)))
    return paths


def section(answered: Answered) -> Section:
    """The answer as a part of the HTML page."""
    result = answered.result
    return Section(
        name=answered.label,
        title=answered.title,
        result=result,
        error=answered.error,
        parameters={name: _short(value) for name, value in answered.parameters.items() if value is not None},
        hospitals=answered.hospitals,
        rounds=answered.rounds,
        refused=answered.refused,
        rounded_to=answered.rounded_to,
        paragraph=Words(paragraph(answered, "en"), paragraph(answered, "ko")) if paragraph(answered) else None,
        hashes=answered.hashes,
        versions=answered.versions,
    )


def _tables(table: Table, stem: Path, formats: Collection[Format]) -> list[Path]:
    paths = []
    if "csv" in formats:
        paths.append(stem.with_name(f"{stem.name}.csv"))
        table.frame.write_csv(paths[-1])
    if "parquet" in formats:
        paths.append(stem.with_name(f"{stem.name}.parquet"))
        table.frame.write_parquet(paths[-1])
    return paths


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _finite(value: Any) -> Any:
    """JSON has no infinity and no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None if value != value else str(value)
    return value
