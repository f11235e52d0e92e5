"""Runs on a cluster: within the memory of each worker, whichever of them does the work, and one clear line when it goes wrong."""

import os
import re
import socketserver
import subprocess
import threading
import time

import h5py
import numpy as np
import psutil
import pytest
from detcal_pipelines.template import render
from distributed import Client, LocalCluster

from detcal import load, save, simulate
from detcal.distortion import DistortionMap
from detcal.response import Response
from detcal.sensor import PlanarGeometry, build_psf
from detcal.stores.targets.crono_writer import write_crono
from tests.benchmarks.sampling import DETCAL, planned_peak
from tests.pipelines.test_run import detcal, fails

MIB = 2**20
SIDE = 512
HELD_SECONDS = 3
PONI = """\
poni_version: 2.1
Detector: Detector
Detector_config: {"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [512, 512], "orientation": 3}
Distance: 0.1
Poni1: 0.02
Poni2: 0.02
Rot1: 0
Rot2: 0
Rot3: 0
Wavelength: 7e-11
"""
RECIPES = {
    "fit_response": "",
    "correct_response": "",
    "build_psf": "tile_rows = 32\nthickness_m = 4.5e-4\nmaterial = 'Si'\n",
    "deconvolve": "",
    "correct_distortion": "variance = 'poisson'\ncoverage = true\n",
    "sigma_clip": "",
    "convert_crono": "chunk_spectra = 128\n",
    "regrid_xrf": "tile_lines = 2\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Raw files, calibrations and recipes of small blocks."""
    place = tmp_path_factory.mktemp("cluster")
    frame = np.random.default_rng(0).poisson(3000, (SIDE, SIDE)).astype(np.uint16)
    with h5py.File(place / "raw.h5", "w") as file:
        stack = file.create_dataset("data", (240, SIDE, SIDE), np.uint16)
        for number in range(len(stack)):
            stack[number] = frame // (1 + number % 5)
    save(np.full((SIDE, SIDE), 100, np.uint16), place / "dark.h5")
    save(np.full((SIDE, SIDE), 3000, np.uint16), place / "flat.h5")
    save(Response.from_gain(np.ones((SIDE, SIDE))), place / "response.zarr")
    corners = np.stack(np.meshgrid(*2 * [np.arange(SIDE + 1.0)], indexing="ij"), axis=-1) * 1e-4
    save(DistortionMap.of_corners(corners, (1e-4, 1e-4), np.zeros((SIDE, SIDE), bool)), place / "distortion.zarr")
    plane = PlanarGeometry((SIDE, SIDE), (1e-4, 1e-4), 0.1, (0.02, 0.02))
    save(build_psf(plane, thickness_m=4.5e-4, attenuation_per_m=1500.0), place / "psf.zarr")
    (place / "detector.poni").write_text(PONI)
    write_crono(simulate.maxrf_scan(40, 60, channels=2048, counts=0.3), place / "scan.h5")
    for name, options in RECIPES.items():
        text = re.sub(r'"(sweep|ct|scan)\.h5"', '"raw.h5"', render(name)) if "xrf" not in name and "crono" not in name else render(name)
        text = text.replace("# chunk_frames = 16", "chunk_frames = 8 ").replace("[output]", options + "[output]")
        text = re.sub(r'path = "(\w+)\.zarr"', r'path = "new_\1.zarr"', text)
        (place / f"{name}.toml").write_text(text)
    return place


@pytest.fixture(scope="module")
def cluster():
    """Three workers of one thread, which listen on this machine alone."""
    with LocalCluster(n_workers=3, threads_per_worker=1, memory_limit="1.2GiB", dashboard_address="127.0.0.1:0") as found:
        yield found


def processes_of(cluster: LocalCluster) -> list[psutil.Process]:
    with Client(cluster) as client:
        return [psutil.Process(number) for number in client.run(os.getpid).values()]


@pytest.mark.parametrize("held_back", [1, 2])
@pytest.mark.parametrize("name", RECIPES)
def test_no_worker_outgrows_the_plan_where_others_are_held_back(folder, cluster, name, held_back):
    """Some workers are stopped until the others can go no further: what these do not do waits there."""
    workers = processes_of(cluster)
    run = subprocess.Popen(
        [*DETCAL, "run", f"{name}.toml", "--scheduler", cluster.scheduler_address, "--overwrite"], cwd=folder, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    peak, began, stopped = 0, None, []
    try:
        while run.poll() is None:
            began = began or (time.monotonic() if list(folder.glob(".new_*.partial")) else None)
            if began and not stopped and time.monotonic() - began < HELD_SECONDS:
                stopped = [worker.suspend() or worker for worker in workers[:held_back]]
            if began and time.monotonic() - began > HELD_SECONDS:
                for worker in stopped:
                    worker.resume()
            peak = max(peak, *(worker.memory_info().rss for worker in workers))
            time.sleep(0.02)
    finally:
        for worker in workers:
            worker.resume()
    printed = run.communicate()[0]
    assert run.returncode == 0, printed
    assert peak <= planned_peak(printed)


def test_a_fit_does_not_depend_on_the_cluster(folder, cluster):
    detcal(folder, "run", "fit_response.toml", "--scheduler", cluster.scheduler_address, "--overwrite")
    found = load(folder / "new_response.zarr").compute()
    detcal(folder, "run", "fit_response.toml", "--workers", "2", "--overwrite")
    np.testing.assert_array_equal(found.gain, load(folder / "new_response.zarr").gain)


# ------------------------------------------------------------------------------------------------------- bad input


def test_a_port_that_speaks_another_language(folder):
    """A server that says nothing until it is asked, as the dashboard."""

    class Silent(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(2**16)
            time.sleep(20)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        start = time.monotonic()
        message = fails(folder, "run", "fit_response.toml", "--scheduler", f"tcp://127.0.0.1:{server.server_address[1]}", "--overwrite")
        server.shutdown()
    assert "no scheduler answers" in message
    assert "schedulers listen at tcp://host:8786" in message
    assert time.monotonic() - start < 60  # of which 8 s are waited for an answer, and the rest is Python's own start on a busy machine


def test_certificates_that_are_not_configured(folder):
    message = fails(folder, "run", "fit_response.toml", "--scheduler", "tls://127.0.0.1:9", "--overwrite")
    assert "needs certificates, and none are configured: set distributed.comm.tls.ca-file" in message


def test_workers_that_are_all_gone(folder):
    with LocalCluster(n_workers=1, threads_per_worker=1, memory_limit="1.2GiB", dashboard_address="127.0.0.1:0") as cluster:
        run = subprocess.Popen(
            [*DETCAL, "run", "correct_response.toml", "--scheduler", cluster.scheduler_address, "--overwrite"], cwd=folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while not list(folder.glob(".new_corrected.zarr.*")) and run.poll() is None:
            time.sleep(0.05)
        cluster.scale(0)
        errors = run.communicate(timeout=60)[1]
    assert run.returncode == 1
    assert errors.strip() == "error: the cluster has no workers left: look at their logs, start some, then run again"
    assert not list(folder.glob(".*"))


def test_a_cluster_without_workers(folder):
    with LocalCluster(n_workers=0, dashboard_address="127.0.0.1:0") as cluster:
        message = fails(folder, "run", "fit_response.toml", "--scheduler", cluster.scheduler_address, "--overwrite")
    assert message == "the cluster has no workers: start some, then run again"
