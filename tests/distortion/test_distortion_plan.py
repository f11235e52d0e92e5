"""Plans of calibrations and corrections: kept to, and refused with one clear line."""

import re

import h5py
import hdf5plugin
import numpy as np
import pytest
from detcal_pipelines.plan import plan
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.template import render

from detcal import load, save, simulate
from detcal.distortion import DistortionMap
from detcal.response import Response
from tests.azimuthal.test_azimuthal_run import NO_MODEL
from tests.benchmarks.sampling import assert_no_growth, assert_within_plan, peak_of_run
from tests.distortion.runs import BLANK, MIB, RECIPES, SHAPE, refused, shown_by
from tests.pipelines.commands import change

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
    if not several:
        assert_no_growth(peaks, 64 * side**2 * 4)


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
        ('# conserve = "counts"', 'conserve = "light"', "expected 'counts' or 'mean', got 'light'"),
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
        ("pitch_m = 0.005", "pitch_m = 0.0", "expected a number above 0, got 0.0"),
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
