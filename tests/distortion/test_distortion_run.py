"""Calibration and correction from the command line."""

import re
import tracemalloc

import numpy as np
import pyFAI
import pytest
import xarray as xr
from detcal_pipelines.chain import build, first_of
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.run import run
from detcal_pipelines.template import render
from rich.console import Console

from detcal import load, open_frames, save
from detcal.azimuthal import build_bins, sigma_clip
from detcal.distortion import build_overlaps, correct_distortion, find_grid_points, fit_distortion, geometry, uncorrect
from detcal.distortion.memory import uncorrect_bytes
from detcal.distortion.resampling import unresample_frames
from detcal.frames.once import is_found
from detcal.frames.readings import ALL_NUMBERS
from detcal.response import Response, correct_response
from tests.azimuthal.test_azimuthal_run import NO_MODEL
from tests.distortion.runs import PITCH_M, SHAPE, assert_same_map, computed, shown_by
from tests.pipelines.commands import AMPLE, change, change_step, detcal


@pytest.fixture
def fits(monkeypatch):
    """The shapes of the images that are fitted, from now on."""
    first_of.cache_clear()
    shapes, fit = [], geometry.map_of_points

    def counted(points, **options):
        if points.shape[-1] in SHAPE:  # and not the small one on which kernels are tried
            shapes.append(points.shape)
        return fit(points, **options)

    monkeypatch.setattr(geometry, "map_of_points", counted)
    return shapes


def test_a_run_fits_once(folder, fits, grid):
    """Of one image, and of the mean of frames, whatever blocks they are checked, planned and run in."""
    console = Console(quiet=True)
    outcome = run(read_recipe(folder / "fit_distortion.toml"), (AMPLE, 2), console)
    assert len(fits) == 1
    assert_same_map(load(outcome.output), fit_distortion(grid.image, PITCH_M))
    fits.clear()
    change(folder, "fit_distortion.toml", '"grid.edf"', '"scan.h5"')
    change(folder, "fit_distortion.toml", '"new.zarr"', '"mean.zarr"')
    change(folder, "fit_distortion.toml", "# chunk_frames = 16", "chunk_frames = 4")
    run(read_recipe(folder / "fit_distortion.toml"), (AMPLE, 2), console)
    assert len(fits) == 1


def test_what_has_changed_is_fitted_again(folder, fits, grid):
    recipe = read_recipe(folder / "fit_distortion.toml")
    assert build(recipe) is build(recipe, 4)
    assert not is_found(build(recipe))
    maps = [build(recipe).compute()]
    change(folder, "fit_distortion.toml", "pitch_m = 0.005", "pitch_m = 0.004")
    maps.append(build(read_recipe(folder / "fit_distortion.toml")).compute())
    save(np.rot90(grid.image)[None], folder / "other.edf")
    change(folder, "fit_distortion.toml", '"grid.edf"', '"other.edf"')
    maps.append(build(read_recipe(folder / "fit_distortion.toml")).compute())
    assert [(each.pitch_m, each.shape) for each in maps] == [(0.005, SHAPE), (0.004, SHAPE), (0.004, SHAPE[::-1])]
    assert len(fits) == 3


def test_dots_that_were_found_before_are_fitted_at_the_first_use_too(folder, fits, grid):
    points = find_grid_points(grid.image)
    save(points, folder / "points.zarr")
    change(folder, "fit_distortion.toml", '# points = "points.zarr"', 'points = "points.zarr"')
    warp = build(read_recipe(folder / "fit_distortion.toml"))
    assert (is_found(warp), fits) == (False, [])
    assert_same_map(warp, fit_distortion(grid.image, PITCH_M, points=points))


def test_runs_give_what_the_library_gives(finished, grid, frames):
    warp = load(finished / "distortion.zarr")
    assert_same_map(warp, fit_distortion(grid.image, PITCH_M))
    found = xr.open_zarr(finished / "straight.zarr").corrected
    np.testing.assert_array_equal(found, correct_distortion(frames, warp))
    assert found.attrs["conserve"] == "counts"
    assert np.abs(warp.displacement_px[~np.pad(warp.mask, ((0, 1), (0, 1)), constant_values=True)]).max() > 0.5


def test_frames_of_a_grid_are_averaged_and_options_reach_the_fit(folder, frames):
    """As a detector file, which pyFAI opens."""
    holes = np.zeros(SHAPE, bool)
    holes[90:110] = True
    save(holes, folder / "mask.zarr")
    for old, new in (
        ('"grid.edf"', '"scan.h5"'), ('"new.zarr"', '"new.nxs"'), ('# mask = "mask.edf"', 'mask = "mask.zarr"'),
        ('# method = "auto"', 'method = "polynomial"'), ("# order = 5", "order = 3"), ('# dots = "auto"', 'dots = "bright"'),
        ("# dot_diameter_px = 20.0", "dot_diameter_px = 6.5"), ("# spacing_px = 97.0", "spacing_px = 24"),
    ):  # fmt: skip
        change(folder, "fit_distortion.toml", old, new)
    computed(folder, "fit_distortion")
    options = {"method": "polynomial", "order": 3, "dots": "bright", "dot_diameter_px": 6.5, "spacing_px": 24, "mask": holes}
    found, wanted = load(folder / "new.nxs"), fit_distortion(open_frames(folder / "scan.h5"), PITCH_M, **options)
    assert_same_map(found, wanted)
    assert (found.method, found.order) == ("polynomial", 3)
    corners = pyFAI.detector_factory(str(folder / "new.nxs")).get_pixel_corners()[:, :, 0, 1:]
    np.testing.assert_allclose(corners, wanted.corners_m.values[:-1, :-1], atol=1e-7)


def test_options_reach_the_correction(folder, frames):
    bad = np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) % 100 == 7
    save(bad, folder / "mask.zarr")
    for old, new in (
        ('# mask = "mask.edf"', 'mask = "mask.zarr"'), ('# conserve = "counts"', 'conserve = "mean"'), ("# variance", "variance"),
        ("# coverage = false", "coverage = true"), ("# shape", "shape"), ("# dummy = -1", "dummy = 200"),
        ("# pixel_size_m = [5e-05, 5e-05]", "pixel_size_m = [3e-4, 2e-4]"),
    ):  # fmt: skip
        change_step(folder, "correct_distortion.toml", old, new)
    found = xr.open_zarr(computed(folder, "correct_distortion"), mask_and_scale=False)
    wanted = correct_distortion(
        frames, load(folder / "distortion.zarr"), conserve="mean", variance="poisson", coverage=True, mask=bad, shape="cover",
        pixel_size_m=(3e-4, 2e-4), dummy=200,
    )  # fmt: skip
    xr.testing.assert_equal(found.drop_attrs(), wanted.compute().drop_attrs())
    assert set(found) == {"corrected", "variance", "coverage", "mask"}
    assert found.corrected.shape[1:] != SHAPE


def test_a_detector_file_is_a_map_and_edf_an_output(folder, frames):
    save(load(folder / "distortion.zarr"), folder / "ours.nxs")
    pyFAI.detector_factory(str(folder / "ours.nxs")).save(str(folder / "theirs.h5"))
    change(folder, "correct_distortion.toml", '"distortion.zarr"', '"theirs.h5"')
    change(folder, "correct_distortion.toml", '"straight.zarr"', '"straight.edf"')
    change(folder, "correct_distortion.toml", "# shape", "shape")
    change(folder, "correct_distortion.toml", '"cover"', "[150, 180]")
    change(folder, "correct_distortion.toml", "# origin_m = [0.0, 0.0]", "origin_m = [0.005, 0.006]")
    found = open_frames(computed(folder, "correct_distortion"))
    wanted = correct_distortion(frames, load(folder / "theirs.h5"), shape=(150, 180), origin_m=(0.005, 0.006))
    np.testing.assert_array_equal(found, wanted)
    ours = correct_distortion(frames, load(folder / "distortion.zarr"), shape=(150, 180), origin_m=(0.005, 0.006))
    np.testing.assert_allclose(found, ours, atol=0.5)


def test_a_way_back_gives_what_the_library_gives(folder, frames):
    warp = load(folder / "distortion.zarr")
    save(correct_distortion(frames[:3], warp, conserve="mean"), folder / "straight.zarr")
    (folder / "uncorrect.toml").write_text(render("uncorrect"))
    for old, new in (
        ('# conserve = "counts"', 'conserve = "mean"'), ("# max_iterations = 200", "max_iterations = 5"), ("# dummy = -1", "dummy = -7"),
        ("# tolerance = 1e-06", "tolerance = 1e-3"),
    ):  # fmt: skip
        change_step(folder, "uncorrect.toml", old, new)
    found = xr.open_zarr(computed(folder, "uncorrect"), mask_and_scale=False).uncorrected
    wanted = uncorrect(xr.open_zarr(folder / "straight.zarr").corrected, warp, conserve="mean", max_iterations=5, tolerance=1e-3, dummy=-7)
    np.testing.assert_array_equal(found, wanted)
    assert (found == -7).any()
    assert "corrections" not in found.attrs


def test_gains_distortion_and_rings_in_one_recipe(folder, frames):
    gains = np.random.default_rng(1).normal(1, 0.1, SHAPE)
    gains[20, 30:50] = np.nan
    save(Response.from_gain(gains), folder / "response.zarr")
    (folder / "detector.poni").write_text(NO_MODEL)
    (folder / "chain.toml").write_text("""
[input]
path = "scan.h5"
[[steps]]
operation = "correct_response"
response = "response.zarr"
[[steps]]
operation = "correct_distortion"
distortion = "distortion.zarr"
conserve = "mean"
[[steps]]
operation = "sigma_clip"
geometry = "detector.poni"
npt = 100
[output]
path = "profiles.zarr"
""")
    shown = shown_by(folder, "plan", "chain.toml", "--memory", "1GiB")
    assert re.findall(r"correct_response|correct_distortion|sigma_clip", shown) == ["correct_response", "correct_distortion", "sigma_clip"]
    detcal(folder, "run", "chain.toml", "--workers", "1")
    straight = correct_distortion(
        correct_response(frames, load(folder / "response.zarr")), load(folder / "distortion.zarr"), conserve="mean"
    )
    wanted = sigma_clip(straight, build_bins(folder / "detector.poni", npt=100, shape=SHAPE))
    xr.testing.assert_allclose(xr.open_zarr(folder / "profiles.zarr").drop_attrs(), wanted.compute().drop_attrs(), rtol=1e-5)


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("count", [1, 8])
def test_a_task_that_goes_back_holds_no_more_than_is_planned(grid, frames, count, mean):
    """Blocks apart, which are planned twice."""
    matrix = build_overlaps(fit_distortion(grid.image, PITCH_M))
    straight, resampling = frames[:count].astype(np.float32), matrix.in_memory.compute()
    tracemalloc.start()
    unresample_frames(straight, resampling, ALL_NUMBERS, mean, iterations=5, tolerance=1e-6)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    own = uncorrect_bytes(SHAPE, SHAPE, count, 4, matrix.data.size).task - 2 * straight.nbytes
    assert own / 2 < peak < own
