"""Sums in the clear: the hub's process holds every hospital's part of a round until it has added them, and stores
none. For simulation, for one hospital's own answers, and where every permit has `visible_updates`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dure.errors import AnswerBroken, DureError, QuorumMissed, RunWaits, SiteFailed
from dure.federation.engine import Engine, Failure
from dure.federation.messages import Answer, error_from
from dure.federation.sums import Left, Opened, never
from dure.language import Words
from dure.study.result import unpack_result
from dure.study.summary import Declaration, Summary, add


@dataclass(frozen=True)
class PlainSum:
    """`timeout` in seconds for one round; who is silent long before that is the engine's to notice."""

    timeout: float = 86_400.0

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
        replies = engine.ask(messages, self.timeout)
        parts: list[Summary] = []
        left: list[Left] = []
        errors: dict[str, DureError] = {}
        results: dict[str, bytes] = {}
        for hospital in messages:  # in the order of the question, so that a rerun adds in the same order
            reply = replies[hospital]
            if isinstance(reply, Failure):
                errors[hospital] = unreachable(hospital, step, reply)
                continue
            try:
                answer = Answer.from_bytes(reply)
                if answer.hospital != hospital:
                    raise ValueError("answered for another hospital")
                if answer.kind == "summary":
                    _fits(answer.arrays, declaration)
                elif answer.kind == "result":
                    unpack_result(answer.result)
                else:
                    errors[hospital] = error_from(answer.error, hospital, step)
                    if isinstance(errors[hospital], RunWaits | QuorumMissed):
                        raise ValueError("it speaks for other hospitals")
                    continue
            except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
                said = str(error) if isinstance(error, ValueError) else "it cannot be read"
                errors[hospital] = AnswerBroken(hospital=hospital, problem=Words(said, said))
                continue
            if answer.kind == "result":
                results[hospital] = answer.result
                rules = tuple(answer.rules.get("result", ()))
                left.append(Left(hospital, step, round, "result", (), len(answer.result), rules, fold))
                continue
            parts.append(answer.arrays)
            left += [
                Left(
                    hospital,
                    step,
                    round,
                    spec.name,
                    spec.shape,
                    spec.bytes,
                    tuple(answer.rules.get(spec.name, ())),
                    fold,
                )
                for spec in declaration
                if spec.bytes  # an array of no numbers (no category was asked for) is not something that left
            ]
        total = add(parts, declaration) if not errors and not results else None
        return Opened(total, tuple(left), errors, results)


def _fits(arrays: Summary, declaration: Declaration) -> None:
    if set(arrays) != {spec.name for spec in declaration}:
        raise ValueError("other arrays than declared")
    for spec in declaration:
        values = np.asarray(arrays[spec.name])
        if values.shape != spec.shape:
            raise ValueError(f"'{spec.name}' has another shape than declared")
        if not np.can_cast(values.dtype, spec.dtype, "same_kind") or not np.isfinite(values).all():
            raise ValueError(f"'{spec.name}' does not hold the numbers declared")


def unreachable(hospital: str, step: str, failure: Failure) -> SiteFailed:
    """The error of a hospital that did not answer."""
    return SiteFailed(
        hospital=hospital,
        step=step,
        problem=Words(f"It did not answer: {failure.reason}.", f"응답이 없었습니다: {failure.reason}."),
        hint=Words("Resume the run once it is back.", "병원이 돌아오면 실행을 이어 가십시오."),
    )
