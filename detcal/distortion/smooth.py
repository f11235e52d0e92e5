"""Smooth displacements through scattered points: polynomials of an order that cross-validation picks, or local cubics."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.interpolate import CloughTocher2DInterpolator

Places = NDArray[np.float64]

HIGHEST_ORDER = 30
POINTS_A_TERM = 2.5  # at least
PATIENCE = 3  # orders that do no better than the best, before higher ones are given up
LEAST_LEFT = 1e-6  # of 1 − leverage
FOLDS = 5
SEED = 0  # of the folds


class Model(Protocol):
    """Displacements (y, x) as a function of the place (y, x)."""

    def at(self, places: Places) -> Places:
        """At places (…, 2)."""

    def on_corners(self, shape: tuple[int, int]) -> Places:
        """At the corners (y + 1, x + 1, 2) of an image's pixels."""


@dataclass(frozen=True)
class Polynomial:
    """Products of Chebyshev polynomials up to a total order, on the image scaled to −1 … 1; coefficients (order y, order x, 2)."""

    coefficients: NDArray[np.float64]
    shape: tuple[int, int]

    def at(self, places: Places) -> Places:
        y, x = self.scaled(places[..., 0], 0), self.scaled(places[..., 1], 1)
        return np.stack([chebyshev.chebval2d(y, x, self.coefficients[..., k]) for k in (0, 1)], axis=-1)

    def on_corners(self, shape: tuple[int, int]) -> Places:
        rows, columns = (chebyshev.chebvander(self.scaled(np.arange(size + 1) - 0.5, k), self.order) for k, size in enumerate(shape))
        found = np.empty((len(rows), len(columns), 2))
        for k in (0, 1):
            found[..., k] = rows @ self.coefficients[..., k] @ columns.T
        return found

    @property
    def order(self) -> int:
        """The highest total order."""
        return len(self.coefficients) - 1

    def scaled(self, values: NDArray[Any], axis: int) -> NDArray[np.float64]:
        """Pixels as −1 … 1."""
        return scale(values, self.shape[axis])


@dataclass(frozen=True)
class LocalCubic:
    """A polynomial, and what it misses as piecewise cubics with a continuous gradient on a triangulation (Alfeld 1984); NaN outside."""

    smooth: Polynomial
    local: CloughTocher2DInterpolator

    def at(self, places: Places) -> Places:
        return np.asarray(self.smooth.at(places) + self.local(places))

    def on_corners(self, shape: tuple[int, int]) -> Places:
        y, x = np.meshgrid(*(np.arange(size + 1) - 0.5 for size in shape), indexing="ij")
        return np.asarray(self.smooth.on_corners(shape) + self.local(np.stack([y, x], axis=-1)))


def scale(values: NDArray[Any], size: int) -> NDArray[np.float64]:
    """Pixels of an axis as −1 … 1."""
    return np.asarray((2 * values - (size - 1)) / max(size, 2))


def design(places: Places, shape: tuple[int, int], order: int) -> NDArray[np.float64]:
    """The terms of a polynomial (point, term)."""
    rows, columns = (chebyshev.chebvander(scale(places[:, k], shape[k]), order) for k in (0, 1))
    return np.concatenate([rows[:, i : i + 1] * columns[:, : order + 1 - i] for i in range(order + 1)], axis=1)


def left_out_residuals(terms: NDArray[np.float64], values: Places) -> Places:
    """What each point's value differs by from a fit to all others (Allen 1974): residual over 1 − leverage; infinite if that is 0."""
    basis, _ = np.linalg.qr(terms)
    residuals = values - basis @ (basis.T @ values)
    left = 1 - (basis**2).sum(axis=1)  # of each point's value; without any, others say nothing of it
    return np.asarray(np.where(left[:, None] > LEAST_LEFT, residuals / np.maximum(left, LEAST_LEFT)[:, None], np.inf))


def highest_order(points: int) -> int:
    """Of the polynomials that so many points carry."""
    return next(n for n in range(HIGHEST_ORDER, -1, -1) if (n + 1) * (n + 2) // 2 * POINTS_A_TERM <= points or n == 0)


def rms(residuals: Places) -> float:
    """Root mean square of distances (point, 2)."""
    return float(np.sqrt((residuals**2).sum(axis=-1).mean()))


def fit_polynomial(places: Places, values: Places, shape: tuple[int, int], order: int | None = None) -> tuple[Polynomial, Places]:
    """The polynomial of an order, by default of the best one, and its left-out residuals (point, 2)."""
    orders = range(1, highest_order(len(places)) + 1) if order is None else [order]
    trials: dict[int, Places] = {}
    best = orders[0]
    for n in orders:
        trials[n] = left_out_residuals(design(places, shape, n), values)
        best = n if rms(trials[n]) < rms(trials[best]) else best
        if n > best + PATIENCE:
            break
    solved = np.linalg.lstsq(design(places, shape, best), values, rcond=None)[0]
    coefficients, start = np.zeros((best + 1, best + 1, 2)), 0
    for i in range(best + 1):
        coefficients[i, : best + 1 - i] = solved[start : start + best + 1 - i]
        start += best + 1 - i
    return Polynomial(coefficients, shape), trials[best]


def fit_local_cubic(places: Places, values: Places, shape: tuple[int, int], order: int) -> tuple[LocalCubic, Places]:
    """Local cubics through all points, beside a polynomial, and by how much points miss those through the others, in five parts.

    NaN for points outside the others.
    """
    folds = np.random.default_rng(SEED).permutation(len(places)) % FOLDS
    residuals = np.empty_like(values)
    for fold in range(FOLDS):
        out = folds == fold
        residuals[out] = values[out] - through(places[~out], values[~out], shape, order).at(places[out])
    return through(places, values, shape, order), residuals


def through(places: Places, values: Places, shape: tuple[int, int], order: int) -> LocalCubic:
    """Local cubics through all points."""
    smooth, _ = fit_polynomial(places, values, shape, order)
    return LocalCubic(smooth, CloughTocher2DInterpolator(places, values - smooth.at(places)))
