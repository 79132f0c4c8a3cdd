"""Open feasibility at a hospital that offers it: its permit without a board, its noise, and its budget."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dure.errors import PermitError
from dure.guard.budget import check_budget, loss, with_noise
from dure.language import Words
from dure.site import inbox
from dure.site.history import HistoryStore
from dure.site.settings import OpenFeasibility, Site
from dure.study.method import Methods, Question, find_method, source_hash
from dure.study.permit import Permit, permitted_step
from dure.study.spec import Study
from dure.study.summary import Summary

VALID = timedelta(days=30)
MONTH = timedelta(days=30)


def admit(site: Site, study: Study, methods: Methods) -> bool:
    """Sign the hospital's permit for an open question as soon as it arrives; False where the hospital does not offer
    this, or the study asks for more than it offers: then its boards decide as on any study."""
    offered = site.file.open_feasibility
    if offered is None or study.open is None or study.open.epsilon > offered.epsilon_per_study:
        return False
    now = datetime.now(UTC)
    document = Permit(
        study=study.hash,
        hospital=site.hospital,
        methods={step.method: source_hash(find_method(step.method, methods)) for step in study.steps},
        steps={step.name: permitted_step(step) for step in study.steps},
        cohort=study.cohort_hash,
        limits=site.file.limits,
        rules=site.limits.model_dump(),
        open=study.open.epsilon,
        issued=now,
        expires=now + VALID,
    )
    inbox.keep_permit(site, document, grants=[], open=study.open.epsilon)
    return True


def check_open(site: Site, permit: Permit, study: Study) -> None:
    """Raise PermitError unless the hospital still answers such questions, and the study asks for what was permitted."""
    if permit.open is None:
        return
    offered = site.file.open_feasibility
    if offered is None or study.open is None or study.open.epsilon != permit.open:
        problem = Words("It does not answer open questions", "공개 질문에는 답하지 않습니다")
        raise PermitError(hospital=site.hospital, problem=problem)


@dataclass
class OpenNoise:
    """The noise of one study's answers. Each draws on the proposer's budget: looked at before the noise is drawn, and
    charged in the transaction that remembers the answer, so that what never left costs nothing."""

    store: HistoryStore
    study: Study
    proposer: str
    offered: OpenFeasibility
    methods: Methods
    _owed: float = 0.0

    def __call__(self, counts: Summary, question: Question) -> Summary:
        """The counts with noise; raises Refused (`budget`) or MissingPackage."""
        assert self.study.open is not None
        epsilon = self.study.open.epsilon / len(self.study.steps)
        sensitivity = find_method("feasibility", self.methods).sensitivity(question)  # type: ignore[attr-defined]
        self._owed = loss(sensitivity, epsilon)
        with self.store.transaction() as connection:
            self._check(connection)
        return with_noise(counts, sensitivity, epsilon)

    def charge(self, connection: sqlite3.Connection) -> None:
        """Write down what the answer costs; raises Refused where another answer has spent it meanwhile."""
        self._check(connection)
        values = (self.proposer, self.study.hash, self._owed, self.store.now().isoformat())
        connection.execute("INSERT INTO charge (proposer, study, epsilon, time) VALUES (?, ?, ?, ?)", values)

    def _check(self, connection: sqlite3.Connection) -> None:
        assert self.study.open is not None
        query = "SELECT epsilon FROM charge WHERE proposer = ? AND study = ?"
        spent = [found for (found,) in connection.execute(query, (self.proposer, self.study.hash))]
        most = min(self.study.open.epsilon, self.offered.epsilon_per_study)
        check_budget(spent, self._owed, most, "this study")
        query, since = "SELECT epsilon FROM charge WHERE proposer = ? AND time > ?", self.store.now() - MONTH
        spent = [found for (found,) in connection.execute(query, (self.proposer, since.isoformat()))]
        check_budget(spent, self._owed, self.offered.epsilon_per_month, "30 days of this proposer")
