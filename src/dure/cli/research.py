"""The commands of researchers and companies: join, sign in, submit a study, follow it, fetch what was released."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from dure.cli.joining import Address, StudyName, Token, join_with, token_text
from dure.cli.keeping import study_app
from dure.cli.people import PRESENT, Name, PasswordFile, asked_password, tell_signed_in
from dure.cli.screen import Narrator, Unanswered, console, say, show_remark, show_table
from dure.language import Words

__all__ = ["study_app"]

MemberFolder = Annotated[
    Path, typer.Option("--member", envvar="DURE_MEMBER", help=say("the member's folder", "회원 폴더"))
]


@study_app.command(
    name="enrol",
    help=say(
        "Join with an invitation, as anything but a hospital: researcher, company, shared board, auditor.",
        "초대장으로 병원이 아닌 회원(연구자, 기업, 공용 위원회, 감사자)으로 가입합니다.",
    ),
)
def enrol_researcher(token: Token, member: MemberFolder, address: Address = None) -> None:
    from dure.errors import MemberConflict
    from dure.federation.invitation import Invitation

    invitation = Invitation.from_text(token_text(token))
    if invitation.role == "hospital":
        problem = Words("The invitation is for a hospital: dure site enrol", "병원 초대장입니다: dure site enrol")
        raise MemberConflict(name=invitation.name, problem=problem)
    join_with(invitation.to_text(), member, address)


@study_app.command(
    name="sign-in",
    help=say(
        "Sign in over the member's line, where the alliance's office keeps accounts for its people.",
        "연합 사무국이 회원의 사람들에게 계정을 준 경우, 회원 연결로 로그인합니다.",
    ),
)
def sign_in(name: Name, member: MemberFolder, password_file: PasswordFile = None) -> None:
    from dure.client.alliance import Alliance
    from dure.guard.permissions import ROLES

    password = asked_password(password_file)
    with Alliance(member) as alliance:
        role = alliance.sign_in(name, password)
    tell_signed_in(name, ROLES[role])  # type: ignore[index]


@study_app.command(
    name="sign-out", help=say("End one's session over the member's line.", "회원 연결의 세션을 끝냅니다.")
)
def sign_out(member: MemberFolder) -> None:
    from dure.client.alliance import Alliance

    with Alliance(member) as alliance:
        alliance.sign_out()
    console.print(say("Signed out.", "로그아웃했습니다."))


@study_app.command(
    name="password", help=say("Choose a new password, with the present one.", "지금 암호로 새 암호를 정합니다.")
)
def change_password(member: MemberFolder, password_file: PasswordFile = None) -> None:
    from dure.client.alliance import Alliance

    present, new = asked_password(None, words=PRESENT), asked_password(password_file, new=True)
    with Alliance(member) as alliance:
        alliance.change_password(present, new)
    console.print(say("Changed; sign in again.", "바꿨습니다. 다시 로그인하십시오."))


@study_app.command(
    help=say("Submit a study to every hospital of the alliance.", "연합의 모든 병원에 연구를 제출합니다.")
)
def submit(
    document: Annotated[Path, typer.Argument(help=say("a study (YAML)", "연구(YAML)"))], member: MemberFolder
) -> None:
    from dure.client.alliance import Alliance
    from dure.study.spec import read_study

    study = read_study(document)
    with Alliance(member) as alliance:
        hash_ = alliance.submit(study)
    console.print(Text(say(f"Submitted: {hash_}", f"제출했습니다: {hash_}"), style="bold green"))
    short = hash_.removeprefix("sha256:")[:12]
    console.print(Text(say(f"Follow it: dure study follow {short}", f"지켜보기: dure study follow {short}")))


@study_app.command(
    help=say(
        "Where a study stands, hospital by hospital; without a name, all studies.",
        "연구의 진행 상태를 병원별로 보입니다. 이름이 없으면 전체.",
    )
)
def status(
    member: MemberFolder,
    study: Annotated[
        str | None, typer.Argument(help=say("a study's hash, or how it begins", "연구 해시 또는 그 앞부분"))
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    from dure.client.alliance import Alliance

    with Alliance(member) as alliance:
        found = [alliance.status(study)] if study else alliance.studies()
    if as_json:
        sys.stdout.write(json.dumps(found, ensure_ascii=False, indent=1) + "\n")
        return
    for one in found:
        _show_status(one)


@study_app.command(help=say("Watch a study until it is over.", "연구가 끝날 때까지 지켜봅니다."))
def follow(study: StudyName, member: MemberFolder) -> None:
    from dure.client.alliance import Alliance

    last: dict[str, Any] = {}
    with Narrator() as narrator, Alliance(member) as alliance:
        for event in alliance.follow(study):
            words = event_words(event)
            if event["event"] in ("waiting", "left out", "silent", "slow", "declined", "decision refused"):
                show_remark(words)
            else:
                (narrator.working if event["event"] == "round" else narrator.line)(words)
        last = alliance.status(study)
    _show_status(last)
    if last["state"] in ("declined", "withdrawn"):
        raise Unanswered


@study_app.command(
    help=say(
        "Withdraw a study you submitted; what is being computed stops.", "제출한 연구를 취소합니다. 계산도 멈춥니다."
    )
)
def cancel(study: StudyName, member: MemberFolder) -> None:
    from dure.client.alliance import Alliance

    with Alliance(member) as alliance:
        alliance.cancel(study)
    console.print(say("Cancelled.", "취소했습니다."))


@study_app.command(
    help=say(
        "Replace a study by a new version; approvals of the old one end.",
        "연구를 새 판으로 바꿉니다. 옛 판의 승인은 끝납니다.",
    )
)
def revise(
    study: StudyName,
    document: Annotated[Path, typer.Argument(help=say("the new version (YAML)", "새 판(YAML)"))],
    member: MemberFolder,
) -> None:
    from dure.client.alliance import Alliance
    from dure.study.differences import differences
    from dure.study.spec import read_study

    new = read_study(document)
    with Alliance(member) as alliance:
        old, _ = alliance.document(study)
        new = new.model_copy(update={"replaces": old.hash})
        hash_ = alliance.submit(new)
    for words in differences(old, new):
        console.print(Text(f"  {words.say()}"))
    console.print(Text(say(f"Submitted: {hash_}", f"제출했습니다: {hash_}"), style="bold green"))


@study_app.command(
    help=say(
        "Go on without the hospitals that ask for changes, if enough have permitted it.",
        "보완을 요청한 병원 없이 진행합니다. 충분한 병원이 허가했을 때만 됩니다.",
    )
)
def proceed(study: StudyName, member: MemberFolder) -> None:
    from dure.client.alliance import Alliance

    with Alliance(member) as alliance:
        alliance.proceed(study)
    console.print(Text(say("Going on.", "진행합니다."), style="bold green"))


@study_app.command(
    name="ask-release",
    help=say("Ask for the release of a finished study.", "끝난 연구의 결과 공개를 요청합니다."),
)
def ask_release(
    study: StudyName,
    member: MemberFolder,
    contents: Annotated[str, typer.Option(help=say("what tables and figures show", "표와 그림이 보이는 것"))],
    use: Annotated[str, typer.Option(help=say("what for, and who will read it", "용도와 읽을 사람"))],
) -> None:
    from dure.client.alliance import Alliance

    with Alliance(member) as alliance:
        alliance.ask_release(study, {"contents": contents, "use": use})
    console.print(Text(say("Asked: two people decide.", "요청했습니다. 두 사람이 결정합니다."), style="bold green"))


@study_app.command(help=say("Write the released results into a folder.", "공개된 결과를 폴더에 씁니다."))
def fetch(
    study: StudyName,
    member: MemberFolder,
    out: Annotated[Path, typer.Option(help=say("folder to write", "쓸 폴더"))] = Path("results"),
) -> None:
    from dure.client.alliance import Alliance, write

    with Alliance(member) as alliance:
        fetched = alliance.fetch(study)
    for path in write(fetched, out):
        console.print(Text(str(path)))


def event_words(event: dict[str, Any]) -> Words:
    """One event of a study as a line."""
    name, hospital, step = event["event"], event.get("hospital", ""), event.get("step", "")
    outcome = STEPS.get(str(event.get("status")), Words("–", "–"))
    lines = {
        "submitted": Words(f"submitted by {event.get('by')}", f"{event.get('by')} 제출"),
        "delivered": Words(f"{hospital} has received it", f"{hospital}: 받음"),
        "permitted": Words(f"{hospital} permitted it", f"{hospital}: 허가"),
        "declined": Words(f"{hospital or 'the board'} declined it", f"{hospital or '위원회'}: 거절"),
        "changes_asked": Words(f"{hospital} asks for changes", f"{hospital}: 보완 요청"),
        "withdrawn": Words(f"{hospital} has withdrawn", f"{hospital}: 철회"),
        "release asked": Words(f"release asked by {event.get('by')}", f"{event.get('by')} 공개 요청"),
        "release approved": Words(f"release approved by {event.get('by')}", f"{event.get('by')} 공개 승인"),
        "release refused": Words(f"release refused by {event.get('by')}", f"{event.get('by')} 공개 거절"),
        "archived": Words("archived", "보관"),
        "step": Words(f"step {step} begins", f"{step} 단계 시작"),
        "round": Words(f"{step}: round {event.get('round')}", f"{step}: {event.get('round')}번째 라운드"),
        "outcome": Words(f"step {step}: {outcome.en}", f"{step} 단계: {outcome.ko}"),
        "slow": Words(f"{hospital} is still working on {step}", f"{hospital}: {step} 계산 중"),
        "silent": Words(f"{hospital} is not connected", f"{hospital}: 연결 안 됨"),
        "left out": Words(f"{hospital} is left out. {event.get('en')}", f"{hospital} 제외. {event.get('ko')}"),
        "decision refused": Words(
            f"{hospital} does not take a board's decision. {event.get('en')}",
            f"{hospital}: 위원회의 결정을 받아들이지 않음. {event.get('ko')}",
        ),
        "going on": Words("going on", "다시 진행"),
        "finished": Words("finished; the board decides on release", "끝남. 심의위원회가 공개를 결정"),
        "released": Words("released", "공개"),
        "cancelled": Words(f"cancelled by {event.get('by')}", f"{event.get('by')} 취소"),
    }
    if name == "waiting":
        reasons = event["problems"]
        return Words("waits. " + " ".join(r["en"] for r in reasons), "대기. " + " ".join(r["ko"] for r in reasons))
    return lines.get(name, Words(name, name))


LINES = {
    "connected": Words("connected", "연결됨"),
    "away": Words("not connected", "연결 안 됨"),
    "paused": Words("paused", "일시 중지"),
}
STEPS = {
    "finished": Words("finished", "끝남"),
    "waiting": Words("waiting", "대기"),
    "running": Words("running", "실행 중"),
    "refused": Words("refused by a rule", "규칙에 따라 거절"),
    "not_estimable": Words("not estimable", "추정 불가"),
    "failed": Words("failed", "실패"),
    "skipped": Words("skipped", "건너뜀"),
}


def _step_words(status: str) -> str:
    """The state of a step; of a step with several loops, each state once."""
    name, _, rounds = status.partition(" (")
    said = ", ".join(STEPS[one].say() if one in STEPS else one for one in name.split(", "))
    return f"{said} ({rounds}" if rounds else said


def _show_status(found: dict[str, Any]) -> None:
    import polars as pl

    from dure.study.lifecycle import STATES

    title, state = Words(**found["title"]), STATES[found["state"]][0]
    console.print(Text.assemble((title.say(), "bold"), f"  {found['study'][7:19]}  ", (state.say(), "bold green")))
    answers = {
        "waiting": say("no answer yet", "아직 답 없음"),
        "permitted": say("permitted", "허가"),
        "declined": say("declined", "거절"),
        "changes_asked": say("asks for changes", "보완 요청"),
        "withdrawn": say("withdrawn", "철회"),
    }
    rows = [
        {
            "hospital": name,
            "status": answers[told["answer"]],
            "line": LINES[told["line"]].say(),
            "reason": told["said"],
        }
        for name, told in found["hospitals"].items()
    ]
    show_table(say("Hospitals", "병원"), pl.DataFrame(rows), {})
    steps = [{"step": name, "status": _step_words(told)} for name, told in found["steps"].items()]
    show_table(say("Steps", "단계"), pl.DataFrame(steps), {})
    for reason in found["waits"]:
        show_remark(Words(reason["en"], reason["ko"]))
