"""Rings of a range and sectors: against numpy's histogram, the same rings in a wider range, and areas cut one by one."""

import logging
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyFAI.detectors import Detector, detector_factory
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from detcal.azimuthal import build_bins, integrate, integrate_azimuthal, median_filter, outlier_mask, radial_background, sigma_clip
from detcal.azimuthal.units import PAIRS, UNITS, in_unit
from detcal.errors import InputError
from tests.reference import bins as reference

SPLITS = ("no", "bbox", "full")
SHAPE = 60, 64


@pytest.fixture(autouse=True)
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def geometry(poni1=0.00293, poni2=0.00311, dist=0.02, shape=SHAPE, **rotations):
    """The beam on the detector, at no corner or centre of a pixel, unless it is asked for."""
    detector = Detector(1e-4, 1e-4, max_shape=shape, orientation=3)
    return AzimuthalIntegrator(dist, poni1, poni2, detector=detector, wavelength=1e-10, **rotations)


def counts(bins):
    """Pixels (radial,), or (azimuthal, radial), of an image on which all are measured."""
    return integrate(np.ones(bins.shape, np.float32), bins, error_model="no").compute()["count"].values[0]


def sums(bins):
    """The shares of each bin, in float64."""
    return np.add.reduceat(np.append(bins.data.values, 0).astype(float), bins.indptr.values[:-1]) * (np.diff(bins.indptr) > 0)


OURS = {"s_nm^-1": ("q_nm^-1", 1 / (2 * np.pi)), "s_A^-1": ("q_A^-1", 1 / (2 * np.pi)), "r_px": ("r_m", 1e4)}  # that pyFAI does not have


def radii(place, unit):
    name, times = OURS.get(unit, (unit, 1))
    return place.array_from_unit(SHAPE, "center", name).astype(float) * times


def azimuths(place):
    return np.rad2deg(place.array_from_unit(SHAPE, "center", "chi_rad", scale=False))


# ------------------------------------------------------------------------------------------------------- numpy's histogram


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("npt", [1, 7, 90])
def test_rings_of_a_range_are_numpys(unit, npt):
    place = geometry(rot1=0.1, rot2=-0.2)
    radius = radii(place, unit)
    low, high = np.quantile(radius, (0.2, 0.7))
    rounded = 1e-12 if unit in OURS else 0  # one product of ours is another one here
    for limits in ((low, high), (low, 2 * abs(high) + 1), (radius.min() * (1 - rounded), radius.max() * (1 + rounded))):
        wanted, edges = np.histogram(radius, npt, limits)
        bins = build_bins(place, npt=npt, unit=unit, radial_range=limits)
        np.testing.assert_array_equal(np.diff(bins.indptr), wanted)
        np.testing.assert_allclose(bins.centres, (edges[1:] + edges[:-1]) / 2, rtol=1e-12)


def test_intensity_over_azimuth_is_that_of_numpys_histogram():
    place, limits = geometry(), (4.0, 9.0)
    frames = np.random.default_rng(2).poisson(100, (2, *SHAPE))
    bins = build_bins(place, npt=1, npt_azimuth=24, radial_range=limits, azimuth_range=(-180, 180), solid_angle=False)
    found = integrate_azimuthal(frames, bins).compute()
    radius, azimuth = radii(place, "q_nm^-1").ravel(), azimuths(place).ravel()
    inside = (radius >= limits[0]) & (radius <= limits[1])
    for frame, line, counted in zip(frames, found.intensity.values, found["count"].values, strict=True):
        wanted = np.histogram(azimuth[inside], 24, (-180, 180))[0]
        total = np.histogram(azimuth[inside], 24, (-180, 180), weights=frame.ravel()[inside])[0]
        np.testing.assert_array_equal(counted, wanted)
        np.testing.assert_allclose(line, total / wanted, rtol=1e-6)
    assert found.radial.item() == 6.5
    for options, told in (({"npt": 3, "npt_azimuth": 4}, "3 rings and 4 parts of each"), ({"npt": 1}, "1 rings and no parts")):
        with pytest.raises(InputError, match=f"expected bins of one ring in parts, got {told}: build them with npt=1, npt_azimuth"):
            integrate_azimuthal(frames, build_bins(place, **options))


@pytest.mark.parametrize(("unit", "turn"), [("d_nm", 2 * np.pi), ("d_A", 20 * np.pi)])
def test_spacings_are_2_pi_over_q(unit, turn):
    """Rings by d have the pixels of rings by q, from the other end; the pixel with the beam has none."""
    place = geometry(0.00305, 0.00315)
    q, limits = radii(place, "q_nm^-1"), (turn / 13, turn / 4)
    wanted, edges = np.histogram(turn / q[q > 0], 20, limits)
    bins = build_bins(place, npt=20, unit=unit, radial_range=limits)
    np.testing.assert_array_equal(np.diff(bins.indptr), wanted)
    np.testing.assert_allclose(bins.centres, (edges[1:] + edges[:-1]) / 2)
    assert build_bins(place, npt=20, unit=unit).indices.size == q.size - 1
    for split in ("bbox", "full"):
        with pytest.raises(InputError, match=f"pixels cannot be split in {unit}.*take split"):
            build_bins(place, npt=20, unit=unit, split=split)


@pytest.mark.parametrize("split", ["bbox", "full"])
@pytest.mark.parametrize("unit", OURS)
def test_multiples_of_pyfais_units_have_the_same_rings(unit, split):
    """Of the same range, with pixels split."""
    place, (name, times) = geometry(rot1=0.1), OURS[unit]
    limits = np.quantile(radii(place, name), (0.2, 0.7))
    found, wanted = (build_bins(place, npt=20, unit=each, radial_range=limits * by, split=split) for each, by in ((unit, times), (name, 1)))
    np.testing.assert_allclose(found.centres, wanted.centres * times, rtol=1e-12)
    np.testing.assert_allclose(found.to_scipy().toarray(), wanted.to_scipy().toarray(), atol=1e-6)


def test_pixels_that_are_not_square_have_no_radius_in_pixels():
    place = AzimuthalIntegrator(0.1, detector=Detector(1e-4, 2e-4, max_shape=(20, 20)))
    with pytest.raises(InputError, match=r"expected square pixels for the unit r_px, got 0\.0001 × 0.0002 m: take r_mm"):
        build_bins(place, npt=5, unit="r_px")


@pytest.mark.parametrize("wanted", PAIRS)
@pytest.mark.parametrize("unit", PAIRS)
def test_radii_in_one_unit_are_those_in_another(unit, wanted):
    """As pyFAI and Bragg's law have them; beyond 180° there is no angle."""
    place = geometry()
    one, other = (radii(place, each) for each in (unit, wanted))
    np.testing.assert_allclose(in_unit(one, unit, wanted, 1e-10), other, rtol=1e-6)


def test_radii_that_cannot_be_shown_in_another_unit():
    assert np.isnan(in_unit([126.0], "q_nm^-1", "2th_deg", 1e-10)).all()
    np.testing.assert_allclose(in_unit([2.0], "q_nm^-1", "d_A", None), [10 * np.pi])
    for unit, wanted, message in (
        ("q_nm^-1", "2th_deg", "q_nm.-1 in 2th_deg needs a wavelength"),
        ("r_mm", "2th_deg", "r_mm cannot be shown in 2th_deg, since r_mm is neither an angle"),
        ("2th_deg", "r_mm", "since r_mm is neither an angle, q, s nor d: build the bins in r_mm"),
        ("2th_deg", "2th", "unknown unit '2th'; near are 2th_rad, 2th_deg"),
    ):
        with pytest.raises(InputError, match=message):
            in_unit([1.0], unit, wanted, None)


def test_pixels_on_edges_are_where_numpy_has_them():
    """The beam in the middle of a pixel, radii and edges whole numbers of pixels, azimuths on the axes and diagonals."""
    place = geometry(0.00305, 0.00325)
    radius, azimuth = radii(place, "r_mm"), azimuths(place)
    for limits, npt in (((0.5, 2.5), 20), ((1.0, 2.0), 1), ((0.1, 1.3), 12)):
        wanted = np.histogram(radius, np.linspace(*limits, npt + 1))[0]
        np.testing.assert_array_equal(np.diff(build_bins(place, npt=npt, unit="r_mm", radial_range=limits).indptr), wanted)
    for limits in ((0, 90), (-180, -90), (90, 180), (-45, 45)):
        wanted = np.histogram2d(radius.ravel(), azimuth.ravel(), (np.linspace(0.5, 2.5, 11), np.linspace(*limits, 10)))[0]
        bins = build_bins(place, npt=10, unit="r_mm", radial_range=(0.5, 2.5), azimuth_range=limits, npt_azimuth=9)
        np.testing.assert_array_equal(np.diff(bins.indptr).reshape(10, 9), wanted)


@settings(max_examples=60, deadline=None)
@given(
    start=st.floats(0, 20), width=st.floats(0.01, 30), npt=st.integers(1, 40), parts=st.integers(1, 9), left=st.floats(-180, 170),
    turn=st.floats(0.5, 360),
)  # fmt: skip
def test_any_range_is_numpys(start, width, npt, parts, left, turn):
    place = geometry(rot1=0.3)
    limits, sectors = (start, start + width), (left, min(left + turn, 180.0))
    edges = np.linspace(*limits, npt + 1), np.linspace(*sectors, parts + 1)
    wanted = np.histogram2d(radii(place, "q_nm^-1").ravel(), azimuths(place).ravel(), edges)[0]
    if not wanted.any():
        with pytest.raises(InputError, match="no pixel is left"):
            build_bins(place, npt=npt, radial_range=limits, azimuth_range=sectors, npt_azimuth=parts)
        return
    bins = build_bins(place, npt=npt, radial_range=limits, azimuth_range=sectors, npt_azimuth=parts)
    np.testing.assert_array_equal(np.diff(bins.indptr).reshape(npt, parts), wanted)


def test_azimuths_from_0_to_360_are_numpys():
    place = geometry()
    azimuth = azimuths(place) % 360
    for limits in ((0, 360), (100, 270), (180, 360), (350, 360)):
        wanted = np.histogram(azimuth, np.linspace(*limits, 8))[0]
        np.testing.assert_array_equal(counts(build_bins(place, npt=5, azimuth_range=limits, npt_azimuth=7)).sum(axis=1), wanted)


@settings(max_examples=40, deadline=None)
@given(left=st.floats(-360, 355), turn=st.floats(0.5, 360), npt=st.integers(1, 12), parts=st.integers(1, 9))
def test_azimuths_across_both_seams_are_numpys(left, turn, npt, parts):
    """Each pixel once, wherever the turn begins; beside the beam no azimuth is rounded from one part to the next."""
    place, limits = geometry(rot1=0.3), (left, left + turn)
    azimuth = azimuths(place).ravel()
    shifted = azimuth - 720
    while (below := shifted < left).any():
        shifted[below] = (azimuth + 360 * np.rint((shifted - azimuth) / 360 + 1))[below]
    edges = np.linspace(0, 60, npt + 1), np.linspace(*limits, parts + 1)
    wanted = np.histogram2d(radii(place, "q_nm^-1").ravel(), shifted, edges)[0]
    if not wanted.any():
        return
    bins = build_bins(place, npt=npt, radial_range=(0, 60.0), azimuth_range=limits, npt_azimuth=parts)
    np.testing.assert_array_equal(np.diff(bins.indptr).reshape(npt, parts), wanted)
    np.testing.assert_allclose(bins.azimuths, (edges[1][1:] + edges[1][:-1]) / 2)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("limits", [(-5, 355), (-190, 170), (90, 450), (-360, 0)])
def test_a_whole_turn_from_anywhere_has_every_pixel_once(split, limits):
    parts = sums(build_bins(geometry(), npt=3, split=split, radial_range=(0, 60.0), azimuth_range=limits, npt_azimuth=8)).reshape(3, 8)
    whole = sums(build_bins(geometry(), npt=3, split=split, radial_range=(0, 60.0)))
    np.testing.assert_allclose(parts.sum(axis=1), whole, rtol=1e-5)
    np.testing.assert_allclose(
        sums(build_bins(geometry(), npt=3, split=split, radial_range=(0, 60.0), azimuth_range=limits)), whole, rtol=1e-5
    )


# -------------------------------------------------------------------------------------------------- shares, cut one by one


@pytest.mark.parametrize("rotations", [{}, {"rot1": 0.015, "rot2": -0.01}], ids=["straight", "tilted"])
@pytest.mark.parametrize("azimuth_range", [None, (-180, 180), (-60, 50), (100, 260), (170, 180)])
@pytest.mark.parametrize("split", ["bbox", "full"])
def test_shares_are_areas_that_are_cut_one_by_one(split, azimuth_range, rotations):
    """Of all pixels but those near the beam, in a range that ends on the detector."""
    shape = 14, 16
    place = geometry(0.00063, 0.00081, shape=shape, **rotations)
    radius, half = (place.array_from_unit(shape, kind, "q_nm^-1", scale=False) for kind in ("center", "delta"))
    azimuth, half_azimuth = (place.array_from_unit(shape, kind, "chi_rad", scale=False) for kind in ("center", "delta"))
    corners = place.array_from_unit(shape, "corner", "q_nm^-1", scale=False)
    beam = np.array(np.unravel_index(radius.argmin(), shape))
    near = np.hypot(*(np.indices(shape) - beam[:, None, None])) < 2
    limits = tuple(np.quantile(radius[~near], (0.2, 0.8)))
    rings, parts = np.linspace(*limits, 5), np.deg2rad(np.linspace(*(azimuth_range or (-180, 180)), 4))
    bins = build_bins(place, npt=4, split=split, radial_range=limits, azimuth_range=azimuth_range or (-180, 180), npt_azimuth=3, mask=near)
    found = np.zeros((12, near.size))
    np.add.at(found, (np.repeat(np.arange(12), np.diff(bins.indptr)), bins.indices.values), bins.data.values)
    for pixel in np.flatnonzero(~near):
        at = np.unravel_index(pixel, shape)
        polygon = (
            reference.outline(corners[at]) if split == "full" else reference.box(*(a[at] for a in (radius, half, azimuth, half_azimuth)))
        )
        np.testing.assert_allclose(found[:, pixel], reference.shares(polygon, rings, parts).ravel(), atol=2e-6)
    whole = build_bins(place, npt=4, split=split, radial_range=limits, azimuth_range=azimuth_range, mask=near)
    np.testing.assert_allclose(sums(whole), found.sum(axis=1).reshape(4, 3).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("npt", [1, 20])
@pytest.mark.parametrize("split", SPLITS)
def test_rings_are_the_same_in_a_wider_range(split, npt):
    place = geometry(rot2=0.05)
    narrow = build_bins(place, npt=npt, split=split, radial_range=(4.0, 6.0))
    wide = build_bins(place, npt=3 * npt, split=split, radial_range=(2.0, 8.0))
    np.testing.assert_allclose(sums(narrow), sums(wide)[npt : 2 * npt], rtol=1e-5)


@pytest.mark.parametrize("poni", [(0.00293, 0.00311), (0.003, 0.003), (0.00305, 0.00311), (0.003, 0.00311), (-0.01, 0.003), (-0.01, -0.02)])
@pytest.mark.parametrize("split", SPLITS)
def test_sectors_add_up_to_the_whole(split, poni):
    """The beam within a pixel, on a corner, on a line of centres, on an edge, and beside the detector."""
    place = geometry(*poni)
    if split == "no" and poni == (0.00305, 0.00311):
        pytest.skip("a pixel on the border of two sectors is in both, as in numpy's histograms")
    whole = sums(build_bins(place, npt=12, split=split, radial_range=(0, 60.0)))
    for borders in (
        np.arange(-180, 181, 90) + 0.0,
        [-180, -7.3, 100, 180],
        np.arange(0, 361, 72),
        [0, 170, 190, 360],
        [-5, 100, 355],
        [-190, -20, 170],
    ):
        parts = np.zeros(12)
        for left, right in pairwise(borders):
            try:
                parts += sums(build_bins(place, npt=12, split=split, radial_range=(0, 60.0), azimuth_range=(left, right)))
            except InputError:  # a sector without a pixel
                continue
        np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("poni", [(0.00293, 0.00311), (0.003, 0.003), (0.003, 0.00311), (-0.01, 0.003)])
@pytest.mark.parametrize("split", SPLITS)
def test_without_a_range_every_pixel_is_counted(split, poni):
    for options in ({}, {"npt_azimuth": 7}):
        bins = build_bins(geometry(*poni), npt=12, split=split, **options)
        np.testing.assert_allclose(np.bincount(bins.indices, bins.data, SHAPE[0] * SHAPE[1]), 1, atol=1e-5)
        assert (bins.data > 0).all()


@pytest.mark.parametrize("split", ["bbox", "full"])
def test_the_pixel_with_the_beam_lies_on_all_sides(split):
    mask = np.ones(SHAPE, bool)
    mask[30, 31] = mask[0] = False  # and others, beyond the rings
    bins = build_bins(
        geometry(0.00305, 0.00315),
        npt=3,
        unit="r_mm",
        split=split,
        mask=mask,
        radial_range=(0, 0.3),
        azimuth_range=(-180, 180),
        npt_azimuth=4,
    )
    np.testing.assert_allclose(counts(bins)[:, 0], 0.25, rtol=1e-6)


# --------------------------------------------------------------------------------------------------- at the ends, and beyond


@pytest.mark.parametrize("split", SPLITS)
def test_rings_beside_the_detector_are_empty(split):
    found = integrate(
        np.ones(SHAPE, np.float32), build_bins(geometry(), npt=40, unit="r_mm", split=split, radial_range=(3.0, 7.0))
    ).compute()
    assert found["count"].values[0, :10].all()
    assert (found["count"].values[0, 20:] == 0).all()
    assert np.isnan(found.intensity.values[0, 20:]).all()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("limits", [(50, 60), (-2, -1)])
def test_a_range_beside_the_detector_is_refused(split, limits):
    with pytest.raises(InputError, match="no pixel is left in the rings"):
        build_bins(geometry(), npt=10, unit="r_mm", split=split, radial_range=limits)


@pytest.mark.parametrize("split", SPLITS)
def test_a_single_pixel_is_a_ring(split):
    bins = build_bins(geometry(5e-5, 5e-5, shape=(1, 1)), npt=1, unit="r_mm", split=split)
    assert bins.indices.values.tolist() == [0]


def test_ranges_too_narrow_to_divide_end():
    """Edges that are the same number are no reason to look for ever."""
    place = geometry()
    low = float(radii(place, "q_nm^-1")[3, 4])
    bins = build_bins(place, npt=5, radial_range=(low, np.nextafter(low, np.inf)))
    assert bins.indptr.values[-1] <= 5 * SHAPE[0] * SHAPE[1]


@pytest.mark.parametrize("unit", [1e20, 1e-30, 1e30])
@pytest.mark.parametrize("job", [integrate, sigma_clip, median_filter])
def test_flats_may_have_any_unit(job, unit):
    """Squares of norms are then no numbers of float32."""
    rng = np.random.default_rng(4)
    flat, frames = rng.uniform(0.5, 1.5, SHAPE), rng.poisson(100, (2, *SHAPE))
    frames[:, 20, 20:30] = 5000
    plain, bins = build_bins(geometry(), npt=12, flat=flat), build_bins(geometry(), npt=12, flat=unit * flat)
    options = {} if job is median_filter else {"sums": True}
    wanted, found = (job(frames, each, **options).compute() for each in (plain, bins))
    np.testing.assert_array_equal(found["count"], wanted["count"])
    for name in {"intensity", "sem", "std"} & {*wanted}:
        np.testing.assert_allclose(found[name].values * unit, wanted[name], rtol=1e-6)
    if options:
        np.testing.assert_allclose(found["sum_normalization"].values / unit, wanted["sum_normalization"], rtol=1e-6)
        np.testing.assert_allclose(found["sum_variance"], wanted["sum_variance"], rtol=1e-5)
    np.testing.assert_allclose(radial_background(found.intensity, bins), radial_background(wanted.intensity, plain), rtol=1e-5)


def test_outliers_are_found_with_flats_of_any_unit():
    flat, frames = np.random.default_rng(4).uniform(0.5, 1.5, SHAPE), np.random.default_rng(5).poisson(100, (2, *SHAPE))
    frames[:, 20, 20:30] = 5000
    wanted, found = (outlier_mask(frames, build_bins(geometry(), npt=12, flat=unit * flat)).values for unit in (1, 1e-30))
    assert wanted.any()
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("name", "binning"), [("Rayonix MX170", (8, 8)), ("imXPAD S140", None), ("Jungfrau", None)])
@pytest.mark.parametrize("split", SPLITS)
def test_binned_detectors_and_wide_pixels_are_where_their_corners_are(name, binning, split):
    detector = detector_factory(name)
    if binning is not None:
        detector.binning = binning
    place = AzimuthalIntegrator(0.1, 0.0203, 0.0301, detector=detector, wavelength=1e-10)
    bins = build_bins(place, npt=50, unit="r_mm", split=split)
    middle = detector.get_pixel_corners()[..., 1:].astype(float).mean(axis=2) - (place.poni1, place.poni2)
    np.testing.assert_allclose(bins.radius, 1e3 * np.hypot(*np.moveaxis(middle, -1, 0)), rtol=1e-6, atol=1e-4)
    masked = 0 if detector.mask is None else np.count_nonzero(detector.mask)
    assert sums(bins).sum() == pytest.approx(bins.radius.size - masked, rel=1e-6)


def test_what_sees_nothing_is_left_out_and_counted():
    flat = np.ones(SHAPE)
    flat[3, :5], flat[4, 0] = -1, 0
    with pytest.warns(UserWarning, match="6 pixels that are not masked have a flat of 0 or below: they are in no ring"):
        bins = build_bins(geometry(), npt=10, flat=flat)
    assert len(bins.indices) == flat.size - 6


def test_solid_angles_below_0_are_left_out_and_counted(monkeypatch):
    """As pyFAI has them for modules that are mirrored. Two negative factors make no positive one."""
    angles = geometry().solidAngleArray(SHAPE).copy()
    angles[:2] *= -1
    monkeypatch.setattr(AzimuthalIntegrator, "solidAngleArray", lambda self, shape: angles)
    flat = np.ones(SHAPE)
    flat[0] = -1
    with pytest.warns(UserWarning, match="that are not masked") as warned:
        bins = build_bins(geometry(), npt=10, flat=flat)
    lines = [str(each.message) for each in warned]
    assert len(lines) == 2
    assert lines[0].startswith("64 pixels that are not masked have a flat of 0 or below")
    assert lines[1].startswith("128 pixels that are not masked have a solid angle of 0 or below")
    assert len(bins.indices) == flat.size - 128
    assert (bins.norm > 0).all()
