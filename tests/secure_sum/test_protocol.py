"""The protocol between hub and hospitals: dropouts at every exchange, hospitals killed in between, keys on the way."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dure.errors import AnswerBroken, Refused, SiteFailed, SumRefused
from dure.federation.messages import Answer, error_data
from dure.federation.secure_sum import opening, sharing
from dure.federation.secure_sum.exchange import STAGES, Exchange, Part
from dure.federation.secure_sum.opening import SecureSum
from dure.guard.rules import refusal
from dure.study.packing import pack, unpack

MINIMUM = 3


def opens(count: int, stage: str, dropouts: int) -> bool:
    """The rule of docs/secure-sum.md, in words of its own."""
    if not dropouts:
        return True
    remain = count - dropouts
    if stage in ("keys", "shares"):
        return False
    if stage == "vector":
        return remain >= MINIMUM and remain > count / 2
    return remain > count / 2


def subsets(count: int) -> list[set[str]]:
    names = [f"h{place}" for place in range(count)]
    return [set(some) for size in range(count + 1) for some in itertools.combinations(names, size)]


@pytest.mark.parametrize("how", ["lost", "unheard"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("count", [3, 4, 5, pytest.param(6, marks=pytest.mark.slow)])
def test_every_set_of_dropouts_at_every_exchange(sums: ModuleType, count: int, stage: str, how: str) -> None:
    """It opens, bit for bit the sum of those whose numbers came, or it stops and names who is missing."""
    opened = 0
    for missing in subsets(count):
        town = sums.town(count)
        setattr(town, how, {stage: missing})
        found = town.collect(town.summing())
        present = set(town.hospitals) - (missing if stage == "vector" else set())
        assert (found.total is not None) == opens(count, stage, len(missing)), missing
        if found.total is None:
            named = {name for name, error in found.errors.items() if isinstance(error, SiteFailed)}
            assert named == missing or all(isinstance(error, SumRefused) for error in found.errors.values())
            continue
        opened += 1
        assert sums.same(found.total, sums.exact([town.hospitals[name].part for name in sorted(present)]))
        assert set(found.errors) == set(town.hospitals) - present
        assert {item.hospital for item in found.left} == present
    assert opened


@settings(max_examples=30)
@given(
    count=st.integers(4, 7),
    lost=st.fixed_dictionaries(
        {stage: st.sets(st.integers(0, 6), max_size=2) for stage in ("vector", "set", "reveal")}
    ),
)
def test_dropouts_of_several_exchanges_together(sums: ModuleType, count: int, lost: dict[str, set[int]]) -> None:
    town = sums.town(count)
    town.lost = {stage: {f"h{place}" for place in places if place < count} for stage, places in lost.items()}
    found = town.collect(town.summing())
    alive = set(town.hospitals) - town.lost["vector"]
    signing = alive - town.lost["set"]
    giving = signing - town.lost["reveal"]
    enough = len(alive) >= MINIMUM and all(len(some) > count / 2 for some in (alive, signing, giving))
    assert (found.total is not None) == enough
    if enough:
        assert sums.same(found.total, sums.exact([town.hospitals[name].part for name in sorted(alive)]))


def test_without_leave_a_sum_with_a_dropout_is_not_opened(sums: ModuleType) -> None:
    town = sums.town(4)
    town.lost = {"vector": {"h2"}}
    found = town.collect(town.summing(), without=lambda errors: False)
    assert found.total is None
    assert list(found.errors) == ["h2"]
    assert {item.hospital for item in found.left} == {"h0", "h1", "h3"}
    assert "set" not in town.stages


def test_a_hospital_that_refuses_is_left_out_of_the_sum_and_its_refusal_is_told(sums: ModuleType) -> None:
    town = sums.town(5)
    no = refusal("minimum_cohort")
    town.hospitals["h3"].error = Answer("h3", "error", error=error_data(no)).to_bytes()
    found = town.collect(town.summing())
    assert isinstance(found.errors["h3"], Refused)
    assert found.errors["h3"].rule == "minimum_cohort"
    assert sums.same(found.total, sums.exact([town.hospitals[f"h{place}"].part for place in (0, 1, 2, 4)]))


# ── three exchanges for a sum ──


def test_the_first_sum_takes_five_exchanges_and_each_later_one_three(sums: ModuleType) -> None:
    town = sums.town(4)
    summing = town.summing()
    for round_ in range(4):
        found = town.collect(summing, round_=round_)
        assert sums.same(found.total, sums.exact([hospital.part for hospital in town.hospitals.values()]))
        for place, hospital in enumerate(town.hospitals.values()):
            hospital.part = sums.numbers(100 * round_ + place)
    assert town.stages == [*STAGES, *(("vector", "set", "reveal") * 3)]


def test_after_a_dropout_keys_are_agreed_anew_with_those_who_remain(sums: ModuleType) -> None:
    town = sums.town(5)
    summing = town.summing()
    assert town.collect(summing).total is not None
    town.lost, town.stages = {"vector": {"h4"}}, []
    summing.permits = {"h4": town.hospitals["h4"].permit(difference=True)}
    assert town.collect(summing, round_=1).total is not None
    rest = ["h0", "h1", "h2", "h3"]
    assert sums.same(town.collect(summing, rest, 2).total, sums.exact([town.hospitals[name].part for name in rest]))
    assert town.stages == ["vector", "set", "reveal", *STAGES]


@pytest.mark.parametrize("stage", ["set", "reveal"])
def test_a_late_dropout_costs_the_next_sum_two_exchanges_and_nothing_else(sums: ModuleType, stage: str) -> None:
    town = sums.town(4)
    summing = town.summing()
    town.unheard = {stage: {"h1"}}
    for round_ in range(2):
        found = town.collect(summing, round_=round_)
        assert sums.same(found.total, sums.exact([hospital.part for hospital in town.hospitals.values()]))
        town.unheard = {}
    assert town.stages == [*STAGES, *STAGES]


def test_a_hospital_that_lost_its_record_gets_a_new_session(sums: ModuleType) -> None:
    town = sums.town(3)
    summing = town.summing()
    assert town.collect(summing).total is not None
    town.hospitals["h1"].again()  # its record was in memory: nothing is left of it
    town.stages = []
    assert sums.same(town.collect(summing, round_=1).total, sums.exact([h.part for h in town.hospitals.values()]))
    assert town.stages == ["vector", *STAGES]


def test_a_hub_that_was_killed_begins_a_new_session_for_the_same_round(sums: ModuleType) -> None:
    town = sums.town(3)
    for stage in STAGES:
        town.lost = {stage: set(town.hospitals)}
        assert town.collect(town.summing()).total is None
    town.lost = {}
    assert sums.same(town.collect(town.summing()).total, sums.exact([h.part for h in town.hospitals.values()]))


# ── hospitals that are killed and started again ──


@pytest.mark.parametrize("stage", STAGES)
def test_hospitals_killed_after_any_exchange_end_the_sum_as_if_nothing_had_happened(
    sums: ModuleType, tmp_path: Path, stage: str
) -> None:
    town = sums.town(3, tmp_path)
    summing = town.summing()

    def kill(done: str) -> None:
        if done == stage:
            for hospital in town.hospitals.values():
                hospital.again()

    town.after = kill
    for round_ in range(2):
        found = town.collect(summing, round_=round_)
        assert sums.same(found.total, sums.exact([hospital.part for hospital in town.hospitals.values()]))
    assert town.stages == [*STAGES, "vector", "set", "reveal"]


def test_a_hospital_started_again_repeats_the_same_bytes(sums: ModuleType, tmp_path: Path) -> None:
    """Every message of two sums, asked a second time of the hospital opened anew from its files."""
    town, compared = sums.town(3, tmp_path), []
    whole = town.ask

    class Twice:
        def ask(self, messages: Any, timeout: float) -> Any:
            first = whole(messages, timeout)
            for hospital in town.hospitals.values():
                hospital.again()
            second = whole(messages, timeout)
            assert first == second
            compared.append(len(first))
            return second

    summing, twice = town.summing(), Twice()
    for round_ in range(2):
        ask = sums.Ask("run", sums.STUDY, "step", round_, tuple(town.hospitals)).to_bytes()
        opened = summing.collect(twice, dict.fromkeys(town.hospitals, ask), sums.DECLARED, "step", round_, None)
        assert sums.same(opened.total, sums.exact([hospital.part for hospital in town.hospitals.values()]))
    assert compared == [3] * 8


def test_a_process_that_outlives_its_service_takes_nothing_back(sums: ModuleType, tmp_path: Path) -> None:
    """It computes while the service that replaced it goes on, and ends after the set is signed."""
    town, computing, go_on = sums.town(3, tmp_path), threading.Event(), threading.Event()
    old = replace(town.hospitals["h0"])  # the same folder and key, a record opened by itself
    late: list[threading.Thread] = []
    said: list[bytes] = []

    def slowly(exchange: Exchange) -> None:
        def compute() -> bytes:
            computing.set()
            go_on.wait(10)
            return bytes(Answer("h0", "summary", arrays=old.part).to_bytes())

        part = Part(old.declaration, b"", False, compute)
        said.append(old.member().answer(exchange, lambda ask: part))

    def change(name: str, exchange: Exchange) -> Exchange:
        if (name, exchange.stage) == ("h0", "vector"):
            late.append(threading.Thread(target=slowly, args=(exchange,)))
            late[0].start()
            assert computing.wait(10)
        return exchange

    def after(stage: str) -> None:
        if stage == "set":
            go_on.set()
            late[0].join()

    town.change, town.after = change, after
    found = town.collect(town.summing())
    assert sums.same(found.total, sums.exact([one.part for one in town.hospitals.values()]))
    assert found.errors == {}
    assert "stage" in unpack(town.replies["reveal", "h0"])  # no refusal: the set that was signed is still known
    assert said == [town.replies["vector", "h0"]]


def test_secrets_are_gone_when_a_session_is_over(sums: ModuleType, tmp_path: Path) -> None:
    town = sums.town(3, tmp_path)
    summing, secrets = town.summing(), set()

    def look(done: str) -> None:
        for hospital in town.hospitals.values():
            for (facts,) in hospital.record._connection.execute("SELECT facts FROM session"):
                if done != "reveal":
                    secrets.update(unpack(facts).get("secrets", {}).values())

    town.after = look
    for round_ in range(3):
        assert town.collect(summing, round_=round_).total is not None
    kept = set()
    for hospital in town.hospitals.values():
        rows = [unpack(facts) for (facts,) in hospital.record._connection.execute("SELECT facts FROM session")]
        assert [("secrets" in facts, "over" in facts) for facts in sorted(rows, key=lambda facts: "over" in facts)] == [
            (True, False),  # of the next sum
            (False, True),
        ]
        kept |= {value for facts in rows for value in facts.get("secrets", {}).values()}
    assert len(secrets) == 3 * 3 * 4
    assert len(kept) == 9


# ── hospitals that lie to the hub ──


@pytest.mark.parametrize(("count", "liar"), [(5, "h0"), (9, "h0"), (9, "h4"), (9, "h8")])
def test_a_wrong_share_of_one_hospital_does_not_stop_the_others(sums: ModuleType, count: int, liar: str) -> None:
    town = sums.town(count)
    whole = town.ask

    class Lying:
        def ask(self, messages: Any, timeout: float) -> Any:
            replies = dict(whole(messages, timeout))
            raw = unpack(replies[liar]) if isinstance(replies[liar], bytes) else {}
            if raw.get("stage") == "reveal":
                raw["body"]["shares"] = {name: bytes(32) for name in raw["body"]["shares"]}
                replies[liar] = pack(raw)
            return replies

    ask = sums.Ask("run", sums.STUDY, "step", 0, tuple(town.hospitals)).to_bytes()
    opened = town.summing().collect(Lying(), dict.fromkeys(town.hospitals, ask), sums.DECLARED, "step", 0, None)
    assert sums.same(opened.total, sums.exact([hospital.part for hospital in town.hospitals.values()]))


def test_keys_for_the_next_sum_that_are_not_signed_cost_that_sum_nothing(sums: ModuleType) -> None:
    """The hub does not pass them on, and the next sum begins with keys, where it names whose they are."""
    town = sums.town(4)
    true, spoiled = town.hospitals["h3"].answer, {"vector"}

    def answer(message: bytes) -> bytes:
        raw = unpack(true(message))
        if raw.get("stage") in spoiled:
            raw["body"]["advert"]["signature"] = bytes(64)
        return pack(raw)

    town.hospitals["h3"].answer = answer
    summing = town.summing()
    for round_ in range(2):
        found = town.collect(summing, round_=round_)
        assert sums.same(found.total, sums.exact([one.part for one in town.hospitals.values()]))
    assert town.stages == [*STAGES, *STAGES]
    spoiled.add("keys")
    assert list(town.collect(town.summing(), round_=2).errors) == ["h3"]


@pytest.mark.parametrize(
    ("stage", "body"),
    [
        ("shares", {"sealed": {}}),
        ("shares", {"sealed": {"h0": b"", "h1": b"", "h3": b"", "stranger": b""}}),
        ("shares", {"sealed": {"h0": 1, "h1": b"", "h3": b""}}),
        ("set", {"sealed": {"h0": b""}}),
        ("set", {"sealed": None}),
        ("reveal", {"shares": {"h0": "text"}}),
        ("reveal", {"shares": {"h0": bytes(31)}}),
        ("reveal", {"shares": {1: bytes(32)}}),
    ],
)
def test_a_reply_of_another_form_names_its_hospital(sums: ModuleType, stage: str, body: dict[str, Any]) -> None:
    town = sums.town(4)
    whole, said = town.ask, {}

    class Broken:
        def ask(self, messages: Any, timeout: float) -> Any:
            replies = dict(whole(messages, timeout))
            raw = unpack(replies["h2"]) if "h2" in replies else {}
            if raw.get("stage") == stage:
                replies["h2"] = pack(raw | {"body": raw["body"] | body})
            return replies

    summing, some = town.summing(), SecureSum._some

    def heard(self: SecureSum, *given: Any) -> Any:
        found = some(self, *given)
        said.update(found[1])
        return found

    summing._some = heard.__get__(summing)
    ask = sums.Ask("run", sums.STUDY, "step", 0, tuple(town.hospitals)).to_bytes()
    opened = summing.collect(Broken(), dict.fromkeys(town.hospitals, ask), sums.DECLARED, "step", 0, None)
    assert isinstance(said["h2"], AnswerBroken)
    assert (opened.total is None) == (stage == "shares")  # of a later stage, the others are enough


def test_a_hospital_that_was_asked_something_else_is_named(sums: ModuleType) -> None:
    town = sums.town(5)
    town.hospitals["h2"].declaration = (*sums.DECLARED[:-1], sums.ArraySpec("weights", (5,), "weights", sides=True))
    found = town.collect(town.summing())
    assert list(found.errors) == ["h2"]  # under its masks for another question nothing would cancel
    assert isinstance(found.errors["h2"], AnswerBroken)
    assert sums.same(found.total, sums.exact([town.hospitals[f"h{place}"].part for place in (0, 1, 3, 4)]))
    town = sums.town(3)
    for name in ("h1", "h2"):
        town.hospitals[name].declaration = (*sums.DECLARED[:-1], sums.ArraySpec("weights", (1, 5), "weights"))
    found = town.collect(town.summing())
    assert found.total is None
    assert all(isinstance(error, AnswerBroken) for error in found.errors.values())
    assert set(found.errors) == {"h1", "h2"}


@given(secret=st.binary(min_size=32, max_size=32), count=st.integers(2, 9), data=st.data())
def test_more_than_half_of_the_shares_give_the_secret(secret: bytes, count: int, data: st.DataObject) -> None:
    shares = dict(enumerate(sharing.split(secret, count), 1))
    needed = sharing.threshold(count)
    chosen = data.draw(st.permutations(sorted(shares)))
    assert sharing.combine({place: shares[place] for place in chosen[:needed]}) == secret
    fewer = sharing.combine({place: shares[place] for place in chosen[: needed - 1]}) if needed > 1 else b""
    assert fewer != secret


@pytest.mark.parametrize("hospitals", range(4, 31))
def test_every_single_holder_is_left_out_of_one_of_the_choices_that_are_tried(hospitals: int) -> None:
    places, needed = list(range(1, hospitals + 1)), sharing.threshold(hospitals)
    tried = list(itertools.islice(opening._choices(places, needed), opening.MOST_TRIES))
    assert {len(set(choice)) for choice in tried} == {needed}
    assert all(any(place not in choice for choice in tried) for place in places)


def test_shares_are_those_of_the_library(sums: ModuleType) -> None:
    from Crypto.Protocol.SecretSharing import Shamir

    secret = bytes(range(32))
    for count in (3, 8, 30):
        shares = sharing.split(secret, count)
        some = list(enumerate(shares, 1))[-sharing.threshold(count) :]
        halves = [
            Shamir.combine([(place, share[half]) for place, share in some]) for half in (slice(16), slice(16, 32))
        ]
        assert b"".join(halves) == secret == sharing.combine(dict(some))
