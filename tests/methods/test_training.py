"""Training over hospitals: against pooled descent and the papers' own updates, cut and resumed, and what leaves."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

import dure
from dure.client.frames import columns_of
from dure.client.simulate import run_frames
from dure.errors import DureError, InvalidParameter, NobodyLeft, NotAnOutcome, OneClass, UndeclaredLevel
from dure.federation.answer import Desk, answer
from dure.federation.kept import InMemory
from dure.federation.ledger import InMemoryLedger, Ledger
from dure.federation.local_engine import LocalEngine
from dure.federation.messages import Answer, Ask
from dure.federation.plain_sum import PlainSum
from dure.federation.plan import Plan
from dure.federation.rounds import Run
from dure.guard.rules import DEFAULT, OFF, Limits
from dure.methods.training import ROUNDS_SHOWN, method
from dure.methods.training.network import LARGEST_LAYER, first_weights
from dure.methods.training.people import draws, people
from dure.methods.validation import method as validation
from dure.study.method import read_parameters
from dure.study.packing import pack, unpack
from dure.study.result import Result
from dure.study.rows import Rows
from dure.study.spec import Step

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -e '.[learning]'")

SOURCE = Path(dure.__file__).parent
ASKED: dict[str, Any] = {"outcome": "y", "inputs": ["age", "marker", "group"]}
WHOLE: dict[str, Any] = {**ASKED, "batch_size": None, "learning_rate": 0.3}
"""Each step over all people of a hospital."""
EVERYTHING: dict[str, Any] = {
    **ASKED,
    "hidden": [6, 4],
    "rounds": 10,
    "batch_size": 20,
    "strategy": "fedadam",
    "personal": True,
    "validation": 0.25,
}


def patients(random: np.random.Generator, n: int, shift: float = 0.0) -> pl.DataFrame:
    """An outcome that needs a curve (marker near 5 is safe) and whose level may be shifted."""
    age, marker = random.normal(60, 9, n), random.normal(5, 2, n)
    group = random.choice(["a", "b", "c"], n) if n else np.array([], dtype=str)
    score = 0.09 * (age - 60) + 0.5 * (marker - 5) ** 2 - 2 + 0.8 * (group == "b") + shift
    y = (random.random(n) < 1 / (1 + np.exp(-score))).astype(float)
    return pl.DataFrame(
        {"y": y, "age": age, "marker": marker, "group": group},
        schema={"y": pl.Float64, "age": pl.Float64, "marker": pl.Float64, "group": pl.String},
    )


def uneven(seed: int = 1) -> dict[str, pl.DataFrame]:
    """Two hospitals, one of a single person, one of nobody, and one where everybody has the outcome."""
    random = np.random.default_rng(seed)
    frames = {f"h{n}": patients(random, n) for n in (150, 60, 1, 0)}
    return {**frames, "ill": patients(random, 30).with_columns(pl.lit(1.0).alias("y"))}


class Recording(InMemoryLedger):
    """Keeps the state after every round; dies at the write after round `last`, as a killed hub does."""

    def __init__(self, last: int = 100_000) -> None:
        super().__init__()
        self.last = last
        self.states: list[dict[str, Any]] = []

    def write(self, step: str, fold: str | None, entry: bytes) -> None:
        read = unpack(entry)
        if step:  # else: who was left out, whose sums were opened
            if read["round"] > self.last:
                raise KeyboardInterrupt
            self.states.append(read["state"])
        super().write(step, fold, entry)

    @property
    def weights(self) -> dict[int, list[np.ndarray]]:
        """Round → the weights that hospitals were given in it."""
        return {state["round"]: state["weights"] for state in self.states if "weights" in state}


@dataclass
class Alliance:
    """An alliance built by hand, as `simulate` builds it, so that memories, ledger and bytes can be seen."""

    frames: Mapping[str, pl.DataFrame]
    parameters: Mapping[str, Any]
    limits: Limits = OFF
    memories: dict[str, InMemory] = field(default_factory=dict)
    sent: list[bytes] = field(default_factory=list)
    heads: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """What each hospital kept after each of its replies."""
    dies_at: int = 100_000
    """The reply during which the process is killed, before anything of it is stored."""

    def __post_init__(self) -> None:
        step = Step(name="train", method="training", parameters=dict(self.parameters))
        self.plan = Plan("simulation", (step,), columns_of(dict(self.frames)), {"training": method})
        for name in self.frames:
            self.memories.setdefault(name, InMemory())

    def rows(self, hospital: str, frame: pl.DataFrame | None = None) -> Rows:
        frame = self.frames[hospital] if frame is None else frame
        return Rows(frame, hospital, self.plan.columns, person=np.arange(frame.height, dtype=np.int64))

    def run(self, ledger: Ledger) -> Result:
        """The working Result; raises what the run ended with."""
        grants: frozenset[Any] = frozenset(("per_hospital",)) if self.limits is OFF else frozenset()
        engine = LocalEngine({name: self._hospital(name, grants) for name in self.frames})
        granted = dict.fromkeys(self.frames, grants)
        run = Run("run", self.plan, tuple(self.frames), granted, self.limits, engine, PlainSum(), ledger, cap=False)
        fold = run.steps()["train"].folds[None]
        if fold.working is None:
            assert fold.error is not None
            raise fold.error
        return fold.working

    def _hospital(self, name: str, grants: frozenset[Any]) -> Any:
        rows = self.rows(name)
        desk = Desk(name, self.plan, grants, self.limits, lambda: rows, self.memories[name])

        def reply(message: bytes) -> bytes:
            if len(self.sent) == self.dies_at:
                raise KeyboardInterrupt
            self.sent.append(answer(Ask.from_bytes(message), desk))
            self.heads.append((name, self.kept(name)))
            return self.sent[-1]

        return reply

    def kept(self, hospital: str) -> dict[str, Any]:
        entry = self.memories[hospital].last("simulation run", "train", None)
        return unpack(entry.kept) if entry else {}

    def predicted(self, result: Result, hospital: str, frame: pl.DataFrame) -> np.ndarray:
        question = self.plan.question(self.plan.step("train"), tuple(self.frames))
        found = method.derive(self.rows(hospital, frame), question, result, self.kept(hospital))
        return np.asarray(found["prediction"])

    def steps(self, hospital: str | None = None) -> list[dict[str, np.ndarray]]:
        """What was sent in each training round: by one hospital, or added up over all."""
        found: dict[int, dict[str, np.ndarray]] = {}
        seen: dict[str, int] = {}
        for reply in map(Answer.from_bytes, self.sent):
            if "head" not in reply.arrays or hospital not in (None, reply.hospital):
                continue
            place = seen[reply.hospital] = seen.get(reply.hospital, -1) + 1
            total = found.setdefault(place, {})
            for name, array in reply.arrays.items():
                total[name] = total.get(name, 0) + np.asarray(array)
        return [found[place] for place in sorted(found)]


def flat(layers: Any) -> np.ndarray:
    return np.concatenate([np.asarray(layer, dtype=np.float64).ravel() for layer in layers])


def forward(x: np.ndarray, layers: list[np.ndarray]) -> np.ndarray:
    """Scores, written out: the last row of a layer holds its biases."""
    for layer in layers[:-1]:
        x = np.maximum(0, x @ layer[:-1] + layer[-1])
    return (x @ layers[-1][:-1] + layers[-1][-1])[:, 0]


def design(frame: pl.DataFrame) -> np.ndarray:
    groups = [(frame["group"] == level).cast(pl.Float64).to_numpy() for level in ("a", "b", "c")]
    return np.column_stack([frame["age"].to_numpy(), frame["marker"].to_numpy(), *groups])


# ── against pooled descent ──


def pooled_descent(frame: pl.DataFrame, asked: Mapping[str, Any], steps: int) -> list[np.ndarray]:
    """Plain full-batch SGD on pooled rows by torch.nn and torch.optim, from the method's first weights."""
    p = read_parameters(method, asked)
    x, y = design(frame), torch.tensor(frame["y"].to_numpy())
    spread = x.std(axis=0)
    x = torch.tensor((x - x.mean(axis=0)) / np.where(spread > 0, spread, 1.0))
    widths = [5, *p.hidden, 1]
    first = first_weights(p, [np.empty((a + 1, b)) for a, b in itertools.pairwise(widths)], 0)
    linear = [torch.nn.Linear(a, b, dtype=torch.float64) for a, b in itertools.pairwise(widths)]
    with torch.no_grad():
        for module, layer in zip(linear, first):
            module.weight.copy_(torch.tensor(layer[:-1].T.copy()))
            module.bias.copy_(torch.tensor(layer[-1]))
    modules = [part for module in linear for part in (module, torch.nn.ReLU())][:-1]
    network = torch.nn.Sequential(*modules)
    groups = [
        {"params": [module.weight for module in linear], "weight_decay": p.l2},
        {"params": [module.bias for module in linear], "weight_decay": 0.0},
    ]
    descent = torch.optim.SGD(groups, lr=p.learning_rate)
    for _ in range(steps):
        descent.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(network(x)[:, 0], y).backward()
        descent.step()
    return [np.vstack([module.weight.detach().numpy().T, module.bias.detach().numpy()[None, :]]) for module in linear]


@st.composite
def splits(draw: st.DrawFn) -> tuple[bool, list[int]]:
    """Sorted by the outcome (hospitals of one class) or not, and where hospitals begin, some with nobody."""
    places = draw(st.lists(st.integers(0, 90), max_size=6))
    alone = [place + 1 for place in places[:2] if place < 90]
    return draw(st.booleans()), sorted([*places, *alone])


@settings(max_examples=12, deadline=None, derandomize=True)
@given(split=splits(), hidden=st.sampled_from([(), (5,), (6, 4)]), l2=st.sampled_from([0.0, 0.01]))
def test_one_full_batch_step_per_round_is_pooled_descent(
    split: tuple[bool, list[int]], hidden: tuple[int, ...], l2: float
) -> None:
    frame = patients(np.random.default_rng(2), 90)
    ordered, places = split
    frame = frame.sort("y") if ordered else frame
    frames = {f"h{i}": frame[a:b] for i, (a, b) in enumerate(itertools.pairwise([0, *places, 90]))}
    asked = {**WHOLE, "hidden": hidden, "rounds": 12, "local_epochs": 1, "l2": l2, "seed": 3}
    result = Alliance(frames, asked).run(InMemoryLedger())
    for found, expected in zip(result.portable["weights"], pooled_descent(frame, asked, 12), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-10)


def test_hospitals_of_nobody_of_one_person_and_of_one_class_change_nothing_about_that() -> None:
    asked = {**WHOLE, "hidden": [6], "rounds": 20, "local_epochs": 1}
    result = Alliance(uneven(), asked).run(InMemoryLedger())
    expected = pooled_descent(pl.concat(list(uneven().values())), asked, 20)
    np.testing.assert_allclose(flat(result.portable["weights"]), flat(expected), rtol=1e-6, atol=1e-10)
    other = pooled_descent(pl.concat(list(uneven().values())), asked, 19)
    assert not np.allclose(flat(other), flat(expected), rtol=1e-6, atol=1e-10)


def test_several_local_steps_are_not_pooled_descent() -> None:
    """The approximation in `approximate`: the comparison above would see it."""
    asked = {**WHOLE, "hidden": [6], "rounds": 5, "local_epochs": 4}
    frames = {"low": patients(np.random.default_rng(3), 80, -2), "high": patients(np.random.default_rng(4), 80, 2)}
    found = Alliance(frames, asked).run(InMemoryLedger()).portable["weights"]
    expected = pooled_descent(pl.concat(list(frames.values())), asked, 20)
    assert np.abs(flat(found) - flat(expected)).max() > 1e-3


def test_single_precision_is_double_precision_to_seven_digits_at_first() -> None:
    asked = {**WHOLE, "rounds": 5, "local_epochs": 1}
    double, single = (
        Alliance(uneven(), {**asked, "precision": precision}).run(InMemoryLedger()).portable["weights"]
        for precision in ("double", "single")
    )
    assert all(layer.dtype == np.float32 for layer in single)
    np.testing.assert_allclose(flat(single), flat(double), rtol=1e-4, atol=1e-5)
    assert (flat(single) != flat(double)).any()


# ── the strategies ──


def test_fedprox_without_a_pull_is_fedavg_bit_for_bit() -> None:
    asked = {**ASKED, "rounds": 6, "local_epochs": 3, "batch_size": 16}
    average, free, pulled = (
        Alliance(uneven(), {**asked, **more}).run(InMemoryLedger()).portable["weights"]
        for more in ({}, {"strategy": "fedprox", "mu": 0.0}, {"strategy": "fedprox", "mu": 0.01})
    )
    assert pack(free) == pack(average)
    assert pack(pulled) != pack(average)


def test_a_stronger_pull_keeps_hospitals_nearer() -> None:
    frames = {"low": patients(np.random.default_rng(3), 80, -2), "high": patients(np.random.default_rng(4), 80, 2)}
    asked = {**WHOLE, "rounds": 1, "local_epochs": 8, "learning_rate": 0.1, "strategy": "fedprox"}
    moved = []
    for mu in (0.0, 0.5, 2.0, 8.0):
        alliance = Alliance(frames, {**asked, "mu": mu})
        alliance.run(InMemoryLedger())
        step = alliance.steps("low")[0]
        moved.append(np.linalg.norm(np.concatenate([step[name].ravel() for name in ("layer_1", "head")])) / 80)
    assert moved[0] > 1.05 * moved[1] > 1.05**2 * moved[2] > 1.05**3 * moved[3] > 0


@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_fedprox_steps_are_those_of_the_paper(mu: float) -> None:
    """Li et al. 2020: each step descends F_k(w) + mu/2 ‖w − w_t‖²; here by hand, for a logistic regression."""
    frame = patients(np.random.default_rng(5), 70)
    asked = {**WHOLE, "hidden": [], "rounds": 1, "local_epochs": 3, "strategy": "fedprox", "mu": mu, "l2": 0.02}
    found = Alliance({"one": frame}, asked).run(InMemoryLedger()).portable["weights"][0][:, 0]
    x, y = design(frame), frame["y"].to_numpy()
    x = np.column_stack([(x - x.mean(axis=0)) / x.std(axis=0), np.ones(70)])
    start = first_weights(read_parameters(method, asked), [np.empty((6, 1))], 0)[0][:, 0]
    w = start.copy()
    for _ in range(3):
        gradient = x.T @ (1 / (1 + np.exp(-x @ w)) - y) / 70 + 0.02 * np.append(w[:-1], 0)
        w = w - 0.3 * (gradient + mu * (w - start))
    np.testing.assert_allclose(found, w, rtol=1e-10)


def test_fedadam_is_the_server_update_of_reddi_et_al() -> None:
    """Algorithm 2, on the pseudo-gradients that really left the hospitals, one flat vector at a time."""
    eta, beta1, beta2, tau = 0.05, 0.8, 0.95, 0.002
    more = {"strategy": "fedadam", "server_learning_rate": eta, "beta1": beta1, "beta2": beta2, "tau": tau}
    alliance, ledger = Alliance(uneven(), {**ASKED, "hidden": [6, 4], "rounds": 9, **more}), Recording()
    result = alliance.run(ledger)
    names, people = ("layer_1", "layer_2", "head"), 150 + 60 + 1 + 30
    x = flat(ledger.weights[0])
    m, v = np.zeros_like(x), np.full_like(x, tau * tau)
    for round_, sent in enumerate(alliance.steps()):
        delta = flat([sent[name] for name in names]) / people
        m = beta1 * m + (1 - beta1) * delta
        v = beta2 * v + (1 - beta2) * delta**2
        x = x + eta * m / (np.sqrt(v) + tau)
        if round_ < 8:
            np.testing.assert_allclose(flat(ledger.weights[round_ + 1]), x, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(flat(result.portable["weights"]), x, rtol=1e-10, atol=1e-13)


def test_fedadams_moments_stay_at_the_hub() -> None:
    ledger = Recording()
    alliance = Alliance(uneven(), EVERYTHING)
    told: list[Ask] = []
    whole = alliance._hospital

    def listening(name: str, grants: frozenset[Any]) -> Any:
        reply = whole(name, grants)
        return lambda message: (told.append(Ask.from_bytes(message)), reply(message))[1]

    alliance._hospital = listening  # type: ignore[method-assign]
    alliance.run(ledger)
    assert len(ledger.states[5]["hub"]["moments"]) == 3
    assert {name for ask in told for name in ask.state} == {
        "phase", "round", "best", "centre", "scale", "weights",
    }  # fmt: skip


# ── validation and early stopping ──


def overfitting() -> tuple[dict[str, pl.DataFrame], dict[str, Any]]:
    """Few people, much noise, a wide network: the validated loss falls, then rises."""
    random = np.random.default_rng(11)
    frames = {name: patients(random, 40) for name in ("a", "b", "c")}
    asked = {**WHOLE, "hidden": [64], "rounds": 200, "local_epochs": 5, "learning_rate": 0.5, "l2": 0.0}
    return frames, {**asked, "validation": 0.4, "patience": 3, "seed": 5}


def held_out(frame: pl.DataFrame, asked: Mapping[str, Any]) -> np.ndarray:
    return draws(np.arange(frame.height), asked["seed"]) < asked["validation"]


def test_it_stops_early_and_answers_with_the_best_round() -> None:
    frames, asked = overfitting()
    ledger = Recording()
    result = Alliance(frames, asked).run(ledger)
    best, last = result.facts["best_round"], result.facts["last_round"]
    assert 0 < best < last < 200
    assert last == best + 3
    assert any("Stopped after round" in note.en for note in result.notes)
    assert pack(result.portable["weights"]) == pack(ledger.weights[best])
    assert pack(result.portable["weights"]) != pack(ledger.weights[last])
    people = pl.concat([frame.filter(held_out(frame, asked)) for frame in frames.values()])
    x = (design(people) - result.portable["centre"]) / result.portable["scale"]
    losses = [
        log_loss(people["y"], 1 / (1 + np.exp(-forward(x, ledger.weights[round_])))) for round_ in range(last + 1)
    ]
    assert 1 + int(np.argmin(losses[1:])) == best
    assert losses[best] == pytest.approx(result.facts["validated_loss"], abs=6e-5)
    assert result.facts["validated"] == people.height


def test_without_patience_all_rounds_run_and_the_best_one_is_the_answer() -> None:
    frames, asked = overfitting()
    ledger = Recording()
    result = Alliance(frames, {**asked, "patience": None, "rounds": 40}).run(ledger)
    stopped = Alliance(frames, asked).run(InMemoryLedger())
    assert result.facts["last_round"] == 40
    assert result.facts["validated_loss"] <= stopped.facts["validated_loss"]
    assert pack(result.portable["weights"]) == pack(ledger.weights[result.facts["best_round"]])
    assert len(result.notes) == 1


def test_untrained_weights_are_never_the_answer() -> None:
    """Few validated people may by chance be foretold best by first weights, which know nothing."""
    random = np.random.default_rng(9)
    frame = [patients(random, n) for n in (300, 150, 120)][-1]
    asked = {**ASKED, "personal": True, "validation": 0.2, "patience": 10, "rounds": 40}
    alliance, ledger = Alliance({"c": frame}, asked), Recording()
    result = alliance.run(ledger)
    losses = result.tables["training"].frame
    assert losses["validated_loss"][0] == losses["validated_loss"][:11].min()
    assert result.facts["best_round"] > 0
    assert roc_auc_score(frame["y"], alliance.predicted(result, "c", frame)) > 0.65


def test_validated_people_are_not_trained_on() -> None:
    frames, asked = overfitting()
    asked = {**asked, "patience": None, "rounds": 4}
    chosen = {name: held_out(frame, asked) for name, frame in frames.items()}
    assert all(8 < mask.sum() < 24 for mask in chosen.values())

    def sent(change: Mapping[str, np.ndarray]) -> tuple[list[dict[str, np.ndarray]], list[np.ndarray]]:
        """The replies, where the people of `change` have another outcome and another age."""
        changed = {
            name: frame.with_columns(
                pl.Series("y", np.where(change[name], 1 - frame["y"].to_numpy(), frame["y"].to_numpy())),
                pl.Series("age", np.where(change[name], 20.0, frame["age"].to_numpy())),
            )
            for name, frame in frames.items()
        }
        alliance = Alliance(changed, asked)
        weights = alliance.run(InMemoryLedger()).portable["weights"]
        return alliance.steps(), weights

    nobody = {name: np.zeros(40, dtype=bool) for name in frames}
    as_they_are, with_others = sent(nobody)[0], sent(chosen)[0]
    for before, after in zip(as_they_are, with_others, strict=True):
        assert all(pack(before[name]) == pack(after[name]) for name in ("layer_1", "head", "loss"))
        assert before["validated_loss"] != after["validated_loss"]
    one = {**nobody, "a": np.arange(40) == int(np.flatnonzero(~chosen["a"])[0])}
    assert pack(sent(one)[0][0]["head"]) != pack(as_they_are[0]["head"])


def test_who_is_validated_follows_the_person_and_not_the_split_or_the_order() -> None:
    frame = patients(np.random.default_rng(6), 200)
    alliance = Alliance({"all": frame}, {**ASKED, "validation": 0.3, "seed": 9})
    question = alliance.plan.question(alliance.plan.steps[0], ("all",))
    order = np.random.default_rng(7).permutation(200)
    found = []
    for places in ([np.arange(200)], [order], np.array_split(order, 5)):
        rows = [
            Rows(frame[part.tolist()], "all", alliance.plan.columns, person=part.astype(np.int64)) for part in places
        ]
        found.append(sorted(age for part in rows for age in people(part, question).validated_x[:, 0]))
    assert found[0] == found[1] == found[2]
    assert 40 <= len(found[0]) <= 80
    another = draws(np.arange(200), 10) < 0.3
    assert (another != (draws(np.arange(200), 9) < 0.3)).any()


def test_draws_are_even_and_unlike_for_neighbouring_people_and_seeds() -> None:
    found = np.stack([draws(np.arange(20_000), seed) for seed in range(4)])
    assert found.min() >= 0
    assert found.max() < 1
    counts = np.histogram(found, bins=20, range=(0, 1))[0]
    assert np.abs(counts - 4000).max() < 5 * np.sqrt(4000)
    assert np.abs(np.corrcoef(found)[np.triu_indices(4, 1)]).max() < 0.03
    assert abs(np.corrcoef(found[0][:-1], found[0][1:])[0, 1]) < 0.03


# ── repeated, cut, resumed ──


@pytest.mark.parametrize("last", [0, 1, 2, 5, 9, 11])
def test_a_killed_hub_resumes_bit_equal(last: int) -> None:
    whole, undisturbed = Alliance(uneven(), EVERYTHING), Recording()
    expected = whole.run(undisturbed)
    broken, ledger = Alliance(uneven(), EVERYTHING), Recording(last)
    with pytest.raises(KeyboardInterrupt):
        broken.run(ledger)
    ledger.last = 100_000
    resumed = Alliance(uneven(), EVERYTHING, memories=broken.memories)  # new processes, the same stores
    found = resumed.run(ledger)
    assert ledger.entries == undisturbed.entries
    assert pack(found.portable) == pack(expected.portable)
    for hospital in whole.frames:
        assert pack(whole.kept(hospital)) == pack(resumed.kept(hospital))


@pytest.mark.parametrize("dies_at", [3, 12, 33, 46])
def test_a_run_killed_in_the_middle_of_a_round_resumes_bit_equal(dies_at: int) -> None:
    """Some hospitals had answered the round, others not."""
    undisturbed = Recording()
    Alliance(uneven(), EVERYTHING).run(undisturbed)
    broken, ledger = Alliance(uneven(), EVERYTHING, dies_at=dies_at), Recording()
    with pytest.raises(KeyboardInterrupt):
        broken.run(ledger)
    assert len(broken.sent) == dies_at
    Alliance(uneven(), EVERYTHING, memories=broken.memories).run(ledger)
    assert ledger.entries == undisturbed.entries


def test_the_seed_is_what_makes_two_runs_differ() -> None:
    entries = []
    for seed in (0, 0, 1):
        ledger = InMemoryLedger()
        Alliance(uneven(), {**EVERYTHING, "seed": seed}).run(ledger)
        entries.append(ledger.entries)
    assert entries[0] == entries[1]
    assert entries[0] != entries[2]


def test_the_number_of_threads_and_torchs_own_seed_do_not_matter() -> None:
    frames = {name: patients(np.random.default_rng(i), 700) for i, name in enumerate("ab")}
    asked = {**ASKED, "hidden": [300, 200], "rounds": 2, "precision": "single"}
    entries, before, state = [], torch.get_num_threads(), torch.get_rng_state()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(threads)
            drawn = torch.get_rng_state()
            ledger = InMemoryLedger()
            Alliance(frames, asked).run(ledger)
            entries.append(ledger.entries)
            assert torch.get_num_threads() == threads  # and both are left as they were
            assert torch.equal(torch.get_rng_state(), drawn)
    finally:
        torch.set_num_threads(before)
        torch.set_rng_state(state)
    assert entries[0] == entries[1]


# ── what leaves, and what stays ──


def test_own_heads_never_leave() -> None:
    random = np.random.default_rng(5)
    frames = {"low": patients(random, 90, -2), "high": patients(random, 70, 2), "nobody": patients(random, 0)}
    asked = {**EVERYTHING, "batch_size": None, "rounds": 12}
    alliance = Alliance({**frames, "one": patients(random, 1)}, asked)
    result = alliance.run(InMemoryLedger())
    assert alliance.kept("nobody") == {}  # predicted by the shared head
    assert alliance.kept("one") == {}
    names = {name for data in alliance.sent for name in Answer.from_bytes(data).arrays}
    assert names == {
        "n", "events", "levels", "nonzero", "sum_x", "validated", "powers",
        "layer_1", "layer_2", "head", "loss", "validated_loss",
    }  # fmt: skip
    heads = [(hospital, kept["head"]) for hospital, kept in alliance.heads if kept]
    assert len(heads) == 2 * 13  # low and high, after each training round and after the last measuring
    assert not np.allclose(heads[-2][1], heads[-1][1], atol=0.05)
    replies = [Answer.from_bytes(data) for data in alliance.sent]
    counted = {reply.hospital: int(reply.arrays["n"]) for reply in replies if "n" in reply.arrays}
    sent, bytes_sent = np.concatenate([flat(reply.arrays.values()) for reply in replies]), b"".join(alliance.sent)

    def left(values: np.ndarray) -> bool:
        """Whether any of these numbers is among all that were sent."""
        near = np.abs(sent[:, None] - values.ravel()[None, :]) <= 1e-9 * np.abs(values.ravel())[None, :]
        return bool(near.any())

    assert left(alliance.steps("low")[3]["head"])  # the search finds what did leave
    for (hospital, head), (_, before) in zip(heads[2:-2], heads):
        assert head.tobytes() not in bytes_sent
        for values in (head, head - before):
            assert not left(values)
            assert not left(values * counted[hospital])
    for head in (heads[-1][1], heads[-2][1]):
        assert not np.allclose(head, result.portable["weights"][-1], atol=1e-4)
        assert head.tobytes() not in pack(dict(result.portable))


def test_what_is_sent_of_the_shared_head_owes_nothing_to_the_own_head() -> None:
    """A step of round 2, worked out by hand: the shared head by its own error, the layer below by the own head's."""
    frames = {name: patients(np.random.default_rng(place), 60) for place, name in enumerate("ab")}
    asked = {**WHOLE, "hidden": [5], "rounds": 3, "local_epochs": 1, "personal": True, "l2": 0.01}
    alliance, ledger = Alliance(frames, asked), Recording()
    result = alliance.run(ledger)
    own = {name: kept["measured"] for name, kept in alliance.heads if kept.get("round") == 2}
    layer, shared = ledger.weights[2]
    for name, frame in frames.items():
        x, y = (design(frame) - result.portable["centre"]) / result.portable["scale"], frame["y"].to_numpy()[:, None]
        a = np.maximum(0, x @ layer[:-1] + layer[-1])
        error = {
            head: (1 / (1 + np.exp(-(a @ w[:-1] + w[-1]))) - y) / 60
            for head, w in (("shared", shared), ("own", own[name]))
        }
        back = error["own"] @ own[name][:-1].T * (a > 0)
        down = {
            "head": np.vstack([a.T @ error["shared"] + 0.01 * shared[:-1], error["shared"].sum(axis=0)]),
            "layer_1": np.vstack([x.T @ back + 0.01 * layer[:-1], back.sum(axis=0)]),
        }
        sent = alliance.steps(name)[2]
        for array, gradient in down.items():
            np.testing.assert_allclose(sent[array], -0.3 * 60 * gradient, rtol=1e-9, atol=1e-11)


def test_predictions_are_those_of_the_own_head_of_the_best_round() -> None:
    frames, asked = overfitting()
    alliance, ledger = Alliance(frames, {**asked, "personal": True, "hidden": [32, 8]}), Recording()
    result = alliance.run(ledger)
    best = result.facts["best_round"]
    assert 0 < best < result.facts["last_round"]
    fresh = patients(np.random.default_rng(12), 50)
    x = (design(fresh) - result.portable["centre"]) / result.portable["scale"]
    for hospital in frames:
        heads = {kept["round"]: kept["measured"] for name, kept in alliance.heads if name == hospital and kept}
        layers = [*ledger.weights[best][:-1], heads[best]]
        expected = 1 / (1 + np.exp(-forward(x, layers)))
        np.testing.assert_allclose(alliance.predicted(result, hospital, fresh), expected, rtol=1e-10)
        latest = 1 / (1 + np.exp(-forward(x, [*layers[:-1], alliance.kept(hospital)["head"]])))
        assert not np.allclose(latest, expected, rtol=1e-6)


def test_a_hospital_that_kept_nothing_is_predicted_by_the_shared_head() -> None:
    alliance = Alliance(uneven(), EVERYTHING)
    result = alliance.run(InMemoryLedger())
    fresh = patients(np.random.default_rng(13), 50).with_columns(
        pl.when(pl.int_range(pl.len()) < 3).then(None).otherwise(pl.col("age")).alias("age"),
        pl.when(pl.int_range(pl.len()) == 9).then(None).otherwise(pl.col("group")).alias("group"),
    )
    predicted = {hospital: alliance.predicted(result, hospital, fresh) for hospital in alliance.frames}
    assert np.flatnonzero(np.isnan(predicted["h0"])).tolist() == [0, 1, 2, 9]
    known = fresh.filter(pl.col("age").is_not_null() & pl.col("group").is_not_null())
    x = (design(known) - result.portable["centre"]) / result.portable["scale"]
    shared = 1 / (1 + np.exp(-forward(x, result.portable["weights"])))
    for hospital in ("h0", "h1", "ill"):
        np.testing.assert_allclose(predicted[hospital][~np.isnan(predicted[hospital])], shared, rtol=1e-10)
    assert not np.allclose(predicted["h150"][10:], predicted["h60"][10:], rtol=1e-3)


def test_what_is_released_is_a_short_table_of_rounded_losses_and_no_weights() -> None:
    random = np.random.default_rng(3)
    frames = {name: patients(random, n) for name, n in (("north", 300), ("south", 120), ("west", 80))}
    asked = {**ASKED, "rounds": 57, "validation": 0.2}
    step = Step(name="train", method="training", parameters=asked)
    outcome, _ = run_frames(frames, (step,), DEFAULT, methods={"training": method})
    shown = outcome["train"].folds[None].released
    assert shown is not None
    table = shown.tables["training"].frame
    assert table.columns == ["round", "loss", "validated_loss"]
    assert len(table) <= ROUNDS_SHOWN + 1
    assert {0, 57, shown.facts["best_round"]} <= set(table["round"])
    assert all(value == round(value, 4) for name in ("loss", "validated_loss") for value in table[name])
    assert all(shown.facts[name] % 5 == 0 for name in ("n", "events", "validated"))
    assert not shown.portable
    assert {item.array for item in outcome["train"].left} == {
        "n", "events", "levels", "nonzero", "sum_x", "validated", "powers",
        "layer_1", "head", "loss", "validated_loss",
    }  # fmt: skip


@pytest.mark.parametrize("column", ["group", "flag", "coded"])
def test_an_input_of_three_people_is_refused_however_it_is_coded(column: str) -> None:
    random = np.random.default_rng(8)
    first = pl.int_range(pl.len()) < 1
    rare = {
        "group": pl.when(first).then(pl.lit("rare")).otherwise(pl.col("group")).alias("group"),
        "flag": pl.when(first).then(0.0).otherwise(1.0).alias("flag"),
        "coded": pl.when(first).then(7.5).otherwise(3.5).alias("coded"),
    }[column]
    frames = {name: patients(random, 100).with_columns(rare) for name in ("a", "b", "c")}
    asked = {**ASKED, "rounds": 1, "inputs": list(dict.fromkeys(["age", "group", column]))}
    with pytest.raises(DureError) as caught:
        Alliance(frames, asked, limits=DEFAULT).run(InMemoryLedger())
    assert column in caught.value.text("en")


def test_too_few_validated_people_are_refused() -> None:
    frames = {name: patients(np.random.default_rng(i), 40) for i, name in enumerate("abc")}
    asked = {**ASKED, "rounds": 1}
    Alliance(frames, {**asked, "validation": 0.3}, limits=DEFAULT).run(InMemoryLedger())
    with pytest.raises(DureError) as caught:
        Alliance(frames, {**asked, "validation": 0.04}, limits=DEFAULT).run(InMemoryLedger())
    assert getattr(caught.value, "rule", "") == "minimum_people"


# ── what it learns, and for whom ──


def test_a_network_learns_the_curve_that_a_logistic_regression_cannot() -> None:
    fresh = patients(np.random.default_rng(77), 3000)
    found = {}
    for hidden in ((), (16,)):
        alliance = Alliance(uneven(2), {**ASKED, "hidden": hidden})
        result = alliance.run(InMemoryLedger())
        found[hidden] = roc_auc_score(fresh["y"], alliance.predicted(result, "h150", fresh))
        loss = result.tables["training"].frame["loss"]
        assert loss[-1] < loss[0]
    assert found[16,] > 0.8
    assert found[16,] > found[()] + 0.1


@pytest.mark.parametrize("scope", ["all", "each", "all_but_one"])
@pytest.mark.parametrize("personal", [True, False])
def test_predictions_serve_a_later_validation(scope: Any, personal: bool) -> None:
    random = np.random.default_rng(9)
    frames = {name: patients(random, n) for name, n in (("a", 300), ("b", 150), ("c", 120))}
    steps = (
        Step(
            name="net",
            method="training",
            parameters={**ASKED, "rounds": 40, "personal": personal, "validation": 0.2, "patience": 10},
            scope=scope,
        ),
        Step(
            name="check", method="validation", parameters={"outcome": "y", "scores": ["net.prediction"]}, uses=("net",)
        ),
    )
    grants = frozenset(("per_hospital", "difference"))
    outcome, _ = run_frames(frames, steps, OFF, grants, methods={"training": method, "validation": validation})
    fold = outcome["check"].folds[None]
    assert fold.working is not None, fold.error
    assert fold.working.facts["n"] == 570
    assert min(fold.working.tables["auroc"].frame["auroc"]) > 0.65


def test_a_hospital_without_one_of_the_levels_sends_the_same_columns() -> None:
    frames = {**uneven(), "few": patients(np.random.default_rng(4), 40).filter(pl.col("group") == "b")}
    alliance = Alliance(frames, {**ASKED, "rounds": 2})
    assert alliance.run(InMemoryLedger()).portable["weights"][0].shape == (6, 16)
    rows = Rows(frames["few"].with_columns(pl.lit("z").alias("group")), "few", alliance.plan.columns)
    question = alliance.plan.question(alliance.plan.steps[0], ("few",))
    with pytest.raises(UndeclaredLevel):
        method.summarise(rows, question, method.start(question), {})


def test_a_category_of_two_levels_is_an_outcome() -> None:
    named = {name: frame.with_columns(pl.col("y").replace_strict({0.0: "alive", 1.0: "dead"}, return_dtype=pl.Enum(
        ["alive", "dead"]))) for name, frame in uneven().items()}  # fmt: skip
    asked = {**ASKED, "rounds": 3}
    found, expected = (Alliance(frames, asked).run(InMemoryLedger()).portable for frames in (named, uneven()))
    assert pack(found) == pack(expected)


# ── what it refuses ──


@pytest.mark.parametrize(
    "wrong",
    [
        {"inputs": []},
        {"inputs": ["y"]},
        {"inputs": ["site"]},
        {"inputs": ["age", "age"]},
        {"hidden": [0]},
        {"patience": 3},
        {"personal": True, "hidden": []},
        {"mu": 0.5},
        {"strategy": "fedprox", "tau": 0.1},
        {"strategy": "scaffold"},
        {"learning_rate": 10, "l2": 0.5},
        {"validation": 0.9},
    ],
    ids=lambda wrong: "-".join(wrong),
)
def test_refuses_unusable_parameters(wrong: dict[str, Any]) -> None:
    read_parameters(method, ASKED)
    with pytest.raises(InvalidParameter):
        read_parameters(method, {**ASKED, **wrong})


def test_a_layer_that_could_not_travel_is_refused_before_anybody_is_asked() -> None:
    asked = {**ASKED, "hidden": [4096, 4096]}
    assert LARGEST_LAYER < 4097 * 4096
    step = Step(name="t", method="training", parameters=asked)
    plan = Plan("study", (step,), columns_of(uneven()), {"training": method})
    with pytest.raises(InvalidParameter) as caught:
        plan.check(("a", "b", "c"))
    assert "hidden" in caught.value.text("en")
    unpack(pack({"largest": np.zeros(LARGEST_LAYER)}))


@pytest.mark.parametrize(
    ("value", "error"), [(0.0, OneClass), (1.0, OneClass), (2.0, NotAnOutcome), (None, NobodyLeft)]
)
def test_refuses_an_outcome_that_is_not_two_classes(value: float | None, error: type[DureError]) -> None:
    said = pl.lit(value, dtype=pl.Float64).alias("y")
    with pytest.raises(error):
        Alliance({name: frame.with_columns(said) for name, frame in uneven().items()}, ASKED).run(InMemoryLedger())


def test_training_that_runs_away_names_the_learning_rate() -> None:
    asked = {**WHOLE, "hidden": [64] * 6, "learning_rate": 10, "l2": 0, "local_epochs": 20, "rounds": 3}
    with pytest.raises(InvalidParameter) as caught:
        Alliance(uneven(), asked).run(InMemoryLedger())
    assert "learning_rate" in caught.value.text("en")


# ── without PyTorch ──

BLOCKED = """
import json, sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name == "torch" or name.startswith("torch."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nothing())
import numpy as np
from dure.client.frames import columns_of
from dure.client.simulate import run_frames
from dure.errors import MissingPackage
from dure.federation.plan import Plan
from dure.methods.training import method
from dure.study.result import Result
from dure.study.rows import Rows
from dure.federation.answer import total_of
from dure.study.spec import Step

example = method.example(np.random.default_rng(0))
step = Step(name="train", method="training", parameters=dict(example.parameters))
frames = {name: example.frame[i::3] for i, name in enumerate(("North", "South", "West"))}
plan = Plan("study", (step,), columns_of(frames), {"training": method})
plan.check(tuple(frames))
question = plan.question(step, tuple(frames))
state, told = method.start(question), 0
while not isinstance(state, Result):
    counts = {"n": 100, "events": 40, "validated": 30}
    total = {
        spec.name: np.full(spec.shape, counts.get(spec.name, 1.0), dtype=spec.dtype)
        for spec in method.declare(question, state)
    }
    state, told = method.conclude(total_of(total), question, state), told + 1
rows = Rows(frames["North"], "North", plan.columns)
predicted = method.derive(rows, question, state, {})["prediction"]
outcome, _ = run_frames(frames, (step,), methods={"training": method})
error = outcome["train"].folds[None].error
print(json.dumps({
    "error": type(error).__name__, "en": error.text("en"), "ko": error.text("ko"), "rounds": told,
    "predicted": bool(np.isfinite(predicted).all()), "torch": "torch" in sys.modules,
}))
"""


def test_without_pytorch_the_hub_works_and_the_hospitals_error_names_the_extra(tmp_path: Path) -> None:
    found = subprocess.run([sys.executable, "-c", BLOCKED], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    said = json.loads(found.stdout)
    assert said["torch"] is False
    assert said["error"] == "MissingPackage"
    for language in ("en", "ko"):
        assert 'pip install "dure[learning]"' in said[language]
        assert "North" in said[language]
    assert said["predicted"]
    assert said["rounds"] > 3


def test_importing_the_method_does_not_load_pytorch(tmp_path: Path) -> None:
    program = "import sys, dure.methods.training; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_a_permit_binds_every_file_of_the_method(tmp_path: Path) -> None:
    shutil.copytree(SOURCE, tmp_path / "dure", ignore=shutil.ignore_patterns("__pycache__"))
    program = "from dure.study.method import *; from dure.methods.training import method; print(source_hash(method))"

    def hashed() -> str:
        found = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        return found.stdout.strip()

    hashes = [hashed()]
    for name in ("__init__", "network", "parameters", "people"):
        with (tmp_path / "dure" / "methods" / "training" / f"{name}.py").open("a", encoding="utf-8") as file:
            file.write("\n# another way of training\n")
        hashes.append(hashed())
    assert hashes[0] != hashes[1]
    assert len(set(hashes)) == 5


# ── large models ──

LARGE = """
import json, resource, sys
import numpy as np
from dure.client.simulate import run_frames
from dure.guard.rules import OFF
from dure.methods.training import method
from dure.study.spec import Step

example = method.example(np.random.default_rng(0))
hidden, rounds = json.loads(sys.argv[1]), int(sys.argv[2])
asked = {"outcome": "y", "inputs": ["age", "marker", "group"], "hidden": hidden, "rounds": rounds, "local_epochs": 1,
         "precision": "single", "learning_rate": 0.01}
frames = {name: example.frame[i::3] for i, name in enumerate("ABC")}
outcome, _ = run_frames(frames, (Step(name="train", method="training", parameters=asked),), OFF,
                        frozenset(("per_hospital",)), methods={"training": method})
fold = outcome["train"].folds[None]
sent = sum(item.bytes for item in outcome["train"].left if item.hospital == "A" and item.round == 2)
print(json.dumps({"status": fold.status, "sent": sent, "loss": fold.working.facts["loss"],
                  "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


def large(hidden: list[int], rounds: int, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", LARGE, json.dumps(hidden), str(rounds)]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=dict(os.environ))
    assert found.returncode == 0, found.stderr
    read: dict[str, Any] = json.loads(found.stdout)
    return read


@pytest.mark.slow
def test_a_model_of_over_40_megabytes_trains_in_bounded_memory(tmp_path: Path) -> None:
    """Three hospitals and the hub in one process, each hospital's store with its last two replies."""
    small, two, five = (large(*asked, tmp_path) for asked in (([8], 1), ([4096, 2048], 2), ([4096, 2048], 5)))
    assert small["status"] == two["status"] == five["status"] == "finished"
    assert two["sent"] > 60e6
    assert np.isfinite(two["loss"])
    assert two["loss"] != five["loss"]
    print(f"{two['sent'] / 1e6:.0f} MB sent; peak {two['peak'] / 1e6:.0f}, then {five['peak'] / 1e6:.0f} MB")
    assert two["peak"] - small["peak"] < 20 * two["sent"]
    assert five["peak"] < 1.1 * two["peak"]  # it does not grow with the rounds
