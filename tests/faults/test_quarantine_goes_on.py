"""What a run knows of damaged input, and of blocks that kill processes, is kept by the run that goes on."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.ledger import Ledger, read_ledger
from detcal_pipelines.unfinished import Places

from tests.faults.damaged import RESPONSE, STEPS, bad_in, frames_in, result_of, run, write_gzip, write_recipe
from tests.faults.killing import end_at, has_begun, kill_after


def test_a_run_that_goes_on_keeps_the_list(folder: Path) -> None:
    bad = [3, 30]
    expected = result_of(folder, RESPONSE, write_gzip(folder, bad), "expected.zarr", code=3)
    write_recipe(folder, RESPONSE, "raw.h5")
    kill_after(folder, 2)
    places = Places.of(folder / "out.zarr")
    assert frames_in(read_ledger(places.ledger).quarantine) == [3]
    shutil.rmtree(places.bad)  # the ledger has them
    run(folder, code=3)
    assert frames_in(bad_in(folder)) == bad
    assert len(bad_in(folder)) == 2
    xr.testing.assert_identical(xr.open_zarr(folder / "out.zarr").load().drop_attrs(), expected.drop_attrs())
    assert not list(folder.glob(".out*"))


def test_notes_that_a_killed_driver_has_not_read_are_not_lost(folder: Path) -> None:
    write_recipe(folder, RESPONSE, write_gzip(folder, []))
    kill_after(folder, 2)
    places = Places.of(folder / "out.zarr")
    note = {"file": "raw.h5", "unit": "frames", "frames": [2, 2], "reason": "of a block that is done"}
    places.bad.mkdir()
    (places.bad / "a.json").write_text(json.dumps(note))
    run(folder, code=3)
    assert bad_in(folder) == [note]


def test_a_run_begun_anew_forgets_the_list(folder: Path) -> None:
    write_recipe(folder, RESPONSE, write_gzip(folder, [3]))
    kill_after(folder, 2)
    write_gzip(folder, [])
    run(folder, "--restart")
    assert not bad_in(folder)


@pytest.mark.parametrize("name", ["correct_response", "fit_response"])
def test_a_block_at_which_three_processes_died_is_not_begun_a_fourth_time(folder: Path, name: str) -> None:
    """But for a sum, which is of all frames: nobody knows at which of these they died."""
    expected = result_of(folder, STEPS[name], write_gzip(folder, []), "expected.zarr")
    write_recipe(folder, STEPS[name], "raw.h5")
    first = 2 if name == "correct_response" else 1
    if name == "correct_response":
        kill_after(folder, first)
    else:
        end_at(has_begun, folder)
    places = Places.of(folder / "out.zarr")
    history = read_ledger(places.ledger)
    victim = ["corrected", 3, 0, 0] if name == "correct_response" else ["gain", 0, 0]
    for _ in range(3 - history.deaths((victim[0], tuple(victim[1:])))):
        ledger = Ledger.go_on(places.ledger)
        ledger.note(process=history.processes[0].begun)
        ledger.note(begun=[victim])
        ledger.close()
    if name == "fit_response":
        run(folder)
        xr.testing.assert_identical(xr.open_zarr(folder / "out.zarr").load().drop_attrs(), expected.drop_attrs())
        return
    done = run(folder, code=3)
    assert "24–31" in done.stderr
    assert "processes were killed, one after the other, while they worked at these" in done.stderr
    found = xr.open_zarr(folder / "out.zarr").load().corrected
    assert np.isnan(found[24:32]).all()
    np.testing.assert_array_equal(found.drop_isel(frame=range(24, 32)), expected.corrected.drop_isel(frame=range(24, 32)))
