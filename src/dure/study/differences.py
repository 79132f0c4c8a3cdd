"""What changed from one version of a study to the next: the first thing a board reads of a new version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from dure.language import Words
from dure.study.spec import Study

PARTS: dict[str, Words] = {
    "title": Words("title", "제목"),
    "question": Words("question", "질문"),
    "cohort": Words("cohort", "코호트"),
    "variables": Words("variables", "변수"),
    "steps": Words("steps", "단계"),
    "quorum": Words("quorum", "정족수"),
    "documents": Words("documents", "문서"),
    "application": Words("application", "심의 신청 내용"),
}


def differences(before: Study, after: Study) -> list[Words]:
    """One line for everything that was added, taken out or changed; empty where the versions say the same."""
    found: list[Words] = []
    for part, words in PARTS.items():
        old, new = _named(part, getattr(before, part)), _named(part, getattr(after, part))
        for name in dict.fromkeys((*old, *new)):
            place = Words(f"{words.en}: {name}" if name else words.en, f"{words.ko}: {name}" if name else words.ko)
            if name not in new:
                found.append(Words(f"taken out — {place.en}", f"삭제 — {place.ko}"))
            elif name not in old:
                found.append(
                    Words(f"added — {place.en}: {_shown(new[name])}", f"추가 — {place.ko}: {_shown(new[name])}")
                )
            elif old[name] != new[name]:
                changed = _changed(old[name], new[name])
                found.append(Words(f"changed — {place.en}: {changed}", f"변경 — {place.ko}: {changed}"))
    return found


def _named(part: str, value: Any) -> dict[str, Any]:
    """The pieces of a part that are compared one by one."""
    if part == "steps":
        return {step.name: _plain(step) for step in value}
    if part == "variables":
        return {name: _plain(variable) for name, variable in value.items()}
    if part == "documents":
        return {str(place): _plain(text) for place, text in enumerate(value, start=1)}
    if part == "cohort":
        criteria = {criterion.name.en: _plain(criterion) for criterion in value.criteria}
        return {"name": _plain(value.name), "entry": _plain(value.entry), **criteria}
    plain = _plain(value)
    return dict(plain) if part in ("application", "quorum") else {"": plain}


def _plain(value: BaseModel) -> Any:
    return value.model_dump(mode="json", exclude_defaults=True)


def _changed(old: Any, new: Any) -> str:
    """The fields that differ, before → after."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        names = [name for name in dict.fromkeys((*old, *new)) if old.get(name) != new.get(name)]
        return "; ".join(f"{name}: {_shown(old.get(name, '–'))} → {_shown(new.get(name, '–'))}" for name in names)
    return f"{_shown(old)} → {_shown(new)}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name}: {_shown(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_shown(item) for item in value) + "]"
    return str(value)
