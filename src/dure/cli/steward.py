"""The commands of a hospital's steward: join, serve, and decide on every study."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from dure.cli.joining import Address, HealthPort, StudyName, Token, join_with, token_text
from dure.cli.keeping import site_app
from dure.cli.review import Difference, PerHospital
from dure.cli.screen import console, say, show_table
from dure.language import Words

__all__ = ["site_app"]

SiteFolder = Annotated[Path, typer.Argument(help=say("the hospital's folder", "병원 폴더"))]


@site_app.command(
    help=say(
        "Join the alliance with an invitation; keys are made here and stay here.",
        "초대장으로 연합에 가입합니다. 키는 여기서 만들어 여기에 남습니다.",
    )
)
def enrol(
    token: Token,
    folder: Annotated[Path, typer.Option(help=say("the hospital's folder", "병원 폴더"))],
    address: Address = None,
) -> None:
    from dure.errors import MemberConflict
    from dure.federation.invitation import Invitation
    from dure.guard.permissions import MEMBERS
    from dure.site.settings import create_site

    text = token_text(token)
    invitation = Invitation.from_text(text)
    if invitation.role != "hospital":
        kind = MEMBERS[invitation.role].says  # type: ignore[index]
        problem = Words(
            f"The invitation is for a {kind.en}: dure study enrol", f"{kind.ko} 초대장입니다: dure study enrol"
        )
        raise MemberConflict(name=invitation.name, problem=problem)
    site = create_site(folder, invitation.name)
    if site.hospital != invitation.name:
        problem = Words(f"This folder belongs to '{site.hospital}'", f"이 폴더는 '{site.hospital}'의 것입니다")
        raise MemberConflict(name=invitation.name, problem=problem)
    join_with(text, folder, address)
    site.audit.append("enrolled", alliance=invitation.alliance)
    console.print(Text(say(f"Next: dure site serve {folder}", f"다음: dure site serve {folder}")))


@site_app.command(
    name="serve", help=say("Run the hospital's service until it is stopped.", "멈출 때까지 병원 서비스를 실행합니다.")
)
def serve_site(folder: SiteFolder, health: HealthPort = None) -> None:
    from dure.federation.health import until_stopped
    from dure.site.service import SiteService

    until_stopped(SiteService(folder, health))


@site_app.command(
    name="status", help=say("The hospital's line to the hub, and its studies.", "허브 연결 상태와 연구 목록.")
)
def status_site(folder: SiteFolder) -> None:
    import polars as pl

    from dure.guard.acting import may
    from dure.site import inbox
    from dure.site.settings import Site

    site = Site(folder)
    may(folder, "see_review")
    facts = _service_facts(folder)
    lines = [
        site.hospital,
        say("paused: nothing is answered", "일시 중지: 아무것도 답하지 않음") if inbox.paused(site) else "",
        _line_words(facts),
    ]
    console.print(Text(" · ".join(filter(None, lines)), style="bold"))
    rows = [
        {
            "study": study.hash.removeprefix("sha256:")[:12],
            "title": study.title.words().say(),
            "status": DECISIONS[decided].say(),
            "reason": problem.say() if problem else "",
        }
        for study, decided, problem in inbox.decisions(site)
    ]
    if rows:
        show_table(say("Studies", "연구"), pl.DataFrame(rows), {})
    else:
        console.print(say("No study has come in yet.", "아직 받은 연구가 없습니다."))


DECISIONS = {
    "waiting": Words("waits for you", "결정 대기"),
    "permitted": Words("permitted", "허가함"),
    "declined": Words("declined", "거절함"),
    "changes_asked": Words("changes asked", "보완 요청함"),
    "withdrawn": Words("withdrawn", "철회함"),
    "replaced": Words("replaced by a new version", "새 판으로 바뀜"),
}


@site_app.command(
    help=say("Answer nothing for the moment; runs wait.", "잠시 아무것도 답하지 않습니다. 실행은 기다립니다.")
)
def pause(folder: SiteFolder) -> None:
    from dure.guard.acting import may
    from dure.site import inbox
    from dure.site.settings import Site

    site = Site(folder)
    may(folder, "pause")
    inbox.pause(site, True)
    console.print(say("Paused. Go on with: dure site resume", "멈췄습니다. 다시 시작: dure site resume"))


@site_app.command(help=say("Answer again after a pause.", "일시 중지를 풉니다."))
def resume(folder: SiteFolder) -> None:
    from dure.guard.acting import may
    from dure.site import inbox
    from dure.site.settings import Site

    site = Site(folder)
    may(folder, "pause")
    inbox.pause(site, False)
    console.print(say("Going on.", "다시 답합니다."))


@site_app.command(help=say("Sign a permit for a study as it lies in the inbox.", "받은 연구에 허가서를 서명합니다."))
def permit(
    folder: SiteFolder,
    study: StudyName,
    per_hospital: PerHospital = False,
    difference: Difference = False,
) -> None:
    from dure.errors import BoardsDecide
    from dure.guard.acting import acting
    from dure.site import inbox
    from dure.site.settings import Site
    from dure.study.method import installed_methods
    from dure.study.permit import Grant

    site, actor = Site(folder), acting(folder)
    if actor.role != "owner":
        raise BoardsDecide(name=actor.name)
    grants: list[Grant] = [*(["per_hospital"] if per_hospital else []), *(["difference"] if difference else [])]  # type: ignore[list-item]
    hash_ = inbox.find(site, study)
    inbox.permit(site, hash_, installed_methods(), grants)
    granted = f" ({', '.join(grants)})" if grants else ""
    console.print(
        Text(say(f"Permitted: {hash_[:19]}{granted}", f"허가했습니다: {hash_[:19]}{granted}"), style="bold green")
    )


@site_app.command(help=say("Say no to a study, or withdraw from it.", "연구를 거절하거나 참여를 철회합니다."))
def decline(folder: SiteFolder, study: StudyName) -> None:
    from dure.guard.acting import may
    from dure.site import inbox, reviews
    from dure.site.settings import Site

    actor, site = may(folder, "withdraw"), Site(folder)
    hash_ = inbox.find(site, study)
    reviews.decline(site, hash_, actor)
    console.print(Text(say(f"Declined: {hash_[:19]}", f"거절했습니다: {hash_[:19]}"), style="bold"))


@site_app.command(
    help=say(
        "Lift the lockout of somebody who asked too many similar questions; without a name, list them.",
        "비슷한 질문을 너무 많이 해 잠긴 사람을 풉니다. 이름이 없으면 목록을 보여 줍니다.",
    )
)
def unlock(
    folder: SiteFolder,
    name: Annotated[str | None, typer.Argument(help=say("the proposer's name", "제안자 이름"))] = None,
) -> None:
    from dure.guard.acting import may
    from dure.site import history
    from dure.site.settings import Site

    actor = may(folder, "unlock")
    if name is None:
        for proposer, since in history.locked_out(Site(folder)):
            console.print(Text(f"{proposer or '–'}  {since[:16]}"))
        return
    lifted = history.unlock(Site(folder), name, actor)
    told = Words(f"Unlocked: {name}", f"잠금을 풀었습니다: {name}")
    nobody = Words(f"Nobody called '{name}' is locked out.", f"'{name}'은(는) 잠겨 있지 않습니다.")
    console.print(Text((told if lifted else nobody).say(), style="bold"))


@site_app.command(help=say("Have the service renew the certificate now.", "서비스가 지금 인증서를 갱신하게 합니다."))
def renew(folder: SiteFolder) -> None:
    from dure.federation.membership import read_membership
    from dure.guard.acting import may

    read_membership(folder)
    may(folder, "keep_data")
    (folder / "renew").touch()
    console.print(say("The service renews it within a second.", "서비스가 곧 갱신합니다."))


def _service_facts(folder: Path) -> dict[str, Any] | None:
    path = folder / "service.json"
    if not path.is_file():
        return None
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts if time.time() - facts["at"] < 30 else None


def _line_words(facts: dict[str, Any] | None) -> str:
    if facts is None:
        return say("the service is not running: dure site serve", "서비스가 실행 중이 아닙니다: dure site serve")
    if facts["connected"]:
        return say(f"connected to {facts['hub']}", f"{facts['hub']}에 연결됨")
    return say(
        f"not connected to {facts['hub']}. {facts['problem']}", f"{facts['hub']}에 연결되지 않음. {facts['problem']}"
    )
