"""The outside opinion: statsmodels on the raw CSV under the study's written cleaning rules.

Nothing here passes through dure's standardisation or estimation; only the file and the rules are shared.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import pandas as pd

from dure.demo.offices import HUNGARYS_FIRST, source_frame
from dure.errors import MissingPackage
from dure.language import Words

FORMULA = (
    "disease ~ age + C(sex, Treatment('female')) + C(chest_pain, Treatment('angina')) + pressure + heart_rate"
    " + exercise_angina + st_depression"
)
TERMS = {
    "Intercept": "Intercept",
    "age": "age",
    "C(sex, Treatment('female'))[T.male]": "sex[T.male]",
    "C(chest_pain, Treatment('angina'))[T.non_anginal]": "chest_pain[T.non_anginal]",
    "C(chest_pain, Treatment('angina'))[T.asymptomatic]": "chest_pain[T.asymptomatic]",
    "pressure": "pressure",
    "heart_rate": "heart_rate",
    "exercise_angina": "exercise_angina",
    "st_depression": "st_depression",
}
"""statsmodels' name of each term → dure's."""


@dataclass(frozen=True)
class Oracle:
    """Coefficients and standard errors by term, and counts, as statsmodels and pandas see them."""

    terms: list[str]
    estimate: list[float]
    std_error: list[float]
    n: int
    events: int
    by_hospital: dict[str, tuple[int, int, int]]
    """Hospital → people, complete cases, complete cases that also have a cholesterol value."""


def cleaned() -> pd.DataFrame:
    """The raw CSV under the written rules: cholesterol 0 and pressure 0 are missing, row 304 is Hungary's,
    typical and atypical angina are one level, disease is a grade above 0."""
    raw = source_frame().to_pandas()
    true = {"TRUE": 1.0, "FALSE": 0.0}
    pain = {"typical angina": "angina", "atypical angina": "angina", "non-anginal": "non_anginal"}
    return pd.DataFrame(
        {
            "hospital": raw["dataset"].where(raw["id"] != HUNGARYS_FIRST, "Hungary"),
            "age": raw["age"].astype(float),
            "sex": raw["sex"].str.lower(),
            "chest_pain": raw["cp"].replace(pain),
            "pressure": raw["trestbps"].astype(float).where(raw["trestbps"] != 0),
            "cholesterol": raw["chol"].astype(float).where(raw["chol"] != 0),
            "heart_rate": raw["thalch"].astype(float),
            "exercise_angina": raw["exang"].map(true),
            "st_depression": raw["oldpeak"].astype(float),
            "disease": (raw["num"] > 0).astype(float),
        }
    )


def require() -> None:
    """Raise MissingPackage before anything is done, not after."""
    if importlib.util.find_spec("statsmodels") is None:
        raise MissingPackage(
            purpose=Words("The demo's outside check", "시연의 외부 검산"),
            package="statsmodels",
            command='pip install "dure[demo]"',
        )


def consult() -> Oracle:
    """Fit the study's model; raises MissingPackage without statsmodels."""
    require()
    import statsmodels.formula.api as smf

    people = cleaned()
    used = ["age", "sex", "chest_pain", "pressure", "heart_rate", "exercise_angina", "st_depression", "disease"]
    complete = people.dropna(subset=used)
    fit = smf.logit(FORMULA, complete).fit(disp=0, tol=1e-14, maxiter=100)
    names = [name for name in TERMS if name in fit.params.index]
    by_hospital = {
        str(name): (
            len(rows),
            len(rows.dropna(subset=used)),
            len(rows.dropna(subset=[*used, "cholesterol"])),
        )
        for name, rows in people.groupby("hospital")
    }
    return Oracle(
        terms=[TERMS[name] for name in names],
        estimate=[float(fit.params[name]) for name in names],
        std_error=[float(fit.bse[name]) for name in names],
        n=len(complete),
        events=int(complete["disease"].sum()),
        by_hospital=by_hospital,
    )
