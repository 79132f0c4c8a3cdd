"""What the terminal shows: tables, errors, and a narrator for long work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType

import polars as pl
from rich.console import Console, ConsoleOptions, RenderableType
from rich.panel import Panel
from rich.segment import Segment
from rich.status import Status
from rich.table import Table as RichTable
from rich.text import Text

from dure.errors import DureError
from dure.language import Words, reader_language, visible


class Screen(Console):
    """Shows only visible letters: names, reasons and words come from others, and must not steer the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)


# No markup: a column may be called "pressure[mmHg]".
console = Screen(highlight=False, markup=False)
errors = Screen(stderr=True, highlight=False, markup=False)


class Unanswered(Exception):
    """Everything ran, but something could not be answered and was said: exit code 3."""


def say(en: str, ko: str) -> str:
    """One of two sentences, in the reader's language."""
    return Words(en, ko).say()


def show_error(error: DureError) -> None:
    """What happened, why, what to do now."""
    what, why, remedy = error.parts()
    body = Text.assemble((what, "bold"), "\n", why, "\n", ("→ ", "bold green"), remedy)
    errors.print(Panel(body, title=error.code(), title_align="left", border_style="red", expand=False))


def show_remark(words: Words) -> None:
    console.print(Text.assemble(("! ", "bold yellow"), words.say()))


def show_table(title: str, frame: pl.DataFrame, withheld: Mapping[tuple[int, str], str]) -> None:
    """A released table: numbers right-aligned, suppressed cells with their reason; a column `x_ko` is the Korean
    twin of `x`."""
    korean = reader_language() == "ko"
    twins = {name for name in frame.columns if f"{name}_ko" in frame.columns}
    shown = [
        name
        for name in frame.columns
        if not (name in twins if korean else name.removesuffix("_ko") in twins and name.endswith("_ko"))
    ]
    table = RichTable(title=Text(title), title_justify="left", title_style="bold", header_style="dim", box=None)
    for name in shown:
        heading = HEADINGS.get(name.removesuffix("_ko"))
        numeric = frame.schema[name].is_numeric()
        table.add_column(
            Text(heading.say() if heading else name), justify="right" if numeric else "left", overflow="fold"
        )
    for place, row in enumerate(frame.select(shown).rows()):
        table.add_row(*(Text(withheld.get((place, name), _shown(value))) for name, value in zip(shown, row)))
    console.print(table)
    console.print()


HEADINGS = {
    "variable": Words("variable", "변수"),
    "level": Words("level", "수준"),
    "group": Words("group", "집단"),
    "n": Words("n", "사람 수"),
    "of": Words("of", "전체"),
    "missing": Words("missing", "결측"),
    "mean": Words("mean", "평균"),
    "sd": Words("sd", "표준편차"),
    "percent": Words("percent", "%"),
    "smd": Words("smd", "표준화 차이"),
    "term": Words("term", "항"),
    "estimate": Words("estimate", "계수"),
    "std_error": Words("std_error", "표준오차"),
    "statistic": Words("statistic", "통계량"),
    "p_value": Words("p_value", "p값"),
    "ci_low": Words("ci_low", "신뢰하한"),
    "ci_high": Words("ci_high", "신뢰상한"),
    "score": Words("score", "점수"),
    "hospital": Words("hospital", "병원"),
    "auroc": Words("auroc", "AUROC"),
    "reason": Words("reason", "이유"),
    "bin_low": Words("from", "구간 시작"),
    "bin_high": Words("to", "구간 끝"),
    "predicted": Words("predicted", "예측"),
    "observed": Words("observed", "관찰"),
    "cases": Words("cases", "환자"),
    "events": Words("events", "사건"),
    "brier": Words("brier", "브라이어 점수"),
    "mean_predicted": Words("mean_predicted", "평균 예측"),
    "time": Words("time", "시간"),
    "at_risk": Words("at_risk", "위험집단"),
    "survival": Words("survival", "생존율"),
    "median": Words("median", "중앙값"),
    "criterion": Words("criterion", "기준"),
    "persons": Words("persons", "사람 수"),
    "step": Words("step", "단계"),
    "method": Words("method", "방법"),
    "array": Words("array", "배열"),
    "shape": Words("shape", "모양"),
    "kind": Words("kind", "종류"),
    "per hospital": Words("per hospital", "병원별"),
    "name": Words("name", "이름"),
    "says": Words("says", "내용"),
    "subject": Words("subject", "대상"),
    "count": Words("count", "수"),
    "status": Words("status", "상태"),
    "study": Words("study", "연구"),
    "title": Words("title", "제목"),
    "line": Words("line", "연결"),
    "cell": Words("cell", "칸"),
    "number": Words("number", "수치"),
    "numbers": Words("numbers", "수치"),
    "masked": Words("masked", "가림"),
    "rules": Words("rules", "규칙"),
    "event": Words("event", "사건"),
    "about": Words("about", "내용"),
    "lines": Words("lines", "줄"),
    "newer": Words("newer lines", "그 뒤의 줄"),
    "signed": Words("signed", "서명"),
    "root": Words("root", "루트"),
    "role": Words("role", "역할"),
    "joined": Words("joined", "가입"),
    "organisation": Words("organisation", "소속"),
    "created": Words("created", "만든 때"),
    "key": Words("key", "키"),
    "certificate": Words("certificate", "인증서"),
    "proposed by": Words("proposed by", "제안자"),
    "irb": Words("IRB", "IRB"),
    "drb": Words("DRB", "DRB"),
    "context": Words("context", "맥락"),
    "arrays": Words("arrays", "배열"),
    "in the clear": Words("in the clear", "가려지지 않은 것"),
    "approvals": Words("approvals", "승인"),
}


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


class Narrator:
    """Headings and finished lines stay; what is being worked on spins on the last line."""

    def __init__(self) -> None:
        self._status: Status = console.status("", spinner="dots")
        self._number = 0

    def __enter__(self) -> Narrator:
        self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def heading(self, words: Words) -> None:
        self._number += 1
        console.print(Text(f"\n{self._number}. {words.say()}", style="bold green"))

    def line(self, words: Words) -> None:
        console.print(Text.assemble(("   ✓ ", "green"), words.say()))

    def working(self, words: Words) -> None:
        self._status.update(Text(words.say(), style="dim"))
