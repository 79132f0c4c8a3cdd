"""A hospital's review: two gates, own or shared, and a permit of what both allowed; a new version starts again."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from securesystemslib.signer import CryptoSigner

from dure.errors import BoardsDecide, DecisionRefused, LifecycleError, NotPermitted, PermitError
from dure.federation.messages import Answer, Ask
from dure.guard import durable
from dure.guard.permissions import Actor, owner
from dure.language import Words
from dure.site import inbox, reviews
from dure.site.runner import Runner
from dure.site.settings import Site
from dure.study.board import Decision, sign_decision
from dure.study.permit import read_permit

IRB = Actor("ethics", "irb", "Cleveland")
DRB = Actor("data", "drb", "Cleveland")
STEWARD = Actor("steward", "steward", "Cleveland")


@pytest.fixture
def site(stage: Any, tmp_path: Path) -> Site:
    found: Site = stage.sites(tmp_path, "Cleveland")["Cleveland"]
    inbox.receive(found, stage.study("attrition"), "Researcher")
    return found


@pytest.fixture
def hash_(stage: Any) -> str:
    return str(stage.study("attrition").hash)


def permitted(site: Site, hash_: str) -> Any:
    envelope = inbox.own_permit(site, hash_)
    assert envelope is not None
    return read_permit(envelope)


def test_one_boards_approval_signs_nothing_and_two_sign_what_both_allowed(stage: Any, site: Site, hash_: str) -> None:
    both, one = ("per_hospital", "difference"), ("per_hospital",)
    assert reviews.decide(site, hash_, IRB, "irb", "approve", stage.methods, grants=both, days=30, releases=2) is None
    assert inbox.own_permit(site, hash_) is None
    assert reviews.open_gates(site, hash_) == ["drb"]
    answer = reviews.decide(site, hash_, DRB, "drb", "approve", stage.methods, grants=one, days=90)
    assert answer is not None
    assert answer.kind == "permitted"
    permit = permitted(site, hash_)
    assert permit.grants() == {"per_hospital"}
    assert (permit.releases, set(permit.boards)) == (1, {"irb", "drb"})
    assert timedelta(days=29) < permit.expires - datetime.now(UTC) < timedelta(days=31)


def days_ago(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """The hospital's clock, so many days back."""

    class Then(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - timedelta(days=days)

    monkeypatch.setattr(reviews, "datetime", Then)
    monkeypatch.setattr(inbox, "datetime", Then)


def test_an_approval_counts_from_the_day_it_was_given_and_is_asked_for_again_afterwards(
    stage: Any, site: Site, hash_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    days_ago(monkeypatch, 100)
    reviews.decide(site, hash_, IRB, "irb", "approve", stage.methods, days=30)
    days_ago(monkeypatch, 80)
    reviews.decide(site, hash_, DRB, "drb", "approve", stage.methods)
    assert permitted(site, hash_).expires == reviews.gates(site, hash_)["irb"].at + timedelta(days=30)  # type: ignore[union-attr]
    days_ago(monkeypatch, 0)
    assert reviews.open_gates(site, hash_) == ["irb"]
    reviews.decide(site, hash_, DRB, "drb", "approve", stage.methods)  # one board alone extends nothing
    assert permitted(site, hash_).expires < datetime.now(UTC)
    assert reviews.open_gates(site, hash_) == ["irb"]
    assert reviews.unsettled(site) == []
    reviews.decide(site, hash_, IRB, "irb", "approve", stage.methods, days=10)
    assert timedelta(days=9) < permitted(site, hash_).expires - datetime.now(UTC) < timedelta(days=10)


def test_a_board_decides_for_itself_alone(stage: Any, site: Site, hash_: str) -> None:
    for actor, board in ((IRB, "drb"), (DRB, "irb"), (STEWARD, "irb"), (STEWARD, "drb")):
        with pytest.raises(NotPermitted):
            reviews.decide(site, hash_, actor, board, "approve", stage.methods)  # type: ignore[arg-type]
    assert reviews.open_gates(site, hash_) == ["irb", "drb"]


@pytest.mark.parametrize(("verdict", "kind"), [("ask", "changes_asked"), ("decline", "declined")])
def test_a_board_that_does_not_approve_gives_its_reasons(
    stage: Any, site: Site, hash_: str, verdict: Any, kind: str
) -> None:
    with pytest.raises(DecisionRefused, match="no reason"):
        reviews.decide(site, hash_, IRB, "irb", verdict, stage.methods)
    answer = reviews.decide(site, hash_, IRB, "irb", verdict, stage.methods, said="Say how long data are kept.")
    assert answer is not None
    assert (answer.kind, answer.said, answer.envelope) == (kind, "Say how long data are kept.", None)


def test_a_board_may_change_its_mind_before_and_after_the_permit(stage: Any, site: Site, hash_: str) -> None:
    reviews.decide(site, hash_, IRB, "irb", "ask", stage.methods, said="Why cholesterol?")
    reviews.decide(site, hash_, IRB, "irb", "approve", stage.methods)
    answer = reviews.decide(site, hash_, DRB, "drb", "approve", stage.methods)
    assert answer is not None
    assert answer.kind == "permitted"
    answer = reviews.decide(site, hash_, DRB, "drb", "decline", stage.methods, said="A complaint came in.")
    assert answer is not None
    assert answer.kind == "withdrawn"
    reply = Answer.from_bytes(
        Runner(site, stage.methods).answer(Ask("run", hash_, "attrition", 0, ("Cleveland",)).to_bytes())
    )
    assert reply.error["code"] == "permit-error"


def test_withdrawal_is_a_signed_permit_of_nothing_but_the_rest(stage: Any, site: Site, hash_: str) -> None:
    with pytest.raises(LifecycleError):
        reviews.withdraw(site, hash_, STEWARD)  # nothing was permitted
    inbox.permit(site, hash_, stage.methods, ("per_hospital", "difference"))
    reviews.withdraw(site, hash_, STEWARD, "The board asked for it.", difference=True)
    answer = inbox.answer_of(site, hash_)
    assert answer is not None
    assert answer.envelope is not None
    rest = read_permit(answer.envelope)
    assert (answer.kind, rest.steps, rest.methods, rest.releases) == ("withdrawn", {}, {}, 0)
    assert rest.grants() == {"difference"}


def test_a_new_version_voids_every_approval_and_says_what_changed(stage: Any, site: Site, hash_: str) -> None:
    inbox.permit(site, hash_, stage.methods)
    new = stage.study("attrition", "model").model_copy(update={"replaces": hash_})
    inbox.receive(site, new, "Researcher")
    assert inbox.own_permit(site, hash_) is None
    assert inbox.replaced_by(site, hash_) == new.hash
    with pytest.raises(LifecycleError, match="replaced"):
        reviews.decide(site, hash_, IRB, "irb", "approve", stage.methods)
    with pytest.raises(LifecycleError, match="replaced"):
        inbox.permit(site, hash_, stage.methods)
    assert {study.hash: kind for study, kind, _ in inbox.decisions(site)} == {hash_: "replaced", new.hash: "waiting"}
    assert reviews.open_gates(site, new.hash) == ["irb", "drb"]


def test_after_a_withdrawal_both_boards_decide_anew(stage: Any, site: Site, hash_: str) -> None:
    for actor, board in ((IRB, "irb"), (DRB, "drb")):
        reviews.decide(site, hash_, actor, board, "approve", stage.methods)  # type: ignore[arg-type]
    reviews.withdraw(site, hash_, STEWARD, "A patient group objected.")
    assert reviews.unsettled(site) == []
    answer = reviews.decide(site, hash_, IRB, "irb", "approve", stage.methods)
    assert answer is not None
    assert answer.kind == "withdrawn"
    assert inbox.own_permit(site, hash_) is None
    answer = reviews.decide(site, hash_, DRB, "drb", "approve", stage.methods)
    assert answer is not None
    assert answer.kind == "permitted"


@contextmanager
def killed(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, file: str | None = None) -> Iterator[None]:
    """A process that ends where it comes to call `name` (of this file)."""
    true = getattr(owner, name)

    def die(first: Any, *more: Any, **named: Any) -> Any:
        if file is None or first.name == file:
            raise KeyboardInterrupt
        return true(first, *more, **named)

    with monkeypatch.context() as patched, contextlib.suppress(KeyboardInterrupt):
        patched.setattr(owner, name, die)
        yield


@pytest.mark.parametrize("last", ["left.json", "answer.json", "permit.json", "nothing"])
def test_a_clock_that_was_set_back_brings_no_permit_back(
    stage: Any, site: Site, hash_: str, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """The hospital leaves once its clock is right again, and dies at one of its files or at none."""
    days_ago(monkeypatch, -1 / 24)
    for actor, board in ((IRB, "irb"), (DRB, "drb")):
        reviews.decide(site, hash_, actor, board, "approve", stage.methods)  # type: ignore[arg-type]
    days_ago(monkeypatch, 0)
    assert reviews.unsettled(site) == []
    with killed(monkeypatch, durable, "remove" if last == "permit.json" else "write_whole", last):
        reviews.withdraw(site, hash_, STEWARD)
    assert reviews.unsettled(site) == []
    reviews.settle(site, hash_, stage.methods)
    left = last in ("permit.json", "nothing")
    assert (inbox.own_permit(site, hash_) is None) == left
    assert inbox.answer_of(site, hash_).kind == ("withdrawn" if left else "permitted")  # type: ignore[union-attr]


@pytest.mark.parametrize("hours", [-1, 1])
def test_what_boards_decided_is_carried_out_once_whatever_the_clock_says(
    stage: Any, site: Site, hash_: str, monkeypatch: pytest.MonkeyPatch, hours: float
) -> None:
    """Each dies when its decision is on disk, and its clock is `hours` behind that of what was said before."""
    place, moment = {"irb": IRB, "drb": DRB}, 1.0
    steps: list[tuple[Any, Any, str]] = [
        ("irb", "ask", "changes_asked"),
        ("irb", "approve", "changes_asked"),
        ("drb", "approve", "permitted"),
        ("drb", "decline", "withdrawn"),
    ]
    for board, verdict, kind in steps:
        moment += hours / 24
        days_ago(monkeypatch, moment)
        with killed(monkeypatch, reviews, "_follow"):
            reviews.decide(site, hash_, place[board], board, verdict, stage.methods, said="Why?")
        for due in reviews.unsettled(site):
            reviews.settle(site, due, stage.methods)
        assert reviews.unsettled(site) == []
        assert inbox.answer_of(site, hash_).kind == kind  # type: ignore[union-attr]


def test_a_board_that_asks_for_changes_after_the_permit_takes_the_hospital_out(
    stage: Any, site: Site, hash_: str
) -> None:
    for actor, board in ((IRB, "irb"), (DRB, "drb")):
        reviews.decide(site, hash_, actor, board, "approve", stage.methods)  # type: ignore[arg-type]
    answer = reviews.decide(site, hash_, IRB, "irb", "ask", stage.methods, said="Something new came up.")
    assert answer is not None
    assert (answer.kind, answer.said) == ("withdrawn", "Something new came up.")


def test_a_steward_says_no_alone_only_where_there_are_no_boards(stage: Any, site: Site, hash_: str) -> None:
    with pytest.raises(BoardsDecide):
        reviews.decline(site, hash_, STEWARD)
    reviews.decline(site, hash_, owner("Cleveland"))
    answer = inbox.answer_of(site, hash_)
    assert answer is not None
    assert answer.kind == "declined"


# ── a board that several hospitals share ──


@pytest.fixture
def board() -> CryptoSigner:
    return CryptoSigner.generate_ed25519()


def sharing(site: Site, board: CryptoSigner) -> Site:
    path = site.folder / "site.yaml"
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    written |= {
        "boards": {"drb": "Joint board"},
        "board_keys": {"Joint board": board.public_key.keyval["public"]},
    }
    path.write_text(yaml.safe_dump(written), encoding="utf-8")
    return Site(site.folder)


def decision(hash_: str, **changes: Any) -> Decision:
    true: dict[str, Any] = {
        "study": hash_,
        "board": "drb",
        "verdict": "approve",
        "name": "Joint board",
        "hospitals": ("Cleveland", "Hungary"),
        "by": "Joint board",
        "at": datetime.now(UTC),
    }
    return Decision(**(true | changes))


def test_a_shared_boards_signature_opens_the_gate_of_hospitals_that_named_it(
    stage: Any, site: Site, hash_: str, board: CryptoSigner
) -> None:
    site = sharing(site, board)
    reviews.decide(site, hash_, IRB, "irb", "approve", stage.methods)
    with pytest.raises(DecisionRefused, match="shared board"):
        reviews.decide(site, hash_, DRB, "drb", "approve", stage.methods)
    answer = reviews.decide_shared(site, sign_decision(decision(hash_), board), stage.methods)
    assert answer is not None
    assert answer.kind == "permitted"
    assert permitted(site, hash_).boards["drb"].startswith("Joint board ")


@pytest.mark.parametrize(
    "changes",
    [{"hospitals": ("Hungary",)}, {"name": "Another board"}, {"board": "irb"}],
    ids=["not-for-us", "another-board", "another-gate"],
)
def test_a_shared_boards_decision_for_others_opens_nothing(
    stage: Any, site: Site, hash_: str, board: CryptoSigner, changes: dict[str, Any]
) -> None:
    site = sharing(site, board)
    with pytest.raises(DecisionRefused):
        reviews.decide_shared(site, sign_decision(decision(hash_, **changes), board), stage.methods)
    assert reviews.open_gates(site, hash_) == ["irb", "drb"]


def test_a_decision_signed_by_somebody_else_or_older_than_the_last_opens_nothing(
    stage: Any, site: Site, hash_: str, board: CryptoSigner
) -> None:
    site = sharing(site, board)
    forged = sign_decision(decision(hash_), CryptoSigner.generate_ed25519())
    with pytest.raises(DecisionRefused, match="signature"):
        reviews.decide_shared(site, forged, stage.methods)
    old = sign_decision(decision(hash_, at=datetime.now(UTC) - timedelta(days=1)), board)
    no = sign_decision(decision(hash_, verdict="decline", said="No."), board)
    reviews.decide_shared(site, no, stage.methods)
    reviews.decide_shared(site, old, stage.methods)  # a recording of an earlier yes
    answer = inbox.answer_of(site, hash_)
    assert answer is not None
    assert answer.kind == "declined"


@pytest.mark.parametrize("left", ["the board declines", "the hospital withdraws"])
def test_an_old_approval_that_is_shown_again_opens_nothing(
    stage: Any, site: Site, hash_: str, board: CryptoSigner, left: str
) -> None:
    """What opened the gate once, and one that was kept back until the hospital had left."""
    site = sharing(site, board)
    reviews.decide(site, hash_, IRB, "irb", "approve", stage.methods)
    yes, kept = (sign_decision(decision(hash_), board) for _ in range(2))
    assert reviews.decide_shared(site, yes, stage.methods).kind == "permitted"  # type: ignore[union-attr]
    if left == "the board declines":
        no = sign_decision(decision(hash_, verdict="decline", said="A complaint."), board)
        reviews.decide_shared(site, no, stage.methods)
    else:
        reviews.withdraw(site, hash_, STEWARD, "A patient group objected.")
    assert inbox.own_permit(site, hash_) is None
    reviews.decide(site, hash_, IRB, "irb", "approve", stage.methods)
    reviews.decide_shared(site, yes, stage.methods)
    if left == "the hospital withdraws":
        with pytest.raises(DecisionRefused, match="before this hospital left"):
            reviews.decide_shared(site, kept, stage.methods)
    else:
        reviews.decide_shared(site, kept, stage.methods)
    assert inbox.own_permit(site, hash_) is None
    assert reviews.open_gates(site, hash_) == ["drb"]
    anew = sign_decision(decision(hash_), board)
    assert reviews.decide_shared(site, anew, stage.methods).kind == "permitted"  # type: ignore[union-attr]


def test_an_approval_that_was_kept_back_opens_nothing_whatever_the_hospital_said_since(
    stage: Any, site: Site, hash_: str, board: CryptoSigner
) -> None:
    site = sharing(site, board)
    reviews.decide(site, hash_, IRB, "irb", "approve", stage.methods)
    reviews.decide_shared(site, sign_decision(decision(hash_), board), stage.methods)
    kept = sign_decision(decision(hash_), board)
    reviews.withdraw(site, hash_, STEWARD, "A patient group objected.")
    reviews.decide(site, hash_, IRB, "irb", "ask", stage.methods, said="What has changed?")
    reviews.decide(site, hash_, IRB, "irb", "approve", stage.methods)
    with pytest.raises(DecisionRefused, match="before this hospital left"):
        reviews.decide_shared(site, kept, stage.methods)
    assert inbox.own_permit(site, hash_) is None


def test_a_shared_boards_approval_counts_from_the_day_it_was_signed(
    stage: Any, site: Site, hash_: str, board: CryptoSigner
) -> None:
    """However long a hub keeps it back."""
    site = sharing(site, board)
    reviews.decide(site, hash_, IRB, "irb", "approve", stage.methods)
    over, days = (decision(hash_, at=datetime.now(UTC) - timedelta(days=d), days=30) for d in (300, 10))
    with pytest.raises(DecisionRefused, match="days for which it approved ended"):
        reviews.decide_shared(site, sign_decision(over, board), stage.methods)
    assert reviews.open_gates(site, hash_) == ["drb"]
    reviews.decide_shared(site, sign_decision(days, board), stage.methods)
    assert permitted(site, hash_).expires == days.at + timedelta(days=30)


def test_a_no_counts_though_the_boards_clock_was_fast_when_it_approved(
    stage: Any, site: Site, hash_: str, board: CryptoSigner
) -> None:
    site, now = sharing(site, board), datetime.now(UTC)
    reviews.decide(site, hash_, IRB, "irb", "approve", stage.methods)
    yes = sign_decision(decision(hash_, at=now + timedelta(minutes=9)), board)
    reviews.decide_shared(site, yes, stage.methods)
    no = sign_decision(decision(hash_, verdict="decline", said="A complaint.", at=now), board)
    for _ in range(2):  # the second changes nothing
        answer = reviews.decide_shared(site, no, stage.methods)
        assert answer is not None
        assert (answer.kind, answer.said) == ("withdrawn", "A complaint.")
    reviews.decide_shared(site, yes, stage.methods)
    assert reviews.gates(site, hash_)["drb"].verdict == "decline"  # type: ignore[union-attr]
    events = [(entry["event"], entry.get("why")) for entry in site.audit.entries()][-3:]
    assert events[0][0] == "board decided: decline"
    assert events[1:] == [("withdrawn", None), ("board's decision dropped: approve", "older than its last")]


def test_a_no_counts_too_where_the_hospital_has_come_back_meanwhile(
    stage: Any, site: Site, hash_: str, board: CryptoSigner
) -> None:
    site = sharing(site, board)
    inbox.permit(site, hash_, stage.methods)
    reviews.withdraw(site, hash_, STEWARD)
    no = decision(hash_, verdict="decline", said="A complaint.", at=datetime.now(UTC) - timedelta(minutes=5))
    with pytest.raises(DecisionRefused, match="before this hospital left"):  # it has left, and no more follows
        reviews.decide_shared(site, sign_decision(no, board), stage.methods)
    yes = decision(hash_, at=datetime.now(UTC) + timedelta(minutes=1))
    reviews.decide_shared(site, sign_decision(yes, board), stage.methods)
    reviews.decide_shared(site, sign_decision(no, board), stage.methods)
    reviews.decide(site, hash_, IRB, "irb", "approve", stage.methods)
    assert inbox.own_permit(site, hash_) is None


def test_every_decision_that_is_dropped_is_in_the_log(stage: Any, site: Site, hash_: str, board: CryptoSigner) -> None:
    site, now = sharing(site, board), datetime.now(UTC)
    inbox.permit(site, hash_, stage.methods)
    reviews.withdraw(site, hash_, STEWARD)
    for days, said in ((1, "days"), (30, "left")):
        yes = sign_decision(decision(hash_, at=now - timedelta(days=2), days=days), board)
        with pytest.raises(DecisionRefused, match=said):
            reviews.decide_shared(site, yes, stage.methods)
    reviews.decide_shared(site, sign_decision(decision(hash_), board), stage.methods)
    old = decision(hash_, verdict="ask", said="Why?", at=now - timedelta(minutes=11))
    reviews.decide_shared(site, sign_decision(old, board), stage.methods)
    found = [entry["why"] for entry in site.audit.entries() if entry["event"].startswith("board's decision dropped")]
    assert found == ["its days are over", "before this hospital left", "older than its last"]


# ── one changed byte ──


def test_one_changed_byte_of_permit_or_study_and_the_runner_refuses(stage: Any, site: Site, hash_: str) -> None:
    inbox.permit(site, hash_, stage.methods, ("per_hospital",))
    site.database.unlink()  # whoever reads a row fails with another error
    folder = site.folder / "inbox" / hash_.removeprefix("sha256:")
    question = Ask("run", hash_, "attrition", 0, ("Cleveland",)).to_bytes()
    runner = Runner(site, stage.methods)
    assert Answer.from_bytes(runner.answer(question)).error["code"] == "file-missing"
    for name in ("permit.json", "study.json"):
        path = folder / name
        true = path.read_bytes()
        meaning = json.loads(true)
        tried = 0
        for place in range(0, len(true), max(1, len(true) // 400)):
            changed = true[:place] + bytes([true[place] ^ 0x01]) + true[place + 1 :]
            try:
                if json.loads(changed) == meaning:
                    continue  # the same document, written in another way
            except ValueError:
                pass
            tried += 1
            path.write_bytes(changed)
            code = Answer.from_bytes(runner.answer(question)).error["code"]
            assert code != "file-missing", (name, place, changed[max(0, place - 20) : place + 20])
        path.write_bytes(true)
        assert tried > 100
    assert Answer.from_bytes(runner.answer(question)).error["code"] == "file-missing"


def test_whoever_holds_a_folder_without_accounts_decides_for_both_boards(stage: Any, site: Site, hash_: str) -> None:
    reviews.decide(site, hash_, owner("Cleveland"), "irb", "approve", stage.methods)
    answer = reviews.decide(site, hash_, owner("Cleveland"), "drb", "approve", stage.methods)
    assert answer is not None
    assert answer.kind == "permitted"


def test_a_permit_of_another_hospitals_key_is_not_this_ones(stage: Any, site: Site, hash_: str, tmp_path: Path) -> None:
    other: Site = stage.sites(tmp_path / "other", "Hungary")["Hungary"]
    inbox.receive(other, stage.study("attrition"))
    envelope = inbox.permit(other, hash_, stage.methods)
    from dure.study.permit import verify

    with pytest.raises(PermitError):
        verify(envelope, site.signer().public_key, "Hungary")


@pytest.mark.parametrize(("language", "reason"), [("en", "has no permit"), ("ko", "허가가 없습니다")])
def test_what_the_hub_did_not_take_is_told_in_the_readers_language(
    site: Site, hash_: str, language: str, reason: str
) -> None:
    inbox.sent(site, hash_, "digest", Words("The study has no permit", "이 연구에는 허가가 없습니다"))
    said = {**os.environ, "DURE_LANGUAGE": language, "COLUMNS": "200"}
    for command in (("review", "list"), ("site", "status")):
        asked = [sys.executable, "-m", "dure.cli", *command, str(site.folder)]
        shown = subprocess.run(asked, env=said, capture_output=True, text=True, check=True)
        assert reason in shown.stdout
