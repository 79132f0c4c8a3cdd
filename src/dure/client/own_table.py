"""A person's own table played as an alliance (`dure try`): read, split by hospital, and asked the usual questions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from dure.client.frames import columns_of
from dure.client.simulate import run_frames
from dure.errors import (
    InvalidParameter,
    NotACount,
    NotAnOutcome,
    NotEnoughHospitals,
    OneClass,
    TextWhereNumbers,
    UnknownColumn,
)
from dure.federation.ledger import Outcome
from dure.federation.rounds import Progress, Run
from dure.guard.rules import DEFAULT, Limits
from dure.language import Words
from dure.study.permit import Grant
from dure.study.rows import Column
from dure.study.spec import Step

NOT_EVENTS = {"no", "n", "false", "alive", "negative", "absent", "none", "normal", "censored"} | {
    *("아니오", "아니요", "무", "없음", "생존", "음성", "정상", "중도절단")
}
"""Of two words, these say that nothing happened."""
MOST_LEVELS = 12
MOST_MISSING = 0.5
MOSTLY = 0.95
"""Share of rows in two values from which a third is taken for a mistake."""


@dataclass(frozen=True)
class OwnTable:
    """A table ready to be asked: frames by hospital, the steps, and what a reader has to know.

    `notes` say how the table was read; `remarks` say what cannot be answered and why (a constant column, a
    hospital of one class).
    """

    sites: dict[str, pl.DataFrame]
    columns: dict[str, Column]
    steps: tuple[Step, ...]
    notes: tuple[Words, ...] = ()
    remarks: tuple[Words, ...] = ()


def own_table(
    frame: pl.DataFrame,
    hospital: str,
    outcome: str,
    time: str | None = None,
    group: str | None = None,
    terms: Sequence[str] = (),
    event: str | None = None,
) -> OwnTable:
    """Questions for a table: who they are, a model of the outcome (or survival with `time`), and how well it
    predicts in each hospital. `terms`: only these columns; without it, every column that can serve. `event`: the
    value of a two-valued outcome that counts as the event. Raises DureError for columns that cannot be what they
    are said to be."""
    named = [name for name in (hospital, outcome, time, group, *terms) if name is not None]
    for name in named:
        if name not in frame.columns:
            raise UnknownColumn(name, frame.columns)
        if "`" in name:
            problem = Words("Its name holds a backtick", "이름에 역따옴표(`)가 있습니다")
            raise NotACount(column=name, role="a name", problem=problem)
    _each_its_own(named)
    if group and not time:
        problem = Words(
            "Groups are compared in survival, which needs --time", "집단 비교는 생존분석이며 --time이 필요합니다"
        )
        raise InvalidParameter(method="try", parameter="group", problem=problem)
    if frame[hospital].null_count():
        problem = Words("Some rows name no hospital", "병원 이름이 없는 행이 있습니다")
        raise NotACount(column=hospital, role="hospital", problem=problem)
    frame = frame.with_columns(pl.col(hospital).cast(pl.String))
    if "site" in frame.columns and hospital != "site":
        frame = frame.rename({"site": "site_"})  # in formulas, `site` is the hospital
    names = frame[hospital].unique(maintain_order=True).to_list()
    if len(names) < 2:
        raise NotEnoughHospitals(named=len(names), needed=2)
    frame, family, notes = _outcome(frame, outcome, time, event)
    remarks: list[Words] = []
    used: list[str] = []
    for name in terms or [name for name in frame.columns if name not in (hospital, outcome, time)]:
        reason, harmless = _unusable(frame[name])
        if reason is None:
            used.append(name)
        else:
            said = Words(f"Left out: '{name}' {reason.en}.", f"뺌: '{name}' {reason.ko}.")
            (notes if harmless else remarks).append(said)
    if frame[outcome].null_count():
        notes.append(
            Words(f"Rows without '{outcome}' are not analysed.", f"'{outcome}' 값이 없는 행은 분석하지 않습니다.")
        )
    remarks += _hospitals(frame, hospital, outcome, used, family)
    sites = {str(name): frame.filter(pl.col(hospital) == name).drop(hospital) for name in names}
    if time:
        steps, said = _survival(time, outcome, group, used, frame)
        notes.append(said)
    else:
        steps = _model(outcome, used, family)
    return OwnTable(sites, columns_of(sites), steps, tuple(notes), tuple(remarks))


def _each_its_own(named: Sequence[str]) -> None:
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        problem = Words(f"'{twice[0]}' is named twice, in different roles", f"'{twice[0]}'이(가) 두 역할로 쓰였습니다")
        raise InvalidParameter(method="try", parameter=twice[0], problem=problem)


def play(
    table: OwnTable,
    limits: Limits = DEFAULT,
    grants: frozenset[Grant] = frozenset(),
    progress: Progress | None = None,
) -> tuple[dict[str, Outcome], Run]:
    """Ask the table's questions as an alliance would."""
    return run_frames(table.sites, table.steps, limits, grants, columns=table.columns, progress=progress)


def _outcome(
    frame: pl.DataFrame, name: str, time: str | None, event: str | None
) -> tuple[pl.DataFrame, str, list[Words]]:
    """The outcome as 0/1 where it has two values, the event being `event`, or the value that does not say no, or
    the larger; else a number."""
    series = frame[name]
    counts = series.drop_nulls().value_counts(sort=True)
    values = sorted(counts[name].to_list())
    if len(values) < 2:
        raise OneClass(outcome=name)
    if len(values) == 2:
        chosen = _event(name, values, event)
        recoded = frame.with_columns((pl.col(name) == pl.lit(chosen)).cast(pl.Int8).alias(name))
        said = Words(f"Two classes; the event is {name} = {chosen}.", f"두 값이며, 사건은 {name} = {chosen}입니다.")
        return recoded, "binomial", [said]
    if not series.dtype.is_numeric():
        if _mostly_numbers(series):
            raise TextWhereNumbers(name)
        raise _no_outcome(name, "It is text with more than two values", "값이 셋 이상인 글자입니다")
    if time:
        raise _no_outcome(name, "With --time it has to hold two values", "--time을 쓰면 값이 둘이어야 합니다")
    if sum(counts["count"].to_list()[:2]) > MOSTLY * sum(counts["count"].to_list()):
        # A 9 for "not known" among zeros and ones would otherwise quietly become a linear model.
        raise _no_outcome(name, "It holds two values, but for a few rows", "몇 행을 빼고는 값이 둘입니다")
    return (
        frame,
        "gaussian",
        [Words(f"'{name}' is a number: a linear model.", f"'{name}'은(는) 숫자이므로 선형 모형입니다.")],
    )


def _event(name: str, values: list[Any], event: str | None) -> Any:
    if event is not None:
        by_text = {str(value): value for value in values}
        if event not in by_text:
            problem = Words(f"'{event}' is none of its two values", f"'{event}'은(는) 두 값에 없습니다")
            raise InvalidParameter(method="try", parameter="event", problem=problem)
        return by_text[event]
    other = [value for value in values if str(value).strip().lower() not in NOT_EVENTS]
    return other[-1] if other else values[-1]


def _no_outcome(name: str, en: str, ko: str) -> NotAnOutcome:
    hint = Words(
        "Choose a number or a column of two values; leave cells empty where the value is not known.",
        "숫자나 값이 둘인 열을 고르십시오. 모르는 값은 빈칸으로 두십시오.",
    )
    return NotAnOutcome(column=name, family="try", problem=Words(en, ko), hint=hint)


def _unusable(series: pl.Series) -> tuple[Words | None, bool]:
    """Why a column is no term of the model, and whether that is harmless (a row number, free text); raises
    TextWhereNumbers where numbers hold stray text."""
    known = series.drop_nulls()
    if "`" in series.name:
        return Words("has a backtick in its name", "이름에 역따옴표(`)가 있습니다"), True
    if known.len() < (1 - MOST_MISSING) * series.len():
        return Words("is missing in most rows", "대부분의 행에서 비어 있습니다"), False
    distinct = known.n_unique()
    if distinct < 2:
        return Words("has the same value everywhere", "값이 모두 같습니다"), False
    if series.dtype.is_integer() and distinct == known.len() and known.len() > MOST_LEVELS:
        return Words("looks like a row number", "행 번호로 보입니다"), True
    if series.dtype.is_numeric() or series.dtype == pl.Boolean:
        return None, True
    if _mostly_numbers(series):
        raise TextWhereNumbers(series.name)
    if distinct > MOST_LEVELS:
        return Words(f"is text with more than {MOST_LEVELS} values", f"값이 {MOST_LEVELS}개가 넘는 글자입니다"), True
    return None, True


def _mostly_numbers(series: pl.Series) -> bool:
    known = series.drop_nulls().cast(pl.String)
    return known.len() > 0 and known.cast(pl.Float64, strict=False).null_count() < 0.5 * known.len()


def _hospitals(frame: pl.DataFrame, hospital: str, outcome: str, used: list[str], family: str) -> list[Words]:
    """Hospitals from which nobody has all values, or whose people all have the same outcome."""
    remarks = []
    complete = frame.drop_nulls([outcome, *used])
    for name in frame[hospital].unique(maintain_order=True).to_list():
        mine = complete.filter(pl.col(hospital) == name)[outcome]
        if mine.len() == 0:
            remarks.append(
                Words(
                    f"{name}: nobody has a value in every column used, so its part of the model's sums is zero. "
                    f"Leave out the column that it lacks to include it.",
                    f"{name}: 쓰이는 모든 열에 값이 있는 사람이 없어 모형의 합에서 몫이 0입니다. "
                    f"그 병원에 없는 열을 빼면 포함됩니다.",
                )
            )
        elif family == "binomial" and mine.n_unique() == 1:
            remarks.append(
                Words(
                    f"{name}: everybody analysed has the same outcome. It counts in the sums; no model or AUROC of its "
                    f"own can exist. Widen its cohort to get one.",
                    f"{name}: 분석 대상 모두의 결과가 같습니다. 합에는 들어가지만 그 병원만의 모형이나 AUROC는 있을 수 "
                    f"없습니다. 코호트를 넓히면 얻을 수 있습니다.",
                )
            )
    return remarks


def _model(outcome: str, used: list[str], family: str) -> tuple[Step, ...]:
    formula = f"{_quoted(outcome)} ~ " + (" + ".join(_quoted(name) for name in used) or "1")
    by = {"by": outcome} if family == "binomial" else {}
    steps = [Step(name="table_one", method="table_one", parameters={"variables": used or [outcome], **by})]
    steps.append(Step(name="model", method="regression", parameters={"formula": formula, "family": family}))
    if family == "binomial":
        scores = {"outcome": outcome, "scores": ["model.prediction"]}
        steps.append(Step(name="validation", method="validation", parameters=scores, uses=("model",)))
    return tuple(steps)


def _survival(
    time: str, event: str, group: str | None, used: list[str], frame: pl.DataFrame
) -> tuple[tuple[Step, ...], Words]:
    if not frame[time].dtype.is_numeric():
        raise TextWhereNumbers(time)
    longest = float(frame[time].max() or 0)  # type: ignore[arg-type]
    if longest <= 0:
        problem = Words("It holds no positive times", "양수인 시간이 없습니다")
        raise NotACount(column=time, role="time", problem=problem)
    width = _round_width(longest / 120)
    # The grid ends at a round number: the longest follow-up is one person's.
    until = max(width, math.floor(longest / width / 10) * width * 10)
    parameters = {"time": time, "event": event, "grid": {"width": width, "until": until}}
    steps = (
        Step(name="table_one", method="table_one", parameters={"variables": used or [time], "by": event}),
        Step(name="survival", method="survival", parameters=parameters | ({"group": group} if group else {})),
    )
    grid = f"{width:g}, {until:g}"
    return steps, Words(
        f"Times are read on a grid (width, end: {grid}); curves are shown where enough events stand behind a step.",
        f"시간은 격자(너비, 끝: {grid}) 위에서 읽고, 곡선은 사건이 충분한 곳만 보입니다.",
    )


def _round_width(width: float) -> float:
    """The next of 1, 2, 5, 10, …"""
    unit = 10.0 ** math.floor(math.log10(width))
    return next(step * unit for step in (1.0, 2.0, 5.0, 10.0) if step * unit >= width * (1 - 1e-9))


def _quoted(name: str) -> str:
    """A column's name as a formula can carry it."""
    return name if name.isidentifier() else f"`{name}`"
