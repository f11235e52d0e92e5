"""Smooth displacements through scattered points: polynomials of an order that cross-validation picks, or local cubics."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.interpolate import CloughTocher2DInterpolator
from scipy.linalg import solve_triangular

Places = NDArray[np.float64]

HIGHEST_ORDER = 20
POINTS_A_TERM = 2.5  # at least
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
    """The terms of a polynomial (point, term), those of lower total orders first."""
    rows, columns = (chebyshev.chebvander(scale(places[:, k], shape[k]), order) for k in (0, 1))
    return np.concatenate([rows[:, : n + 1] * columns[:, n::-1] for n in range(order + 1)], axis=1)


def count_terms(order: int) -> int:
    """Of a polynomial."""
    return (order + 1) * (order + 2) // 2


def highest_order(points: int) -> int:
    """Of the polynomials that so many points carry."""
    return next((n for n in range(HIGHEST_ORDER, 0, -1) if count_terms(n) * POINTS_A_TERM <= points), 0)


def left_out_residuals(basis: NDArray[np.float64], values: Places) -> tuple[Places, NDArray[np.float64]]:
    """What each point's value differs by from a fit to all others (Allen 1974): residual over 1 − leverage; and 1 − leverage.

    basis (point, term): the terms made orthonormal. Where nothing is left but for the point itself, the residual is infinite.
    """
    residuals = values - basis @ (basis.T @ values)
    left = np.maximum(1 - (basis**2).sum(axis=1), LEAST_LEFT)
    return np.where(left[:, None] > LEAST_LEFT, residuals / left[:, None], np.inf), left


def rms(residuals: Places) -> float:
    """Root mean square of distances (point, 2)."""
    return float(np.sqrt((residuals**2).sum(axis=-1).mean()))


def fit_polynomial(
    places: Places, values: Places, shape: tuple[int, int], order: int | None = None
) -> tuple[Polynomial, Places, NDArray[np.float64]]:
    """The polynomial of an order, by default of the best one, its left-out residuals (point, 2), and what their leverage leaves of 1.

    Terms of lower orders come first, so that one QR decomposition serves all orders.
    """
    highest = highest_order(len(places)) if order is None else order
    basis, upper = np.linalg.qr(design(places, shape, highest))
    orders = range(1, highest + 1) if order is None else [order]
    trials = {n: left_out_residuals(basis[:, : count_terms(n)], values) for n in orders}
    best = lowest_good({n: residuals for n, (residuals, _) in trials.items()})
    terms = count_terms(best)
    solved = solve_triangular(upper[:terms, :terms], basis[:, :terms].T @ values)
    coefficients = np.zeros((best + 1, best + 1, 2))
    for n in range(best + 1):
        for i in range(n + 1):
            coefficients[i, n - i] = solved[count_terms(n - 1) + i]
    return Polynomial(coefficients, shape), *trials[best]


def lowest_good(trials: dict[int, Places]) -> int:
    """The lowest order that predicts left-out points as well as the best one, but for a standard error (Breiman et al. 1984)."""
    squares = {n: (residuals**2).sum(axis=-1) for n, residuals in trials.items()}
    best = min(squares, key=lambda n: squares[n].mean())
    most = squares[best].mean() + squares[best].std() / np.sqrt(len(squares[best]))
    return min((n for n in squares if squares[n].mean() <= most), default=best)


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
    smooth, _, _ = fit_polynomial(places, values, shape, order)
    return LocalCubic(smooth, CloughTocher2DInterpolator(places, values - smooth.at(places)))
