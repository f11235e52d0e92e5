"""Averages of frames that single readings do not spoil, written from the definition, pixel by pixel: slow and clear."""

import numpy as np
from scipy import stats


def stands_out(value, others, rounding):
    """Whether a value is none of the others': Student's test of a new observation, one in 10⁵."""
    n = len(others)
    spread = np.sqrt(np.var(others, ddof=1) + rounding)
    return abs(value - np.mean(others)) > stats.t.isf(0.5e-5, n - 1) * spread * np.sqrt(1 + 1 / n)


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
