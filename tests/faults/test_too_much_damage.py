"""More damage than is allowed, and damage in what results rest on, end a run."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from detcal import open_frames, save
from detcal.errors import InputError
from detcal.response import Response
from tests.faults.conftest import SIDE
from tests.faults.damaged import (
    FRAMES,
    RESPONSE,
    STEPS,
    bad_in,
    damage_chunk,
    flip_bytes,
    frames_in,
    result_of,
    run,
    stack,
    write_gzip,
    write_recipe,
)


@pytest.mark.parametrize(("options", "most"), [(("--strict",), 0), (("--max-bad", "1"), 1)])
def test_more_than_is_allowed_ends_the_run_which_can_go_on(folder: Path, options: tuple[str, ...], most: int) -> None:
    expected = result_of(folder, RESPONSE, write_gzip(folder, [3, 17, 30]), "expected.zarr", code=3)
    write_recipe(folder, RESPONSE, "raw.h5")
    done = run(folder, *options, code=1)
    assert f"at most {most} may be: allow more with --max-bad, or mend the input and begin anew with --restart" in done.stderr
    assert not (folder / "out.zarr").exists()
    run(folder, *options, code=1)
    run(folder, "--max-bad", "3", code=3)
    xr.testing.assert_identical(xr.open_zarr(folder / "out.zarr").load().drop_attrs(), expected.drop_attrs())
    assert frames_in(bad_in(folder)) == [3, 17, 30]


def test_an_input_of_which_nothing_can_be_read_is_no_result(folder: Path) -> None:
    write_recipe(folder, RESPONSE, write_gzip(folder, range(FRAMES)))
    done = run(folder, code=2)
    assert f"nothing of the input can be read: {FRAMES} frames cannot be read: 0–7, 8–15, 16–23, 24–31, … of" in done.stderr
    assert not (folder / "out.zarr").exists()


def test_strict_runs_of_whole_input_end_well(folder: Path) -> None:
    write_recipe(folder, RESPONSE, write_gzip(folder, []))
    run(folder, "--strict")


def test_from_python_damage_is_an_error(folder: Path) -> None:
    path = write_gzip(folder, [3])
    with pytest.raises(InputError, match="does not decompress"):
        open_frames(folder / path).compute()
    with pytest.raises(InputError, match="does not decompress"):
        save(open_frames(folder / path), folder / "copy.zarr")


@pytest.mark.parametrize("what", ["dark", "flat", "mask", "response"])
def test_damage_in_what_results_rest_on_is_an_error(folder: Path, what: str) -> None:
    steps = STEPS["fit_response" if what == "mask" else "correct_response"]
    np.save(folder / "raw.npy", stack())
    if what == "response":
        save(Response.from_gain(np.ones((SIDE, SIDE))), folder / "bad.zarr")
        chunk = folder / "bad.zarr" / "gain" / "c" / "0" / "0"
        flip_bytes(chunk, chunk.stat().st_size // 2, 1)
        steps = steps.replace("gain.npy", "bad.zarr")
    else:
        with h5py.File(folder / "bad.h5", "w") as file:
            file.create_dataset("data", data=stack()[0] % 2, chunks=(SIDE, SIDE), compression="gzip")
        damage_chunk(folder / "bad.h5", "data", 0)
        steps += f'{what} = "bad.h5"\n'
    write_recipe(folder, steps, "raw.npy")
    done = run(folder, code=2)
    assert done.stderr.startswith("error: cannot read ")
    assert "bad." in done.stderr
    assert not list(folder.glob(".out*"))


def test_a_mask_of_the_input_that_is_damaged_is_an_error(folder: Path) -> None:
    np.save(folder / "raw.npy", stack())
    with h5py.File(folder / "bad.h5", "w") as file:
        file.create_dataset("data", data=stack()[0] % 2, chunks=(SIDE, SIDE), compression="gzip")
    damage_chunk(folder / "bad.h5", "data", 0)
    write_recipe(folder, RESPONSE, "raw.npy")
    (folder / "r.toml").write_text((folder / "r.toml").read_text().replace("chunk_frames", 'mask = "bad.h5"\nchunk_frames'))
    done = run(folder, code=2)
    assert f"error: cannot read the chunk of row 0 to {SIDE - 1} in {folder / 'bad.h5'}" in done.stderr
    assert "becomes NaN" not in done.output
