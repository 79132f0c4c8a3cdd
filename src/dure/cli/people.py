"""The commands about people: the accounts of a hub or a hospital, signing in and out, and who is signed in."""

from __future__ import annotations

import getpass
import signal
import sys
import unicodedata
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from dure.cli.screen import console, say, show_remark, show_table
from dure.guard.permissions import Role
from dure.language import Words

people_app = typer.Typer(
    help=say("Accounts of a hub's or a hospital's people.", "허브나 병원 사람들의 계정."), no_args_is_help=True
)

Folder = Annotated[Path, typer.Argument(help=say("a hub's or a hospital's folder", "허브 또는 병원 폴더"))]
Name = Annotated[str, typer.Argument(help=say("name of the account", "계정 이름"))]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        help=say(
            "file with the password; without it, asked, or the next line of standard input",
            "암호가 든 파일. 없으면 물어보거나 표준 입력의 다음 줄을 읽음",
        ),
    ),
]


@people_app.command(
    help=say(
        "Add an account; the first one ends that whoever holds the folder decides alone.",
        "계정을 더합니다. 첫 계정이 생기면 폴더를 가진 사람이 혼자 결정하던 상태가 끝납니다.",
    )
)
def add(
    folder: Folder,
    name: Name,
    role: Annotated[Role, typer.Option(help=say("what the person may do", "할 수 있는 일"))],
    organisation: Annotated[
        str,
        typer.Option(help=say("at the hub: the member the person belongs to", "허브에서: 그 사람이 속한 회원")),
    ] = "",
    password_file: PasswordFile = None,
) -> None:
    from dure.guard.accounts import Accounts
    from dure.guard.permissions import ROLES

    by, accounts = _keeper(folder), Accounts(folder)
    first = not accounts.exist()
    if accounts.place == "hub":
        _belongs(folder, name, role, organisation or accounts.organisation)
    elif organisation and organisation != accounts.organisation:
        raise _other_organisation(name, organisation, accounts.organisation)
    person = accounts.add(name, role, asked_password(password_file, new=True), organisation, by)
    words = Words(
        f"{person.name} has an account: {ROLES[role].en}, {person.organisation}.",
        f"{person.name} 계정을 만들었습니다: {person.organisation}, {ROLES[role].ko}.",
    )
    console.print(Text(words.say(), style="bold green"))
    if first:
        show_remark(
            Words(
                "From now on the permissions table decides here, and every command needs somebody signed in.",
                "이제부터 여기서는 권한표가 결정하며, 명령마다 로그인한 사람이 있어야 합니다.",
            )
        )
        console.print(Text(say(f"Next: dure sign-in {folder} {name}", f"다음: dure sign-in {folder} {name}")))


@people_app.command(name="list", help=say("Who has an account here.", "계정이 있는 사람."))
def list_people(folder: Folder) -> None:
    import polars as pl

    from dure.guard.accounts import Accounts
    from dure.guard.permissions import ROLES

    _keeper(folder)
    rows = [
        {
            "name": person.name,
            "role": ROLES[person.role].say(),
            "organisation": person.organisation,
            "created": person.created[:16].replace("T", " "),
            "status": say("disabled", "닫힘") if person.disabled else say("open", "열림"),
        }
        for person in Accounts(folder).people()
    ]
    if not rows:
        console.print(Text(_NOBODY.say()))
        return
    show_table(say("People", "사람"), pl.DataFrame(rows), {})


@people_app.command(help=say("Close an account; its sessions end.", "계정을 닫습니다. 세션도 끝납니다."))
def disable(folder: Folder, name: Name) -> None:
    from dure.guard.accounts import Accounts

    Accounts(folder).disable(name, _keeper(folder))
    console.print(Text(say(f"{name}: closed.", f"{name}: 닫았습니다."), style="bold"))


@people_app.command(help=say("Open a closed account again.", "닫은 계정을 다시 엽니다."))
def enable(folder: Folder, name: Name) -> None:
    from dure.guard.accounts import Accounts

    Accounts(folder).enable(name, _keeper(folder))
    console.print(Text(say(f"{name}: open again.", f"{name}: 다시 열었습니다."), style="bold"))


@people_app.command(
    help=say(
        "Set a password: one's own with the present one, or another's by who keeps the accounts.",
        "암호를 정합니다. 자기 것은 지금 암호로, 남의 것은 계정 담당자가.",
    )
)
def password(folder: Folder, name: Name, password_file: PasswordFile = None) -> None:
    from dure.guard.accounts import Accounts
    from dure.guard.acting import acting

    accounts, actor = Accounts(folder), acting(folder)
    if actor.name == unicodedata.normalize("NFC", name.strip()) and actor.role != "owner":
        accounts.prove(name, asked_password(None, words=PRESENT))
        by = actor.name
    else:
        by = _keeper(folder)
    accounts.set_password(name, asked_password(password_file, new=True), by)
    changed = Words(
        f"{name}: new password; every session has ended.", f"{name}: 새 암호를 정했습니다. 세션은 모두 끝났습니다."
    )
    console.print(Text(changed.say(), style="bold"))


def sign_in(
    folder: Folder,
    name: Name,
    password_file: PasswordFile = None,
    show: Annotated[
        bool,
        typer.Option(
            "--show",
            help=say(
                "print the session for DURE_SESSION instead of keeping it", "보관하지 않고 DURE_SESSION용으로 출력"
            ),
        ),
    ] = False,
) -> None:
    from dure.guard.accounts import Accounts
    from dure.guard.acting import keep_session
    from dure.guard.permissions import ROLES

    accounts = Accounts(folder)
    token = accounts.sign_in(name, asked_password(password_file))
    if show:
        sys.stdout.write(token + "\n")
        return
    keep_session(folder, token)
    tell_signed_in(name, ROLES[accounts.who(token).role])


def sign_out(folder: Folder) -> None:
    from dure.guard.accounts import Accounts
    from dure.guard.acting import forget_session, session

    Accounts(folder).sign_out(session(folder))
    forget_session(folder)
    console.print(say("Signed out.", "로그아웃했습니다."))


def whoami(folder: Folder) -> None:
    from dure.guard.acting import acting
    from dure.guard.permissions import ROLES

    actor = acting(folder)
    if actor.role == "owner":
        console.print(Text(_NOBODY.say()))
        return
    console.print(Text(f"{actor.name} · {ROLES[actor.role].say()} · {actor.organisation}"))


def add_to(app: typer.Typer) -> None:
    """The commands of this module, under `dure people` and as `dure sign-in`, `sign-out` and `whoami`."""
    app.add_typer(people_app, name="people")
    for name, command, words in (
        ("sign-in", sign_in, Words("Sign in to a hub's or a hospital's folder.", "허브나 병원 폴더에 로그인합니다.")),
        ("sign-out", sign_out, Words("End one's session in a folder.", "폴더의 세션을 끝냅니다.")),
        ("whoami", whoami, Words("Who acts in a folder now.", "지금 그 폴더에서 누가 행동하는지 보입니다.")),
    ):
        app.command(name=name, help=words.say())(command)


def asked_password(file: Path | None, new: bool = False, words: Words | None = None) -> str:
    """From a file's first line, from the terminal without echo (a new one twice), or a line of standard input."""
    from dure.study.document import read_text

    if file is not None and str(file) != "-":
        return read_text(file).partition("\n")[0].rstrip("\r")
    if file is not None or not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    asked = words or (Words("New password", "새 암호") if new else Words("Password", "암호"))
    if hasattr(signal, "siginterrupt"):  # Polars catches Ctrl-C and restarts the read that it should end
        signal.siginterrupt(signal.SIGINT, True)
    while True:
        given = getpass.getpass(f"{asked.say()}: ")
        if not new or getpass.getpass(say("Once more: ", "한 번 더: ")) == given:
            return given
        show_remark(Words("The two differ.", "두 번이 서로 다릅니다."))


def tell_signed_in(name: str, role: Words) -> None:
    words = Words(f"{name} is signed in: {role.en}.", f"{name} 로그인: {role.ko}.")
    console.print(Text(words.say(), style="bold green"))


PRESENT = Words("Present password", "지금 암호")
_NOBODY = Words(
    "There are no accounts here: whoever holds this folder decides alone (dure people add).",
    "계정이 없습니다. 이 폴더를 가진 사람이 혼자 결정합니다(dure people add).",
)


def _keeper(folder: Path) -> str:
    """Who keeps the accounts of a folder, after the table has said that they may."""
    from dure.guard.accounts import place_of
    from dure.guard.acting import may
    from dure.guard.permissions import KEEPS

    return may(folder, KEEPS[place_of(folder)[0]]).name


def _belongs(folder: Path, name: str, role: Role, organisation: str) -> None:
    """At the hub a person is the alliance's own, or of a member whose kind has such people."""
    from dure.errors import AccountConflict, NotAMember
    from dure.guard.permissions import MEMBERS, OF_THE_ALLIANCE, ROLES
    from dure.hub.authority import read_hub

    hub = read_hub(folder)
    fitting = OF_THE_ALLIANCE
    if organisation != hub.alliance:
        store = hub.open_store()
        kinds = {member.name: member.role for member in store.members() if not member.revoked}
        store.close()
        if organisation not in kinds:
            problem = Words("Nobody has joined under this name", "이 이름으로 가입한 회원이 없습니다")
            raise NotAMember(name=organisation, problem=problem)
        fitting = MEMBERS[kinds[organisation]].people  # type: ignore[index]
    if role not in fitting:
        raise AccountConflict(
            name=name,
            problem=Words(
                f"People of {organisation} cannot be: {ROLES[role].en}",
                f"{organisation}의 사람에게 없는 역할: {ROLES[role].ko}",
            ),
            hint=Words(f"Roles there: {', '.join(fitting)}.", f"그곳의 역할: {', '.join(fitting)}."),
        )


def _other_organisation(name: str, given: str, own: str) -> Exception:
    from dure.errors import AccountConflict

    return AccountConflict(
        name=name,
        problem=Words(f"This folder is of {own}, not of {given}", f"{given}이(가) 아니라 {own}의 폴더입니다"),
        hint=Words("Leave --organisation out.", "--organisation을 빼십시오."),
    )
