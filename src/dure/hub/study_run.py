"""One study's run at the hub: a thread from its permits to its end, which waits, names who is missing, and goes on."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

from dure.errors import DureError
from dure.federation.calls import Calls
from dure.federation.flare_engine import Abandoned, FlareEngine
from dure.federation.messages import error_data
from dure.guard.journal import Journal
from dure.hub import desk, studies
from dure.hub.runs import run_study
from dure.hub.store import Store
from dure.study.method import Methods
from dure.study.spec import seconds

AGAIN = 20.0
"""Seconds after which a waiting run looks again, even if nobody came back."""


class Office(Protocol):
    """What a run needs of its hub. `patience`: seconds of silence after which a hospital does not answer."""

    store: Store
    calls: Calls
    methods: Methods
    journal: Journal
    patience: float

    def identities(self) -> dict[str, str]:
        """Member → its name on the wire."""
        ...

    def tell(self, hash_: str, event: str, **details: Any) -> None:
        """Something happened in a study: to its record, to the log, and to those who follow it."""
        ...


class StudyRun(threading.Thread):
    """One study's run: until it is finished, cancelled, or the hub stops. Waiting, it looks again when woken."""

    def __init__(self, service: Office, hash_: str) -> None:
        super().__init__(name=f"run {hash_[7:15]}", daemon=True)
        self._service, self._hash = service, hash_
        self.abandon, self.wake, self.over = threading.Event(), threading.Event(), False
        self._waits: list[dict[str, Any]] = []
        self._state = ""
        self._slow: set[tuple[str, str, int]] = set()
        self._told: set[tuple[Any, ...]] = set()
        self._at: tuple[str, int] = ("", 0)

    def look(self, now: bool = False) -> None:
        """Somebody came back, permitted or resumed; `now` even if the permits are as they were."""
        if now or self._permits() != self._state:
            self.wake.set()

    def run(self) -> None:
        service = self._service
        try:
            while not self.abandon.is_set():
                self.wake.clear()
                self._state = self._permits()
                try:
                    if self._round_of_runs():
                        return
                except DureError as error:  # a permit that ran out, for instance: it waits for a person
                    if self.abandon.is_set():
                        return
                    self._waiting([error_data(error) | {"en": error.text("en"), "ko": error.text("ko")}])
                self.wake.wait(AGAIN)
                self.abandon.wait(0.05)
        except Abandoned:
            service.journal.say("run given up", study=self._hash)
        except Exception as error:
            service.journal.say("run failed", level="error", study=self._hash, why=type(error).__name__)
            self.abandon.wait(AGAIN)  # the service starts it again
        finally:
            self.over = True

    def _round_of_runs(self) -> bool:
        """Run until it is finished (True) or waits."""
        service, within = self._service, studies.read(self._service.store, self._hash)[0].quorum.answer_within
        patience = max(service.patience, seconds(within)) if within else service.patience
        engine = FlareEngine(service.calls, service.identities(), patience, self._notice, self._silent, self.abandon)
        try:
            _, outcomes = run_study(service.store, self._hash, engine, service.methods, progress=self._progress)
        finally:
            engine.close()
        if studies.read(service.store, self._hash)[1] != "waiting":
            service.tell(self._hash, "finished", steps={name: outcome.status for name, outcome in outcomes.items()})
            return True
        self._waiting(desk.problems(outcomes))
        return False

    def _waiting(self, problems: list[dict[str, Any]]) -> None:
        if problems != self._waits:
            self._waits = problems
            self._service.tell(self._hash, "waiting", problems=problems)

    def _progress(self, event: str, details: Mapping[str, Any]) -> None:
        if self.abandon.is_set():
            raise Abandoned
        said = dict(details)
        if event == "dropped":
            error: DureError = said.pop("error")
            event, said = "left out", {**said, "error": error.code(), "en": error.text("en"), "ko": error.text("ko")}
        if event in ("round", "step"):
            self._at = (said["step"], said.get("round", 0))
        if event == "round" and self._waits:
            self._waits = []
            self._service.tell(self._hash, "going on")
        key = (event, said.get("step"), said.get("status"), said.get("hospital"))
        if event != "round" and (key in self._told or said.get("status") == "waiting"):
            return  # a run that looks again begins at its first step; what waits is told with its reason
        self._told.add(key)
        self._service.tell(self._hash, event, **said)

    def _notice(self, hospital: str) -> None:
        """A hospital says that it is still working: told once for every round."""
        key = (hospital, *self._at)
        if key not in self._slow:
            self._slow.add(key)
            self._service.tell(self._hash, "slow", hospital=hospital, step=self._at[0], round=self._at[1] + 1)

    def _silent(self, hospital: str) -> None:
        """A hospital that was asked has no line to the hub: told once for every round."""
        key = ("silent", hospital, *self._at)
        if key in self._told:
            return
        self._told.add(key)
        self._service.tell(self._hash, "silent", hospital=hospital, step=self._at[0], round=self._at[1] + 1)

    def _permits(self) -> str:
        return str(sorted((name, str(found)) for name, found in self._service.store.permits(self._hash).items()))
