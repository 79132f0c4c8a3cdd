"""What the hub carries to hospitals: again until it is there, or until a hospital has said no to it."""

from __future__ import annotations

from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dure.cli.research import event_words
from dure.errors import DecisionRefused, DureError, FileMissing, LifecycleError
from dure.federation.frames import BUSY, Unreachable
from dure.guard.keys import create_signer
from dure.hub.courier import Courier
from dure.hub.store import Store
from dure.language import Words
from dure.study.board import Decision, sign_decision
from dure.study.permit import key_document

STUDY = "sha256:" + "0" * 64


class Hub:
    """A hub with one hospital, which answers with `error` while there is one."""

    def __init__(self, folder: Path) -> None:
        self.store, self.journal = Store(folder / "hub.db"), self
        self.error: Exception | None = None
        self.asked: list[str] = []
        board = create_signer(folder / "board.pem")
        self.store.add_hospital("Hungary", key_document(create_signer(folder / "key.pem").public_key))
        self.store.put_study(STUDY, "{}", "running")
        self.store.put_delivered(STUDY, "Hungary")
        no = Decision(
            study=STUDY, board="drb", verdict="decline", name="Joint", hospitals=("Hungary",), by="x", said="No.",
            at=datetime.now(UTC),
        )  # fmt: skip
        self.store.put_board_decision(STUDY, "Joint", sign_decision(no, board))
        self.courier = Courier(self, self)  # type: ignore[arg-type]

    def submit(self, does: Any, *given: Any) -> Future[None]:
        does(*given)
        return Future()

    def say(self, event: str, **details: Any) -> None: ...

    def identities(self) -> dict[str, str]:
        return {"Hungary": "hospital-1"}

    def ask_site(self, identity: str, topic: str, body: bytes) -> bytes:
        self.asked.append(topic)
        if self.error is not None:
            raise self.error
        return b""

    def tell(self, hash_: str, event: str, **details: Any) -> None:
        self.store.put_event(hash_, event, details)

    def look(self) -> list[str]:
        """What the study's record says after one look."""
        self.courier.look(STUDY, "{}", {"Hungary": True})
        return [event["event"] for event in self.store.events(STUDY)]


@pytest.mark.parametrize(
    "error",
    [DureError(kind="OSError"), FileMissing(path="key.pem"), BUSY, Unreachable("hospital-1", "no line")],
    ids=["full disk", "file missing", "busy", "no line"],
)
def test_a_decision_that_a_hospital_could_not_take_is_carried_again(tmp_path: Path, error: Exception) -> None:
    """A shared board's no to a running study is not lost in the second in which a hospital's disk is full."""
    hub = Hub(tmp_path)
    hub.error = error
    assert hub.look() == []
    hub.error = None
    assert hub.look() == ["decision delivered"]
    assert hub.look() == ["decision delivered"]
    assert hub.asked == ["decision"] * 2


@pytest.mark.parametrize(
    "error",
    [
        DecisionRefused(problem=Words("Its signature is not the board's", "위원회의 서명이 아닙니다")),
        LifecycleError(action="decline", state="replaced", role="hospital", open="–"),
    ],
    ids=["refused", "replaced"],
)
def test_a_decision_that_a_hospital_refuses_is_in_the_studys_record(tmp_path: Path, error: DureError) -> None:
    hub = Hub(tmp_path)
    hub.error = error
    assert hub.look() == ["decision refused"]
    assert hub.look() == ["decision refused"]
    assert hub.asked == ["decision"]
    words = event_words(hub.store.events(STUDY)[0])
    assert (error.text("en") in words.en, error.text("ko") in words.ko) == (True, True)
