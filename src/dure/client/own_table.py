"""A person's own table played as an alliance (`dure try`): read, split by hospital, and asked the usual questions."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from dure.client.frames import columns_of
from dure.client.simulate import run_frames
from dure.errors import (
    EmptyExport,
    InvalidDocument,
    NotACount,
    NotAnOutcome,
    NotEnoughHospitals,
    OneClass,
    TextWhereNumbers,
    UnknownColumn,
)
from dure.federation.rounds import Outcome, Progress, Run
from dure.guard.rules import DEFAULT, Limits
from dure.language import Words
from dure.study.document import read_text
from dure.study.permit import Grant
from dure.study.rows import Column
from dure.study.spec import Step

MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", ".", "결측", "미상"]
MOST_LEVELS = 12
MOST_MISSING = 0.5


@dataclass(frozen=True)
class OwnTable:
    """A table ready to be asked: frames by hospital, the steps, and what a reader has to know.

    `remarks`: columns left out and hospitals that cannot answer everything, each with its reason.
    """

    sites: dict[str, pl.DataFrame]
    columns: dict[str, Column]
    steps: tuple[Step, ...]
    remarks: tuple[Words, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def read_table(path: Path, encoding: str = "utf-8") -> pl.DataFrame:
    """A CSV file with a header; comma, semicolon or tab. Raises FileMissing, WrongEncoding, EmptyExport,
    InvalidDocument."""
    text = read_text(path, encoding)
    header = text.split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    try:
        frame = pl.read_csv(
            io.BytesIO(text.encode()), separator=separator, null_values=MISSING, infer_schema_length=None
        )
    except pl.exceptions.NoDataError:
        raise EmptyExport(path=path) from None
    except pl.exceptions.PolarsError as error:
        problem = Words("Its lines do not all have the same columns", "행마다 열의 수가 다릅니다")
        hint = Words(
            "Export it again with quotation marks around text that holds the separator.",
            "구분자가 든 글자를 따옴표로 묶어 다시 내보내십시오.",
        )
        raise InvalidDocument(path=path, line=1, field="table", problem=problem, hint=hint) from error
    if frame.height == 0:
        raise EmptyExport(path=path)
    return frame


def own_table(
    frame: pl.DataFrame,
    hospital: str,
    outcome: str,
    time: str | None = None,
    group: str | None = None,
    terms: Sequence[str] = (),
) -> OwnTable:
    """Questions for a table: who they are, a model of the outcome (or survival with `time`), and how well it
    predicts in each hospital. `terms`: only these columns; without it, every column that can serve. Raises
    DureError for columns that cannot be what they are said to be."""
    for name in (hospital, outcome, time, group, *terms):
        if name is not None and name not in frame.columns:
            raise UnknownColumn(name, frame.columns)
    if frame[hospital].null_count():
        problem = Words("Some rows name no hospital", "병원 이름이 없는 행이 있습니다")
        raise NotACount(column=hospital, role="hospital", problem=problem)
    frame = frame.with_columns(pl.col(hospital).cast(pl.String))
    names = frame[hospital].unique(maintain_order=True).to_list()
    if len(names) < 2:
        raise NotEnoughHospitals(named=len(names), needed=DEFAULT.minimum_hospitals)
    frame, family, remarks = _outcome(frame, outcome, time)
    used: list[str] = []
    others = [name for name in terms or frame.columns if name not in (hospital, outcome, time)]
    for name in others:
        reason = _unusable(frame[name])
        if reason is None:
            used.append(name)
        else:
            remarks.append(Words(f"Left out: '{name}' {reason.en}.", f"뺌: '{name}' {reason.ko}."))
    remarks += _hospitals(frame, hospital, outcome, used, family)
    sites = {str(name): frame.filter(pl.col(hospital) == name).drop(hospital) for name in names}
    steps = _survival(time, outcome, group, used, frame) if time else _model(outcome, used, family)
    return OwnTable(sites, columns_of(sites), steps, tuple(remarks), {"outcome": outcome, "family": family})


def play(
    table: OwnTable,
    limits: Limits = DEFAULT,
    grants: frozenset[Grant] = frozenset(),
    progress: Progress | None = None,
) -> tuple[dict[str, Outcome], Run]:
    """Ask the table's questions as an alliance would."""
    return run_frames(table.sites, table.steps, limits, grants, columns=table.columns, progress=progress)


def _outcome(frame: pl.DataFrame, name: str, time: str | None) -> tuple[pl.DataFrame, str, list[Words]]:
    """The outcome as 0/1 where it has two values, the larger (or later in the alphabet) being the event."""
    series = frame[name]
    values = sorted(series.drop_nulls().unique().to_list())
    if len(values) < 2:
        raise OneClass(outcome=name)
    if len(values) == 2:
        if values == [0, 1] and series.dtype != pl.Boolean:
            return frame, "binomial", []
        recoded = frame.with_columns((pl.col(name) == pl.lit(values[1])).cast(pl.Int8).alias(name))
        remark = Words(
            f"'{name}' is read as two classes; the second is the event.",
            f"'{name}'을(를) 두 값으로 읽었고 둘째가 사건입니다.",
        )
        return recoded, "binomial", [] if series.dtype == pl.Boolean else [remark]
    if not series.dtype.is_numeric():
        if _mostly_numbers(series):
            raise TextWhereNumbers(name)
        problem = Words("It is text with more than two values", "값이 셋 이상인 글자입니다")
        hint = Words("Choose a number or a column of two values.", "숫자나 값이 둘인 열을 고르십시오.")
        raise NotAnOutcome(column=name, family="regression", problem=problem, hint=hint)
    if time:
        problem = Words("With --time it has to be 0 or 1", "--time을 쓰면 0이나 1이어야 합니다")
        hint = Words(
            "Choose the column that says whether the event happened.", "사건이 일어났는지 말하는 열을 고르십시오."
        )
        raise NotAnOutcome(column=name, family="survival", problem=problem, hint=hint)
    return frame, "gaussian", []


def _unusable(series: pl.Series) -> Words | None:
    """Why a column is no term of the model; raises TextWhereNumbers where numbers hold stray text."""
    known = series.drop_nulls()
    if known.len() < (1 - MOST_MISSING) * series.len():
        return Words("is missing in most rows", "대부분의 행에서 비어 있습니다")
    distinct = known.n_unique()
    if distinct < 2:
        return Words("has the same value everywhere", "값이 모두 같습니다")
    if series.dtype.is_integer() and distinct == known.len() and known.len() > MOST_LEVELS:
        return Words("looks like a row number", "행 번호로 보입니다")
    if series.dtype.is_numeric() or series.dtype == pl.Boolean:
        return None
    if _mostly_numbers(series):
        raise TextWhereNumbers(series.name)
    if distinct > MOST_LEVELS:
        return Words(f"is text with more than {MOST_LEVELS} values", f"값이 {MOST_LEVELS}개가 넘는 글자입니다")
    return None


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


def _survival(time: str, event: str, group: str | None, used: list[str], frame: pl.DataFrame) -> tuple[Step, ...]:
    if not frame[time].dtype.is_numeric():
        raise TextWhereNumbers(time)
    longest = float(frame[time].max() or 0)  # type: ignore[arg-type]
    if longest <= 0:
        problem = Words("It holds no positive times", "양수인 시간이 없습니다")
        raise NotACount(column=time, role="time", problem=problem)
    parameters = {"time": time, "event": event, "width": longest / 24, "until": longest}
    return (
        Step(name="table_one", method="table_one", parameters={"variables": used or [time], "by": event}),
        Step(name="survival", method="survival", parameters=parameters | ({"group": group} if group else {})),
    )


def _quoted(name: str) -> str:
    """A column's name as a formula can carry it."""
    return name if name.isidentifier() else f"`{name}`"
