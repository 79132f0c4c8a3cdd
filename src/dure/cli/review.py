"""A review board's commands: `dure review`, in a hospital's folder or in that of a board that hospitals share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from dure.cli.joining import StudyName
from dure.cli.screen import console, say, show_remark, show_table
from dure.language import Words

if TYPE_CHECKING:
    from dure.study.board import Verdict
    from dure.study.permit import Grant

review_app = typer.Typer(
    help=say("A review board's decisions on studies.", "심의위원회의 연구 심의와 결정."), no_args_is_help=True
)

Folder = Annotated[
    Path, typer.Argument(help=say("the hospital's or the shared board's folder", "병원 또는 공동 위원회 폴더"))
]
Boards = Annotated[
    str | None,
    typer.Option(
        "--board", help=say("irb or drb; without it, the signed-in person's", "irb 또는 drb. 없으면 로그인한 사람의 것")
    ),
]
Why = Annotated[str, typer.Option("--say", help=say("reasons, for the researcher", "연구자에게 전할 이유"))]
Hospitals = Annotated[
    list[str] | None,
    typer.Option(
        "--hospital", help=say("for a shared board: for whom it decides", "공동 위원회: 어느 병원을 위한 결정인지")
    ),
]
PerHospital = Annotated[
    bool,
    typer.Option(
        "--per-hospital", help=say("this hospital's own numbers may be released", "이 병원만의 수치도 공개 가능")
    ),
]
Difference = Annotated[
    bool,
    typer.Option(
        "--difference",
        help=say("sums with and without this hospital may be opened", "이 병원을 넣은 합과 뺀 합을 모두 열 수 있음"),
    ),
]
SHARED = Words("shared", "공동")

STATES: dict[str, Words] = {
    "waiting": Words("waits for review", "심의 대기"),
    "permitted": Words("permitted", "허가함"),
    "changes_asked": Words("changes asked", "보완 요청함"),
    "declined": Words("declined", "거절함"),
    "withdrawn": Words("withdrawn", "철회함"),
    "replaced": Words("replaced by a new version", "새 판으로 바뀜"),
}
VERDICTS: dict[str, Words] = {
    "approve": Words("approved", "승인"),
    "ask": Words("asks for changes", "보완 요청"),
    "decline": Words("declined", "거절"),
}
OPEN = Words("waits", "대기")


@review_app.command(name="list", help=say("Studies, and what each board has decided.", "연구와 위원회별 결정."))
def list_reviews(folder: Folder) -> None:
    import polars as pl

    from dure.guard.acting import may
    from dure.site import inbox, reviews
    from dure.site.settings import Site

    if _is_shared(folder):
        return _list_shared(folder)
    may(folder, "see_review")
    site = Site(folder)
    rows = []
    for study, kind, problem in inbox.decisions(site):
        row = {
            "study": study.hash.removeprefix("sha256:")[:12],
            "title": study.title.words().say(),
            "proposed by": inbox.proposer(site, study.hash),
        }
        for board, decided in reviews.gates(site, study.hash).items():
            row[board] = (VERDICTS[decided.verdict] if decided else OPEN).say()
        rows.append({**row, "status": STATES[kind].say(), "reason": problem.say() if problem else ""})
    if not rows:
        console.print(say("No study has come in yet.", "아직 받은 연구가 없습니다."))
        return None
    return show_table(say("Reviews", "심의"), pl.DataFrame(rows), {})


@review_app.command(
    help=say(
        "The packet a board reads: purpose, legal basis, data, what will leave, rules, record of processing.",
        "심의 자료: 목적, 법적 근거, 자료, 나갈 것, 규칙, 처리 기록.",
    )
)
def show(
    folder: Folder,
    study: StudyName,
    out: Annotated[Path | None, typer.Option(help=say("Markdown file to write", "쓸 마크다운 파일"))] = None,
    hospitals: Annotated[int, typer.Option(min=1, help=say("how many hospitals take part", "참여 병원 수"))] = 4,
) -> None:
    from dure.guard.acting import may
    from dure.guard.rules import DEFAULT
    from dure.language import reader_language
    from dure.site import inbox
    from dure.site.packet import packet
    from dure.site.settings import Site
    from dure.study.method import installed_methods

    if _is_shared(folder):
        from dure.client.alliance import Alliance

        with Alliance(folder) as alliance:
            asked, proposer = alliance.document(study)
            before = alliance.document(asked.replaces)[0] if asked.replaces else None
        hospital, limits = "–", DEFAULT
    else:
        site = Site(folder)
        may(folder, "see_review")
        hash_ = inbox.find(site, study)
        asked, proposer, hospital, limits = (
            inbox.study_of(site, hash_),
            inbox.proposer(site, hash_),
            site.hospital,
            site.limits,
        )
        earlier = asked.replaces if asked.replaces and inbox.holds(site, asked.replaces) else None
        before = inbox.study_of(site, earlier) if earlier else None
        site.audit.append("packet read", study=hash_)
    text = packet(
        asked,
        installed_methods(),
        limits,
        hospital=hospital,
        proposer=proposer,
        hospitals=hospitals,
        before=before,
        language=reader_language(),
    )
    if out is None:
        sys.stdout.write(text)
        return
    out.write_text(text, encoding="utf-8")
    console.print(Text(str(out)))


@review_app.command(
    help=say(
        "Approve a study; both boards' approval signs the permit.", "승인. 두 위원회가 승인하면 허가서에 서명됩니다."
    )
)
def approve(
    folder: Folder,
    study: StudyName,
    board: Boards = None,
    per_hospital: PerHospital = False,
    difference: Difference = False,
    visible_updates: Annotated[
        bool,
        typer.Option(
            "--visible-updates",
            help=say(
                "this hospital's own part may reach the hub unmasked", "이 병원 몫이 가려지지 않고 허브에 닿아도 됨"
            ),
        ),
    ] = False,
    days: Annotated[int, typer.Option(min=1, max=3650, help=say("days until the permit ends", "허가 기간(일)"))] = 365,
    releases: Annotated[
        int, typer.Option(min=0, max=1000, help=say("how often results may be released", "결과 공개 허용 횟수"))
    ] = 1,
    note: Why = "",
    hospital: Hospitals = None,
) -> None:
    asked = {"per_hospital": per_hospital, "difference": difference, "visible_updates": visible_updates}
    grants: list[Grant] = [name for name, given in asked.items() if given]  # type: ignore[misc]
    _decide(folder, study, board, "approve", note, hospital, grants, days, releases)


@review_app.command(help=say("Ask for changes before deciding.", "결정 전에 보완을 요청합니다."))
def ask(folder: Folder, study: StudyName, note: Why, board: Boards = None, hospital: Hospitals = None) -> None:
    _decide(folder, study, board, "ask", note, hospital)


@review_app.command(help=say("Decline a study.", "연구를 거절합니다."))
def decline(folder: Folder, study: StudyName, note: Why, board: Boards = None, hospital: Hospitals = None) -> None:
    _decide(folder, study, board, "decline", note, hospital)


@review_app.command(
    help=say(
        "Leave a study that was permitted; nothing more is answered.", "허가한 연구에서 나옵니다. 더는 답하지 않습니다."
    )
)
def withdraw(
    folder: Folder,
    study: StudyName,
    note: Why = "",
    difference: Annotated[
        bool,
        typer.Option(
            "--difference",
            help=say(
                "sums without this hospital may be opened, although sums with it were",
                "이 병원을 넣은 합이 열렸더라도 뺀 합을 열 수 있음",
            ),
        ),
    ] = False,
    keep_results: Annotated[
        bool,
        typer.Option(
            "--keep-results",
            help=say("results it is part of, not released yet, may be", "이 병원이 포함된 미공개 결과를 공개해도 됨"),
        ),
    ] = False,
) -> None:
    from dure.guard.acting import may
    from dure.site import inbox, reviews
    from dure.site.settings import Site

    actor, site = may(folder, "withdraw"), Site(folder)
    hash_ = inbox.find(site, study)
    reviews.withdraw(site, hash_, actor, note, difference, keep_results)
    console.print(Text(say(f"Withdrawn from {hash_[:19]}.", f"{hash_[:19]}에서 철회했습니다."), style="bold"))
    rest = Words("What was released stays released.", "이미 공개된 결과는 그대로입니다.")
    if not difference:
        rest = Words(
            f"{rest.en} What the study still wanted of all hospitals cannot be computed any more.",
            f"{rest.ko} 연구가 모든 병원에 더 물으려던 것은 계산할 수 없습니다.",
        )
    show_remark(rest)


@review_app.command(
    help=say(
        "A shared board's public key, for `board_keys` in site.yaml.",
        "공동 위원회의 공개키(site.yaml의 board_keys에 적음).",
    )
)
def key(folder: Folder) -> None:
    from dure.federation.membership import OwnKeys

    sys.stdout.write(OwnKeys(folder / "key.pem", lambda peer: None).public.hex() + "\n")


def _decide(
    folder: Path,
    study: str,
    board: str | None,
    verdict: Verdict,
    said: str,
    hospitals: list[str] | None,
    grants: list[Grant] | None = None,
    days: int = 365,
    releases: int = 1,
) -> None:
    from dure.errors import InvalidParameter
    from dure.guard.acting import acting, may
    from dure.site import inbox, reviews
    from dure.site.settings import Site
    from dure.study.method import installed_methods

    if _is_shared(folder):
        return _decide_shared(folder, study, verdict, said, hospitals or [], grants or [], days, releases)
    site, actor = Site(folder), acting(folder)
    chosen = board or (actor.role if actor.role in reviews.BOARDS else None)
    if chosen not in reviews.BOARDS:
        problem = Words(
            "Say whose decision it is: --board irb or --board drb", "누구의 결정인지 밝히십시오: --board irb 또는 drb"
        )
        raise InvalidParameter(method="review", parameter="board", problem=problem)
    may(folder, f"decide_{chosen}")
    hash_ = inbox.find(site, study)
    answer = reviews.decide(
        site,
        hash_,
        actor,
        chosen,
        verdict,
        installed_methods(),
        grants=grants or [],
        days=days,
        releases=releases,
        said=said,
    )
    name = reviews.BOARDS[chosen].say()
    console.print(Text(f"{name}: {VERDICTS[verdict].say()} ({hash_[:19]})", style="bold green"))
    still = [reviews.BOARDS[one].say() for one in reviews.open_gates(site, hash_)]
    if answer is not None:
        console.print(Text(say("The hospital's answer: ", "병원의 답: ") + STATES[answer.kind].say()))
    if still and verdict == "approve":
        console.print(Text(say("Still to decide: ", "남은 결정: ") + ", ".join(still)))
    return None


def _is_shared(folder: Path) -> bool:
    return (folder / "member.json").is_file() and not (folder / "site.yaml").is_file()


def _list_shared(folder: Path) -> None:
    import polars as pl

    from dure.client.alliance import Alliance
    from dure.study.lifecycle import STATES as states

    with Alliance(folder) as alliance:
        found = alliance.studies()
    rows: list[dict[str, Any]] = [
        {
            "study": one["study"].removeprefix("sha256:")[:12],
            "title": Words(**one["title"]).say(),
            "proposed by": one["submitter"],
            "status": states[one["state"]][0].say(),
        }
        for one in found
    ]
    show_table(say("Reviews", "심의"), pl.DataFrame(rows), {}) if rows else console.print(say("None.", "없습니다."))


def _decide_shared(
    folder: Path,
    study: str,
    verdict: Verdict,
    said: str,
    hospitals: list[str],
    grants: list[Grant],
    days: int,
    releases: int,
) -> None:
    from datetime import UTC, datetime

    from dure.client.alliance import Alliance
    from dure.errors import DecisionRefused
    from dure.federation.membership import read_membership
    from dure.guard.keys import read_signer
    from dure.study.board import Decision, sign_decision

    if not hospitals:
        problem = Words("Name the hospitals it decides for: --hospital", "누구를 위한 결정인지 밝히십시오: --hospital")
        raise DecisionRefused(problem=problem)
    name = read_membership(folder).name
    with Alliance(folder) as alliance:
        asked, _ = alliance.document(study)
        decision = Decision(
            study=asked.hash,
            board="drb",
            verdict=verdict,
            name=name,
            hospitals=tuple(hospitals),
            by=name,
            at=datetime.now(UTC),
            grants=tuple(sorted(grants)),
            days=days,
            releases=releases,
            said=said,
        )
        alliance.decide_shared(asked.hash, sign_decision(decision, read_signer(folder / "key.pem")))
    told = f"{SHARED.say()} DRB: {VERDICTS[verdict].say()} ({asked.hash[:19]}): {', '.join(hospitals)}"
    console.print(Text(told, style="bold green"))
