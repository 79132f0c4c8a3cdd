"""Every method that is lossless gives the same bytes under masked sums and under exact summation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest

from dure.client.simulate import run_frames
from dure.errors import DureError
from dure.federation.ledger import InMemoryLedger
from dure.federation.messages import Answer
from dure.federation.plain_sum import PlainSum
from dure.federation.sums import Opened, Summing, never
from dure.guard.rules import OFF
from dure.study.method import Method, installed_methods
from dure.study.packing import unpack
from dure.study.spec import Step
from dure.study.summary import Declaration

METHODS = list(installed_methods().values())
GRANTS = frozenset(("per_hospital", "difference"))


class ExactSum(PlainSum):
    """Every cell is the float64 nearest to the exact sum (`math.fsum`, which rounds once)."""

    def collect(
        self,
        engine: Any,
        messages: Mapping[str, bytes],
        declaration: Declaration,
        step: str,
        round: int,
        fold: str | None,
        without: Callable[[Mapping[str, DureError]], bool] = never,
    ) -> Opened:
        kept: dict[str, bytes] = {}

        class Keeping:
            def ask(self, messages: Mapping[str, bytes], timeout: float) -> Any:
                kept.update(engine.ask(messages, timeout))
                return kept

        opened = super().collect(Keeping(), messages, declaration, step, round, fold)
        if opened.total is None:
            return opened
        parts = [Answer.from_bytes(reply).arrays for reply in kept.values()]
        for spec in declaration:
            if spec.kind != "count":
                cells = zip(*(np.ravel(part[spec.name]).tolist() for part in parts))
                exact = np.array([math.fsum(cell) + 0.0 for cell in cells], np.float64)
                opened.total[spec.name] = exact.reshape(spec.shape)
        return opened


def unevenly(frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Five hospitals: most people in one, few in another, none in the third."""
    order = np.random.default_rng(5).permutation(frame.height)
    edges = [0, *(round(frame.height * part) for part in (0.6, 0.62, 0.62, 0.85)), frame.height]
    return {f"h{i}": frame[order[a:b].tolist()] for i, (a, b) in enumerate(itertools.pairwise(edges))}


def ledger_of(method: Method, summing: Summing | str) -> dict[tuple[str, str | None], bytes]:
    generator = np.random.default_rng(0)
    example = method.example(generator)
    ledger = InMemoryLedger()
    step = Step(name="step", method=method.name, parameters=dict(example.parameters))
    run_frames(unevenly(example.frame), (step,), OFF, GRANTS, ledger=ledger, summing=summing)
    return ledger.entries


@pytest.mark.parametrize("method", [m for m in METHODS if m.law == "lossless"], ids=lambda method: method.name)
def test_a_lossless_method_gives_the_same_bytes_as_exact_summation(method: Method) -> None:
    found, exact = ledger_of(method, "secure"), ledger_of(method, ExactSum())
    assert found.keys() == exact.keys()
    masked, plain = unpack(found["step", None]), unpack(exact["step", None])
    assert plain["status"] == "finished"
    assert masked["round"] == plain["round"]
    assert masked["result"] == plain["result"]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_method_runs_under_masked_sums_and_twice_alike(method: Method) -> None:
    one, other = ledger_of(method, "secure"), ledger_of(method, "secure")
    assert unpack(one["step", None])["status"] == "finished"
    assert one == other
