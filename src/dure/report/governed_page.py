"""A governed study as one self-contained HTML page: what everybody did, what was released, and which numbers left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dure.language import Language, Words
from dure.report import numerals, tables
from dure.report.phrases import phrase
from dure.report.tables import Cell, Grid, Heading, Naming
from dure.study.result import Result


@dataclass(frozen=True)
class Event:
    """`kind`: done, waiting, refused, or a hospital's answer."""

    at: datetime
    who: str
    words: Words
    kind: str


@dataclass(frozen=True)
class Departed:
    """One array that left a hospital; `numbers` in it, `bytes` as they are at the hospital."""

    step: str
    round: int
    array: str
    shape: tuple[int, ...]
    kind: str
    numbers: int
    bytes: int
    masked: bool


@dataclass(frozen=True)
class Party:
    """A hospital: what it answered, what it did, who approved, what left it; `log`: (lines, countersigned by)."""

    name: str
    answer: Words
    kind: str
    did: tuple[Words, ...]
    boards: Mapping[str, str]
    left: tuple[Departed, ...]
    log: tuple[int, int]


@dataclass(frozen=True)
class Released:
    step: str
    result: Result
    hospitals: tuple[str, ...]


@dataclass(frozen=True)
class GovernedStory:
    """Everything the page shows; `release` has digest, context, who approved and who has left since."""

    title: Words
    question: Words
    study: str
    replaces: str
    made_at: datetime
    events: tuple[Event, ...]
    parties: tuple[Party, ...]
    released: tuple[Released, ...]
    left_out: Mapping[str, Words]
    release: Mapping[str, object]
    hub_log: tuple[int, int]
    labels: Mapping[str, Words] = field(default_factory=dict)


TITLES: dict[str, Words] = {
    "did": Words("What each hospital did", "병원마다 한 일"),
    "events": Words("From draft to results", "초안에서 결과까지"),
    "released": Words("What was released", "공개된 것"),
    "left": Words("Which numbers left", "나간 수치"),
    "logs": Words("The logs", "기록"),
}
SAYS: dict[str, Words] = {
    "kicker": Words("A governed study", "거버넌스를 거친 연구"),
    "headline": Words(
        "Each hospital decided; the hub learned totals only", "병원마다 스스로 결정했고 허브는 합계만 알았습니다"
    ),
    "did_about": Words(
        "Seven hospitals: the four of UCI Heart Disease, three of them in two halves that act as hospitals of "
        "their own.",
        "병원 일곱 곳: UCI Heart Disease의 네 병원이며, 세 곳은 반씩 나누어 저마다 병원으로 행동합니다.",
    ),
    "events_about": Words(
        "Every line was done through the same functions that commands and services call, by somebody signed in.",
        "모든 일은 명령과 서비스가 부르는 같은 함수로, 로그인한 사람이 했습니다.",
    ),
    "released_about": Words(
        "Two people approved exactly this. Counts are rounded to 5; small ones are not shown.",
        "두 사람이 정확히 이 내용을 승인했습니다. 사람 수는 5 단위로 반올림하고 작은 수는 보이지 않습니다.",
    ),
    "left_about": Words(
        "From each hospital's own list (`dure site egress`). Masked numbers show nothing of one hospital: "
        "only the sum of "
        "all can be opened.",
        "병원마다 가진 목록에서(`dure site egress`). 가려진 수치는 한 병원에 대해 아무것도 드러내지 않으며 "
        "합만 열 수 있습니다.",
    ),
    "logs_about": Words(
        "Append-only Merkle logs; hub and hospitals countersign each other's heads.",
        "덧붙이기만 하는 머클 기록. 허브와 병원이 서로의 기록 머리를 확인하고 서명합니다.",
    ),
    "approved_by": Words("Approved by", "승인한 사람"),
    "content": Words("Content", "내용"),
    "of": Words("of", "참여"),
    "nothing": Words("Nothing left this hospital.", "이 병원에서 나간 것이 없습니다."),
    "steps_left_out": Words("Left out of the release", "공개에서 제외"),
}
MARKS: dict[str, str] = {
    "permitted": "done",
    "declined": "refused",
    "withdrawn": "waiting",
    "changes_asked": "waiting",
    "waiting": "waiting",
    "refused": "refused",
}


def page(story: GovernedStory, language: Language = "en") -> str:
    """The whole page in both languages; `language` is shown first."""
    naming = Naming(story.labels)
    return (
        tables.templates()
        .get_template("governed.html.j2")
        .render(
            story=story,
            title=story.title,
            language=language,
            say=phrase,
            told=SAYS,
            table=tables.html,
            titles=TITLES,
            glance=_glance(story),
            parties=_parties(story.parties),
            marks=MARKS,
            released=[
                (one, [tables.grid(table, naming.heading(name), naming) for name, table in one.result.tables.items()])
                for one in story.released
            ],
            departures=[(party, _departures(party)) for party in story.parties],
            logs=_logs(story),
        )
    )


def _glance(story: GovernedStory) -> list[tuple[Words, str]]:
    numbers = [one for party in story.parties for one in party.left]
    masked = sum(one.numbers for one in numbers if one.masked)
    total = sum(one.numbers for one in numbers)
    return [
        (phrase("hospitals"), str(len(story.parties))),
        (Words("numbers left", "나간 수치"), numerals.count(total)),
        (Words("of them in the clear", "가려지지 않은 것"), numerals.count(total - masked)),
        (
            Words("lines in the logs", "기록의 줄"),
            numerals.count(story.hub_log[0] + sum(p.log[0] for p in story.parties)),
        ),
    ]


def _parties(parties: Sequence[Party]) -> Grid:
    rows = []
    for party in parties:
        numbers = sum(one.numbers for one in party.left)
        rows.append(
            (
                Cell(party.name, heads=True),
                Cell(party.answer),
                Cell(", ".join(f"{board.upper()}: {said}" for board, said in party.boards.items()) or "–"),
                Cell(numerals.count(len(party.left)), number=True),
                Cell(numerals.count(numbers), number=True),
            )
        )
    headings = (
        Heading(phrase("hospitals")),
        Heading(Words("Answer in the end", "마지막 답")),
        Heading(Words("Approved by", "승인")),
        Heading(Words("Arrays left", "나간 배열"), number=True),
        Heading(Words("Numbers left", "나간 수치"), number=True),
    )
    return Grid(TITLES["did"], headings, tuple(rows))


def _departures(party: Party) -> Grid | None:
    if not party.left:
        return None
    rows = tuple(
        (
            Cell(one.step, heads=True),
            Cell(str(one.round + 1), number=True),
            Cell(one.array),
            Cell(numerals.shape(one.shape)),
            Cell(KINDS.get(one.kind, Words(one.kind, one.kind))),
            Cell(numerals.count(one.numbers), number=True),
            Cell(Words("masked", "가림") if one.masked else Words("in the clear", "가리지 않음")),
        )
        for one in party.left
    )
    headings = (
        Heading(Words("Step", "단계")),
        Heading(Words("Round", "라운드"), number=True),
        Heading(Words("Array", "배열")),
        Heading(Words("Shape", "모양")),
        Heading(Words("Kind", "종류")),
        Heading(Words("Numbers", "수치"), number=True),
        Heading(Words("How", "방식")),
    )
    return Grid(party.name, headings, rows)


KINDS: dict[str, Words] = {
    "count": Words("numbers of people", "사람 수"),
    "moment": Words("sums over people", "사람들에 대한 합"),
    "weights": Words("weights", "가중치"),
}


def _logs(story: GovernedStory) -> Grid:
    rows: list[tuple[Words | str, int, int]] = [(Words("hub", "허브"), *story.hub_log)]
    rows += [(party.name, *party.log) for party in story.parties]
    headings = (
        Heading(Words("Log of", "기록")),
        Heading(Words("Lines", "줄"), number=True),
        Heading(Words("Countersigned by", "확인 서명한 곳"), number=True),
    )
    cells = tuple(
        (Cell(who, heads=True), Cell(numerals.count(lines), number=True), Cell(numerals.count(by), number=True))
        for who, lines, by in rows
    )
    return Grid(TITLES["logs"], headings, cells)
