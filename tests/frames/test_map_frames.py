"""A kernel over the blocks of frames: what it gets, and what its result keeps of them."""

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from dask import delayed
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

from detcal import azimuthal, distortion, response, sensor
from detcal.frames.graph import map_frames

SHAPE = (6, 8)
OF_FRAMES, OF_PIXELS = {"sample", "angle"}, {"y", "gap"}


@pytest.fixture
def frames():
    counts = np.random.default_rng(0).uniform(1, 9, (5, *SHAPE)).astype(np.float32)
    coords = {
        "sample": "Si", "angle": ("frame", np.arange(5.0)), "y": np.arange(6.0), "gap": (("y", "x"), np.zeros(SHAPE, bool)),
    }  # fmt: skip
    return xr.DataArray(da.from_array(counts, chunks=(2, 3, 4)), coords, ("frame", "y", "x"), attrs={"source": "a.h5", "units": "counts"})


def test_pixelwise_kernels_get_the_parts_of_images_under_their_block(frames):
    image, other = np.arange(48.0).reshape(SHAPE), frames.data[::-1].rechunk((1, -1, -1))

    def kernel(block, beside, part, *, factor):
        assert block.shape[1:] == part.shape == (3, 4)
        return factor * (block + beside) * part

    found = map_frames(kernel, frames, {"factor": delayed(2)}, stacks=[other], images=[da.from_array(image)], whole=False)
    assert found.data.chunks == frames.data.chunks
    np.testing.assert_allclose(found, 2 * (frames.values + frames.values[::-1]) * image, rtol=1e-6)


def test_results_of_other_dimensions_have_blocks_of_the_same_frames(frames):
    def kernel(block):
        assert block.shape[1:] == SHAPE
        return np.stack([block.min(axis=1), block.max(axis=1)], axis=1)

    found = map_frames(kernel, frames, dims=("frame", "end", "column"), sizes={"end": 2, "column": 8}, name="ends")
    assert (found.name, found.dims, found.data.chunks) == ("ends", ("frame", "end", "column"), ((2, 2, 1), (2,), (8,)))
    assert set(found.coords) == OF_FRAMES
    np.testing.assert_array_equal(found, np.stack([frames.min("y"), frames.max("y")], axis=1))
    first = map_frames(lambda block: block[None], frames, dims=("quantity", "frame", "y", "x"), sizes={"quantity": 1})
    np.testing.assert_array_equal(first[0], frames)
    assert set(first.coords) == OF_FRAMES | OF_PIXELS


def identity(size):
    corners = np.stack(np.meshgrid(*(np.arange(each + 1.0) for each in size), indexing="ij"), axis=-1)
    return distortion.DistortionMap.of_corners(corners, (1.0, 1.0), np.zeros(size, bool))


def psf():
    return sensor.build_psf(sensor.PlanarGeometry(SHAPE, (1e-4, 1e-4), 1.0, (0.0, 0.0)), thickness_m=1e-3, attenuation_per_m=1e5)


def rings():
    return azimuthal.build_bins(Geometry(1.0, detector=Detector(1e-4, 1e-4, max_shape=SHAPE)), npt=2, unit="r_mm")


# What of the frames' coords a result keeps: those of its frames, and, where it has the same pixels, those of these
SAME_PIXELS = {
    "response": lambda frames: response.correct_response(frames, response.Response.from_gain(np.ones(SHAPE), sigma=1.0)),
    "deconvolve": lambda frames: sensor.deconvolve(frames, psf(), method="direct"),
    "variance": lambda frames: sensor.deconvolve(frames, psf(), variance=frames).variance,
    "blur": lambda frames: psf().apply(frames),
    "outliers": lambda frames: azimuthal.outlier_mask(frames, rings()),
}
OTHER_PIXELS = {
    "distortion": lambda frames: distortion.correct_distortion(frames, identity(SHAPE)),
    "coverage": lambda frames: distortion.correct_distortion(frames, identity(SHAPE), coverage=True).coverage,
    "and back": lambda frames: distortion.uncorrect(frames, identity(SHAPE)),
    "rings": lambda frames: azimuthal.integrate(frames, rings()).intensity.drop_vars("radial"),
    "background": lambda frames: azimuthal.radial_background(azimuthal.median_filter(frames, rings()).intensity, rings()),
}


@pytest.mark.parametrize("job", {**SAME_PIXELS, **OTHER_PIXELS})
def test_coords_of_frames_are_kept_in_one_way(frames, job):
    found = {**SAME_PIXELS, **OTHER_PIXELS}[job](frames)
    assert set(found.coords) == OF_FRAMES | (OF_PIXELS if job in SAME_PIXELS else set())
    np.testing.assert_array_equal(found.angle, frames.angle)


@pytest.mark.parametrize("job", ["response", "deconvolve", "blur", "distortion", "and back"])
def test_attributes_of_frames_are_kept_in_one_way(frames, job):
    found = {**SAME_PIXELS, **OTHER_PIXELS}[job](frames)
    assert found.source == "a.h5"
    assert np.isnan(found.missing_value)
