"""A column, level or coefficient term as a person reads it: `chest_pain[T.asymptomatic]` → Chest pain: asymptomatic."""

from __future__ import annotations

import re
from collections.abc import Mapping

from dure.language import Words

_LEVEL = re.compile(r"^(?:C\()?(?P<column>[^\[\]()]+)\)?\[(?:T\.)?(?P<level>.+)\]$")
_INTERCEPT = Words("Intercept", "절편")
_FLAG = {"0": Words("no", "아니요"), "1": Words("yes", "예")}


def name_words(name: str, labels: Mapping[str, Words]) -> Words:
    """The label of a column or level; an unlabelled one is its own name without underscores."""
    if name in labels:
        return labels[name]
    plain = name.replace("_", " ").strip() or "–"
    return Words(plain, plain)


def level_words(column: str, level: str, labels: Mapping[str, Words]) -> Words:
    """Its label; the levels 0 and 1 of an unlabelled flag are no and yes."""
    return labels.get(f"{column}:{level}") or labels.get(level) or _FLAG.get(level) or name_words(level, labels)


def term_words(term: str, labels: Mapping[str, Words]) -> Words:
    """A coefficient's term; interactions are joined by ×."""
    if term == "Intercept":
        return _INTERCEPT
    if term in labels:
        return labels[term]
    parts = [_factor(part, labels) for part in _factors(term)]
    return Words(" × ".join(part.en for part in parts), " × ".join(part.ko for part in parts))


def _factors(term: str) -> list[str]:
    """Split at colons outside brackets: a level may hold one."""
    parts, depth = [""], 0
    for letter in term:
        depth += (letter in "[(") - (letter in "])")
        if letter == ":" and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _factor(part: str, labels: Mapping[str, Words]) -> Words:
    match = _LEVEL.match(part)
    if match is None:
        return name_words(part, labels)
    column, level = match["column"], match["level"]
    of, at = name_words(column, labels), level_words(column, level, labels)
    return Words(f"{of.en}: {at.en}", f"{of.ko}: {at.ko}")
