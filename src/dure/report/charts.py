"""A result's own figures: drawn from its released tables as its method says (`dure.study.result.Figure`).

`spec` is Vega-Lite, for whoever draws it again; `drawing` is the same as SVG for the page. Suppressed cells are null
in a released table, and what is null is not drawn.
"""

from __future__ import annotations

import math
from typing import Any

import altair as alt
from markupsafe import Markup

from dure.language import Language, Words
from dure.report.drawing import ACCENT, INK, LINE, MUTED, ems, marks, svg
from dure.report.headings import VALUES
from dure.report.tables import Naming
from dure.report.term_labels import name_words, term_words
from dure.study.result import Figure, Result, Table

SERIES = (ACCENT, "#b4561f", "#3d5a98", "#8b3a62", "#6b7a1f", "#4a6670")
"""One colour a group, told apart in greyscale by order too; the page maps them for dark screens."""
_DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [1, 3])
WIDTH, HEIGHT = 560, 300
MOST_ROWS = 60
"""Rows of a forest or balance plot; more are in the table only."""


def drawable(result: Result) -> dict[str, Figure]:
    """The figures of a result that have something to show."""
    return {
        name: figure
        for name, figure in result.figures.items()
        if figure.table in result.tables
        and len(_rows(figure, result.tables[figure.table], "en", Naming())) > (figure.drawn == "bars")
    }


def spec(figure: Figure, table: Table, language: Language = "en", naming: Naming | None = None) -> dict[str, Any]:
    """Vega-Lite of a figure, its data within."""
    chart: dict[str, Any] = _chart(figure, table, language, naming or Naming()).to_dict()
    return chart


def drawing(figure: Figure, table: Table, language: Language, name: str, naming: Naming | None = None) -> Markup:
    """The figure as SVG; `name` keeps it apart from the page's other figures."""
    chart = _chart(figure, table, language, naming or Naming())
    return svg(chart, figure.title.say(language), f"{name}-{language}")


def _rows(figure: Figure, table: Table, language: Language, naming: Naming) -> list[dict[str, Any]]:
    """What can be drawn: rows whose place is known and finite."""
    across = figure.drawn in ("forest", "dots")
    value = figure.x if across else figure.y
    found = []
    for row in table.frame.iter_rows(named=True):
        shown = {
            "x": row[figure.x],
            "y": row[figure.y],
            "low": row[figure.low] if figure.low else None,
            "high": row[figure.high] if figure.high else None,
            "group": _said(figure.group, row[figure.group], table, row, language, naming) if figure.group else "",
        }
        numbers = [row[value]] + ([] if across else [row[figure.x]] * (figure.drawn != "bars"))
        if any(not isinstance(number, int | float) or not math.isfinite(number) for number in numbers):
            continue
        if figure.log and row[value] <= 0:
            continue
        names = "y" if across else "x"
        if across or figure.drawn == "bars":
            shown[names] = _said(figure.y if across else figure.x, shown[names], table, row, language, naming)
        for end in ("low", "high"):
            if shown[end] is not None and not math.isfinite(shown[end]):
                shown[end] = None
        found.append(shown)
    return found


def _said(column: str, value: Any, table: Table, row: dict[str, Any], language: Language, naming: Naming) -> str:
    if value is None:
        return ""
    korean = row.get(f"{column}_ko")
    if korean is not None:
        return Words(str(value), str(korean)).say(language)
    if str(value) in VALUES and str(value) not in naming.labels:
        return VALUES[str(value)].say(language)
    words = term_words(str(value), naming.labels) if column == "term" else name_words(str(value), naming.labels)
    return words if isinstance(words, str) else words.say(language)


def _chart(figure: Figure, table: Table, language: Language, naming: Naming) -> Any:
    rows = _rows(figure, table, language, naming)
    across = figure.drawn in ("forest", "dots")
    rows = rows[:MOST_ROWS] if across else rows
    if figure.start is not None:
        begin = {"x": figure.start[0], "y": figure.start[1], "low": figure.start[1], "high": figure.start[1]}
        rows = [{**begin, "group": group} for group in dict.fromkeys(row["group"] for row in rows)] + rows
    axis: dict[str, Any] = {
        "labelColor": MUTED, "titleColor": MUTED, "titleFontWeight": "normal", "titleFontSize": 12,
        "labelFontSize": 11, "gridColor": LINE, "domain": False, "ticks": False, "labelPadding": 6,
        "titlePadding": 8, "labelLimit": 240,
    }  # fmt: skip
    groups = list(dict.fromkeys(row["group"] for row in rows))
    colour, dash = _grouped(groups)
    nominal = {"sort": None, "type": "nominal"}
    number: dict[str, Any] = {"type": "quantitative"}
    value = {**number, "scale": alt.Scale(type="log", nice=False) if figure.log else alt.Scale(zero=False, nice=True)}
    if figure.drawn == "bars":
        value["scale"] = alt.Scale(zero=True)
    titles = {"x": figure.x_title.say(language), "y": figure.y_title.say(language)}
    x_kind = value if across else (nominal if figure.drawn == "bars" else {**number, "scale": alt.Scale(nice=True)})
    y_kind = nominal if across else value
    if figure.drawn == "bars":
        axis["labelAngle"] = 0 if sum(ems(row["x"]) + 1 for row in rows) * 11 < WIDTH * max(1, len(groups)) else -35
    x = alt.X("x", axis=alt.Axis(title=titles["x"], grid=across or figure.drawn == "points", **axis), **x_kind)
    y = alt.Y("y", axis=alt.Axis(title=None if across else titles["y"], **axis), **y_kind)
    layers = [*_guides(figure, rows, across)]
    data = marks(rows)
    ends = marks([row for row in rows if row["low"] is not None and row["high"] is not None])
    beside = alt.YOffset("group:N", sort=None) if across else alt.XOffset("group:N", sort=None)
    offset = {"yOffset" if across else "xOffset": beside} if len(groups) > 1 else {}
    if figure.drawn in ("steps", "lines"):
        how = "step-after" if figure.drawn == "steps" else "linear"
        if figure.low:
            layers.append(
                ends.mark_area(interpolate=how, opacity=0.14).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour)
            )
        layers.append(data.mark_line(interpolate=how, strokeWidth=2).encode(x=x, y=y, color=colour, strokeDash=dash))
    elif figure.drawn == "bars":
        layers.append(data.mark_bar(cornerRadiusEnd=2).encode(x=x, y=y, color=colour, **offset))
        if figure.low:
            layers.append(ends.mark_rule(color=INK).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", **offset))
    else:
        if figure.low and across:
            layers.append(
                ends.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q"), x2="high:Q", y=y, color=colour, **offset)
            )
        elif figure.low:
            layers.append(ends.mark_rule(strokeWidth=1.5).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour))
        if figure.drawn == "points":
            layers.append(data.mark_line(strokeWidth=1.5).encode(x=x, y=y, color=colour, strokeDash=dash))
        shape = alt.Shape("group:N", sort=None, legend=None)
        more = {"shape": shape} if len(groups) > 1 else {}
        dots = data.mark_point(filled=True, size=70, opacity=1)
        layers.append(dots.encode(x=x, y=y, color=colour, **more, **(offset if figure.drawn == "forest" else {})))
    lanes = len(dict.fromkeys(row["y"] for row in rows)) * (22 if len(groups) < 2 or figure.drawn == "dots" else 34)
    title = alt.TitleParams(figure.title.say(language), color=INK, fontSize=13, fontWeight=600, anchor="start")
    width = WIDTH if figure.drawn != "bars" else min(WIDTH, 40 + 90 * len(rows))
    return alt.layer(*layers).properties(width=width, height=max(60, lanes) if across else HEIGHT, title=title)


def _grouped(groups: list[str]) -> tuple[Any, Any]:
    """Colours and dashes by group, with a legend where there are several."""
    if len(groups) < 2:
        return alt.value(ACCENT), alt.value([1, 0])
    shown = alt.Legend(
        title=None, orient="top", labelColor=INK, labelFontSize=12, symbolStrokeWidth=2, labelLimit=400, columns=4
    )
    colours = [SERIES[place % len(SERIES)] for place in range(len(groups))]
    dashes = [_DASHES[place % len(_DASHES)] for place in range(len(groups))]
    return (
        alt.Color("group:N", sort=None, scale=alt.Scale(domain=groups, range=colours), legend=shown),
        alt.StrokeDash("group:N", sort=None, scale=alt.Scale(domain=groups, range=dashes), legend=shown),
    )


def _guides(figure: Figure, rows: list[dict[str, Any]], across: bool) -> list[Any]:
    """Thin lines at the declared values, and the diagonal on which predicted is observed."""
    found = []
    for at in figure.rule:
        place = {"x": alt.X("at:Q")} if across else {"y": alt.Y("at:Q")}
        found.append(marks([{"at": at}]).mark_rule(color=MUTED, strokeDash=[4, 4]).encode(**place))
    if figure.diagonal and rows:
        ends = [float(row[side]) for row in rows for side in ("x", "y")]
        low, high = min(ends), max(ends)
        line = marks([{"x": low, "y": low, "x2": high, "y2": high}])
        rule = line.mark_rule(color=MUTED, strokeDash=[4, 4])
        found.append(rule.encode(x=alt.X("x:Q"), y=alt.Y("y:Q"), x2="x2:Q", y2="y2:Q"))
    return found
