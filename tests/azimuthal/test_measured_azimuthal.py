"""Filters in rings on a measured frame (skipped where the data is not there).

Coarse CeO2 on a Pilatus 1M: the rings are spots, and lose height in each filter, as they should; but not their place and width. Between
them the frame is even, so that there a filter must give the mean without what does not belong to it.
"""

import logging
from typing import NamedTuple

import numpy as np
import pyFAI
import pytest
import xarray as xr

from detcal import open_frames
from detcal.azimuthal import (
    AzimuthalBins,
    build_bins,
    integrate,
    median_filter,
    outlier_mask,
    quantile_filter,
    radial_background,
    sigma_clip,
)

SUMS = np.array([3, 4, 8, 11, 12, 16, 19, 20, 24, 27, 32, 35, 36, 40, 43, 44, 48])  # h² + k² + l²
RINGS = 2 * np.degrees(np.arcsin(0.4066 / 2 / 5.4115 * np.sqrt(SUMS)))  # Bragg's law for the cell of CeO2
ALONE = RINGS[[np.sort(np.abs(RINGS - ring))[1] > 0.45 and ring < 29 for ring in RINGS]]
HOT = 50000  # counts
FILTERS = {"clipped": sigma_clip, "median": median_filter, "quantiles": quantile_filter}


class Powder(NamedTuple):
    """The frame and a copy with hot pixels (frame, y, x); where these are; which bins are between the rings."""

    frames: xr.DataArray
    hot: np.ndarray
    bins: AzimuthalBins
    between: np.ndarray

    def pixels(self, image: np.ndarray, ring: int) -> np.ndarray:
        """The pixels of a bin."""
        return image.ravel()[self.bins.indices.values[slice(*self.bins.indptr.values[ring : ring + 2])]]


@pytest.fixture(scope="module")
def powder(shared_data):
    path = shared_data / "azimuthal" / "CeO2_Pilatus1M.tif"
    if not path.exists():
        pytest.skip(f"no measured frame: {path.name} is not there")
    logging.getLogger("pyFAI").setLevel(logging.ERROR)
    geometry = pyFAI.load(str(path.with_suffix(".poni")))
    geometry.detector = pyFAI.detector_factory("Pilatus 1M")
    frame = open_frames(path, flip="ud").compute()
    bins = build_bins(geometry, npt=1000, unit="2th_deg", polarization=0.95)
    centres, counts = bins.centres.values, frame.values[0]
    hot = np.zeros(counts.shape, bool)
    candidates = np.flatnonzero((counts >= 0) & (bins.radius.values > 1.5) & (bins.radius.values < 29))
    hot.flat[np.random.default_rng(7).choice(candidates, 300, replace=False)] = True
    frames = xr.concat([frame, frame.where(~hot, HOT)], "frame").astype(np.int32)
    between = (np.abs(centres[:, None] - RINGS).min(axis=1) > 0.4) & (centres > 1.5) & (centres < 29)
    return Powder(frames, hot, bins, np.flatnonzero(between))


def test_a_hot_pixel_moves_a_clipped_mean_by_no_more_than_its_own_absence(powder):
    """Each that is left out takes with it a reading that was less than five standard deviations from the mean."""
    before, after = sigma_clip(powder.frames, powder.bins).compute().isel(radial=powder.between).intensity.values
    one = sigma_clip(powder.frames[:1], powder.bins).compute().isel(frame=0, radial=powder.between)
    number = np.array([powder.pixels(powder.hot, ring).sum() for ring in powder.between])
    limit = number * 5.5 * one["std"].values / (one["count"].values - number) + 1e-5 * before
    raw = integrate(powder.frames, powder.bins).compute().intensity.values[:, powder.between]
    assert (number > 0).sum() > 80
    assert (np.abs(after - before) <= limit).all()
    assert (raw[1] - raw[0] > 10 * limit)[number > 0].all()
    assert (np.abs(raw[1] - raw[0]) <= limit)[number == 0].all()


def test_a_hot_pixel_moves_a_median_by_no_more_than_its_rank(powder):
    medians = median_filter(powder.frames, powder.bins).compute().intensity.values
    corrected = (powder.frames.values[0] - powder.bins.dark.values) / powder.bins.norm.values
    for ring in powder.between:
        number, values = powder.pixels(powder.hot, ring).sum(), np.sort(powder.pixels(corrected, ring))
        values = values[values >= 0]
        middle = len(values) // 2
        room = 2 * number + 2  # weights, which are the solid angles, are even to a few parts in a thousand
        low, high = values[max(middle - room - len(values) // 100, 0)], values[middle + room + len(values) // 100]
        assert low <= medians[1, ring] <= high < HOT / 10


def test_all_hot_pixels_are_marked_and_little_else_between_the_rings(powder):
    marked = outlier_mask(powder.frames, powder.bins).values
    assert marked[1][powder.hot].all()
    quiet = np.isin(np.digitize(powder.bins.radius, edges_of(powder.bins)) - 1, powder.between) & ~powder.hot
    assert marked[1][quiet].sum() <= marked[0][quiet].sum() + 5
    assert 0 < marked[0][quiet].mean() < 1e-3


def test_stray_spots_between_the_rings_stand_out_of_the_mean_only(powder):
    """Where something was left out, a bin is compared with its neighbours' clipped means: noise of √1.5 standard errors."""
    raw, clipped = (job(powder.frames[:1], powder.bins, error_model="azimuthal").compute().isel(frame=0) for job in (integrate, sigma_clip))
    some = powder.between[(raw["count"] > clipped["count"]).values[powder.between]]
    level, error = clipped.intensity.values, clipped["sem"].values
    steps = [(job.intensity.values[some] - (level[some - 1] + level[some + 1]) / 2) / error[some] for job in (raw, clipped)]
    limit = 3 * np.sqrt(1.5 / len(some))
    assert len(some) > 50
    assert steps[0].mean() > limit
    assert abs(steps[1].mean()) < limit


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("which", [0, 1], ids=["measured", "hot"])
def test_rings_keep_place_and_width(powder, name, which):
    """Of Bragg's law, to half a bin; the widths of the mean of the frame as measured, to a third of a bin of two."""
    centres = powder.bins.centres.values
    mean = integrate(powder.frames[:1], powder.bins).compute().intensity.values[0]
    filtered = FILTERS[name](powder.frames, powder.bins).compute().intensity.values[which]
    wanted, found = (np.array([ring_of(centres, profile, ring) for ring in ALONE]) for profile in (mean, filtered))
    step = centres[1] - centres[0]
    assert len(ALONE) == 12
    assert np.abs(found[:, 0] - ALONE).max() < step / 2
    assert np.abs(found[:, 0] - wanted[:, 0]).max() < step / 5
    assert np.abs(found[:, 1] / wanted[:, 1] - 1).max() < 1 / 3
    assert found[:, 1].mean() == pytest.approx(wanted[:, 1].mean(), rel=0.1)


def test_a_hot_pixel_is_all_that_is_left_above_the_background(powder):
    background = radial_background(median_filter(powder.frames[1:], powder.bins).intensity, powder.bins).values[0]
    left = powder.frames.values[1] - background
    inside = np.isin(np.digitize(powder.bins.radius, edges_of(powder.bins)) - 1, powder.between) & (powder.frames.values[0] >= 0)
    assert left[powder.hot].min() > 0.8 * HOT
    assert np.abs(left[inside & ~powder.hot]).mean() < 2 * np.sqrt(np.median(powder.frames.values[0][inside]))


def edges_of(bins):
    """Of the bins, which are even."""
    centres = bins.centres.values
    return np.append(centres, 2 * centres[-1] - centres[-2]) - (centres[1] - centres[0]) / 2


def ring_of(centres, profile, place):
    """Centre and full width at half maximum of a ring above the line between its feet."""
    some = np.abs(centres - place) < 0.25
    x, y = centres[some], profile[some].astype(float)
    feet = np.r_[0:3, -3:0]
    y = y - np.polyval(np.polyfit(x[feet], y[feet], 1), x)
    top = np.argmax(y)
    core = slice(max(top - 3, 0), top + 4)
    low, high = np.flatnonzero(y > y[top] / 2)[[0, -1]]
    left = np.interp(y[top] / 2, y[low - 1 : low + 1], x[low - 1 : low + 1])
    right = np.interp(-y[top] / 2, -y[high : high + 2], x[high : high + 2])
    return np.average(x[core], weights=y[core].clip(0)), right - left


def test_rings_are_sharp_only_when_the_rows_are_reversed(powder, shared_data):
    path = shared_data / "azimuthal" / "CeO2_Pilatus1M.tif"
    np.testing.assert_array_equal(powder.frames.values[0], np.flipud(open_frames(path).values[0]))

    def contrast(flip):
        """How much higher than what is around them the rings that stand alone are."""
        profile = integrate(open_frames(path, flip=flip), powder.bins).intensity.values[0]
        centres = powder.bins.centres.values
        heights = [
            np.nanmax(profile[np.abs(centres - ring) < 0.04]) / np.nanmedian(profile[np.abs(centres - ring) < 0.4]) for ring in ALONE
        ]
        return float(np.median(heights))

    found = {flip: contrast(flip) for flip in (None, "ud", "lr", "both")}
    assert found["ud"] > 2 * max(value for flip, value in found.items() if flip != "ud"), found
