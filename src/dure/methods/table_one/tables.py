"""Table 1 as tables: rows of variables, levels and groups, the same weighted, and differences between groups.

Weights are not released: a level's weighted number of people is its share of the group's weight times the group's
people, a whole number that the release rounds and hides like a count; the effective sample size likewise. So with all
weights equal nothing is told beyond the unweighted table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dure.estimation.carried import few, two_sided
from dure.estimation.quantile_search import Found
from dure.language import Words
from dure.methods.table_one.counting import POWERS
from dure.methods.table_one.differences import ROUNDING, Sample, differences
from dure.methods.table_one.layout import Layout, Parameters
from dure.study.method import Question
from dure.study.result import Figure, Result, Table

Numbers = NDArray[np.float64]
SPREADS = ("median", "q1", "q3")
YANG_DALTON = (
    "Yang D, Dalton JE. A unified approach to measuring the effect size between two groups using SAS. "
    "SAS Global Forum 2012. Paper 335-2012."
)
AUSTIN = (
    "Austin PC. Balance diagnostics for comparing the distribution of baseline covariates between treatment groups in "
    "propensity-score matched samples. Stat Med. 2009;28(25):3083-3107."
)
HYNDMAN_FAN = "Hyndman RJ, Fan Y. Sample quantiles in statistical packages. Am Stat. 1996;50(4):361-365."
KISH = "Kish L. Survey sampling. New York: John Wiley & Sons; 1965."


class Lines:
    """Rows of a table with what was withheld at a hospital; a count is given as (array, column) of `arrays`."""

    def __init__(self, layout: Layout, arrays: dict[str, Numbers], hidden: dict[str, NDArray[np.bool_]], small: str):
        self.layout, self.arrays, self.hidden, self.small = layout, arrays, hidden, small
        self.rows: list[dict[str, object]] = []
        self.withheld: dict[tuple[int, str], str] = {}

    def add(self, variable: str, level: str | None, place: int, **values: Any) -> None:
        row: dict[str, object] = {"variable": variable, "level": level, "group": self.layout.groups[place]}
        for name, value in values.items():
            if not isinstance(value, tuple):
                row[name] = value
                continue
            where = (place,) if value[1] is None else (place, value[1])
            gone = bool(self.hidden[value[0]][where]) if value[0] in self.hidden else False
            row[name] = None if gone else round(round(float(self.arrays[value[0]][where]), 9))
            if gone:
                self.withheld[len(self.rows), name] = self.small
        self.rows.append(row)

    def quartiles(self, found: Found | None, variable: str, place: int, columns: tuple[str, ...]) -> dict[str, Any]:
        """Median and quartiles of a row about to be added."""
        if found is None or variable not in columns:
            return {}
        column, shown = columns.index(variable), {}
        for name, probability in (("median", 1), ("q1", 0), ("q3", 2)):
            where = (place, column, probability)
            if found.shown[where]:
                shown[name] = float(found.values[where])
            elif found.people[place, column] or found.people_withheld[place, column]:
                self.withheld[len(self.rows), name] = self.small
        return shown

    def moments(self, sample: Sample, place: int, column: int) -> dict[str, float | None]:
        """Mean and standard deviation of a row about to be added."""
        people, mean, variance = (part[place, column] for part in (sample.known, sample.means, sample.variances))
        if np.isnan(mean):
            self.withheld |= {(len(self.rows), name): "–" for name in ("mean", "sd")}
            return {}
        shown = float(mean) if people > 0 else None
        return {"mean": shown, "sd": None if np.isnan(variance) else float(np.sqrt(variance))}

    def frame(self, counts: tuple[str, ...], numbers: tuple[str, ...]) -> pl.DataFrame:
        schema: dict[str, Any] = {
            **dict.fromkeys(("variable", "level", "group"), pl.String),
            **dict.fromkeys(counts, pl.Int64),
            **dict.fromkeys(numbers, pl.Float64),
        }
        return pl.DataFrame([{name: row.get(name) for name in schema} for row in self.rows], schema=schema)


def result(
    layout: Layout,
    question: Question,
    arrays: dict[str, Numbers],
    hidden: dict[str, NDArray[np.bool_]],
    medians: dict[str, Found],
) -> Result:
    """`arrays`: all opened sums, `means` and `weighted_means` (groups, numbers) among them."""
    p: Parameters = question.parameters
    lines = Lines(layout, arrays, hidden, f"<{question.minimum_people}")
    plain = _sample(arrays, hidden, "", question.minimum_people)
    tables = {"table_one": _described(layout, p, lines, plain, medians.get("plain"))}
    samples = {"smd": plain}
    if layout.weights:
        again = Lines(layout, arrays, hidden, lines.small)
        samples["smd_weighted"] = _sample(arrays, hidden, "weighted_", question.minimum_people)
        tables["weighted"] = _weighted(layout, p, again, samples["smd_weighted"], medians.get("weighted"))
    figures = {}
    if len(layout.groups) > 1:
        least = max(2, question.minimum_people)
        spread = {"smd": plain, "smd_weighted": samples.get(f"smd_{p.denominator}", plain)}
        found = {
            name: differences(layout, p.variables, sample, spread[name], least, question.minimum_people)
            for name, sample in samples.items()
        }
        frame = pl.DataFrame({"variable": p.variables, **found}, schema_overrides=dict.fromkeys(found, pl.Float64))
        tables["differences"] = Table(frame)
        tables |= _balance(frame) if layout.weights else {}
        figures["balance"] = _figure(bool(layout.weights))
    n = int(arrays["n"].sum())
    paragraph, references = _paragraph(p, layout)
    return Result(
        method="table_one",
        tables=tables,
        facts={"n": n},
        people_facts=("n",),
        figures=figures,
        paragraph=paragraph,
        references=references,
    )


def _sample(arrays: dict[str, Numbers], hidden: dict[str, NDArray[np.bool_]], of: str, minimum: int) -> Sample:
    """Means and variances of the people as they are, or weighted; NaN for levels that a hospital withheld, and where a
    few people carry a number: those who are not 0, who differ from all others, or who have nearly all weight.

    The weighted variance is that of R's survey::svyvar: Σw(x − x̄)²/Σw · n/(n − 1), which no factor common to all
    weights changes, and which is the ordinary variance where all weights are equal.
    """
    known = arrays[of + "known"]
    weight = arrays["weight_known"] if of else known
    with np.errstate(invalid="ignore", divide="ignore"):
        variances = np.where(weight > 0, arrays[of + "squares"] / weight, np.nan) * known / (known - 1)
    means = arrays[of + "means"]
    variances = np.where(variances <= (ROUNDING * means) ** 2, 0.0, variances)
    variances = np.where(known > 1, variances, np.nan)
    carried = _carried(arrays, minimum) if minimum else np.zeros(known.shape, dtype=bool)
    if of and minimum:
        carried |= few(weight, arrays["weight_known_squares"], minimum)
    means, variances = (np.where(carried, np.nan, part) for part in (means, variances))
    people, levels = arrays[of + "levels"], arrays["weight_levels" if of else "levels"]
    if hidden:
        people, levels = (np.where(hidden[of + "levels"], np.nan, part) for part in (people, levels))
    return Sample(known, means, variances, people, levels)


def _carried(arrays: dict[str, Numbers], minimum: int) -> NDArray[np.bool_]:
    powers = np.stack([arrays[name] for name in ("known", *POWERS)], axis=-1)
    return np.asarray((arrays["nonzero"] < minimum) | two_sided(powers, minimum))


def _described(layout: Layout, p: Parameters, lines: Lines, sample: Sample, medians: Found | None) -> Table:
    for place in range(len(layout.groups)):
        lines.add("", None, place, n=("n", None))
    for name in p.variables:
        for place in range(len(layout.groups)):
            if name in layout.numbers:
                column = layout.numbers.index(name)
                more = lines.quartiles(medians, name, place, tuple(p.medians or ()))
                counts = {"n": ("known", column), "missing": ("missing_numbers", column)}
                lines.add(name, None, place, **counts, **lines.moments(sample, place, column), **more)
                continue
            missing = ("missing_levels", layout.categories.index(name))
            for index, level in enumerate(layout.levels[name]):
                once = {"missing": missing} if index == 0 else {}
                lines.add(name, level, place, n=("levels", layout.starts[name] + index), of=("n", None), **once)
    numbers = ("mean", "sd", *(SPREADS if p.medians else ()))
    return Table(
        lines.frame(("n", "of", "missing"), numbers),
        counts=("n", "of", "missing"),
        behind=dict.fromkeys(numbers, "n"),
        group=("variable", "group"),
        shares={"percent": ("n", "of", 100.0)},
        derived=("of", "percent"),
        withheld=lines.withheld,
    )


def _weighted(layout: Layout, p: Parameters, lines: Lines, sample: Sample, medians: Found | None) -> Table:
    arrays, hidden = lines.arrays, lines.hidden
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(arrays["weight"] > 0, arrays["weighted_n"] / arrays["weight"], 0.0)
        squares = arrays["weight_squares"]
        arrays["effective"] = np.where(squares > 0, arrays["weight"] ** 2 / squares, 0.0)
    arrays["weighted_people"] = arrays["weight_levels"] * scale[:, None]
    hidden = {
        **hidden,
        **({"effective": hidden["weighted_n"], "weighted_people": hidden["weighted_levels"]} if hidden else {}),
    }
    lines.hidden = hidden
    for place in range(len(layout.groups)):
        lines.add("", None, place, n=("weighted_n", None), effective=("effective", None))
    for name in p.variables:
        for place in range(len(layout.groups)):
            if name in layout.numbers:
                column = layout.numbers.index(name)
                more = lines.quartiles(medians, name, place, tuple(p.medians or ()))
                lines.add(
                    name, None, place, n=("weighted_known", column), **lines.moments(sample, place, column), **more
                )
                continue
            for index, level in enumerate(layout.levels[name]):
                at = layout.starts[name] + index
                people = {"n": ("weighted_levels", at), "weighted": ("weighted_people", at)}
                lines.add(name, level, place, **people, of=("weighted_n", None))
    counts, numbers = ("n", "weighted", "of", "effective"), ("mean", "sd", *(SPREADS if p.medians else ()))
    return Table(
        lines.frame(counts, numbers),
        counts=counts,
        behind={**dict.fromkeys(numbers, "n"), "weighted": "n", "effective": "n"},
        group=("variable", "group"),
        shares={"percent": ("weighted", "of", 100.0)},
        derived=("of", "percent"),
        withheld=lines.withheld,
    )


def _balance(frame: pl.DataFrame) -> dict[str, Table]:
    """The differences as one row per dot of the balance plot; it restates them."""
    parts = [
        frame.select("variable", pl.lit(en).alias("sample"), pl.lit(ko).alias("sample_ko"), pl.col(name).alias("smd"))
        for name, en, ko in (("smd", "as they are", "가중 전"), ("smd_weighted", "weighted", "가중 후"))
    ]
    return {"balance": Table(pl.concat(parts), derived=("smd",))}


def _figure(weighted: bool) -> Figure:
    return Figure(
        "dots",
        "balance" if weighted else "differences",
        "smd",
        "variable",
        Words("Differences between groups", "집단 간 차이"),
        Words("Absolute standardised difference", "표준화 차이의 절댓값"),
        Words("Variable", "변수"),
        group="sample" if weighted else "",
        rule=(0.1,),
    )


def _paragraph(p: Parameters, layout: Layout) -> tuple[Words, tuple[str, ...]]:
    works: list[str] = []

    def cited(*references: str) -> str:
        works.extend(work for work in references if work not in works)
        return "[" + ", ".join(str(works.index(work) + 1) for work in references) + "]"

    median = ""
    if p.medians:
        median = cited(HYNDMAN_FAN)
    en = "Numbers are described by mean and standard deviation"
    ko = "연속형 변수는 평균과 표준편차로"
    if p.medians:
        named = ", ".join(f"{name} to {to:g}" for name, to in p.medians.items())
        en += f", and some also by median and quartiles {median} at a declared resolution ({named})"
        ko += f", 일부는 정한 단위({named.replace(' to ', ' ')})로 반올림한 중앙값과 사분위수 {median}로도"
    en += "; categories by count and percentage"
    ko += ", 범주형 변수는 수와 백분율로 기술하였다"
    en += ", in all hospitals together from sums. " if not layout.by_site else ", by hospital. "
    ko += ". " if layout.by_site else "(여러 병원의 합계만으로 계산). "
    if len(layout.groups) > 1:
        where = cited(AUSTIN, YANG_DALTON)
        en += f"Groups are compared by absolute standardised differences {where}, the largest over pairs of groups. "
        ko += f"집단은 표준화 차이의 절댓값으로 비교하였고 {where}, 집단이 셋 이상이면 쌍 가운데 가장 큰 값이다. "
    if layout.weights:
        kish = cited(KISH)
        own = p.denominator == "weighted"
        en += (
            f"The same is given weighted by {p.weights}, with Kish's effective sample size {kish}"
            + (
                f"; weighted differences are divided by {'weighted' if own else 'unweighted'} standard deviations"
                if len(layout.groups) > 1
                else ""
            )
            + "."
        )
        ko += (
            f"{p.weights}(으)로 가중한 결과와 키시의 유효 표본 크기 {kish}도 제시하였다"
            + (f"(가중 차이의 분모는 가중{'한' if own else '하지 않은'} 표준편차)" if len(layout.groups) > 1 else "")
            + "."
        )
    return Words(en.strip(), ko.strip()), tuple(works)
