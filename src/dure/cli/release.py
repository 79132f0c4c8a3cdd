"""The release queue's commands: `dure release`, in the hub's folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from dure.cli.joining import StudyName
from dure.cli.screen import console, say, show_remark, show_table
from dure.language import Words

if TYPE_CHECKING:
    from dure.hub.releases import Waiting
    from dure.hub.store import Store

release_app = typer.Typer(
    help=say("What waits for release, and its approvals.", "공개를 기다리는 결과와 승인."), no_args_is_help=True
)
HubFolder = Annotated[Path, typer.Argument(help=say("the hub's folder", "허브 폴더"))]
Digest = Annotated[
    str,
    typer.Argument(
        help=say("what was read: the whole digest, as `show` prints it", "읽은 내용의 해시. `show`에 나온 그대로 전체")
    ),
]
Why = Annotated[str, typer.Option("--say", help=say("reasons", "이유"))]


@release_app.command(name="list", help=say("Everything that waits for release.", "공개를 기다리는 모든 것."))
def list_waiting(folder: HubFolder) -> None:
    import polars as pl

    from dure.guard.acting import may
    from dure.hub import releases
    from dure.study.method import installed_methods

    actor = may(folder, "see_release")
    with _store(folder) as store:
        waits = releases.queue(store, installed_methods(), actor)
    rows = [
        {
            "study": item.study.removeprefix("sha256:")[:12],
            "title": item.title.say(),
            "proposed by": item.proposer,
            "context": say("given", "있음") if item.request else say("missing", "없음"),
            "approvals": f"{item.approvals}/{releases.APPROVALS}",
        }
        for item in waits
    ]
    if rows:
        show_table(say("Release queue", "공개 대기열"), pl.DataFrame(rows), {})
    else:
        console.print(say("Nothing waits.", "기다리는 것이 없습니다."))


@release_app.command(help=say("Exactly what would be released, and its context.", "공개될 내용 그대로와 그 맥락."))
def show(folder: HubFolder, study: StudyName, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    from dure.guard.acting import may
    from dure.hub import desk, releases
    from dure.study.method import installed_methods

    may(folder, "see_release")
    with _store(folder) as store:
        item = releases.waiting(store, desk.find(store, study), installed_methods())
    if as_json:
        told = {
            "study": item.study,
            "digest": item.digest,
            "request": item.request,
            "decisions": item.decisions,
            "left_out": {name: words.say() for name, words in item.left_out.items()},
        }
        sys.stdout.write(json.dumps(told, ensure_ascii=False, indent=1) + "\n")
        return
    _print(item)


def _print(item: Waiting) -> None:
    from dure.guard.permissions import role_name
    from dure.hub.releases import APPROVALS, CONTEXT

    console.print(Text(item.title.say(), style="bold"))
    for part, words in CONTEXT.items():
        context = item.request["context"][part] if item.request else say("not given yet", "아직 없음")
        console.print(Text(f"  {words.say()}: {context}"))
    for (step, fold), result in item.shown.items():
        for name, table in result.tables.items():
            show_table(f"{step}{' · ' + fold if fold else ''} · {name}", table.frame, table.withheld)
        for name, fact in result.facts.items():
            console.print(Text(f"  {step}{' · ' + fold if fold else ''} · {name}: {fact}"))
        for note in result.notes:
            show_remark(Words(f"{step}: {note.en}", f"{step}: {note.ko}"))
    for step, why in item.left_out.items():
        show_remark(Words(f"{step}: left out. {why.en}", f"{step}: 제외. {why.ko}"))
    for decided in item.decisions:
        verdict = Words("approves", "승인") if decided["approves"] else Words("refuses", "거절")
        who = f"{decided['name']} ({decided['organisation']}, {role_name(decided['role']).say()})"
        console.print(Text(f"  {who}: {verdict.say()}"))
    console.print(
        Text(say(f"Approvals: {item.approvals} of {APPROVALS}", f"승인: {APPROVALS} 가운데 {item.approvals}"))
    )
    digest = Text(say("Digest of exactly this: ", "이 내용의 해시: ") + item.digest, style="bold")
    console.print(digest, soft_wrap=True)  # whole on one line: it is copied from here


@release_app.command(help=say("Approve exactly what the digest names.", "해시가 가리키는 내용을 승인합니다."))
def approve(folder: HubFolder, study: StudyName, digest: Digest, note: Why = "") -> None:
    _decide(folder, study, digest, True, note)


@release_app.command(
    help=say("Refuse a release; it goes back to the proposer.", "공개를 거절합니다. 제안자에게 돌아갑니다.")
)
def refuse(folder: HubFolder, study: StudyName, digest: Digest, note: Why) -> None:
    _decide(folder, study, digest, False, note)


@release_app.command(help=say("Archive a study whose results are released.", "결과가 공개된 연구를 보관합니다."))
def archive(folder: HubFolder, study: StudyName) -> None:
    from dure.guard.acting import may
    from dure.hub import desk, studies

    may(folder, "archive")
    with _store(folder) as store:
        hash_ = desk.find(store, study)
        studies.advance(store, hash_, "archive", "office")
        store.put_event(hash_, "archived", {})
    console.print(Text(say("Archived.", "보관했습니다."), style="bold green"))


@release_app.command(
    help=say(
        "Write released results into a folder, for the office and boards.",
        "공개된 결과를 폴더에 씁니다(사무국과 위원회용).",
    )
)
def fetch(
    folder: HubFolder,
    study: StudyName,
    out: Annotated[Path, typer.Option(help=say("folder to write", "쓸 폴더"))] = Path("results"),
) -> None:
    from dure.client.alliance import read_fetched, write
    from dure.guard.acting import acting
    from dure.hub import desk
    from dure.study.method import installed_methods

    actor = acting(folder)
    with _store(folder) as store:
        hash_ = desk.find_for(store, study, actor, "fetch")
        fetched = read_fetched(desk.released(store, hash_, installed_methods()))
        store.log.append("fetched", study=hash_, by=actor.name, organisation=actor.organisation)
    for path in write(fetched, out):
        console.print(Text(str(path)))


def _decide(folder: Path, study: str, digest: str, approves: bool, said: str) -> None:
    from dure.guard.acting import may
    from dure.hub import desk, releases
    from dure.study.lifecycle import STATES
    from dure.study.method import installed_methods

    actor = may(folder, "decide_release")
    with _store(folder) as store:
        hash_ = desk.find(store, study)
        state = releases.decide(store, hash_, actor, digest, approves, installed_methods(), said)
    verdict = Words("Approved", "승인했습니다") if approves else Words("Refused", "거절했습니다")
    console.print(Text(f"{verdict.say()}: {STATES[state][0].say()}", style="bold green"))


@contextmanager
def _store(folder: Path) -> Iterator[Store]:
    from dure.hub.authority import read_hub

    store = read_hub(folder).open_store()
    try:
        yield store
    finally:
        store.close()
