"""The example package `dure-network`: a method from outside, its training, and the head that never leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from dure.client.frames import columns_of
from dure.client.simulate import run_frames, simulate
from dure.errors import DureError, InvalidParameter, NotAnOutcome, OneClass
from dure.federation.answer import Desk, answer
from dure.federation.kept import InMemory
from dure.federation.ledger import InMemoryLedger, Ledger
from dure.federation.local_engine import LocalEngine
from dure.federation.messages import Answer, Ask
from dure.federation.plain_sum import PlainSum
from dure.federation.plan import Plan
from dure.federation.rounds import Run
from dure.guard.rules import DEFAULT, OFF, Limits
from dure.study.method import installed_methods, read_parameters
from dure.study.packing import pack, unpack
from dure.study.result import Result
from dure.study.rows import Rows
from dure.study.spec import Step

network = pytest.importorskip(
    "dure_network", reason="dure-network is not installed: pip install -e examples/dure_network"
)

ASKED = {"outcome": "y", "inputs": ["age", "marker", "group"]}


def people(random: np.random.Generator, n: int, shift: float = 0.0) -> pl.DataFrame:
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
    random = np.random.default_rng(seed)
    return {f"h{n}": people(random, n) for n in (500, 137, 1, 0)}


@dataclass
class Alliance:
    """An alliance built by hand, as `simulate` builds it, so that memories, ledger and bytes can be seen."""

    frames: Mapping[str, pl.DataFrame]
    parameters: Mapping[str, Any]
    limits: Limits = OFF
    memories: dict[str, InMemory] = field(default_factory=dict)
    sent: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        step = Step(name="train", method="network", parameters=dict(self.parameters))
        self.plan = Plan("simulation", (step,), columns_of(dict(self.frames)), {"network": network.method})
        for name in self.frames:
            self.memories.setdefault(name, InMemory())

    def rows(self, hospital: str, frame: pl.DataFrame | None = None) -> Rows:
        frame = self.frames[hospital] if frame is None else frame
        return Rows(frame, hospital, self.plan.columns, person=np.arange(frame.height, dtype=np.int64))

    def run(self, ledger: Ledger) -> Result:
        """The working Result; raises what the run ended with."""
        grants: frozenset[Any] = frozenset(("per_hospital",)) if self.limits is OFF else frozenset()
        run = Run(
            "run",
            self.plan,
            tuple(self.frames),
            dict.fromkeys(self.frames, grants),
            self.limits,
            LocalEngine({name: self._hospital(name, grants) for name in self.frames}),
            PlainSum(),
            ledger,
            cap=False,
        )
        fold = run.steps()["train"].folds[None]
        if fold.working is None:
            assert fold.error is not None
            raise fold.error
        return fold.working

    def _hospital(self, name: str, grants: frozenset[Any]) -> Any:
        rows = self.rows(name)
        desk = Desk(name, self.plan, grants, self.limits, lambda: rows, self.memories[name])

        def reply(message: bytes) -> bytes:
            self.sent.append(answer(Ask.from_bytes(message), desk))
            return self.sent[-1]

        return reply

    def head(self, hospital: str) -> np.ndarray | None:
        entry = self.memories[hospital].last("simulation run", "train", None)
        assert entry is not None
        head: np.ndarray | None = unpack(entry.kept).get("head")
        return head

    def predicted(self, result: Result, hospital: str, frame: pl.DataFrame) -> np.ndarray:
        kept = {} if self.head(hospital) is None else {"head": self.head(hospital)}
        question = self.plan.question(self.plan.step("train"), tuple(self.frames))
        found = network.method.derive(self.rows(hospital, frame), question, result, kept)
        return np.asarray(found["prediction"])


def test_found_by_its_entry_point() -> None:
    (entry,) = (entry for entry in entry_points(group="dure.methods") if entry.name == "network")
    assert entry.load() is network.method
    assert entry.dist is not None
    assert entry.dist.name == "dure-network"


def test_listed_among_installed_methods() -> None:
    assert installed_methods()["network"] is network.method


def test_learns_over_uneven_hospitals() -> None:
    alliance = Alliance(uneven(), ASKED)
    result = alliance.run(InMemoryLedger())
    loss = result.tables["training"].frame["loss"].to_numpy()
    assert len(loss) == 41
    assert np.isfinite(loss).all()
    assert loss[-1] < 0.75 * loss[0]
    held_out = people(np.random.default_rng(77), 4000)
    for hospital in alliance.frames:
        predicted = alliance.predicted(result, hospital, held_out)
        assert roc_auc_score(held_out["y"], predicted) > 0.75, hospital
    assert all(np.isfinite(result.portable[name]).all() for name in ("hidden", "head", "scale"))


def test_simulate_under_the_default_rules_releases_the_losses_and_no_weights() -> None:
    random = np.random.default_rng(3)
    sites = {name: people(random, n) for name, n in (("north", 300), ("south", 120), ("west", 80))}
    shown = simulate(sites, "network", {**ASKED, "rounds": 5})
    assert shown["training"].columns == ["round", "loss"]
    assert shown.facts["n"] == 500
    assert not shown.result.portable


def pooled_descent(frame: pl.DataFrame, first: Mapping[str, Any], steps: int, rate: float, l2: float) -> Any:
    """Plain full-batch gradient descent on pooled rows, written out weight by weight."""
    groups = [(frame["group"] == level).cast(pl.Float64).to_numpy() for level in ("a", "b", "c")]
    x = np.column_stack([frame["age"].to_numpy(), frame["marker"].to_numpy(), *groups])
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    y = frame["y"].to_numpy()
    w, b = first["hidden"][:-1].copy(), first["hidden"][-1].copy()
    v, c = first["head"][:-1].copy(), float(first["head"][-1])
    for _ in range(steps):
        a = np.tanh(np.einsum("ni,ih->nh", x, w) + b)
        p = 1 / (1 + np.exp(-(np.einsum("nh,h->n", a, v) + c)))
        residual = p - y
        grad_v = (residual[:, None] * a).mean(axis=0) + l2 * v
        grad_c = residual.mean()
        behind = residual[:, None] * v[None, :] * (1 - a * a)
        grad_w = np.einsum("ni,nh->ih", x, behind) / len(y) + l2 * w
        grad_b = behind.mean(axis=0)
        w, b, v, c = w - rate * grad_w, b - rate * grad_b, v - rate * grad_v, c - rate * grad_c
    return np.vstack([w, b]), np.append(v, c)


@pytest.mark.parametrize("l2", [0.0, 0.01])
def test_one_local_epoch_of_a_shared_head_is_pooled_gradient_descent(l2: float) -> None:
    asked = {**ASKED, "personal": False, "local_epochs": 1, "rounds": 25, "l2": l2, "seed": 4}
    alliance = Alliance(uneven(), asked)
    result = alliance.run(InMemoryLedger())
    first = network._first_weights(read_parameters(network.method, asked), 5)
    hidden, head = pooled_descent(pl.concat(list(alliance.frames.values())), first, 25, 1.0, l2)
    np.testing.assert_allclose(result.portable["hidden"], hidden, rtol=0, atol=1e-10)
    np.testing.assert_allclose(result.portable["head"], head, rtol=0, atol=1e-10)


def test_own_heads_stay_and_differ() -> None:
    random = np.random.default_rng(5)
    frames = {"low": people(random, 300, -2), "high": people(random, 200, 2), "nobody": people(random, 0)}
    alliance = Alliance({**frames, "one": people(random, 1)}, {**ASKED, "rounds": 12})
    result = alliance.run(InMemoryLedger())
    low, high = alliance.head("low"), alliance.head("high")
    assert low is not None
    assert high is not None
    assert not np.allclose(low, high, atol=0.1)
    assert alliance.head("nobody") is None  # predicted by the shared head
    assert alliance.head("one") is None
    answers = [Answer.from_bytes(data) for data in alliance.sent]
    names = {name for reply in answers for name in reply.arrays}
    assert names == {"n", "events", "levels", "nonzero", "sum_x", "squares", "hidden", "shared_head", "loss"}
    for reply in answers:
        for name, array in reply.arrays.items():
            sent = np.asarray(array, dtype=np.float64).ravel()
            for head, n in ((low, 300), (high, 200)):
                for value in head:
                    assert not np.isclose(sent, value, rtol=1e-9, atol=0).any(), name
                    assert not np.isclose(sent, n * value, rtol=1e-9, atol=0).any(), name
    for part in (low, high):
        assert part.tobytes() not in b"".join(alliance.sent)
        assert not np.allclose(part, result.portable["head"], atol=1e-6)


def test_no_step_of_the_shared_head_is_the_own_heads() -> None:
    """Both learn from the same people; if they began alike, what travels would be what stays."""
    alliance = Alliance(
        {"a": people(np.random.default_rng(6), 400), "b": people(np.random.default_rng(7), 100)},
        {**ASKED, "rounds": 1},
    )
    result = alliance.run(InMemoryLedger())
    first = network._first_weights(read_parameters(network.method, ASKED), 5)
    step = next(
        reply.arrays["shared_head"] / 400
        for reply in map(Answer.from_bytes, alliance.sent)
        if reply.hospital == "a" and "shared_head" in reply.arrays
    )
    head = alliance.head("a")
    assert head is not None
    for start in (np.zeros_like(head), first["head"], first["own"], result.portable["head"]):
        assert not np.allclose(start + step, head, atol=1e-3)


def shifted_loss(seed: int, personal: bool) -> float:
    """Mean held-out log loss over hospitals whose outcome's level differs strongly."""
    random = np.random.default_rng(seed)
    shifts = {"a": -3.0, "b": -1.0, "c": 1.0, "d": 3.0}
    alliance = Alliance(
        {name: people(random, 200, shift) for name, shift in shifts.items()},
        {**ASKED, "personal": personal, "seed": seed},
    )
    result = alliance.run(InMemoryLedger())
    losses = []
    for name, shift in shifts.items():
        held_out = people(random, 1000, shift)
        losses.append(log_loss(held_out["y"], alliance.predicted(result, name, held_out), labels=[0, 1]))
    return float(np.mean(losses))


def test_own_heads_help_where_the_outcome_is_shifted(capsys: pytest.CaptureFixture[str]) -> None:
    own, shared = ([shifted_loss(seed, personal) for seed in range(5)] for personal in (True, False))
    with capsys.disabled():
        print(f"\nheld-out log loss: own heads {np.mean(own):.3f}, shared head {np.mean(shared):.3f}")
    assert np.mean(own) <= np.mean(shared)


@dataclass
class StoppingLedger(InMemoryLedger):
    """Dies at the write after round `last`, as a killed hub does: answered by the hospitals, not stored."""

    last: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def write(self, step: str, fold: str | None, entry: bytes) -> None:
        if step and unpack(entry)["round"] > self.last:
            raise KeyboardInterrupt
        super().write(step, fold, entry)


@pytest.mark.parametrize("last", [0, 1, 2, 7, 13])
def test_a_killed_and_resumed_run_is_bit_equal(last: int) -> None:
    asked = {**ASKED, "rounds": 12}
    whole, undisturbed = Alliance(uneven(), asked), InMemoryLedger()
    whole.run(undisturbed)
    broken, ledger = Alliance(uneven(), asked), StoppingLedger(last)
    with pytest.raises(KeyboardInterrupt):
        broken.run(ledger)
    ledger.last = 10_000
    resumed = Alliance(uneven(), asked, memories=broken.memories)  # new processes, the same stores
    resumed.run(ledger)
    assert ledger.entries == undisturbed.entries
    for hospital in whole.frames:
        assert pack(whole.head(hospital)) == pack(resumed.head(hospital))


def test_a_hospital_with_an_incomplete_input_is_predicted_where_it_can_be() -> None:
    alliance = Alliance(uneven(), {**ASKED, "rounds": 3})
    result = alliance.run(InMemoryLedger())
    frame = alliance.frames["h137"].with_columns(
        pl.when(pl.int_range(pl.len()) < 5).then(None).otherwise(pl.col("age")).alias("age"),
        pl.when(pl.int_range(pl.len()) == 9).then(None).otherwise(pl.col("group")).alias("group"),
    )
    missing = np.isnan(alliance.predicted(result, "h137", frame))
    assert np.flatnonzero(missing).tolist() == [0, 1, 2, 3, 4, 9]


@pytest.mark.parametrize(
    "wrong",
    [{"inputs": []}, {"inputs": ["y"]}, {"inputs": ["site"]}, {"inputs": ["age", "age"]}, {"hidden": 0}],
)
def test_refuses_unusable_parameters(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameter):
        read_parameters(network.method, {**ASKED, **wrong})


@pytest.mark.parametrize("value", [0.0, 2.0])
def test_refuses_an_outcome_that_is_not_two_classes(value: float) -> None:
    frames = {name: frame.with_columns(pl.lit(value).alias("y")) for name, frame in uneven().items()}
    with pytest.raises(DureError) as caught:
        Alliance(frames, ASKED).run(InMemoryLedger())
    assert isinstance(caught.value, OneClass if value == 0 else NotAnOutcome)


def test_a_level_of_three_people_is_refused_under_the_default_rules() -> None:
    random = np.random.default_rng(8)
    frames = {name: people(random, 100) for name in ("a", "b", "c")}
    rare = pl.when(pl.int_range(pl.len()) < 1).then(pl.lit("rare")).otherwise(pl.col("group")).alias("group")
    frames = {name: frame.with_columns(rare) for name, frame in frames.items()}
    with pytest.raises(DureError) as caught:
        Alliance(frames, ASKED, limits=DEFAULT).run(InMemoryLedger())
    assert "group=rare" in caught.value.text("en")


@pytest.mark.parametrize("scope", ["all", "each", "all_but_one"])
def test_predictions_serve_a_later_step(scope: Any) -> None:
    """In `all_but_one` a hospital has no head of the fold without it: the shared head predicts there."""
    random = np.random.default_rng(9)
    frames = {name: people(random, n) for name, n in (("a", 400), ("b", 200), ("c", 150))}
    steps = (
        Step(name="net", method="network", parameters={**ASKED, "rounds": 30}, scope=scope),
        Step(
            name="check",
            method="regression",
            parameters={"formula": "y ~ net.prediction", "family": "binomial"},
            uses=("net",),
        ),
    )
    outcome, _ = run_frames(frames, steps, OFF, frozenset(("per_hospital", "difference")))
    fold = outcome["check"].folds[None]
    assert fold.working is not None, fold.error
    assert fold.working.facts["n"] == 750
    assert fold.working.tables["coefficients"].frame["estimate"][1] > 1


def test_resuming_with_empty_stores_is_not_bit_equal() -> None:
    """Without what each hospital kept, the own heads start anew: what is kept is part of the run."""
    asked = {**ASKED, "rounds": 12}
    undisturbed, ledger = InMemoryLedger(), StoppingLedger(7)
    Alliance(uneven(), asked).run(undisturbed)
    with pytest.raises(KeyboardInterrupt):
        Alliance(uneven(), asked).run(ledger)
    ledger.last = 10_000
    Alliance(uneven(), asked).run(ledger)
    assert ledger.entries != undisturbed.entries
