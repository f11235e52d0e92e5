"""Errors of weighted quantiles, one ring at a time, by numpy's own interpolation. Slow and clear."""

import numpy as np


def quantile(intensity, weight, wanted):
    """Straight lines between different values, each at the middle of the weight of all that are equal to it."""
    values, place = np.unique(intensity, return_inverse=True)
    shared = np.bincount(place, weight)
    ends = np.cumsum(shared)
    return np.interp(wanted, (ends - shared / 2) / ends[-1], values)


def errors(intensity, share, norm, low, high):
    """Standard error of the mean between two quantiles, and standard deviation of a reading."""
    if len(intensity) < 2:
        return np.nan, np.nan
    weight = share * norm
    equal = weight.sum() ** 2 / (weight**2).sum()
    deviation = np.diff(quantile(intensity, weight, [0.15865525393145707, 0.8413447460685429]))[0] / 2
    if low == high:
        unknown = np.sqrt(low * (1 - low) / equal)
        ends = quantile(intensity, weight, np.clip([low - unknown, low + unknown], 0, 1))
        return np.diff(ends)[0] / 2 if unknown else np.nan, deviation
    drawn = np.clip(intensity, *quantile(intensity, weight, [low, high]))
    variance = np.average((drawn - np.average(drawn, weights=weight)) ** 2, weights=weight)
    return np.sqrt(variance / equal) / (high - low), deviation
