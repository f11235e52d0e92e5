"""Statistics of rings, one ring and one frame at a time, in float64. Slow and clear."""

import numpy as np


def entries_of(frame, bins, ring, variance=None):
    """I, share, norm and variance of a reading, for the pixels of a ring that have one."""
    entries = slice(*bins.indptr.values[ring : ring + 2])
    pixels, shares = bins.indices.values[entries], bins.data.values[entries].astype(float)
    raw = np.asarray(frame, float).ravel()[pixels]
    norm, dark = (image.values.ravel()[pixels].astype(float) for image in (bins.norm, bins.dark))
    noise = np.maximum(raw, 1) + dark if variance is None else np.asarray(variance, float).ravel()[pixels]
    known = measured(frame, bins, ring, variance)
    return tuple(values[known] for values in ((raw - dark) / norm, shares, norm, noise))


def measured(frame, bins, ring, variance=None):
    """Which pixels of a ring have a reading, and a variance if any is given."""
    pixels = bins.indices.values[slice(*bins.indptr.values[ring : ring + 2])]
    known = np.isfinite(np.asarray(frame, float).ravel()[pixels])
    if variance is None:
        return known
    noise = np.asarray(variance, float).ravel()[pixels]
    return known & np.isfinite(noise) & (noise >= 0)


def moments(intensity, share, norm, noise, model):
    """Mean, Σω, Σω², and the variance of Σω·I."""
    weight = share * norm
    mean = (weight * intensity).sum() / weight.sum()
    total = (weight**2 * (intensity - mean) ** 2).sum() if model == "azimuthal" else (share**2 * noise).sum()
    return mean, weight.sum(), (weight**2).sum(), total


def statistics(intensity, share, norm, noise, model):
    """Mean, standard error of the mean, standard deviation, number of pixels."""
    if not len(intensity):
        return np.nan, np.nan, np.nan, 0.0
    mean, whole, squares, total = moments(intensity, share, norm, noise, model)
    if model == "no" or (model == "azimuthal" and share.sum() <= 1):
        total = np.nan
    return mean, np.sqrt(total) / whole, np.sqrt(total / squares), share.sum()


def clip(intensity, share, norm, noise, model, threshold, most):
    """Which pixels are kept."""
    kept = np.ones(len(intensity), bool)
    for _ in range(most):
        if not kept.any():
            break
        chosen = [values[kept] for values in (intensity, share, norm, noise)]
        (mean, _, squares, total), count = moments(*chosen, model), chosen[1].sum()
        limit = max(threshold, np.sqrt(2 * np.log(max(3, count) / np.sqrt(2 * np.pi)))) * np.sqrt(total / squares)
        left = kept & (abs(intensity - mean) <= limit)
        if model != "azimuthal" and share[left].sum() < count / 2:
            left = kept & (abs(intensity - lower_median(*chosen[:3])) <= limit)
        if (left == kept).all():
            break
        kept = left
    return kept


def lower_median(intensity, share, norm):
    """The value at which the weight of what is not above it first comes to a half."""
    order = np.argsort(intensity, kind="stable")
    ends = np.cumsum((share * norm)[order])
    return intensity[order][ends >= (0.5 - 1e-12) * ends[-1]][0]


def quantile_mean(intensity, share, norm, low, high):
    """∫ of I over the weight between two quantiles, over their distance; the quantile itself if they are one."""
    if not len(intensity):
        return np.nan
    order = np.argsort(intensity, kind="stable")
    values, weights = intensity[order], (share * norm)[order]
    ends = np.cumsum(weights)
    begins, whole = ends - weights, ends[-1]
    if low == high:  # on the border of two pixels: the mean of both
        near = (ends >= (low - 1e-12) * whole) & (begins <= (low + 1e-12) * whole)
        return (values[near][0] + values[near][-1]) / 2
    inside = np.minimum(ends, high * whole) - np.maximum(begins, low * whole)
    return (values * inside.clip(0)).sum() / inside.clip(0).sum()
