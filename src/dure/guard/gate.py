"""The gate: the only way out of a hospital. It compares what is about to leave with what was declared and
with the rules, withholds what may not be seen alone, and refuses the rest.

Counts and cells appear only in `Refused.detail`, which stays at the hospital.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dure.errors import Refused
from dure.guard.rules import Limits, refusal
from dure.language import Words
from dure.study.permit import Grant
from dure.study.summary import Array, ArraySpec, Declaration, Summary, withheld_spec

TWO_VALUES = 0.1
"""Share of a column's kurtosis beyond that of two values; a normal column has 0.67, an exponential one 0.44."""


@dataclass(frozen=True)
class Asked:
    """The circumstances of one round: who takes part, this hospital's place among them, what it granted."""

    hospital: str
    hospitals: tuple[str, ...]
    cohort: int
    grants: frozenset[Grant]
    limits: Limits
    differs: bool = False
    """Sums whose participants differ by fewer than the minimum of hospitals are asked (leave-one-out)."""
    noisy: bool = False
    """Counts carry noise already (an open question): they may be negative, and a small cohort is hidden by the noise,
    where a refusal would tell that it is small."""


@dataclass(frozen=True)
class Passed:
    """What may leave: the summary with companions of withheld cells, and the rules that were applied."""

    summary: Summary
    rules: dict[str, tuple[str, ...]]
    withheld: dict[str, int] = field(default_factory=dict)


def sent(declaration: Declaration) -> Declaration:
    """Everything a round sends: the declared arrays and the companions of per-hospital ones."""
    companions = tuple(withheld_spec(spec) for spec in declaration if spec.per_hospital)
    return declaration + companions


def before_rows(asked: Asked) -> None:
    """Checks that need no row: enough hospitals, permission for differences. Raises Refused."""
    few = len(asked.hospitals) < asked.limits.minimum_hospitals
    if few and "per_hospital" not in asked.grants:
        raise refusal("minimum_hospitals")
    if asked.differs and "difference" not in asked.grants:
        raise refusal("difference_permit")


def check(summary: Summary, declaration: Declaration, asked: Asked) -> Passed:
    """What may leave of `summary`. Raises Refused with the rule's name; see the module's first lines."""
    before_rows(asked)
    if 0 < asked.cohort < asked.limits.minimum_cohort and not asked.noisy:
        raise _detailed(refusal("minimum_cohort"), f"cohort of {asked.cohort}")
    if any(spec.per_hospital or spec.opens_hospitals for spec in declaration) and "per_hospital" not in asked.grants:
        raise refusal("per_hospital_permit")
    _as_declared(summary, declaration, asked.noisy)
    leaving: Summary = {}
    withheld: dict[str, int] = {}
    few = len(asked.hospitals) < asked.limits.minimum_hospitals
    for spec in declaration:
        values = np.asarray(summary[spec.name], dtype=spec.dtype)
        if spec.per_hospital:
            codes = _withhold(summary, spec, asked)
            leaving[spec.name] = np.where(codes > 0, np.zeros_like(values), values)
            leaving[withheld_spec(spec).name] = codes
            withheld[spec.name] = int((codes > 0).sum())
            continue
        if spec.kind == "count" and spec.on_small == "refuse" and (few or spec.opens_hospitals):
            _alone(values, spec, summary, asked, zeros=not spec.opens_hospitals)
        leaving[spec.name] = values
    rules = {spec.name: rules_of(spec, few) for spec in sent(declaration)}
    return Passed(leaving, rules, withheld)


def check_total(total: Summary, declaration: Declaration, limits: Limits) -> None:
    """Rules on an opened sum, before the method sees it: small cells of arrays that refuse. Raises Refused."""
    for spec in declaration:
        if spec.sides:
            _two_sides(np.asarray(total[spec.name]), spec, limits)
        if spec.kind != "count" or spec.on_small != "refuse" or spec.per_hospital:
            continue
        small = _small(np.asarray(total[spec.name]), spec, total, limits.minimum_people)
        if small.any():
            error = refusal("minimum_people", way_out=_way_out(np.asarray(total[spec.name]), small, spec, limits))
            error.cells = {spec.name: small}
            raise error


def _two_sides(powers: NDArray[np.float64], spec: ArraySpec, limits: Limits) -> None:
    """A dummy of three people coded 1 and 2, or made by arithmetic, has no zeros to count. But of all columns only
    those of two values reach kurtosis = skewness² + 1 (Pearson 1916), and then the skewness gives both sides."""
    people, squares, cubes, fourths = powers.T
    with np.errstate(all="ignore"):
        spread = squares / people
        skewness, kurtosis = cubes / people / spread**1.5, fourths / people / spread**2
        between = (kurtosis - skewness**2 - 1) / kurtosis  # 0: exactly two values
        smaller = people * (0.5 - np.abs(skewness) / np.sqrt(skewness**2 + 4) / 2)
    hidden = (between < TWO_VALUES) & (smaller < limits.minimum_people - 0.5) & (squares > 0)
    if hidden.any():
        names = ", ".join(spec.labels[place] for place in np.flatnonzero(hidden)[:4])
        way_out = Words(
            f"Too few people differ from all others in: {names}. Take its logarithm, cap it, use coarser levels, or "
            f"leave it out.",
            f"다른 모든 사람과 다른 사람이 너무 적은 항: {names}. "
            f"로그를 취하거나 상한을 두거나 더 굵게 나누거나 빼십시오.",
        )
        error = refusal("minimum_people", way_out=way_out)
        error.cells = {spec.name: hidden}
        raise error


def _as_declared(summary: Summary, declaration: Declaration, noisy: bool = False) -> None:
    if set(summary) != {spec.name for spec in declaration}:
        raise refusal("as_declared")
    for spec in declaration:
        values = np.asarray(summary[spec.name])
        numbers = values.dtype.kind in ("iu" if spec.kind == "count" else "iuf")
        if values.shape != spec.shape or not numbers or not np.isfinite(values).all():
            raise _detailed(refusal("as_declared", spec.name), f"shape {values.shape}, type {values.dtype}")
        if spec.kind == "count" and not noisy and (values < 0).any():
            raise refusal("as_declared", spec.name)


def _withhold(summary: Summary, spec: ArraySpec, asked: Asked) -> NDArray[np.int64]:
    """0 where a number of this hospital may be seen alone, else 1 + the class that is too small."""
    here = asked.hospitals.index(asked.hospital)
    others = np.delete(np.asarray(summary[spec.name]), here, axis=0)
    if others.any():
        raise refusal("as_declared", spec.name)
    codes = np.zeros(spec.shape, dtype=np.int64)
    # A number behind which nobody stands is no number, even where no rule applies (an AUROC of one class).
    minimum = asked.limits.minimum_people if spec.kind == "count" else max(1, asked.limits.minimum_people)
    if spec.kind == "count":
        classes = [np.asarray(summary[spec.name])]
        if spec.whole:
            classes.append(np.broadcast_to(_aligned(summary[spec.whole], spec), spec.shape) - classes[0])
    else:
        classes = [np.broadcast_to(_aligned(summary[name], spec), spec.shape) for name in spec.people]
    for code, people in reversed(list(enumerate(classes, start=1))):
        codes[here] = np.where(people[here] < minimum, code, codes[here])
    return codes


def _aligned(counts: Array, spec: ArraySpec) -> NDArray[np.int64]:
    """Counts over the leading axes of an array, with trailing axes added so that they broadcast to it."""
    people = np.asarray(counts, dtype=np.int64)
    return people.reshape(people.shape + (1,) * (len(spec.shape) - people.ndim))


def _alone(values: NDArray[np.int64], spec: ArraySpec, summary: Summary, asked: Asked, zeros: bool) -> None:
    """This hospital's cells stand alone (too few hospitals, or a `site` term): its own counts must pass."""
    small = values < asked.limits.minimum_people
    if spec.whole and zeros:
        small |= _aligned(summary[spec.whole], spec) - values < asked.limits.minimum_people
    if not zeros:
        small &= values > 0
    if asked.cohort and small.any():
        places = np.flatnonzero(np.atleast_1d(small))
        names = [spec.labels[place] if spec.labels else spec.name for place in places[:5]]
        raise _detailed(refusal("minimum_people"), f"{', '.join(names)}: {np.atleast_1d(values)[places[:5]].tolist()}")


def _small(values: NDArray[np.int64], spec: ArraySpec, summary: Summary, minimum: int) -> NDArray[np.bool_]:
    small = values < minimum
    if spec.whole:
        small = small | (_aligned(summary[spec.whole], spec) - values < minimum)
    return np.asarray(small)


def _way_out(values: NDArray[np.int64], small: NDArray[np.bool_], spec: ArraySpec, limits: Limits) -> Words:
    """Which levels to merge so that the rule would pass; names of cells come from the study, no count does."""
    places = np.flatnonzero(np.atleast_1d(small))
    names = [spec.labels[place] for place in places] if spec.labels else []
    single = [name for name in names if " & " not in name]
    if not names:
        return refusal("minimum_people").way_out
    shown = ", ".join((single or names)[:4])
    merge = _merge(np.atleast_1d(values), spec, single[0], limits) if single and "=" in single[0] else None
    if merge:
        return Words(
            f"Too few people behind: {shown}. Merging {merge} would pass for that level.",
            f"사람이 너무 적은 곳: {shown}. {merge}을(를) 합치면 그 수준은 통과합니다.",
        )
    return Words(
        f"Too few people behind: {shown}. Merge levels, or leave the term out.",
        f"사람이 너무 적은 곳: {shown}. 수준을 합치거나 항을 빼십시오.",
    )


def _merge(values: NDArray[np.int64], spec: ArraySpec, label: str, limits: Limits) -> str | None:
    """The smallest other level of the same column with which `label` would have enough people."""
    column = label.split("=")[0]
    siblings = [i for i, name in enumerate(spec.labels) if " & " not in name and name.split("=")[0] == column]
    here = spec.labels.index(label)
    partners = [i for i in siblings if i != here and values[i] + values[here] >= limits.minimum_people]
    if len(siblings) < 3 or not partners:
        return None
    partner = min(partners, key=lambda i: int(values[i]))
    return f"'{label.split('=', 1)[1]}' + '{spec.labels[partner].split('=', 1)[1]}' ({column})"


def rules_of(spec: ArraySpec, few: bool) -> tuple[str, ...]:
    """Names of the rules an array passed; `few`: fewer hospitals than make a sum."""
    alone = spec.per_hospital or spec.opens_hospitals or few
    named = ["as_declared", "minimum_cohort", "minimum_hospitals"]
    named += ["per_hospital_permit", "minimum_people"] if alone else []
    return tuple(named)


def _detailed(error: Refused, detail: str) -> Refused:
    """For the hospital's own audit log only."""
    error.detail = detail
    return error
