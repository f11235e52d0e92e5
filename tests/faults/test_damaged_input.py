"""Input that cannot be read becomes NaN in a run, is listed, and makes the exit code 3."""

from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.recording import Recorder
from distributed import LocalCluster

from detcal import simulate
from detcal.stores.targets.crono_writer import write_crono
from tests.benchmarks.sampling import assert_within_plan, peak_of_run
from tests.faults.conftest import SIDE
from tests.faults.damaged import (
    FRAMES,
    RESPONSE,
    STEPS,
    WRITERS,
    bad_in,
    damage_chunk,
    frames_in,
    result_of,
    run,
    stack,
    with_nan,
    write_gzip,
    write_hdf5,
    write_recipe,
)
from tests.pipelines.commands import in_process
from tests.pipelines.packages import found_in, pretend


@pytest.mark.parametrize("kind", WRITERS)
def test_frames_that_cannot_be_read_are_nan_and_all_others_as_they_were(folder: Path, kind: str) -> None:
    bad = [5, 6, 17, 39]
    whole = result_of(folder, RESPONSE, WRITERS[kind](folder, []), "whole.zarr").corrected
    found = result_of(folder, RESPONSE, WRITERS[kind](folder, bad), "out.zarr", code=3).corrected
    good = np.setdiff1d(np.arange(FRAMES), bad)
    assert found.dtype == whole.dtype
    assert np.isnan(found[bad]).all()
    np.testing.assert_array_equal(found[good], whole[good])
    assert np.isfinite(found[good]).any()
    listed = bad_in(folder)
    assert frames_in(listed) == bad
    assert all(Path(note["file"]).exists() and note["reason"] and note["unit"] == "frames" for note in listed)
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("name", STEPS)
def test_every_kind_of_step_takes_damaged_frames_as_not_measured(folder: Path, name: str) -> None:
    bad = [5, 6, 17, 39]
    np.save(folder / "expected.npy", with_nan(bad))
    expected = result_of(folder, STEPS[name], "expected.npy", "expected.zarr")
    found = result_of(folder, STEPS[name], write_gzip(folder, bad), "out.zarr", code=3)
    xr.testing.assert_identical(found.drop_attrs(), expected.drop_attrs())
    assert {name: values.dtype for name, values in found.items()} == {name: values.dtype for name, values in expected.items()}
    whole = result_of(folder, STEPS[name], write_gzip(folder, []), "whole.zarr")
    if "frame" in found.dims:
        xr.testing.assert_identical(found.drop_attrs().drop_isel(frame=bad), whole.drop_attrs().drop_isel(frame=bad))
    else:  # they took no part
        assert int(whole.frames_used.max()) == FRAMES
        assert int(found.frames_used.max()) == FRAMES - len(bad)


def test_a_mask_leaves_out_all_of_a_frame_that_cannot_be_read(folder: Path) -> None:
    """It has no NaN to say so."""
    found = result_of(folder, STEPS["outlier_mask"], write_gzip(folder, [17]), "out.zarr", code=3).outlier
    assert np.flatnonzero(found.all(axis=(1, 2))).tolist() == [17]
    assert "all of a frame of which nothing was measured" in found.attrs["long_name"]


def test_what_is_found_once_is_found_anew_where_damage_is(folder: Path) -> None:
    """The map of a detector, which the plan asks for, is first made of frames that are taken as whole."""
    grid = simulate.hole_grid((256, 256), pitch_px=32.0).image.astype(np.uint16)
    frames = np.stack([grid, grid + 1, grid])
    with h5py.File(folder / "raw.h5", "w") as file:
        file.create_dataset("data", data=frames, chunks=(1, 256, 256), compression="gzip")
    damage_chunk(folder / "raw.h5", "data", 1)
    np.save(folder / "nan.npy", np.where([[[False]], [[True]], [[False]]], np.nan, frames).astype(np.float32))
    steps = '[[steps]]\noperation = "fit_distortion"\npitch_m = 5e-3\n'
    expected = result_of(folder, steps, "nan.npy", "expected.zarr")
    found = result_of(folder, steps, "raw.h5", "out.zarr", code=3)
    xr.testing.assert_identical(found.drop_attrs(), expected.drop_attrs())
    assert frames_in(bad_in(folder)) == [1]


def test_a_chunk_of_several_frames_is_one_entry(folder: Path) -> None:
    path = write_hdf5(folder, 4, compression="gzip")
    damage_chunk(folder / path, "data", 3)
    write_recipe(folder, RESPONSE, path)
    done = run(folder, code=3)
    (note,) = bad_in(folder)
    assert (note["file"], note["frames"]) == (str(folder / "raw.h5"), [12, 15])
    assert f"4 frames cannot be read: 12–15 of {folder / 'raw.h5'}" in done.stderr
    assert "does not decompress" in done.stderr


def test_chosen_frames_that_are_turned_over_are_listed_by_their_numbers_in_the_stack(folder: Path) -> None:
    path = write_gzip(folder, [11])
    write_recipe(folder, RESPONSE, path)
    text = (folder / "r.toml").read_text()
    (folder / "r.toml").write_text(text.replace("chunk_frames", 'frames = "1::2"\nflip = "ud"\nchunk_frames'))
    run(folder, code=3)
    assert frames_in(bad_in(folder)) == [5]
    corrected = xr.open_zarr(folder / "out.zarr").corrected
    assert np.flatnonzero(np.isnan(corrected).all(axis=(1, 2))).tolist() == [5]


@pytest.mark.parametrize("name", ["regrid_xrf", "convert_crono"])
def test_spectra_that_cannot_be_read(folder: Path, name: str) -> None:
    """Chunks of spectra lie behind each other in the file, so that damage to one of a gzipped dataset is no other's."""
    scan = simulate.maxrf_scan(12, 20, channels=256, counts=1.0)
    rows = 20
    for file in ("whole.h5", "bad.h5", "nan.h5"):
        write_crono(scan, folder / file)
        with h5py.File(folder / file, "r+") as opened:
            spectra = opened["XRF/Spectra"][()]
            del opened["XRF/Spectra"]
            if file == "nan.h5":
                spectra = spectra.astype(np.float32)
                spectra[rows : 2 * rows] = np.nan
            opened.create_dataset("XRF/Spectra", data=spectra, chunks=(rows, 256), compression="gzip")
    assert spectra.dtype == np.float32
    damage_chunk(folder / "bad.h5", "XRF/Spectra", 1)
    found = {}
    for file in ("whole", "bad", "nan"):
        cut = "tile_rows = 2" if name == "regrid_xrf" else "chunk_spectra = 40"
        (folder / "r.toml").write_text(
            f'[[steps]]\noperation = "{name}"\nscan = "{file}.h5"\n{cut}\n[output]\npath = "{file}.zarr"\n'
        )  # fmt: skip
        run(folder, code=3 if file == "bad" else 0)
        found[file] = xr.open_zarr(folder / f"{file}.zarr").load().drop_attrs()
    xr.testing.assert_identical(found["bad"], found["nan"])
    assert {name: values.dtype for name, values in found["bad"].items()} == {name: values.dtype for name, values in found["whole"].items()}
    assert [(note["unit"], note["frames"]) for note in bad_in(folder, "bad.zarr")] == [("spectra", [rows, 2 * rows - 1])]
    cube = "rate" if name == "regrid_xrf" else "maxrf_cube"
    missing = np.isnan(found["bad"][cube]) & ~np.isnan(found["whole"][cube])
    assert missing.any()
    assert not missing.all()
    far = slice(4, None)  # lines that have no share in the second one
    np.testing.assert_array_equal(found["bad"][cube][far], found["whole"][cube][far])


def test_big_endian_numbers_become_nan_too(folder: Path) -> None:
    frames = stack().astype(">u2")
    with h5py.File(folder / "raw.h5", "w") as file:
        file.create_dataset("data", data=frames, chunks=(1, SIDE, SIDE), compression="gzip")
    whole = result_of(folder, RESPONSE, "raw.h5", "whole.zarr").corrected
    damage_chunk(folder / "raw.h5", "data", 9)
    found = result_of(folder, RESPONSE, "raw.h5", "out.zarr", code=3).corrected
    assert np.flatnonzero(np.isnan(found).all(axis=(1, 2))).tolist() == [9]
    np.testing.assert_array_equal(found.drop_isel(frame=[9]), whole.drop_isel(frame=[9]))


def test_frames_of_reals_are_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have NaN already: nothing is begun anew, and what is damaged is read no more than it takes to find it."""
    with h5py.File(folder / "raw.h5", "w") as file:
        file.create_dataset("data", data=stack().astype(np.float32), chunks=(1, SIDE, SIDE), compression="gzip")
    damage_chunk(folder / "raw.h5", "data", 9)
    write_recipe(folder, RESPONSE, "raw.h5")
    entered = []
    enter = Recorder.enter
    monkeypatch.setattr(Recorder, "enter", lambda *arguments: entered.append(1) or enter(*arguments))
    run(folder, code=3)
    assert entered == [1]
    assert frames_in(bad_in(folder)) == [9]


KEEPS = """
from typing import Literal
from detcal_pipelines.steps.step import Step

class Keep(Step):
    \"\"\"Frames as they are.\"\"\"
    operation: Literal["keep"] = "keep"

    def prepare(self):
        return None

    def build(self, data, ready):
        return data

    def task_bytes(self, block, ready):
        return 2 * block.nbytes

    def try_out(self, data):
        return data
"""


def test_a_result_of_whole_numbers_becomes_one_of_reals(folder: Path) -> None:
    """Blocks that are written already have no room for NaN: they are written anew."""
    pretend(folder / "packages", "keeps", KEEPS, keep="keeps:Keep")
    with found_in(folder / "packages"):
        whole = result_of(folder, '[[steps]]\noperation = "keep"\n', write_gzip(folder, []), "whole.zarr").frames
        found = result_of(folder, '[[steps]]\noperation = "keep"\n', write_gzip(folder, [30]), "out.zarr", code=3).frames
    assert (whole.dtype, found.dtype) == (np.uint16, np.float32)
    assert np.isnan(found[30]).all()
    np.testing.assert_array_equal(found.drop_isel(frame=[30]), whole.drop_isel(frame=[30]))


def test_workers_of_a_cluster_note_damage_too(folder: Path) -> None:
    expected = result_of(folder, STEPS["chain"], write_gzip(folder, [3, 17]), "expected.zarr", code=3)
    write_recipe(folder, STEPS["chain"], "raw.h5")
    with LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="1.2GiB", dashboard_address="127.0.0.1:0") as cluster:
        done = in_process(folder, "run", "r.toml", "--scheduler", cluster.scheduler_address)
    assert done.exit_code == 3, f"{done.output} {done.exception!r}"
    assert frames_in(bad_in(folder)) == [3, 17]
    xr.testing.assert_identical(xr.open_zarr(folder / "out.zarr").load().drop_attrs(), expected.drop_attrs())
    assert not list(folder.glob(".out*"))


@pytest.mark.parametrize("name", ["correct_response", "fit_response"])
def test_damage_keeps_to_the_plan(folder: Path, name: str) -> None:
    """Whole numbers become reals of twice their size from where damage is found, and kernels are compiled for these elsewhere."""
    side, depth = 1024, 8
    levels = np.linspace(800, 1200, 10 * depth)[:, None, None]  # of a beam that changes, as that of a sweep does
    frames = np.random.default_rng(0).poisson(levels, (10 * depth, side, side)).astype(np.uint16)
    with h5py.File(folder / "raw.h5", "w") as file:
        file.create_dataset("data", data=frames, chunks=(1, side, side), **hdf5plugin.Bitshuffle(cname="lz4"))
    for number in (0, 1, 30, 31, 32, 79):
        damage_chunk(folder / "raw.h5", "data", number)
    np.save(folder / "gain.npy", np.ones((side, side), np.float32))
    write_recipe(folder, STEPS[name], "raw.h5")
    peak, told = peak_of_run(["run", "r.toml", "--workers", "2", "--memory", "4GiB"], folder, code=3)
    assert_within_plan(peak, told)
