"""A hub that writes every message as it likes gets nothing of one hospital: each attack first works on a hospital that
leaves out one single check, and is then refused by that check."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from dure.errors import DataError
from dure.federation.messages import Answer, Ask, error_data, error_from
from dure.federation.secure_sum import keys, masks, sharing
from dure.federation.secure_sum import member as asking
from dure.federation.secure_sum.exchange import Exchange, Stage
from dure.federation.secure_sum.member import Member
from dure.federation.secure_sum.refusals import RULES
from dure.guard.rules import refusal
from dure.study.packing import unpack
from dure.study.summary import ArraySpec

_spec = importlib.util.spec_from_file_location(
    "dure_attacks_sums", Path(__file__).parents[1] / "secure_sum" / "stage.py"
)
assert _spec is not None
assert _spec.loader is not None
sums = importlib.util.module_from_spec(_spec)
sys.modules["dure_attacks_sums"] = sums
_spec.loader.exec_module(sums)

VICTIM, NAMES = "h0", ("h0", "h1", "h2", "h3")
SESSION = bytes(range(32))
SENT = (masks.WITHHELD, *sums.DECLARED)
Attack = Callable[[Any], bool]


OTHER = "sha256:" + "6" * 64
"""Another study than the one that is summed."""


def without(rule: str) -> type[Member]:
    """A hospital that does everything right but for one check."""

    class Unprotected(Member):
        def must(self, name: str, holds: object) -> None:
            if name != rule:
                super().must(name, holds)

    return Unprotected


class Puppet(Member):
    """A hospital that is the hub in disguise: it checks nothing."""

    def must(self, name: str, holds: object) -> None:
        return


class Hub:
    """Full control: any message to any hospital, stage by stage."""

    def __init__(
        self,
        town: Any,
        names: tuple[str, ...] = (),
        session: bytes = SESSION,
        round_: int = 0,
        members: tuple[str, ...] = (),
    ) -> None:
        self.town, self.session, self.round = town, session, round_
        self.names = names or tuple(town.hospitals)
        self.members = members or self.names
        self.adverts: dict[str, Any] = {}
        self.sealed: dict[str, Any] = {}
        self.vectors: dict[str, bytes] = {}
        self.signatures: dict[str, bytes] = {}

    def say(self, name: str, stage: Stage, body: dict[str, Any], study: str = sums.STUDY) -> dict[str, Any] | None:
        """The reply's body, or None where the hospital refuses."""
        exchange = Exchange(stage, self.session, "run", study, "step", self.round, None, body)
        raw = unpack(self.town.hospitals[name].answer(exchange.to_bytes()))
        if raw.get("kind") == "error":
            assert error_from(raw["error"]).code() == "sum-refused"
            return None
        found: dict[str, Any] = raw["body"]
        return found

    def ask(self) -> bytes:
        return Ask("run", sums.STUDY, "step", self.round, self.names).to_bytes()

    def keys(self, roster: dict[str, bytes] | None = None, told: dict[str, tuple[str, ...]] | None = None) -> bool:
        """`told`: other members of the study for some hospitals."""
        roster = roster or {name: self.town.hospitals[name].public for name in self.names}
        for name in self.names:
            members = list((told or {}).get(name, self.members))
            said = self.say(name, "keys", {"roster": roster, "members": members})
            if said is None:
                return False
            self.adverts[name] = said["advert"]
        return True

    def shares(self) -> bool:
        for name in self.names:
            said = self.say(name, "shares", {"keys": self.adverts})
            if said is None:
                return False
            self.sealed[name] = said["sealed"]
        return True

    def vector(self, name: str, **changes: Any) -> bool:
        sealed = {other: self.sealed[other][name] for other in self.names if other != name}
        said = self.say(name, "vector", {"ask": self.ask(), "sealed": sealed} | changes)
        if said is not None:
            self.vectors[name] = said["vector"]
        return said is not None

    def set(self, name: str, alive: list[str], dead: list[str], permits: dict[str, Any] | None = None) -> bool:
        said = self.say(name, "set", {"alive": alive, "dead": dead, "permits": permits or {}, "keys": None})
        if said is not None:
            self.signatures[name] = said["signature"]
        return said is not None

    def reveal(self, name: str, signatures: dict[str, bytes]) -> dict[str, bytes] | None:
        said = self.say(name, "reveal", {"signatures": signatures, "sealed": None})
        return said["shares"] if said else None

    def to_vectors(self) -> bool:
        return self.keys() and self.shares() and all(self.vector(name) for name in self.names)

    def to_sets(self) -> bool:
        return self.to_vectors() and all(self.set(name, list(self.names), []) for name in self.names)

    def opened(self, signers: Sequence[str]) -> Any:
        """The total of all vectors with the shares of these hospitals only, or None where one of them refuses."""
        if not all(self.set(name, list(self.names), []) for name in signers):
            return None
        found = {name: self.reveal(name, self.signatures) for name in signers}
        if None in found.values():
            return None
        places, streams = sorted(self.names), []
        for name in self.names:
            shares = {places.index(signer) + 1: given[name] for signer, given in found.items() if given}
            needed = dict(list(shares.items())[: sharing.threshold(len(self.names))])
            streams.append(keys.own_stream(self.session, name, sharing.combine(needed), -1))
        return masks.opened(masks.added(list(self.vectors.values()), SENT), SENT, streams)

    def facts(self, name: str) -> dict[str, Any]:
        """What a hospital that is the hub's puppet knows."""
        found = self.town.hospitals[name].record.read(self.session)
        assert found
        return found

    def read_victim(self) -> bool:
        """With everybody else a puppet: take all masks off the victim's vector; True if its numbers lie open."""
        others = [name for name in self.names if name != VICTIM]
        places = sorted(self.names)
        needed = sharing.threshold(len(self.names))
        shares = {places.index(name) + 1: self.facts(name)["received"][VICTIM][:32] for name in others[:needed]}
        streams = [keys.own_stream(self.session, VICTIM, sharing.combine(shares), -1)]
        for name in others:
            private, question = self.facts(name)["secrets"]["mask"], self.facts(name)["vector"][1]
            theirs = self.adverts[VICTIM]["mask"]
            streams.append(keys.pair_stream(self.session, question, name, private, VICTIM, theirs))
        vector = np.frombuffer(self.vectors[VICTIM], "<u4")
        return bool(sums.same(masks.opened(vector, SENT, streams), sums.exact([self.town.hospitals[VICTIM].part])))


def puppets(town: Any) -> Any:
    """The same names, but everybody except the victim is the hub in disguise, with keys of its own."""
    fakes = sums.town(len(town.hospitals), kind=Puppet)
    fakes.hospitals[VICTIM] = town.hospitals[VICTIM]
    return fakes


# ── the attacks: True where they work ──


def swaps_identities(town: Any) -> bool:
    """In a second session the others' keys are the hub's own: then every mask of the victim is known to it."""
    assert Hub(town).keys()  # an honest session, in which the victim has seen the others
    hub = Hub(puppets(town), session=bytes(32))
    return hub.to_vectors() and hub.read_victim()


def swaps_session_keys(town: Any) -> bool:
    """The identities are true, but the keys for the sum are the hub's own."""
    hub = Hub(puppets(town))
    return hub.keys(town.roster) and hub.shares() and all(hub.vector(name) for name in hub.names) and hub.read_victim()


def hides_the_victims_key(town: Any) -> bool:
    """The others are told that another key is the victim's."""
    hub, roster = Hub(town), town.roster
    body = {"roster": roster | {VICTIM: roster["h1"]}, "members": list(roster)}
    return hub.say(VICTIM, "keys", body) is not None


def asks_twice_under_the_same_masks(town: Any) -> bool:
    """Two vectors under the same masks: their difference is that of the numbers."""
    hub, hospital = Hub(town), town.hospitals[VICTIM]
    assert hub.to_vectors()
    first, before = np.frombuffer(hub.vectors[VICTIM], "<u4"), hospital.part
    hospital.part = {name: values * 0 for name, values in before.items()}
    if not hub.vector(VICTIM):
        return False
    second = np.frombuffer(hub.vectors[VICTIM], "<u4")
    return _difference(first, second, before)


def _difference(first: Any, second: Any, expected: Any) -> bool:
    """Whether one vector less the other, number by number, is what is expected."""
    less = np.empty(first.shape, np.uint32)
    for segment in masks.segments(SENT):
        where = segment.words(0, segment.numbers)
        wide = 2 * segment.format.limbs
        digits = first[where].astype(np.int64).reshape(-1, wide) - second[where].reshape(-1, wide)
        masks.carry(digits, less[where].reshape(digits.shape))
    return bool(sums.same(masks.opened(less, SENT, []), sums.exact([expected])))


def uses_old_shares_again(town: Any) -> bool:
    """Once a session is over, its shares are asked for once more, with other words."""
    hub = Hub(town)
    assert hub.to_sets()
    assert hub.reveal(VICTIM, hub.signatures)
    fewer = dict(list(hub.signatures.items())[:-1])
    return hub.reveal(VICTIM, fewer) is not None


def takes_numbers_before_shares(town: Any) -> bool:
    """Numbers are asked for before the shares that would recover a dropout are with everybody."""
    hub = Hub(town)
    assert hub.keys()
    assert hub.shares()
    return hub.vector(VICTIM, sealed=None)


def asks_another_group(town: Any) -> bool:
    """The question speaks of three hospitals; the masks are of four."""
    hub = Hub(town)
    assert hub.keys()
    assert hub.shares()
    return hub.vector(VICTIM, ask=Ask("run", sums.STUDY, "step", 0, hub.names[:3]).to_bytes())


def asks_another_round(town: Any) -> bool:
    hub = Hub(town)
    assert hub.keys()
    assert hub.shares()
    return hub.vector(VICTIM, ask=Ask("run", sums.STUDY, "step", 1, hub.names).to_bytes())


def shares_under_another_study(town: Any) -> bool:
    hub = Hub(town)
    return hub.keys() and hub.say(VICTIM, "shares", {"keys": hub.adverts}, study=OTHER) is not None


def signs_under_another_study(town: Any) -> bool:
    """The set of one study's sum is signed in the name of another, whose permits and history say nothing of it."""
    hub = Hub(town)
    body = {"alive": list(hub.names), "dead": [], "permits": {}, "keys": None}
    return hub.to_vectors() and hub.say(VICTIM, "set", body, study=OTHER) is not None


def reveals_under_another_study(town: Any) -> bool:
    hub = Hub(town)
    assert hub.to_sets()
    body = {"signatures": hub.signatures, "sealed": None}
    return hub.say(VICTIM, "reveal", body, study=OTHER) is not None


def says_alive_and_dead(town: Any) -> bool:
    hub = Hub(town)
    assert hub.to_vectors()
    return hub.set(VICTIM, list(hub.names), ["h3"])


def forgets_a_participant(town: Any) -> bool:
    hub = Hub(town)
    assert hub.to_vectors()
    return hub.set(VICTIM, ["h0", "h1", "h2"], [])


def adds_a_participant(town: Any) -> bool:
    hub = Hub(town)
    assert hub.to_vectors()
    return hub.set(VICTIM, [*hub.names, "h9"], [])


def says_the_victim_is_dead(town: Any) -> bool:
    """The victim itself is to sign that it is not in the sum."""
    hub = Hub(town)
    assert hub.to_vectors()
    return hub.set(VICTIM, ["h1", "h2", "h3"], [VICTIM])


def goes_below_the_threshold(town: Any) -> bool:
    """Two of four, at hospitals whose permits allow sums of two."""
    for hospital in town.hospitals.values():
        hospital.grants = frozenset(("per_hospital",))
    hub = Hub(town)
    assert hub.to_vectors()
    return hub.set(VICTIM, ["h0", "h1"], ["h2", "h3"])


def begins_without_half(town: Any) -> bool:
    """The study's sums are made among seven; three are told so, and asked alone."""
    return Hub(town, ("h0", "h1", "h2"), members=tuple(town.hospitals)).keys()


def begins_with_two(town: Any) -> bool:
    return Hub(town, ("h0", "h1")).keys()


def ends_with_two(town: Any) -> bool:
    """Two of three are more than half, but fewer than make a sum."""
    hub = Hub(town, ("h0", "h1", "h2"))
    assert hub.to_vectors()
    return hub.set(VICTIM, ["h0", "h1"], ["h2"])


def signs_two_sets(town: Any) -> bool:
    """Somebody is dead for some hospitals and alive for others: shares of both kinds would come together."""
    hub = Hub(town)
    assert hub.to_vectors()
    assert hub.set(VICTIM, list(hub.names), [])
    permits = {"h3": town.hospitals["h3"].permit(difference=True)}
    return hub.set(VICTIM, ["h0", "h1", "h2"], ["h3"], permits)


def takes_shares_without_signatures(town: Any) -> bool:
    hub = Hub(town)
    assert hub.to_sets()
    return hub.reveal(VICTIM, {}) is not None


def takes_shares_for_too_few_signatures(town: Any) -> bool:
    hub = Hub(town)
    assert hub.to_sets()
    return hub.reveal(VICTIM, {name: hub.signatures[name] for name in ("h0", "h1")}) is not None


def chooses_signers_who_never_compared(town: Any) -> bool:
    """The sum of five is signed by three of them, then that of three by two others: nobody sees both sets, and they
    differ by h0 and h1."""
    everybody = tuple(town.hospitals)
    hub = Hub(town)
    assert hub.to_vectors()
    every = hub.opened(everybody[:3])
    hub = Hub(town, everybody[2:], bytes(32), 1, everybody)
    assert hub.to_vectors()
    some = hub.opened(everybody[3:])
    parts = [town.hospitals[name].part["n"] for name in everybody[:2]]
    return some is not None and every["n"] - some["n"] == sum(parts)


def forges_a_signature(town: Any) -> bool:
    hub = Hub(town)
    assert hub.to_sets()
    return hub.reveal(VICTIM, hub.signatures | {"h3": hub.signatures["h2"]}) is not None


def forges_a_share(town: Any) -> bool:
    hub = Hub(town)
    assert hub.keys()
    assert hub.shares()
    changed = bytearray(hub.sealed["h1"][VICTIM])
    changed[20] ^= 1
    hub.sealed["h1"][VICTIM] = bytes(changed)
    return hub.vector(VICTIM)


def gives_a_share_of_another(town: Any) -> bool:
    hub = Hub(town)
    assert hub.keys()
    assert hub.shares()
    hub.sealed["h1"][VICTIM] = hub.sealed["h2"][VICTIM]
    return hub.vector(VICTIM)


def leaves_one_out(town: Any) -> bool:
    """S(all) − S(all but one), both opened by the rules: the difference is the victim's numbers."""
    every, fewer = tuple(town.hospitals), tuple(name for name in town.hospitals if name != VICTIM)
    summing = town.summing()
    first = town.collect(summing, every)
    second = town.collect(town.summing(), fewer, round_=1)
    assert first.total is not None
    if second.total is None:
        return False
    counts = {name: first.total[name] - second.total[name] for name in ("n", "cells")}
    return all((counts[name] == town.hospitals[VICTIM].part[name]).all() for name in counts)


def drops_one_afterwards(town: Any) -> bool:
    """The same in one group: in the second sum the victim's vector is thrown away, and it is called dead."""
    assert town.collect(town.summing()).total is not None
    town.unheard = {"vector": {VICTIM}}
    return town.collect(town.summing(), round_=1).total is not None


def leaves_one_out_with_another_permit(town: Any) -> bool:
    """A permit for another study, or signed by somebody else, is no permission."""
    victim = town.hospitals[VICTIM]
    wrong = [
        victim.permit(difference=True, study=OTHER),
        victim.permit(difference=False),
        town.hospitals["h1"].permit(difference=True, hospital=VICTIM),
        victim.permit(difference=True, expires=victim_expired()),
    ]
    assert town.collect(town.summing()).total is not None
    fewer = tuple(name for name in town.hospitals if name != VICTIM)
    opened = [town.collect(town.summing(permits={VICTIM: envelope}), fewer, 1).total for envelope in wrong]
    return any(total is not None for total in opened)


def adds_up_three_sums(town: Any) -> bool:
    """{0,1,2} + {0,3,4} − {1,2,3,4} is the victim twice, and any two of the three differ by three hospitals."""
    sets = (("h0", "h1", "h2"), ("h0", "h3", "h4"), ("h1", "h2", "h3", "h4"))
    totals = [
        town.collect(town.summing(members=tuple(town.hospitals)), names, round_).total
        for round_, names in enumerate(sets)
    ]
    if None in totals:
        return False
    one, other, rest = totals
    twice = {name: one[name] + other[name] - rest[name] for name in ("n", "cells")}
    return all((twice[name] == 2 * town.hospitals[VICTIM].part[name]).all() for name in twice)


def tells_groups_of_each_other_nothing(town: Any) -> bool:
    """Two threes that do not know of each other, then all seven: what is left is the seventh, the victim."""
    groups = (("h1", "h2", "h3"), ("h4", "h5", "h6"), tuple(town.hospitals))
    totals = [town.collect(town.summing(members=names), names, round_).total for round_, names in enumerate(groups)]
    if None in totals:
        return False
    one, other, every = totals
    return bool(every["n"] - one["n"] - other["n"] == town.hospitals[VICTIM].part["n"])


def tells_hospitals_of_different_members(town: Any) -> bool:
    """In one session the victim believes in another group than the others do."""
    hub = Hub(town)
    return hub.keys(told={VICTIM: (*town.hospitals, "h9")}) and hub.shares()


def victim_expired() -> Any:
    from datetime import UTC, datetime, timedelta

    return datetime.now(UTC) - timedelta(hours=1)


ATTACKS: list[tuple[str, Attack]] = [
    ("pinned_key", swaps_identities),
    ("key_signature", swaps_session_keys),
    ("key_signature", tells_hospitals_of_different_members),
    ("own_key", hides_the_victims_key),
    ("replay", asks_twice_under_the_same_masks),
    ("replay", uses_old_shares_again),
    ("order", takes_numbers_before_shares),
    ("question", asks_another_group),
    ("question", asks_another_round),
    ("question", shares_under_another_study),
    ("question", signs_under_another_study),
    ("question", reveals_under_another_study),
    ("overlap", says_alive_and_dead),
    ("participants", forgets_a_participant),
    ("participants", adds_a_participant),
    ("not_present", says_the_victim_is_dead),
    ("members", tells_groups_of_each_other_nothing),
    ("threshold", begins_without_half),
    ("threshold", goes_below_the_threshold),
    ("minimum_hospitals", begins_with_two),
    ("minimum_hospitals", ends_with_two),
    ("second_set", signs_two_sets),
    ("unsigned", takes_shares_without_signatures),
    ("unsigned", takes_shares_for_too_few_signatures),
    ("unsigned", forges_a_signature),
    ("unsigned", chooses_signers_who_never_compared),
    ("forged_share", forges_a_share),
    ("forged_share", gives_a_share_of_another),
    ("difference", leaves_one_out),
    ("difference", drops_one_afterwards),
    ("difference", leaves_one_out_with_another_permit),
    ("difference", adds_up_three_sums),
]
SIZES = {
    begins_without_half: 7,
    chooses_signers_who_never_compared: 5,
    adds_up_three_sums: 5,
    tells_groups_of_each_other_nothing: 7,
}
"""Hospitals of an attack's town, where they are not four."""


@pytest.mark.parametrize(("rule", "attack"), ATTACKS, ids=[attack.__name__ for _, attack in ATTACKS])
def test_an_attack_works_without_its_check_and_is_refused_with_it(rule: str, attack: Attack) -> None:
    size = SIZES.get(attack, 4)
    assert attack(sums.town(size, kind=without(rule))), "the attack does not work: it shows nothing"
    town = sums.town(size)
    assert not attack(town)
    refused = {entry["rule"] for hospital in town.hospitals.values() for entry in hospital.logged}
    assert refused == {rule}


def test_every_check_of_a_hospital_has_an_attack() -> None:
    """`unmasked` is the runner's (tests/site/test_runner.py); `form` is below."""
    assert {rule for rule, _ in ATTACKS} | {"unmasked", "form"} == set(RULES)


def test_invented_hospitals_open_one_hospitals_numbers_until_its_list_is_closed() -> None:
    """What trust on first use costs, and what ends it: the hub names two new hospitals that are itself."""
    for closed in (False, True):
        town = sums.town(4)
        assert Hub(town).keys()  # an honest session: the victim knows the real ones, compares, and closes its list
        town.hospitals[VICTIM].pins.closed = closed
        ghosts = puppets(town)
        for name in ("h1", "h2", "h3"):
            ghost = ghosts.hospitals.pop(name)
            ghost.name = f"ghost {name}"
            ghosts.hospitals[ghost.name] = ghost
        hub = Hub(ghosts, session=bytes(32))
        assert (hub.to_vectors() and hub.read_victim()) is not closed


@pytest.mark.parametrize(
    "other", [{"state": {"edge": 1e9}}, {"results": {"score": None}}, {}], ids=["state", "results", "earlier-steps"]
)
@pytest.mark.parametrize("signers", [("h1", "h2", "h3"), tuple(NAMES)], ids=["others-sign", "all-sign"])
def test_a_hospital_that_is_asked_something_else_than_the_others_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, other: dict[str, Any], signers: tuple[str, ...]
) -> None:
    """The others are asked so that they have nothing to add: another state, no result of the step before, or earlier
    only the victim was asked what this builds on. The twin is a protocol whose masks and signatures are those of any
    question."""
    asked = {"state": {"edge": 0.0}, "results": {"score": b"a result"}}

    def reads(bound: bool) -> bool:
        town = sums.town(4)
        town.hospitals[VICTIM].built_on = b"" if other else b"a step that nobody else was asked"
        hub = Hub(town)
        assert hub.keys()
        assert hub.shares()
        for name in hub.names:
            if name != VICTIM:
                town.hospitals[name].part = {what: values * 0 for what, values in town.hospitals[name].part.items()}
            ask = Ask("run", sums.STUDY, "step", 0, hub.names, **(asked if name == VICTIM else asked | other))
            assert hub.vector(name, ask=ask.to_bytes())
        total = hub.opened(signers)
        refused = {entry["rule"] for hospital in town.hospitals.values() for entry in hospital.logged}
        assert refused == ({"unsigned"} if bound and VICTIM in signers else set())
        return sums.same(total, sums.exact([town.hospitals[VICTIM].part]))

    assert not reads(True)
    stream = keys.pair_stream
    monkeypatch.setattr(keys, "pair_stream", lambda session, question, *rest: stream(session, b"", *rest))
    monkeypatch.setattr(asking, "question_digest", lambda *said: bytes(32))
    assert reads(False)


def test_with_the_permit_it_needs_the_difference_may_be_opened() -> None:
    town = sums.town(4)
    summing = town.summing(permits={VICTIM: town.hospitals[VICTIM].permit(difference=True)})
    assert town.collect(summing).total is not None
    assert town.collect(summing, ("h1", "h2", "h3"), 1).total is not None
    assert town.collect(summing, tuple(town.hospitals), 2).total is not None


def test_three_that_leave_together_show_nobody_and_need_no_permit() -> None:
    town = sums.town(7)
    assert town.collect(town.summing()).total is not None
    assert town.collect(town.summing(), ("h0", "h1", "h2", "h3"), 1).total is not None
    assert town.collect(town.summing(), ("h0", "h1", "h2", "h3", "h4", "h5"), 2).total is None


def test_what_is_no_message_of_the_protocol_is_refused_in_every_stage() -> None:
    town = sums.town(3)
    hub = Hub(town)
    assert hub.to_sets()
    bodies: list[dict[str, Any]] = [
        {},
        {"roster": {**town.roster, "h9": 10**12}},
        {"roster": {**town.roster, "h9": b""}},
    ]
    bodies += [{"roster": 1, "keys": 2, "alive": 3, "ask": b"", "signatures": 4}]
    for stage in ("keys", "shares", "vector", "set", "reveal"):
        for body in bodies:
            hub.session = SESSION
            assert hub.say(VICTIM, stage, body) is None
            hub.session = bytes(40)
            assert hub.say(VICTIM, stage, body) is None
    hub.session = SESSION
    assert hub.reveal(VICTIM, hub.signatures)  # and the honest session still ends


def test_keys_that_agree_on_nothing_are_refused() -> None:
    """A public key of small order would make every mask of a pair the same known bytes (RFC 7748, section 6.1)."""
    town = sums.town(3)
    hub = Hub(town)
    assert hub.keys()
    advert = hub.adverts["h1"] | {"mask": bytes(32)}
    statement = keys.keys_statement(SESSION, (sums.STUDY, "run"), hub.members, town.roster, "h1", advert)
    advert["signature"] = town.hospitals["h1"].key.sign(statement)  # h1 plays along
    assert hub.say("h1", "shares", {"keys": hub.adverts})
    assert hub.say("h2", "shares", {"keys": hub.adverts})
    assert hub.say(VICTIM, "shares", {"keys": hub.adverts | {"h1": advert}})
    hub.sealed = {name: hub.say(name, "shares", {"keys": hub.adverts})["sealed"] for name in ("h1", "h2")}
    assert not hub.vector(VICTIM)
    assert {entry["rule"] for entry in town.hospitals[VICTIM].logged} == {"form"}


# ── what a hospital cannot give ──

HUGE = {"n": np.array(2**60), "sums": np.array([1.0, np.nan, 2.0])}


def asked_once(town: Any) -> tuple[Any, set[str]]:
    """A sum in which the victim's numbers are beyond what it can hold; and what hospitals refused in the clear."""
    found = town.collect(town.summing(), without=lambda errors: False)
    return found, set(found.errors)


@pytest.mark.parametrize("name", HUGE)
def test_no_hospital_says_that_its_numbers_are_beyond_the_range_of_a_sum(name: str) -> None:
    """A hub that chooses a scale would read the number: it asks until the victim, and nobody else, refuses. The twin is
    a hospital that is asked what the hub cannot have chosen, and says so."""
    for chosen in (False, True):
        town = sums.town(4, chosen=chosen)
        town.hospitals[VICTIM].part = town.hospitals[VICTIM].part | {name: HUGE[name]}
        found, refused = asked_once(town)
        assert found.total is None
        assert (refused, found.withheld) == (({VICTIM}, False) if not chosen else (set(), True))
        logged = [entry["event"] for entry in town.hospitals[VICTIM].logged]
        assert logged == [] if chosen else ["sum refused"]  # its desk has written one line, as for any answer
    assert len(town.replies["vector", VICTIM]) == len(town.replies["vector", "h1"])


def test_where_a_hospital_withholds_its_numbers_those_of_the_others_are_lost_too() -> None:
    """Else the sum of the others, beside one with it, would be the difference that nobody permitted."""
    town = sums.town(4, chosen=True)
    town.hospitals[VICTIM].part = town.hospitals[VICTIM].part | {"n": HUGE["n"]}
    hub = Hub(town)
    assert hub.to_vectors()
    total = hub.opened(hub.names)
    assert total.pop(masks.WITHHELD.name) != 0
    others = sums.exact([town.hospitals[name].part for name in hub.names if name != VICTIM])
    for name, values in others.items():
        assert not np.isin(np.ravel(total[name]), np.ravel(values)).any()


@pytest.mark.parametrize("error", ["data-error", "as_declared", "exception"])
def test_an_error_of_data_is_no_answer_to_a_question_that_the_hub_chose(error: str) -> None:
    class Failing(Exception):
        pass

    for chosen in (False, True):
        town = sums.town(4, chosen=chosen)
        victim = town.hospitals[VICTIM]
        if error == "exception":
            victim.fails = Failing()
        else:
            said = DataError() if error == "data-error" else refusal("as_declared")
            victim.error = Answer(VICTIM, "error", error=error_data(said)).to_bytes()
        if error == "exception" and not chosen:
            with pytest.raises(Failing):  # its runner says that something failed
                asked_once(town)
            continue
        found, refused = asked_once(town)
        assert found.total is None
        assert (refused, found.withheld) == (({VICTIM}, False) if not chosen else (set(), True))


@pytest.mark.parametrize("rule", ["minimum_people", "round_counts", "parameters_per_event"])
def test_a_refusal_that_looks_at_numbers_is_no_answer_to_a_question_that_the_hub_chose(rule: str) -> None:
    """One to nine people in a cell that stands alone are refused, nobody is not: that would tell a value."""
    for chosen in (False, True):
        town = sums.town(4, chosen=chosen)
        town.hospitals[VICTIM].error = Answer(VICTIM, "error", error=error_data(refusal(rule))).to_bytes()
        found, refused = asked_once(town)
        assert (refused, found.withheld) == (({VICTIM}, False) if not chosen else (set(), True))


def test_a_list_of_names_without_end_is_not_taken() -> None:
    """Names that a hospital sees for the first time stay in its log for good."""
    ghosts = {f"ghost {number}": bytes([1]) * 32 for number in range(2_000)}
    for names in ({"x" * 10_000: bytes(32)}, ghosts):
        town = sums.town(3)
        hub = Hub(town)
        hub.members = sorted([*hub.members, *names])
        assert not hub.say(VICTIM, "keys", {"roster": town.roster | names, "members": hub.members})
        assert {entry["rule"] for entry in town.hospitals[VICTIM].logged} == {"form"}


def test_a_cohort_that_is_too_small_is_told_whatever_was_asked() -> None:
    """No state of a round chooses a cohort; and an honest hub goes on without such a hospital."""
    town = sums.town(5, chosen=True)
    said = error_data(refusal("minimum_cohort"))
    town.hospitals[VICTIM].error = Answer(VICTIM, "error", error=said).to_bytes()
    assert asked_once(town)[1] == {VICTIM}


# ── masked bytes ──

MANY = (ArraySpec("x", (40_000,), "moment"),)
EXTREME = {"zeros": 0.0, "ones": 1.0, "minus one": -1.0, "nearly too large": 2.0**121, "tiny": 2.0**-128}


def uniform(data: bytes, wide: int) -> float:
    """The smallest p-value of χ² tests: all bytes, and those at each place of a number."""
    table = np.frombuffer(data, np.uint8)
    parts = [table, *table.reshape(-1, wide).T]
    return float(min(chisquare(np.bincount(part, minlength=256)).pvalue for part in parts))


@pytest.mark.parametrize("value", EXTREME)
def test_masked_bytes_are_uniform_and_bare_ones_are_not(value: str) -> None:
    town = sums.town(3, declaration=MANY)
    for hospital in town.hospitals.values():
        hospital.part = {"x": np.full(40_000, EXTREME[value])}
    assert town.collect(town.summing(), declaration=MANY).total is not None
    for name in town.hospitals:
        vector = unpack(town.replies["vector", name])["body"]["vector"]
        assert len(vector) >= 10**6
        assert uniform(vector[8:], 32) > 1e-8  # after the first number, a count
    assert uniform(masks.masked(hospital.part, MANY, 3, []), 32) == 0.0


def test_the_same_numbers_twice_share_no_mask() -> None:
    """What two sessions have in common would be seen in their difference."""
    town = sums.town(3, declaration=MANY)
    for hospital in town.hospitals.values():
        hospital.part = {"x": np.zeros(40_000)}
    vectors, summing = [], town.summing()
    for round_ in range(2):
        assert town.collect(summing, round_=round_, declaration=MANY).total is not None
        vectors.append(unpack(town.replies["vector", VICTIM])["body"]["vector"][8:])
    one, other = (np.frombuffer(vector, np.uint8) for vector in vectors)
    assert uniform((one ^ other).tobytes(), 32) > 1e-8
    assert uniform((one ^ one).tobytes(), 32) == 0.0


def test_nothing_beside_the_vector_tells_of_the_numbers() -> None:
    """The same session keys, other numbers: every byte of every reply but the vector's is as before."""
    town = sums.town(3)
    assert town.collect(town.summing()).total is not None
    reply = unpack(town.replies["vector", VICTIM])
    assert set(reply) == {"hospital", "session", "stage", "body"}
    assert set(reply["body"]) == {"vector", "question", "built_on", "advert"}
    sizes = {len(town.replies["vector", name]) for name in town.hospitals}
    assert len(sizes) == 1
