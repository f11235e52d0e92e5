"""Whole runs from the command line: results, memory measured from outside, clean stops, and one clear line for bad input."""

import os
import re
import signal
import subprocess
import time
import warnings
from contextlib import chdir
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner, Result
from dask import delayed
from detcal_pipelines.chain import build
from detcal_pipelines.cli import main, show_once
from detcal_pipelines.graph import optimise_together
from detcal_pipelines.interrupts import noticed_interrupts
from detcal_pipelines.recipe import read_recipe
from distributed import LocalCluster

from detcal import load, open_frames, save, simulate
from detcal.response import Response, correct_response, fit_response
from tests.benchmarks.sampling import DETCAL, assert_within_plan, peak_of_run

MIB = 2**20


def detcal(folder: Path, *arguments: str, fine: bool = True) -> subprocess.CompletedProcess:
    done = subprocess.run([*DETCAL, *arguments], cwd=folder, capture_output=True, text=True, timeout=240)
    if fine:
        assert done.returncode == 0, done.stderr
    return done


def fails(folder: Path, *arguments: str, code: int = 2) -> str:
    """The message of a command that must fail, which must be one clear message and no traceback."""
    before = sorted(folder.rglob("*"))
    if arguments[0] == "run":  # which may start workers
        done = detcal(folder, *arguments, fine=False)
        status = done.returncode
        assert "Traceback" not in done.stderr
    else:
        done = in_process(folder, *arguments)
        status = done.exit_code
        assert isinstance(done.exception, SystemExit), repr(done.exception)
    assert status == code, done.stdout + done.stderr
    assert done.stderr.count("error: ") == 1
    assert sorted(folder.rglob("*")) == before, "nothing may be written"
    return done.stderr.partition("error: ")[2].strip()


def in_process(folder: Path, *arguments: str) -> Result:
    """A command that starts no workers, without the seconds that a process of its own takes to import all."""
    show_once.cache_clear()
    with chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("default")
        return CliRunner().invoke(main, arguments)


def made_by(recipe: Path) -> Any:
    """What a recipe makes, without workers, in blocks of 16 frames."""
    return build(read_recipe(recipe), 16).compute()


@pytest.fixture(scope="module")
def detector():
    return simulate.detector((128, 160), dead=3, stuck=2)


@pytest.fixture(scope="module")
def finished(detector, tmp_path_factory):
    """A folder with raw files and what the two recipes made of them."""
    folder = tmp_path_factory.mktemp("run")
    save(simulate.beam_sweep(detector, 40), folder / "sweep.h5")
    save(simulate.dark_frames(detector), folder / "dark.h5")
    save(simulate.flat_frames(detector), folder / "flat.h5")
    save(simulate.ct_frames(detector, 50), folder / "ct.h5")
    for name in ("fit_response", "correct_response"):
        detcal(folder, "init", name)
        detcal(folder, "check", f"{name}.toml")
        detcal(folder, "run", f"{name}.toml", "--memory", "1GiB", "--workers", "2")
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """Links to the raw files and the response, and fresh recipes."""
    for name in ("sweep.h5", "dark.h5", "flat.h5", "ct.h5", "response.zarr"):
        (tmp_path / name).symlink_to(finished / name)
    for name in ("fit_response", "correct_response"):
        detcal(tmp_path, "init", name)
    return tmp_path


def change(folder: Path, recipe: str, old: str, new: str) -> None:
    text = (folder / recipe).read_text()
    assert old in text
    (folder / recipe).write_text(text.replace(old, new))


def change_step(folder: Path, recipe: str, old: str, new: str) -> None:
    """The same below [[steps]]: [input] has keys of the same names."""
    above, header, below = (folder / recipe).read_text().partition("[[steps]]")
    assert old in below
    (folder / recipe).write_text(above + header + below.replace(old, new))


# --------------------------------------------------------------------------------------------------------- results


def test_runs_give_what_the_library_gives(finished):
    cal = load(finished / "response.zarr")
    assert isinstance(cal, Response)
    dark, flat = open_frames(finished / "dark.h5"), open_frames(finished / "flat.h5")
    np.testing.assert_allclose(cal.gain, fit_response(open_frames(finished / "sweep.h5"), dark).gain, rtol=1e-6)
    found = xr.open_zarr(finished / "corrected.zarr").corrected
    np.testing.assert_array_equal(found, correct_response(open_frames(finished / "ct.h5"), cal, dark=dark, flat=flat))
    assert found.attrs["units"] == "1"


def test_gain_of_the_run_is_the_true_one(finished, detector):
    cal = load(finished / "response.zarr").compute()
    np.testing.assert_array_equal(cal.mask, detector.bad)
    ratio = (cal.gain / detector.gain).where(~cal.mask)
    # the gain is relative to the neighbourhood, whose own mean varies slowly
    assert float(ratio.std()) < 0.01


def test_output_says_where_it_comes_from(finished):
    attributes = xr.open_zarr(finished / "corrected.zarr").attrs
    assert "correct_response" in attributes["detcal_recipe"]
    assert attributes["detcal_version"]


def test_plan_and_tree_show_what_there_is(folder, finished):
    shown = detcal(folder, "plan", "fit_response.toml", "--memory", "2GiB", "--workers", "2").stdout
    assert re.search(r"\d+ × \d+ frames, 1.562 MiB in", shown)
    assert re.search(r"peak .* of 2 GiB", shown)
    tree = detcal(finished, "tree", "response.zarr").stdout
    assert "gain  (128, 160) float32" in tree
    assert "@detcal_type = Response" in tree


def test_other_outputs_and_inputs(folder):
    change(folder, "correct_response.toml", '"corrected.zarr"', '"corrected.tif"')
    change(folder, "correct_response.toml", "# residual_sigma", "residual_sigma")
    detcal(folder, "run", "correct_response.toml", "--memory", "1GiB", "--workers", "1")
    images = [open_frames(folder / name) for name in ("ct.h5", "dark.h5", "flat.h5")]
    wanted = correct_response(images[0], load(folder / "response.zarr"), dark=images[1], flat=images[2], residual_sigma=3)
    np.testing.assert_array_equal(open_frames(folder / "corrected.tif"), wanted)


def test_a_fit_needs_no_dark(folder):
    change_step(folder, "fit_response.toml", 'dark = "dark.h5"', "")
    change(folder, "fit_response.toml", '"response.zarr"', '"without.zarr"')
    detcal(folder, "run", "fit_response.toml")
    found, wanted = load(folder / "without.zarr"), fit_response(open_frames(folder / "sweep.h5")).compute()
    np.testing.assert_array_equal(found.gain, wanted.gain)


def test_a_second_fit_can_leave_out_the_bad_pixels_of_the_first(folder):
    change(folder, "fit_response.toml", '# mask = "first.zarr"', 'mask = "response.zarr"')
    change(folder, "fit_response.toml", 'path = "response.zarr"', 'path = "second.zarr"')
    first, second = load(folder / "response.zarr").compute(), made_by(folder / "fit_response.toml")
    wanted = fit_response(open_frames(folder / "sweep.h5"), open_frames(folder / "dark.h5"), mask=first.mask)
    np.testing.assert_allclose(second.gain, wanted.gain, rtol=1e-6)
    assert (second.gain != first.gain).sum() > 1000


def test_a_running_cluster_is_used(folder):
    change(folder, "fit_response.toml", '"response.zarr"', '"new.zarr"')
    with LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="700MiB", dashboard_address="127.0.0.1:0") as cluster:
        done = detcal(folder, "run", "fit_response.toml", "--scheduler", cluster.scheduler_address)
    assert "Wrote" in done.stdout
    np.testing.assert_allclose(load(folder / "new.zarr").gain, load(folder / "response.zarr").gain, rtol=1e-6)


def test_what_outputs_share_runs_once():
    runs = []

    def both(number: int) -> tuple[np.ndarray, np.ndarray]:
        runs.append(number)
        return np.zeros(number), np.ones(number)

    parts = [delayed(both, nout=2)(number) for number in (3, 4)]
    arrays = [da.concatenate([da.from_delayed(part[k], (3 + i,), float) for i, part in enumerate(parts)]) + 1 for k in (0, 1)]
    graph, keys = optimise_together(arrays)
    blocks = dask.get(graph, keys)
    found = [np.concatenate(blocks[:2]), np.concatenate(blocks[2:])]
    np.testing.assert_array_equal(found, [np.full(7, 1.0), np.full(7, 2.0)])
    assert sorted(runs) == [3, 4]


# ---------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("name", ["fit_response", "correct_response"])
def test_memory_stays_under_the_plan_and_does_not_grow_with_the_frames(tmp_path, name):
    """Twice the frames, the same peak; benchmarks/bench_memory.py does the same with 8 GiB and more."""
    detector = simulate.detector((512, 512))
    save(Response.from_gain(detector.gain), tmp_path / "response.zarr")
    image = simulate.flat_frames(detector, 1).compute()
    for part in ("dark", "flat"):
        save(image // 100 if part == "dark" else image, tmp_path / f"{part}.h5")
    detcal(tmp_path, "init", name)
    change(tmp_path, f"{name}.toml", "# chunk_frames", "chunk_frames")
    raw = re.search(r'path = "(\w+.h5)"', (tmp_path / f"{name}.toml").read_text())[1]
    peaks = []
    for frames in (300, 600):
        with h5py.File(tmp_path / raw, "w") as file:
            stack = file.create_dataset("data", (frames, 512, 512), np.uint16)
            for frame in range(frames):
                stack[frame] = image[0] // (1 + frame % 7)
        peak, output = peak_of_run(["run", f"{name}.toml", "--memory", "800MiB", "--workers", "2", "--overwrite"], tmp_path)
        assert_within_plan(peak, output)
        peaks.append(peak)
    assert peaks[1] < 1.05 * peaks[0]


# ----------------------------------------------------------------------------------------------------------- stops


def test_ctrl_c_stops_cleanly_and_writes_nothing(folder):
    ct = open_frames(folder / "ct.h5")
    save(np.concatenate([ct.values] * 40), folder / "ct.h5", overwrite=True)
    change(folder, "correct_response.toml", "# chunk_frames = 16", "chunk_frames = 1")
    run = subprocess.Popen(
        [*DETCAL, "run", "correct_response.toml", "--workers", "2"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(folder.glob(".corrected.zarr.*")) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert errors.strip() == "stopped; no output was written"
    assert not list(folder.glob(".*"))
    assert not (folder / "corrected.zarr").exists()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_is_not_lost_while_an_object_is_deleted():
    class Unlucky:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with noticed_interrupts() as stop_if_interrupted:
        stop_if_interrupted()
        Unlucky()
        with pytest.raises(KeyboardInterrupt):
            stop_if_interrupted()
    assert signal.getsignal(signal.SIGINT) == before


# ------------------------------------------------------------------------------------------------------- bad input


def test_an_output_that_exists_is_left_alone(folder):
    message = fails(folder, "run", "fit_response.toml")
    assert message == f"{folder / 'response.zarr'} exists already: choose another name, or overwrite it (overwrite=True, --overwrite)"


def test_missing_files_and_datasets(folder):
    change(folder, "fit_response.toml", '"sweep.h5"', '"sweeep.h5"')
    change(folder, "fit_response.toml", '"dark.h5"', '"drak.h5"')
    message = fails(folder, "run", "fit_response.toml")
    assert "2 mistakes" in message
    assert "input.path (line 6): no such file" in message
    assert re.search(r"steps\[0\]\.dark\.path \(line \d+\): no such file", message)
    change(folder, "correct_response.toml", '# dataset = "/entry/data/data"', 'dataset = "/nowhere"')
    assert "no dataset /nowhere in" in fails(folder, "check", "correct_response.toml")


def test_a_truncated_file(folder):
    whole = (folder / "sweep.h5").read_bytes()
    (folder / "cut.h5").write_bytes(whole[: len(whole) // 2])
    change(folder, "fit_response.toml", '"sweep.h5"', '"cut.h5"')
    message = fails(folder, "run", "fit_response.toml", "--overwrite")
    assert message.startswith(f"cannot read {folder / 'cut.h5'}: ")
    assert "\n" not in message


def test_shapes_that_disagree(folder):
    save(np.zeros((3, 20, 20)), folder / "small.h5")
    change(folder, "fit_response.toml", '"dark.h5"', '"small.h5"')
    message = fails(folder, "check", "fit_response.toml")
    assert message == "expected a dark of shape (128, 160) (y, x), as the frames, got (20, 20)"
    change(folder, "correct_response.toml", '"ct.h5"', '"small.h5"')
    assert "expected frames of shape (128, 160) (y, x), as the response, got (20, 20)" in fails(folder, "plan", "correct_response.toml")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((5, 128, 160), np.float32), "at least 2 usable frames in the sweep, found 0"),
        (np.full((5, 128, 160), np.nan, np.float32), "at least 2 usable frames in the sweep, found 0"),
        (np.full((1, 128, 160), 5000, np.uint16), "expected a sweep of at least 2 frames, got 1"),
    ],
)
def test_sweeps_that_cannot_be_fitted(folder, frames, message):
    save(frames, folder / "bad.h5")
    change(folder, "fit_response.toml", '"sweep.h5"', '"bad.h5"')
    change(folder, "fit_response.toml", '"response.zarr"', '"new.zarr"')
    assert message in fails(folder, "run", "fit_response.toml", "--workers", "1")


def test_a_dark_brighter_than_the_sweep(folder):
    save(np.full((128, 160), 60000, np.uint16), folder / "bright.h5")
    change(folder, "fit_response.toml", '"dark.h5"', '"bright.h5"')
    change(folder, "fit_response.toml", '"response.zarr"', '"new.zarr"')
    assert "check that the dark is not brighter than the sweep" in fails(folder, "run", "fit_response.toml", "--workers", "1")


def test_an_all_zero_flat(folder):
    save(np.zeros((128, 160), np.uint16), folder / "zero.h5")
    change(folder, "correct_response.toml", '"flat.h5"', '"zero.h5"')
    assert "expected a flat that is brighter than its dark" in fails(folder, "run", "correct_response.toml", "--workers", "1")


def test_a_budget_that_is_too_small(folder):
    change(folder, "fit_response.toml", '"response.zarr"', '"new.zarr"')
    assert "the budget is 100 MiB: the least is" in fails(folder, "run", "fit_response.toml", "--memory", "100MiB")


def test_a_scheduler_that_does_not_answer(folder):
    change(folder, "fit_response.toml", '"response.zarr"', '"new.zarr"')
    assert "no scheduler answers at tcp://127.0.0.1:9" in fails(folder, "run", "fit_response.toml", "--scheduler", "tcp://127.0.0.1:9")


def test_what_is_neither_a_response_nor_gains(folder):
    save(xr.Dataset({"a": ("x", np.arange(3))}), folder / "other.zarr")
    change(folder, "correct_response.toml", '"response.zarr"', '"other.zarr"')
    assert "no dataset of shape (frame, y, x)" in fails(folder, "check", "correct_response.toml")


def test_a_response_in_hdf5_and_masks_of_any_kind_are_taken(folder):
    response = load(folder / "response.zarr")
    save(response, folder / "response.h5")
    save(response.mask, folder / "mask.zarr")
    change(folder, "correct_response.toml", '"response.zarr"', '"response.h5"')
    detcal(folder, "run", "correct_response.toml", "--workers", "1")
    images = [open_frames(folder / name) for name in ("ct.h5", "dark.h5", "flat.h5")]
    np.testing.assert_array_equal(
        open_frames(folder / "corrected.zarr"), correct_response(images[0], response, dark=images[1], flat=images[2])
    )
    for mask in ("mask.zarr", "response.h5", "response.zarr"):
        recipe = detcal_recipe(folder, mask)
        np.testing.assert_array_equal(recipe.steps[0].mask.open(), response.mask)


def detcal_recipe(folder, mask):
    change(folder, "fit_response.toml", '# mask = "first.zarr"', f'mask = "{mask}"')
    recipe = read_recipe(folder / "fit_response.toml")
    change(folder, "fit_response.toml", f'mask = "{mask}"', '# mask = "first.zarr"')
    return recipe


@pytest.mark.parametrize("output", [".", "", "sweep.h5", "dark.h5"])
def test_an_output_never_takes_the_place_of_an_input(folder, output):
    change(folder, "fit_response.toml", 'path = "response.zarr"', f'path = "{output}"')
    for command in ("check", "run"):
        assert "would take the place of the input" in fails(folder, command, "fit_response.toml", "--overwrite")
    assert (folder / "sweep.h5").exists()


def test_a_folder_that_is_no_store_is_not_overwritten(folder):
    (folder / "notes").mkdir()
    (folder / "notes" / "notes.txt").write_text("kept")
    change(folder, "fit_response.toml", 'path = "response.zarr"', 'path = "notes"')
    assert "not a zarr store" in fails(folder, "run", "fit_response.toml", "--overwrite")
    assert (folder / "notes" / "notes.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('path = "response.zarr"', 'path = "response.tif"', "a .tif holds one stack or image"),
        ("# shard_frames", "shard_frames", "expected sizes"),
        ('path = "response.zarr"', 'path = "nowhere/response.zarr"', "no such folder"),
    ],
)
def test_check_finds_what_run_would_refuse(folder, old, new, message):
    change(folder, "fit_response.toml", old, new)
    assert message in fails(folder, "check", "fit_response.toml", "--overwrite")


def test_other_wrong_words_on_the_command_line(folder):
    assert "Is a directory" in fails(folder, "check", ".")
    for memory in ("0", "-1GiB", "many"):
        done = detcal(folder, "plan", "fit_response.toml", "--memory", memory, fine=False)
        assert done.returncode == 2
        assert "expected a size such as 1GiB" in done.stderr
    assert "of memory for the demo, got 1 MiB" in fails(folder, "demo", "--memory", "1MiB")


def test_init_does_not_overwrite(folder):
    assert "fit_response.toml exists already" in fails(folder, "init", "fit_response")


def test_a_full_disk_leaves_the_old_output_whole(folder):
    """A limit on the size of files makes writing fail as a full disk does, in the workers too."""
    change(folder, "correct_response.toml", "# residual_sigma", "residual_sigma")
    detcal(folder, "run", "correct_response.toml", "--workers", "1")
    before = {path: path.read_bytes() for path in (folder / "corrected.zarr").rglob("*") if path.is_file()}
    command = " ".join(DETCAL)
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 300; {command} run correct_response.toml --workers 1 --overwrite"],
        cwd=folder, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "no room left on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in (folder / "corrected.zarr").rglob("*") if path.is_file()} == before
    assert not list(folder.glob(".*"))
