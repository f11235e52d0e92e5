"""Averages of frames that single readings do not spoil, written from the definition, pixel by pixel: slow and clear."""

import numpy as np
from scipy import stats


def stands_out(value, others, rounding):
    """Whether a value is none of the others': Student's test of a new observation, one in 10⁵."""
    n = len(others)
    spread = np.sqrt(np.var(others, ddof=1) + rounding)
    return abs(value - np.mean(others)) > stats.t.isf(0.5e-5, n - 1) * spread * np.sqrt(1 + 1 / n)


def clipped_mean_of_three(frames):
    """The mean of (3, y, x), of up to 63 × 63 pixels, without what is further from a pixel's middle reading than noise is.

    That of photons, or that of most pixels, more of it in brighter ones. Nothing is left out where one pixel in fifty had to.
    """
    whole = {place: np.sort(frames[:, *place].astype(np.float64)) for place in np.ndindex(frames.shape[1:])}
    full = {place: values for place, values in whole.items() if np.isfinite(values).all()}
    found = {place: values[np.isfinite(values)] for place, values in whole.items()}
    strays = {}
    if len(full) >= 30:
        noise = np.median([large - small for small, _, large in full.values()]) / 1.588
        usual = np.median([middle for _, middle, _ in full.values()])
        for place, (small, middle, large) in full.items():
            own = noise**2 * max(middle / usual, 1) if usual > 0 else noise**2
            limit = stats.norm.isf(0.5e-5) * np.sqrt(2 * max(own, max(middle, 0) + 5))
            left = [value for value in (small, middle, large) if abs(value - middle) <= limit]
            if len(left) < 3:
                strays[place] = left
    if len(strays) <= 0.02 * len(full):
        found |= strays
    return np.reshape([np.mean(values) if len(values) else np.nan for values in found.values()], frames.shape[1:])


def clipped_mean(frames, rounding=0.0):
    """The mean of (frame, y, x) without the two largest, or the largest, and without the smallest, where these stand out."""
    found = np.full(frames.shape[1:], np.nan)
    for place in np.ndindex(found.shape):
        values = np.sort(frames[:, *place][np.isfinite(frames[:, *place])].astype(np.float64))
        if len(values) >= 5 and stands_out(values[-2], values[:-2], rounding):
            values = values[:-2]
        elif len(values) >= 4 and stands_out(values[-1], values[:-1], rounding):
            values = values[:-1]
        if len(values) >= 4 and stands_out(values[0], values[1:], rounding):
            values = values[1:]
        if len(values):
            found[place] = values.mean()
    return found
