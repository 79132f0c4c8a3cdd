"""The interface of summing: what a round gets from its hospitals. `secure_sum` fills it, and `plain_sum`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dure.errors import DureError
from dure.federation.engine import Engine
from dure.study.summary import Declaration, Summary


@dataclass(frozen=True, slots=True)
class Left:
    """One array that left one hospital in one round: what a board reads afterwards."""

    hospital: str
    step: str
    round: int
    array: str
    shape: tuple[int, ...]
    bytes: int
    rules: tuple[str, ...]
    fold: str | None = None


@dataclass(frozen=True)
class Opened:
    """The opened sum of a round, or none if somebody did not answer; and who did not, and why.

    With a total, `errors` are of hospitals that are not in it, and `without` allowed that.
    """

    total: Summary | None
    left: tuple[Left, ...] = ()
    errors: Mapping[str, DureError] = field(default_factory=dict)
    results: Mapping[str, bytes] = field(default_factory=dict)
    withheld: bool = False
    """The sum was opened, and some hospital, nobody knows which, had no numbers for it: there is no total."""


def never(errors: Mapping[str, DureError]) -> bool:
    """Open nothing unless everybody answered."""
    return False


def told_apart(
    earlier: Iterable[Collection[str]], now: Collection[str], granted: Collection[str], minimum: int
) -> set[str]:
    """Hospitals whose numbers this sum and an earlier one would tell apart from the others', and that did not grant it.

    Among those that did not, one set has to lie within the other and leave `minimum` hospitals between them, or
    none. Sets of one study that all lie within each other leave no small group, however their sums are added up; where
    they may overlap, {A,B,C} + {A,D,E} - {B,C,D,E} is twice A.
    """
    found: set[str] = set()
    here = set(now) - set(granted)
    for names in earlier if minimum > 1 else ():  # else each hospital's own sum may be opened
        there = set(names) - set(granted)
        changed = here ^ there
        if changed and not (len(changed) >= minimum and (here <= there or there <= here)):
            found |= changed
    return found


class Summing(Protocol):
    def collect(
        self,
        engine: Engine,
        messages: Mapping[str, bytes],
        declaration: Declaration,
        step: str,
        round: int,
        fold: str | None,
        without: Callable[[Mapping[str, DureError]], bool] = never,
    ) -> Opened:
        """Ask everybody, add what comes, keep no single hospital's part. `without` says whether the sum of the others
        may be opened where some gave nothing; it may not be asked."""
        ...
