"""Sums of penalised models over one hospital's people: all λ and all folds of a cross-validation in one pass.

Columns may be dense, or sparse 0/1 codes (thousands, each carried by few), or both. All are centred by the pooled
means; of sparse ones the centre is taken off the sums, so that they stay sparse.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dure.estimation.draws import draws
from dure.estimation.families import Family
from dure.estimation.likelihood import BLAS, OUTSIDE

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

NUMBERS = 1 << 20
"""Numbers of a block: people × models (or columns)."""


@dataclass(frozen=True, repr=False)
class FoldRows:
    """People sorted by fold: dense columns (p, n), outcome, weights, offset (n,), 0/1 codes (n, C) or None, and where
    each fold begins (folds + 1,)."""

    x: Matrix
    y: Vector
    weights: Vector | None
    offset: Vector | None
    codes: sparse.csr_matrix | None
    begins: NDArray[np.int64]
    _blocks: dict[int, list[sparse.csr_matrix]] = field(default_factory=dict)

    def blocks(self, size: int) -> Iterator[tuple[int, slice, sparse.csr_matrix | None]]:
        """Pieces of at most `size` people of one fold each: fold, rows, and their codes."""
        places = [
            (fold, slice(start, min(start + size, int(end))))
            for fold, (begin, end) in enumerate(zip(self.begins, self.begins[1:]))
            for start in range(int(begin), int(end), size)
        ]
        if self.codes is not None and size not in self._blocks:
            self._blocks.clear()
            self._blocks[size] = [_piece(self.codes, part) for _, part in places]
        for number, (fold, part) in enumerate(places):
            yield fold, part, self._blocks[size][number] if self.codes is not None else None


def _piece(codes: sparse.csr_matrix, part: slice) -> sparse.csr_matrix:
    """Rows of a sparse matrix that share its memory."""
    begin, end = codes.indptr[part.start], codes.indptr[part.stop]
    pointers = codes.indptr[part.start : part.stop + 1] - begin
    shape = (part.stop - part.start, codes.shape[1])
    return sparse.csr_matrix((codes.data[begin:end], codes.indices[begin:end], pointers), shape=shape)


def fold_of(person: NDArray[np.int64] | None, people: int, folds: int | None, seed: int) -> NDArray[np.int64]:
    """(n,) each person's fold, from the person's own number: the same in whichever hospital the person is."""
    if not folds:
        return np.zeros(people, dtype=np.int64)
    numbers = np.arange(people) if person is None else person
    return np.minimum((draws(numbers, seed) * folds).astype(np.int64), folds - 1)


def by_fold(
    x: Matrix,
    y: Vector,
    weights: Vector | None,
    offset: Vector | None,
    codes: sparse.csr_matrix | None,
    fold: NDArray[np.int64],
    folds: int,
) -> FoldRows:
    """The rows sorted by fold (their order stays within each)."""
    begins = np.r_[0, np.cumsum(np.bincount(fold, minlength=folds))].astype(np.int64)
    if folds == 1:
        return FoldRows(x, y, weights, offset, codes, begins)
    order = np.argsort(fold, kind="stable")
    return FoldRows(
        x[:, order],
        y[order],
        None if weights is None else weights[order],
        None if offset is None else offset[order],
        None if codes is None else codes[order],
        begins,
    )


@dataclass
class FoldSums:
    """Of M models: gradient Σw(y − μ)(1, x − centre) (M, p + 1), information (M, p + 1, p + 1) where asked, deviance of
    the people a model learns from, and of those held out (M,)."""

    gradient: Matrix
    deviance: Vector
    held_out: Vector
    hessian: NDArray[np.float64] | None = None


def sums_of_models(
    family: Family, rows: FoldRows, centre: Vector, coefficients: Matrix, group: NDArray[np.int64], hessian: bool
) -> FoldSums:
    """Sums at `coefficients` (M, p + 1), intercept first, of centred columns: the dense ones, then the codes. A model
    of group 0 learns from everybody, one of group k from all but fold k − 1. `centre` (p,); `rows.x` is centred."""
    models, width = coefficients.shape
    dense = len(rows.x)
    found = FoldSums(
        np.zeros((models, width)),
        np.zeros(models),
        np.zeros(models),
        np.zeros((models, width, width)) if hessian else None,
    )
    beta_dense, beta_codes = coefficients[:, 1 : dense + 1], np.ascontiguousarray(coefficients[:, dense + 1 :].T)
    base = coefficients[:, 0] - centre[dense:] @ beta_codes
    size = max(64, NUMBERS // max(models, width if hessian else 16))
    with BLAS.limit(limits=1), np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for fold, part, codes in rows.blocks(size):
            x, y = rows.x[:, part], rows.y[part]
            eta = beta_dense @ x + base[:, None]
            if codes is not None:
                eta += (codes @ beta_codes[:, 0])[None] if models == 1 else (codes @ beta_codes).T
            if rows.offset is not None:
                eta += rows.offset[part]
            mean = family.mean(eta)
            deviance, residual = family.deviance(y, eta, mean), y - mean
            if rows.weights is not None:
                residual *= rows.weights[part]
                deviance *= rows.weights[part]
            learns = group != fold + 1
            spent = deviance.sum(axis=1)
            found.deviance += np.where(learns, spent, 0.0)
            found.held_out += np.where(learns, 0.0, spent)
            residual[~learns] = 0.0
            found.gradient[:, 0] += residual.sum(axis=1)
            found.gradient[:, 1 : dense + 1] += residual @ x.T
            if codes is not None:
                found.gradient[:, dense + 1 :] += (
                    (codes.T @ residual[0])[None] if models == 1 else (codes.T @ residual.T).T
                )
            if found.hessian is not None:
                variance = family.variance(mean) if rows.weights is None else family.variance(mean) * rows.weights[part]
                _add_information(found.hessian, x, variance, learns)
        found.gradient[:, dense + 1 :] -= np.outer(found.gradient[:, 0], centre[dense:])
        return _inside(found)


def _add_information(hessian: NDArray[np.float64], x: Matrix, variance: Matrix, learns: NDArray[np.bool_]) -> None:
    ones = np.vstack([np.ones(x.shape[1]), x])
    for model in np.flatnonzero(learns):
        half = ones * np.sqrt(variance[model])
        hessian[model] += half @ half.T


def _inside(found: FoldSums) -> FoldSums:
    """Where a mean overflowed nothing can be summed: the deviance is then larger than all, and the step too long."""
    finite = np.isfinite(found.deviance) & np.isfinite(found.gradient).all(axis=1) & np.isfinite(found.held_out)
    if found.hessian is not None:
        finite &= np.isfinite(found.hessian).all(axis=(1, 2))
        found.hessian[~finite] = 0.0
    found.gradient[~finite], found.held_out[~finite], found.deviance[~finite] = 0.0, 0.0, OUTSIDE
    return found
