"""Every role tries every action through the real interface, and each outcome is compared with the permissions table.

At the hub: members and their people over real lines to a hub in a process of its own, and `dure hub …` in its folder.
In a hospital: `dure site …` in the folder of one. A new topic or command is one line in `WIRE`, `HUB` or `SITE`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dure.cli.commands import run
from dure.client.alliance import Alliance
from dure.errors import (
    DureError,
    HubUnreachable,
    MemberConflict,
    MessageRefused,
    NotPermitted,
    NotSignedIn,
    SignInRefused,
    TooManyAttempts,
    UnknownStudy,
)
from dure.federation.membership import enrol, read_membership
from dure.federation.on_behalf import MARK, on_behalf, opened
from dure.guard.accounts import FOR_ONE, Accounts
from dure.guard.acting import keep_session
from dure.guard.audit import AuditLog
from dure.guard.permissions import ACTIONS, AT, MEMBERS, ROLES, Actor, Role, can
from dure.hub.reception import TOPICS
from dure.site.settings import create_site

PENDING = {"archive", "audit_hub", "decide_irb", "decide_drb", "approve_release", "see_egress", "unlock"}
"""Actions of the table for which there is no command yet. Take one out together with adding its line below."""
NO_WAY_YET = {("fetch", "office"), ("see_release", "office")}
"""Cells of actions that have an interface which these roles do not reach yet: the office has no line, only a folder."""

WIRE: dict[str, Callable[[Alliance, str], object]] = {
    "submit": lambda alliance, study: alliance.submit(new_study()),
    "revise": lambda alliance, study: alliance._ask("revise", study=study),
    "cancel": lambda alliance, study: alliance.cancel(study),
    "studies": lambda alliance, study: alliance.studies(),
    "status": lambda alliance, study: alliance.status(study),
    "events": lambda alliance, study: alliance._ask("events", study=study, after=0),
    "fetch": lambda alliance, study: alliance.fetch(study),
    "release_ask": lambda alliance, study: alliance._ask("release_ask", study=study),
    "release_queue": lambda alliance, study: alliance._ask("release_queue", study=study),
    "release_decide": lambda alliance, study: alliance._ask("release_decide", study=study),
    "decide_shared": lambda alliance, study: alliance._ask("decide_shared", study=study),
    "ask_open": lambda alliance, study: alliance._ask("ask_open", study=study),
}
"""Topic → how a member asks it, of a study."""
UNBUILT = {"revise", "release_ask", "release_queue", "release_decide", "decide_shared", "ask_open"}
"""Topics whose permission is checked already, and which then nobody answers yet: take out what is answered."""

HUB: list[tuple[str, str]] = [
    ("see_study", "hub status --store FOLDER"),
    ("cancel", "hub cancel FOLDER STUDY"),
    ("decide_release", "hub release FOLDER STUDY"),
    ("see_members", "hub members FOLDER"),
    ("admit", "hub invite FOLDER Newcomer --role company --out FOLDER/newcomer"),
    ("admit", "hub revoke FOLDER Nobody"),
    ("keep_people", "people list FOLDER"),
    ("keep_people", "people add FOLDER Newcomer --role auditor --password-file PASSWORD"),
    ("keep_people", "people password FOLDER Nobody --password-file PASSWORD"),
    ("keep_people", "people disable FOLDER Nobody"),
    ("keep_people", "people enable FOLDER Nobody"),
]
"""Action → a command in the hub's folder; STUDY is a researcher's."""
SITE: list[tuple[str, str]] = [
    ("see_review", "site status FOLDER"),
    ("withdraw", "site decline FOLDER 0123456789"),
    ("pause", "site pause FOLDER"),
    ("pause", "site resume FOLDER"),
    ("audit_site", "site audit FOLDER"),
    ("keep_data", "site renew FOLDER"),
    ("keep_data", "site standardise FOLDER/no.yaml --exports FOLDER --database FOLDER/omop.duckdb"),
    ("keep_data", "site quality FOLDER/no.yaml --database FOLDER/omop.duckdb"),
    ("keep_people_site", "people list FOLDER"),
    ("keep_people_site", "people add FOLDER Newcomer --role auditor --password-file PASSWORD"),
    ("keep_people_site", "people password FOLDER Nobody --password-file PASSWORD"),
    ("keep_people_site", "people disable FOLDER Nobody"),
    ("keep_people_site", "people enable FOLDER Nobody"),
]
"""Action → a command in a hospital's folder."""

GOOD = "five wild cranes over Suncheon"
NUMBERS = itertools.count()
STUDIES: Any = None


def new_study() -> Any:
    """A study that nobody has proposed yet."""
    title = f"Question {next(NUMBERS)} of {os.getpid()}"
    study = STUDIES.small_study(("attrition",))
    return study.model_copy(update={"title": study.title.model_copy(update={"en": title})})


@dataclass(frozen=True)
class Caller:
    """Somebody at a member's line; `person` has an account there, else the member's key speaks."""

    member: str
    role: Role
    person: str = ""

    def __str__(self) -> str:
        return f"{self.role}-{'signed-in' if self.person else 'by-key'}-of-{self.member}"

    @property
    def actor(self) -> Actor:
        return Actor(self.person or self.member, self.role, self.member)


MEMBERSHIPS = {
    "Rain lab": "researcher",
    "River lab": "researcher",
    "Pharm": "company",
    "Biotech": "company",
    "Board": "drb",
    "Watch": "auditor",
    "Hanbit": "hospital",
    "Onnuri": "hospital",
    "Saessak": "hospital",
}
STAFFED: dict[str, tuple[Role, ...]] = {
    "River lab": ("researcher",),
    "Biotech": ("company",),
    "Onnuri": MEMBERS["hospital"].people,
}
"""Members with accounts at the hub."""
CALLERS = [
    *(
        Caller(member, MEMBERS[kind].key_acts_as)  # type: ignore[index]
        for member, kind in MEMBERSHIPS.items()
        if member not in STAFFED and member != "Saessak"
    ),
    *(Caller(member, role, f"{member} {role}") for member, roles in STAFFED.items() for role in roles),
]


@contextlib.contextmanager
def line_of(folder: Path) -> Iterator[Alliance]:
    """A line that is up; on a machine that is busy with other tests it may take more than one attempt."""
    for last in (False, False, True):
        with contextlib.ExitStack() as stack:
            try:
                line = stack.enter_context(Alliance(folder))
            except HubUnreachable:
                if last:
                    raise
                continue
            yield line
            return


class Stage:
    """One hub for the whole matrix, a line for each member, and a session for each person."""

    def __init__(self, folder: Path, services: Any, lines: contextlib.ExitStack) -> None:
        self.town = services.Town(folder, patience=10)
        self.folders = {name: folder / f"member{number}" for number, name in enumerate(MEMBERSHIPS)}
        for name, kind in MEMBERSHIPS.items():
            if kind == "hospital":
                create_site(self.folders[name], name)
            enrol(self.town.authority.invite(name, kind), self.folders[name], 60)
        self.accounts = Accounts(self.town.hub.folder)
        self.standing: dict[str, str] = {}
        self.accounts.add("Office", "office", GOOD)
        self.tokens = {"Office": self.accounts.sign_in("Office", GOOD)}
        self.lines = {name: lines.enter_context(line_of(path)) for name, path in self.folders.items()}
        for member, roles in STAFFED.items():
            for role in roles:
                self.person(f"{member} {role}", role, member)

    def person(self, name: str, role: Role, organisation: str = "") -> None:
        self.accounts.add(name, role, GOOD, organisation)
        self.tokens[name] = self.accounts.sign_in(name, GOOD)

    def study_of(self, member: str) -> str:
        """A study of a member that stands at the hub."""
        if member not in self.standing:
            self.standing[member] = self.proposed(member)
        return self.standing[member]

    def proposed(self, member: str) -> str:
        """A new study of a member."""
        person = next((caller.person for caller in CALLERS if caller.member == member and proposes(caller)), "")
        with as_person(self.tokens.get(person, "")):
            return self.lines[member].submit(new_study())


def proposes(caller: Caller) -> bool:
    return can(caller.actor, "submit")


@contextlib.contextmanager
def as_person(token: str) -> Iterator[None]:
    before = os.environ.pop("DURE_SESSION", None)
    if token:
        os.environ["DURE_SESSION"] = token
    try:
        yield
    finally:
        os.environ.pop("DURE_SESSION", None)
        if before is not None:
            os.environ["DURE_SESSION"] = before


@pytest.fixture(scope="module", autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("DURE_LANGUAGE", "en")
        patch.delenv("DURE_SESSION", raising=False)
        yield


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, services: Any) -> Iterator[Stage]:
    global STUDIES
    STUDIES = services
    with contextlib.ExitStack() as lines:
        made = Stage(tmp_path_factory.mktemp("roles"), services, lines)
        lines.callback(made.town.close)
        yield made


# ── the hub, over members' lines ──


@pytest.mark.parametrize("topic", WIRE)
@pytest.mark.parametrize("caller", CALLERS, ids=str)
def test_over_a_members_line_the_table_decides(stage: Stage, caller: Caller, topic: str) -> None:
    action, line = TOPICS[topic], stage.lines[caller.member]
    foreign = next(name for name in ("Rain lab", "Pharm") if name != caller.member)
    for proposer in {caller.member, foreign} if proposes(caller) else {foreign}:
        study = stage.proposed(proposer) if topic == "cancel" else stage.study_of(proposer)
        concerned = proposer if topic not in ("submit", "studies") else caller.member  # those two name no study
        if topic in UNBUILT:
            # Whose study it is, is looked up by whoever answers the topic; until then only the role is checked.
            concerned = caller.member
        allowed, hidden = can(caller.actor, action, concerned), not can(caller.actor, "see_study", concerned)
        with as_person(stage.tokens.get(caller.person, "")):
            said = heard(lambda: WIRE[topic](line, study))  # noqa: B023
        assert said in (expected(topic) if allowed else {"unknown-study"} if hidden else {"not-permitted"}), proposer


def heard(ask: Callable[[], object]) -> str:
    """`done`, or the code of the error that came back."""
    try:
        ask()
    except DureError as error:
        return error.code()
    return "done"


def expected(topic: str) -> set[str]:
    """What is heard once the table has said yes."""
    if topic in UNBUILT:
        return {"message-refused"}
    return {"lifecycle-error"} if topic == "fetch" else {"done"}  # nothing is released here


@pytest.mark.parametrize("topic", WIRE)
def test_the_office_has_no_line_not_even_with_an_account_made_past_the_command(stage: Stage, topic: str) -> None:
    name = "Smuggled"
    if name not in {person.name for person in stage.accounts.people()}:
        stage.person(name, "office", "Onnuri")
    with as_person(stage.tokens[name]), pytest.raises(NotPermitted, match="in this role"):
        WIRE[topic](stage.lines["Onnuri"], stage.study_of("Rain lab"))
    with as_person(""), pytest.raises(NotPermitted, match="in this role"):
        stage.lines["Onnuri"].sign_in(name, GOOD)


def test_what_the_hub_says_of_a_study_one_may_not_see_does_not_name_it(stage: Stage) -> None:
    with pytest.raises(UnknownStudy) as found:
        stage.lines["Pharm"].cancel(stage.study_of("Rain lab"))
    assert stage.study_of("Rain lab") not in str(found.value.fields["nearest"])


def test_a_company_sees_its_own_studies_and_not_that_there_are_others(stage: Stage) -> None:
    own, others = stage.proposed("Pharm"), stage.proposed("Rain lab")
    seen = {found["study"] for found in stage.lines["Pharm"].studies()}
    assert own in seen
    assert {stage.town.store.submission(study)[1] for study in seen} == {"Pharm"}
    heard = []
    for study in (others, others[7:19], "0" * 64):
        with pytest.raises(UnknownStudy) as found:
            stage.lines["Pharm"].status(study)
        heard.append(found.value.text("en").replace(study, "STUDY"))
    assert len(set(heard)) == 1, "a study of others and none at all are told apart"
    assert stage.lines["Rain lab"].status(own)["submitter"] == "Pharm"


@pytest.mark.parametrize("member", STAFFED)
@pytest.mark.parametrize("topic", WIRE)
def test_a_member_with_people_is_not_spoken_for_by_its_key(stage: Stage, member: str, topic: str) -> None:
    with as_person(""), pytest.raises(NotSignedIn, match="dure study sign-in"):
        WIRE[topic](stage.lines[member], stage.study_of("Rain lab"))


def test_a_session_is_worth_nothing_over_another_members_line(stage: Stage) -> None:
    with as_person(stage.tokens["Biotech company"]), pytest.raises(NotSignedIn):
        stage.lines["River lab"].studies()
    with as_person(stage.tokens["Office"]), pytest.raises(NotSignedIn):
        stage.lines["Biotech"].studies()
    with as_person("guessed"), pytest.raises(NotSignedIn):
        stage.lines["Biotech"].studies()


def test_topics_that_are_in_no_table_are_refused_to_everybody(stage: Stage) -> None:
    for caller in CALLERS:
        topics = ["admit", "keep_people", "see_members", "archive", "ask", "study", "invented"]
        topics += [] if MEMBERSHIPS[caller.member] == "hospital" else ["permit", "pause"]  # a hospital's own program's
        for topic in topics:
            with as_person(stage.tokens.get(caller.person, "")), pytest.raises(MessageRefused, match="not a message"):
                stage.lines[caller.member]._ask(topic)


def test_signing_in_over_the_line_out_again_and_a_new_password(stage: Stage) -> None:
    stage.accounts.add("Yoon", "company", GOOD, "Biotech")
    line, new = stage.lines["Biotech"], "another sentence by herself"
    with as_person(""):
        with pytest.raises(SignInRefused):
            stage.lines["Pharm"].sign_in("Yoon", GOOD)
        assert line.sign_in("Yoon", GOOD) == "company"
        line.studies()
        line.sign_out()
        with pytest.raises(NotSignedIn):
            line.studies()
        line.sign_in("Yoon", GOOD)
        with pytest.raises(SignInRefused):
            line.change_password("not the present one", new)
        line.change_password(GOOD, new)
        with pytest.raises(NotSignedIn):
            line.studies()
        with pytest.raises(SignInRefused):
            line.sign_in("Yoon", GOOD)
        line.sign_in("Yoon", new)
        stage.accounts.disable("Yoon", by="Office")
        with pytest.raises(NotSignedIn):
            line.studies()


def test_closing_the_last_account_of_a_member_does_not_give_its_key_the_word_again(stage: Stage) -> None:
    stage.accounts.disable("River lab researcher", by="Office")
    with as_person(""), pytest.raises(NotSignedIn):
        stage.lines["River lab"].studies()
    stage.accounts.enable("River lab researcher", by="Office")
    stage.tokens["River lab researcher"] = stage.accounts.sign_in("River lab researcher", GOOD)


def test_a_member_that_guesses_is_shut_out_and_nobody_else_is(stage: Stage) -> None:
    with as_person(""):
        for _ in range(FOR_ONE):
            with pytest.raises(SignInRefused):
                stage.lines["Pharm"].sign_in("Office", "certainly not this one")
        with pytest.raises(TooManyAttempts):
            stage.lines["Pharm"].sign_in("Office", GOOD)
    assert stage.accounts.sign_in("Office", GOOD)


def test_what_was_refused_is_in_the_journal_and_no_secret_is(stage: Stage) -> None:
    with as_person(stage.tokens["Biotech company"]), pytest.raises(NotPermitted):
        stage.lines["Biotech"]._ask("release_decide", study="x")
    with as_person(""), pytest.raises(SignInRefused):
        stage.lines["Biotech"].sign_in("Mallory", "certainly not this one")
    said = stage.town.processes["hub"].said()
    assert '"topic": "release_decide", "error": "not-permitted", "person": "Biotech company"' in said
    log = (stage.town.hub.folder / "audit.jsonl").read_text(encoding="utf-8")
    assert '"event": "signed in"' in log
    for secret in (GOOD, "certainly not this one", *stage.tokens.values()):
        assert secret not in said + log
    assert AuditLog(stage.town.hub.folder / "audit.jsonl").verify()


def test_a_cut_session_in_front_of_a_body_is_no_message(stage: Stage) -> None:
    assert opened(on_behalf("token", b"body")) == ("token", b"body")
    assert opened(on_behalf("", b"body")) == ("", b"body")
    line = stage.lines["Rain lab"]._line
    for broken in (MARK, MARK + b"\x81", on_behalf("t", b"x")[:-1], on_behalf("x" * 200, b"")):
        with pytest.raises(MessageRefused, match="not a message"):
            line.call("studies", broken, 10)


def test_everybody_but_hospitals_joins_with_study_enrol(stage: Stage, tmp_path: Path) -> None:
    for kind in MEMBERS:
        token = tmp_path / kind
        token.write_text(stage.town.authority.invite(f"New {kind}", kind), encoding="utf-8")
        arguments = {
            "study": ["--member", str(tmp_path / "s" / kind)],
            "site": ["--folder", str(tmp_path / "h" / kind)],
        }
        wrong, right = ("study", "site") if kind == "hospital" else ("site", "study")
        assert run([wrong, "enrol", str(token), *arguments[wrong]]) == 1
        assert run([right, "enrol", str(token), *arguments[right]]) == 0
        assert read_membership(Path(arguments[right][1])).role == kind
    with pytest.raises(MemberConflict, match="alliance's own name"):
        stage.town.authority.invite(stage.town.hub.alliance)


# ── commands in a folder ──


@pytest.fixture(scope="module")
def hub_people(stage: Stage) -> dict[Role, str]:
    """Role → a session in the hub's folder."""
    found: dict[Role, str] = {"office": stage.tokens["Office"]}
    homes: dict[Role, str] = {"company": "Biotech", "steward": "Onnuri"}
    for role in AT["hub"]:
        if role != "office":
            stage.person(f"Folder {role}", role, homes.get(role, ""))
            found[role] = stage.tokens[f"Folder {role}"]
    return found


@pytest.fixture(scope="module")
def site_people(tmp_path_factory: pytest.TempPathFactory, stage: Stage) -> tuple[Path, dict[Role, str]]:
    """A hospital's folder, and role → a session in it."""
    folder = stage.folders["Saessak"]
    accounts = Accounts(folder)
    for role in AT["site"]:
        accounts.add(f"Folder {role}", role, GOOD)
    return folder, {role: accounts.sign_in(f"Folder {role}", GOOD) for role in AT["site"]}


@pytest.fixture
def typed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Types a command; `done`, or the error's code in the frame of what it said."""
    (tmp_path / "password").write_text(GOOD + "\n", encoding="utf-8")

    def call(command: str, folder: Path, study: str = "") -> str:
        for name, value in (("FOLDER", folder), ("PASSWORD", tmp_path / "password"), ("STUDY", study)):
            command = command.replace(name, str(value))
        capsys.readouterr()
        code = run(command.split())
        said = capsys.readouterr().err
        return said.splitlines()[0].split()[1] if code == 1 else "done"

    return call


BEYOND = {"done", "unknown-study", "unknown-hospital", "lifecycle-error", "account-conflict", "file-missing"}
"""How a command goes on once the table has said yes: it does its work, or finds that what was named is not there."""


@pytest.mark.parametrize(("action", "command"), HUB, ids=lambda value: value.replace(" ", "-"))
@pytest.mark.parametrize("role", AT["hub"])
def test_in_the_hubs_folder_the_table_decides(
    stage: Stage, hub_people: dict[Role, str], typed: Callable[..., str], role: Role, action: str, command: str
) -> None:
    actor = stage.accounts.who(hub_people[role]).actor
    study = stage.proposed("Rain lab") if action == "cancel" else stage.study_of("Rain lab")
    with as_person(hub_people[role]):
        said = typed(command, stage.town.hub.folder, study)
    own_only = ACTIONS[action].who.get(role) == "own" and "STUDY" not in command  # a list, of one's own
    allowed = can(actor, action, "Rain lab") or own_only
    assert (said in BEYOND) if allowed else (said == "not-permitted"), said
    with as_person(""):
        assert typed(command, stage.town.hub.folder, study) == "not-signed-in"


@pytest.mark.parametrize(("action", "command"), SITE, ids=lambda value: value.replace(" ", "-"))
@pytest.mark.parametrize("role", AT["site"])
def test_in_a_hospitals_folder_the_table_decides(
    site_people: tuple[Path, dict[Role, str]], typed: Callable[..., str], role: Role, action: str, command: str
) -> None:
    folder, tokens = site_people
    with as_person(tokens[role]):
        said = typed(command, folder)
    allowed = can(Actor("Somebody", role, "Saessak"), action)
    assert (said in BEYOND) if allowed else (said == "not-permitted"), said
    with as_person(""):
        assert typed(command, folder) == "not-signed-in"


def test_with_accounts_nobody_signs_a_permit_past_the_boards(
    site_people: tuple[Path, dict[Role, str]], typed: Callable[..., str], tmp_path: Path
) -> None:
    folder, tokens = site_people
    for token in tokens.values():
        with as_person(token):
            assert typed("site permit FOLDER 0123456789", folder) == "boards-decide"
    create_site(tmp_path / "small", "Small")
    assert typed("site permit FOLDER 0123456789", tmp_path / "small") == "unknown-study"


def test_a_folder_without_accounts_is_its_owners(typed: Callable[..., str], tmp_path: Path) -> None:
    create_site(tmp_path / "small", "Small")
    for action, command in SITE:
        if action != "keep_people_site":
            assert typed(command, tmp_path / "small") in BEYOND | {"not-a-member"}


def test_the_hubs_status_shows_a_company_only_what_it_proposed(
    stage: Stage, hub_people: dict[Role, str], capsys: pytest.CaptureFixture[str]
) -> None:
    own, others = stage.proposed("Biotech"), stage.proposed("Rain lab")
    shown = {}
    for role in ("company", "auditor"):
        capsys.readouterr()
        with as_person(hub_people[role]):  # type: ignore[index]
            assert run(["hub", "status", "--store", str(stage.town.hub.folder)]) == 0
        shown[role] = capsys.readouterr().out
    assert own[7:19] in shown["company"]
    assert others[7:19] not in shown["company"]
    assert others[7:19] in shown["auditor"]


def test_people_of_a_member_have_the_roles_of_such_a_member(
    stage: Stage, hub_people: dict[Role, str], tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text(GOOD, encoding="utf-8")
    added = {}
    with as_person(hub_people["office"]):
        for number, (member, kind) in enumerate(MEMBERSHIPS.items()):
            for role in AT["hub"]:
                words = ["people", "add", str(stage.town.hub.folder), f"Try {number} {role}", "--role", role]
                code = run([*words, "--organisation", member, "--password-file", str(password)])
                added[kind, role] = code == 0
                if code == 0 and member not in STAFFED:  # else the member's key would no longer act in other tests
                    remove(stage, f"Try {number} {role}")
        nobody = ["people", "add", str(stage.town.hub.folder), "Stray", "--role", "company"]
        assert run([*nobody, "--organisation", "Nobody", "--password-file", str(password)]) == 1
        assert run([*nobody, "--password-file", str(password)]) == 1, "the alliance itself has no company scientists"
    assert added == {(kind, role): role in MEMBERS[kind].people for kind in MEMBERSHIPS.values() for role in AT["hub"]}  # type: ignore[index]


def remove(stage: Stage, name: str) -> None:
    with stage.accounts._open() as database:
        database.execute("DELETE FROM person WHERE name = ?", (name,))


# ── nothing is left out ──


def test_every_cell_of_the_table_is_tried_or_said_to_be_pending() -> None:
    over_lines = {(TOPICS[topic], caller.role) for topic in WIRE for caller in CALLERS}
    over_lines |= {(TOPICS[topic], "office") for topic in WIRE} - NO_WAY_YET
    in_folders = {(action, role) for action, _ in HUB for role in AT["hub"]}
    in_folders |= {(action, role) for action, _ in SITE for role in AT["site"]}
    tried = over_lines | in_folders
    wanted = {
        (name, role)
        for name, action in ACTIONS.items()
        if name not in PENDING
        for role in ROLES
        if role in AT[action.place]
    }
    assert wanted - tried == NO_WAY_YET
    assert set(ACTIONS) >= PENDING
    assert not {action for action, _ in tried} & PENDING, "no longer pending: take it out"
    assert set(WIRE) == set(TOPICS)
    assert all(ACTIONS[action].place == "hub" for action in TOPICS.values())


def test_roles_that_a_hospital_does_not_have_cannot_be_given_there(site_people: tuple[Path, dict[Role, str]]) -> None:
    for role in set(ROLES) - set(AT["site"]):
        with pytest.raises(DureError, match="Nobody has the role"):
            Accounts(site_people[0]).add("Stray", role, GOOD)


# ── as typed, in processes of their own ──


def test_a_steward_signs_in_is_somebody_and_signs_out_again(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    create_site(folder, "Hanbit")
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}

    def typed(*words: str, given: str = "", language: str = "en") -> tuple[int, str]:
        ran = subprocess.run(
            [sys.executable, "-m", "dure.cli", *words],
            input=given,
            capture_output=True,
            text=True,
            env={**env, "DURE_LANGUAGE": language},
        )
        return ran.returncode, " ".join((ran.stdout + ran.stderr).split())

    assert "whoever holds this folder decides alone" in typed("whoami", str(folder))[1]
    code, said = typed("people", "add", str(folder), "Kim", "--role", "steward", given=GOOD + "\n")
    assert (code, "permissions table decides" in said) == (0, True)
    code, said = typed("site", "pause", str(folder), language="ko")
    assert code == 1
    assert "로그인한 사람이 없습니다" in said
    assert typed("sign-in", str(folder), "Kim", given="certainly not this one\n")[0] == 1
    code, said = typed("sign-in", str(folder), "Kim", given=GOOD + "\n", language="ko")
    assert (code, said) == (0, "Kim 로그인: 데이터 관리자.")
    assert typed("whoami", str(folder)) == (0, "Kim · data steward · Hanbit")
    assert typed("site", "pause", str(folder))[0] == 0
    code, said = typed("people", "password", str(folder), "Kim", given=f"{GOOD}\nanother good sentence\n")
    assert (code, "every session has ended" in said) == (0, True)
    assert typed("whoami", str(folder))[0] == 1
    code, token = typed("sign-in", str(folder), "Kim", "--show", given="another good sentence\n")
    env["DURE_SESSION"] = token
    assert typed("whoami", str(folder)) == (0, "Kim · data steward · Hanbit")
    assert typed("sign-out", str(folder))[0] == 0
    assert typed("whoami", str(folder))[0] == 1


def test_a_kept_session_serves_one_folder_only(tmp_path: Path) -> None:
    for name in ("one", "two"):
        create_site(tmp_path / name, name)
        Accounts(tmp_path / name).add("Kim", "steward", GOOD)
    keep_session(tmp_path / "one", Accounts(tmp_path / "one").sign_in("Kim", GOOD))
    assert run(["whoami", str(tmp_path / "one")]) == 0
    assert run(["whoami", str(tmp_path / "two")]) == 1
