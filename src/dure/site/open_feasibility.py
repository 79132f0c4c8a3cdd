"""Open feasibility at a hospital that offers it: its permit without a board, its noise, and its budget."""

from __future__ import annotations

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


@dataclass(frozen=True)
class OpenNoise:
    """The noise of one study's answers; each draws on the proposer's budget before it is computed."""

    store: HistoryStore
    study: Study
    proposer: str
    offered: OpenFeasibility
    methods: Methods

    def __call__(self, counts: Summary, question: Question) -> Summary:
        """The counts with noise; raises Refused (`budget`) or MissingPackage."""
        assert self.study.open is not None
        epsilon = self.study.open.epsilon / len(self.study.steps)
        sensitivity = find_method("feasibility", self.methods).sensitivity(question)  # type: ignore[attr-defined]
        self._charge(loss(sensitivity, epsilon))
        return with_noise(counts, sensitivity, epsilon)

    def _charge(self, epsilon: float) -> None:
        """First the charge, then the noise: a process killed in between has paid for nothing, never got for nothing."""
        assert self.study.open is not None
        now = self.store.now()
        with self.store.transaction() as connection:
            query = "SELECT epsilon FROM charge WHERE proposer = ? AND study = ?"
            spent = [found for (found,) in connection.execute(query, (self.proposer, self.study.hash))]
            most = min(self.study.open.epsilon, self.offered.epsilon_per_study)
            check_budget(spent, epsilon, most, "this study")
            query = "SELECT epsilon FROM charge WHERE proposer = ? AND time > ?"
            spent = [found for (found,) in connection.execute(query, (self.proposer, (now - MONTH).isoformat()))]
            check_budget(spent, epsilon, self.offered.epsilon_per_month, "30 days of this proposer")
            values = (self.proposer, self.study.hash, epsilon, now.isoformat())
            connection.execute("INSERT INTO charge (proposer, study, epsilon, time) VALUES (?, ?, ?, ?)", values)
