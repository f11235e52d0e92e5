"""Whole runs from the command line: results, memory measured from outside, and clean stops."""

import os
import re
import signal
import socket
import subprocess
import time

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import xarray as xr
from dask import delayed
from detcal_pipelines.graph import optimise_together
from detcal_pipelines.interrupts import noticed_interrupts
from distributed import LocalCluster

from detcal import load, open_frames, save, simulate
from detcal.response import Response, correct_response, fit_response
from tests.benchmarks.sampling import DETCAL, assert_no_growth, assert_within_plan, peak_of_run
from tests.pipelines.commands import change, change_step, detcal, detcal_alone, made_by

MIB = 2**20


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


def test_a_run_on_one_machine_listens_nowhere(folder, monkeypatch):
    """Nobody else gets in: no port is opened, not even one of this machine alone."""

    def refuse(*_):
        raise AssertionError("a run opened a port")

    for way in ("listen", "bind"):
        monkeypatch.setattr(socket.socket, way, refuse)
    detcal(folder, "run", "correct_response.toml", "--workers", "2", "--memory", "16GiB")


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
    save(load(folder / "response.zarr"), folder / "response.tif")
    change(folder, "correct_response.toml", "response.zarr", "response.tif")
    detcal(folder, "run", "correct_response.toml", "--workers", "1")
    images = [open_frames(folder / name) for name in ("ct.h5", "dark.h5", "flat.h5")]
    wanted = correct_response(images[0], load(folder / "response.zarr"), dark=images[1], flat=images[2], residual_sigma=3)
    np.testing.assert_array_equal(open_frames(folder / "corrected.tif"), wanted)


def test_a_fit_needs_no_dark(folder):
    change_step(folder, "fit_response.toml", 'dark = "dark.h5"', "")
    change(folder, "fit_response.toml", '"response.zarr"', '"without.tif"')
    detcal(folder, "run", "fit_response.toml")
    found, wanted = load(folder / "without.tif"), fit_response(open_frames(folder / "sweep.h5")).compute()
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
        done = detcal_alone(folder, "run", "fit_response.toml", "--scheduler", cluster.scheduler_address)
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
    assert_no_growth(peaks, 300 * image[0].size * 2)


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


def test_a_full_disk_leaves_the_old_output_whole(folder):
    """A limit on the size of files makes writing fail as a full disk does, in the workers too."""
    change(folder, "correct_response.toml", "# residual_sigma", "residual_sigma")
    save(load(folder / "response.zarr"), folder / "response.tif")
    change(folder, "correct_response.toml", "response.zarr", "response.tif")
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
