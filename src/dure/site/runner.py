"""A hospital's runner: permit → cohort → answer, masked where it is part of a sum. Nothing is read before the permit
allows it, and no part of a sum leaves in the clear unless the permit says so."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import polars as pl

from dure.errors import DureError, PermitError
from dure.federation.answer import Desk, answer, part
from dure.federation.messages import Answer, Ask, error_data
from dure.federation.plan import Plan, plan_of
from dure.federation.secure_sum.exchange import Exchange, read_question
from dure.federation.secure_sum.member import Member
from dure.federation.secure_sum.record import Record
from dure.federation.secure_sum.refusals import refusal
from dure.guard.audit import digest
from dure.guard.rules import Limits, strictest, with_overrides
from dure.language import Words
from dure.omop.cohort_query import cohort_rows
from dure.site import inbox
from dure.site.egress import FILE, Egress
from dure.site.history import HistoryStore, StudyHistory
from dure.site.memory import StoredMemory
from dure.site.open_feasibility import OpenNoise, check_open
from dure.site.peers import Peers
from dure.site.settings import Site
from dure.study.method import Methods, find_method, source_hash
from dure.study.permit import Permit, check_permit, check_scope, verify
from dure.study.rows import Rows
from dure.study.spec import Study


class Runner:
    """Answers the hub's questions for one hospital; hand `Runner.answer` to an engine."""

    def __init__(self, site: Site, methods: Methods) -> None:
        self.site, self.methods = site, methods
        self._rows: dict[str, Rows] = {}

    @cached_property
    def memory(self) -> StoredMemory:
        return StoredMemory(self.site.folder / "rounds.db")

    @cached_property
    def egress(self) -> Egress:
        return Egress(self.site.folder / FILE, self.site.file.keep_weights)

    @cached_property
    def history(self) -> HistoryStore:
        return HistoryStore(self.site.folder / "history.db")

    @cached_property
    def sums(self) -> Record:
        """What this hospital has said in masked sums, and the secrets of those that are not over."""
        return Record(self.site.folder / "sums.db")

    def answer(self, message: bytes) -> bytes:
        """The reply's bytes; every refusal and failure is a reply too."""
        try:
            ask = read_question(message)
        except (ValueError, TypeError, KeyError):
            problem = Words("The question cannot be read", "질문을 읽을 수 없습니다")
            return self._no(PermitError(hospital=self.site.hospital, problem=problem))
        try:
            return self._answer(ask)
        except MemoryError:  # the hospital's limit for one run; the worker says so
            self._log_failure(ask, "out-of-memory")
            raise
        except Exception as error:  # the hub hears that something failed; the error's words might hold a value
            if type(error).__name__ == "OutOfMemoryException":  # DuckDB's, which this room cannot import by name
                raise MemoryError from None
            self._log_failure(ask, type(error).__name__)
            return Answer(self.site.hospital, "error", error={"code": "unexpected", "fields": {}}).to_bytes()

    def _answer(self, ask: Ask | Exchange) -> bytes:
        try:
            study = inbox.study_of(self.site, ask.study)
            permit = self._permit(ask, study)
            limits = strictest((self.site.limits, with_overrides(permit.rules)))  # none looser than was permitted
            plan = plan_of(study, self.methods, limits.minimum_people)
            self._check_masks(ask, permit)
        except DureError as error:
            self._log_failure(ask, error.code())
            return self._no(error)
        desk = Desk(
            self.site.hospital,
            plan,
            permit.grants(),
            limits,
            lambda: self.rows(study, plan),
            self.memory,
            self.site.audit,
            digest(inbox.own_permit(self.site, ask.study)),
            lambda departure: self.egress.write(departure, study, desk.permit),
            *self._beside(study, plan, permit, limits),
            masked=isinstance(ask, Exchange),
            still=lambda: self._permit(ask, study),
        )
        if isinstance(ask, Exchange):
            return self._member(desk).answer(ask, lambda asked: part(asked, desk))
        return answer(ask, desk)

    def _check_masks(self, ask: Ask | Exchange, permit: Permit) -> None:
        """A part of a sum leaves in the clear only where this hospital's permit says so; raises SumRefused."""
        if isinstance(ask, Ask) and not ask.alone and len(ask.hospitals) > 1 and not permit.visible_updates:
            raise refusal(self.site.hospital, "unmasked")

    def _beside(
        self, study: Study, plan: Plan, permit: Permit, limits: Limits
    ) -> tuple[StudyHistory, OpenNoise | None]:
        """The study beside earlier ones, and its noise where it was asked openly."""
        proposer, offered = inbox.proposer(self.site, study.hash), self.site.file.open_feasibility
        noise = None
        if permit.open is not None and offered is not None:
            noise = OpenNoise(self.history, study, proposer, offered, self.methods)
        charge = noise.charge if noise else None
        return StudyHistory(self.history, study, plan, permit, limits, proposer, charge), noise

    def _member(self, desk: Desk) -> Member:
        signer = self.site.signer()
        return Member(
            desk.hospital,
            bytes.fromhex(self.site.public_key()["keyval"]["public"]),
            lambda statement: bytes.fromhex(signer.sign(statement).signature),
            Peers(self.site),
            self.sums,
            desk.limits.minimum_hospitals,
            desk.grants,
            desk.log,
        )

    def rows(self, study: Study, plan: Plan) -> Rows:
        """The cohort's rows, read from the database once per study and process."""
        if study.hash not in self._rows:
            found = cohort_rows(self.site.database, study.cohort, dict(study.variables))
            frame = pl.from_arrow(found.table)
            assert isinstance(frame, pl.DataFrame)
            person = frame["person_id"].to_numpy().astype(np.int64)
            rows = Rows(frame.drop("person_id"), self.site.hospital, plan.columns, found.attrition, person)
            self._rows[study.hash] = rows
        return self._rows[study.hash]

    def _permit(self, ask: Ask | Exchange, study: Study) -> Permit:
        """This hospital's own permit, checked against the question; raises PermitError."""
        envelope = inbox.own_permit(self.site, ask.study)
        if envelope is None:
            problem = Words("It has not permitted this study", "이 연구를 허가하지 않았습니다")
            raise PermitError(hospital=self.site.hospital, problem=problem)
        permit = verify(envelope, self.site.signer().public_key, self.site.hospital)
        steps = (ask.step, *study.lineage(ask.step))  # what earlier steps derive is computed here too
        for name in dict.fromkeys(study.step(step).method for step in steps):  # each source is read once
            method = find_method(name, self.methods)
            check_permit(permit, study.hash, method.name, source_hash(method))
        for step in steps:
            check_scope(permit, study, step)
        check_open(self.site, permit, study)
        return permit

    def _log_failure(self, ask: Ask | Exchange, error: str) -> None:
        self.site.audit.append("failed", error=error, run=ask.run, study=ask.study, step=ask.step)

    def _no(self, error: DureError) -> bytes:
        return Answer(self.site.hospital, "error", error=error_data(error)).to_bytes()
