"""The commands of the alliance's office: found, invite, revoke, serve, release."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from dure.cli.joining import HealthPort, StudyName
from dure.cli.keeping import hub_app
from dure.cli.screen import console, say, show_table
from dure.guard.permissions import MemberRole
from dure.language import Words

__all__ = ["hub_app"]

HubFolder = Annotated[Path, typer.Argument(help=say("the hub's folder", "허브 폴더"))]


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
    help=say(
        "A one-use invitation for a hospital, a researcher, a company, a shared board or an auditor.",
        "병원, 연구자, 기업, 공용 위원회, 감사자를 위한 일회용 초대장.",
    )
)
def invite(
    folder: HubFolder,
    name: Annotated[str, typer.Argument(help=say("name of the new member", "새 회원의 이름"))],
    role: Annotated[
        MemberRole,
        typer.Option(
            help=say("drb: a data review board that hospitals share", "drb: 병원들이 함께 쓰는 데이터심의위원회")
        ),
    ] = "hospital",
    hours: Annotated[float, typer.Option(min=0.001, help=say("hours until it expires", "만료까지 시간"))] = 72,
    out: Annotated[Path | None, typer.Option(help=say("file to write it to", "초대장을 쓸 파일"))] = None,
) -> None:
    from dure.guard.acting import may
    from dure.guard.certificates import grouped, write_private
    from dure.hub.authority import Authority, read_hub

    hub = read_hub(folder)
    may(folder, "admit")
    store = hub.open_store()
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

    from dure.guard.acting import may
    from dure.guard.permissions import MEMBERS
    from dure.hub.authority import fingerprint_of, read_hub

    may(folder, "see_members")
    store = read_hub(folder).open_store()
    rows = [
        {
            "name": member.name,
            "role": MEMBERS[member.role].says.say(),  # type: ignore[index]
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
    from dure.guard.acting import may
    from dure.hub.authority import Authority, read_hub

    hub = read_hub(folder)
    may(folder, "admit")
    store = hub.open_store()
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
            min=10,
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
    from dure.errors import DecisionRefused
    from dure.guard.acting import may
    from dure.hub import desk, releases
    from dure.hub.authority import read_hub
    from dure.study.method import installed_methods

    hub, actor = read_hub(folder), may(folder, "decide_release")
    store = hub.open_store()
    try:
        hash_, methods = desk.find(store, study), installed_methods()
        waits = releases.waiting(store, hash_, methods)
        if actor.role != "owner":
            problem = Words(
                "People approve a digest that they have read (dure release show, dure release approve)",
                "사람은 읽은 내용의 해시를 승인합니다(dure release show, dure release approve)",
            )
            raise DecisionRefused(problem=problem)
        releases.decide(store, hash_, actor, waits.digest, True, methods)
    finally:
        store.close()
    console.print(Text(say(f"Released: {hash_[:19]}", f"공개했습니다: {hash_[:19]}"), style="bold green"))


@hub_app.command(
    name="cancel",
    help=say(
        "Withdraw a study for the alliance; what is being computed stops.",
        "연합으로서 연구를 취소합니다. 계산도 멈춥니다.",
    ),
)
def cancel_study(folder: HubFolder, study: StudyName) -> None:
    from dure.guard.acting import may
    from dure.hub import desk
    from dure.hub.authority import read_hub

    hub = read_hub(folder)
    store = hub.open_store()
    try:
        hash_ = desk.find(store, study)
        desk.withdraw(store, hash_, may(folder, "cancel", store.submission(hash_)[1]))
        store.put_event(hash_, "cancelled", {"by": hub.alliance})
    finally:
        store.close()
    console.print(Text(say(f"Cancelled: {hash_[:19]}", f"취소했습니다: {hash_[:19]}"), style="bold"))


def _aside(words: Words) -> None:
    """Beside the output proper, so that a token can be piped."""
    sys.stderr.write(words.say() + "\n")
