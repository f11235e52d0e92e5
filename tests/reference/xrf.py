"""Spectra on grids, one spectrum and one pixel at a time, in float64. Slow and clear."""

import numpy as np
from scipy.optimize import minimize


def regrid(spectra, matrix):
    """W·C, pixel by pixel; NaN in pixels without a spectrum."""
    cube = np.full((matrix.shape[0], spectra.shape[1]), np.nan)
    for pixel, row in enumerate(np.asarray(matrix.todense())):
        if row.any():
            cube[pixel] = sum(share * spectra[number].astype(float) for number, share in enumerate(row) if share)
    return cube


def rates(spectra, live, matrix):
    """Rates and their variances (pixel, energy), each from the shares of what was measured: finite counts, positive live times."""
    rate = np.full((matrix.shape[0], spectra.shape[1]), np.nan)
    variance = rate.copy()
    for pixel, row in enumerate(np.asarray(matrix.todense(), float)):
        for channel in range(spectra.shape[1]):
            parts = [
                (share, float(spectra[number, channel]), live[number])
                for number, share in enumerate(row)
                if share and np.isfinite(spectra[number, channel]) and 0 < live[number] < np.inf
            ]
            if parts:
                share, counts, seconds = np.array(parts).T
                rate[pixel, channel] = (share @ counts) / (share @ seconds)
                variance[pixel, channel] = (share**2 @ counts) / (share @ seconds) ** 2
    return rate, variance


def smooth_measured(line, sigma, mode):
    """Mean of the finite channels with the gaussian's weights, NaN in the others."""
    there = np.isfinite(line)
    weights = smooth(there, sigma, mode)
    return np.where(there, smooth(np.where(there, line, 0), sigma, mode) / np.where(there, weights, 1), np.nan)


def smooth(line, sigma, mode):
    """Gaussian of a line, tap by tap."""
    radius = int(4 * sigma + 0.5)
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    taps /= taps.sum()
    padded = np.pad(line.astype(float), radius, mode={"reflect": "symmetric", "nearest": "edge", "mirror": "reflect", "wrap": "wrap"}[mode])
    return np.array([padded[start : start + 2 * radius + 1] @ taps for start in range(len(line))])


def clip_half(polygon, axis, limit, keep_above):
    """A polygon's part on one side of an axis-parallel line (Sutherland and Hodgman 1974)."""
    sign = 1 if keep_above else -1
    found = []
    for first, second in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        inside = sign * (first[axis] - limit) >= 0
        if inside:
            found.append(first)
        if inside != (sign * (second[axis] - limit) >= 0):
            found.append(first + (limit - first[axis]) / (second[axis] - first[axis]) * (second - first))
    return np.array(found)


def area(polygon):
    """Gauss's formula."""
    if len(polygon) < 3:
        return 0.0
    across, along = polygon.T
    return abs(across @ np.roll(along, -1) - along @ np.roll(across, -1)) / 2


def box_shares(start, end, height, shape):
    """Shares (across, along) of the parallelogram between two upright sides."""
    half = np.array([height / 2, 0])
    box = np.array([start - half, end - half, end + half, start + half])
    shares = np.zeros(shape)
    for across in range(shape[0]):
        for along in range(shape[1]):
            part = box
            for axis, low in ((0, across), (1, along)):
                for limit, above in ((low, True), (low + 1, False)):
                    part = clip_half(part, axis, limit, above) if len(part) else part
            shares[across, along] = area(part)
    return shares / shares.sum()


def fit(counts, patterns, noise):
    """Likeliest amounts ≥ 0 for counts of Poisson's statistics, and their errors.

    The minimum of Σ m − c·ln m, m = Σ aP, by scipy's bounded quasi-Newton steps. Variances: the inverse of Fisher's information Σ PP/m of
    the amounts that are not 0 and the one in question, which one that none of the model's counts overlaps does not have; and one more
    count of it, which is noise/ΣP large.
    """

    def likelihood(amounts):
        model = amounts @ patterns + 1e-12
        return (model - counts * np.log(model)).sum(), patterns @ (1 - counts / model)

    start = np.full(len(patterns), (counts.sum() + 0.1) / patterns.sum())
    amounts = minimize(
        likelihood, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(patterns),
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 5000, "maxfun": 20000},
    ).x  # fmt: skip
    amounts[amounts < 1e-7] = 0
    information = (patterns / (amounts @ patterns + 1e-12)) @ patterns.T
    variances = (noise / patterns.sum(axis=1)) ** 2
    for one in range(len(amounts)):
        chosen = np.flatnonzero((amounts > 0) | (np.arange(len(amounts)) == one))
        inverse = np.linalg.pinv(information[np.ix_(chosen, chosen)], hermitian=True)
        variances[one] += noise * inverse[np.searchsorted(chosen, one), np.searchsorted(chosen, one)]
    return amounts, np.sqrt(variances)


def cronomaxrf(spectra, selected, sigma=7):
    """Its arithmetic: smooth all, select, largest and mean value."""
    from scipy.ndimage import gaussian_filter1d

    smoothed = gaussian_filter1d(spectra.astype(np.float32), sigma, axis=1)
    cube = smoothed[selected]
    return {
        "maxrf_all_spectra": smoothed, "maxrf_cube": cube, "maxrf_max_spectrum": cube.max((0, 1)),
        "maxrf_sum_spectrum": cube.mean((0, 1), dtype=np.float64),
    }  # fmt: skip
