"""Eigenflats written from the paper, with all flats in memory: slow and clear."""

import numpy as np
from scipy.optimize import minimize


def eigenflats(flats, dark, components):
    """The first principal components of flats of one brightness in units of photon noise, relative to the mean; flats' weights."""
    light = flats.mean(axis=0) - dark
    brightness = (flats - dark).sum(axis=(1, 2)) / light.sum()
    differ = (flats - dark) - brightness[:, None, None] * light
    differ -= differ.mean(axis=0)
    noise = np.sqrt(light)
    left, _, _ = np.linalg.svd((differ / noise).reshape(len(flats), -1), full_matrices=False)
    weights = left[:, :components] * np.sqrt(len(flats))
    return np.tensordot(weights.T / len(flats), differ, 1) / light, weights


def total_variation(image):
    """The sum of the lengths of the differences to the next row and column, 0 at the edge and beside NaN."""
    down, right = np.zeros_like(image), np.zeros_like(image)
    down[:-1], right[:, :-1] = np.diff(image, axis=0), np.diff(image, axis=1)
    return np.hypot(np.nan_to_num(down), np.nan_to_num(right))[~np.isnan(image)].sum()


def find_weights(image, components):
    """The weights that leave the least total variation, without a slope to go by."""

    def left(weights):
        return total_variation(image / (1 + np.tensordot(weights, components, 1)))

    return minimize(left, np.zeros(len(components)), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 4000}).x


def binned(images, size):
    """Means of groups of size × size pixels."""
    count, height, width = images.shape
    groups = images[:, : height // size * size, : width // size * size].reshape(count, height // size, size, width // size, size)
    return np.nanmean(groups, axis=(2, 4))
