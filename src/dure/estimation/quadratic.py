"""The elastic net's quadratic problem, solved to the last digits: what one proximal Newton step asks of the hub.

Minimise ½ xᵀHx − qᵀx + Σ l1|x|. Supports and signs are guessed from one Jacobi step and their linear system is solved
(the primal-dual active set method of Hintermüller, Ito & Kunisch 2002, SIAM J Optim 13(3)); where guesses come back,
sweeps of coordinate descent (Friedman, Hastie & Tibshirani 2010) move on until the next guess holds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

GUESSES = 12
SWEEPS = 4000
"""Sweeps of coordinate descent after which the best there is, is taken."""
EXACT = 1e-13


def solve(hessian: Matrix, linear: Vector, l1: Vector, start: Vector) -> Vector:
    """(p,) the minimiser. `hessian` (p, p) is symmetric and not negative, with zeros only where a column is nothing;
    `l1` (p,) is zero for free coordinates; `start` (p,) is where the search begins."""
    diagonal = np.diag(hessian).copy()
    usable = diagonal > 0
    scale = np.where(usable, diagonal, 1.0)
    x, sweeps = np.where(usable, start, 0.0), 4
    size = max(float(np.abs(linear).max(initial=0.0)), 1e-300)
    done = 0
    while True:
        seen: set[bytes] = set()
        best = x
        for _ in range(GUESSES):
            gradient = hessian @ best - linear
            jacobi = best - gradient / scale
            sign = np.where(l1 > 0, np.sign(jacobi) * (np.abs(jacobi) > l1 / scale), 1.0)
            sign[~usable] = 0.0
            key = sign.astype(np.int8).tobytes()
            if key in seen:
                break
            seen.add(key)
            active = sign != 0
            guess = _linear(hessian, linear - l1 * sign, active)
            if guess is None:
                break
            best = guess
            if violation(hessian @ best - linear, best, l1, usable) <= EXACT * size:
                return best
        if done >= SWEEPS:
            return (
                x
                if violation(hessian @ x - linear, x, l1, usable) < 1e-6 * size
                else _least(hessian, linear, l1, x, best)
            )
        x = _sweep(hessian, linear, l1, scale, usable, x, sweeps)
        done, sweeps = done + sweeps, sweeps * 2


def violation(gradient: Vector, x: Vector, l1: Vector, usable: NDArray[np.bool_] | None = None) -> float:
    """How far the optimality conditions are missed: of a non-zero |gradient + l1·sign|, of a zero |gradient| − l1."""
    off = np.where(x != 0, np.abs(gradient + l1 * np.sign(x)), np.maximum(np.abs(gradient) - l1, 0.0))
    off = np.where(l1 > 0, off, np.abs(gradient))
    return float(off.max(initial=0.0) if usable is None else off[usable].max(initial=0.0))


def _linear(hessian: Matrix, right: Vector, active: NDArray[np.bool_]) -> Vector | None:
    """The solution over the active coordinates, zero elsewhere; None where it is not one."""
    chosen = hessian[np.ix_(active, active)]
    scale = 1.0 / np.sqrt(np.diag(chosen))
    try:
        found = scale * np.linalg.solve(chosen * np.outer(scale, scale), scale * right[active])
    except np.linalg.LinAlgError:
        return None
    x = np.zeros_like(right)
    x[active] = found
    return x if np.isfinite(found).all() else None


def _sweep(
    hessian: Matrix, linear: Vector, l1: Vector, scale: Vector, usable: NDArray[np.bool_], x: Vector, sweeps: int
) -> Vector:
    """Coordinate descent over the coordinates that are, or want to be, away from zero."""
    x = x.copy()
    gradient = hessian @ x - linear
    for _ in range(sweeps):
        wanted = np.flatnonzero(usable & ((x != 0) | (np.abs(gradient) > l1)))
        for j in wanted:
            at = x[j] - gradient[j] / scale[j]
            new = np.sign(at) * max(abs(at) - l1[j] / scale[j], 0.0)
            if new != x[j]:
                gradient += hessian[j] * (new - x[j])
                x[j] = new
    return x


def _least(hessian: Matrix, linear: Vector, l1: Vector, *candidates: Vector) -> Vector:
    return min(candidates, key=lambda x: float(x @ (hessian @ x) / 2 - linear @ x + l1 @ np.abs(x)))
