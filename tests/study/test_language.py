"""Every sentence stands in both languages, with the same fields."""

from __future__ import annotations

import string

import pytest

from dure.errors import DureError, all_errors, nearest
from dure.language import Words, reader_language

PARTS = ("what", "why", "remedy")


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize(("en", "ko"), [("", "말"), ("word", ""), ("word", "  "), ("\n", "말"), ("", "")])
def test_a_sentence_without_one_of_its_languages_cannot_be_made(en: str, ko: str) -> None:
    with pytest.raises(ValueError, match="both languages"):
        Words(en, ko)


def test_a_sentence_is_filled_and_said_in_the_readers_language(monkeypatch: pytest.MonkeyPatch) -> None:
    words = Words("{n} people", "{n}명").fill(n=3)
    assert (words.say("en"), words.say("ko")) == ("3 people", "3명")
    for name in ("DURE_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    assert reader_language() == "en"
    monkeypatch.setenv("LANG", "ko_KR.UTF-8")
    assert (reader_language(), str(words)) == ("ko", "3명")
    monkeypatch.setenv("DURE_LANGUAGE", "en")
    assert (reader_language(), str(words)) == ("en", "3 people")


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_says_three_things_in_both_languages_with_the_same_fields(kind: type[DureError]) -> None:
    for part in PARTS:
        words: Words = getattr(kind, part)
        assert words.en.strip()
        assert words.ko.strip()
        assert fields(words.en) == fields(words.ko), part
        if not words.en.startswith("{"):
            assert any("가" <= letter <= "힣" for letter in words.ko), part


@pytest.mark.parametrize("kind", all_errors(), ids=lambda kind: kind.__name__)
def test_every_error_has_a_name_of_its_own(kind: type[DureError]) -> None:
    assert [other for other in all_errors() if other.code() == kind.code()] == [kind]
    assert kind.code() == kind.code().lower()


def test_an_unknown_name_gets_the_nearest_or_the_list() -> None:
    assert nearest("agee", ["age", "sex"]).en == "Did you mean 'age'?"
    assert nearest("AGE", ["Age"]).en == "Did you mean 'Age'?"
    assert "age, sex" in nearest("zzzzz", ["sex", "age"]).ko
    assert nearest("x", []).en == "There is none to choose from."
    assert nearest("qqqq", [f"name{i}" for i in range(30)]).en.endswith("….")
