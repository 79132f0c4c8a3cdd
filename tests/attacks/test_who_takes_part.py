"""Hospitals that come and go must not be what two opened sums differ by; nobody speaks for another."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from dure.client.simulate import run_frames
from dure.errors import RunWaits, SiteFailed, SitePaused, TokenRefused
from dure.federation.engine import Engine, Failure
from dure.federation.ledger import InMemoryLedger
from dure.federation.messages import Answer, error_data
from dure.federation.plain_sum import PlainSum
from dure.federation.rounds import Run
from dure.guard import certificates
from dure.guard.keys import create_signer
from dure.hub.authority import Authority, create_hub
from dure.hub.store import Store
from dure.study.permit import key_document
from dure.study.spec import Quorum, Step

NAMES = tuple("ABCDEFG")
ONE = Step(name="one", method="regression", parameters={"formula": "y ~ x", "family": "binomial"})
TWO = Step(name="two", method="regression", parameters={"formula": "y ~ z", "family": "binomial"})


class Cut:
    """An engine that loses the hospitals named, for the steps named."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.away = engine, set[str]()

    def ask(self, messages: Mapping[str, bytes], timeout: float) -> Mapping[str, bytes | Failure]:
        here = {name: message for name, message in messages.items() if name not in self.away}
        return {**self.engine.ask(here, timeout), **{name: Failure("away") for name in messages if name in self.away}}


def again(run: Run, engine: Engine, hospitals: tuple[str, ...], quorum: Quorum | None = None) -> Run:
    """The same run and ledger, resumed with these hospitals, of whom none has granted `difference`."""
    return Run(
        run.name,
        run.plan,
        hospitals,
        {name: frozenset() for name in hospitals},
        run.limits,
        engine,
        PlainSum(),
        run.ledger,
        quorum=quorum,
        joined=len(NAMES),
    )


@pytest.fixture
def started() -> tuple[Run, Cut]:
    """A run of two steps at seven hospitals that has not been asked anything yet."""
    random = np.random.default_rng(3)
    frames = {}
    for name in NAMES:
        x, z = random.normal(size=60), random.normal(size=60)
        frames[name] = pl.DataFrame({"x": x, "z": z, "y": (random.random(60) < 1 / (1 + np.exp(-x))).astype(float)})
    _, run = run_frames(frames, (ONE, TWO))
    run.ledger = InMemoryLedger()
    return run, Cut(run.engine)


def test_a_set_of_hospitals_is_remembered_for_the_whole_run(started: tuple[Run, Cut]) -> None:
    """ABCDEFG, then ABC, then ABCDEF: each differs from the one before by three or more, the first and last by G."""
    run, engine = started
    first = again(run, engine, NAMES)
    first.steps()
    assert first.outcomes["one"].status == "finished"
    for hospitals, status in ((NAMES[:3], "finished"), (NAMES[:6], "waiting")):
        run.ledger.entries.pop(("two", None))  # type: ignore[attr-defined]
        later = again(run, engine, hospitals)
        later.steps()
        assert later.outcomes["two"].status == status, hospitals
    error = later.outcomes["two"].folds[None].error
    assert isinstance(error, RunWaits)
    assert error.hospitals == ["G"]


def test_a_hospital_that_is_silent_after_a_later_step_was_opened_is_not_left_out(started: tuple[Run, Cut]) -> None:
    """The first step waits for G, the second was opened with it; leaving G out of the first would show it."""
    run, engine = started
    quorum = Quorum(answer_within="1 hour")
    complete = again(run, engine, NAMES)
    complete.steps()
    run.ledger.entries.pop(("one", None))  # type: ignore[attr-defined]
    engine.away = {"G"}
    resumed = again(run, engine, NAMES, quorum)
    resumed.steps()
    assert resumed.outcomes["one"].status == "waiting"
    assert resumed.dropped == {}
    assert resumed.outcomes["two"].hospitals == NAMES


def test_before_anything_was_opened_a_silent_hospital_is_left_out_and_named(started: tuple[Run, Cut]) -> None:
    run, engine = started
    engine.away = {"G"}
    resumed = again(run, engine, NAMES, Quorum(answer_within="1 hour"))
    resumed.steps()
    assert set(resumed.dropped) == {"G"}
    assert resumed.outcomes["two"].hospitals == NAMES[:6]


def test_an_ask_that_is_abandoned_is_nobodys_silence() -> None:
    """A hub that stops must not write a hospital down as left out because it stopped asking it."""
    pytest.importorskip("nvflare", reason="the engine between hospitals needs the extra 'flare'")
    from dure.federation.flare_engine import Abandoned, FlareEngine
    from dure.federation.frames import Unreachable

    class Nobody:
        def known(self, peer: str) -> bool:
            return False

        def call(self, peer: str, topic: str, body: bytes, *rest: Any) -> bytes:
            while not rest[-1]():
                threading.Event().wait(0.01)
            raise Unreachable(peer, "not connected")

    for _ in range(10):
        abandon = threading.Event()
        engine = FlareEngine(Nobody(), {"A": "a"}, abandon=abandon)  # type: ignore[arg-type]
        threading.Timer(0.1, abandon.set).start()
        with pytest.raises(Abandoned):
            engine.ask({"A": b""}, 60.0)
        engine.close()


@pytest.mark.parametrize(
    "error", [RunWaits("one", ["Innocent"], "difference"), SitePaused(hospital="Innocent")], ids=["waits", "paused"]
)
def test_a_hospital_cannot_put_words_into_anothers_mouth(error: Any) -> None:
    class One:
        def ask(self, messages: Mapping[str, bytes], timeout: float) -> Mapping[str, bytes | Failure]:
            return {"Guilty": Answer("Guilty", "error", error=error_data(error)).to_bytes()}

    found = PlainSum().collect(One(), {"Guilty": b""}, (), "one", 0, None).errors["Guilty"]
    assert "Innocent" not in found.text("en")
    assert "Guilty" in found.text("en")


@pytest.mark.parametrize("fields", [{}, {"hospital": 3}, None, {"hospital": {"en": 1}}])
def test_an_error_that_cannot_be_read_is_the_answer_of_a_broken_hospital(fields: Any) -> None:
    class One:
        def ask(self, messages: Mapping[str, bytes], timeout: float) -> Mapping[str, bytes | Failure]:
            return {"A": Answer("A", "error", error={"code": "site-failed", "fields": fields}).to_bytes()}

    found = PlainSum().collect(One(), {"A": b""}, (), "one", 0, None).errors["A"]
    assert found.code() in ("answer-broken", SiteFailed.code())
    assert "A" in found.text("en")


# ── invitations ──


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    hub = create_hub(tmp_path / "hub", "Test", "127.0.0.1", 1, listen="127.0.0.1")
    return Authority(hub, Store(hub.place))


def enrolled(authority: Authority, text: str, folder: Path) -> tuple[str, bytes]:
    from dure.federation.invitation import Invitation

    invitation = Invitation.from_text(text)
    request = certificates.request(certificates.create_key(), invitation.member)
    return authority.enrol(invitation.identity, request, key_document(create_signer(folder / "key.pem").public_key))


def test_a_lost_invitation_takes_over_nobody(authority: Authority, tmp_path: Path) -> None:
    lost = authority.invite("A")
    found = authority.invite("A")
    enrolled(authority, found, tmp_path / "a")
    key = authority.store.hospitals()["A"]
    with pytest.raises(TokenRefused):
        enrolled(authority, lost, tmp_path / "thief")
    assert authority.store.hospitals()["A"] == key


def test_an_invitation_from_before_a_revocation_brings_nobody_back(authority: Authority, tmp_path: Path) -> None:
    enrolled(authority, authority.invite("A"), tmp_path / "a")
    authority.store.add_invitation("invited-old", "A", "hospital", "2999-01-01T00:00:00+00:00")
    authority.revoke("A")
    request = certificates.request(certificates.create_key(), "x")
    key = key_document(create_signer(tmp_path / "b" / "key.pem").public_key)
    with pytest.raises(TokenRefused):
        authority.enrol("invited-old", request, key)
    assert authority.store.hospitals() == {}


def test_a_researchers_invitation_makes_no_hospital(authority: Authority, tmp_path: Path) -> None:
    enrolled(authority, authority.invite("A"), tmp_path / "a")
    authority.revoke("A")
    authority.store.add_invitation("invited-r", "A", "researcher", "2999-01-01T00:00:00+00:00")
    request = certificates.request(certificates.create_key(), "x")
    key = key_document(create_signer(tmp_path / "b" / "key.pem").public_key)
    with pytest.raises(TokenRefused):
        authority.enrol("invited-r", request, key)
    assert authority.store.hospitals() == {}
    assert authority.invite("A", valid=timedelta(minutes=1))
