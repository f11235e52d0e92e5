"""Building a graph reads nothing: every public operation over an input that raises when it is read."""

import inspect
import pickle
from dataclasses import replace

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

import detcal
from detcal import azimuthal, distortion, response, sensor, simulate, xrf
from detcal.frames.once import is_found, on_first_use

SHAPE = (40, 44)
SUBJECTS = (azimuthal, distortion, response, sensor, xrf)
# What reads no frames at all; what is there to read them: figures, readers and conversions
OTHERS = {
    "attenuation_per_m", "plot_absorption", "plot_distortion",
    "plot_frame",
    "plot_profiles", "plot_pixel_calibrations", "open_crono", "open_maps", "open_spectra", "convert_crono",
}  # fmt: skip


class ReadTooEarly(Exception):
    """Something was read while a graph was built."""


def refuse(block):
    raise ReadTooEarly


def never(*shape, dtype=np.uint16, chunks=None):
    """An array that nobody may read."""
    return da.zeros(shape, dtype, chunks=chunks or shape).map_blocks(refuse, dtype=dtype, meta=np.empty((0,) * len(shape), dtype))


FRAMES = never(4, *SHAPE, chunks=(2, -1, -1))
IMAGE = never(*SHAPE)
MASK = never(*SHAPE, dtype=np.bool_)
GEOMETRY = Geometry(0.1, 0.001, 0.001, detector=Detector(1e-4, 1e-4, max_shape=SHAPE), wavelength=1e-10)
PLANE = sensor.PlanarGeometry(SHAPE, (1e-4, 1e-4), 0.05, (0.0, 0.0))
SILICON = {"thickness_m": 3e-4, "attenuation_per_m": 1500.0}
CORNERS = np.stack(np.meshgrid(*(np.arange(size + 1.0) for size in SHAPE), indexing="ij"), axis=-1)
GAIN = response.Response.from_gain(np.ones(SHAPE), sigma=1.0)
WARP = distortion.DistortionMap.of_corners(CORNERS, (1.0, 1.0), np.zeros(SHAPE, bool))
BINS = azimuthal.build_bins(GEOMETRY, npt=10, unit="r_mm")
PROFILE = xr.DataArray(never(4, 10, dtype=np.float32), dims=("frame", "radial"))
PLACES = np.stack(np.meshgrid(np.arange(6.0), np.arange(5.0)), axis=-1).reshape(-1, 2)
SCAN = xr.Dataset(
    {
        "spectra": (("spectrum", "energy"), never(30, 1000)), "positions": (("spectrum", "axis"), PLACES),
        "live_time_s": ("spectrum", np.ones(30)), "selected": (("row", "column"), np.arange(30).reshape(5, 6)),
    },
    {"energy": ("energy", np.linspace(1, 20, 1000), {"units": "keV"})},
)  # fmt: skip
GRID = xrf.build_scan_grid(SCAN)


def computed(calibration):
    """All that it holds."""
    return dask.compute(vars(replace(calibration)))


OPERATIONS = {
    "fit_response": [lambda: response.fit_response(FRAMES, FRAMES, mask=MASK)],
    "correct_response": [
        lambda: response.correct_response(FRAMES, GAIN, dark=FRAMES, flat=IMAGE, residual_sigma=3.0),
        lambda: response.correct_response(FRAMES, GAIN, dark=FRAMES, mask=MASK, fill="interpolate", normalization="0:9, 0:9"),
        lambda: response.correct_response(FRAMES, flat=FRAMES, dark=FRAMES, exposure={"frames": 1, "flat": 2, "dark": [1, 1, 2, 2]}),
        lambda: response.correct_response(FRAMES, flat=FRAMES, flat_positions=[0, *[5] * (len(FRAMES) - 1)], average="median"),
        lambda: response.correct_response(FRAMES, flat=FRAMES, dark=IMAGE, flat_model="eigenflats", flat_components=1),
    ],
    "ring_amplitude": [lambda: response.ring_amplitude(FRAMES, mask=MASK)],
    "minus_log": [lambda: response.minus_log(response.correct_response(FRAMES, flat=FRAMES), floor=0.1)],
    "remove_zingers": [lambda: response.remove_zingers(FRAMES), lambda: response.remove_zingers(FRAMES, method="temporal")],
    "crop": [lambda: response.crop(FRAMES, "1:9, :8")],
    "rebin": [lambda: response.rebin(FRAMES, 2), lambda: response.rebin(FRAMES, (1, 3), how="mean")],
    "build_psf": [lambda: sensor.build_psf(PLANE, mask=MASK, **SILICON)],
    "deconvolve": [
        lambda: sensor.deconvolve(FRAMES, sensor.build_psf(PLANE, mask=MASK, **SILICON)),
        lambda: sensor.deconvolve(FRAMES, sensor.build_psf(PLANE, **SILICON), variance=FRAMES),
        lambda: sensor.deconvolve(FRAMES, sensor.build_psf(PLANE, **SILICON), method="mlem"),
    ],
    "find_grid_points": [lambda: distortion.find_grid_points(IMAGE), lambda: distortion.find_grid_points(np.eye(40), mask=never(40, 40))],
    "fit_distortion": [
        lambda: distortion.fit_distortion(FRAMES, 1e-3),
        lambda: distortion.fit_distortion(IMAGE, 1e-3, points=distortion.find_grid_points(IMAGE)),
    ],
    "build_overlaps": [
        lambda: distortion.build_overlaps(WARP, mask=MASK),
        lambda: distortion.build_overlaps(WARP, shape="cover", mask=MASK),
        lambda: distortion.build_overlaps(distortion.fit_distortion(IMAGE, 1e-3), pixel_size_m=1e-4),
    ],
    "correct_distortion": [
        lambda: distortion.correct_distortion(FRAMES, WARP, mask=MASK),
        lambda: distortion.correct_distortion(FRAMES, distortion.build_overlaps(WARP), variance=FRAMES, coverage=True, dummy=3),
    ],
    "uncorrect": [lambda: distortion.uncorrect(FRAMES, WARP, mask=MASK)],
    "build_bins": [
        lambda: azimuthal.build_bins(GEOMETRY, npt=10, flat=FRAMES),
        lambda: azimuthal.build_bins(GEOMETRY, npt=10, dark=IMAGE),
        lambda: azimuthal.build_bins(GEOMETRY, npt=10, mask=MASK),
    ],
    "integrate": [
        lambda: azimuthal.integrate(FRAMES, BINS, variance=FRAMES),
        lambda: azimuthal.integrate(FRAMES, BINS, darks=FRAMES, weighted=False),
        lambda: azimuthal.integrate(never(2, 3, *SHAPE), BINS),
    ],
    "integrate_azimuthal": [lambda: azimuthal.integrate_azimuthal(FRAMES, azimuthal.build_bins(GEOMETRY, npt=1, npt_azimuth=4))],
    "sigma_clip": [lambda: azimuthal.sigma_clip(FRAMES, BINS), lambda: azimuthal.sigma_clip(FRAMES, BINS, rejected=True)],
    "outlier_mask": [lambda: azimuthal.outlier_mask(FRAMES, BINS)],
    "find_hot_pixels": [lambda: azimuthal.find_hot_pixels(FRAMES, BINS), lambda: azimuthal.find_hot_pixels(FRAMES, BINS, variance=FRAMES)],
    "quantile_filter": [lambda: azimuthal.quantile_filter(FRAMES, BINS)],
    "median_filter": [lambda: azimuthal.median_filter(FRAMES, BINS), lambda: azimuthal.median_filter(FRAMES, BINS, errors=True)],
    "radial_background": [lambda: azimuthal.radial_background(PROFILE, BINS)],
    "build_scan_grid": [lambda: xrf.build_scan_grid(SCAN, line_lag="auto")],
    "calibrate_energy": [lambda: xrf.calibrate_energy(SCAN, channels=[100, 500], lines_kev=[3.0, 10.0]).spectra],
    "smooth_spectra": [lambda: xrf.smooth_spectra(SCAN.spectra)],
    "summary_spectra": [lambda: xrf.summary_spectra(SCAN.spectra)],
    "regrid": [lambda: xrf.regrid(SCAN.spectra, GRID, sigma_channels=2.0)],
    "regrid_rate": [lambda: xrf.regrid_rate(SCAN, GRID)],
    "element_maps": [
        lambda: xrf.element_maps(SCAN, GRID, elements=["Fe", "Cu"]),
        lambda: xrf.element_maps(SCAN, GRID, elements=["Fe"], method="window"),
    ],
    "convert_scan": [lambda: xrf.convert_scan(SCAN)],
}


def test_every_operation_is_looked_at():
    functions = {name for subject in SUBJECTS for name in subject.__all__ if inspect.isfunction(getattr(subject, name))}
    assert functions - OTHERS == set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_nothing_is_read_while_a_graph_is_built(name):
    with dask.config.set(scheduler="synchronous"):
        for build in OPERATIONS[name]:
            result = build()
            with pytest.raises(ReadTooEarly):
                result.compute() if dask.is_dask_collection(result) else computed(result)


def test_masks_of_opened_frames_are_not_read(tmp_path):
    np.save(tmp_path / "raw.npy", np.ones((3, *SHAPE), np.uint16))
    opened = detcal.open_frames(tmp_path / "raw.npy", mask=MASK)
    with pytest.raises(ReadTooEarly):
        opened.compute(scheduler="synchronous")


# ------------------------------------------------------------------------------------------------ found on their first use


@pytest.fixture(scope="module")
def hole_grid():
    return simulate.hole_grid((240, 260), pitch_px=25.0).image


def lazily(image):
    return da.from_array(np.asarray(image), chunks=(64, 64))


def same(one, other):
    for name, value in vars(replace(one)).items():
        wanted = getattr(other, name)
        equal = value.identical(wanted) if isinstance(value, xr.DataArray) else value == wanted
        assert equal, name


def test_a_map_of_a_lazy_image_is_that_of_the_image(hole_grid):
    image = np.asarray(hole_grid)
    points = distortion.find_grid_points(lazily(image))
    warp = distortion.fit_distortion(lazily(image), 1e-3)
    assert not is_found(points)
    assert not is_found(warp)
    assert points.shape == warp.shape == image.shape
    same(warp, distortion.fit_distortion(image, 1e-3))
    same(points, distortion.find_grid_points(image))
    same(pickle.loads(pickle.dumps(points)), points)
    assert type(replace(points)) is distortion.GridPoints


def test_bins_with_a_lazy_flat_are_those_with_the_flat():
    rng = np.random.default_rng(0)
    flat, dark, mask = rng.uniform(-0.1, 2, SHAPE), rng.uniform(0, 2, SHAPE), rng.random(SHAPE) < 0.1
    with pytest.warns(UserWarning, match="flat of 0 or below"):
        wanted = azimuthal.build_bins(GEOMETRY, npt=10, flat=flat, dark=dark, mask=mask)
    found = azimuthal.build_bins(GEOMETRY, npt=10, flat=da.from_array(flat), dark=da.from_array(dark), mask=da.from_array(mask))
    assert found.shape == SHAPE
    assert not is_found(found)
    with pytest.warns(UserWarning, match="flat of 0 or below"):
        same(found, wanted)


def test_a_lazy_lag_is_that_of_the_scan():
    scan = simulate.maxrf_scan(60, 60, channels=64, counts=50.0, seed=3)
    grid = xrf.build_scan_grid(scan, line_lag="auto")
    assert not is_found(grid)
    assert grid.spectra == scan.sizes["spectrum"]
    same(grid, xrf.build_scan_grid(scan.compute(), line_lag="auto"))


def test_a_stored_map_is_read_when_it_is_used(tmp_path):
    detcal.save(WARP, tmp_path / "map.zarr")
    loaded = detcal.load(tmp_path / "map.zarr")
    assert not is_found(loaded)
    assert (loaded.shape, loaded.pixel_size_m) == (WARP.shape, WARP.pixel_size_m)
    assert not is_found(loaded)
    distortion.correct_distortion(FRAMES, loaded)
    assert not is_found(loaded)
    np.testing.assert_array_equal(loaded.corners_m, WARP.corners_m)


def test_what_is_found_is_found_once_and_sent_when_it_is_there():
    calls = []

    def find():
        calls.append(1)
        return replace(GAIN, sigma=7.0)

    later = on_first_use(response.Response, find, order=2)
    assert (later.order, calls) == (2, [])
    assert (later.sigma, later.shape, calls) == (7.0, SHAPE, [1])
    assert pickle.loads(pickle.dumps(later)).sigma == 7.0
    assert isinstance(later, response.Response)
