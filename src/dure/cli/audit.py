"""`dure audit`: is a log what it was, what does it say, and does a line stand in it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from dure.cli.screen import console, say, show_remark, show_table
from dure.language import Words

if TYPE_CHECKING:
    from dure.guard.log_check import Keys
    from dure.guard.tree_heads import TreeHead

audit_app = typer.Typer(
    help=say("The audit logs of hub and hospitals.", "허브와 병원의 감사 기록."), no_args_is_help=True
)
Folder = Annotated[Path, typer.Argument(help=say("a hub's or a hospital's folder", "허브 또는 병원의 폴더"))]


@audit_app.command(
    help=say(
        "Check every line, signature and countersignature of a log, and what others have seen of it.",
        "기록의 모든 줄과 서명, 확인 서명을 검사하고 다른 곳에서 확인한 것과 비교합니다.",
    )
)
def verify(
    folder: Folder,
    against: Annotated[
        list[Path] | None,
        typer.Option(help=say("a folder that has seen this log; repeatable", "이 기록을 확인한 폴더(여러 번 가능)")),
    ] = None,
) -> None:
    from dure.guard.log_check import check_log

    found = check_log(folder, opened(folder), against or ())
    console.print(
        Text(
            say(
                f"{found.who}: {found.lines:,} lines, unbroken; signed heads that agree: {found.heads:,}.",
                f"{found.who}: {found.lines:,}줄, 끊김 없음. 서명된 기록 머리 {found.heads:,}개와 일치.",
            ),
            style="green",
        )
    )
    if not found.countersigned:
        show_remark(
            Words(
                "Nobody has countersigned this log: whoever holds the folder could have written it anew.",
                "아무도 이 기록을 확인하고 서명하지 않았습니다. 폴더를 가진 사람이 새로 썼을 수도 있습니다.",
            )
        )
    for who in found.unproved:
        show_remark(
            Words(
                f"{who} has shown states of its log without the proof that they begin with what was seen here. It may "
                "be another log: ask for a copy of its folder, and verify it --against this one.",
                f"{who}이(가) 여기서 확인한 기록에서 이어진다는 증명 없이 기록의 상태를 보였습니다. 다른 기록일 수 "
                "있으니, 그 폴더의 사본을 받아 이 폴더와 --against로 비교하십시오.",
            )
        )
    console.print(Text(say("root ", "루트 ") + found.root, style="dim"))
    _show_heads(Words("Seen and countersigned by", "확인하고 서명한 곳"), found.countersigned, found.lines)
    _show_heads(Words("Logs of others, countersigned here", "여기서 확인하고 서명한 다른 기록"), found.seen)
    if against:
        places = ", ".join(path.name for path in against)
        console.print(
            Text(
                say(f"Nothing seen by {places} contradicts it.", f"{places}에서 확인한 것과 모두 맞습니다."),
                style="green",
            )
        )


@audit_app.command(help=say("Print a log, line by line.", "기록을 한 줄씩 보입니다."))
def show(
    folder: Folder,
    study: Annotated[str | None, typer.Option(help=say("only this study (its hash)", "이 연구만(해시)"))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=say("as JSON lines", "JSON 줄로"))] = False,
) -> None:
    import polars as pl

    from dure.errors import FileMissing
    from dure.guard.audit import FILE, AuditLog

    opened(folder)
    if not (folder / FILE).is_file():
        raise FileMissing(path=folder / FILE)
    wanted = (study or "").removeprefix("sha256:")
    rows = []
    for entry in AuditLog(folder / FILE).entries():
        if wanted and not str(entry.get("study", "")).removeprefix("sha256:").startswith(wanted):
            continue
        if as_json:
            sys.stdout.write(json.dumps(entry, ensure_ascii=False, sort_keys=True) + "\n")
            continue
        event = EVENTS.get(entry["event"])
        rows.append(
            {
                "#": entry["number"],
                "time": entry["time"][:19].replace("T", " "),
                "event": event.say() if event else entry["event"],
                **({} if wanted else {"study": _short(entry.get("study", ""))}),
                "about": ", ".join(_said(entry)),
            }
        )
    if rows:
        show_table(say("Audit log (UTC)", "감사 기록(UTC)"), pl.DataFrame(rows), {})
    elif not as_json:
        console.print(say("No line.", "해당하는 줄이 없습니다."))


@audit_app.command(
    help=say(
        "Print a proof, for somebody without the log, that a line stands in it.",
        "기록이 없는 사람에게 한 줄이 기록에 있음을 보이는 증명을 출력합니다.",
    )
)
def prove(
    folder: Folder,
    number: Annotated[int, typer.Argument(min=0, help=say("the line's number", "줄 번호"))],
) -> None:
    from dure.errors import FileMissing
    from dure.guard.log_proof import prove as proof_of

    keys = opened(folder)
    if keys.own is None:
        raise FileMissing(path=folder / "key.pem")
    sys.stdout.write(json.dumps(proof_of(folder, number, keys.own), ensure_ascii=False, indent=1) + "\n")


@audit_app.command(name="check-proof", help=say("Check such a proof.", "그 증명을 검사합니다."))
def check_proof(file: Annotated[Path, typer.Argument(exists=True, dir_okay=False)]) -> None:
    from dure.guard.certificates import grouped
    from dure.guard.log_proof import check_proof as checked

    entry, head, key = checked(file)
    print_ = grouped(bytes.fromhex(str(key.keyval["public"])))
    console.print(
        Text(
            say(
                f"Line {entry['number']} stands in the log of {head.who} as it was at {head.size:,} lines, signed "
                f"{head.time:%Y-%m-%d %H:%M} UTC.",
                f"{entry['number']}번 줄은 {head.who}의 기록({head.size:,}줄, {head.time:%Y-%m-%d %H:%M} UTC 서명)에 "
                "있습니다.",
            ),
            style="green",
        )
    )
    console.print(Text(say(f"The signer's fingerprint, to be compared: {print_}", f"비교할 서명자 지문: {print_}")))


def opened(folder: Path) -> Keys:
    """Whose folder it is and which keys count for it. Every command here begins with it: who may look is asked here."""
    from dure.guard.log_check import Keys

    if (folder / "hub.json").is_file():
        from dure.guard.acting import may
        from dure.hub.authority import read_hub
        from dure.hub.witnessing import keys_of

        may(folder, "audit_hub")
        hub = read_hub(folder)
        store = hub.open_store()
        try:
            return keys_of(hub, store)
        finally:
            store.close()
    if (folder / "site.yaml").is_file():
        from dure.guard.acting import may
        from dure.site.settings import keys_of as keys_of_site

        may(folder, "audit_site")
        return keys_of_site(folder)
    return Keys(folder.name, None)


def _show_heads(title: Words, heads: Mapping[str, TreeHead], lines: int | None = None) -> None:
    import polars as pl

    if not heads:
        return
    rows = [
        {
            "name": name,
            "lines": head.size,
            **({} if lines is None else {"newer": lines - head.size}),
            "signed": f"{head.time:%Y-%m-%d %H:%M:%S} UTC",
            "root": f"{head.root[:16]}…",
        }
        for name, head in heads.items()
    ]
    show_table(title.say(), pl.DataFrame(rows), {})


APART = ("number", "time", "event", "study", "before", "hash", "key", "step", "round", "fold", "run")
DIGESTS = ("question", "declaration", "sha256")
"""What --json shows, and a reader of lines does not miss."""


def _said(entry: Mapping[str, Any]) -> list[str]:
    """What an entry says of itself: its step and round, then the rest; digests by their first letters."""
    found = [str(entry["step"])] if "step" in entry else []
    if "round" in entry:
        found[-1:] = [f"{entry['step']} #{entry['round'] + 1}"]
    if entry.get("fold"):
        found.append(say(f"without {entry['fold']}", f"{entry['fold']} 제외"))
    for name, value in entry.items():
        if name in APART + DIGESTS or value in (None, "", [], {}):
            continue
        if name == "arrays":
            value = " ".join(str(one["name"] if isinstance(one, dict) else one[0]) for one in value)
        elif name == "questions":
            name, value = say("of", "대상"), ", ".join(value)
        elif name == "title" and isinstance(value, dict):
            value = Words(**value).say()
        elif isinstance(value, dict):
            value = " ".join(f"{one}={_short(what)}" for one, what in value.items())
        elif isinstance(value, list):
            value = " ".join(map(str, value))
        found.append(f"{name} {_short(value)}")
    return found


def _short(value: Any) -> str:
    text = str(value)
    if text.startswith("sha256:"):
        return text[7:19]
    return text[:12] if len(text) == 64 and set(text) <= set("0123456789abcdef") else text


EVENTS = {
    "account added": Words("account added", "계정 추가"),
    "account disabled": Words("account disabled", "계정 중지"),
    "account enabled": Words("account enabled", "계정 다시 사용"),
    "acted": Words("acted", "한 일"),
    "admitted": Words("admitted", "가입"),
    "answered": Words("answered", "병원의 답"),
    "asked": Words("asked", "질문"),
    "board decided": Words("shared board decided", "공동 위원회 결정"),
    "board decided: approve": Words("board approved", "위원회 승인"),
    "board decided: ask": Words("board asked for changes", "위원회 수정 요청"),
    "board decided: decline": Words("board declined", "위원회 거절"),
    "board's decision dropped: approve": Words("board's approval not taken", "위원회 승인을 받아들이지 않음"),
    "board's decision dropped: ask": Words(
        "board's request for changes not taken", "위원회 수정 요청을 받아들이지 않음"
    ),
    "board's decision dropped: decline": Words("board's no not taken", "위원회 거절을 받아들이지 않음"),
    "changes_asked": Words("changes asked", "수정 요청"),
    "declined": Words("declined", "거절"),
    "ended": Words("step ended", "단계 끝"),
    "enrolled": Words("enrolled", "가입"),
    "failed": Words("failed", "실패"),
    "fetched": Words("fetched", "결과를 받아 감"),
    "fork": Words("FORK", "기록 갈라짐"),
    "hospitals not on the list": Words("hospitals not on the list", "목록에 없는 병원"),
    "invited": Words("invited", "초대"),
    "key changed": Words("KEY CHANGED", "키 바뀜"),
    "keys pinned": Words("keys noted", "키 기록"),
    "left out": Words("left out", "제외"),
    "left": Words("left", "나감"),
    "list closed": Words("list closed", "병원 목록 닫음"),
    "list open": Words("list opened", "병원 목록 엶"),
    "no answer": Words("no answer", "답 없음"),
    "no proof": Words("NO PROOF", "증명 없음"),
    "not permitted": Words("not permitted", "권한 없음"),
    "opened": Words("sum opened", "합계 열림"),
    "packet read": Words("packet read", "심의 자료 읽음"),
    "password changed": Words("password changed", "비밀번호 바꿈"),
    "paused": Words("paused", "일시 중지"),
    "permitted": Words("permitted", "허가"),
    "received": Words("received", "연구 받음"),
    "refused": Words("refused", "거부"),
    "release approved": Words("release approved", "공개 승인"),
    "release asked": Words("release asked", "공개 요청"),
    "release refused": Words("release refused", "공개 거부"),
    "released": Words("released", "공개"),
    "repeated": Words("repeated", "같은 답 다시 보냄"),
    "replaced": Words("replaced by a new version", "새 판으로 대체"),
    "resumed": Words("resumed", "재개"),
    "revoked": Words("revoked", "회원 취소"),
    "run": Words("run", "실행"),
    "sign-in failed": Words("sign-in failed", "로그인 실패"),
    "signed in": Words("signed in", "로그인"),
    "signed out": Words("signed out", "로그아웃"),
    "standardised": Words("standardised", "표준화"),
    "state": Words("state", "상태"),
    "submitted": Words("submitted", "제출"),
    "sum refused": Words("sum refused", "합계 거부"),
    "unlocked": Words("unlocked", "잠금 해제"),
    "withdrawing": Words("withdrawing", "철회 시작"),
    "withdrawn": Words("withdrawn", "철회"),
}
