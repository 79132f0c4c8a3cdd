"""The page holds everything in both languages, asks for nothing from outside, and hides no withheld number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cache
from html import unescape
from html.parser import HTMLParser

import polars as pl
import pytest

from dure.language import Words
from dure.report.html import page, short_hash
from dure.report.phrases import HEADINGS, PHRASES
from dure.report.story import AurocCell, ForestPoint, OracleCheck, Story, departures
from dure.study.result import Table

from .sample import story

VOID = {"meta", "link", "input", "br", "hr", "img"}


@cache
def sample_page() -> str:
    return page(story())


def every_sentence(part: object) -> Iterator[Words]:
    """All Words inside a story, wherever they sit."""
    if isinstance(part, Words):
        yield part
    elif isinstance(part, dict):
        for value in part.values():
            yield from every_sentence(value)
    elif isinstance(part, tuple | list):
        for value in part:
            yield from every_sentence(value)
    elif is_dataclass(part):
        for one in fields(part):
            yield from every_sentence(getattr(part, one.name))


class Nesting(HTMLParser):
    """Raises where a tag is closed that is not open; collects ids and the targets of labels and links."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attrs)
        if given.get("id"):
            self.ids.append(str(given["id"]))
        self.targets += [str(given[name]).lstrip("#") for name in ("for", "aria-labelledby") if given.get(name)]
        if tag == "a":
            self.targets.append(str(given["href"]).lstrip("#"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def text_of(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def test_every_sentence_of_the_story_stands_there_in_both_languages() -> None:
    told = story()
    text = text_of(sample_page()).replace(" ", "")
    shown = [*every_sentence(replace(told, labels={}))]
    shown += [words for name, words in told.labels.items() if name not in {"disease:0", "disease:1"}]
    for words in shown:
        assert words.en.replace(" ", "") in text, words.en
        assert words.ko.replace(" ", "") in text, words.ko


def test_every_phrase_of_the_report_has_hangul_in_its_korean() -> None:
    same = {name for name, words in {**PHRASES, **HEADINGS}.items() if not re.search("[가-힣]", words.ko)}
    assert same == {"percent", "aic"}


def test_html_is_well_formed_and_every_link_and_label_has_its_target() -> None:
    reader = Nesting()
    reader.feed(sample_page())
    assert reader.open == []
    assert len(reader.ids) == len(set(reader.ids))
    assert set(reader.targets) <= set(reader.ids)


def test_nothing_is_fetched_and_nothing_runs() -> None:
    html = sample_page()
    reader = Nesting()
    reader.feed(html)
    assert not reader.tags & {"script", "iframe", "img", "object", "embed", "audio", "video"}
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in html
    assert not re.search(r"(?:src|href|action)\s*=\s*[\"']?(?:https?:)?//", html)
    assert not re.search(r"@import|url\((?!#hatch)", html)
    assert set(re.findall(r"https?://[^\"' <]+", html)) <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\son[a-z]+=", html)


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "A & B's {{ 7*7 }}"])
def test_a_hostile_hospital_name_is_only_text(name: str) -> None:
    html = page(story({name: 300, "Hungary": 295, "Switzerland": 125, "VA Long Beach": 200}))
    reader = Nesting()
    reader.feed(html)
    assert not reader.tags & {"script", "img"}
    assert "49" not in re.findall(r"A &amp; B&#39;s (\d+)", html)
    assert name.split(" ")[0] in text_of(html) or (name.startswith("<") and name in unescape(html))


def test_withheld_cells_show_their_reason_and_explain_it() -> None:
    html = sample_page()
    assert re.search(r'class="n withheld"><span title="Withheld: too few people[^"]*">&lt;10<', html)
    assert re.search(r'<span title="Withheld: it would give away[^"]*공개 안 함[^"]*">–<', html)
    assert html.count("fewer than 10 non-cases") > 1  # in the drawing's table, and as lines of the drawing
    assert re.search(r"Switzerland · not estimable: separation", html)


def test_refused_and_waiting_steps_are_told_at_the_top_with_their_reason() -> None:
    head = sample_page().split('<section id="question"')[0]
    assert 'class="badge refused"' in head
    assert "one level holds fewer" in head
    assert 'class="badge waiting"' in head


def test_figures_have_a_name_text_and_a_table() -> None:
    html = sample_page()
    drawings = re.findall(r'<svg role="img" aria-label="([^"]+)"', html)
    assert len(drawings) == 6
    assert sum(bool(re.search("[가-힣]", name)) for name in drawings) == 3
    assert html.count("<figure>") == html.count('class="figures-table"') == 3
    assert "운동 유발 협심증</text>" in html
    assert "1.022 (1.002–1.043)</text>" in html  # trimming coordinates leaves results alone


def test_two_thousand_messages_stay_listed_completely_and_small() -> None:
    told = story(rounds=40, folds=True)
    assert len(told.left) > 1900
    html = page(told)
    assert len(html.encode()) < 3_000_000
    assert html.count('<th scope="row"><code>') >= len(told.left)
    assert html.count('<table class="listing">') == 8


def test_totals_count_a_message_once_however_many_arrays_it_holds() -> None:
    first = departures(story().left)[0]
    assert (first.messages, first.numbers) == (10, 3 + 1 + 8 * (9 + 81 + 1))


def test_the_headline_says_whether_federated_equals_pooled() -> None:
    assert "Federated equals pooled: largest relative difference 2.9 × 10⁻¹²." in text_of(sample_page())
    differs = replace(story(), oracle=OracleCheck(0.02, 0.1, Words("x", "엑스")))
    assert "Federated and pooled differ: largest relative difference 1.0 × 10⁻¹." in text_of(page(differs))
    assert "not compared with a pooled fit" in text_of(page(replace(story(), oracle=None)))


def test_parts_a_study_does_not_have_are_left_out() -> None:
    bare = Story(
        title=Words("Bare", "빈 연구"),
        question=Words("Who?", "누구?"),
        study_hash="sha256:00",
        made_at=story().made_at,
        hospitals=story().hospitals,
    )
    html = page(bare, "ko")
    assert re.findall(r'<section id="(\w+)"', html) == ["question", "where", "documents"]
    assert '<html lang="ko">' in html
    assert "<title>빈 연구 · Bare</title>" in html


def test_table_one_of_any_other_shape_is_shown_as_it_is() -> None:
    table = Table(pl.DataFrame({"variable": ["age"], "mean": [54.4]}))
    html = page(replace(story(), table_one=table))
    assert "Age (years)" in html
    assert ">54.4<" in html


def test_a_missing_number_without_a_reason_cannot_be_told() -> None:
    with pytest.raises(ValueError, match="needs its reason"):
        ForestPoint(Words("VA", "VA"), "local")
    with pytest.raises(ValueError, match="needs its reason"):
        AurocCell(Words("VA", "VA"), Words("VA", "VA"))


def test_short_hash() -> None:
    assert short_hash("sha256:9f2c54d0ab81c77b41ab") == "sha256 9f2c…41ab"
    assert short_hash("sha256:00") == "sha256:00"
