"""Whatever goes wrong, no patient's value stands in an error, a repr or an answer's bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest

from dure.client.simulate import run_frames
from dure.errors import DureError
from dure.estimation.likelihood import ModelRows
from dure.federation.answer import Desk
from dure.federation.kept import InMemory
from dure.federation.ledger import InMemoryLedger
from dure.federation.messages import Ask, error_data
from dure.guard.rules import DEFAULT, OFF, Limits
from dure.study.method import installed_methods
from dure.study.packing import unpack
from dure.study.rows import Column, Rows
from dure.study.spec import Step

NUMBER, WORD = 987654.321, "비밀환자"
TRACES = (b"987654", WORD.encode(), np.float64(NUMBER).tobytes())


def frame(n: int = 40, **columns: Any) -> pl.DataFrame:
    random = np.random.default_rng(3)
    base = {
        "y": (np.arange(n) % 2).astype(float),
        "x": np.full(n, NUMBER) + random.normal(size=n),
        "word": [WORD, *["u", "v"] * n][:n],
        "time": random.uniform(0, 9, n),
        "secret": np.full(n, NUMBER),
    }
    return pl.DataFrame({**base, **columns})


LEVELS = {
    "y": Column("flag", ("0", "1")),
    "x": Column("number"),
    "word": Column("category", ("u", "v")),
    "time": Column("number"),
    "secret": Column("number"),
    "gone": Column("number"),
}

REGRESSION: list[dict[str, Any]] = [
    {"formula": "y ~ x + word", "family": "binomial"},
    {"formula": "y ~ C(word)", "family": "binomial"},
    {"formula": "word ~ x", "family": "binomial"},
    {"formula": "y ~ word:x + I(word)", "family": "binomial"},
    {"formula": "x ~ time", "family": "binomial"},
    {"formula": "x ~ time", "family": "poisson", "weights": "secret"},
    {"formula": "y ~ x", "family": "binomial", "weights": "word"},
    {"formula": "y ~ x", "family": "binomial", "offset": "word"},
    {"formula": "y ~ gone", "family": "binomial"},
    {"formula": "y ~ secret", "family": "binomial"},
    {"formula": "y ~ I(x > 987650)", "family": "binomial"},
    {"formula": "y ~ nothere", "family": "binomial"},
    {"formula": "y ~ I(y * 1)", "family": "binomial"},
]
QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    *(("regression", parameters) for parameters in REGRESSION),
    ("survival", {"time": "secret", "event": "x", "grid": {"width": 1, "until": 9}}),
    ("survival", {"time": "time", "event": "secret", "grid": {"width": 1, "until": 9}}),
    ("survival", {"time": "word", "event": "y", "grid": {"width": 1, "until": 9}}),
    ("survival", {"time": "time", "event": "y", "group": "word", "grid": {"width": 1, "until": 9}}),
    ("table_one", {"variables": ["word"]}),
    ("table_one", {"variables": ["x"], "by": "word"}),
    ("table_one", {"variables": ["gone"]}),
    ("validation", {"outcome": "secret", "scores": ["x"]}),
    ("validation", {"outcome": "word", "scores": ["x"]}),
    ("validation", {"outcome": "y", "scores": ["word"]}),
]


def attempts(rules: Limits) -> Mapping[str, Any]:
    """Hospitals whose data fit, do not fit, and are too few."""
    return {
        "one": {name: frame() for name in "abc"},
        "few": {"a": frame(3), "b": frame(), "c": frame(), "d": frame()},
        "text in numbers": {name: frame(x=[WORD] * 40, y=[WORD] * 40) for name in "abc"},
        "negative": {name: frame(time=[-NUMBER] * 40, secret=[-NUMBER] * 40, x=[-NUMBER] * 40) for name in "abc"},
        "two": {name: frame() for name in "ab"},
    }


def assert_no_trace(data: bytes, where: str) -> None:
    for trace in TRACES:
        assert trace not in data, f"a value stands in {where}"


@pytest.mark.parametrize("rules", [DEFAULT, OFF], ids=["default", "off"])
@pytest.mark.parametrize("case", ["one", "few", "text in numbers", "negative", "two"])
def test_no_value_stands_in_an_error_or_its_bytes(case: str, rules: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    import dure.client.simulate as module

    replies: list[bytes] = []
    answerer = module._answerer

    def listening(desk: Desk) -> Any:
        real = answerer(desk)

        def answer(message: bytes) -> bytes:
            replies.append(real(message))
            return replies[-1]

        return answer

    monkeypatch.setattr(module, "_answerer", listening)
    provoked = set()
    for method, parameters in QUESTIONS:
        step = Step(name="s", method=method, parameters=parameters)
        ledger = InMemoryLedger()
        replies.clear()
        try:
            outcomes, run = run_frames(attempts(rules)[case], (step,), rules, columns=LEVELS, ledger=ledger)
        except DureError as error:
            errors = [error]
        else:
            errors = [fold.error for fold in outcomes["s"].folds.values() if fold.error] + list(run.dropped.values())
        for error in errors:
            provoked.add(error.code())
            said = " ".join([error.text("en"), error.text("ko"), repr(error), str(error_data(error)), str(error.args)])
            assert_no_trace(said.replace("987650", "").encode(), f"{error.code()} of {method} {parameters}")
        for reply in replies:
            if unpack(reply)["kind"] == "error":
                assert_no_trace(reply, f"an error reply of {method} {parameters}")
    assert provoked


@pytest.mark.parametrize("kind", ["rows", "desk", "model rows", "example"])
def test_no_value_stands_in_a_repr(kind: str) -> None:
    """Reprs end in logs and tracebacks."""
    held = frame()
    rows = Rows(held, "a", LEVELS, (40,), np.full(40, 987654))
    rows.numbers("x")
    found: object = rows
    if kind == "desk":
        step = Step(name="s", method="feasibility")
        from dure.federation.plan import Plan

        plan = Plan("s", (step,), LEVELS, installed_methods())
        found = Desk("a", plan, frozenset(), DEFAULT, lambda: rows, InMemory())
    elif kind == "model rows":
        values = np.full(5, NUMBER)
        found = ModelRows(values[None, :], values, values, values)
    elif kind == "example":
        found = (rows, {"rows": rows})
    assert_no_trace(repr(found).encode(), f"the repr of {kind}")
    assert_no_trace(str(found).encode(), f"the text of {kind}")


def test_what_a_hospital_kept_stands_in_no_repr() -> None:
    from dure.federation.kept import Remembered

    assert "PATIENT" not in repr(Remembered("d", b"", b"PATIENT"))
    assert "987654" not in repr(Ask("r", "s", "t", 0, ("a",)))
