"""The network: its layers as arrays, a hospital's steps with PyTorch, and the hub's step with NumPy.

The last row of a layer holds its biases. `score` takes NumPy arrays or tensors alike.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dure.errors import InvalidParameter, MissingPackage
from dure.language import Words
from dure.methods.training.parameters import Parameters
from dure.methods.training.people import People, draws, inputs
from dure.study.method import Question

Matrix = NDArray[Any]
LARGEST_LAYER = 12_500_000
"""Weights of one layer: an array of more than 100 MB does not travel in one message."""
MEASURED_TOGETHER = 8192
"""People whose losses are computed at a time, so that wide layers need bounded memory."""


def layers(question: Question) -> dict[str, tuple[int, int]]:
    """Name → (inputs + 1, units) of each layer; raises InvalidParameter where one could not travel."""
    widths = [len(inputs(question)[0]), *question.parameters.hidden, 1]
    names = [*(f"layer_{place}" for place in range(1, len(widths) - 1)), "head"]
    shapes = {name: (before + 1, units) for name, before, units in zip(names, widths, widths[1:])}
    if any(rows * units > LARGEST_LAYER for rows, units in shapes.values()):
        problem = Words(
            f"A layer has more than {LARGEST_LAYER:,} weights", f"한 층의 가중치가 {LARGEST_LAYER:,}개를 넘습니다"
        )
        raise InvalidParameter(method="training", parameter="hidden", problem=problem)
    return shapes


def first_weights(p: Parameters, like: Sequence[Matrix], stream: int) -> list[Matrix]:
    """Normal weights of variance 2 / inputs (He et al. 2015), 1 / inputs for the head; biases of zero."""
    random, found = np.random.default_rng([p.seed, stream]), []
    for place, layer in enumerate(like, start=1):
        before = max(1, layer.shape[0] - 1)
        weights = random.normal(0, np.sqrt((1 if place == len(like) else 2) / before), layer.shape)
        weights[-1] = 0
        found.append(weights.astype(p.dtype))
    return found


def _hidden(x: Any, body: Sequence[Any]) -> Any:
    for layer in body:
        x = (x @ layer[:-1] + layer[-1]).clip(min=0)
    return x


def _output(hidden: Any, head: Any) -> Any:
    return (hidden @ head[:-1] + head[-1])[:, 0]


def score(x: Any, layers: Sequence[Any]) -> Any:
    return _output(_hidden(x, layers[:-1]), layers[-1])


# ── at a hospital, with PyTorch ──


def pytorch(hospital: str) -> Any:
    """PyTorch, loaded where somebody trains and nowhere else; raises MissingPackage."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        purpose, command = Words(f"Training at {hospital}", f"{hospital}의 학습"), 'pip install "dure[learning]"'
        raise MissingPackage(purpose=purpose, package="torch", command=command) from None


@contextmanager
def one_thread(torch: Any) -> Iterator[None]:
    """Sums of products depend, in their last bits, on how many threads share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def summed_loss(torch: Any, x: Matrix, y: Matrix, layers: Sequence[Matrix]) -> Matrix:
    """() sum of the log losses, without penalties."""
    weights, found = [torch.from_numpy(layer) for layer in layers], 0.0
    for start in range(0, len(y), MEASURED_TOGETHER):
        part = slice(start, start + MEASURED_TOGETHER)
        scores = score(torch.from_numpy(x[part]), weights).double()
        found += float(_log_loss(torch, scores, torch.from_numpy(y[part]).double(), "sum"))
    return np.array(found)


def trained(
    torch: Any, data: People, before: Sequence[Matrix], own: Matrix | None, p: Parameters, round_: int
) -> tuple[list[Matrix], Matrix | None]:
    """The shared layers and the own head after `local_epochs`, from this hospital's people only.

    The hidden layers follow the hospital's own head where there is one; the shared head learns beside it,
    from other first weights, so that its step is not the own head's.
    """
    n = len(data.y)
    if not n:
        return list(before), own
    anchor = [torch.from_numpy(layer) for layer in before]
    learned = [layer.clone().requires_grad_() for layer in anchor]
    if own is not None:
        learned.append(torch.tensor(own, requires_grad=True))
    shared, x, y = learned[: len(anchor)], torch.from_numpy(data.x), torch.from_numpy(data.y)

    def objective(x: Any, y: Any) -> Any:
        hidden = _hidden(x, shared[:-1])
        loss = _log_loss(torch, _output(hidden, learned[-1]), y, "mean")
        if own is not None:
            loss = loss + _log_loss(torch, _output(hidden.detach(), shared[-1]), y, "mean")
            loss = loss + p.l2 / 2 * ((learned[-1] - anchor[-1])[:-1] ** 2).sum()
        if p.l2:  # biases carry the outcome's level and are not drawn to zero
            loss = loss + p.l2 / 2 * sum((layer[:-1] ** 2).sum() for layer in shared)
        if p.strategy == "fedprox" and p.mu:
            loss = loss + p.mu / 2 * sum(((new - old) ** 2).sum() for new, old in zip(shared, anchor))
        return loss

    size = min(p.batch_size or n, n)
    for epoch in range(p.local_epochs):
        order = np.argsort(draws(data.person, p.seed, round_, epoch), kind="stable")
        for start in range(0, n, size):
            part = torch.from_numpy(order[start : start + size]) if size < n else slice(None)
            steps = torch.autograd.grad(objective(x[part], y[part]), learned)
            with torch.no_grad():
                for layer, step in zip(learned, steps):
                    layer.sub_(step, alpha=p.learning_rate)
    after = [layer.detach().numpy() for layer in learned]
    return after[: len(anchor)], None if own is None else after[-1]


def _log_loss(torch: Any, score: Any, y: Any, reduction: str) -> Any:
    return torch.nn.functional.binary_cross_entropy_with_logits(score, y, reduction=reduction)


# ── at the hub ──


def moved(
    p: Parameters, before: Sequence[Matrix], steps: Iterable[Matrix], moments: Sequence[Sequence[Matrix]]
) -> tuple[list[Matrix], list[list[Matrix]]]:
    """The weights after this round's mean step, and FedAdam's moments [m, v] of each layer (v starts at τ²)."""
    after, held = [], []
    for place, (old, step) in enumerate(zip(before, steps)):
        if p.strategy == "fedadam":
            m, v = moments[place] if moments else (np.zeros(1), np.full(1, p.tau**2))
            m, v = p.beta1 * m + (1 - p.beta1) * step, p.beta2 * v + (1 - p.beta2) * step**2
            held.append([m.astype(p.dtype), v.astype(p.dtype)])
            step = p.server_learning_rate * m / (np.sqrt(v) + p.tau)
        after.append((old + step).astype(p.dtype))
    return after, held
