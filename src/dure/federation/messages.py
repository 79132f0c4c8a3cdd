"""What travels between hub and hospitals, as bytes: one question, one answer, and errors without patient values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dure.errors import DureError, Refused, RunWaits, SiteFailed, all_errors
from dure.language import Words
from dure.study.packing import pack, unpack
from dure.study.summary import Summary

PROTOCOL = 2


LONGEST = 500
"""Characters of a name in a message: names go into logs."""


def of_kind(message: object, kinds: Mapping[str, Any]) -> None:
    """Raise ValueError unless every field is of its kind, and text short; True and False are no numbers here."""
    for name, kind in kinds.items():
        value = getattr(message, name)
        wrong = not isinstance(value, kind) or (kind is int and isinstance(value, bool))
        if wrong or (isinstance(value, str) and len(value) > LONGEST):
            raise ValueError(f"its '{name}' is not of the right kind")


@dataclass(frozen=True)
class Ask:
    """One round's question to one hospital.

    `fold` is the hospital left out in a leave-one-out step. `results` maps each step of the lineage to its Result's
    bytes, the same for all who are asked (None: it has none); `own` maps those of scope `all_but_one` to the Result of
    the fold without this hospital. `alone`: run the whole loop inside the hospital.
    """

    run: str
    study: str
    step: str
    round: int
    hospitals: tuple[str, ...]
    state: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, bytes | None] = field(default_factory=dict)
    own: Mapping[str, bytes | None] = field(default_factory=dict)
    fold: str | None = None
    alone: bool = False

    def to_bytes(self) -> bytes:
        return pack({"protocol": PROTOCOL, **{name: getattr(self, name) for name in self.__dataclass_fields__}})

    @classmethod
    def from_bytes(cls, data: bytes) -> Ask:
        """Raises ValueError or TypeError unless every field is of its kind."""
        raw = unpack(data)
        if not isinstance(raw, dict) or raw.pop("protocol", None) != PROTOCOL:
            raise ValueError("another protocol version")
        raw["hospitals"] = tuple(raw["hospitals"])
        ask = cls(**raw)
        of_kind(ask, {"run": str, "study": str, "step": str, "round": int, "fold": str | None, "alone": bool})
        of_kind(ask, {"state": dict, "results": dict, "own": dict})
        given = (*ask.results.values(), *ask.own.values())
        names = (*ask.hospitals, *ask.state, *ask.results, *ask.own)
        if {*map(type, names)} - {str} or {*map(type, given)} - {bytes, type(None)}:
            raise ValueError("a field is not of its kind")
        return ask


@dataclass(frozen=True)
class Answer:
    """One hospital's reply: a summary that passed its gate, a released Result (`alone`), or an error.

    `rules` names the rules applied to each array.
    """

    hospital: str
    kind: Literal["summary", "result", "error"]
    arrays: Summary = field(default_factory=dict)
    rules: Mapping[str, list[str]] = field(default_factory=dict)
    result: bytes = b""
    error: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        return pack({name: getattr(self, name) for name in self.__dataclass_fields__})

    @classmethod
    def from_bytes(cls, data: bytes) -> Answer:
        """Raises ValueError or TypeError unless every field is of its kind."""
        answer = cls(**unpack(data))
        of_kind(answer, {"hospital": str, "arrays": dict, "rules": dict, "result": bytes, "error": dict})
        if answer.kind not in ("summary", "result", "error"):
            raise ValueError("its 'kind' is not of the right kind")
        return answer


def error_data(error: DureError) -> dict[str, Any]:
    """An error as plain data: its name and its fields, which are names and sentences only."""
    fields = {
        name: {"en": value.en, "ko": value.ko} if isinstance(value, Words) else str(value)
        for name, value in error.fields.items()
    }
    return {"code": error.code(), "fields": fields}


def error_from(data: Mapping[str, Any], hospital: str = "", step: str = "") -> DureError:
    """The error again, of its own class; an unknown one becomes SiteFailed."""
    fields = {
        name: Words(value["en"], value["ko"]) if isinstance(value, dict) else value
        for name, value in data.get("fields", {}).items()
    }
    if hospital and "hospital" in fields:  # nobody speaks for another hospital
        fields["hospital"] = hospital
    kind = next((cls for cls in all_errors() if cls.code() == data.get("code")), None)
    if kind is None:
        problem = Words("Its software met an unexpected error.", "병원 소프트웨어에 예상하지 못한 오류가 있었습니다.")
        hint = Words("Its audit log has the details.", "자세한 내용은 병원의 감사 기록에 있습니다.")
        return SiteFailed(hospital=hospital, step=step, problem=problem, hint=hint)
    error = kind.__new__(kind)
    if isinstance(error, Refused):
        error.rule, error.way_out, error.detail, error.cells = str(fields["rule"]), fields["way_out"], "", {}
        error.setting = json.loads(str(fields.get("setting") or "{}"))
    DureError.__init__(error, **fields)
    if isinstance(error, RunWaits):
        error.step, error.grant = str(fields["step"]), str(fields["grant"])
        error.hospitals = str(fields["hospitals"]).split(", ")
    return error
