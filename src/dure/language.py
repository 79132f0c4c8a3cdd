"""Korean and English side by side: a sentence that lacks one of the two cannot be made."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "ko"]
LANGUAGES: tuple[Language, ...] = ("en", "ko")
TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Letters that change the direction of those after them."""


@dataclass(frozen=True, slots=True)
class Words:
    """One sentence in both languages; `{names}` in it are filled by `fill`."""

    en: str
    ko: str

    def __post_init__(self) -> None:
        if not self.en.strip() or not self.ko.strip():
            raise ValueError(f"a sentence needs both languages: en={self.en!r}, ko={self.ko!r}")

    def fill(self, **fields: object) -> Words:
        """The same sentence with its `{names}` filled in, in both languages."""
        return Words(self.en.format(**fields), self.ko.format(**fields))

    def say(self, language: Language | None = None) -> str:
        """The sentence in one language; `None` means the reader's own (`reader_language`)."""
        return self.ko if (language or reader_language()) == "ko" else self.en

    def __str__(self) -> str:
        return self.say()


def reader_language() -> Language:
    """`DURE_LANGUAGE` if set, else Korean where the system's locale is Korean, else English."""
    for name in ("DURE_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name, "")
        if value:
            return "ko" if value.lower().startswith("ko") else "en"
    return "en"


def plain(name: str) -> bool:
    """Whether a name is one line of letters that can be seen."""
    return visible(name) == name and "\n" not in name


def visible(text: str) -> str:
    """The text without letters that would hide or turn around what stands beside it: control characters but line
    breaks and tabs, and changes of direction."""
    return "".join(
        letter
        for letter in text
        if letter in "\n\t" or (unicodedata.category(letter) != "Cc" and letter not in TURNING)
    )
