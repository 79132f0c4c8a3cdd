"""The commands between hospitals: the alliance's office, a hospital's steward, and researchers."""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from dure.cli.keeping import hub_app, site_app, study_app
from dure.cli.screen import Narrator, Unanswered, console, say, show_remark, show_table
from dure.language import Words

HubFolder = Annotated[Path, typer.Argument(help=say("the hub's folder", "허브 폴더"))]
SiteFolder = Annotated[Path, typer.Argument(help=say("the hospital's folder", "병원 폴더"))]
MemberFolder = Annotated[
    Path, typer.Option("--member", envvar="DURE_MEMBER", help=say("a researcher's folder", "연구자 폴더"))
]
HealthPort = Annotated[
    int | None,
    typer.Option("--health", help=say("port of the health page on 127.0.0.1", "127.0.0.1의 상태 페이지 포트")),
]
StudyName = Annotated[str, typer.Argument(help=say("a study's hash, or how it begins", "연구 해시 또는 그 앞부분"))]
Token = Annotated[
    str,
    typer.Argument(
        help=say("the invitation, a file with it, or - for standard input", "초대장, 초대장 파일, 또는 표준 입력(-)")
    ),
]
Address = Annotated[
    str | None,
    typer.Option("--address", help=say("host:port of the hub as seen from here", "여기서 본 허브의 주소(host:port)")),
]


# ── the alliance's office ──


@hub_app.command(help=say("Found an alliance: its authority and its hub.", "연합을 세웁니다: 인증 기관과 허브."))
def init(
    folder: HubFolder,
    host: Annotated[str, typer.Option(help=say("name or address members reach", "회원이 접속할 이름 또는 주소"))],
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8765,
    alliance: Annotated[str, typer.Option(help=say("the alliance's name", "연합 이름"))] = "dure",
    scheme: Annotated[
        Literal["tcp", "grpc"],
        typer.Option(help=say("grpc passes HTTP/2 proxies", "grpc는 HTTP/2 프록시를 통과합니다")),
    ] = "tcp",
    store: Annotated[
        str, typer.Option(help=say("SQLite file or postgresql:// URL", "SQLite 파일 또는 postgresql:// 주소"))
    ] = "hub.db",
    listen: Annotated[str, typer.Option(help=say("address the port is opened on", "포트를 여는 주소"))] = "0.0.0.0",
) -> None:
    from dure.guard.certificates import grouped
    from dure.hub.authority import create_hub

    hub = create_hub(folder, alliance, host, port, scheme, store, listen)
    console.print(
        Text(say(f"The alliance '{alliance}' is founded.", f"연합 '{alliance}'을(를) 세웠습니다."), style="bold green")
    )
    console.print(Text(say("Hub's fingerprint: ", "허브 지문: ") + grouped(hub.keys(lambda peer: None).public)))
    console.print(Text(say(f"Next: dure hub invite {folder} NAME", f"다음: dure hub invite {folder} 이름")))
    console.print(Text(say(f"      dure hub serve {folder}", f"      dure hub serve {folder}")))


@hub_app.command(
    help=say("A one-use invitation for a hospital or a researcher.", "병원이나 연구자를 위한 일회용 초대장.")
)
def invite(
    folder: HubFolder,
    name: Annotated[str, typer.Argument(help=say("name of the hospital or researcher", "병원 또는 연구자 이름"))],
    role: Annotated[Literal["hospital", "researcher"], typer.Option()] = "hospital",
    hours: Annotated[float, typer.Option(min=0.001, help=say("hours until it expires", "만료까지 시간"))] = 72,
    out: Annotated[Path | None, typer.Option(help=say("file to write it to", "초대장을 쓸 파일"))] = None,
) -> None:
    from dure.guard.certificates import grouped, write_private
    from dure.hub.authority import Authority, read_hub
    from dure.hub.store import Store

    hub = read_hub(folder)
    store = Store(hub.place)
    text = Authority(hub, store).invite(name, role, timedelta(hours=hours))
    store.close()
    if out:
        write_private(out, text.encode())
        console.print(Text(say(f"Invitation for {name}: {out}", f"{name} 초대장: {out}"), style="bold"))
    else:
        sys.stdout.write(text + "\n")
    fingerprint = grouped(hub.keys(lambda peer: None).public)
    note = Words(
        f"It can be used once within {hours:g} hours; it is secret. Hub's fingerprint, to be read out: {fingerprint}",
        f"{hours:g}시간 안에 한 번만 쓸 수 있는 비밀입니다. 전화로 확인할 허브 지문: {fingerprint}",
    )
    _aside(note)


@hub_app.command(help=say("Who belongs to the alliance, with fingerprints.", "연합의 회원과 지문."))
def members(folder: HubFolder) -> None:
    import polars as pl

    from dure.hub.authority import fingerprint_of, read_hub
    from dure.hub.store import Store

    store = Store(read_hub(folder).place)
    rows = [
        {
            "name": member.name,
            "role": member.role,
            "joined": member.joined[:16].replace("T", " "),
            "status": say("revoked", "취소됨") if member.revoked else say("member", "회원"),
            **fingerprint_of(member),
        }
        for member in store.members()
    ]
    store.close()
    if not rows:
        console.print(say("Nobody has joined yet: dure hub invite", "아직 회원이 없습니다: dure hub invite"))
        return
    show_table(say("Members", "회원"), pl.DataFrame(rows), {})


@hub_app.command(
    help=say(
        "End a membership: its certificates and permits no longer hold.",
        "회원 자격을 끝냅니다. 인증서와 허가가 무효가 됩니다.",
    )
)
def revoke(folder: HubFolder, name: Annotated[str, typer.Argument()]) -> None:
    from dure.hub.authority import Authority, read_hub
    from dure.hub.store import Store

    hub = read_hub(folder)
    store = Store(hub.place)
    Authority(hub, store).revoke(name)
    store.close()
    console.print(Text(say(f"{name} is no longer a member.", f"{name}은(는) 더 이상 회원이 아닙니다."), style="bold"))


@hub_app.command(name="serve", help=say("Run the hub until it is stopped.", "멈출 때까지 허브를 실행합니다."))
def serve_hub(
    folder: HubFolder,
    health: HealthPort = None,
    patience: Annotated[
        float,
        typer.Option(
            min=1,
            help=say("seconds of silence until a hospital counts as away", "병원이 자리를 비웠다고 보는 침묵 시간(초)"),
        ),
    ] = 30,
) -> None:
    from dure.hub.entry import serve

    serve(folder, health, patience)


@hub_app.command(
    help=say("The board releases a finished study's results.", "심의위원회가 끝난 연구의 결과를 공개합니다.")
)
def release(folder: HubFolder, study: StudyName) -> None:
    from dure.hub import desk, studies
    from dure.hub.authority import read_hub
    from dure.hub.store import Store

    store = Store(read_hub(folder).place)
    hash_ = desk.find(store, study)
    studies.advance(store, hash_, "release", "board")
    store.put_event(hash_, "released", {})
    store.close()
    console.print(Text(say(f"Released: {hash_[:19]}", f"공개했습니다: {hash_[:19]}"), style="bold green"))


# ── a hospital's steward ──


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
    from dure.errors import NotAMember
    from dure.federation.invitation import Invitation
    from dure.site.settings import create_site

    text = _token(token)
    invitation = Invitation.from_text(text)
    if invitation.role != "hospital":
        problem = Words("The invitation is for a researcher: dure study enrol", "연구자 초대장입니다: dure study enrol")
        raise NotAMember(name=invitation.name, problem=problem)
    site = create_site(folder, invitation.name)
    if site.hospital != invitation.name:
        problem = Words(f"This folder belongs to '{site.hospital}'", f"이 폴더는 '{site.hospital}'의 것입니다")
        raise NotAMember(name=invitation.name, problem=problem)
    _enrol(text, folder, address)
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

    from dure.site import inbox
    from dure.site.settings import Site

    site = Site(folder)
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
            "reason": problem,
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
}


@site_app.command(
    help=say("Answer nothing for the moment; runs wait.", "잠시 아무것도 답하지 않습니다. 실행은 기다립니다.")
)
def pause(folder: SiteFolder) -> None:
    from dure.site import inbox
    from dure.site.settings import Site

    inbox.pause(Site(folder), True)
    console.print(say("Paused. Go on with: dure site resume", "멈췄습니다. 다시 시작: dure site resume"))


@site_app.command(help=say("Answer again after a pause.", "일시 중지를 풉니다."))
def resume(folder: SiteFolder) -> None:
    from dure.site import inbox
    from dure.site.settings import Site

    inbox.pause(Site(folder), False)
    console.print(say("Going on.", "다시 답합니다."))


@site_app.command(help=say("Sign a permit for a study as it lies in the inbox.", "받은 연구에 허가서를 서명합니다."))
def permit(
    folder: SiteFolder,
    study: StudyName,
    per_hospital: Annotated[
        bool,
        typer.Option(
            "--per-hospital", help=say("this hospital's own numbers may be released", "이 병원만의 수치도 공개 가능")
        ),
    ] = False,
    difference: Annotated[
        bool,
        typer.Option(
            "--difference",
            help=say(
                "sums with and without this hospital may be opened", "이 병원을 넣은 합과 뺀 합을 모두 열 수 있음"
            ),
        ),
    ] = False,
) -> None:
    from dure.site import inbox
    from dure.site.settings import Site
    from dure.study.method import installed_methods
    from dure.study.permit import Grant

    site = Site(folder)
    grants: list[Grant] = [*(["per_hospital"] if per_hospital else []), *(["difference"] if difference else [])]  # type: ignore[list-item]
    hash_ = inbox.find(site, study)
    inbox.permit(site, hash_, installed_methods(), grants)
    granted = f" ({', '.join(grants)})" if grants else ""
    console.print(
        Text(say(f"Permitted: {hash_[:19]}{granted}", f"허가했습니다: {hash_[:19]}{granted}"), style="bold green")
    )


@site_app.command(help=say("Say no to a study, or withdraw from it.", "연구를 거절하거나 참여를 철회합니다."))
def decline(folder: SiteFolder, study: StudyName) -> None:
    from dure.site import inbox
    from dure.site.settings import Site

    site = Site(folder)
    hash_ = inbox.find(site, study)
    inbox.decline(site, hash_)
    console.print(Text(say(f"Declined: {hash_[:19]}", f"거절했습니다: {hash_[:19]}"), style="bold"))


@site_app.command(help=say("Have the service renew the certificate now.", "서비스가 지금 인증서를 갱신하게 합니다."))
def renew(folder: SiteFolder) -> None:
    from dure.federation.membership import read_membership

    read_membership(folder)
    (folder / "renew").touch()
    console.print(say("The service renews it within a second.", "서비스가 곧 갱신합니다."))


# ── researchers ──


@study_app.command(
    name="enrol", help=say("Join as a researcher with an invitation.", "초대장으로 연구자로 가입합니다.")
)
def enrol_researcher(token: Token, member: MemberFolder, address: Address = None) -> None:
    _enrol(_token(token), member, address)


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


# ── shared ──


def event_words(event: dict[str, Any]) -> Words:
    """One event of a study as a line."""
    name, hospital, step = event["event"], event.get("hospital", ""), event.get("step", "")
    lines = {
        "submitted": Words(f"submitted by {event.get('by')}", f"{event.get('by')} 제출"),
        "delivered": Words(f"{hospital} has received it", f"{hospital}: 받음"),
        "permitted": Words(f"{hospital} permitted it", f"{hospital}: 허가"),
        "declined": Words(f"{hospital} declined it", f"{hospital}: 거절"),
        "step": Words(f"step {step} begins", f"{step} 단계 시작"),
        "round": Words(f"{step}: round {event.get('round')}", f"{step}: {event.get('round')}번째 라운드"),
        "outcome": Words(f"step {step}: {event.get('status')}", f"{step} 단계: {event.get('status')}"),
        "slow": Words(f"{hospital} is still working on {step}", f"{hospital}: {step} 계산 중"),
        "silent": Words(f"{hospital} is not connected", f"{hospital}: 연결 안 됨"),
        "left out": Words(f"{hospital} is left out. {event.get('en')}", f"{hospital} 제외. {event.get('ko')}"),
        "going on": Words("going on", "다시 진행"),
        "finished": Words("finished; the board decides on release", "끝남. 심의위원회가 공개를 결정"),
        "released": Words("released", "공개"),
        "cancelled": Words(f"cancelled by {event.get('by')}", f"{event.get('by')} 취소"),
    }
    if name == "waiting":
        reasons = event["problems"]
        return Words("waits. " + " ".join(r["en"] for r in reasons), "대기. " + " ".join(r["ko"] for r in reasons))
    return lines.get(name, Words(name, name))


def _show_status(found: dict[str, Any]) -> None:
    import polars as pl

    from dure.study.lifecycle import STATES

    title, state = Words(**found["title"]), STATES[found["state"]][0]
    console.print(Text.assemble((title.say(), "bold"), f"  {found['study'][7:19]}  ", (state.say(), "bold green")))
    answers = {
        "waiting": say("no answer yet", "아직 답 없음"),
        "permitted": say("permitted", "허가"),
        "declined": say("declined", "거절"),
    }
    rows = [
        {
            "hospital": name,
            "status": answers[told["answer"]],
            "line": say("connected", "연결됨") if told["connected"] else say("not connected", "연결 안 됨"),
        }
        for name, told in found["hospitals"].items()
    ]
    show_table(say("Hospitals", "병원"), pl.DataFrame(rows), {})
    steps = [{"step": name, "status": told} for name, told in found["steps"].items()]
    show_table(say("Steps", "단계"), pl.DataFrame(steps), {})
    for reason in found["waits"]:
        show_remark(Words(reason["en"], reason["ko"]))


def _enrol(text: str, folder: Path, address: str | None) -> None:
    from dure.federation.membership import enrol as join
    from dure.federation.membership import fingerprints

    membership = join(text, folder, address=address)
    prints = fingerprints(folder)
    joined = Words(
        f"{membership.name} has joined '{membership.alliance}'.",
        f"{membership.name}이(가) '{membership.alliance}'에 가입했습니다.",
    )
    console.print(Text(joined.say(), style="bold green"))
    labels = (
        ("hub", Words("Hub's fingerprint", "허브 지문")),
        ("key", Words("Own key", "자기 키")),
        ("certificate", Words("Own certificate", "자기 인증서")),
    )
    for name, label in labels:
        console.print(Text(f"  {label.say()}: {prints[name]}"))
    console.print(say("Compare them with the alliance's office.", "연합 사무국과 대조하십시오."))


def _token(given: str) -> str:
    if given == "-":
        return sys.stdin.read()
    if not given.startswith("dure-invitation") and Path(given).is_file():
        return Path(given).read_text(encoding="utf-8", errors="replace")
    return given


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


def _aside(words: Words) -> None:
    """Beside the output proper, so that a token can be piped."""
    sys.stderr.write(words.say() + "\n")
