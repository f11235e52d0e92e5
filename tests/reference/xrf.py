"""Spectra on grids, one spectrum and one pixel at a time, in float64. Slow and clear."""

import numpy as np
from scipy.optimize import nnls


def regrid(spectra, matrix):
    """W·C, pixel by pixel; NaN in pixels without a spectrum."""
    cube = np.full((matrix.shape[0], spectra.shape[1]), np.nan)
    for pixel, row in enumerate(np.asarray(matrix.todense())):
        if row.any():
            cube[pixel] = sum(share * spectra[number].astype(float) for number, share in enumerate(row) if share)
    return cube


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
    """Likeliest amounts ≥ 0 for counts of Poisson's statistics, and their errors: weights from the model, Lawson and Hanson's solver."""
    model = np.full(len(counts), counts.mean())
    for _ in range(60):
        root = 1 / np.sqrt(model)
        amounts, _ = nnls(patterns.T * root[:, None], counts * root, maxiter=10000)
        model = np.maximum(patterns.T @ amounts, 0.01 * counts.mean())
    gram = (patterns / model) @ patterns.T
    errors = np.empty(len(amounts))
    for one in range(len(amounts)):
        chosen = np.flatnonzero((amounts > 0) | (np.arange(len(amounts)) == one))
        errors[one] = np.sqrt(noise * np.linalg.inv(gram[np.ix_(chosen, chosen)])[list(chosen).index(one), list(chosen).index(one)])
    return amounts, errors


def cronomaxrf(spectra, selected, sigma=7):
    """Its arithmetic: smooth all, select, largest and mean value."""
    from scipy.ndimage import gaussian_filter1d

    smoothed = gaussian_filter1d(spectra.astype(np.float32), sigma, axis=1)
    cube = smoothed[selected]
    return {
        "maxrf_all_spectra": smoothed, "maxrf_cube": cube, "maxrf_max_spectrum": cube.max((0, 1)),
        "maxrf_sum_spectrum": cube.mean((0, 1), dtype=np.float64),
    }  # fmt: skip
