"""What is shown of the trees: what they split on, how the loss fell, and the sentence of a paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from dure.language import Words
from dure.methods.trees.forest import empty_tree
from dure.methods.trees.parameters import Parameters, family
from dure.methods.trees.people import layout_of
from dure.study.method import HUB, Question, State
from dure.study.result import Figure, Result, Table

SHOWN = 20
"""Every loss is a released number, and a study may release only so many."""
REFERENCES = (
    "Chen T, Guestrin C. XGBoost: a scalable tree boosting system. In: Proceedings of the 22nd ACM SIGKDD "
    "International Conference on Knowledge Discovery and Data Mining. New York: ACM; 2016. p. 785-94.",
    "Friedman JH. Greedy function approximation: a gradient boosting machine. Ann Stat. 2001;29(5):1189-232.",
    "Ke G, Meng Q, Finley T, Wang T, Chen W, Ma W, et al. LightGBM: a highly efficient gradient boosting decision "
    "tree. In: Advances in Neural Information Processing Systems 30. 2017. p. 3146-54.",
)


def result_of(question: Question, state: State, best: int) -> Result:
    """The Result of the first `best` trees."""
    p: Parameters = question.parameters
    hub, layout = state[HUB], layout_of(question, state)
    forest = {name: np.asarray(array)[:best] for name, array in state["trees"].items()}
    measured = {name: np.asarray(hub[name])[:best].sum(axis=0) for name in ("gain", "cover", "splits")}
    shares = {name: np.round(values / max(values.sum(), 1e-300), 4) for name, values in measured.items()}
    importance = pl.DataFrame(
        {
            "variable": list(layout.names),
            "splits": measured["splits"].astype(np.int64),
            "gain": shares["gain"],
            "cover": shares["cover"],
        }
    )
    losses, last = hub["losses"], len(hub["losses"]) - 1
    shown = sorted({*np.linspace(0, last, min(last + 1, SHOWN)).round().astype(int).tolist(), best})
    names = ("training", "validation")[: len(losses[0])]
    curve = pl.DataFrame(
        {
            "trees": [tree for _ in names for tree in shown],
            "set": [name for name in names for _ in shown],
            "loss": [_rounded(losses[tree][place]) for place in range(len(names)) for tree in shown],
        }
    )
    counted = {name: hub[name] for name in ("n", "events") if name in hub}
    counted |= {"validated": hub["validated"]} if p.validation else {}
    facts: dict[str, Any] = {
        **counted,
        "trees": best,
        "leaves": int(sum((tree >= 0).sum() + 1 for tree in forest["column"])),
        "loss": _rounded(losses[best][0]),
        **({"validated_loss": _rounded(losses[best][1])} if p.validation else {}),
    }
    portable = {
        "family": family(question),
        "base": state["base"],
        "names": list(layout.names),
        "edges": list(layout.edges),
        "levels": [list(levels) for levels in layout.levels],
        "trees": forest if best else {name: array[None][:0] for name, array in empty_tree(p.depth).items()},
    }
    return Result(
        method="trees",
        tables={"importance": Table(importance), "loss": Table(curve, derived=("trees",))},
        facts=facts,
        people_facts=tuple(counted),
        portable=portable,
        notes=_notes(p, best, last),
        figures=_figures(question),
        paragraph=_paragraph(p, family(question)),
        references=REFERENCES,
    )


def _rounded(loss: float) -> float:
    """To four digits."""
    return float(f"{loss:.4g}")


def _notes(p: Parameters, best: int, last: int) -> tuple[Words, ...]:
    notes = [
        Words(
            "The trees stay in the run; no report shows them. Gain and cover are shares of the model's own sums.",
            "나무는 실행 안에만 있고 공개하지 않습니다. 이득과 비중은 모형 안에서의 몫입니다.",
        )
    ]
    if best < last:
        notes.append(
            Words(
                f"{best} of {last} trees are kept: those of the lowest validated loss.",
                f"나무 {last}그루 가운데 검증 손실이 가장 낮을 때까지의 {best}그루를 썼습니다.",
            )
        )
    return tuple(notes)


def _figures(question: Question) -> dict[str, Figure]:
    loss = Words("Mean log loss", "평균 로그 손실")
    if family(question) == "gaussian":
        loss = Words("Mean squared error", "평균 제곱 오차")
    return {
        "importance": Figure(
            drawn="bars",
            table="importance",
            x="gain",
            y="variable",
            title=Words("What the trees split on", "나무가 가른 변수"),
            x_title=Words("Share of gain", "이득의 몫"),
            y_title=Words("Variable", "변수"),
        ),
        "loss": Figure(
            drawn="lines",
            table="loss",
            x="trees",
            y="loss",
            group="set",
            title=Words("Loss by number of trees", "나무 수에 따른 손실"),
            x_title=Words("Trees", "나무 수"),
            y_title=loss,
        ),
    }


def _paragraph(p: Parameters, of: str) -> Words:
    loss = Words("logistic loss", "로지스틱 손실") if of == "binomial" else Words("squared error", "제곱 오차")
    en = (
        f"Gradient-boosted trees [1,2] ({loss.en}; at most {p.trees} trees of depth {p.depth}, learning rate "
        f"{p.learning_rate:g}, L2 penalty {p.reg_lambda:g}) were grown from histograms of gradients over at most "
        f"{p.bins} bins per variable [3], summed over hospitals; bin edges were approximate quantiles of all hospitals "
        f"together, and missing values followed a learned side of each split."
    )
    ko = (
        f"그래디언트 부스팅 트리[1,2]({loss.ko}, 깊이 {p.depth}의 나무 최대 {p.trees}그루, 학습률 {p.learning_rate:g}, "
        f"L2 벌점 {p.reg_lambda:g})를 변수마다 최대 {p.bins}개 구간에서 병원들이 합한 기울기 히스토그램[3]으로 키웠다. "
        f"구간의 경계는 모든 병원을 합한 근사 분위수이며, 결측값은 가를 때마다 학습된 쪽으로 보냈다."
    )
    if p.subsample < 1 or p.colsample < 1:
        en += f" Each tree saw a random {p.subsample:.0%} of people and {p.colsample:.0%} of variables."
        ko += f" 나무마다 무작위로 고른 사람 {p.subsample:.0%}와 변수 {p.colsample:.0%}를 썼다."
    if p.patience is not None:
        en += (
            f" Boosting stopped after {p.patience} trees without a lower loss in a held-out {p.validation:.0%} of "
            f"people."
        )
        ko += f" 떼어 둔 {p.validation:.0%}의 사람에서 나무 {p.patience}그루 동안 손실이 낮아지지 않으면 멈추었다."
    return Words(en, ko)
