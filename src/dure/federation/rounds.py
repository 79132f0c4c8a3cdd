"""The rounds of a study: every step's loop, who takes part, and a ledger from which any run resumes.

After each round the state is written before the next question is asked; summaries are deterministic, so a
run killed at any moment ends bit-equal to one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Any, Literal

from dure.errors import (
    DureError,
    NumbersWithheld,
    PermitError,
    QuorumMissed,
    Refused,
    RunWaits,
    SiteError,
    SitePaused,
    StepSkipped,
    SumRefused,
)
from dure.federation.answer import total_of
from dure.federation.engine import Engine
from dure.federation.ledger import Fold, Ledger, Outcome, Status, first_error, read_left, status_of
from dure.federation.messages import Ask, error_data, error_from
from dure.federation.plan import Plan
from dure.federation.sums import Left, Summing, told_apart
from dure.guard import gate
from dure.guard.release import check_model, numbers, release
from dure.guard.rules import Limits, refusal
from dure.language import Words
from dure.study.method import HUB, Method, Question
from dure.study.packing import pack, unpack
from dure.study.permit import Grant
from dure.study.result import Result, pack_result, unpack_result
from dure.study.spec import Quorum, Step
from dure.study.summary import Declaration, Summary

FIELDS = attrgetter(*Left.__slots__)
Progress = Callable[[str, Mapping[str, Any]], None]


@dataclass
class Run:
    """One run of a plan. `grants` are those of the verified permits, by hospital.

    `cap`: count released numbers against the people of the study (rule numbers_per_person). `quorum`: with how few
    hospitals the study goes on; None where nobody can be missing.
    """

    name: str
    plan: Plan
    hospitals: tuple[str, ...]
    grants: Mapping[str, frozenset[Grant]]
    limits: Limits
    engine: Engine
    summing: Summing
    ledger: Ledger
    progress: Progress = lambda event, details: None
    cap: bool = True
    quorum: Quorum | None = None
    joined: int = 0
    """Hospitals of the alliance, which a quorum cannot exceed."""
    withdrawn: frozenset[str] = frozenset()
    """Hospitals that left the study; `grants` has what they still allow with sums that they were part of."""
    lapsed: Mapping[str, PermitError] = field(default_factory=dict)
    """Hospitals whose permit does not hold any more."""
    released_before: int = 0
    """Numbers that earlier studies of the same cohort released."""
    opened_before: tuple[tuple[tuple[str, ...], frozenset[str]], ...] = ()
    """Sets of hospitals of which earlier studies of the same cohort opened sums, each with those of them whose permits
    granted `difference` then."""
    dropped: dict[str, DureError] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    _opened: set[tuple[str, ...]] = field(default_factory=set)
    """Every set of hospitals of which a sum was opened in this run: from then on, who takes part matters."""

    def steps(self) -> Mapping[str, Outcome]:
        """Run every step in order; a step that cannot finish does not stop those that do not use it."""
        self._recall_dropped()
        entry = self.ledger.read("", "opened")
        self._opened = {tuple(names) for names in unpack(entry)} if entry else set()
        for step in self.plan.steps:
            self.progress("step", {"step": step.name, "method": step.method, "scope": step.scope})
            self.outcomes[step.name] = outcome = self._step(step)
            self.progress("outcome", {"step": step.name, "status": outcome.status})
        return self.outcomes

    # ── one step ──

    def _step(self, step: Step) -> Outcome:
        blocked = [name for name in step.uses if self.outcomes[name].status not in ("finished",)]
        if blocked:
            return Outcome(step.name, {None: Fold("skipped", error=self._skipped(step, blocked[0]))}, self.taking_part)
        left: list[Left] = []
        if step.scope == "each":
            folds = self._each(step, left)
        elif step.scope == "all_but_one":
            folds = self._all_but_one(step, left)
        else:
            folds = {None: self._fold(step, None, left)}
        return Outcome(step.name, folds, self._took_part(step), tuple(left))

    def _skipped(self, step: Step, used: str) -> DureError:
        cause = next((fold.error for fold in self.outcomes[used].folds.values() if fold.error), None)
        reason = Words(cause.parts("en")[0], cause.parts("ko")[0]) if cause else Words("It has none.", "없습니다.")
        return StepSkipped(step=step.name, used=used, reason=reason)

    def _all_but_one(self, step: Step, left: list[Left]) -> dict[str | None, Fold]:
        """Each fold's sum and the whole's differ by one hospital: each must have permitted differences."""
        missing = [name for name in self.taking_part if "difference" not in self.grants[name]]
        if missing and self.limits.minimum_hospitals > 1:
            return {None: Fold("waiting", error=RunWaits(step.name, missing, "difference"))}
        return {name: self._fold(step, name, left) for name in self.taking_part}

    def _each(self, step: Step, left: list[Left]) -> dict[str | None, Fold]:
        folds: dict[str | None, Fold] = {}
        waiting = [
            name
            for name in self.taking_part
            if (entry := self.ledger.read(step.name, name)) is None or unpack(entry)["status"] == "waiting"
        ]
        messages = {name: self._message(step, name, (name,), 0, {}, None, alone=True) for name in waiting}
        if messages:
            self.progress("asked", {"step": step.name, "round": 0, "fold": None, "asks": messages, "declared": ()})
        opened = self.summing.collect(self.engine, messages, (), step.name, 0, None) if messages else None
        for name in self.taking_part:
            if opened and name in messages:
                mine = [entry for entry in opened.left if entry.hospital == name]
                error = opened.errors.get(name)
                self._write(step, name, 0, {}, mine, status_of(error), opened.results.get(name), error)
            folds[name] = self._recorded(step, name, left, released=True)
        return folds

    # ── one loop ──

    def _fold(self, step: Step, fold: str | None, left: list[Left]) -> Fold:
        entry = self.ledger.read(step.name, fold)
        stored = unpack(entry) if entry else None
        if stored is None or stored["status"] in ("running", "waiting"):
            forbidden = self._forbidden(self._members(fold))
            if forbidden and set(forbidden) <= self.withdrawn:  # nobody is left to ask for it
                return Fold("refused", error=refusal("difference_permit"))
            ended = next((self.lapsed[name] for name in forbidden if name in self.lapsed), None)
            if ended:
                return Fold("waiting", error=ended)
            if forbidden:  # nothing is written: the ledger keeps who took part in what was opened
                return Fold("waiting", error=RunWaits(step.name, forbidden, "difference"))
            self._loop(step, fold, stored)
        return self._recorded(step, fold, left)

    def _forbidden(self, members: Collection[str]) -> list[str]:
        """Hospitals whose part would show: too few came or went since some sum was opened, without their permission."""
        minimum = self.limits.minimum_hospitals
        granted = {name for name, grants in self.grants.items() if "difference" in grants}
        found = told_apart(self._opened, members, granted, minimum)
        for before, then in self.opened_before:
            changed = set(before) ^ set(members)
            found |= changed - then - granted if len(changed) < minimum else set()
        return sorted(found)

    def _remember_opened(self, members: tuple[str, ...]) -> None:
        if members not in self._opened:
            self._opened.add(members)
            self.ledger.write("", "opened", pack([list(names) for names in sorted(self._opened)]))

    def _took_part(self, step: Step) -> tuple[str, ...]:
        """Whose people are in the step's answer: those of its own rounds, who may not be those of now."""
        entry = self.ledger.read(step.name, None) if step.scope == "all" else None
        return tuple(unpack(entry)["hospitals"]) if entry else self.taking_part

    def _loop(self, step: Step, fold: str | None, stored: dict[str, Any] | None) -> None:
        """Rounds until a Result or an error is in the ledger."""
        method = self.plan.method(step)
        restart = stored is None or stored["round"] == 0 or tuple(stored["hospitals"]) != self._members(fold)
        round_ = 0 if restart or stored is None else stored["round"]
        left = [read_left(raw) for raw in stored["left"]] if stored else []
        state: dict[str, Any] | None = None if restart or stored is None else stored["state"]
        arrays: Summary = {}
        while True:
            members = self._members(fold)
            question = self.plan.question(step, members, self._working(step))
            try:
                self._enough(step, members)
                state = method.start(question) if state is None else state
                declaration = method.declare(question, state)
                asks = {name: self._message(step, name, members, round_, state, fold) for name in members}
                place, sent = {"step": step.name, "round": round_, "fold": fold}, gate.sent(declaration)
                self.progress("asked", {**place, "asks": asks, "declared": sent})
                without = partial(self._same_without, step, fold, round_, state, sent)
                opened = self.summing.collect(self.engine, asks, sent, step.name, round_, fold, without)
                # What came has left, even where the sum is never opened; a repeated round is listed once.
                left = [item for item in left if item.round != round_] + list(opened.left)
                if opened.errors and not self._drop(opened.errors):
                    raise first_error(opened.errors)
                if opened.total is None and not opened.withheld:  # the step starts again without them
                    round_, state = 0, None
                    continue
                members = self._members(fold)
                self._remember_opened(members)
                if opened.total is None:
                    raise NumbersWithheld()
                question = self.plan.question(step, members, self._working(step))
                self.progress("opened", {**place, "members": members, "declared": sent})
                arrays |= opened.total
                gate.check_total(opened.total, declaration, self.limits)
                concluded = method.conclude(total_of(opened.total), question, state)
            except DureError as error:
                if isinstance(error, Refused):
                    find_setting(error, method, question, arrays)
                return self._write(step, fold, round_, state or {}, left, status_of(error), None, error)
            round_ += 1
            self.progress("round", {"step": step.name, "round": round_, "fold": fold, "hospitals": len(members)})
            if isinstance(concluded, Result):
                return self._write(step, fold, round_, {}, left, "finished", pack_result(concluded), None)
            state = concluded
            self._write(step, fold, round_, state, left, "running", None, None)

    def _members(self, fold: str | None) -> tuple[str, ...]:
        return tuple(name for name in self.taking_part if name != fold)

    def _enough(self, step: Step, members: tuple[str, ...]) -> None:
        if self.quorum and not self.quorum.met(self.taking_part, self.joined):
            needed, number = ", ".join(self.quorum.all_of), self.quorum.at_least
            asked = Words(f"at least {number}", f"{number}곳 이상")
            if needed:
                asked = Words(f"{asked.en}, among them {needed}", f"{asked.ko}, {needed} 포함")
            raise QuorumMissed(step=step.name, needed=asked, present=", ".join(self.taking_part) or "–")
        if len(members) < self.limits.minimum_hospitals and any(
            "per_hospital" not in self.grants[name] for name in members
        ):
            raise refusal("minimum_hospitals")
        if not members:
            raise refusal("minimum_hospitals")

    def _message(
        self,
        step: Step,
        hospital: str,
        members: tuple[str, ...],
        round_: int,
        state: dict[str, Any],
        fold: str | None,
        alone: bool = False,
    ) -> bytes:
        found = [(earlier, self._result_for(earlier, hospital)) for earlier in self.plan.lineage(step)]
        own = {earlier.name: result for earlier, result in found if earlier.scope == "all_but_one"}
        results = {earlier.name: result for earlier, result in found if earlier.name not in own}
        told = {name: value for name, value in state.items() if name != HUB}
        return Ask(self.name, self.plan.study, step.name, round_, members, told, results, own, fold, alone).to_bytes()

    def _result_for(self, earlier: Step, hospital: str) -> bytes | None:
        folds = self.outcomes[earlier.name].folds
        fold = folds.get(hospital) if earlier.scope == "all_but_one" else folds.get(None)
        if not fold or not fold.working:
            return None
        # Hospitals derive columns from `portable`; exact totals in tables and facts are none of their business.
        return pack_result(replace(fold.working, tables={}, facts={}, fitted=None, notes=()))

    def _working(self, step: Step) -> dict[str, Result]:
        """Results of the steps used, where there is one for everybody."""
        found = {name: self.outcomes[name].folds.get(None) for name in step.uses}
        return {name: fold.working for name, fold in found.items() if fold and fold.working}

    # ── who takes part ──

    @property
    def taking_part(self) -> tuple[str, ...]:
        return tuple(name for name in self.hospitals if name not in self.dropped)

    def _drop(self, errors: Mapping[str, DureError]) -> bool:
        """Leave out hospitals whose cohort is too small, or that the quorum does not wait for; True if the step can
        start again without them. Where sums with and without them show them, each must have permitted it.
        """
        rest = self._rest(errors)
        if rest is None:
            return False
        forbidden = self._forbidden(rest)
        if forbidden:
            raise RunWaits("every step", forbidden, "difference")
        self.dropped.update(errors)
        self.ledger.write("", None, pack({name: error_data(error) for name, error in self.dropped.items()}))
        for name, error in errors.items():
            self.progress("dropped", {"hospital": name, "error": error})
        return True

    def _rest(self, errors: Mapping[str, DureError]) -> list[str] | None:
        """Who remains if all of these can be left out."""
        rest = [name for name in self.taking_part if name not in errors]
        enough = not self.quorum or self.quorum.met(rest, self.joined)
        return rest if enough and all(self._left_out(error) for error in errors.values()) else None

    def _same_without(
        self,
        step: Step,
        fold: str | None,
        round_: int,
        state: dict[str, Any],
        sent: Declaration,
        errors: Mapping[str, DureError],
    ) -> bool:
        """Whether a first round's sum may be opened without some hospitals: they can be left out, and the others would
        be asked and would send the same if those had not been there."""
        rest = self._rest(errors)
        if round_ or rest is None or self._forbidden(rest):
            return False
        members = tuple(name for name in rest if name != fold)
        if not members or len(members) < self.limits.minimum_hospitals:
            return False
        question = self.plan.question(step, members, self._working(step))
        alike = self.plan.method(step).start(question)
        same = pack(alike) == pack(state) and gate.sent(self.plan.method(step).declare(question, alike)) == sent
        return same and not self._forbidden(members)

    def _left_out(self, error: DureError) -> bool:
        if isinstance(error, Refused):
            return error.rule == "minimum_cohort"
        return (
            bool(self.quorum and self.quorum.answer_within)
            and isinstance(error, SiteError | PermitError)
            and not isinstance(error, SitePaused | SumRefused)
        )

    def _recall_dropped(self) -> None:
        entry = self.ledger.read("", None)
        if entry:
            self.dropped.update({name: error_from(data) for name, data in unpack(entry).items()})

    # ── the ledger ──

    def _write(
        self,
        step: Step,
        fold: str | None,
        round_: int,
        state: dict[str, Any],
        left: list[Left],
        status: Status | Literal["running"],
        result: bytes | None,
        error: DureError | None,
    ) -> None:
        entry = {
            "round": round_,
            "state": state,
            "hospitals": list(self._members(fold)),
            "left": [list(FIELDS(item)) for item in left],
            "status": status,
            "result": result,
            "error": error_data(error) if error else None,
        }
        self.ledger.write(step.name, fold, pack(entry))
        if status != "running":
            self.progress("ended", {"step": step.name, "fold": fold, "status": status, "error": error})

    def _recorded(self, step: Step, fold: str | None, left: list[Left], released: bool = False) -> Fold:
        """The fold as the ledger has it, with release rules applied."""
        stored = unpack(self.ledger.read(step.name, fold) or b"")
        left += [read_left(raw) for raw in stored["left"]]
        error = error_from(stored["error"], fold or "", step.name) if stored["error"] else None
        if not stored["result"]:
            return Fold(stored["status"], stored["round"], error=error)
        working = unpack_result(stored["result"])
        if released:
            return Fold("finished", stored["round"], None, working)
        try:
            check_model(working, self.limits)
            if not self.plan.step(step.name).release:
                return Fold("finished", stored["round"], working)
            shown = release(working, self.limits)
            self._within_cap(working, shown)
        except Refused as refused:
            ran = self.plan.step(step.name)
            question = self.plan.question(ran, tuple(stored["hospitals"]), self._working(ran))
            find_setting(refused, self.plan.method(ran), question, {})
            return Fold("refused", stored["round"], error=refused)
        return Fold("finished", stored["round"], working, shown)

    def _within_cap(self, working: Result, shown: Result) -> None:
        if not self.cap:
            return
        before = [fold for outcome in self.outcomes.values() for fold in outcome.folds.values() if fold.released]
        people = [result.facts.get("n") for result in (working, *(fold.working for fold in before if fold.working))]
        released = numbers(shown) + sum(numbers(fold.released) for fold in before if fold.released)
        released += self.released_before
        most = max((value for value in people if isinstance(value, int)), default=0)
        if most and released > self.limits.numbers_per_person * most:
            raise refusal("numbers_per_person")


def find_setting(error: Refused, method: Method, question: Question, arrays: Summary) -> None:
    """Name a setting that would pass, where the method knows one (`dure.study.method.Method`)."""
    remedy = getattr(method, "remedy", None)
    setting = remedy(question, error, arrays) if remedy else None
    if setting:
        error.would_pass(setting)
