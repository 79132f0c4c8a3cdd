"""What joining the alliance shows and asks, for hospitals and the other members alike."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from dure.cli.screen import console, say
from dure.language import Words

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


def join_with(text: str, folder: Path, address: str | None) -> None:
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


def token_text(given: str) -> str:
    if given == "-":
        return sys.stdin.read()
    if not given.startswith("dure-invitation") and Path(given).is_file():
        return Path(given).read_text(encoding="utf-8", errors="replace")
    return given
