"""The blur undone on a measured frame (skipped where the data is not there).

Bragg spots of thaumatin on a Pilatus3 6M, in the band of five modules' height across the beam, up to 23° off the normal.

A linear solution takes the same shift and the same width off whatever was recorded. So these tests tell whether matrix, mask, noise
and the experiment's geometry go together on a measured frame, and not whether the frame agrees with the matrix.
"""

from typing import NamedTuple

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from detcal import open_frames
from detcal.sensor import PlanarGeometry, attenuation_per_m, build_psf, deconvolve

PITCH, DISTANCE, THICKNESS = 172e-6, 0.351, 450e-6  # m
KEV = 12.39841984 / 0.96859
BAND = (850, 1900)  # rows
BEAM = (1306.96 - BAND[0], 1261.61)  # y, x in pixels of the band: the detector stands upright, so this is the PONI
HALF = 6  # of the box around a spot, pixels
Y, X = np.mgrid[-HALF : HALF + 1, -HALF : HALF + 1]
INSIDE = np.hypot(Y, X) <= 4.5


class Spots(NamedTuple):
    """Pixels at the tops of isolated spots (spot, y and x), and the tangent of the angle there."""

    places: np.ndarray
    tangent: np.ndarray


class Moments(NamedTuple):
    """Of each spot: counts; centre along the ray (outwards) and across it; mean square width along the ray. Pixels."""

    counts: np.ndarray
    along: np.ndarray
    across: np.ndarray
    width: np.ndarray


@pytest.fixture(scope="module")
def band(shared_data):
    path = shared_data / "sensor" / "thau_3_2_0010.cbf.bz2"
    if not path.exists():
        pytest.skip(f"no measured frame: {path.name} is not there")
    return open_frames(path)[:, slice(*BAND)].compute()


@pytest.fixture(scope="module")
def spots(band):
    """Those of more than 500 counts with nothing else around them."""
    image, valid = band.values[0], band.values[0] >= 0
    highest = (image == maximum_filter(image, 2 * HALF + 1)) & (image > 20) & ~maximum_filter(~valid, 2 * HALF + 1)
    highest[:HALF] = highest[-HALF:] = highest[:, :HALF] = highest[:, -HALF:] = False
    places = np.argwhere(highest)
    found = boxes(image, places)
    level = image[tuple(places.T)] - found[:, HALF, HALF]
    alone = found[:, ~INSIDE].max(axis=1) < 5 * np.sqrt(level + 1) + 2
    places = places[alone & (found[:, INSIDE].sum(axis=1) > 500)]
    return Spots(places, np.linalg.norm(places + 0.5 - BEAM, axis=1) * PITCH / DISTANCE)


@pytest.fixture(scope="module")
def restored(band):
    """What entered the band, and the efficiency."""
    return restore(band, BEAM)


def restore(frames, poni):
    """With the PONI at a place in pixels."""
    plane = PlanarGeometry(frames.shape[1:], (PITCH, PITCH), DISTANCE, (PITCH * poni[0], PITCH * poni[1]))
    psf = build_psf(plane, thickness_m=THICKNESS, material="Si", energy_kev=KEV, mask=frames.values[0] < 0).compute()
    return deconvolve(frames, psf, method="direct").values[0], psf.efficiency.values


def boxes(image, places):
    """The surroundings of some pixels, less their background."""
    found = np.array([image[y - HALF : y + HALF + 1, x - HALF : x + HALF + 1] for y, x in places], float)
    return found - found[:, ~INSIDE].mean(axis=1)[:, None, None]


def measure(image, places) -> Moments:
    outwards = places + 0.5 - BEAM
    y, x = (outwards / np.linalg.norm(outwards, axis=1)[:, None]).T[..., None, None]
    weights = boxes(image, places) * INSIDE
    counts = weights.sum(axis=(1, 2))
    along, across, squares = ((weights * line).sum(axis=(1, 2)) / counts for line in (y * Y + x * X, y * X - x * Y, (y * Y + x * X) ** 2))
    return Moments(counts, along, across, squares - along**2)


def mean_depth(tangent):
    """Mean depth times tan θ, in pixels: so far out a spot is recorded. In closed form, without a matrix."""
    mu = attenuation_per_m("Si", KEV) * np.sqrt(1 + tangent**2)
    return (1 / mu - THICKNESS / np.expm1(mu * THICKNESS)) * tangent / PITCH


@pytest.fixture(scope="module")
def measured(band, restored, spots):
    """Of the compact spots, which lie within the 4.5 pixels all but wholly: their tangents, moments as recorded and as restored."""
    before, after = measure(band.values[0], spots.places), measure(restored[0], spots.places)
    compact = before.width < 1.3**2
    assert compact.sum() > 90
    return spots.tangent[compact], Moments(*(line[compact] for line in before)), Moments(*(line[compact] for line in after))


def test_spots_come_back_to_where_their_rays_entered(measured):
    """The medians are good to 1 %; what of the spots lies beyond the 4.5 pixels makes them 2 % less."""
    tangent, before, after = measured
    for lowest, highest in ((0, 4), (4, 10), (10, 14), (14, 30)):
        some = (tangent >= np.tan(np.radians(lowest))) & (tangent < np.tan(np.radians(highest)))
        moved = (after.along - before.along)[some]
        assert np.median(moved / mean_depth(tangent[some])) == pytest.approx(-1, abs=0.05)
        assert np.median((after.across - before.across)[some]) == pytest.approx(0, abs=0.02)


def test_spots_far_from_the_poni_get_sharper(measured):
    """Rms width along the ray: the median ratio is 0.936 ± 0.009, so that 0.97 is well off both from it and from 1."""
    tangent, before, after = measured
    far = tangent > np.tan(np.radians(12))
    assert far.sum() > 50
    assert np.median(np.sqrt(after.width[far].clip(0) / before.width[far])) < 0.97


def test_spots_near_the_poni_stay_as_they_are(measured):
    """Up to 4° off the normal they are moved by a twentieth of a pixel, and 1.5 % sharper."""
    tangent, before, after = measured
    near = tangent < np.tan(np.radians(4))
    assert near.sum() >= 5
    assert abs(after.along - before.along)[near].max() < 0.1
    assert np.median(np.sqrt(after.width[near] / before.width[near])) == pytest.approx(1, abs=0.025)


def test_spots_keep_their_counts(band, restored, spots):
    before, after = measure(band.values[0], spots.places), measure(restored[0], spots.places)
    efficiency = restored[1][tuple(spots.places.T)]
    assert np.median(after.counts * efficiency / before.counts) == pytest.approx(1, abs=0.01)


def test_a_mirrored_poni_would_be_noticed(band, spots):
    """The left half, taken to be lit from its left side: spots move outwards. (They get sharper even so.)"""
    left = band[:, :, :1262]
    places, tangent = (line[spots.places[:, 1] < 1262 - HALF] for line in spots)
    wrong, _ = restore(left, (BEAM[0], 1262 - BEAM[1]))
    before, after = measure(left.values[0], places), measure(wrong, places)
    far = tangent > np.tan(np.radians(12))
    assert far.sum() > 50
    assert np.median((after.along - before.along)[far]) > 0.1
