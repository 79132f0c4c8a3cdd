"""From a governed study to its report and `result.json`: what each hospital did, and which numbers left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dure.demo.cast import SEVEN, Cast
from dure.federation.ledger import Outcome
from dure.language import Words
from dure.report.governed_page import Departed, Event, GovernedStory, Party, Released
from dure.site.egress import FILE, Egress
from dure.study.permit import read_permit
from dure.study.result import Result, unpack_result
from dure.study.spec import Study

ANSWERS: dict[str, Words] = {
    "permitted": Words("both boards approve, the permit is signed", "두 위원회 승인, 허가서 서명"),
    "changes_asked": Words("asks for changes", "보완을 요청"),
    "declined": Words("declines", "거절"),
    "withdrawn": Words("withdraws while the study runs", "연구가 실행되는 중에 철회"),
}
STATUSES: dict[str, Words] = {
    "finished": Words("done", "완료"),
    "refused": Words("refused by a rule", "규칙에 따라 거절"),
    "not_estimable": Words("not estimable", "추정 불가"),
    "failed": Words("failed", "실패"),
    "skipped": Words("skipped", "건너뜀"),
}


@dataclass(frozen=True)
class Happened:
    """`kind`: done, waiting or refused, or a hospital's answer."""

    at: datetime
    who: str
    words: Words
    kind: str


@dataclass(frozen=True)
class Played:
    """Everything the governed demonstration knows at its end; `logs`: whose → (lines, countersigned by)."""

    began: datetime
    study: Study
    cast: Cast
    happened: list[Happened]
    outcomes: Mapping[str, Outcome]
    fetched: dict[str, Any]
    logs: Mapping[str, tuple[int, int]]


def departures(played: Played) -> dict[str, list[Departed]]:
    """Hospital → every array that left it, from the hospital's own list."""
    found: dict[str, list[Departed]] = {}
    for name, site in played.cast.sites.items():
        found[name] = []
        if (site.folder / FILE).exists():
            egress = Egress(site.folder / FILE)
            found[name] = [
                Departed(left.step, left.round, left.array, left.shape, left.kind, left.count, left.bytes, left.masked)
                for left in egress.read(played.study.hash)
            ]
            egress.close()
    return found


def results(played: Played) -> dict[str, Result]:
    """Step → what was released."""
    return {
        name: unpack_result(fold["result"])
        for name, step in played.fetched["steps"].items()
        for fold in step["folds"]
        if fold["result"]
    }


def story(played: Played) -> GovernedStory:
    left, store = departures(played), played.cast.store
    answers = store.answers(played.study.hash)
    signed = {name: read_permit(found) for name, found in store.permits(played.study.hash).items() if found}
    parties = []
    for name in SEVEN:
        kind = answers[name][0] if name in answers else "waiting"
        permit = signed.get(name)
        did = [event.words for event in played.happened if event.who == name]
        parties.append(
            Party(
                name,
                ANSWERS[kind],
                kind,
                tuple(did),
                permit.boards if permit else {},
                tuple(left[name]),
                played.logs.get(name, (0, 0)),
            )
        )
    labels = {name: variable.label.words() for name, variable in played.study.variables.items()}
    return GovernedStory(
        title=played.study.title.words(),
        question=played.study.question.words(),
        study=played.study.hash,
        replaces=played.study.replaces or "",
        made_at=played.began,
        events=tuple(Event(one.at, one.who, one.words, one.kind) for one in played.happened),
        parties=tuple(parties),
        released=tuple(
            Released(name, result, tuple(played.fetched["steps"][name]["hospitals"]))
            for name, result in results(played).items()
        ),
        left_out={
            name: Words(fold["error"]["en"], fold["error"]["ko"])
            for name, step in played.fetched["steps"].items()
            for fold in step["folds"]
            if fold["error"]
        },
        release=played.fetched["release"],
        hub_log=played.logs["hub"],
        labels=labels,
    )


def result_json(played: Played) -> dict[str, Any]:
    """The same for programs."""
    left = departures(played)
    store, hash_ = played.cast.store, played.study.hash
    return {
        "study": hash_,
        "replaces": played.study.replaces,
        "state": store.study(hash_)[1] if store.study(hash_) else None,  # type: ignore[index]
        "events": [
            {"time": one.at.isoformat(), "who": one.who, "en": one.words.en, "ko": one.words.ko, "kind": one.kind}
            for one in played.happened
        ],
        "answers": {name: kind for name, (kind, _, _) in store.answers(hash_).items()},
        "left": {name: [one.__dict__ | {"shape": list(one.shape)} for one in arrays] for name, arrays in left.items()},
        "released": {
            name: {table: shown.frame.to_dicts() for table, shown in result.tables.items()}
            for name, result in results(played).items()
        },
        "hospitals": {name: step["hospitals"] for name, step in played.fetched["steps"].items()},
        "release": played.fetched["release"],
        "logs": {name: {"lines": lines, "countersigned_by": by} for name, (lines, by) in played.logs.items()},
    }
