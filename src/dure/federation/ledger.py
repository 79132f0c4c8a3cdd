"""What a run leaves: the fold and outcome of each step, and the ledger from which any run resumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from dure.errors import DureError, MissingPackage, NotEstimable, PermitError, QuorumMissed, Refused, RunWaits, SiteError
from dure.federation.sums import Left
from dure.study.result import Result

Status = Literal["finished", "refused", "not_estimable", "waiting", "failed", "skipped"]


@dataclass(frozen=True)
class Fold:
    """One loop of a step (or one hospital's own, for scope `each`): its Result, or why there is none.

    `working` is what later steps build on and stays in the run; `released` is what researchers see.
    """

    status: Status
    rounds: int = 0
    working: Result | None = None
    released: Result | None = None
    error: DureError | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a step: folds by the hospital left out (or answering alone); None for `all`."""

    step: str
    folds: Mapping[str | None, Fold]
    hospitals: tuple[str, ...]
    left: tuple[Left, ...] = ()

    @property
    def status(self) -> Status:
        found = [fold.status for fold in self.folds.values()]
        order: tuple[Status, ...] = ("waiting", "finished", "failed", "refused", "not_estimable")
        return next((status for status in order if status in found), "skipped")


class Ledger(Protocol):
    """The run's truth, by (step, fold); every write is whole or not there at all."""

    def read(self, step: str, fold: str | None) -> bytes | None: ...

    def write(self, step: str, fold: str | None, entry: bytes) -> None: ...


class InMemoryLedger:
    """A ledger for runs that need not survive: `simulate`."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str | None], bytes] = {}

    def read(self, step: str, fold: str | None) -> bytes | None:
        return self.entries.get((step, fold))

    def write(self, step: str, fold: str | None, entry: bytes) -> None:
        self.entries[step, fold] = entry


def status_of(error: DureError | None) -> Status:
    """How a loop stands that ended with this error, or with none."""
    if error is None:
        return "finished"
    if isinstance(error, RunWaits | QuorumMissed | SiteError | PermitError | MissingPackage):
        return "waiting"  # for a hospital: once it is back, has signed or installed, the same run goes on
    if isinstance(error, Refused):
        return "refused"
    return "not_estimable" if isinstance(error, NotEstimable) else "failed"


def first_error(errors: Mapping[str, DureError]) -> DureError:
    """The error a step is recorded with: one that passes comes before one that ends the step."""
    return next((error for error in errors.values() if status_of(error) == "waiting"), next(iter(errors.values())))


def read_left(raw: list[Any]) -> Left:
    """What left, as the ledger wrote it down."""
    hospital, step, round_, array, shape, size, rules, fold = raw
    return Left(hospital, step, round_, array, tuple(shape), size, tuple(rules), fold)
