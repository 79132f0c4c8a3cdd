"""Study documents: errors that name the line, and a hash that changes with the question and with nothing else."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dure.errors import FileMissing, InvalidDocument, MalformedYaml, UnknownStep, WrongEncoding
from dure.study.document import parse_document, read_document
from dure.study.spec import Quorum, Study, canonical_json, read_study

TEXT = """\
dure: 1
title: {en: Heart, ko: 심장}
question: {en: Why now, ko: 왜}
cohort:
  name: {en: Adults, ko: 성인}
  entry:
    domain: visit
    concepts: [9202]
    days: [-30, 10]
  criteria:
    - name: {en: Age, ko: 나이}
      age: {at_least: 18}
    - name: {en: Pain, ko: 통증}
      event: {domain: condition, concepts: [12]}
      exclude: true
variables:
  age:
    label: {en: Age, ko: 나이}
    age: true
  sex:
    label: {en: Sex, ko: 성별}
    sex: {female: 8532, male: 8507}
steps:
  - name: table
    method: table_one
    parameters: {variables: [age, sex], level: 10}
  - name: model
    method: regression
    uses: [table]
    parameters:
      formula: sex ~ age
"""
DATA: dict[str, Any] = yaml.safe_load(TEXT)


def line_of(piece: str) -> int:
    return next(number for number, line in enumerate(TEXT.splitlines(), start=1) if piece in line)


def broken(old: str, new: str) -> InvalidDocument:
    assert old in TEXT
    with pytest.raises(InvalidDocument) as caught:
        parse_document(TEXT.replace(old, new, 1), Study, "study.yaml")
    return caught.value


def study(data: dict[str, Any]) -> Study:
    return parse_document(yaml.safe_dump(data, allow_unicode=True, sort_keys=False), Study)


# ── errors ──


@pytest.mark.parametrize(
    ("old", "new", "piece", "nearest"),
    [
        ("question:", "qestion:", "question:", "question"),
        ("    domain: visit", "    domian: visit", "domain: visit", "domain"),
        ("    concepts: [9202]", "    concept: [9202]", "concepts: [9202]", "concepts"),
        ("      exclude: true", "      exclud: true", "exclude: true", "exclude"),
        ("    method: regression", "    methd: regression", "method: regression", "method"),
        ("      age: {at_least: 18}", "      age: {at_leest: 18}", "at_least", "at_least"),
    ],
)
def test_an_unknown_key_gets_its_line_and_the_nearest_name(old: str, new: str, piece: str, nearest: str) -> None:
    text = TEXT.replace(old, new, 1)
    errors = []
    for _ in range(2):
        with pytest.raises(InvalidDocument) as caught:
            parse_document(text, Study, "study.yaml")
        errors.append(caught.value)
    error = errors[0]
    assert str(error) == str(errors[1])
    if "required" in str(error):  # the key it should have been is missing, and that is said first
        assert nearest in str(error)
        return
    assert error.fields["line"] == line_of(piece)
    assert f"Did you mean '{nearest}'?" in error.text("en")
    assert nearest in error.text("ko")


@pytest.mark.parametrize(
    ("old", "new", "piece"),
    [
        ("dure: 1", "dure: 2", "dure: 1"),
        ("domain: visit", "domain: visits", "domain: visit"),
        ("concepts: [9202]", "concepts: []", "concepts: [9202]"),
        ("concepts: [9202]", "concepts: [word]", "concepts: [9202]"),
        ("days: [-30, 10]", "days: [-30]", "days: [-30"),
        ("- name: table", "- name: Table One", "name: table"),
        ("      age: {at_least: 18}", "      age: {at_least: old}", "at_least"),
        ("sex: {female: 8532, male: 8507}", "sex: {female: x}", "sex: {female"),
    ],
)
def test_a_wrong_value_gets_its_line(old: str, new: str, piece: str) -> None:
    assert broken(old, new).fields["line"] == line_of(piece)


def test_a_missing_part_is_named() -> None:
    error = broken("question: {en: Why now, ko: 왜}\n", "")
    assert error.fields["field"] == "question"
    assert "required" in error.text("en")
    error = broken("{en: Heart, ko: 심장}", "{en: Heart}")
    assert error.fields["field"] == "title.ko"
    assert error.fields["line"] == 2


def test_a_criterion_asks_one_thing_and_steps_have_names_of_their_own() -> None:
    assert "exactly one" in str(broken("      age: {at_least: 18}\n", ""))
    assert "two steps are named 'table'" in str(broken("- name: model", "- name: table")).lower()
    assert "site" in str(broken("  sex:\n    label", "  site:\n    label"))


def test_a_step_uses_only_steps_above_it() -> None:
    with pytest.raises(UnknownStep, match="Did you mean 'table'"):
        parse_document(TEXT.replace("uses: [table]", "uses: [tabel]"), Study)
    with pytest.raises(UnknownStep):
        parse_document(TEXT.replace("uses: [table]", "uses: [model]"), Study)


@pytest.mark.parametrize("number", [2**63, -(2**70)])
def test_a_whole_number_that_no_store_holds_is_refused(number: int) -> None:
    """It would be met much later, where cohorts of all studies are compared."""
    assert "64 bits" in broken("concepts: [9202]", f"concepts: [{number}]").text("en")


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: 1\nb: [1, 2\nc: 3\n", 3), ("a: 1\n\tb: 2\n", 2), ("a: 'open\nb: 1\n", 3), ("a: 1\nb: c: d\n", 2)],
)
def test_malformed_yaml_gets_its_line(text: str, line: int) -> None:
    with pytest.raises(MalformedYaml) as caught:
        parse_document(text, Study, "study.yaml")
    assert caught.value.fields["line"] == line
    assert "study.yaml" in caught.value.text("ko")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "only words", "42"])
def test_a_document_that_is_no_mapping_says_so(text: str) -> None:
    with pytest.raises(InvalidDocument, match="name: value"):
        parse_document(text, Study)


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system ['true']", "a: !!python/name:os.system"])
def test_yaml_cannot_build_objects(text: str) -> None:
    with pytest.raises(MalformedYaml):
        parse_document(text, Study)


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        read_study(tmp_path / "none.yaml")
    path = tmp_path / "old.yaml"
    path.write_bytes(TEXT.encode("cp949"))
    with pytest.raises(WrongEncoding, match="utf-8"):
        read_document(path, Study)
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert read_study(path).hash == parse_document(TEXT, Study).hash


# ── the hash ──


def shuffled(value: Any, source: random.Random) -> Any:
    if isinstance(value, dict):
        keys = list(value)
        source.shuffle(keys)
        return {key: shuffled(value[key], source) for key in keys}
    return [shuffled(item, source) for item in value] if isinstance(value, list) else value


@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_and_the_layout_do_not_change_the_hash(source: random.Random) -> None:
    data = shuffled({**DATA, "variables": DATA["variables"]}, source)
    data["variables"]["sex"]["sex"] = DATA["variables"]["sex"]["sex"]
    assert study(data).hash == parse_document(TEXT, Study).hash
    flow = yaml.safe_dump(data, default_flow_style=True, sort_keys=False)
    assert parse_document(flow, Study).hash == study(DATA).hash


def test_comments_whole_floats_and_defaults_do_not_change_the_hash() -> None:
    expected = parse_document(TEXT, Study).hash
    for old, new in (
        ("dure: 1", "# a comment\ndure: 1  # another"),
        ("level: 10", "level: 10.0"),
        ("at_least: 18", "at_least: 18.0"),
        ("at_least: 18", "at_least: 1.8e+1"),
        ("    method: table_one", "    method: table_one\n    scope: all"),
        ("{en: Why now, ko: 왜}", '{"en": "Why now", "ko": "\\uC65C"}'),
    ):
        assert parse_document(TEXT.replace(old, new, 1), Study).hash == expected, new


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in leaves(item, (*path, key))]
    if isinstance(value, list):
        return [found for key, item in enumerate(value) for found in leaves(item, (*path, key))]
    return [path]


@pytest.mark.parametrize("path", [p for p in leaves(DATA) if p != ("dure",)], ids=lambda p: ".".join(map(str, p)))
def test_any_other_change_changes_the_hash(path: tuple[Any, ...]) -> None:
    data = copy.deepcopy(DATA)
    *inner, last = path
    place: Any = data
    for key in inner:
        place = place[key]
    old = place[last]
    changes = {"visit": "drug", "condition": "drug", True: None, "table": "table2", "model": "model2"}
    if path in (("steps", 0, "name"), ("steps", 1, "uses", 0)):
        data["steps"][0]["name"] = data["steps"][1]["uses"][0] = "table2"
    elif old is True:
        place[last] = False
        if path == ("variables", "age", "age"):
            place.pop("age")
            place["present"] = {"domain": "drug", "concepts": [1]}
    else:
        place[last] = changes.get(old) or (old + 1 if isinstance(old, int | float) else old + "x")
    assert study(data).hash != study(DATA).hash


def test_the_order_of_steps_criteria_and_levels_is_part_of_the_question() -> None:
    data = copy.deepcopy(DATA)
    data["cohort"]["criteria"].reverse()
    assert study(data).hash != study(DATA).hash


def test_the_order_of_levels_changes_the_hash_because_the_first_is_the_reference() -> None:
    data = copy.deepcopy(DATA)
    data["variables"]["sex"]["sex"] = {"male": 8507, "female": 8532}
    assert study(data).variables["sex"].level_names != study(DATA).variables["sex"].level_names
    assert study(data).hash != study(DATA).hash


def test_the_canonical_form_is_json_without_spaces_and_reads_back_to_the_same_study() -> None:
    text = canonical_json(parse_document(TEXT, Study))
    assert ": " not in text
    again = Study.model_validate(json.loads(text))
    assert again.hash == parse_document(TEXT, Study).hash


@pytest.mark.parametrize("number", [1e300, -1e19, 2.0**63])
def test_a_whole_number_beyond_64_bits_reads_back_as_what_it_is(number: float) -> None:
    """A float: as an integer no study could hold it, and what the hub had stored could never be read again."""
    data = copy.deepcopy(DATA)
    data["steps"][0]["parameters"]["level"] = number
    again = Study.model_validate(json.loads(canonical_json(study(data))))
    assert again.step("table").parameters["level"] == number
    assert again.hash == study(data).hash


@pytest.mark.parametrize(("number", "printed"), [(10.0, "10"), (-0.0, "0"), (1e18, "1" + "0" * 18), (0.5, "0.5")])
def test_other_numbers_are_printed_as_they_always_were(number: float, printed: str) -> None:
    """Else the digest of a study that hospitals have permitted would change."""
    data = copy.deepcopy(DATA)
    data["steps"][0]["parameters"]["level"] = number
    assert f'"level":{printed},' in canonical_json(study(data))


def test_lineage_names_what_a_step_builds_on() -> None:
    data = copy.deepcopy(DATA)
    data["steps"].append({"name": "last", "method": "validation", "uses": ["model"]})
    assert study(data).lineage("last") == ("table", "model")
    assert study(data).lineage("table") == ()


def test_a_duration_has_at_most_six_digits() -> None:
    assert Quorum(reply_within="999999 days").reply_within == "999999 days"
    for wrong in ("1000000 days", "9" * 400 + " days", "١٢ days", "-1 days"):
        with pytest.raises(ValidationError):
            Quorum(reply_within=wrong)
