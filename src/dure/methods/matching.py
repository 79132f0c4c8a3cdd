"""Matching on the propensity score inside each hospital, with one caliper for all: sets, balance before and after.

Rounds: counts and means; the spread of the score, from which the caliper's width follows; then every hospital matches,
and only counts and weighted sums leave. Pairs never do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dure.errors import InvalidParameter, NobodyLeft, NothingVaries, OneClass, Refused
from dure.estimation import balance
from dure.estimation.arms import Scored, check_columns, rounded_logit, scored
from dure.estimation.balance import Denominator
from dure.estimation.balancing import effective, whole_people
from dure.estimation.draws import draws
from dure.estimation.nearest import NOBODY, matched_sets, strata
from dure.estimation.parameters import Asked, Levels, Score, Treatment, described
from dure.language import Words
from dure.study.method import HUB, Example, Kept, Law, Question, State
from dure.study.result import Fact, Figure, Result, Table
from dure.study.rows import Column, Rows
from dure.study.summary import ArraySpec, Declaration, Summary, Total

Vector = NDArray[np.float64]
Whole = NDArray[np.int64]

ROSENBAUM = (
    "Rosenbaum PR, Rubin DB. Constructing a control group using multivariate matched sampling methods that incorporate "
    "the propensity score. Am Stat. 1985;39(1):33-8."
)
CALIPER = (
    "Austin PC. Optimal caliper widths for propensity-score matching when estimating differences in means and "
    "differences in proportions in observational studies. Pharm Stat. 2011;10(2):150-61."
)
BALANCE = (
    "Austin PC. Balance diagnostics for comparing the distribution of baseline covariates between treatment groups in "
    "propensity-score matched samples. Stat Med. 2009;28(25):3083-107."
)
ALIKE = 1e-9
"""Spread of the logit up to which all scores are one."""
STUART = "Stuart EA. Matching methods for causal inference: a review and a look forward. Stat Sci. 2010;25(1):1-21."


class Parameters(Asked):
    treatment: Treatment
    score: Score
    ratio: Annotated[
        int, described("controls for each treated person, at most", "치료군 한 명당 대조군 수(최대)", ge=1, le=20)
    ] = 1
    caliper: Annotated[
        float | None,
        described(
            "largest distance, in pooled standard deviations of the logit of the score over all hospitals",
            "허용하는 최대 거리(전체 병원에서 구한 로짓 점수의 통합 표준편차의 배수)",
            gt=0,
        ),
    ] = 0.2
    exact: Annotated[
        tuple[str, ...], described("categories that have to be equal in a set", "짝 안에서 같아야 하는 범주 열")
    ] = ()
    within: Annotated[
        str, described("column inside which people are matched; site: the hospital", "그 안에서 매칭할 열. site는 병원")
    ] = "site"
    order: Annotated[
        Literal["descending", "random"],
        described(
            "who chooses first: the treated of the highest score, or in an order drawn for each person",
            "먼저 고르는 순서: 점수가 높은 치료군부터, 또는 사람마다 뽑은 순서",
        ),
    ] = "descending"
    seed: Annotated[int, described("seed of the order", "순서의 난수 씨앗", ge=0)] = 0
    balance: Annotated[
        tuple[str, ...], described("columns whose balance is shown before and after", "매칭 전후의 균형을 볼 열")
    ] = ()
    denominator: Annotated[
        Denominator,
        described(
            "whose standard deviation divides differences: both arms' (pooled), one arm's, or the matched people's",
            "차이를 나누는 표준편차: 두 집단(pooled), 한 집단, 또는 매칭된 사람들",
        ),
    ] = "pooled"
    levels: Levels = None


class Matching:
    name = "matching"
    title = Words("Propensity matching", "성향점수 매칭")
    about = Words(
        "Nearest-neighbour matching inside each hospital with one caliper for all; balance before and after; sets and "
        "weights for later steps.",
        "전체에 공통인 캘리퍼로 병원 안에서 최근접 매칭. 매칭 전후의 균형, 다음 단계를 위한 짝 번호와 가중치.",
    )
    law: Law = "by_hospital"
    parameters = Parameters

    def start(self, question: Question) -> State:
        p: Parameters = question.parameters
        check_columns(question, self.name, p.treatment, p.score)
        balance.covariates_of(question, p.balance, self.name)
        for parameter, name in (*(("exact", name) for name in p.exact), ("within", p.within)):
            column = question.column(name)
            if name != "site" and column.kind != "flag" and not column.levels:
                problem = Words(f"'{name}' has no declared levels", f"'{name}'의 수준이 선언되지 않았습니다")
                raise InvalidParameter(method=self.name, parameter=parameter, problem=problem)
        return {"phase": "counts"}

    def declare(self, question: Question, state: State) -> Declaration:
        covariates = balance.covariates_of(question, question.parameters.balance, self.name)
        arms = ArraySpec("arms", (2,), "count", on_small="refuse")
        if state["phase"] == "counts":
            sums = ArraySpec("logit_sums", (2,), "moment", people=("arms",))
            return (arms, sums, *balance.declare_means(covariates))
        if state["phase"] == "spread":
            return (arms, ArraySpec("logit_squares", (2,), "moment", people=("arms",)))
        return (
            arms,
            ArraySpec("matched", (2,), "count", on_small="refuse"),
            ArraySpec("weight_sums", (2, 2), "moment", people=("matched",)),
            *balance.declare_balance(covariates),
        )

    def summarise(self, rows: Rows, question: Question, state: State, kept: Kept) -> tuple[Summary, Kept]:
        p: Parameters = question.parameters
        arms = scored(rows, question, p.treatment, p.score)
        covariates = balance.covariates_of(question, p.balance, self.name)
        found: Summary = {"arms": arms.people}
        if state["phase"] == "counts":
            values = rounded_logit(arms.score)
            found["logit_sums"] = np.array([values[arms.treated == arm].sum() for arm in (0, 1)])
            return found | balance.means(rows, covariates, arms.present, arms.treated), {}
        if state["phase"] == "spread":
            gaps = rounded_logit(arms.score) - np.asarray(state["means"])[arms.treated.astype(np.int64)]
            found["logit_squares"] = np.array([(gaps[arms.treated == arm] ** 2).sum() for arm in (0, 1)])
            return found, {}
        _, weights = _sets(rows, question, arms, state["width"])
        parts = [weights[arms.treated == arm] for arm in (0, 1)]
        found["matched"] = np.array([np.count_nonzero(w) for w in parts], dtype=np.int64)
        found["weight_sums"] = np.array([[w.sum(), w @ w] for w in parts])
        centre = np.asarray(state["centre"])
        return found | balance.compared(rows, covariates, arms.present, arms.treated, weights, centre), {}

    def conclude(self, total: Total, question: Question, state: State) -> State | Result:
        p: Parameters = question.parameters
        arms = total["arms"]
        covariates = balance.covariates_of(question, p.balance, self.name)
        if state["phase"] == "counts":
            if not arms.sum():
                raise NobodyLeft(columns=f"{p.treatment}, {p.score}")
            if not arms.all():
                raise OneClass(outcome=p.treatment)
            centre = balance.centres(total, covariates)
            return {"phase": "spread", "means": total["logit_sums"] / arms, "centre": centre}
        if state["phase"] == "spread":
            variances = total["logit_squares"] / np.maximum(arms - 1, 1)
            spread = float(np.sqrt(variances.mean()))
            if p.caliper is not None and spread <= ALIKE:
                raise NothingVaries(terms=p.score)
            width = None if p.caliper is None else p.caliper * spread
            return {"phase": "match", "centre": state["centre"], "width": width, HUB: {"spread": spread}}
        if not total["matched"].all():
            raise NobodyLeft(columns=f"{p.treatment}, {p.score}, {p.within}")
        return self._result(total, question, state)

    def _result(self, total: Total, question: Question, state: State) -> Result:
        p: Parameters = question.parameters
        minimum = question.minimum_people
        arms, matched, sums = total["arms"], total["matched"], total["weight_sums"]
        size = effective(sums[:, 0], sums[:, 1])
        summary = Table(
            pl.DataFrame(
                {
                    "arm": ["treated", "control"],
                    "people": [int(arms[arm]) for arm in (1, 0)],
                    "matched": [int(matched[arm]) for arm in (1, 0)],
                    "effective": [int(whole_people(size)[arm]) for arm in (1, 0)],
                }
            ),
            counts=("people", "matched", "effective"),
            shares={"share": ("matched", "people", 1.0)},
        )
        tables, figures = {"summary": summary}, dict[str, Figure]()
        facts: dict[str, Fact] = {
            "n": int(matched.sum()),
            "target": "the treated who could be matched (ATT)",
            "caliper": state["width"],
            "logit_spread": float(state[HUB]["spread"]),
        }
        if p.balance:
            covariates = balance.covariates_of(question, p.balance, self.name)
            centre = np.asarray(state["centre"])
            tables["balance"] = balance.balance_table(total, covariates, centre, p.denominator, minimum)
            figures["balance"] = balance.love_plot()
            for sample in balance.SAMPLES:
                facts[f"largest_smd_{sample}"] = balance.largest(tables["balance"], sample)
        paragraph, references = _told(p)
        return Result(
            method=self.name,
            tables=tables,
            facts=facts,
            people_facts=("n",),
            portable={"width": state["width"]},
            notes=(PAIRS_STAY,),
            figures=figures,
            paragraph=paragraph,
            references=references,
        )

    def remedy(self, question: Question, refused: Refused, arrays: Summary) -> dict[str, Any] | None:
        """Balance without the numbers that too few people have. What a wider caliper would match, no sum tells."""
        p: Parameters = question.parameters
        covariates = balance.covariates_of(question, p.balance, self.name)
        return balance.unbalanced(refused.cells, covariates, p.balance)

    def derives(self, question: Question) -> Mapping[str, Column]:
        return {
            "matched": Column("flag", ("0", "1"), label=Words("Matched", "매칭됨")),
            "set": Column("number", label=Words("Matched set (within the hospital)", "짝 번호(병원 안)")),
            "weight": Column("number", label=Words("Matching weight", "매칭 가중치")),
        }

    def derive(self, rows: Rows, question: Question, result: Result, kept: Kept) -> Mapping[str, Any]:
        """`matched` (0/1), `set` (numbered inside the hospital, NaN for people without one), `weight` (treated 1, each
        of m controls of a set 1/m, 0 for people without a set); NaN without treatment or score."""
        p: Parameters = question.parameters
        arms = scored(rows, question, p.treatment, p.score)
        number, weights = _sets(rows, question, arms, result.portable["width"])
        found = {name: np.full(rows.n, np.nan) for name in ("matched", "set", "weight")}
        found["matched"][arms.present] = weights > 0
        found["set"][arms.present] = np.where(number == NOBODY, np.nan, number)
        found["weight"][arms.present] = weights
        return found

    def example(self, random: np.random.Generator) -> Example:
        n = 400
        age, severe = random.normal(60, 9, n), (random.random(n) < 0.4).astype(float)
        score = 1 / (1 + np.exp(-(0.05 * (age - 60) + 0.7 * severe - 1.2)))
        treated = (random.random(n) < score).astype(float)
        frame = pl.DataFrame({"treated": treated, "score": score, "age": age, "severe": severe})
        asked = {"treatment": "treated", "score": "score", "balance": ["age", "severe"]}
        return Example(
            frame.with_columns(person_id=pl.int_range(n, dtype=pl.Int64)), asked, {**asked, "within": "ward"}
        )


def _sets(rows: Rows, question: Question, arms: Scored, width: float | None) -> tuple[Whole, Vector]:
    """(people present,) the set of each person, NOBODY without one; and the weights."""
    p: Parameters = question.parameters

    def build() -> tuple[Whole, Vector]:
        person = np.arange(rows.n) if rows.person is None else rows.person
        person = np.asarray(person[arms.present], dtype=np.int64)
        apart = [name for name in (p.within, *p.exact) if name != "site"]
        codes = [rows.codes(name, question.column(name))[arms.present] for name in apart]
        group, groups = strata(codes, len(person))
        values = rounded_logit(arms.score)
        first = draws(person, p.seed) if p.order == "random" else -values
        number, weights = np.full(len(person), NOBODY, dtype=np.int64), np.zeros(len(person))
        so_far = 0
        for members in _members(group, groups):
            treated, control = members[arms.treated[members]], members[~arms.treated[members]]
            order = np.lexsort((person[treated], first[treated]))
            limit = np.inf if width is None else float(width)
            sets = matched_sets(
                values[treated], person[treated], order, values[control], person[control], p.ratio, limit
            )
            sizes = (sets != NOBODY).sum(axis=1)
            chosen = np.flatnonzero(sizes)
            numbers = so_far + np.arange(len(chosen))
            number[treated[chosen]], weights[treated[chosen]] = numbers, 1.0
            place, turn = np.nonzero(sets[chosen] != NOBODY)
            taken = control[sets[chosen][place, turn]]
            number[taken], weights[taken] = numbers[place], 1.0 / sizes[chosen][place]
            so_far += len(chosen)
        return number, weights

    return rows.remember_latest(("sets", p.model_dump_json()), width, build)


def _members(group: Whole, groups: int) -> list[Whole]:
    """The people of each stratum; one sort however many there are."""
    order = np.argsort(group, kind="stable")
    edges = np.searchsorted(group[order], np.arange(groups + 1))
    return [order[edges[place] : edges[place + 1]] for place in range(groups)]


def _told(p: Parameters) -> tuple[Words, tuple[str, ...]]:
    works = [ROSENBAUM, *([CALIPER] if p.caliper is not None else []), *([BALANCE] if p.balance else [])]
    works += [STUART] if p.ratio > 1 else []
    place = {work: f"[{number}]" for number, work in enumerate(works, start=1)}
    where = ("hospital", "병원") if p.within == "site" else (f"level of {p.within}", p.within)
    first = (
        Words("in descending order of the score", "점수가 높은 사람부터")
        if p.order == "descending"
        else Words("in random order", "무작위 순서로")
    )
    several = f"up to {p.ratio} controls" if p.ratio > 1 else "one control"
    en = (
        f"Each treated person was matched to {several} of the same {where[0]} by nearest neighbour without replacement "
        f"on the logit of the propensity score, {first.en} {place[ROSENBAUM]}"
    )
    ko = (
        f"치료군을 같은 {where[1]} 안에서 성향점수의 로짓으로 {first.ko} 비복원 최근접 방법으로 대조군 "
        f"{'최대 ' if p.ratio > 1 else ''}{p.ratio}명과 매칭하였다{place[ROSENBAUM]}"
    )
    if p.exact:
        en += f", exactly on {', '.join(p.exact)}"
        ko += f". {', '.join(p.exact)}은(는) 정확히 일치시켰다"
    if p.caliper is not None:
        en += f", within {p.caliper:g} pooled standard deviations of that logit over all hospitals {place[CALIPER]}"
        ko += f". 캘리퍼는 전체 병원에서 구한 로짓의 통합 표준편차의 {p.caliper:g}배로 하였다{place[CALIPER]}"
    en, ko = en + ".", ko + "."
    if p.ratio > 1:
        en += f" Controls of a set share a weight of one {place[STUART]}."
        ko += f" 한 짝의 대조군은 가중치 1을 나누어 가졌다{place[STUART]}."
    if p.balance:
        en += f" Balance was judged by standardised mean differences, 0.1 or less being good {place[BALANCE]}."
        ko += f" 균형은 표준화 평균 차이로 보았고 0.1 이하이면 좋다고 판단하였다{place[BALANCE]}."
    return Words(en, ko), tuple(works)


PAIRS_STAY = Words(
    "Who was matched with whom stays at the hospital. Later steps take the matched people by the column `weight`, and "
    "their errors account for the sets with `cluster` set to the column `set`.",
    "누가 누구와 짝인지는 병원을 떠나지 않습니다. 다음 단계에서는 `weight` 열로 매칭된 사람만 분석하고, "
    "`cluster`에 `set` 열을 주면 오차가 짝을 반영합니다.",
)

method = Matching()
