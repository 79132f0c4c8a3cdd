"""Questions that build on each other, asked of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import dure
from dure.errors import InvalidParameter, Refused, UnknownStep

MODEL = {"name": "model", "method": "regression", "parameters": {"formula": "y ~ x", "family": "binomial"}}
CHECK = {
    "name": "check",
    "method": "validation",
    "uses": ["model"],
    "parameters": {"outcome": "y", "scores": ["model.prediction"]},
}


def sites() -> dict[str, pl.DataFrame]:
    random = np.random.default_rng(3)
    x = random.normal(size=900)
    y = (random.random(900) < 1 / (1 + np.exp(-x))).astype(float)
    frame = pl.DataFrame({"x": x, "y": y, "rare": (np.arange(900) < 3).astype(float)})
    return {f"h{place}": frame[place::3] for place in range(3)}


def test_a_later_step_reads_what_an_earlier_one_derives(tmp_path: Path) -> None:
    found = dure.simulate_steps(sites(), [MODEL, CHECK])
    assert found.status() == {"model": "finished", "check": "finished"}
    assert found["check"]["auroc"].height == 3
    assert found["model"].parameters["family"] == "binomial"
    names = {path.name for path in found.write(tmp_path)}
    assert {"model.coefficients.csv", "check.auroc.parquet", "result.json", "result.html"} <= names


def test_each_hospital_answers_by_its_name() -> None:
    found = dure.simulate_steps(sites(), [{**MODEL, "scope": "each"}], rules={"per_hospital": True})
    one = found["model", "h1"]["coefficients"]["estimate"].to_list()
    for unknown in (("model", "nowhere"), "model"):
        with pytest.raises(InvalidParameter, match="h0, h1, h2"):
            found[unknown]
    alone = dure.simulate({"h1": sites()["h1"]}, "regression", MODEL["parameters"], rules={"per_hospital": True})
    assert one == alone["coefficients"]["estimate"].to_list()


def test_a_refused_step_raises_when_it_is_looked_up_and_the_others_stand(tmp_path: Path) -> None:
    rare = {**MODEL, "name": "rare", "parameters": {"formula": "y ~ x + rare", "family": "binomial"}}
    found = dure.simulate_steps(sites(), [MODEL, rare])
    assert found.status() == {"model": "finished", "rare": "refused"}
    with pytest.raises(Refused, match="minimum_people"):
        found["rare"]
    assert found["model"].facts["n"] == 900
    found.write(tmp_path)
    assert "minimum_people" in (tmp_path / "result.html").read_text(encoding="utf-8")


def test_what_cannot_be_looked_up_is_said() -> None:
    found = dure.simulate_steps(sites(), [{**MODEL, "release": False}, CHECK])
    with pytest.raises(InvalidParameter, match="release: false"):
        found["model"]
    with pytest.raises(InvalidParameter, match="there are: model, check"):
        found["nothing"]
    with pytest.raises(InvalidParameter, match="method"):
        dure.simulate_steps(sites(), [{"name": "model"}])
    with pytest.raises(UnknownStep, match="no earlier step"):
        dure.simulate_steps(sites(), [CHECK])
    with pytest.raises(InvalidParameter, match="two steps"):
        dure.simulate_steps(sites(), [MODEL, MODEL])
