"""A group of three people never becomes a coefficient, however it is dressed up."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from dure.client.simulate import run_frames, simulate
from dure.errors import FormulaError, Refused
from dure.guard.rules import DEFAULT
from dure.study.rows import Column
from dure.study.spec import Step

N = 900


def hospitals(three_are: float = 1.0, others_are: float = 0.0) -> dict[str, pl.DataFrame]:
    """Three hospitals; `rare` marks one person of each."""
    random = np.random.default_rng(7)
    rare = np.full(N, others_are)
    rare[:3] = three_are
    frame = pl.DataFrame(
        {
            "y": (random.random(N) < 0.5).astype(float),
            "z": random.normal(size=N),
            "x": np.where(np.arange(N) < 3, 9.0, random.uniform(0, 4, N)),
            "half": random.integers(0, 2, N).astype(float),
            "stage": random.choice(["a", "b"], N),
            "rare": rare,
            "word": np.where(np.arange(N) < 3, "rare", random.choice(["u", "v"], N)),
        }
    )
    return {f"h{i}": frame[i::3] for i in range(3)}


def attempt(formula: str, frames: dict[str, pl.DataFrame] | None = None, family: str = "binomial") -> None:
    simulate(frames or hospitals(), "regression", {"formula": formula, "family": family})


FORMULAS = [
    "y ~ rare",
    "y ~ z + rare",
    "y ~ 0 + rare + z",
    "y ~ C(rare)",
    "y ~ word",
    "y ~ C(word) + z",
    "y ~ C(word, Treatment('rare'))",
    "y ~ 0 + C(word)",
    "y ~ word:z",
    "y ~ rare:z",
    "y ~ z * rare",
    "y ~ half:rare",
    "y ~ C(stage):rare",
    "y ~ C(stage) * half * rare",
    "y ~ C(stage):word",
    "y ~ I(x > 5)",
    "y ~ I(x <= 5)",
    "y ~ I(5 < x)",
    "y ~ I(x != 9)",
    "y ~ I(x == 9)",
    "y ~ I(I(x > 5))",
    "y ~ z:I(x > 5)",
    "y ~ z:I(x <= 5)",
    "y ~ I(x > 5):C(stage)",
    "y ~ rare:I(z > 0)",
]


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("family", ["binomial", "gaussian"])
def test_a_model_on_three_people_is_refused(formula: str, family: str) -> None:
    with pytest.raises(Refused) as caught:
        attempt(formula, family=family)
    assert caught.value.rule == "minimum_people"


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ I(x + (x > 5))",
        "y ~ x + I(x + 2 * (x > 5))",
        "y ~ I((x > 5) + 1)",
        "y ~ I(1 - (x > 5))",
        "y ~ I((x > 5) * z + z)",
        "y ~ I(-(x > 5))",
        "y ~ exp(x > 5)",
        "y ~ abs(x > 5)",
        "y ~ I(4 < x < 10)",
    ],
)
def test_a_comparison_cannot_hide_in_arithmetic(formula: str) -> None:
    with pytest.raises(FormulaError):
        attempt(formula)


ARITHMETIC = [
    "y ~ I(rare * 2)",
    "y ~ I(rare * z)",
    "y ~ z + I(rare + z)",
    "y ~ exp(rare * 3) + rare",
    "y ~ log1p(rare)",
    "y ~ sqrt(rare)",
    "y ~ I(rare ** 2)",
    "y ~ I(1 - rare)",
]


@pytest.mark.parametrize("formula", ARITHMETIC)
def test_a_flag_cannot_hide_in_arithmetic(formula: str) -> None:
    with pytest.raises(FormulaError):
        attempt(formula)
    with pytest.raises(FormulaError):
        attempt(formula, hospitals(0.0, 1.0))


@pytest.mark.parametrize("formula", ["y ~ rare", "y ~ C(rare)", "y ~ z * rare", "y ~ z + rare:z"])
def test_all_but_three_are_three(formula: str) -> None:
    """897 ones and three zeros are the same three people."""
    with pytest.raises(Refused):
        attempt(formula, hospitals(0.0, 1.0))


def declared_as_number(formula: str, three_are: float, others_are: float) -> Any:
    """The study calls `rare` a number, so that no level of it is counted."""
    frames = hospitals(three_are, others_are)
    columns = {
        name: Column("category", ("a", "b")) if name == "stage" else Column("number")
        for name in ("y", "z", "stage", "half", "rare")
    }
    step = Step(name="s", method="regression", parameters={"formula": formula, "family": "binomial"})
    frames = {name: frame.drop("word", "x") for name, frame in frames.items()}
    return run_frames(frames, (step,), DEFAULT, columns=columns)[0]["s"]


@pytest.mark.parametrize("formula", [formula for formula in ARITHMETIC if formula != "y ~ z + I(rare + z)"])
def test_a_number_of_three_people_cannot_hide_in_arithmetic_either(formula: str) -> None:
    """A study that calls the flag a number is refused by its counts, or by its spread. (A difference of two columns
    is the opening that the last test of this file names.)"""
    assert declared_as_number(formula, 1.0, 0.0).status == "refused"


@pytest.mark.parametrize("formula", ["y ~ rare", "y ~ rare + z", "y ~ C(stage):rare", "y ~ 0 + rare"])
def test_a_dummy_declared_as_a_number_is_still_three_people(formula: str) -> None:
    assert declared_as_number(formula, 1.0, 0.0).status == "refused"


@pytest.mark.parametrize("values", [(0.0, 1.0), (2.0, 1.0), (1e-3, 1.0)])
def test_a_two_valued_number_is_still_three_people(values: tuple[float, float]) -> None:
    assert declared_as_number("y ~ z + rare", *values).status == "refused"


COMBINED = "a step in the difference of two columns: each alone passes, since people are counted column by column"


@pytest.mark.parametrize(
    "formula",
    [
        "y ~ z + I(1 + (abs(x - 5) + x - 5) / abs(x - 5))",
        pytest.param(
            "y ~ x + I(x + (abs(x - 5) + x - 5) / abs(x - 5))", marks=pytest.mark.xfail(strict=True, reason=COMBINED)
        ),
        "y ~ z + I(1 / (1 + exp(1000 * (x - 5))))",
    ],
)
def test_a_step_made_of_arithmetic_is_still_three_people(formula: str) -> None:
    with pytest.raises(Refused):
        attempt(formula)


def test_an_outcome_of_three_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        attempt("rare ~ z")
    assert caught.value.rule == "minimum_people"
    with pytest.raises(Refused):
        attempt("I(x > 5) ~ z")
    with pytest.raises(Refused):
        attempt("I(x <= 5) ~ z")


def test_three_people_in_a_table_or_a_curve_are_not_shown() -> None:
    table = simulate(hospitals(), "table_one", {"variables": ["rare", "word", "z"]})
    for row in table["table_one"].to_dicts():
        if row["level"] == "rare" or (row["variable"], row["level"]) == ("rare", "1"):
            assert row["n"] is None
            assert row["percent"] is None
    differences = simulate(hospitals(), "table_one", {"variables": ["z"], "by": "rare"})["differences"]
    assert differences["smd"].to_list() == [None]
    random = np.random.default_rng(1)
    frames = {
        name: frame.with_columns(time=pl.Series(random.uniform(0, 9, frame.height)), event=pl.col("half"))
        for name, frame in hospitals().items()
    }
    asked = {"time": "time", "event": "event", "group": "word", "grid": {"width": 1, "until": 10}}
    with pytest.raises(Refused):
        simulate(frames, "survival", asked)


def test_the_same_three_are_counted_when_every_hospital_has_plenty_of_others() -> None:
    """The refusal is the total's: no hospital alone needs ten."""
    with pytest.raises(Refused) as caught:
        attempt("y ~ rare")
    assert caught.value.rule == "minimum_people"
    assert "3" not in caught.value.text("en")
