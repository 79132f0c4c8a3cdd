"""The report's three figures: forest plot, AUROC matrix, calibration; each a specification drawn per language."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import altair as alt
from markupsafe import Markup

from dure.language import Language
from dure.report import numerals
from dure.report.drawing import ACCENT, HATCH, INK, LINE, LOCAL, MUTED, PALE, SURFACE, ems, marks, svg, wrapped
from dure.report.phrases import phrase
from dure.report.story import AurocCell, CalibrationSeries, ForestPoint, ForestRow

SHAPES = ("square", "triangle-up", "triangle-down", "cross", "triangle-right", "triangle-left")
_TICKS = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 1000)

_WIDTH, _PLOT_FROM, _PLOT_TO = 760, 200, 600
_FIRST_LANE, _LANE, _GAP, _LINE_HEIGHT = 18, 14, 14, 16
_HALOED: tuple[dict[str, Any], ...] = ({"color": SURFACE, "stroke": SURFACE, "strokeWidth": 5}, {"color": MUTED})
"""Text over grid lines is drawn twice, first as a wide outline in the colour of the ground."""


def forest(rows: tuple[ForestRow, ...], language: Language) -> Markup:
    """Ratios on a log axis: federated and pooled share a lane, hospitals follow in lanes of their own."""
    low, high = _domain(rows)
    scale = alt.Scale(type="log", domain=[low, high], range=[_PLOT_FROM, _PLOT_TO], nice=False)
    hospitals = _local_names(rows, language)
    top = _legend_height(hospitals, rows, language)
    drawn: list[dict[str, Any]] = []
    separators: list[dict[str, Any]] = []
    y = top + 30.0
    for number, row in enumerate(rows):
        if number:
            separators.append({"y": y - _GAP / 2})
        lines = wrapped(row.label.say(language), (_PLOT_FROM - 14) / 13)
        lanes = _lanes(row)
        for lane, points in enumerate(lanes):
            middle = y + _FIRST_LANE / 2 if lane == 0 else y + _FIRST_LANE + _LANE * (lane - 0.5)
            for point in points:
                drawn.append(_mark(point, middle, low, high, hospitals, language))
        drawn.append({"what": "label", "y": y + _FIRST_LANE / 2, "text": lines})
        y += max(_FIRST_LANE + _LANE * (len(lanes) - 1), _LINE_HEIGHT * len(lines)) + _GAP
    height = y - _GAP / 2

    def layer(*kinds: str) -> Any:
        return marks([entry for entry in drawn if entry["what"] in kinds])

    ticks = [tick for tick in _TICKS if low <= tick <= high]
    axis = alt.Axis(
        values=ticks, format="~g", title=None, domain=False, ticks=False, labelColor=MUTED, labelFontSize=12,
        labelPadding=6, grid=False, labelOverlap=False,
    )  # fmt: skip
    x, at = alt.X("low:Q", scale=scale, axis=axis), alt.Y("y:Q", scale=None, axis=None)
    estimate = alt.X("estimate:Q", scale=scale, axis=axis)
    shape = alt.Shape("shape:N", scale=None)
    heads = [
        {"x": _PLOT_FROM, "text": phrase("effect").say(language), "align": "left"},
        {"x": _WIDTH, "text": f"{phrase('federated').say(language)} ({phrase('confidence').say(language)})"},
    ]
    layers = [
        marks(separators).mark_rule(color=LINE).encode(x=alt.value(0), x2=alt.value(_WIDTH), y=at),
        marks([{"low": tick} for tick in ticks])
        .mark_rule(color=LINE)
        .encode(x=x, y=alt.value(top + 20), y2=alt.value(height)),
        marks([{"low": 1}]).mark_rule(color=MUTED, strokeWidth=1).encode(
            x=x, y=alt.value(top + 24), y2=alt.value(height)
        ),
        layer("local").mark_rule(color=LOCAL, strokeWidth=1.25).encode(x=x, x2="high:Q", y=at),
        layer("local").mark_point(fill=LOCAL, stroke=LOCAL, strokeWidth=0.5, size=38, opacity=1).encode(
            x=estimate, y=at, shape=shape
        ),
        layer("federated").mark_rule(color=ACCENT, strokeWidth=2.5).encode(x=x, x2="high:Q", y=at),
        layer("federated").mark_point(shape="circle", fill=ACCENT, stroke=ACCENT, size=30, opacity=1).encode(
            x=estimate, y=at
        ),
        layer("pooled").mark_tick(orient="vertical", color=INK, thickness=1.25, size=9).encode(x=x, y=at),
        layer("pooled").mark_tick(orient="vertical", color=INK, thickness=1.25, size=9).encode(
            x=alt.X("high:Q", scale=scale, axis=axis), y=at
        ),
        layer("pooled").mark_point(shape="diamond", filled=False, stroke=INK, strokeWidth=1.4, size=230, opacity=1)
        .encode(x=estimate, y=at),
        *_arrows(drawn, scale, axis, at),
        *(
            layer("status").mark_text(align="left", baseline="middle", fontSize=11, **style).encode(
                x=alt.value(_PLOT_FROM + 4), y=at, text="text:N"
            )
            for style in _HALOED
        ),
        layer("label").mark_text(
            align="left", baseline="middle", color=INK, fontSize=13, fontWeight=600, lineHeight=_LINE_HEIGHT
        ).encode(x=alt.value(0), y=at, text="text:N"),
        layer("federated").mark_text(align="right", baseline="middle", color=INK, fontSize=12.5).encode(
            x=alt.value(_WIDTH), y=at, text="text:N"
        ),
        *(
            marks([head]).mark_text(
                align=head.get("align", "right"), baseline="middle", fontSize=12, **style
            ).encode(x=alt.value(head["x"]), y=alt.value(top + 8), text="text:N")
            for head in heads
            for style in _HALOED
        ),
        *_legend(hospitals, rows, language),
    ]  # fmt: skip
    chart = alt.layer(*layers).properties(width=_WIDTH, height=height)
    name = phrase("aria_forest", terms=len(rows)).say(language)
    return svg(chart, name, f"forest-{language}")


def _lanes(row: ForestRow) -> list[list[ForestPoint]]:
    together = [point for point in row.points if point.kind != "local" and point.estimate is not None]
    unable = [point for point in row.points if point.kind != "local" and point.estimate is None]
    alone = [[point] for point in row.points if point.kind == "local"]
    return [lane for lane in (together, *([point] for point in unable), *alone) if lane]


def _mark(
    point: ForestPoint, y: float, low: float, high: float, hospitals: list[str], language: Language
) -> dict[str, Any]:
    series = point.series.say(language)
    if point.estimate is None:
        status = point.status.say(language) if point.status else ""
        return {"what": "status", "y": y, "text": f"{series} · {status}"}
    below = point.low if point.low is not None else point.estimate
    above = point.high if point.high is not None else point.estimate
    return {
        "what": point.kind,
        "y": y,
        "estimate": min(max(point.estimate, low), high),
        "low": max(below, low),
        "high": min(above, high),
        "beyond_low": below < low,
        "beyond_high": above > high,
        "shape": SHAPES[hospitals.index(series) % len(SHAPES)] if series in hospitals else "circle",
        "text": f"{numerals.ratio(point.estimate)} ({numerals.interval(below, above)})",
    }


def _domain(rows: tuple[ForestRow, ...]) -> tuple[float, float]:
    """All intervals, cut where a single hospital's would squeeze everything else together."""
    points = [point for row in rows for point in row.points if point.estimate is not None]
    leading = [point for point in points if point.kind != "local"] or points
    ends, firm = _ends(points), _ends(leading)
    if not ends or not firm:
        return 0.5, 2.0
    low, high = max(min(ends), min(firm) / 5), min(max(ends), max(firm) * 5)
    return min(low / 1.1, 0.8), max(high * 1.1, 1.25)


def _ends(points: list[ForestPoint]) -> list[float]:
    """What a log axis can show: positive and finite."""
    ends = [end for point in points for end in (point.low, point.high, point.estimate) if end is not None]
    return [end for end in ends if 0 < end < math.inf]


def _arrows(drawn: list[dict[str, Any]], scale: Any, axis: Any, at: Any) -> list[Any]:
    found = []
    for side, shape in (("low", "triangle-left"), ("high", "triangle-right")):
        for kind, color in (("local", LOCAL), ("federated", ACCENT)):
            rows = [entry for entry in drawn if entry["what"] == kind and entry[f"beyond_{side}"]]
            if rows:
                chart = marks(rows).mark_point(shape=shape, fill=color, stroke=color, size=36, opacity=1)
                found.append(chart.encode(x=alt.X(f"{side}:Q", scale=scale, axis=axis), y=at))
    return found


def _local_names(rows: tuple[ForestRow, ...], language: Language) -> list[str]:
    points = [point for row in rows for point in row.points if point.kind == "local"]
    return list(dict.fromkeys(point.series.say(language) for point in points))


def _legend_entries(
    hospitals: list[str], rows: tuple[ForestRow, ...], language: Language
) -> list[tuple[str, str, str, float, float]]:
    """Name, shape, kind, x, y of every entry, wrapped to the figure's width."""
    kinds = {point.kind for row in rows for point in row.points}
    names = [(phrase("federated").say(language), "circle", "federated")] if "federated" in kinds else []
    names += [(phrase("pooled").say(language), "diamond", "pooled")] if "pooled" in kinds else []
    names += [(name, SHAPES[k % len(SHAPES)], "local") for k, name in enumerate(hospitals)]
    x, y, placed = 8.0, 8.0, []
    for name, shape, kind in names:
        width = 12.5 * ems(name) + 38
        if x + width > _WIDTH and x > 8:
            x, y = 8.0, y + 22
        placed.append((name, shape, kind, x, y))
        x += width
    return placed


def _legend_height(hospitals: list[str], rows: tuple[ForestRow, ...], language: Language) -> float:
    placed = _legend_entries(hospitals, rows, language)
    return (placed[-1][4] if placed else 0) + 26


def _legend(hospitals: list[str], rows: tuple[ForestRow, ...], language: Language) -> list[Any]:
    layers = []
    for name, shape, kind, x, y in _legend_entries(hospitals, rows, language):
        filled = {"federated": ACCENT, "local": LOCAL}.get(kind, "transparent")
        stroke, size = (INK, 150) if kind == "pooled" else (filled, 44)
        one = marks([{"text": name}])
        layers.append(
            one.mark_point(shape=shape, fill=filled, stroke=stroke, size=size, opacity=1, strokeWidth=1.4)
            .encode(x=alt.value(x), y=alt.value(y))
        )  # fmt: skip
        layers.append(
            one.mark_text(align="left", baseline="middle", color=INK, fontSize=12.5)
            .encode(x=alt.value(x + 12), y=alt.value(y), text="text:N")
        )  # fmt: skip
    return layers


_CELL_HEIGHT, _LEAD = 62, 150


def auroc(cells: tuple[AurocCell, ...], language: Language) -> Markup:
    """Trained at (rows) × tested at (columns); withheld cells are hatched and say why."""
    trained = list(dict.fromkeys(cell.trained_at for cell in cells))
    tested = list(dict.fromkeys(cell.tested_at for cell in cells))
    wide = min(150, max(100, (_WIDTH - _LEAD) // len(tested)))
    top = 52.0
    boxes, shown, people, reasons, names = [], [], [], [], []
    for cell in cells:
        x = _LEAD + wide * tested.index(cell.tested_at)
        y = top + _CELL_HEIGHT * trained.index(cell.trained_at)
        middle = {"x": x + wide / 2, "y": y + _CELL_HEIGHT / 2}
        fill = HATCH if cell.auroc is None else PALE[min(4, max(0, int((cell.auroc - 0.5) * 10 + 1e-9)))]
        boxes.append({"x": x + 1, "x2": x + wide - 1, "y": y + 1, "y2": y + _CELL_HEIGHT - 1, "fill": fill})
        if cell.auroc is None:
            text = wrapped(cell.withheld.say(language) if cell.withheld else "–", (wide - 12) / 11)
            reasons.append({**middle, "y": middle["y"] - 6.5 * (len(text) - 1), "text": text})
        else:
            lift = 7 if cell.n is not None else 0
            shown.append({**middle, "y": middle["y"] - lift, "text": numerals.auroc(cell.auroc)})
            if cell.n is not None:
                people.append({**middle, "y": middle["y"] + 13, "text": f"n = {numerals.count(cell.n)}"})
    for number, word in enumerate(tested):
        lines = wrapped(word.say(language), wide / 13)
        middle_x = _LEAD + wide * (number + 0.5)
        names.append({"x": middle_x, "y": top - 12 - 15 * (len(lines) - 1), "text": lines, "align": "center"})
    for number, word in enumerate(trained):
        lines = wrapped(word.say(language), (_LEAD - 12) / 13)
        y = top + _CELL_HEIGHT * (number + 0.5) - 7.5 * (len(lines) - 1)
        names.append({"x": 0.0, "y": y, "text": lines, "align": "left"})
    axes = [
        {"x": 0, "y": top - 12, "text": f"{phrase('trained_at').say(language)} ↓", "align": "left"},
        {"x": _LEAD, "y": 6, "text": f"{phrase('tested_at').say(language)} →", "align": "left"},
    ]
    width, height = _LEAD + wide * len(tested), top + _CELL_HEIGHT * len(trained)
    at = {"x": alt.X("x:Q", scale=None, axis=None), "y": alt.Y("y:Q", scale=None, axis=None)}
    by_fill = [
        marks([box for box in boxes if box["fill"] == fill])
        .mark_rect(color=fill, stroke=LINE, strokeWidth=1, cornerRadius=4)
        .encode(**at, x2="x2:Q", y2="y2:Q")
        for fill in dict.fromkeys(box["fill"] for box in boxes)
    ]
    layers = [
        *by_fill,
        _text(shown, at, color=INK, fontSize=17, fontWeight=600),
        _text(people, at, color=INK, fontSize=11),
        _text(reasons, at, color=SURFACE, stroke=SURFACE, strokeWidth=4, fontSize=11, lineHeight=13),
        _text(reasons, at, color=INK, fontSize=11, lineHeight=13),
        *(_text([name], at, align=str(name["align"]), color=INK, fontSize=12.5, lineHeight=15) for name in names),
        *(_text([name], at, align=str(name["align"]), color=MUTED, fontSize=12) for name in axes),
    ]
    name = phrase("aria_auroc", rows=len(trained), columns=len(tested)).say(language)
    return svg(alt.layer(*layers).properties(width=width, height=height), name, f"auroc-{language}")


def _text(rows: list[dict[str, Any]], at: dict[str, Any], *, align: str = "center", **style: Any) -> Any:
    return marks(rows).mark_text(align=align, baseline="middle", **style).encode(**at, text="text:N")


_PANELS = {1: 320, 2: 300, 3: 196}
"""Side of a panel in pixels, by how many stand side by side, so that a row fills the figure's width."""


def calibration(series: tuple[CalibrationSeries, ...], language: Language) -> Markup:
    """One panel a model: observed against predicted shares, area by people, the diagonal dashed."""
    across = min(3, len(series))
    panels = [
        _panel(one, language, side=_PANELS[across], first=number % across == 0) for number, one in enumerate(series)
    ]
    chart = alt.concat(*panels, columns=across, spacing=26)
    name = phrase("aria_calibration", models=len(series)).say(language)
    return svg(chart, name, f"calibration-{language}")


def _panel(one: CalibrationSeries, language: Language, *, side: int, first: bool) -> Any:
    ordered = sorted(one.points, key=lambda point: point.predicted)
    points = [{"x": point.predicted, "y": point.observed, "n": point.n} for point in ordered]
    links = [{"x": a.predicted, "y": a.observed, "x2": b.predicted, "y2": b.observed} for a, b in pairwise(ordered)]
    axis: dict[str, Any] = {
        "values": [0, 0.25, 0.5, 0.75, 1], "format": ".0%", "labelColor": MUTED, "titleColor": MUTED,
        "titleFontWeight": "normal", "titleFontSize": 12, "labelFontSize": 11, "gridColor": LINE, "domain": False,
        "ticks": False, "labelPadding": 6, "titlePadding": 8,
    }  # fmt: skip
    unit = alt.Scale(domain=[0, 1])
    observed = phrase("observed").say(language) if first else None
    x = alt.X("x:Q", scale=unit, axis=alt.Axis(title=phrase("predicted").say(language), **axis))
    y = alt.Y("y:Q", scale=unit, axis=alt.Axis(title=observed, **axis))
    size = alt.Size("n:Q", scale=alt.Scale(range=[28, 190]), legend=None)
    layers = [
        marks([{"x": 0, "y": 0, "x2": 1, "y2": 1}])
        .mark_rule(color=MUTED, strokeDash=[4, 4])
        .encode(x=x, y=y, x2="x2:Q", y2="y2:Q"),
        marks(links).mark_rule(color=ACCENT, strokeWidth=1.5).encode(x=x, y=y, x2="x2:Q", y2="y2:Q"),
        marks(points)
        .mark_point(shape="circle", fill=ACCENT, stroke=SURFACE, strokeWidth=1.5, opacity=1)
        .encode(x=x, y=y, size=size),
    ]
    title = alt.TitleParams(
        wrapped(one.model.say(language), side / 13), color=INK, fontSize=13, fontWeight=600, anchor="start"
    )
    return alt.layer(*layers).properties(width=side, height=side, title=title)
