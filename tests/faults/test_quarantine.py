"""Input that cannot be read becomes NaN in a run, is listed, and makes the exit code 3; input that changes meanwhile ends it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import tifffile
import xarray as xr
import zarr
from click.testing import Result
from detcal_pipelines.ledger import Ledger, read_ledger
from detcal_pipelines.recording import Recorder
from detcal_pipelines.unfinished import Places
from distributed import LocalCluster
from fabio.cbfimage import CbfImage

from detcal import open_frames, save, simulate
from detcal.errors import InputError
from detcal.response import Response
from detcal.stores.damage import Guard, guarding, read_notes
from detcal.stores.targets.crono_writer import write_crono
from tests.benchmarks.sampling import assert_within_plan, peak_of_run
from tests.faults.conftest import SIDE
from tests.pipelines.commands import in_process
from tests.pipelines.packages import found_in, pretend

FRAMES, DEPTH = 40, 8
RESPONSE = '[[steps]]\noperation = "correct_response"\nresponse = "gain.npy"\n'
CLIP = '[[steps]]\noperation = "sigma_clip"\ngeometry = "detector.poni"\nnpt = 20\n'
STEPS = {
    "correct_response": RESPONSE,
    "sigma_clip": CLIP,
    "fit_response": '[[steps]]\noperation = "fit_response"\nsigma = 3.0\ncutoff = 10.0\n',
    "chain": RESPONSE + CLIP,
}


def stack() -> np.ndarray:
    """Frames whose largest number is no reading: flags are those of the recorded type, whatever type frames become."""
    lit = np.linspace(1000, 3000, FRAMES)[:, None, None]
    frames = np.random.default_rng(0).poisson(lit, (FRAMES, SIDE, SIDE)).astype(np.uint16)
    frames[:, 3, 4] = 65535
    return frames


def with_nan(bad: Sequence[int]) -> np.ndarray:
    """The same as reals, NaN in these frames and where nothing was measured."""
    frames = stack().astype(np.float32)
    frames[frames == 65535] = np.nan
    frames[list(bad)] = np.nan
    return frames


def write_recipe(folder: Path, steps: str, path: str, output: str = "out.zarr") -> None:
    (folder / "r.toml").write_text(f'[input]\npath = "{path}"\nchunk_frames = {DEPTH}\n{steps}[output]\npath = "{output}"\n')


def run(folder: Path, *options: str, code: int = 0) -> Result:
    done = in_process(folder, "run", "r.toml", "--workers", "2", "--memory", "4GiB", *options)
    assert done.exit_code == code, f"{done.exit_code}: {done.output} {done.exception!r}"
    assert "Traceback" not in done.stderr
    return done


def result_of(folder: Path, steps: str, path: str, output: str, code: int = 0) -> xr.Dataset:
    """What a run makes of a file."""
    write_recipe(folder, steps, path, output)
    run(folder, code=code)
    return xr.open_zarr(folder / output).load()


def bad_in(folder: Path, output: str = "out.zarr") -> list[dict[str, Any]]:
    """What the ledger of an output lists."""
    return read_ledger(folder / f"{output}.ledger").quarantine


def frames_in(listed: list[dict[str, Any]]) -> list[int]:
    return sorted({number for note in listed for number in range(note["frames"][0], note["frames"][1] + 1)})


# --------------------------------------------------------------------------------------------- files, and damage


def write_hdf5(folder: Path, depth: int = 1, **options: Any) -> str:
    with h5py.File(folder / "raw.h5", "w") as file:
        file.create_dataset("data", data=stack(), chunks=(depth, SIDE, SIDE), **options)
    return "raw.h5"


def flip_bytes(file: Path, start: int, size: int) -> None:
    """The same file, of the same time, in which some bytes are others."""
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[start : start + size] = bytes(255 - byte for byte in content[start : start + size])
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def damage_chunk(file: Path, dataset: str, number: int) -> None:
    with h5py.File(file, "r") as opened:
        chunk = opened[dataset].id.get_chunk_info(number)
    flip_bytes(file, chunk.byte_offset, chunk.size)


def write_gzip(folder: Path, bad: Sequence[int]) -> str:
    path = write_hdf5(folder, compression="gzip", shuffle=True)
    for number in bad:
        damage_chunk(folder / path, "data", number)
    return path


def write_bitshuffle(folder: Path, bad: Sequence[int]) -> str:
    path = write_hdf5(folder, **hdf5plugin.Bitshuffle(cname="lz4"))
    for number in bad:
        damage_chunk(folder / path, "data", number)
    return path


def write_tiffs(folder: Path, bad: Sequence[int]) -> str:
    for number, frame in enumerate(stack()):
        file = folder / f"scan_{number:03}.tif"
        tifffile.imwrite(file, frame)
        if number in bad:
            file.write_bytes(file.read_bytes()[: SIDE * SIDE])
    return "scan_*.tif"


def write_cbfs(folder: Path, bad: Sequence[int]) -> str:
    """The first of the bad ones has nothing in it, the others have flipped bytes."""
    for number, frame in enumerate(stack().astype(np.int32)):
        file = folder / f"scan_{number:03}.cbf"
        CbfImage(data=frame).write(str(file))
        if number in bad[:1]:
            file.write_bytes(b"")
        elif number in bad:
            flip_bytes(file, file.read_bytes().index(CbfImage.STARTER) + 100, 10)
    return "scan_*.cbf"


def write_zarr(folder: Path, bad: Sequence[int]) -> str:
    save(xr.DataArray(stack(), dims=("frame", "y", "x")), folder / "raw.zarr", chunks={"frame": 1}, overwrite=True)
    for number in bad:
        chunk = folder / "raw.zarr" / "data" / "c" / str(number) / "0" / "0"
        flip_bytes(chunk, chunk.stat().st_size // 2, 1)
    return "raw.zarr"


WRITERS: dict[str, Callable[[Path, Sequence[int]], str]] = {
    "gzip": write_gzip, "bitshuffle": write_bitshuffle, "tiff": write_tiffs, "zarr": write_zarr, "cbf": write_cbfs,
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- NaN, and a list


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


# --------------------------------------------------------------------------------------------------- how much may be


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


# ---------------------------------------------------------------------------------------------------------- resuming

KILLED = """
import os, signal
from detcal_pipelines import recording
from detcal_pipelines.cli import main
noted = recording.Recorder.written
def killed(self, key):
    noted(self, key)
    if len(self.ledger.history.done) >= {blocks}:
        os.kill(os.getpid(), signal.SIGKILL)
recording.Recorder.written = killed
main(["run", "r.toml", "--workers", "1", "--memory", "4GiB"])
"""


def kill_after(folder: Path, blocks: int) -> None:
    """Run, and kill the process as so many blocks are noted."""
    done = subprocess.run([sys.executable, "-c", KILLED.format(blocks=blocks)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr


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
        kill_fit(folder)
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


def kill_fit(folder: Path) -> None:
    """Run a fit, and kill the process with its first task."""
    program = KILLED.replace("Recorder.written", "Recorder.begun")
    program = program.replace("if len(self.ledger.history.done) >= {blocks}:", "if self.ledger.history.processes[-1].blocks:")
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr


# ------------------------------------------------------------------------------------------ input that changes meanwhile


def append(file: Path) -> None:
    with open(file, "ab") as opened:
        opened.write(b"more")


def rewrite(file: Path) -> None:
    """Other bytes, as many, a moment later."""
    content = bytearray(file.read_bytes())
    content[-SIDE * SIDE :] = bytes(SIDE * SIDE)
    file.write_bytes(content)


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def replace(file: Path) -> None:
    shutil.copy(file, file.with_name("other"))
    file.with_name("other").replace(file)


CHANGES = [append, rewrite, truncate, replace, Path.unlink]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", ["gzip", "npy", "tiff"])
def test_input_that_changes_while_it_is_read_ends_the_run(
    folder: Path, change: Callable[[Path], None], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(folder / "raw.npy", stack())
    path = "raw.npy" if kind == "npy" else WRITERS[kind](folder, [])
    file = folder / ("scan_039.tif" if kind == "tiff" else path)
    write_recipe(folder, RESPONSE, path)
    noted = Recorder.written

    def changed(self: Recorder, key: Any) -> None:
        noted(self, key)
        if len(self.ledger.history.done) == 1 and file.exists() and not (folder / "changed").exists():
            (folder / "changed").touch()
            change(file)

    monkeypatch.setattr(Recorder, "written", changed)
    done = run(folder, code=1)
    assert str(file) in done.stderr
    assert "the run began" in done.stderr
    assert not (folder / "out.zarr").exists()
    assert done.stderr.count("error: ") == 1


@pytest.mark.parametrize("which", ["dark.npy", "raw.zarr/data/c/0/0/0"])
def test_what_is_read_only_once_is_looked_at_again_before_the_end(folder: Path, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(folder / "dark.npy", stack()[:1])
    write_recipe(folder, RESPONSE + 'dark = "dark.npy"\n', write_zarr(folder, []))
    noted = Recorder.written

    def changed(self: Recorder, key: Any) -> None:
        noted(self, key)
        if len(self.ledger.history.done) == FRAMES // DEPTH:
            append(folder / which)

    monkeypatch.setattr(Recorder, "written", changed)
    done = run(folder, code=1)
    assert which.partition("/")[0] in done.stderr
    assert "has changed while the run read it" in done.stderr
    assert "goes on from there" not in done.stderr
    assert not list(folder.glob("*out*"))


# -------------------------------------------------------------------------------------------------------- the reader


def test_tasks_that_are_done_twice_note_damage_once(folder: Path) -> None:
    path = write_gzip(folder, [3, 4, 9])
    notes = folder / "notes"
    with guarding(Guard(str(notes), found=True)):
        frames = open_frames(folder / path, chunks={"frame": DEPTH})
    for _ in range(2):
        assert np.flatnonzero(np.isnan(frames.compute()).all(axis=(1, 2))).tolist() == [3, 4, 9]
    assert [note["frames"] for note in read_notes(notes)] == [[3, 4], [9, 9]]


def test_frames_that_are_not_to_be_read_are_not(folder: Path) -> None:
    path = write_hdf5(folder)
    with guarding(Guard(str(folder / "notes"), found=True, unread=((2, 4), (38, 39)))):
        frames = open_frames(folder / path, chunks={"frame": DEPTH})
    assert np.flatnonzero(np.isnan(frames.compute()).all(axis=(1, 2))).tolist() == [2, 3, 4, 38, 39]
    assert not (folder / "notes").exists()


def test_every_reader_names_its_files(folder: Path) -> None:
    """Of each frame, through whatever lies around a reader."""
    frames = stack()
    for name, part in (("a.h5", frames[:10]), ("b.h5", frames[10:])):
        with h5py.File(folder / name, "w") as file:
            file["data"] = part
    layout = h5py.VirtualLayout(frames.shape, np.uint16)
    layout[:10], layout[10:] = (
        h5py.VirtualSource(folder / "a.h5", "data", (10, SIDE, SIDE)),
        h5py.VirtualSource(folder / "b.h5", "data", (30, SIDE, SIDE)),
    )
    with h5py.File(folder / "v.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    write_tiffs(folder, [])
    zarr.save_array(folder / "z.zarr", frames)
    np.save(folder / "n.npy", frames)
    cases: dict[Any, tuple[list[str], list[str]]] = {  # of frames 9, and 12
        (folder / "a.h5", folder / "b.h5"): (["a.h5"], ["b.h5"]),
        folder / "v.h5": (["a.h5", "v.h5"], ["b.h5", "v.h5"]),
        str(folder / "scan_*.tif"): (["scan_009.tif"], ["scan_012.tif"]),
        folder / "z.zarr": (["z.zarr", "zarr.json"],) * 2,
        folder / "n.npy": (["n.npy"],) * 2,
    }
    for path, expected in cases.items():
        for options in ({}, {"frames": slice(1, None)}, {"flip": "both"}):
            shift = 1 if "frames" in options else 0
            with guarding(Guard(str(folder / "notes"))):
                found = open_frames(list(path) if isinstance(path, tuple) else path, **options)
            layers = found.data.__dask_graph__().layers
            reader = next(layer[key].reader for name, layer in layers.items() if name.startswith("original-") for key in layer)
            for number, files in zip((9, 12), expected, strict=True):
                assert [Path(file).name for file in reader.files(number - shift, number - shift + 1)] == files
            assert set(reader.states) >= set(reader.files(0, 20))


# ------------------------------------------------------------------------------------------------- clusters, and memory


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
    frames = np.random.default_rng(0).poisson(1000, (10 * depth, side, side)).astype(np.uint16)
    with h5py.File(folder / "raw.h5", "w") as file:
        file.create_dataset("data", data=frames, chunks=(1, side, side), **hdf5plugin.Bitshuffle(cname="lz4"))
    for number in (0, 1, 30, 31, 32, 79):
        damage_chunk(folder / "raw.h5", "data", number)
    np.save(folder / "gain.npy", np.ones((side, side), np.float32))
    write_recipe(folder, STEPS[name], "raw.h5")
    peak, told = peak_of_run(["run", "r.toml", "--workers", "2", "--memory", "4GiB"], folder, code=3)
    assert_within_plan(peak, told)
