"""The response fit and correction written from the mathematics, pixel by pixel: slow and clear."""

import numpy as np
from scipy.ndimage import gaussian_filter


def smooth(image, sigma, boundary="nearest", truncate=4.0):
    """scipy's gaussian of the valid pixels: smoothed values over smoothed weights."""
    valid = np.isfinite(image)
    filled = np.where(valid, image, 0.0).astype(np.float64)
    options = {"sigma": sigma, "mode": boundary, "truncate": truncate}
    if valid.all():
        return gaussian_filter(filled, **options)
    if not valid.any():
        return np.full(image.shape, np.nan)
    return gaussian_filter(filled, **options) / gaussian_filter(valid.astype(np.float64), **options)


def fit(sweep, dark, sigma, cutoff=300.0, order=1, intercept=False, boundary="nearest", truncate=4.0):
    """Least squares of the smoothed signal on the measured one in each pixel.

    Returns coefficients (offset, gain, curvature), gain error, R² and frames used. The error is that of ordinary least
    squares for independent errors whose variance is proportional to the signal: Cov = φ (XᵀX)⁻¹ Xᵀ V X (XᵀX)⁻¹, with φ
    such that the residual sum of squares has its expected value φ·tr((1 − H) V).
    """
    measured = sweep.astype(np.float64) - dark
    expected = np.stack([smooth(frame, sigma, boundary, truncate) for frame in measured])
    shape = measured.shape[1:]
    coefficients = np.full((3, *shape), np.nan)
    error, r_squared, used = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, int)
    columns = list(range(0 if intercept else 1, order + 1))
    for place in np.ndindex(shape):
        v, s = measured[:, *place], expected[:, *place]
        take = (s > cutoff) & np.isfinite(v)
        v, s = v[take], s[take]
        used[place] = take.sum()
        if take.sum() < len(columns) + 1:
            continue
        design = np.stack([v**power for power in columns], axis=1)
        if np.linalg.matrix_rank(design) < len(columns):
            continue
        solution = np.linalg.lstsq(design / v.max() ** np.array(columns), s, rcond=None)[0] / v.max() ** np.array(columns)
        residual = s - design @ solution
        coefficients[:, *place] = 0
        coefficients[columns, *place] = solution
        inverse = np.linalg.inv(design.T @ design)
        hat = design @ inverse @ design.T
        scale = (residual**2).sum() / np.trace((np.eye(len(v)) - hat) @ np.diag(v))
        covariance = scale * inverse @ design.T @ np.diag(v) @ design @ inverse
        gain = columns.index(1)
        if covariance[gain, gain] >= 0:  # not so in dead pixels, whose signal is as often negative
            error[place] = np.sqrt(covariance[gain, gain])
        centre = s.mean() if intercept else 0.0
        r_squared[place] = 1 - (residual**2).sum() / ((s - centre) ** 2).sum()
    return coefficients, error, r_squared, used


def correct(frames, gain, dark, flat, sigma, residual_sigma=None, boundary="nearest", truncate=4.0, mask=None):
    """Croton et al. 2019: dark off, times gain, over the smoothed flat less its large residuals."""
    mask = np.zeros(gain.shape, bool) if mask is None else mask
    signal = np.where(mask, np.nan, flat.astype(np.float64) - dark)
    divisor = smooth(signal, sigma, boundary, truncate)
    if residual_sigma is not None:
        residual = divisor - gain * signal
        divisor = divisor - np.where(np.abs(residual) >= residual_sigma * np.nanstd(residual), residual, 0)
    return np.where(mask, np.nan, (frames.astype(np.float64) - dark) * gain / divisor)


def without_zingers(frames, threshold):
    """The median of the eight neighbours, in an image that goes on mirrored, in place of each reading that stands out from them."""
    values = frames.astype(np.float32)
    return np.stack([standing_out(frame, np.zeros_like(frame), frame, threshold, 1) for frame in values])


def without_zingers_in_time(frames, threshold):
    """By what readings have more than the larger one before and after them, and eight pixels two away; beyond the ends mirrored."""
    values = frames.astype(np.float32)
    around = np.concatenate([values[1:2], values, values[-2:-1]])
    beside = np.fmax(around[:-2], around[2:])
    return np.stack([standing_out(*each, threshold, 2) for each in zip(values - beside, beside, values, strict=True)])


def mirrored(size, reach):
    """Where the pixels of a line that goes on mirrored, by `reach` at either end, come from; no further than it is long."""
    before, after = ([min(k, size - 1) for k in range(1, reach + 1)] for _ in range(2))
    return [*before[::-1], *range(size), *(size - 1 - k for k in after)]


def standing_out(more, base, values, threshold, reach):
    """An image, and where `more` stands out from the eight pixels `reach` away their median of it, on top of `base`."""
    around, found = more[np.ix_(*(mirrored(size, reach) for size in more.shape))], values.copy()
    for row, column in np.ndindex(more.shape):
        x = more[row, column]
        neighbours = np.delete(around[row : row + 2 * reach + 1 : reach, column : column + 2 * reach + 1 : reach].ravel(), 4)
        neighbours = np.where(np.isnan(neighbours), x, neighbours)
        middle = np.median(neighbours)
        put = base[row, column] + middle
        least = 1 if values[row, column] == np.rint(values[row, column]) else np.float32(1e-5) * abs(put)
        noise = max(np.float32(1.4826) * np.median(np.abs(neighbours - middle)), np.float32(least))
        if x > middle + np.float32(threshold) * noise:
            found[row, column] = put
    return found


def fill(frames, bad, reach=8):
    """Lines between the nearest good pixels on opposite sides, by inverse distance; where there are none, those ends that there are."""
    found = frames.astype(np.float64)
    for row, column in np.argwhere(bad):
        ends = {}
        for step in [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)]:
            for far in range(1, reach + 1):
                y, x = row + far * step[0], column + far * step[1]
                if not (0 <= y < bad.shape[0] and 0 <= x < bad.shape[1]):
                    break
                if not bad[y, x]:
                    ends[step] = (y, x, far * np.hypot(*step))
                    break
        paired = {step: end for step, end in ends.items() if (-step[0], -step[1]) in ends} or ends
        for number, frame in enumerate(frames):
            known = [(frame[y, x], 1 / away) for y, x, away in paired.values() if not np.isnan(frame[y, x])]
            found[number, row, column] = sum(v * w for v, w in known) / sum(w for _, w in known) if known else np.nan
    return found
