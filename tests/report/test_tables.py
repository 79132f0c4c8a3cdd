"""Tables and numbers as text: formats, terms, suppressed cells, table 1."""

from __future__ import annotations

import polars as pl
import pytest

from dure.language import Words
from dure.report import numerals
from dure.report.table_one import table_one
from dure.report.tables import Cell, Naming, bilingual, coefficients, grid, html, table_html
from dure.report.term_labels import term_words
from dure.study.result import Table

CAPTION = Words("Numbers", "숫자")
LABELS = {"chest_pain": Words("Chest pain", "흉통"), "sex:male": Words("man", "남성")}


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (1234.5, "1,230"), (0.00049, "0.000490"), (9.999, "10.0"), (-0.5, "−0.500"), (2e-9, "2.00 × 10⁻⁹"),
     (float("nan"), "–"), (float("-inf"), "−∞"), (999999.9, "1,000,000")],
)  # fmt: skip
def test_significant(value: float, shown: str) -> None:
    assert numerals.significant(value) == shown


def test_other_numbers() -> None:
    assert numerals.count(1240) == "1,240"
    assert [numerals.p_value(p) for p in (1e-9, 0.00099, 0.05, 1.0)] == ["<0.001", "<0.001", "0.050", "1.000"]
    assert [numerals.ratio(r) for r in (0.0402, 0.986, 1.0, 2.489, 12.345)] == [
        "0.040", "0.986", "1.000", "2.49", "12.3",
    ]  # fmt: skip
    assert [numerals.size(b) for b in (8, 5904, 2_500_000)] == ["8 B", "5.9 kB", "2.5 MB"]
    assert [numerals.shape(s) for s in ((), (9,), (9, 9))] == ["1", "9", "9 × 9"]
    assert numerals.power(0) == "0"


@pytest.mark.parametrize(
    ("term", "english"),
    [
        ("Intercept", "Intercept"),
        ("chest_pain[T.asymptomatic]", "Chest pain: asymptomatic"),
        ("C(group)[T.b]", "group: b"),
        ("sex[T.male]", "sex: man"),
        ("age:sex[T.male]", "age × sex: man"),
        ("site[T.a:b]", "site: a:b"),
        ("exercise[T.1]", "exercise: yes"),
    ],
)
def test_a_term_reads_as_label_and_level(term: str, english: str) -> None:
    assert term_words(term, LABELS).en == english


def test_one_criterion_in_two_columns_is_one_column_in_two_languages() -> None:
    frame = pl.DataFrame({"criterion": ["Adult"], "criterion_ko": ["성인"], "persons": [1200]})
    written = table_html(Table(frame, counts=("persons",)), CAPTION, bar="persons")
    assert written.count('<th scope="col"') == 3
    assert '<span lang="en">Adult</span><span lang="ko">성인</span>' in written
    assert '<td class="n">1,200</td>' in written
    assert 'width="100.0"' in written


def test_numbers_and_their_headings_are_right_aligned_and_missing_ones_are_empty() -> None:
    table = Table(pl.DataFrame({"variable": ["a"], "mean": pl.Series([None], dtype=pl.Float64)}))
    written = table_html(table, CAPTION)
    assert '<th scope="col" class="n">' in written
    assert '<td class="n"></td>' in written


def test_repeated_first_texts_head_their_rows_once() -> None:
    frame = pl.DataFrame({"variable": ["sex", "sex", "age"], "level": ["f", "m", "x"], "n": [12, 20, 32]})
    rows = grid(Table(frame, counts=("n",)), CAPTION, Naming(LABELS)).rows
    assert [len(row) for row in rows] == [3, 2, 3]
    assert rows[0][0] == Cell("sex", heads=True, span=2)
    assert 'scope="rowgroup" rowspan="2"' in html(grid(Table(frame), CAPTION, Naming()))


def test_a_withheld_number_never_shows_even_if_it_is_still_in_the_frame() -> None:
    frame = pl.DataFrame({"variable": ["a"], "n": [7]})
    assert ">7<" not in table_html(Table(frame, counts=("n",), withheld={(0, "n"): "<10"}), CAPTION)


def test_coefficients_give_ratio_and_interval_where_the_model_has_one() -> None:
    frame = pl.DataFrame(
        {"term": ["age", "dropped"], "estimate": [0.5, None], "std_error": [0.1, None], "p_value": [1e-7, None],
         "ci_low": [0.3, None], "ci_high": [0.7, None]}
    )  # fmt: skip
    ratio = coefficients(Table(frame), CAPTION, Naming(), Words("Odds ratio", "오즈비"))
    assert [cell.text for cell in ratio.rows[0]][1:] == ["1.65", "1.35–2.01", "0.500", "0.100", "<0.001"]
    assert [cell.text for cell in ratio.rows[1]][1:] == ["–", "–", "", "", ""]
    plain = coefficients(Table(frame), CAPTION, Naming(), None)
    assert [cell.text for cell in plain.rows[0]][1:] == ["0.500", "0.300 – 0.700", "0.100", "<0.001"]


def test_table_one_is_one_column_a_group() -> None:
    frame = pl.DataFrame(
        [("age", None, "0", 40, 0, 50.04, 9.0, None), ("age", None, "1", 50, 12, 60.0, 8.0, None),
         ("sex", "male", "0", 30, 0, None, None, 75.2), ("sex", "male", "1", None, 0, None, None, None)],
        schema={"variable": pl.String, "level": pl.String, "group": pl.String, "n": pl.Int64, "missing": pl.Int64,
                "mean": pl.Float64, "sd": pl.Float64, "percent": pl.Float64},
        orient="row",
    )  # fmt: skip
    wide = table_one(Table(frame, withheld={(3, "n"): "<10"}), CAPTION, Naming(LABELS), "disease")
    assert [heading.text for heading in wide.headings[2:]] == [
        Words("disease: no", "disease: 아니요"),
        Words("disease: yes", "disease: 예"),
    ]
    assert [cell.text for cell in wide.rows[0]][2:] == ["50.0 (9.00)", "60.0 (8.00)"]
    assert [cell.text for cell in wide.rows[1]][1:] == ["0", "12"]
    assert [cell.text for cell in wide.rows[2]][2:] == ["30 (75%)", "<10"]
    assert wide.rows[2][3].withheld


def test_text_is_escaped() -> None:
    assert bilingual("<b>") == "&lt;b&gt;"
    assert "&lt;b&gt;" in bilingual(Words("<b>", "가<b>"))
