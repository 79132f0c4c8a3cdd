"""Table 1 as papers print it: one column a group, mean (SD), median [quartiles] or count (%), and who is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dure.language import Words
from dure.report import numerals
from dure.report.phrases import HEADINGS, phrase
from dure.report.tables import Cell, Grid, Heading, Naming, grid, reason_title
from dure.report.term_labels import level_words, name_words
from dure.study.result import Table

_NEEDED = frozenset({"variable", "level", "group", "n"})

Row = tuple[int, Mapping[str, Any]]
"""Its place in the table (withheld cells are known by it) and its values."""


def table_one(
    table: Table, caption: Words, naming: Naming, by: str = "", differences: Mapping[str, float | None] | None = None
) -> Grid:
    """Wide where the table has one row per variable, level and group (of column `by`); else as it is.

    `differences`: variable → standardised mean difference between the groups, shown in a column of its own.
    """
    if not set(table.frame.columns) >= _NEEDED:
        return grid(table, caption, naming)
    rows: list[Row] = list(enumerate(table.frame.iter_rows(named=True)))
    groups = list(dict.fromkeys(str(row["group"]) for _, row in rows))
    by_line: dict[tuple[str, str | None], dict[str, Row]] = {}
    for place, row in rows:
        by_line.setdefault((row["variable"] or "", row["level"]), {})[str(row["group"])] = place, row
    lines = []
    for variable in dict.fromkeys(variable for variable, _ in by_line):
        levels = [(level, cells) for (name, level), cells in by_line.items() if name == variable]
        found = [(_level(variable, level, naming), cells) for level, cells in levels]
        written = [(words, [_value(table, cells.get(group)) for group in groups]) for words, cells in found]
        middle = [_median(table, cells.get(group)) for _, cells in levels[:1] for group in groups]
        if any(cell.text for cell in middle):
            written.append((phrase("median_quartiles"), middle))
        gone = [_missing(table, [cells[group] for _, cells in levels if group in cells]) for group in groups]
        if any(cell.text not in {"", "0"} for cell in gone):
            written.append((HEADINGS["missing"], gone))
        for number, (words, cells) in enumerate(written):
            line = []
            if number == 0:
                head = name_words(variable, naming.labels) if variable else HEADINGS["n"]
                line.append(Cell(head, heads=True, span=len(written)))
            lines.append((*line, Cell(words, heads=True), *cells, *_difference(variable, number, differences)))
    headings = (
        Heading(naming.heading("variable")),
        Heading(""),
        *(Heading(_group(group, by, naming), number=True) for group in groups),
        *((Heading(HEADINGS["smd"], number=True),) if differences else ()),
    )
    return Grid(caption, headings, tuple(lines))


def _difference(variable: str, number: int, differences: Mapping[str, float | None] | None) -> tuple[Cell, ...]:
    if not differences:
        return ()
    value = differences.get(variable) if number == 0 else None
    return (Cell("" if value is None else f"{value:.2f}", number=True),)


def _group(group: str, by: str, naming: Naming) -> Words:
    if group in {"", "all", "overall"}:
        return phrase("all_people")
    if not by:
        return name_words(group, naming.labels)
    level = level_words(by, group, naming.labels)
    if f"{by}:{group}" in naming.labels or by == "site":
        return level
    of = name_words(by, naming.labels)
    return Words(f"{of.en}: {level.en}", f"{of.ko}: {level.ko}")


def _level(variable: str, level: str | None, naming: Naming) -> Words | str:
    if level is not None:
        return level_words(variable, level, naming.labels)
    return phrase("mean_sd") if variable else ""


def _value(table: Table, found: Row | None) -> Cell:
    if found is None:
        return Cell("", number=True)
    place, row = found
    reason = table.withheld.get((place, "n"))
    if reason is not None:
        return Cell(reason, number=True, withheld=True, title=reason_title(reason))
    if row.get("mean") is not None:
        spread = f" ({numerals.significant(row['sd'])})" if row.get("sd") is not None else ""
        return Cell(f"{numerals.significant(row['mean'])}{spread}", number=True)
    if row["n"] is None:
        return Cell("", number=True)
    percent = f" ({row['percent']:.0f}%)" if row.get("percent") is not None else ""
    return Cell(f"{numerals.count(row['n'])}{percent}", number=True)


def _median(table: Table, found: Row | None) -> Cell:
    """Median [first – third quartile]; what was withheld of them shows as its mark."""
    if found is None or "median" not in table.frame.columns:
        return Cell("", number=True)
    place, row = found
    said: dict[str, str] = {}
    reasons: list[str] = []
    for name in ("median", "q1", "q3"):
        reason = table.withheld.get((place, name))
        if reason is not None:
            reasons.append(reason)
        said[name] = (
            reason if reason is not None else ("" if row[name] is None else f"{row[name]:,.10g}".replace("-", "−"))
        )
    if not any(said.values()):
        return Cell("", number=True)
    if len(reasons) == 3:
        return Cell(reasons[0], number=True, withheld=True, title=reason_title(reasons[0]))
    title = reason_title(reasons[0]) if reasons else ""
    return Cell(f"{said['median']} [{said['q1']} – {said['q3']}]", number=True, withheld=bool(reasons), title=title)


def _missing(table: Table, rows: list[Row]) -> Cell:
    """Missing people stand on every level's row or on one; the largest statement is the variable's."""
    for place, _ in rows:
        reason = table.withheld.get((place, "missing"))
        if reason is not None:
            return Cell(reason, number=True, withheld=True, title=reason_title(reason))
    counts = [row["missing"] for _, row in rows if row.get("missing") is not None]
    return Cell(numerals.count(max(counts)) if counts else "", number=True)
