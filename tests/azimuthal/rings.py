"""Rings, frames and comparisons that the tests of profiles share."""

import numpy as np
import xarray as xr
from hypothesis import strategies as st

from detcal.azimuthal import (
    AzimuthalBins,
)

NPT = 300
MODELS = ("poisson", "azimuthal", "hybrid")
VALUES = st.integers(0, 20) | st.just(10**6)
SEEDS = range(4)
BESIDE = st.sampled_from([0, 1e-15, -1e-15, 1e-9, -1e-9, 1e-6, -1e-6, 1e-4, -1e-4])


def image_of(values, dims=("y", "x")):
    return xr.DataArray(np.asarray(values, np.float32), dims=dims)


def make_bins(rings, norm=None, dark=None, shares=None):
    """Bins from a ring number a pixel; −1 is in none."""
    rings = np.asarray(rings)
    order = np.argsort(rings.ravel(), kind="stable")
    order = order[rings.ravel()[order] >= 0]
    starts = np.searchsorted(rings.ravel()[order], np.arange(rings.max() + 2))
    return AzimuthalBins(
        indptr=xr.DataArray(starts.astype(np.int64), dims="edge"), indices=xr.DataArray(order.astype(np.int32), dims="entry"),
        data=xr.DataArray(np.ones(len(order), np.float32) if shares is None else shares.ravel()[order].astype(np.float32), dims="entry"),
        norm=image_of(np.ones(rings.shape) if norm is None else norm), dark=image_of(np.zeros(rings.shape) if dark is None else dark),
        radius=image_of(rings), centres=xr.DataArray(np.arange(rings.max() + 1.0), dims="radial"), unit="r_mm", split="no",
    )  # fmt: skip


def random_rings(rng, shape=(17, 23), count=7, split=False):
    """Rings of all sizes, one of a single pixel, one of two, one empty."""
    rings = rng.integers(-1, count, shape)
    rings[rings == count - 1] = count
    rings.flat[:3] = count + 1, count + 2, count + 2
    shares = rng.uniform(0.1, 1, shape) if split else None
    return make_bins(rings, rng.uniform(0.5, 1.5, shape), rng.uniform(0, 5, shape), shares)


def random_frames(rng, shape, count=3):
    """Counts with some hot pixels, and some that are not measured."""
    frames = rng.poisson(100, (count, *shape)).astype(np.float32)
    frames[rng.random(frames.shape) < 0.01] = 1e5
    frames[rng.random(frames.shape) < 0.05] = np.nan
    return frames


def random_variance(rng, shape):
    """Of each reading; of some there is none."""
    variance = rng.uniform(1, 200, shape).astype(np.float32)
    variance[rng.random(shape) < 0.05] = -1
    variance[rng.random(shape) < 0.05] = np.nan
    return variance


def trial(seed, split):
    """Random rings with frames and their variance; one ring is constant, of one nothing is measured. Others are of single pixels, or
    empty, and many pixels are masked."""
    rng = np.random.default_rng(seed)
    bins = random_rings(rng, split=split)
    frames = random_frames(rng, bins.shape)
    constant, lost = (bins.indices.values[slice(*bins.indptr.values[ring : ring + 2])] for ring in (0, 1))
    bins.norm.values.flat[constant], bins.dark.values.flat[constant] = 0.5, 0  # I is then without rounding
    frames.reshape(len(frames), -1)[:, constant] = 77
    frames.reshape(len(frames), -1)[:, lost] = np.nan
    return bins, frames, random_variance(rng, frames.shape)


def agree_in_ring(found, frame, ring, wanted):
    """To 1e-6 of the ring's own intensity. Errors are roots of sums of squares, so to 5e-6; and as small as they may be, to the rounding
    of the intensities they are the spread of."""
    intensity, sem, std, count = (found[name].values[frame, ring] for name in ("intensity", "sem", "std", "count"))
    own = abs(wanted[0]) if wanted[3] else 0
    np.testing.assert_allclose(intensity, wanted[0], rtol=1e-6)
    np.testing.assert_allclose((sem, std), wanted[1:3], rtol=5e-6, atol=2e-7 * own)
    np.testing.assert_allclose(count, wanted[3], rtol=1e-6)


def same(found, wanted, tolerance=1e-6, scale=100.0):
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * scale)


def agree(found, peer, names, tolerance=1e-5):
    """In rings of more than three pixels."""
    several = peer.count > 3
    assert several.sum() > NPT / 2
    np.testing.assert_allclose(found["count"][0][several], peer.count[several], rtol=tolerance / 10)
    for name in names:
        np.testing.assert_allclose(found[name][0][several], getattr(peer, name)[several], rtol=tolerance, err_msg=name)
