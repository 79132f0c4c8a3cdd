"""Whatever bytes a hospital sends, the hub names the hospital and goes on; it never falls over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from dure.errors import AnswerBroken, Refused, SiteFailed
from dure.federation.messages import Answer
from dure.federation.plain_sum import PlainSum
from dure.federation.sums import Opened
from dure.study.packing import pack
from dure.study.summary import ArraySpec

DECLARED = (ArraySpec("n", (), "count"), ArraySpec("x", (2,), "moment", people=("n",)))
GOOD: dict[str, Any] = {"n": np.int64(12), "x": np.array([1.0, 2.0])}


def summary(**arrays: Any) -> bytes:
    return Answer("B", "summary", arrays=GOOD | arrays).to_bytes()


def answer(**fields: Any) -> bytes:
    whole = {"hospital": "B", "kind": "summary", "arrays": GOOD, "rules": {}, "result": b"", "error": {}}
    return pack(whole | fields)


def collect(reply: bytes) -> Opened:
    class Line:
        def ask(self, messages: Mapping[str, bytes], timeout: float) -> dict[str, bytes]:
            return {"A": Answer("A", "summary", arrays=GOOD).to_bytes(), "B": reply}

    return PlainSum().collect(Line(), {"A": b"", "B": b""}, DECLARED, "step", 0, None)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\x00",
        b"\xc1",
        b"rubbish",
        summary()[:-3],
        summary() + b"\x00",
        summary(y=np.zeros(2)),
        Answer("B", "summary", arrays={"n": np.int64(12)}).to_bytes(),
        summary(x=np.zeros(3)),
        summary(x=np.array([1.0, np.nan])),
        summary(x=np.array([1.0, np.inf])),
        summary(x="one"),
        summary(x=None),
        summary(n=1.5),
        Answer("A", "summary", arrays=GOOD).to_bytes(),
        answer(kind="sum"),
        answer(rules=[]),
        answer(arrays=[1, 2]),
        answer(hospital=None),
        answer(kind="result", result=b""),
        answer(kind="result", result=b"\x80"),
        answer(kind="error", error=[]),
        answer(kind="error", error={"code": "refused"}),
        answer(kind="error", error={"code": "refused", "fields": {"rule": "x"}}),
        answer(kind="error", error={"code": "refused", "fields": 3}),
        answer(more=1),
    ],
)
def test_a_broken_answer_is_thrown_away_and_its_hospital_named(reply: bytes) -> None:
    opened = collect(reply)
    assert opened.total is None
    assert isinstance(opened.errors["B"], AnswerBroken)
    assert "B" in opened.errors["B"].text("en")
    assert {entry.hospital for entry in opened.left} <= {"A"}


def test_sound_answers_are_added_and_listed() -> None:
    opened = collect(summary())
    assert opened.errors == {}
    assert opened.total is not None
    assert int(opened.total["n"]) == 24
    assert opened.total["x"].tolist() == [2.0, 4.0]
    assert [(entry.hospital, entry.array, entry.bytes) for entry in opened.left] == [
        ("A", "n", 8),
        ("A", "x", 16),
        ("B", "n", 8),
        ("B", "x", 16),
    ]


def test_an_error_that_the_hub_does_not_know_is_a_failure_of_that_hospital() -> None:
    error = collect(answer(kind="error", error={"code": "something-new", "fields": {}})).errors["B"]
    assert isinstance(error, SiteFailed)
    assert "B could not answer the step 'step'" in error.text("en")


def test_a_refusal_keeps_its_rule_and_its_way_out() -> None:
    words = {"en": "Widen it.", "ko": "넓히십시오."}
    fields = {"rule": "minimum_cohort", "reason": words, "way_out": words, "place": ""}
    error = collect(answer(kind="error", error={"code": "refused", "fields": fields})).errors["B"]
    assert isinstance(error, Refused)
    assert error.rule == "minimum_cohort"
    assert error.way_out.ko == "넓히십시오."
    assert error.detail == ""
