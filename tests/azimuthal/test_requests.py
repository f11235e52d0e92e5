"""Geometries and requests: what is taken, and one clear line for what is not."""

import logging
import re
from dataclasses import replace

import numpy as np
import pyFAI
import pytest
import xarray as xr
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from detcal.azimuthal import (
    build_bins,
    find_hot_pixels,
    integrate,
    median_filter,
    outlier_mask,
    quantile_filter,
    radial_background,
    sigma_clip,
)
from detcal.errors import InputError
from tests.azimuthal.rings import (
    make_bins,
)

# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": "q_nm"}, "unknown unit 'q_nm'; near are q_nm"),
        ({"split": "half"}, "expected split to be one of no, bbox, full"),
        ({"npt": 0}, "expected whole numbers of at least 1 as npt and npt_azimuth, got 0 and None"),
        ({"npt": -3}, "got -3 and None"),
        ({"npt": np.nan}, "expected whole numbers of at least 1 as npt and npt_azimuth, got nan and None"),
        ({"npt": None}, "got None and None"),
        ({"npt": "20"}, "got '20' and None"),
        ({"npt": 2.5}, "got 2.5 and None"),
        ({"npt_azimuth": 0}, "got 100 and 0"),
        ({"npt_azimuth": 2.5}, "got 100 and 2.5"),
        ({"radial_range": (None, 2)}, r"expected radial_range as two rising numbers, got \(None, 2\)"),
        ({"radial_range": ("a", 2)}, "expected radial_range as two rising numbers"),
        ({"azimuth_range": ((0, 1), 2)}, "expected azimuth_range as two rising numbers"),
        ({"polarization": "a"}, "polarisation factor between -1 and 1, got 'a'"),
        ({"unit": None}, "unknown unit 'None'"),
        ({"flat": np.ones((619, 487), np.longdouble)}, "a flat of integers or reals, got float128: give one of up to 64 bits"),
        ({"mask": np.ones((619, 487))}, "no pixel is left"),
        ({"mask": np.ones((3, 4))}, r"expected a mask of shape \(619, 487\)"),
        ({"radial_range": (2, 1)}, r"expected radial_range as two rising numbers, got \(2, 1\)"),
        ({"radial_range": (2, 2)}, r"expected radial_range as two rising numbers, got \(2, 2\)"),
        ({"radial_range": (np.nan, 2)}, "expected radial_range as two rising numbers"),
        ({"radial_range": 2}, "expected radial_range as two rising numbers, got 2"),
        ({"radial_range": (900, 901)}, "no pixel is left"),
        ({"radial_range": (35, 36), "azimuth_range": (170, 171)}, "no pixel is left .* look at mask, flat, radial_range and azimuth_range"),
        ({"flat": np.zeros((619, 487))}, "no pixel is left"),
        ({"flat": np.full((619, 487), np.nan)}, "no pixel is left"),
        ({"dark": np.full((619, 487), np.nan)}, "no pixel is left"),
        ({"flat": np.ones((3, 4))}, r"expected a flat of shape \(619, 487\)"),
        ({"dark": np.ones((3, 4))}, r"expected a dark of shape \(619, 487\)"),
        ({"polarization": 2}, "polarisation factor between -1 and 1"),
    ],
)
def test_bins_that_cannot_be(pilatus, options, message):
    with pytest.raises(InputError, match=message):
        build_bins(pilatus[0], **{"npt": 100, **options})


@pytest.mark.parametrize("unit", ["q_nm^-1", "q_A^-1", "d*2_nm^-2", "log(1+q.A)_None", "arcsinh(q.nm)_None"])
def test_q_needs_a_wavelength(unit):
    with pytest.raises(InputError, match=re.escape(f"no wavelength, which {unit} needs: add it, or take 2th_deg or r_mm")):
        build_bins(pyFAI.load({"detector": "Pilatus 100k", "distance": 0.1}), unit=unit)


@pytest.mark.parametrize("unit", ["2th_deg", "2th_rad", "r_mm", "r_m"])
def test_angles_and_distances_need_none(unit):
    assert build_bins(pyFAI.load({"detector": "Pilatus 100k", "distance": 0.1}), npt=10, unit=unit).unit == unit


def test_more_rings_than_pixels_warn(pilatus):
    """Those that are left, that is."""
    mask = np.ones(pilatus[1].shape, bool)
    mask[100:110, 100:120] = False
    with pytest.warns(UserWarning, match="201 bins for 200 pixels that are not masked: many will be empty"):
        build_bins(pilatus[0], npt=201, mask=mask)
    with pytest.warns(UserWarning, match="300 bins for 200 pixels that are not masked: many will be empty"):
        build_bins(pilatus[0], npt=100, npt_azimuth=3, mask=mask)
    build_bins(pilatus[0], npt=200, mask=mask)  # warnings are errors here


def test_numbers_and_units_of_other_types_are_as_good(pilatus):
    bins = build_bins(pilatus[0], npt=20.0, unit=pyFAI.units.to_unit("q_A^-1"), npt_azimuth=np.int8(3), radial_range=np.array([1, 2]))
    wanted = build_bins(pilatus[0], npt=20, unit="q_A^-1", npt_azimuth=3, radial_range=(1, 2))
    assert bins.unit == "q_A^-1"
    np.testing.assert_array_equal(bins.indices, wanted.indices)


@pytest.mark.parametrize("unit", ["q_nm^-1", "2th_deg"])
@pytest.mark.parametrize("from_file", [False, True])
def test_parallax_is_pyfais(poni, tmp_path, unit, from_file):
    """A thick sensor that is far off the normal: radii change by some per cent."""
    sensor = {"orientation": 3, "sensor": {"material": "Si", "thickness": 450e-6}}
    place = {"dist": 0.05, "poni1": 0.01, "poni2": 0.0, "rot2": 0.5, "wavelength": 0.4e-10}
    geometry = AzimuthalIntegrator(**place, detector=pyFAI.detector_factory("Pilatus 100k", sensor))
    plain = build_bins(geometry, npt=100, unit=unit)
    geometry.enable_parallax(True)
    geometry.save(str(tmp_path / "parallax.poni"))
    bins = build_bins(tmp_path / "parallax.poni" if from_file else geometry, npt=100, unit=unit)
    frame = np.random.default_rng(0).poisson(100, geometry.detector.shape)
    peer = geometry.integrate1d_ng(frame, 100, unit=unit, method=("no", "csr", "cython"))
    np.testing.assert_allclose(bins.centres, peer.radial, rtol=1e-6)
    np.testing.assert_allclose(bins.radius, geometry.array_from_unit(unit=unit), rtol=1e-6)
    found = integrate(frame, bins).compute()
    np.testing.assert_array_equal(found["count"][0], peer.count)
    assert abs(bins.radius / plain.radius - 1).max() > 3e-3


@pytest.mark.parametrize("geometry", [None, 3, np.zeros((4, 4))])
def test_what_is_no_geometry(geometry):
    with pytest.raises(InputError, match=r"expected a .poni file or a pyFAI geometry"):
        build_bins(geometry)


def test_a_geometry_without_a_model_takes_a_shape(tmp_path):
    (tmp_path / "old.poni").write_text(
        "PixelSize1: 1e-4\nPixelSize2: 1e-4\nDistance: 0.1\nPoni1: 0.002\nPoni2: 0.003\nRot1: 0\nRot2: 0\nRot3: 0\nWavelength: 1e-10\n"
    )
    geometry = pyFAI.load(str(tmp_path / "old.poni"))
    for source in (tmp_path / "old.poni", geometry):
        assert build_bins(source, npt=10, shape=(40, 60)).shape == (40, 60)
        for images in ({"mask": np.zeros((40, 60), bool)}, {"flat": np.ones((2, 40, 60))}, {"dark": np.zeros((40, 60))}):
            assert build_bins(source, npt=10, **images).shape == (40, 60)
    assert geometry.detector.shape is None  # it is left as it was
    with pytest.raises(InputError, match="or give shape="):
        build_bins(tmp_path / "old.poni", npt=10)
    with pytest.raises(InputError, match=r"expected the shape \(195, 487\)"):
        build_bins(pyFAI.load({"detector": "Pilatus 100k", "distance": 0.1}), npt=10, unit="2th_deg", shape=(40, 60))


PONI = """poni_version: 2.1
Detector: Pilatus100k
Detector_config: {"orientation": 3}
Distance: 0.1
Poni1: 0.01
Poni2: 0.02
Rot1: 0.0
Rot2: 0.0
Rot3: 0.0
Wavelength: 1e-10
"""


@pytest.fixture
def poni(tmp_path):
    """Writes a .poni file."""

    def write(text):
        (tmp_path / "a.poni").write_text(text)
        return tmp_path / "a.poni"

    logging.disable(logging.CRITICAL)
    yield write
    logging.disable(logging.NOTSET)


def test_a_poni_file_is_a_geometry(poni):
    found, geometry = (build_bins(each, npt=100) for each in (poni(PONI), pyFAI.load(str(poni(PONI)))))
    np.testing.assert_array_equal(found.indices, geometry.indices)
    np.testing.assert_array_equal(found.indptr, geometry.indptr)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("poni_version", "got no Distance, Poni1, Poni2"),
        ("Detector_config", "cannot read .*a.poni as a .poni file"),
        ('"orientation"', "cannot read .*a.poni as a .poni file"),
        ("Distance", "got no Distance, Poni1, Poni2"),
        ("0.1\n", "cannot read .*a.poni as a .poni file: could not convert"),
        ("Poni1", "got no Poni1, Poni2, Rot1, Rot2, Rot3"),
        ("Poni2", "got no Poni2, Rot1, Rot2, Rot3"),
        ("Rot1", "expected Distance, Poni1, Poni2, Rot1, Rot2, Rot3, got no Rot1, Rot2, Rot3"),
        ("Rot3", "got no Rot3"),
        ("0.0\nRot3", "cannot read .*a.poni as a .poni file: could not convert"),
        ("Wavelength", "the geometry has no wavelength"),
        ("-10\n", "cannot read .*a.poni as a .poni file: could not convert"),
        ("0\n", "expected a wavelength from 1e-13 to 1e-8 m, got 0.1: is the .poni file whole"),
    ],
)
def test_truncated_poni_files(poni, end, message):
    with pytest.raises(InputError, match=message):
        build_bins(poni(PONI[: PONI.rindex(end)]))


def test_a_detector_without_pixel_sizes_is_refused():
    with pytest.raises(InputError, match=r"expected a detector with pixel sizes, got .*: name its model, or pixel1 and pixel2"):
        build_bins(AzimuthalIntegrator(0.1, wavelength=1e-10), npt=5, shape=(10, 10))


def test_detectors_of_which_0_counts_are_said_to_be_no_reading():
    """pyFAI's Lambda: of frames of half a count a pixel only the counts are averaged."""
    place = AzimuthalIntegrator(0.1, 0.007, 0.007, detector=pyFAI.detector_factory("Lambda60k"), wavelength=1e-10)
    bins = build_bins(place, npt=1, solid_angle=False, unit="r_mm")
    frame = np.random.default_rng(0).poisson(0.5, bins.shape).astype(np.uint16)
    with pytest.warns(UserWarning, match="has it that 0 counts are no reading, so that few counts read too high: .* give dummy="):
        assert integrate(frame, bins).intensity.values.item() == pytest.approx(frame[frame > 0].mean(), rel=1e-6)
    for dummy in (65535, np.nan):
        assert integrate(frame, bins, dummy=dummy).intensity.values.item() == pytest.approx(frame.mean(), rel=1e-6)


def test_poni_files_of_a_newer_version(poni):
    with pytest.raises(InputError, match=r"cannot read .*a.poni as a .poni file: PONI file version 99.0 too recent"):
        build_bins(poni(PONI.replace("2.1", "99")))


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match=r"no such file: .*none.poni"):
        build_bins(tmp_path / "none.poni")


JOBS = (integrate, sigma_clip, outlier_mask, quantile_filter, median_filter)
SHAPE = r"expected frames of shape \(3, 4\) \(y, x\), as the bins, got"
THRESHOLDS = [(job, threshold) for job in (sigma_clip, outlier_mask) for threshold in (-1.0, np.nan, "5", None)]
NO_BINS = r"expected AzimuthalBins, got 'bins.zarr': build them with build_bins, or load them with detcal.load"
NO_QUANTILES = ((0.6, 0.4), (-0.1, 0.5), (0.5, 1.4), (np.nan, 0.5), (0.5, np.nan), (0.5,), (0.2, 0.5, 0.7), 0.5, ("a", "b"), (None, 0.5))


def named(frames, name):
    """Frames with a coordinate."""
    return xr.DataArray(frames, dims=("frame", "y", "x"), coords={name: ("frame", np.arange(len(frames)))})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *((lambda frames, bins, job=job: job(frames[:, :2], bins), SHAPE) for job in JOBS),
        *((lambda frames, bins, job=job: job(frames.swapaxes(1, 2), bins), SHAPE) for job in JOBS),
        *((lambda frames, bins, job=job: job(frames[0, 0], bins), r"expected frames of shape \(frame, y, x\)") for job in JOBS),
        *(
            (lambda frames, bins, job=job, k=k: job(frames, bins, threshold=k), f"expected a threshold of 0 or more, got {k!r}")
            for job, k in THRESHOLDS
        ),
        *(
            (lambda frames, bins, q=q: quantile_filter(frames, bins, quantiles=q), f"from 0 to 1, got {re.escape(str(q))}")
            for q in NO_QUANTILES
        ),
        (lambda frames, bins: integrate(frames, bins, error_model="gauss"), "expected error_model to be one of"),
        (lambda frames, bins: integrate(frames, bins, error_model="hybrid"), "for sigma_clip"),
        (lambda frames, bins: integrate(frames, bins, variance=frames[:1, :, :2]), "expected variance of shape"),
        (
            lambda frames, bins: integrate(frames.astype(np.uint16), bins, dummy=-1),
            "expected a dummy that uint16 frames can hold, from 0 to 65535, got -1",
        ),
        (lambda frames, bins: median_filter(frames.astype(np.int16), bins, dummy=65535), "that int16 frames can hold"),
        (lambda frames, bins: sigma_clip(frames.astype(np.int32), bins, dummy=0.5), "that int32 frames can hold"),
        (lambda frames, bins: outlier_mask(frames, bins, dummy="a"), "expected a dummy that is a number, got 'a'"),
        (lambda frames, bins: outlier_mask(frames, bins, variance=frames[:1]), "expected a variance of shape"),
        (lambda frames, bins: sigma_clip(frames, bins, max_iterations=-1), "max_iterations of 0 or more"),
        (lambda frames, bins: sigma_clip(frames, bins, max_iterations=2.5), "max_iterations of 0 or more, got 2.5"),
        (
            lambda frames, bins: radial_background(integrate(frames, bins).intensity[:, 1:], bins),
            r"expected a DataArray \(frame, radial\) of 3 rings, .* got {'frame': 2, 'radial': 2}",
        ),
        (lambda frames, bins: radial_background(integrate(frames, bins), bins), "as intensity of a filter with these bins, got Dataset"),
        (lambda frames, bins: radial_background(np.ones((2, 3)), bins), "got ndarray"),
        (lambda frames, bins: radial_background(frames, "bins.zarr"), "expected AzimuthalBins, got 'bins.zarr'"),
        (
            lambda frames, bins: radial_background(integrate(frames, bins).intensity, replace(bins, azimuths=bins.centres)),
            "those of a 2-D integration: build them without npt_azimuth",
        ),
        *((lambda frames, bins, job=job: job(frames, "bins.zarr"), NO_BINS) for job in JOBS),
        (lambda frames, bins: integrate(named(frames, "std"), bins), "that profiles do not have, got std: rename"),
        (lambda frames, bins: sigma_clip(named(frames, "count"), bins), "got count: rename"),
        (lambda frames, bins: median_filter(named(frames, "radial"), bins), "got radial: rename"),
        (lambda frames, bins: integrate(frames.astype(np.longdouble), bins), "reals, got float128: give one of up to 64 bits"),
    ],
)
def test_requests_that_cannot_be(call, message):
    with pytest.raises(InputError, match=message):
        call(np.ones((2, 3, 4)), make_bins(np.arange(12).reshape(3, 4) // 4))


@pytest.mark.parametrize("split", ["no", "bbox", "full"])
def test_azimuths_go_from_minus_180_or_from_0(split, poni):
    """A range that lies across 180° holds what its two halves hold; one all around holds everything."""
    geometry = poni(PONI)
    pixels = [
        set(build_bins(geometry, npt=20, split=split, azimuth_range=limits).indices.values)
        for limits in ((170, 190), (170, 180), (-180, -170), (0, 360), (-180, 180))
    ]
    assert pixels[0] == pixels[1] | pixels[2]
    assert len(pixels[0]) > 50
    assert pixels[3] == pixels[4] == set(build_bins(geometry, npt=20, split=split).indices.values)


@pytest.mark.parametrize("limits", [(-10, 351), (0, 400), (-370, -20), (400, 730), (10, 10), (20, 10), (np.nan, 10), (0, np.inf), 5])
def test_azimuths_that_there_are_not(limits, poni):
    with pytest.raises(InputError, match="expected azimuth_range"):
        build_bins(poni(PONI), npt=20, azimuth_range=limits)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dist": 0}, "expected a distance above 0"),
        ({"dist": -1}, "expected a distance above 0"),
        ({"rot1": np.nan}, "and numbers for PONI and rotations"),
        ({"wavelength": -1e-10}, "expected a wavelength from 1e-13 to 1e-8 m, got -1e-10"),
        ({"wavelength": 1.0}, "expected a wavelength from 1e-13 to 1e-8 m, got 1.0"),
        ({"wavelength": 1e-14}, "expected a wavelength from 1e-13 to 1e-8 m"),
    ],
)
def test_geometries_that_cannot_be(change, message, poni):
    geometry = pyFAI.load(str(poni(PONI)))
    for name, value in change.items():
        setattr(geometry, name, value)
    with pytest.raises(InputError, match=message):
        build_bins(geometry, npt=20)


@pytest.mark.parametrize("job", [sigma_clip, outlier_mask, find_hot_pixels])
def test_clipping_of_split_pixels_warns(job, pilatus):
    """As pyFAI does; averages of them are as good as any."""
    geometry, frame = pilatus
    for split in ("bbox", "full"):
        bins = build_bins(geometry, npt=50, split=split)
        with pytest.warns(UserWarning, match=rf"pixels that are split \({split}\): .* split=\"no\" leaves out whole pixels"):
            job(frame, bins)
        integrate(frame, bins)
        median_filter(frame, bins)
    job(frame, build_bins(geometry, npt=50))
