"""Charts drawn to inline SVG: a palette the page recolours, text measured without fonts, one accessible name."""

from __future__ import annotations

import re
from html import escape
from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup

INK, MUTED, LINE, SURFACE = "#15202b", "#5b6771", "#e2e7ea", "#fefefe"
ACCENT, LOCAL = "#0b6e57", "#7d8892"
PALE = ("#eef5f2", "#d9ebe4", "#bbddd0", "#96cab8", "#6ab49d")
"""Five greens on which ink stays legible. The page maps each of these exact colours to its light or dark
value by attribute selectors, so that one drawing serves both and prints on its own."""
HATCH = "#f00ba4"
"""Stands for the hatching of withheld cells; replaced by a pattern after drawing."""

FONT = "Pretendard, 'Noto Sans KR', 'Apple SD Gothic Neo', 'Malgun Gothic', sans-serif"
_VEGA_LITE = "6.4"
_DECIMALS = re.compile(r"(?<=\.\d\d)\d+(?!e)")


def svg(chart: Any, name: str, identity: str) -> Markup:
    """The chart as `<svg role="img">` called `name`; `identity` keeps its pattern apart from other figures'."""
    styled = chart.configure(aria=False, background="transparent", font=FONT, padding=2).configure_view(stroke=None)
    drawn: str = vl_convert.vegalite_to_svg(styled.to_dict(), vl_version=_VEGA_LITE)
    # Vega calls every group a graphics object even with aria off; inside an image they are presentation.
    drawn = re.sub(r' (?:role|aria-[a-z]+)="[^"]*"', "", drawn)
    drawn = re.sub(r' (?:class|pointer-events)="[^"]*"', "", drawn)
    drawn = re.sub(r' xmlns:xlink="[^"]*"| version="[^"]*"', "", drawn)
    # Two decimals of a pixel are enough; only in coordinates, since the texts hold results.
    drawn = re.sub(r' (?:d|transform)="[^"]*"', lambda found: _DECIMALS.sub("", found[0]), drawn)
    # The page's own font stack applies; a fixed one would sit in every label.
    drawn = re.sub(r' font-family="[^"]*"', "", drawn)
    if HATCH in drawn:
        drawn = drawn.replace(HATCH, f"url(#hatch-{identity})")
        drawn = re.sub(r"(<svg[^>]*>)", r"\1" + _pattern(identity), drawn, count=1)
    return Markup(drawn.replace("<svg ", f'<svg role="img" aria-label="{escape(name)}" ', 1))


def marks(rows: list[dict[str, Any]]) -> Any:
    return alt.Chart(alt.Data(values=rows))


def ems(text: str) -> float:
    """Width in em without a font: Korean letters are square, Latin ones about half as wide."""
    return sum(0.94 if letter > "ᄀ" else 0.3 if letter in " .,:;()|il" else 0.56 for letter in text)


def wrapped(text: str, width: float) -> list[str]:
    """Lines no wider than `width` em where spaces allow it."""
    lines: list[str] = []
    for word in text.split():
        if lines and ems(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def _pattern(identity: str) -> str:
    return (
        f'<defs><pattern id="hatch-{identity}" width="7" height="7" patternUnits="userSpaceOnUse" '
        f'patternTransform="rotate(45)"><rect width="7" height="7" fill="{SURFACE}"/>'
        f'<line x1="0" x2="0" y1="0" y2="7" stroke="{LINE}" stroke-width="4"/></pattern></defs>'
    )
