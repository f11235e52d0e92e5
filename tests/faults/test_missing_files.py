"""Frames that are not there at all, as of a file that a series leaves out, count as what could not be read: list, report, exit code 3."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import xarray as xr

from tests.faults.conftest import SIDE
from tests.faults.damaged import FRAMES, RESPONSE, STEPS, bad_in, damage_chunk, frames_in, run, stack, with_nan, write_recipe
from tests.pipelines.commands import in_process

LOST = [3, 4, 17]


@pytest.fixture
def series(folder: Path) -> Path:
    """A folder of one file a frame, of which some are not there."""
    (folder / "scan").mkdir()
    for number, frame in enumerate(stack()):
        if number not in LOST:
            tifffile.imwrite(folder / "scan" / f"s_{number:04}.tif", frame)
    return folder


def output_of(folder: Path) -> xr.DataArray:
    return xr.open_zarr(folder / "out.zarr").load()["corrected"]


@pytest.mark.filterwarnings("ignore::detcal.errors.MissingWarning")
@pytest.mark.parametrize("path", ["scan", "scan/s_*.tif"], ids=["folder", "glob"])
def test_missing_files_of_a_series_are_listed_and_make_the_exit_code_3(series: Path, path: str) -> None:
    write_recipe(series, RESPONSE, path)
    done = run(series, code=3)
    np.testing.assert_allclose(output_of(series), with_nan(LOST) * np.load(series / "gain.npy"), rtol=1e-6)
    notes = bad_in(series)
    assert frames_in(notes) == LOST
    assert all("files that are not there: " in note["reason"] and "s_0003.tif" in note["reason"] for note in notes)
    assert "warning: 3 frames cannot be read: 3–4, 17 of " in done.stderr
    report = " ".join(in_process(series, "report", "out.zarr", "--text").output.split())
    assert "3 frames could not be read" in report
    assert "s_0003.tif" in report
    assert "3 frames" in in_process(series, "status", "out.zarr").output
    assert in_process(series, "verify", "out.zarr").exit_code == 0


@pytest.mark.filterwarnings("ignore::detcal.errors.MissingWarning")
def test_missing_files_are_more_than_strict_runs_allow_before_anything_is_computed(series: Path) -> None:
    write_recipe(series, RESPONSE, "scan")
    done = run(series, "--strict", code=1)
    assert "3 frames cannot be read: 3–4, 17 of " in done.stderr
    assert "at most 0 may be: allow more with --max-bad" in done.stderr
    run(series, "--strict", "--dry-run", code=1)
    run(series, "--max-bad", "2", code=1)
    in_process(series, "plan", "r.toml")
    assert not [path.name for path in series.iterdir() if "out.zarr" in path.name]
    run(series, "--max-bad", "3", code=3)


@pytest.mark.filterwarnings("ignore::detcal.errors.MissingWarning")
@pytest.mark.parametrize("step", STEPS)
def test_all_steps_end_so(series: Path, step: str) -> None:
    write_recipe(series, STEPS[step], "scan")
    run(series, code=3)
    assert frames_in(bad_in(series)) == LOST


@pytest.mark.filterwarnings("ignore::detcal.errors.MissingWarning")
def test_frames_that_were_never_written_are_listed_and_parts_of_frames_are_told(folder: Path) -> None:
    for half, lost in ((SIDE, [20, 21]), (SIDE // 2, [])):
        with h5py.File(folder / "raw.h5", "w") as file:
            stored = file.create_dataset("data", stack().shape, np.uint16, chunks=(2, half, SIDE))
            stored[:20], stored[20:22, : SIDE - half], stored[22:] = stack()[:20], stack()[20:22, : SIDE - half], stack()[22:]
        write_recipe(folder, RESPONSE, "raw.h5")
        done = run(folder, "--overwrite", code=3 if lost else 0)
        assert frames_in(bad_in(folder)) == lost
        assert np.isnan(output_of(folder)[20, half:]).all() if lost else "parts of 2 of 40 frames (20–21)" in done.stderr


@pytest.mark.filterwarnings("ignore::detcal.errors.MissingWarning")
def test_damage_beside_what_is_missing_is_listed_too(folder: Path) -> None:
    for number in (0, 1, 3, 4):
        with h5py.File(folder / f"part_{number}.h5", "w") as file:
            part = stack()[8 * number : 8 * number + 8]
            file.create_dataset("data", data=part, chunks=(1, SIDE, SIDE), compression="gzip")
    damage_chunk(folder / "part_3.h5", "data", 5)
    write_recipe(folder, RESPONSE, "part_*.h5")
    run(folder, "--max-bad", "8", code=1)
    run(folder, code=3)
    assert frames_in(bad_in(folder)) == [*range(16, 24), 29]
    assert np.isnan(output_of(folder)).all(("y", "x")).values.nonzero()[0].tolist() == [*range(16, 24), 29]
    assert len(output_of(folder)) == FRAMES
