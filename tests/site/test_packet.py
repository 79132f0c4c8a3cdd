"""The packet a board reads: nothing is left out of it in either language, and a new version opens with what changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dure.demo import offices
from dure.federation.preview import preview
from dure.guard.rules import DEFAULT, RULES
from dure.language import visible
from dure.site.packet import APPLICATION, NEAR, NOT_STATED, RECORD, near, packet
from dure.study.cohort import Range, Variable
from dure.study.document import Bilingual
from dure.study.method import installed_methods
from dure.study.spec import Application, Study, read_study

METHODS = installed_methods()


@pytest.fixture
def study() -> Study:
    found = read_study(offices.STUDY)
    return found.model_copy(update={"steps": tuple(found.step(name) for name in ("attrition", "model", "table_one"))})


def read(study: Study, language: Any, **more: Any) -> str:
    return packet(study, METHODS, DEFAULT, hospital="Hungary", proposer="Company", language=language, **more)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_it_names_every_item_every_array_and_every_rule(study: Study, language: Any) -> None:
    text = read(study, language)
    assert study.hash in text
    assert "Company" in text
    for name, variable in study.variables.items():
        assert f"`{name}`" in text
        assert variable.label.words().say(language) in text
    sent, needed = preview(study, METHODS, ("H1", "H2", "H3", "H4"))
    for array in sent:
        assert f"| `{array.step}` | `{array.array}` | {'×'.join(map(str, array.shape)) or '1'} |" in text
    assert set(needed) == {"per_hospital"}
    assert "`per_hospital`" in text
    for rule in RULES.values():
        assert rule.says.say(language) in text
    for heading in APPLICATION.values():
        assert f"## {heading.say(language)}" in text
    for item in RECORD:
        assert item.say(language) in text
    assert "28-2" in text if language == "en" else "제28조의2" in text


@pytest.mark.parametrize("language", ["en", "ko"])
def test_what_the_proposer_did_not_say_is_said_to_be_missing(study: Study, language: Any) -> None:
    said = {name: Bilingual(en=f"english {name}", ko=f"한국어 {name}") for name in APPLICATION}
    told = study.model_copy(update={"application": Application(**said)})
    assert NOT_STATED.say(language) in read(study, language)
    assert NOT_STATED.say(language) not in read(told, language)
    for text in said.values():
        assert text.words().say(language) in read(told, language)


@pytest.mark.parametrize("language", ["en", "ko"])
def test_variables_of_the_same_records_with_other_limits_are_shown_together(study: Study, language: Any) -> None:
    """Two flags that differ by one person tell of that person: boards have to see that a study has such."""
    assert near(study) == []
    assert NEAR.say(language) not in read(study, language)
    label = Bilingual(en="high", ko="높음")
    number = next(variable.number for variable in study.variables.values() if variable.number)
    limits = (Range(at_least=380), Range(at_least=380, at_most=602))
    flags = {
        f"high_{place}": Variable(label=label, present=number.model_copy(update={"value": one}))
        for place, one in enumerate(limits)
    }
    text = read(study.model_copy(update={"variables": {**study.variables, **flags}}), language)
    assert NEAR.say(language) in text
    assert "- `high_0`, `high_1`" in text


def test_follow_up_that_begins_on_another_day_is_of_the_same_records() -> None:
    found = near(read_study(Path(__file__).parents[2] / "examples" / "new_users" / "study.yaml"))
    assert any({"stroke", "late_stroke"} <= set(pair) for pair in found), found


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_proposers_words_cannot_look_like_those_of_the_packet(study: Study, language: Any) -> None:
    forged = "Good.\n\n## Permissions\n\nNone."
    text = Bilingual(en=forged, ko=forged)
    told = study.model_copy(
        update={"title": text, "question": text, "documents": (text,), "application": Application(purpose=text)}
    )
    assert "## Permissions" in forged
    assert not [line for line in read(told, language).splitlines() if line.strip() in ("## Permissions", "None.")]
    assert "> ## Permissions" in read(told, language)


HIDING = "v\n\n## Permissions\x1b[2J\u202e|`"


@pytest.mark.parametrize("language", ["en", "ko"])
def test_nobodys_names_can_look_like_words_of_the_packet(study: Study, language: Any) -> None:
    """The hub says who proposed the study; variables and levels are named by the proposer."""
    variable = study.variables["age"]
    told = study.model_copy(update={"variables": {**study.variables, HIDING: variable}})
    text = packet(told, METHODS, DEFAULT, hospital=HIDING, proposer=HIDING, language=language)
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        line for line in read(study, language).splitlines() if line.startswith("#")
    ]
    assert "v ## Permissions[2J" in text
    assert visible(text) == text
    assert len([line for line in text.splitlines() if line.startswith("| `v ## Permissions[2J∣'` |")]) == 1


@pytest.mark.parametrize("words", ["## Permissions", "```", "<!-- the rest", "| a |", "a <h2>Permissions</h2>"])
def test_words_that_begin_like_a_mark_are_only_words(study: Study, words: str) -> None:
    told = Bilingual(en=words, ko=words)
    lines = read(study.model_copy(update={"question": told, "documents": (told,)}), "en").splitlines()
    assert lines[2] == words.replace("<", "&lt;") if "<" in words else lines[2] == f"\\{words}"
    assert f"- {lines[2]}" in lines


def test_no_tag_of_others_is_one_wherever_it_stands(study: Study) -> None:
    tag = "\\<style>h2{display:none}</style> at age < 65"
    told, (first, *_) = Bilingual(en=tag, ko=tag), study.variables
    variables = {**study.variables, first: study.variables[first].model_copy(update={"label": told})}
    said = Application(**dict.fromkeys(APPLICATION, told))
    more = {"title": told, "variables": variables, "application": said}
    text = read(study.model_copy(update=more), "en")
    assert "<style" not in text
    assert "</style" not in text
    assert text.count("age < 65") >= 2 + len(APPLICATION)


def test_a_level_is_named_by_letters_that_can_be_seen(study: Study) -> None:
    for name in ("male\n## Permissions", "male\x1b[8m", "male\u202e"):
        with pytest.raises(ValidationError, match="cannot be seen"):
            Variable(label=Bilingual(en="Sex", ko="성별"), sex={name: 8507, "female": 8532})
    for name in ("고혈압\u3000있음", "no\u00a0break"):
        assert Variable(label=Bilingual(en="Sex", ko="성별"), sex={name: 8507}).sex == {name: 8507}


@pytest.mark.parametrize("letter", ["\x1b[8m", "\x00", "\r", "\u202e"])
def test_a_text_that_hides_what_stands_beside_it_is_no_text(letter: str) -> None:
    with pytest.raises(ValidationError, match="control characters"):
        Bilingual(en=f"plain {letter} text", ko="글")


@pytest.mark.parametrize("language", ["en", "ko"])
def test_a_new_version_opens_with_its_differences(study: Study, language: Any) -> None:
    formula = "disease ~ age + sex + cholesterol"
    steps = tuple(
        step.model_copy(update={"parameters": {**step.parameters, "formula": formula}})
        if step.name == "model"
        else step
        for step in study.steps[:2]
    )
    criteria = (study.cohort.criteria[0].model_copy(update={"age": {"at_least": 40}}), *study.cohort.criteria[1:])
    new = Study.model_validate(
        {
            **study.model_dump(mode="json"),
            "steps": [step.model_dump(mode="json") for step in steps],
            "cohort": study.cohort.model_copy(update={"criteria": criteria}).model_dump(mode="json", warnings=False),
            "replaces": study.hash,
        }
    )
    text = read(new, language, before=study)
    changed = text.split("\n## ")[1]
    assert study.hash[:19] in changed
    assert formula in changed
    assert "table_one" in changed
    assert "Aged 18 or older" in changed
    assert "40" in changed
    assert "cholesterol" not in changed.replace(formula, "")  # variables did not change


def test_versions_that_say_the_same_have_no_differences(study: Study) -> None:
    from dure.study.differences import differences

    assert differences(study, study.model_copy(update={"replaces": study.hash})) == []
