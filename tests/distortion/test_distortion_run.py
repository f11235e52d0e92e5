"""Whole runs of fit_distortion and correct_distortion: results, memory measured from outside, and one clear line for bad input."""

import re
import tracemalloc

import h5py
import hdf5plugin
import numpy as np
import pyFAI
import pytest
import xarray as xr
from click.testing import CliRunner
from detcal_pipelines.chain import build, first_of
from detcal_pipelines.cli import main
from detcal_pipelines.plan import plan
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.run import run
from detcal_pipelines.template import render
from rich.console import Console

from detcal import load, open_frames, save, simulate
from detcal.azimuthal import build_bins, sigma_clip
from detcal.distortion import DistortionMap, build_overlaps, correct_distortion, find_grid_points, fit_distortion, geometry, uncorrect
from detcal.distortion.memory import uncorrect_bytes
from detcal.distortion.resampling import unresample_frames
from detcal.frames.once import is_found
from detcal.frames.readings import ALL_NUMBERS
from detcal.response import Response, correct_response
from tests.azimuthal.test_azimuthal_run import NO_MODEL
from tests.benchmarks.sampling import assert_within_plan, peak_of_run
from tests.pipelines.test_run import change, change_step, detcal

MIB = 2**20
RECIPES = "fit_distortion", "correct_distortion"
SHAPE = (200, 240)
PITCH_M = 5e-3
BLANK = np.full((1, *SHAPE), 100, np.float32)


@pytest.fixture(scope="module")
def grid():
    return simulate.hole_grid(SHAPE, pitch_px=24.0)


@pytest.fixture(scope="module")
def frames(grid):
    stack = np.random.default_rng(0).poisson(grid.image, (20, *SHAPE)).astype(np.int32)
    stack[3, 50] = -1
    return stack


@pytest.fixture(scope="module")
def finished(grid, frames, tmp_path_factory):
    """A folder with an image of a grid and frames, and what the two recipes made of them."""
    folder = tmp_path_factory.mktemp("distortion")
    save(grid.image[None], folder / "grid.edf")
    save(frames, folder / "scan.h5")
    for name in RECIPES:
        (folder / f"{name}.toml").write_text(render(name))
        detcal(folder, "run", f"{name}.toml", "--memory", "1GiB", "--workers", "2")
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """Links to the inputs and the map, and fresh recipes."""
    for name in ("grid.edf", "scan.h5", "distortion.zarr"):
        (tmp_path / name).symlink_to(finished / name)
    for name in RECIPES:
        (tmp_path / f"{name}.toml").write_text(render(name))
    change(tmp_path, "fit_distortion.toml", '"distortion.zarr"', '"new.zarr"')
    return tmp_path


def computed(folder, name):
    """What a recipe writes, without the start of processes for it."""
    recipe = read_recipe(folder / f"{name}.toml")
    return save(build(recipe, 16), recipe.output.path)


def shown_by(folder, *arguments):
    """What a command prints that begins no processes."""
    command, recipe, *options = arguments
    done = CliRunner().invoke(main, [command, str(folder / recipe), *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def refused(folder, *arguments):
    """The one line of a command that must fail, and write nothing."""
    command, recipe, *options = arguments
    before = sorted(folder.rglob("*"))
    done = CliRunner().invoke(main, [command, str(folder / recipe), *options], catch_exceptions=False)
    assert done.exit_code == 2, done.output
    assert done.output.count("error: ") == 1
    assert sorted(folder.rglob("*")) == before
    return done.output.partition("error: ")[2].strip()


def assert_same_map(found, wanted):
    for name in ("corners_m", "mask", "row", "column", "point_y", "point_x", "residual_px"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    assert found.pixel_size_m == wanted.pixel_size_m
    assert found.cross_validated_rms_px == wanted.cross_validated_rms_px < 0.05


# --------------------------------------------------------------------------------------------------------- results


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
    outcome = run(read_recipe(folder / "fit_distortion.toml"), (2**30, 2), console)
    assert len(fits) == 1
    assert_same_map(load(outcome.output), fit_distortion(grid.image, PITCH_M))
    fits.clear()
    change(folder, "fit_distortion.toml", '"grid.edf"', '"scan.h5"')
    change(folder, "fit_distortion.toml", '"new.zarr"', '"mean.zarr"')
    change(folder, "fit_distortion.toml", "# chunk_frames = 16", "chunk_frames = 4")
    run(read_recipe(folder / "fit_distortion.toml"), (2**30, 2), console)
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
    detcal(folder, "run", "chain.toml", "--memory", "1GiB", "--workers", "1")
    straight = correct_distortion(
        correct_response(frames, load(folder / "response.zarr")), load(folder / "distortion.zarr"), conserve="mean"
    )
    wanted = sigma_clip(straight, build_bins(folder / "detector.poni", npt=100, shape=SHAPE))
    xr.testing.assert_allclose(xr.open_zarr(folder / "profiles.zarr").drop_attrs(), wanted.compute().drop_attrs(), rtol=1e-5)


# ------------------------------------------------------------------------------------------------- plans and memory


def test_plans_and_checks_show_what_there_is(folder):
    for name in RECIPES:
        assert "is good" in shown_by(folder, "check", f"{name}.toml")
    shown = shown_by(folder, "plan", "fit_distortion.toml", "--memory", "900MiB")
    assert re.search(r"DistortionMap .*\d+ dots, .*1 × 1 frames", shown)
    found = plan(read_recipe(folder / "correct_distortion.toml"), 2000 * MIB, 2)
    assert found.steps[0].gives == f"(20, {SHAPE[0]}, {SHAPE[1]}) float32"
    assert (found.tasks, found.depth) == (2, 16)


def test_a_long_stack_of_a_grid_is_averaged_in_blocks(tmp_path):
    """In the driver, which holds no more than is planned; 500 MiB of frames, each the same bytes."""
    image = simulate.hole_grid((512, 512), pitch_px=40.0).image.astype(np.uint16)
    with h5py.File(tmp_path / "grid.h5", "w") as file:
        stack = file.create_dataset("data", (1000, 512, 512), np.uint16, chunks=(1, 512, 512), **hdf5plugin.Bitshuffle())
        stack[0] = image
        _, chunk = stack.id.read_direct_chunk((0, 0, 0))
        for frame in range(1, 1000):
            stack.id.write_direct_chunk((frame, 0, 0), chunk)
    (tmp_path / "fit_distortion.toml").write_text(render("fit_distortion"))
    change(tmp_path, "fit_distortion.toml", '"grid.edf"', '"grid.h5"')
    arguments = ["plan", "fit_distortion.toml", "--memory", "2GiB", "--workers", "1"]
    peak, output = peak_of_run(arguments, tmp_path)
    planned = float(re.search(r"1 task at once: peak ([\d.]+) MiB of 2 GiB", output)[1]) * MIB
    assert planned / 2 < peak <= planned


@pytest.mark.parametrize("side", [512, 1024])
def test_a_fit_stays_under_the_plan(tmp_path, side):
    save(simulate.hole_grid((side, side), pitch_px=40.0).image[None].repeat(30, axis=0).astype(np.uint16), tmp_path / "grid.h5")
    (tmp_path / "fit_distortion.toml").write_text(render("fit_distortion"))
    change(tmp_path, "fit_distortion.toml", '"grid.edf"', '"grid.h5"')
    assert_within_plan(*peak_of_run(["run", "fit_distortion.toml", "--memory", "2GiB", "--workers", "2"], tmp_path))


@pytest.mark.parametrize("several", [False, True])
def test_memory_stays_under_the_plan_and_does_not_grow_with_the_frames(tmp_path, several):
    side = 512
    lens = np.stack(np.meshgrid(*2 * [np.arange(side + 1.0)], indexing="ij"), axis=-1)
    corners = simulate.undistort(lens, np.array([side / 2, side / 2]), 0.03, side) * 5e-5
    save(DistortionMap.of_corners(corners, (5e-5, 5e-5), np.zeros((side, side), bool)), tmp_path / "distortion.zarr")
    (tmp_path / "correct_distortion.toml").write_text(render("correct_distortion"))
    change(tmp_path, "correct_distortion.toml", "# chunk_frames", "chunk_frames")
    if several:
        change(tmp_path, "correct_distortion.toml", "# variance", "variance")
        change(tmp_path, "correct_distortion.toml", "# coverage = false", "coverage = true")
    image = np.random.default_rng(0).poisson(100, (side, side))
    peaks = []
    # with several images a frame, how many blocks wait to be written varies from run to run: many frames must stay under the plan too
    for frames in (512,) if several else (64, 128):
        with h5py.File(tmp_path / "scan.h5", "w") as file:
            stack = file.create_dataset("data", (frames, side, side), np.uint16, chunks=(1, side, side), **hdf5plugin.Bitshuffle())
            for frame in range(frames):
                stack[frame] = np.roll(image, frame)
        peak, output = peak_of_run(["run", "correct_distortion.toml", "--memory", "2GiB", "--workers", "2", "--overwrite"], tmp_path)
        assert_within_plan(peak, output)
        peaks.append(peak)
    assert several or peaks[1] < 1.05 * peaks[0]


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


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("command", ["check", "plan", "run"])
def test_frames_of_another_shape(folder, command):
    save(np.zeros((3, 20, 20), np.int32), folder / "small.h5")
    change(folder, "correct_distortion.toml", '"scan.h5"', '"small.h5"')
    assert refused(folder, command, "correct_distortion.toml") == "expected frames of shape (200, 240) (y, x), as the map, got (20, 20)"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"distortion.zarr"', '"response.zarr"', "expected a distortion of a detector in {folder}/response.zarr, found Response"),
        ('"distortion.zarr"', '"small.zarr"', "expected a distortion of a detector in {folder}/small.zarr, found no calibration"),
        ('"distortion.zarr"', '"grid.edf"', "expected a zarr store or an HDF5 file that detcal wrote, got {folder}/grid.edf"),
        ('"distortion.zarr"', '"cut.nxs"', "{folder}/cut.nxs"),
        ('"distortion.zarr"', '"none.zarr"', "no such file: {folder}/none.zarr"),
        ('# conserve = "counts"', 'conserve = "light"', "input should be 'counts' or 'mean', got 'light'"),
        ('# mask = "mask.edf"', 'mask = "small.zarr"', "expected a mask of shape (200, 240) (y, x), as the frames, got (20, 20)"),
        ('# shape = "cover"', "shape = [0, 10]", 'expected a shape (rows, columns), or "cover", got (0, 10)'),
        ("# pixel_size_m = [5e-05, 5e-05]", "pixel_size_m = [0, 1e-4]", "expected a positive pixel_size_m (y, x), got (0.0, 0.0001)"),
        ("# pixel_size_m = [5e-05, 5e-05]", "pixel_size_m = [1e-6, 1e-6]", "give a larger pixel_size_m"),
        ('"straight.zarr"', '"distortion.zarr"', "would take the place of the input"),
        ('"straight.zarr"', '"scan.h5"', "would take the place of the input"),
    ],
)  # fmt: skip
def test_one_clear_line_for_a_correction(folder, old, new, message):
    save(np.zeros((20, 20), np.uint8), folder / "small.zarr")
    save(Response.from_gain(np.ones(SHAPE)), folder / "response.zarr")
    save(load(folder / "distortion.zarr"), folder / "cut.nxs")
    (folder / "cut.nxs").write_bytes((folder / "cut.nxs").read_bytes()[:5000])
    change(folder, "correct_distortion.toml", old, new)
    assert message.format(folder=folder) in refused(folder, "check", "correct_distortion.toml", "--overwrite")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pitch_m = 0.005", "pitch_m = 0.0", "input should be greater than 0, got 0.0"),
        ("pitch_m = 0.005", "# pitch_m = 0.005", "missing"),
        ('"grid.edf"', '"blank.edf"', "expected an image of a hole grid, got one that is 100 everywhere"),
        ('"grid.edf"', '"dust.edf"', "dots"),
        ("# order = 5", "order = 5", 'with method="polynomial", got 5 with \'auto\''),
        ('"new.zarr"', '"grid.edf"', "would take the place of the input"),
        ('"new.zarr"', '"new.tif"', "a .tif holds one stack or image"),
        ('"new.zarr"', '"new.edf"', "a .edf holds one stack or image"),
    ],
)  # fmt: skip
def test_one_clear_line_for_a_fit(folder, grid, old, new, message):
    save(BLANK, folder / "blank.edf")
    save(np.where(np.hypot(*(np.indices(SHAPE) - 100)) < 15, grid.image, 100)[None], folder / "dust.edf")
    change(folder, "fit_distortion.toml", old, new)
    assert message in refused(folder, "check", "fit_distortion.toml", "--overwrite")


def test_steps_in_the_wrong_order(folder):
    (folder / "detector.poni").write_text(NO_MODEL)
    last = '[[steps]]\noperation = "sigma_clip"\ngeometry = "detector.poni"\n'
    change(folder, "fit_distortion.toml", "[output]", f"{last}[output]")
    assert "fit_distortion gives a calibration, not frames: make it the last step" in refused(folder, "check", "fit_distortion.toml")
    change(folder, "correct_distortion.toml", "[output]", f"{last}[output]")
    change(folder, "correct_distortion.toml", "# coverage = false", "coverage = true")
    message = "correct_distortion gives variance or coverage, not frames: make it the last step"
    assert message in refused(folder, "check", "correct_distortion.toml")
