"""What changed from one version of a study to the next: the first thing a board reads of a new version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from dure.language import LANGUAGES, Language, Words
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
TAKEN_OUT, ADDED, CHANGED = Words("taken out", "삭제"), Words("added", "추가"), Words("changed", "변경")


def differences(before: Study, after: Study) -> list[Words]:
    """One line for everything that was added, taken out or changed; empty where the versions say the same."""
    found: list[Words] = []
    for part, words in PARTS.items():
        old, new = _named(part, getattr(before, part)), _named(part, getattr(after, part))
        for name in dict.fromkeys((*old, *new)):
            if old.get(name) != new.get(name):
                en, ko = (_line(words, name, old, new, language) for language in LANGUAGES)
                found.append(Words(en, ko))
    return found


def _line(part: Words, name: str, old: Mapping[str, Any], new: Mapping[str, Any], language: Language) -> str:
    place = f"{part.say(language)}: {name}" if name else part.say(language)
    if name not in new:
        return f"{TAKEN_OUT.say(language)} — {place}"
    if name not in old:
        return f"{ADDED.say(language)} — {place}: {_shown(new[name], language)}"
    return f"{CHANGED.say(language)} — {place}: {_changed(old[name], new[name], language)}"


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


def _changed(old: Any, new: Any, language: Language) -> str:
    """The fields that differ, before → after."""
    both = isinstance(old, Mapping) and isinstance(new, Mapping)
    if both and set(old) != set(LANGUAGES):
        names = [name for name in dict.fromkeys((*old, *new)) if old.get(name) != new.get(name)]
        shown = ((name, _shown(old.get(name, "–"), language), _shown(new.get(name, "–"), language)) for name in names)
        return "; ".join(f"{name}: {was} → {now}" for name, was, now in shown)
    return f"{_shown(old, language)} → {_shown(new, language)}"


def _shown(value: Any, language: Language) -> str:
    if isinstance(value, Mapping):
        if set(value) == set(LANGUAGES):
            return str(value[language])
        return "{" + ", ".join(f"{name}: {_shown(item, language)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_shown(item, language) for item in value) + "]"
    return str(value)
