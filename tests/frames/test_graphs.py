"""How the tasks of a run lie in the graph that a cluster gets."""

from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.cluster import ClusterRun
from detcal_pipelines.graph import Window, optimise_together
from distributed import Client, LocalCluster, get_worker

from detcal import load, open_frames, save
from detcal.azimuthal import build_bins, outlier_mask, quantile_filter, sigma_clip
from detcal.distortion import DistortionMap, correct_distortion, uncorrect
from detcal.response import Response, correct_response
from detcal.sensor import PlanarGeometry, build_psf, deconvolve
from detcal.stores.targets.zarr_store import prepare_zarr
from tests.azimuthal.test_azimuthal_run import NO_MODEL

SHAPE = (40, 60)
PIXEL_M = (1e-4, 1e-4)
BLOCKS = 4


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A folder with frames and what they are corrected with."""
    folder = tmp_path_factory.mktemp("graphs")
    save(np.ones((4 * BLOCKS, *SHAPE), np.uint16), folder / "scan.h5")
    save(Response.from_gain(np.ones(SHAPE)), folder / "response.zarr")
    corners = np.stack(np.meshgrid(*(np.arange(size + 1.0) for size in SHAPE), indexing="ij"), axis=-1) * PIXEL_M
    save(DistortionMap.of_corners(corners, PIXEL_M, np.zeros(SHAPE, bool)), folder / "distortion.zarr")
    plane = PlanarGeometry(SHAPE, pixel_size_m=PIXEL_M, distance_m=0.1, poni_m=(0.0, 0.0))
    save(build_psf(plane, thickness_m=3e-4, material="Si", energy_kev=12), folder / "psf.zarr")
    (folder / "detector.poni").write_text(NO_MODEL)
    save(build_bins(folder / "detector.poni", npt=20, unit="r_mm", shape=SHAPE), folder / "bins.zarr")
    return folder


OPERATIONS = {
    "response": lambda frames, cal: correct_response(frames, cal("response")),
    "distortion": lambda frames, cal: correct_distortion(frames, cal("distortion")),
    "distortion with errors": lambda frames, cal: correct_distortion(frames, cal("distortion"), variance="poisson", coverage=True),
    "and back": lambda frames, cal: uncorrect(frames, cal("distortion")),
    "deconvolution": lambda frames, cal: deconvolve(frames, cal("psf")),
    "clipping": lambda frames, cal: sigma_clip(frames, cal("bins")),
    "quantiles": lambda frames, cal: quantile_filter(frames, cal("bins")),
    "outliers": lambda frames, cal: outlier_mask(frames, cal("bins")),
    "chain": lambda frames, cal: sigma_clip(
        deconvolve(correct_distortion(correct_response(frames, cal("response")), cal("distortion")), cal("psf")), cal("bins")
    ),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_frames_are_read_by_the_task_that_uses_them(stored, tmp_path, operation):
    """Were reading a task of its own, workers would read on while a calibration is made ready, beyond any plan."""
    result = operation(open_frames(stored / "scan.h5", chunks={"frame": 4}), lambda name: load(stored / f"{name}.zarr"))
    dataset = result if isinstance(result, xr.Dataset) else result.to_dataset(name="values")
    graph, _ = optimise_together(list(prepare_zarr(dataset, tmp_path / "out.zarr").values()))
    alone = [key for key in graph if str(key[0]).startswith("frames-")]
    assert not alone


class Nobody:
    """Who is told of what a cluster does, and takes no note of it."""

    def enter(self, window, stages):
        pass

    def begun(self, key):
        pass

    def written(self, key):
        pass

    def count(self, event):
        pass

    def live(self):
        pass


def test_workers_keep_nothing_of_blocks_that_are_written(tmp_path):
    """Each block's task that is kept, with all that it was told to do, is memory that grows with the data."""

    def count_tasks(block, block_info=None):
        (tmp_path / str(block_info[0]["array-location"][0][0])).write_text(str(len(get_worker().state.tasks)))
        return block

    writes = da.map_blocks(count_tasks, da.zeros(60, chunks=1), dtype=float)
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster, Client(cluster) as client:
        graph, keys = optimise_together([writes])
        ClusterRun(client, SimpleNamespace(begun=2), set(), lambda: None, print).compute(Nobody(), Window(graph, dict.fromkeys(keys), []))
    counts = [int(file.read_text()) for file in tmp_path.iterdir()]
    assert len(counts) == 60
    assert max(counts) < 20
