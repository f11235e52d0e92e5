"""Hot pixels of a stack: what they are, against a plain count; their mask through files and in other steps; and bounded memory."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.template import render

from detcal import open_frames, save
from detcal.azimuthal import build_bins, find_hot_pixels, integrate, outlier_mask
from detcal.errors import InputError
from tests.azimuthal.rings import make_bins, random_rings, random_variance
from tests.pipelines.commands import change, detcal
from tests.reference import azimuthal as reference
from tests.sensor.test_sensor_run import PONI, SHAPE

HOT, DEAD, BLINKING = (2, 3), (9, 11), (5, 20)


def stack(rng, shape, count=9):
    """Counts with a hot and a dead pixel, one that is hot in four frames, and zingers; some that are not measured."""
    frames = rng.poisson(400, (count, *shape)).astype(np.float32)
    frames[rng.random(frames.shape) < 0.01] = 5e4
    frames[rng.random(frames.shape) < 0.03] = np.nan
    frames[:, HOT[0], HOT[1]], frames[:, DEAD[0], DEAD[1]], frames[:4, BLINKING[0], BLINKING[1]] = 9e4, 0, 7e4
    return frames


def counted(frames, bins, share, variance=None, model="azimuthal"):
    """The same, pixel by pixel, in float64."""
    read, left_out = np.zeros((2, frames[0].size))
    for number, frame in enumerate(frames):
        noise = None if variance is None else variance[number]
        for ring in range(len(bins.centres)):
            entries = reference.entries_of(frame, bins, ring, noise)
            kept = reference.clip(*entries, model, 3.0, 9)
            pixels = bins.indices.values[slice(*bins.indptr.values[ring : ring + 2])][reference.measured(frame, bins, ring, noise)]
            read[pixels] += 1
            left_out[pixels] += ~kept
    return (left_out > share * read).reshape(frames[0].shape)


@pytest.mark.parametrize("share", [0, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("given", [False, True])
def test_pixels_that_are_outliers_in_most_frames(share, given):
    rng = np.random.default_rng(3)
    bins = random_rings(rng, (40, 30))
    frames = stack(rng, bins.shape)
    variance = 10 * random_variance(rng, frames.shape) if given else None
    wanted = counted(frames, bins, share, variance, "given" if given else "azimuthal")
    found = find_hot_pixels(frames, bins, share=share, threshold=3.0, max_iterations=9, variance=variance)
    assert (found.dims, found.dtype, found.name) == (("y", "x"), np.bool_, "hot_pixels")
    np.testing.assert_array_equal(found, wanted)
    assert wanted.any()


def test_hot_and_dead_ones_are_found_and_spots_are_not():
    """The one that is hot in four of nine frames is a spot that passes by, unless fewer are asked for."""
    rng = np.random.default_rng(3)
    bins = make_bins(np.arange(1200).reshape(40, 30) // 300)
    frames = stack(rng, bins.shape)
    frames[2], frames[:, 30, 1] = np.nan, np.nan  # a frame, and a pixel, without a reading
    assert list(zip(*np.nonzero(find_hot_pixels(frames, bins).values), strict=True)) == [HOT, DEAD]
    assert list(zip(*np.nonzero(find_hot_pixels(frames, bins, share=0.3).values), strict=True)) == [HOT, BLINKING, DEAD]


def test_frames_of_which_nothing_was_measured_say_nothing():
    """Their masks are True all over; a pixel in no ring is not hot whatever it reads."""
    bins = make_bins(np.where(np.arange(400) < 390, 0, -1).reshape(20, 20))
    frames = np.random.default_rng(0).poisson(100, (3, 20, 20)).astype(float)
    frames[1:] = np.nan
    frames[:, 19, 12] = 1e6
    assert outlier_mask(frames, bins).values[1:].all()
    assert not find_hot_pixels(frames, bins).values.any()


def test_blocks_and_partial_sums_do_not_matter():
    rng = np.random.default_rng(4)
    bins = random_rings(rng, (40, 30), split=True)
    frames = stack(rng, bins.shape, 40)
    whole = find_hot_pixels(frames, bins, share=0.2).values
    blocks = da.from_array(frames, chunks=(3, 7, -1))
    np.testing.assert_array_equal(find_hot_pixels(blocks, bins, share=0.2, partial_sums=1), whole)
    np.testing.assert_array_equal(find_hot_pixels(blocks, bins, share=0.2, partial_sums=5), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 1}, "expected a share of the frames from 0 to below 1, got 1"),
        ({"share": -0.1}, "from 0 to below 1, got -0.1"),
        ({"share": np.nan}, "from 0 to below 1, got nan"),
        ({"share": "most"}, "from 0 to below 1, got 'most'"),
        ({"partial_sums": 0}, "expected partial_sums of at least 1, got 0"),
        ({"threshold": -1}, "expected a threshold of 0 or more"),
        ({"error_model": "no"}, "needs an error model"),
    ],
)
def test_requests_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        find_hot_pixels(np.ones((2, 3, 4)), make_bins(np.zeros((3, 4), int)), **options)


@pytest.fixture
def folder(tmp_path):
    """A geometry, and a detector with hot pixels."""
    frames = np.random.default_rng(0).poisson(100, (20, *SHAPE)).astype(np.int32)
    frames[:, ::40, ::30] += 10_000
    (tmp_path / "detector.poni").write_text(PONI)
    save(frames, tmp_path / "scan.h5")
    for name in ("find_hot_pixels", "integrate", "fit_response"):
        (tmp_path / f"{name}.toml").write_text(render(name))
    return tmp_path


def test_a_run_writes_a_mask_that_other_steps_take(folder):
    """By `save`, too, in files of other programs."""
    change(folder, "find_hot_pixels.toml", "# npt = 1000", "npt = 50")
    detcal(folder, "run", "find_hot_pixels.toml", "--workers", "2")
    found = xr.open_zarr(folder / "hot_pixels.zarr").hot_pixels
    frames = open_frames(folder / "scan.h5")
    wanted = find_hot_pixels(frames, build_bins(folder / "detector.poni", npt=50))
    np.testing.assert_array_equal(found, wanted)
    assert found.values[::40, ::30].mean() > 0.9

    for name in ("hot_pixels.zarr", "hot_pixels.h5", "hot_pixels.edf", "hot_pixels.tif"):
        if not (folder / name).exists():
            save(wanted, folder / name)
        change(folder, "integrate.toml", "# mask = ", "mask = ")
        change(folder, "integrate.toml", "mask.edf", name)
        detcal(folder, "run", "integrate.toml", "--workers", "2", "--overwrite")
        without = integrate(frames, build_bins(folder / "detector.poni", mask=wanted)).compute()
        xr.testing.assert_equal(xr.open_zarr(folder / "integrated.zarr").drop_attrs(), without.drop_attrs())
        change(folder, "integrate.toml", f'mask = "{name}"', '# mask = "mask.edf"')
    assert float(without.intensity.max()) < 1000


def test_the_mask_goes_into_steps_of_other_subjects(folder):
    """The fit of a response is one that takes a mask."""
    save(find_hot_pixels(open_frames(folder / "scan.h5"), build_bins(folder / "detector.poni", npt=50)), folder / "first.zarr")
    (folder / "sweep.h5").symlink_to(folder / "scan.h5")
    change(folder, "fit_response.toml", '# mask = "first.zarr"', 'mask = "first.zarr"')
    change(folder, "fit_response.toml", "# sigma = 50.0", "sigma = 2.0")
    change(folder, "fit_response.toml", "# cutoff = 300.0", "cutoff = 10.0")
    change(folder, "fit_response.toml", "dark = ", "# dark = ")
    detcal(folder, "run", "fit_response.toml", "--workers", "2")
    assert xr.open_zarr(folder / "response.zarr").mask.values[::40, ::30].mean() > 0.9
