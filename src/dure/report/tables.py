"""A result's table as a semantic HTML table: headings in both languages, withheld cells that say why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from dure.language import Words
from dure.report import numerals
from dure.report.headings import VALUES
from dure.report.phrases import HEADINGS, phrase
from dure.report.term_labels import level_words, name_words, term_words
from dure.study.result import Table

Text = Words | str


@dataclass(frozen=True)
class Cell:
    """What one cell shows: a text, or a `bar` (0 to 1, its share of the longest); `span` is the rows it heads."""

    text: Text
    number: bool = False
    withheld: bool = False
    title: str = ""
    bar: float | None = None
    heads: bool = False
    span: int = 1


@dataclass(frozen=True)
class Heading:
    text: Text
    number: bool = False
    bars: bool = False


@dataclass(frozen=True)
class Grid:
    """A table ready to be written: headings, and rows whose first cells head them."""

    caption: Text
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def grouped(self) -> bool:
        return any(cell.span > 1 for row in self.rows for cell in row)


@dataclass(frozen=True)
class Naming:
    """Labels of columns, levels and texts, and headings of columns, that the study brings along."""

    labels: Mapping[str, Words] = field(default_factory=dict)
    headings: Mapping[str, Words] = field(default_factory=dict)

    def heading(self, column: str) -> Words:
        return self.headings.get(column) or HEADINGS.get(column) or name_words(column, self.labels)


def bilingual(text: Text) -> Markup:
    """Both languages side by side, each marked; the page shows one of them."""
    if isinstance(text, str):
        return escape(text)
    if text.en == text.ko:
        return escape(text.en)
    return Markup('<span lang="en">{}</span><span lang="ko">{}</span>').format(text.en, text.ko)


def html(grid: Grid) -> Markup:
    """The grid as a table in a scrolling region that can be reached by keyboard."""
    return Markup(templates().get_template("table.html.j2").render(grid=grid))


def table_html(table: Table, caption: Words, naming: Naming | None = None, bar: str | None = None) -> Markup:
    """A Table as HTML; `bar` names the column to draw bars in."""
    return html(grid(table, caption, naming or Naming(), bar))


def grid(table: Table, caption: Words, naming: Naming, bar: str | None = None) -> Grid:
    """Any Table: text columns in front head the rows; `x` and `x_ko` are one column in two languages."""
    columns = _columns(table)
    lead = _leading(table, columns)
    rows = []
    for row in range(table.frame.height):
        cells = []
        for number, column in enumerate(columns):
            span = _span(table, column, row) if number == 0 and lead > 1 else 1
            if span:
                cells.append(_cell(table, row, column, naming, number < lead, span))
            if column == bar:
                cells.append(bar_cell(table.frame[row, column], _largest(table, column)))
        rows.append(tuple(cells))
    headings = []
    for column in columns:
        headings.append(Heading(naming.heading(column), _is_number(table, column)))
        if column == bar:
            headings.append(Heading(HEADINGS["share"], bars=True))
    return Grid(caption, tuple(headings), tuple(rows))


def bar_cell(value: float | None, longest: float) -> Cell:
    """A bar beside its number; a withheld number has none."""
    return Cell("", bar=value / longest if value is not None and longest else 0.0)


def coefficients(table: Table, caption: Words, naming: Naming, ratio: Words | None) -> Grid:
    """The regression table as papers print it: ratio and interval first, then coefficient, error and p."""
    frame = table.frame
    head = [Heading(naming.heading("term"))]
    if ratio is not None:
        head += [Heading(ratio, number=True), Heading(naming.heading("ci"), number=True)]
    head.append(Heading(naming.heading("estimate"), number=True))
    if ratio is None:
        head.append(Heading(naming.heading("ci"), number=True))
    others = [name for name in ("std_error", "p_value") if name in frame.columns]
    head += [Heading(naming.heading(name), number=True) for name in others]
    rows = []
    for number, row in enumerate(frame.iter_rows(named=True)):
        cells = [Cell(term_words(str(row["term"]), naming.labels), heads=True)]
        hidden = table.withheld.get((number, "estimate"))
        low, high = row.get("ci_low"), row.get("ci_high")
        if ratio is not None:
            plain = hidden is None and row["estimate"] is not None
            text = numerals.ratio(_exp(row["estimate"])) if plain else "–"
            cells.append(Cell(text, number=True))
            cells.append(_interval(low, high, exponentiate=True))
        cells.append(_cell(table, number, "estimate", naming))
        if ratio is None:
            cells.append(_interval(low, high, exponentiate=False))
        cells += [_cell(table, number, name, naming) for name in others]
        rows.append(tuple(cells))
    return Grid(caption, tuple(head), tuple(rows))


def plain_grid(
    caption: Words, columns: Sequence[str], rows: Sequence[Sequence[Cell]], naming: Naming | None = None
) -> Grid:
    """A grid of the report's own cells; a column is right-aligned where its first cell is a number."""
    naming = naming or Naming()
    first = rows[0] if rows else [Cell("")] * len(columns)
    headings = tuple(
        Heading(naming.heading(name), cell.number, cell.bar is not None) for name, cell in zip(columns, first)
    )
    return Grid(caption, headings, tuple(tuple(row) for row in rows))


def reason_title(shown: str) -> str:
    """What a withheld cell's short mark means, in both languages, for its title."""
    words = phrase("beside") if shown in {"–", "-", ""} else phrase("small", shown=shown)
    return f"{words.en} · {words.ko}" if len(shown) <= 8 else shown


@cache
def templates() -> Environment:
    """Read once: compiling a template takes longer than filling it."""
    found = Environment(
        loader=PackageLoader("dure.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["both"] = bilingual
    return found


def _columns(table: Table) -> list[str]:
    names = table.frame.columns
    return [name for name in names if not (name.endswith("_ko") and name[:-3] in names)]


def _leading(table: Table, columns: list[str]) -> int:
    """How many text columns stand in front; at least one column heads the rows."""
    lead = 0
    for column in columns[:2]:
        if _is_number(table, column):
            break
        lead += 1
    return max(1, lead)


def _is_number(table: Table, column: str) -> bool:
    return table.frame[column].dtype.is_numeric()


def _span(table: Table, column: str, row: int) -> int:
    """Rows that the first column's value heads, 0 where the row above says it already."""
    values = table.frame[column].to_list()
    if row and values[row - 1] == values[row]:
        return 0
    span = 1
    while row + span < len(values) and values[row + span] == values[row]:
        span += 1
    return span


def _cell(table: Table, row: int, column: str, naming: Naming, heads: bool = False, span: int = 1) -> Cell:
    if (row, column) in table.withheld:
        shown = table.withheld[row, column]
        number = _is_number(table, column)
        return Cell(shown, number=number, withheld=True, title=reason_title(shown), heads=heads, span=span)
    value = table.frame[row, column]
    if not _is_number(table, column):
        return Cell(_text(table, row, column, value, naming), heads=heads, span=span)
    return Cell(_number(table, column, value), number=True, heads=heads, span=span)


def _largest(table: Table, column: str) -> float:
    return max((value for value in table.frame[column].to_list() if value is not None), default=0.0)


def _text(table: Table, row: int, column: str, value: Any, naming: Naming) -> Text:
    if value is None or value == "":
        return ""
    if f"{column}_ko" in table.frame.columns:
        return Words(str(value), str(table.frame[row, f"{column}_ko"] or value))
    if column == "term":
        return term_words(str(value), naming.labels)
    if column == "level" and "variable" in table.frame.columns:
        return level_words(str(table.frame[row, "variable"]), str(value), naming.labels)
    if column in ("arm", "measure", "model", "preference", "sample", "set", "strategy") and str(value) in VALUES:
        return VALUES[str(value)]
    return name_words(str(value), naming.labels) if str(value) in naming.labels else str(value)


def _number(table: Table, column: str, value: Any) -> str:
    if value is None:
        return ""
    if column.endswith("p_value"):
        return numerals.p_value(value)
    if column in table.counts or table.frame[column].dtype.is_integer():
        return numerals.count(value)
    if "percent" in column:
        return f"{value:.1f}"
    return numerals.significant(value)


def _interval(low: float | None, high: float | None, *, exponentiate: bool) -> Cell:
    if low is None or high is None:
        return Cell("–", number=True)
    if exponentiate:
        return Cell(numerals.interval(_exp(low), _exp(high)), number=True)
    return Cell(f"{numerals.significant(low)} – {numerals.significant(high)}", number=True)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
