"""Whole runs of sigma_clip, median_filter and integrate: results, memory measured from outside, and one clear line for bad input."""

import re
import tracemalloc
from functools import partial

import h5py
import hdf5plugin
import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.plan import plan
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.template import render

from detcal import load, save
from detcal.azimuthal import (
    AzimuthalBins,
    blocks,
    build_bins,
    hot_pixels,
    integrate,
    integrate_azimuthal,
    kernels,
    outlier_mask,
    quantile_filter,
    radial_background,
    rejected,
    sigma_clip,
)
from detcal.azimuthal.darks import less_darks
from detcal.azimuthal.kernels import AZIMUTHAL, POISSON
from detcal.azimuthal.memory import (
    LESS_DARK_PIXEL,
    drawn_bytes,
    hot_pixels_bytes,
    outlier_bytes,
    profiles_bytes,
    rejected_bytes,
    rings_bytes,
    side_by_side_bytes,
)
from detcal.frames.readings import ALL_NUMBERS
from detcal.frames.spare import SPARE
from detcal.response import Response, correct_response
from detcal.sensor import build_psf, deconvolve
from tests.benchmarks.sampling import assert_no_growth, assert_within_plan, peak_of_run
from tests.pipelines.commands import change, detcal, fails, made_by
from tests.reference.sparse import allocate
from tests.sensor.test_sensor_run import PONI, SENSOR, SHAPE

MIB = 2**20
RECIPES = {
    "sigma_clip": "profiles", "median_filter": "medians", "quantile_filter": "quantiles", "integrate": "integrated",
    "outlier_mask": "outliers", "radial_background": "background",
}  # fmt: skip
NO_MODEL = PONI.replace("Pilatus100k", "Detector").replace(SENSOR, '"pixel1": 1.72e-4, "pixel2": 1.72e-4')


@pytest.fixture(scope="module")
def frames():
    stack = np.random.default_rng(0).poisson(100, (40, *SHAPE)).astype(np.int32)
    stack[:, ::40, ::30] += 10_000
    stack[3, 5] = -1
    return stack


@pytest.fixture
def folder(frames, tmp_path):
    """A geometry, frames and fresh recipes."""
    (tmp_path / "detector.poni").write_text(PONI)
    save(frames, tmp_path / "scan.h5")
    for name in RECIPES:
        (tmp_path / f"{name}.toml").write_text(render(name))
    return tmp_path


def result_of(folder, name):
    detcal(folder, "run", f"{name}.toml", "--workers", "2")
    return xr.open_zarr(folder / f"{RECIPES[name]}.zarr")


# --------------------------------------------------------------------------------------------------------- results


def test_a_run_gives_what_the_library_gives(folder, frames):
    shown = detcal(folder, "plan", "sigma_clip.toml", "--memory", "900MiB").stdout
    assert "intensity, sem" in shown
    found = result_of(folder, "sigma_clip")
    wanted = sigma_clip(frames, build_bins(folder / "detector.poni"))
    xr.testing.assert_equal(found.drop_attrs(), wanted.compute().drop_attrs())
    assert found.radial.attrs["units"] == "q_nm^-1"


def test_options_reach_the_rings_and_the_filter(folder, frames):
    save(np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) % 100 == 7, folder / "mask.zarr")
    save(np.full(SHAPE, 3.0), folder / "dark.h5")
    save(np.linspace(0.5, 2, SHAPE[1]) * np.ones(SHAPE), folder / "flat.h5")
    for key in ("mask", "dark", "flat"):
        change(folder, "quantile_filter.toml", f"# {key} = ", f"{key} = ")
    change(folder, "quantile_filter.toml", "mask.edf", "mask.zarr")
    change(folder, "quantile_filter.toml", "# npt = 1000", "npt = 50")
    change(folder, "quantile_filter.toml", '# split = "no"', 'split = "bbox"')
    change(folder, "quantile_filter.toml", '# unit = "q_nm^-1"', 'unit = "2th_deg"')
    change(folder, "quantile_filter.toml", "# npt_azimuth = 36", "npt_azimuth = 4")
    change(folder, "quantile_filter.toml", "# radial_range = [1.0, 50.0]", "radial_range = [2, 12.5]")
    change(folder, "quantile_filter.toml", "# azimuth_range = [-90.0, 90.0]", "azimuth_range = [-80.0, 100.0]")
    change(folder, "quantile_filter.toml", "# polarization", "polarization")
    change(folder, "quantile_filter.toml", "# solid_angle = true", "solid_angle = false")
    change(folder, "quantile_filter.toml", "# dummy = 4294967295", "dummy = 100")
    change(folder, "quantile_filter.toml", "# quantiles = [0.4, 0.6]", "quantiles = [0.3, 0.6]")
    found = made_by(folder / "quantile_filter.toml")
    bins = build_bins(
        folder / "detector.poni", npt=50, unit="2th_deg", split="bbox", mask=np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) % 100 == 7,
        radial_range=(2, 12.5), azimuth_range=(-80, 100),
        polarization=0.99, solid_angle=False, flat=np.linspace(0.5, 2, SHAPE[1]) * np.ones(SHAPE), dark=np.full(SHAPE, 3.0), npt_azimuth=4,
    )  # fmt: skip
    xr.testing.assert_equal(found.drop_attrs(), quantile_filter(frames, bins, quantiles=(0.3, 0.6), dummy=100).compute().drop_attrs())
    assert found.intensity.dims == ("frame", "azimuthal", "radial")


def test_clipping_and_errors_by_other_models(folder, frames):
    bins = build_bins(folder / "detector.poni")
    for name in ("integrate", "sigma_clip"):
        change(folder, f"{name}.toml", "# dummy = 4294967295", "dummy = 100")
    change(folder, "integrate.toml", '# error_model = "poisson"', 'error_model = "azimuthal"')
    wanted = integrate(frames, bins, error_model="azimuthal", dummy=100).compute()
    xr.testing.assert_equal(made_by(folder / "integrate.toml").drop_attrs(), wanted.drop_attrs())
    change(folder, "sigma_clip.toml", '# error_model = "azimuthal"', 'error_model = "hybrid"')
    change(folder, "sigma_clip.toml", "# threshold = 5.0", "threshold = 4")
    change(folder, "sigma_clip.toml", "# max_iterations = 5", "max_iterations = 2")
    wanted = sigma_clip(frames, bins, threshold=4, max_iterations=2, error_model="hybrid", dummy=100).compute()
    xr.testing.assert_equal(made_by(folder / "sigma_clip.toml").drop_attrs(), wanted.drop_attrs())


def test_normalization_and_sums_are_those_of_the_library(folder, frames):
    """From an array of a file, a list, a number; also beside a variance, which a trial of the kernels has none of."""
    monitor, bins = np.linspace(1, 2, len(frames)), build_bins(folder / "detector.poni")
    with h5py.File(folder / "monitor.h5", "w") as file:
        file["entry/monitor"] = monitor
    save(frames + 1.0, folder / "variance.h5")
    key = '# normalization = "exposure_s"'
    change(folder, "integrate.toml", key, 'normalization = { path = "monitor.h5", dataset = "entry/monitor" }')
    change(folder, "integrate.toml", "# sums = false", "sums = true")
    change(folder, "integrate.toml", "# variance = ", "variance = ")
    wanted = integrate(frames, bins, variance=frames + 1.0, normalization=monitor, sums=True).compute()
    xr.testing.assert_equal(result_of(folder, "integrate").drop_attrs(), wanted.drop_attrs())
    assert {"sum_signal", "sum_variance", "sum_normalization"} < {*wanted}
    change(folder, "median_filter.toml", key, "normalization = 3")
    np.testing.assert_array_equal(made_by(folder / "median_filter.toml").normalization, 3.0)
    change(folder, "sigma_clip.toml", key, "normalization = [1, 2]")
    assert "expected a normalization for each of the 40 frames, or one for all, got (2,) numbers" in fails(
        folder, "check", "sigma_clip.toml"
    )
    change(folder, "sigma_clip.toml", "normalization = [1, 2]", 'normalization = "monitor"')
    assert "expected a coordinate of the frames as normalization, got 'monitor'" in fails(folder, "check", "sigma_clip.toml")


def test_a_run_gives_intensity_over_azimuth(folder, frames):
    (folder / "azimuthal.toml").write_text(render("integrate_azimuthal"))
    detcal(folder, "run", "azimuthal.toml", "--workers", "2")
    wanted = integrate_azimuthal(frames, build_bins(folder / "detector.poni", npt=1, npt_azimuth=36)).compute()
    found = xr.open_zarr(folder / "azimuthal.zarr")
    assert wanted.intensity.dims == ("frame", "azimuthal")
    np.testing.assert_array_equal(found.intensity, wanted.intensity)
    np.testing.assert_array_equal(found.azimuthal, wanted.azimuthal)
    change(folder, "azimuthal.toml", "npt = 1 ", "npt = 2 ")
    assert "expected bins of one ring in parts, got 2 rings and 36 parts of each" in fails(folder, "check", "azimuthal.toml")


def test_outliers_and_backgrounds_are_those_of_the_library(folder, frames):
    bins = build_bins(folder / "detector.poni", npt=200)
    for name in ("outlier_mask", "radial_background"):
        change(folder, f"{name}.toml", "# npt = 1000", "npt = 200")
    change(folder, "outlier_mask.toml", "# threshold = 5.0", "threshold = 4")
    change(folder, "outlier_mask.toml", "# max_iterations = 5", "max_iterations = 2")
    change(folder, "outlier_mask.toml", '# error_model = "azimuthal"', 'error_model = "poisson"')
    change(folder, "radial_background.toml", "# quantiles = [0.4, 0.6]", "quantiles = [0.3, 0.6]")
    found = made_by(folder / "outlier_mask.toml")
    xr.testing.assert_equal(found, outlier_mask(frames, bins, threshold=4, max_iterations=2, error_model="poisson").compute())
    assert found.values[:, ::40, ::30].any()
    wanted = radial_background(quantile_filter(frames, bins, quantiles=(0.3, 0.6)).intensity, bins)
    xr.testing.assert_equal(made_by(folder / "radial_background.toml"), wanted.compute())


def test_frames_may_go_through_other_steps_first_and_give_a_geometry_its_shape(folder, frames):
    save(Response.from_gain(np.full(SHAPE, 2.0)), folder / "response.zarr")
    save(build_psf(folder / "detector.poni"), folder / "psf.zarr")
    (folder / "detector.poni").write_text(NO_MODEL)
    first = '[[steps]]\noperation = "correct_response"\nresponse = "response.zarr"\n[[steps]]\noperation = "deconvolve"\npsf = "psf.zarr"\n'
    change(folder, "sigma_clip.toml", "# Average in rings", f"{first}\n# Average in rings")
    corrected = correct_response(frames, load(folder / "response.zarr"), dummy=-1)  # a mark of the detector that the matrix is of
    sharp = deconvolve(corrected, load(folder / "psf.zarr"))
    wanted = sigma_clip(sharp, build_bins(folder / "detector.poni", shape=SHAPE))
    with pytest.warns(UserWarning, match="pixels are hot"):
        wanted = wanted.compute()
    xr.testing.assert_allclose(result_of(folder, "sigma_clip").drop_attrs(), wanted.drop_attrs(), rtol=1e-5)


# ---------------------------------------------------------------------------------------------------------- memory


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Folders with 128 and 256 compressed frames, the same bytes each."""
    folders = []
    image = np.random.default_rng(0).poisson(100, (1024, 1024))
    for frames in (128, 256):
        folders.append(tmp_path_factory.mktemp("frames"))
        (folders[-1] / "detector.poni").write_text(NO_MODEL)
        with h5py.File(folders[-1] / "scan.h5", "w") as file:
            stack = file.create_dataset("data", (frames, *image.shape), np.uint32, chunks=(1, *image.shape), **hdf5plugin.Bitshuffle())
            stack[0] = image
            _, chunk = stack.id.read_direct_chunk((0, 0, 0))
            for frame in range(1, frames):
                stack.id.write_direct_chunk((frame, 0, 0), chunk)
    return folders


@pytest.mark.parametrize("name", ["sigma_clip", "integrate", "median_filter", "outlier_mask", "find_hot_pixels", "radial_background"])
def test_memory_stays_under_the_plan_and_does_not_grow_with_the_frames(scans, name):
    """Long runs: the few blocks of a short one are at their peak together in some runs, and in others not."""
    peaks = []
    for folder in scans:
        (folder / f"{name}.toml").write_text(render(name))
        change(folder, f"{name}.toml", '# split = "no"', 'split = "full"')
        peak, output = peak_of_run(["run", f"{name}.toml", "--memory", "1.5GiB", "--workers", "2"], folder)
        assert_within_plan(peak, output)
        peaks.append(peak)
    assert_no_growth(peaks, 128 * 1024**2 * 4)


@pytest.mark.parametrize("name", [*RECIPES, "integrate_azimuthal"])
def test_kernels_for_rings_side_by_side_are_compiled_before_a_run_too(folder, monkeypatch, name):
    (folder / "try.toml").write_text(render(name))
    rows, found = AzimuthalBins.rows_for, []
    monkeypatch.setattr(AzimuthalBins, "rows_for", lambda *arguments: found.append(rows(*arguments)) or found[-1])
    read_recipe(folder / "try.toml").steps[0].try_out(np.ones((2, 4, 4), np.int32)).compute()
    assert min(found) == 0
    assert max(found) > 0


@pytest.mark.parametrize("split", ["no", "full"])
@pytest.mark.parametrize("npt", [3, 1000])
@pytest.mark.parametrize("side_by_side", ["frames", "rings"])
def test_a_task_holds_no_more_than_is_planned(folder, frames, npt, split, side_by_side, monkeypatch):
    """Blocks apart, which are planned twice."""
    monkeypatch.setattr(kernels, "MOST_ROOM", 100 if side_by_side == "rings" else 0)
    monkeypatch.setattr(kernels, "ONE_BY_ONE", 1e-9)
    bins = build_bins(folder / "detector.poni", npt=npt, split=split)
    rows, counts = bins.rows_for(len(frames)), bins.lengths
    rings = bins.rings_for(len(frames)).compute()
    blocks.quantile_block(frames[:1], rings=rings, valid=ALL_NUMBERS, quantiles=(0.4, 0.6))
    tracemalloc.start()
    blocks.quantile_block(frames, rings=rings, valid=ALL_NUMBERS, quantiles=(0.4, 0.6))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    own = profiles_bytes(SHAPE, 40, 4, int(counts.sum()), int(counts.max()), npt, rows).task - 2 * frames.nbytes
    held = side_by_side_bytes(rows, npt) if rows else rings_bytes(SHAPE, int(counts.sum()))
    assert 0.8 * held < sum(array.nbytes for array in rings) < held + 2**16
    assert peak < own


@pytest.mark.parametrize("split", ["no", "full"])
def test_masks_and_backgrounds_hold_no_more_than_is_planned_besides(folder, frames, split):
    bins = build_bins(folder / "detector.poni", npt=100, split=split)
    rings, counts = bins.in_memory.compute(), np.diff(bins.indptr)
    entries, longest = int(counts.sum()), int(counts.max())
    options = {"rings": rings, "valid": ALL_NUMBERS, "noise_valid": ALL_NUMBERS, "model": AZIMUTHAL, "threshold": 5.0, "most": 5}
    profiles = np.random.default_rng(0).uniform(1, 9, (40, 100)).astype(np.float32)
    masks, drawn = outlier_bytes(SHAPE, 40, entries, longest, 100).task, drawn_bytes(SHAPE, 40).task
    rest = profiles_bytes(SHAPE, 40, 4, entries, longest, 100).task - 2 * frames.nbytes
    assert 0.9 * masks < traced(blocks.outlier_block, frames, **options) < masks + rest
    assert 0.9 * drawn < traced(blocks.draw, profiles, images=bins.images_in_memory.compute()) < drawn


def test_what_profiles_may_have_besides_holds_no_more_than_is_planned(folder, frames):
    """Errors of quantiles, counts of what is left out, darks of frames, and counts of hot pixels; each beside the block without."""
    bins = build_bins(folder / "detector.poni", npt=100)
    rings, entries, counts = bins.in_memory.compute(), bins.entries_in_memory.compute(), np.diff(bins.indptr)
    plain = {"rings": rings, "valid": ALL_NUMBERS}
    clip = {**plain, "noise_valid": ALL_NUMBERS, "model": AZIMUTHAL, "threshold": 5.0, "most": 5}
    alone = traced(blocks.clip_block, frames, **clip)
    quantiles = {**plain, "quantiles": (0.5, 0.5)}
    planned = profiles_bytes(SHAPE, len(frames), 4, int(counts.sum()), int(counts.max()), 100).task
    assert traced(blocks.quantile_block, frames, errors=True, **quantiles) < planned
    counted = traced(rejected.clip_and_count, frames, entries=entries, **clip)
    assert counted < alone + rejected_bytes(SHAPE, len(frames), 100).task
    darks = np.ones_like(frames)
    for model in (AZIMUTHAL, POISSON):
        options = {**clip, "model": model, "dark_valid": ALL_NUMBERS}
        noise = 4 * 16 * entries.pixels.size  # of a batch
        assert (
            traced(partial(less_darks, kernel=blocks.clip_block), frames, darks, **options) < alone + noise + LESS_DARK_PIXEL * frames.size
        )
    looked = traced(hot_pixels.look_at_block, frames, **clip)
    assert looked < traced(blocks.outlier_block, frames, **clip) + hot_pixels_bytes(SHAPE, len(frames), 1).task


def traced(kernel, *arrays, **options):
    """Bytes that a kernel holds at its peak, once it is compiled."""
    kernel(*(array[:1] for array in arrays), **options)
    SPARE.clear()  # memory of calls before, which is not counted
    tracemalloc.start()
    kernel(*arrays, **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_lanes_are_filled_before_workers_are_added(folder):
    allocate(folder / "scan.h5", (1000, *SHAPE), np.int32)
    found = [plan(read_recipe(folder / "integrate.toml"), budget * MIB, 2) for budget in (600, 800, 2000)]
    assert all(each.depth % 16 == 0 for each in found)
    assert [each.depth for each in found] == sorted(each.depth for each in found)


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_frames_of_another_shape(folder, command):
    save(np.zeros((3, 20, 20), np.int32), folder / "small.h5")
    change(folder, "integrate.toml", '"scan.h5"', '"small.h5"')
    assert fails(folder, command, "integrate.toml") == "expected frames of shape (195, 487) (y, x), as the bins, got (20, 20)"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('# unit = "q_nm^-1"', 'unit = "q_nm"', "unknown unit 'q_nm'; near are q_nm^-1"),
        ("# npt = 1000", "npt = 0", "expected a number above 0, got 0"),
        ("# radial_range = [1.0, 50.0]", "radial_range = [9, 3]", "expected radial_range as two rising numbers, got (9.0, 3.0)"),
        ("# radial_range = [1.0, 50.0]", "radial_range = [900, 1000]", "no pixel is left in the rings"),
        ("# radial_range = [1.0, 50.0]", "radial_range = [9]", "expected 2 or more values, got [9]"),
        ("# quantiles = [0.4, 0.6]", "quantiles = [0.6, 0.4]", "expected two rising quantiles from 0 to 1, got (0.6, 0.4)"),
        ("# quantiles = [0.4, 0.6]", "quantiles = [0.6, 1.4]", "expected two rising quantiles from 0 to 1, got (0.6, 1.4)"),
        ('"detector.poni"', '"no_wavelength.poni"', "the geometry has no wavelength, which q_nm^-1 needs"),
        ('"detector.poni"', '"cut.poni"', "cut.poni as a .poni file"),
        ('# mask = "mask.edf"', 'mask = "small.npy"', "expected a mask of shape (195, 487) (y, x), as the frames, got (20, 20)"),
        ('"quantiles.zarr"', '"detector.poni"', "would take the place of the input"),
        ('"quantiles.zarr"', '"quantiles.tif"', "a .tif holds one stack or image"),
    ],
)  # fmt: skip
def test_one_clear_line(folder, old, new, message):
    (folder / "no_wavelength.poni").write_text(PONI.replace("Wavelength: 7e-11\n", ""))
    (folder / "cut.poni").write_text(PONI[:60])
    np.save(folder / "small.npy", np.zeros((20, 20)))
    change(folder, "quantile_filter.toml", old, new)
    assert message in fails(folder, "check", "quantile_filter.toml")


def test_a_threshold_that_clips_everything(folder):
    change(folder, "sigma_clip.toml", "# threshold = 5.0", "threshold = -1.0")
    assert re.search(r"threshold \(line \d+\): expected a number of 0(.0)? or more, got -1.0", fails(folder, "check", "sigma_clip.toml"))


def test_profiles_are_no_frames(folder):
    change(
        folder,
        "integrate.toml",
        "# Where the result",
        '[[steps]]\noperation = "integrate"\ngeometry = "detector.poni"\n\n# Where the result',
    )
    assert "integrate gives profiles, not frames: make it the last step" in fails(folder, "check", "integrate.toml")
