"""A member's line to the alliance: sign in, submit a study, see where it stands, follow, cancel, fetch its results."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from dure.client import export
from dure.client.export import FORMATS, Format
from dure.errors import HubUnreachable
from dure.federation.frames import FORM
from dure.federation.health import only_one
from dure.federation.membership import Line
from dure.federation.on_behalf import on_behalf
from dure.guard.acting import forget_session, keep_session, session
from dure.guard.rules import DEFAULT
from dure.language import Words
from dure.study.method import installed_methods, read_parameters
from dure.study.packing import pack, unpack
from dure.study.result import Result, unpack_result
from dure.study.spec import Study, canonical_json

PATIENCE = 20.0
OTHERS = 5.0
"""Seconds to wait for another command in the same folder."""
OVER = ("changes_asked", "release_review", "released", "archived", "declined", "replaced", "withdrawn")


class Alliance:
    """With a member's folder, made by `dure study enrol` or `dure site enrol`. Use it in a `with` statement.

    A hospital's own service holds the line of a hospital's folder; the others have folders of their own. Where the
    hub's office keeps accounts for a member, its people sign in first; every call then carries their session.
    """

    def __init__(self, folder: Path) -> None:
        self._line = Line(folder, _nothing)

    def __enter__(self) -> Alliance:
        with ExitStack() as stack:
            stack.enter_context(only_one(self._line.folder, OTHERS))  # two lines of one member throw each other off
            stack.callback(self._line.close)
            self._line.open()
            self._line.wait(PATIENCE)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def sign_in(self, name: str, password: str) -> str:
        """Open a session at the hub, kept for this user of the machine (`dure.guard.acting`); the person's role.

        Raises SignInRefused or TooManyAttempts.
        """
        told = unpack(self._line.call("sign_in", pack({"name": name, "password": password}), PATIENCE))
        keep_session(self._line.folder, told["session"])
        return str(told["role"])

    def sign_out(self) -> None:
        """End the session, at the hub first."""
        self._call("sign_out", b"")
        forget_session(self._line.folder)

    def change_password(self, password: str, new: str) -> None:
        """A new password for who is signed in; all their sessions end. Raises SignInRefused, WeakPassword."""
        self._ask("password", password=password, new=new)
        forget_session(self._line.folder)

    def submit(self, study: Study) -> str:
        """The study's hash; submitting it twice changes nothing. Raises what is wrong with it before any review."""
        topic = "ask_open" if study.open is not None else "revise" if study.replaces else "submit"
        return self._call(topic, canonical_json(study).encode()).decode()

    def studies(self) -> list[dict[str, Any]]:
        """The status of every study of the alliance; a company's, of its own."""
        found: list[dict[str, Any]] = unpack(self._call("studies", b""))
        return found

    def status(self, study: str) -> dict[str, Any]:
        """State, hospitals and their answers, steps, and what it waits for; `study`: a hash or how it begins."""
        found: dict[str, Any] = self._ask("status", study=study)
        return found

    def follow(self, study: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """Every event since `after` as it happens, until the study is over. A lost line is waited for."""
        while True:
            try:
                events = self._ask("events", study=study, after=after)
                over = not events and self.status(study)["state"] in OVER
            except HubUnreachable:
                self._line.wait(3600)
                continue
            for event in events:
                after = event["number"]
                yield event
            if over:
                return

    def document(self, study: str) -> tuple[Study, str]:
        """A study as it was submitted, and who proposed it."""
        found = self._ask("document", study=study)
        return Study.model_validate_json(found["document"]), str(found["proposer"])

    def proceed(self, study: str) -> None:
        """Go on without the hospitals that ask for changes."""
        self._ask("proceed", study=study)

    def ask_release(self, study: str, context: dict[str, str]) -> None:
        """Ask for release of a finished study, with what a reader has to know (`dure.hub.releases.CONTEXT`)."""
        self._ask("release_ask", study=study, context=context)

    def decide_shared(self, study: str, envelope: dict[str, Any]) -> None:
        """Hand in the signed decision of a board that hospitals share."""
        self._ask("decide_shared", study=study, envelope=envelope)

    def cancel(self, study: str) -> None:
        """Withdraw a study that one submitted; what is being computed is stopped."""
        self._ask("cancel", study=study)

    def fetch(self, study: str) -> dict[str, Any]:
        """What the board released: steps with their folds (`Result` or error), and every array that left a hospital."""
        return read_fetched(self._ask("fetch", study=study))

    def _ask(self, topic: str, **asked: Any) -> Any:
        reply = self._call(topic, pack(asked))
        return unpack(reply) if reply else None

    def _call(self, topic: str, body: bytes) -> bytes:
        """Every call of a person goes through here, with the session that is open now."""
        return self._line.call(topic, on_behalf(session(self._line.folder), body), PATIENCE)


def read_fetched(found: dict[str, Any]) -> dict[str, Any]:
    """What the hub released, with each fold's `Result` read."""
    for step in found["steps"].values():
        for fold in step["folds"]:
            fold["result"] = unpack_result(fold["result"]) if fold["result"] else None
    return found


def write(fetched: dict[str, Any], folder: Path, formats: Collection[Format] = FORMATS) -> list[Path]:
    """The released results as files (`dure.client.export.write`); the files' paths."""
    study = Study.model_validate_json(fetched["document"])
    answers = [
        _answered(study, fetched, name, fold) for name, step in fetched["steps"].items() for fold in step["folds"]
    ]
    more = {"study": fetched["study"], "title": study.title.model_dump(), "left": fetched["left"]}
    more |= {"release": fetched["release"]} if "release" in fetched else {}
    labels = {name: variable.label.words() for name, variable in study.variables.items()}
    return export.write(answers, folder, formats, more, study.title.words(), labels)


def _answered(study: Study, fetched: dict[str, Any], name: str, fold: dict[str, Any]) -> export.Answered:
    step, told, methods = study.step(name), fetched["steps"][name], installed_methods()
    known = methods.get(step.method)  # the hub may have a method that is not installed here
    result: Result | None = fold["result"]
    error = Words(fold["error"]["en"], fold["error"]["ko"]) if fold["error"] else None
    parameters = read_parameters(known, step.parameters).model_dump(mode="json") if known else dict(step.parameters)
    return export.Answered(
        name=name,
        method=step.method,
        title=known.title if known else Words(step.method, step.method),
        parameters=parameters,
        hospitals=tuple(told["hospitals"]),
        rounds=fold["rounds"],
        result=result,
        error=error,
        fold=fold["fold"],
        hashes=export.hashes(parameters, result, study=fetched["study"], method=told["source"]),
        versions=fetched["versions"],
        rounded_to=DEFAULT.round_to,
    )


def _nothing(peer: str, topic: str, body: bytes) -> bytes:
    """A researcher is asked nothing."""
    raise FORM
