"""Deconvolution in blocks and on clusters, of files, and what it refuses."""

from dataclasses import replace
from functools import partial

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

from detcal import load, open_frames, save
from detcal.errors import InputError
from detcal.sensor import calibration, deconvolve
from tests.sensor.blurs import METHODS, frames_of, psf_of, solved, with_gaps

# ------------------------------------------------------------------------------------------------- chunks, schedulers


@pytest.fixture(scope="module")
def many():
    """Frames of every kind, and what is found in them all at once: some take MLEM long, some end at once."""
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 40)
    frames[3], frames[7], frames[20] = 0, np.nan, 1e12 * frames[20]
    frames[10:15] = frames_of(psf, 5, mean=2)
    frames[25:] = with_gaps(frames[25:])
    return psf, frames, dask.compute(*found_in(frames, psf), scheduler="synchronous")


def found_in(frames, psf, order=slice(None)):
    """Lazily, all that is found."""
    some = frames[order]
    variance = da.from_array(abs(np.asarray(some)), chunks=(7, 4, -1))
    by_method = (deconvolve(some, psf, method=method) for method in METHODS)
    return *by_method, deconvolve(some, psf, variance=variance).variance, psf.apply(some)


def assert_same_bits(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("chunks", [(1, -1, -1), (3, -1, -1), (16, -1, -1), (17, -1, -1), ((1, 39), -1, -1), (20, 5, 6)])
def test_results_do_not_depend_on_chunks(many, chunks, scheduler):
    psf, frames, wanted = many
    assert_same_bits(dask.compute(*found_in(da.from_array(frames, chunks=chunks), psf), scheduler=scheduler), wanted)


def test_results_do_not_depend_on_processes(many):
    psf, frames, wanted = many
    lazy = found_in(da.from_array(frames, chunks=(17, -1, -1)), psf)
    assert_same_bits(dask.compute(*lazy, scheduler="processes", num_workers=2), wanted)


def test_results_do_not_depend_on_the_frames_beside(many):
    psf, frames, wanted = many
    order = np.random.default_rng(5).permutation(40)[:37]
    found = dask.compute(*found_in(frames, psf, order), scheduler="synchronous")
    assert_same_bits(found, [each[order] for each in wanted])


# ------------------------------------------------------------------------------------------------------ lazily, stored


@dask.delayed
def too_early():
    raise RuntimeError("computed")


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_computed_before_it_is_asked_for(method):
    psf = psf_of("PONI outside")
    never = da.from_delayed(too_early(), psf.data.shape, np.float32)
    frames = da.concatenate([da.from_delayed(too_early(), (3, *psf.shape), np.uint16)] * 2)
    variance = {"variance": frames} if method == "direct" else {}
    lazy = [deconvolve(frames, replace(psf, data=never), method=method, **variance), replace(psf, data=never).apply(frames)]
    for each in lazy:
        with pytest.raises(RuntimeError, match="computed"):
            each.compute(scheduler="synchronous")


def test_all_blocks_share_one_matrix(monkeypatch):
    made = []
    as_matrix = calibration.as_matrix
    monkeypatch.setattr(calibration, "as_matrix", lambda *arguments: made.append(1) or as_matrix(*arguments))
    psf = replace(psf_of("PONI outside"))  # one that no other test has used
    frames = frames_of(psf, 10)
    deconvolve(da.from_array(frames, chunks=(2, -1, -1)), psf, variance=frames).compute(scheduler="synchronous")
    assert len(made) == 1


def test_a_stored_matrix_undoes_stored_frames(tmp_path):
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 7).astype(np.uint16)
    save(psf, tmp_path / "psf.zarr")
    save(xr.DataArray(frames, dims=("frame", "y", "x")), tmp_path / "frames.zarr", chunks={"frame": 2})
    stored, opened = load(tmp_path / "psf.zarr"), open_frames(tmp_path / "frames.zarr", chunks={"frame": 4})
    assert stored.conditioning == psf.conditioning
    np.testing.assert_array_equal(stored.apply(opened), psf.apply(frames))
    for method in METHODS:
        save(deconvolve(opened, stored, method=method), tmp_path / f"{method}.zarr")
        np.testing.assert_array_equal(open_frames(tmp_path / f"{method}.zarr"), solved(frames, psf, method))


def test_a_single_image_is_a_stack_of_one():
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 1)
    np.testing.assert_array_equal(solved(frames[0], psf), solved(frames, psf))


# ----------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("method to be one of auto, direct, lsmr, mlem, got 'inverse'", {"method": "inverse"}),
        ("method to be one of auto, direct, lsmr, mlem, got None", {"method": None}),
        ("max_iterations and tolerance are of .*: the direct solution has none", {"method": "direct", "max_iterations": 3}),
        ("max_iterations and tolerance are of .*: the direct solution has none", {"method": "direct", "tolerance": 1e-3}),
        ('"auto" finds its own end', {"tolerance": 1e-3}),
        ("max_iterations and tolerance are of .*: the direct solution has none", {"max_iterations": 3, "variance": np.ones((2, 9, 7))}),
        ("the variance is that of .*, not of 'mlem'", {"method": "mlem", "variance": np.ones((2, 9, 7))}),
        ("the variance is that of .*, not of 'lsmr'", {"method": "lsmr", "variance": np.ones((2, 9, 7))}),
        ("max_iterations as a whole number of at least 1, got 0", {"method": "mlem", "max_iterations": 0}),
        ("iterations.*got -1", {"method": "lsmr", "max_iterations": -1}),
        ("iterations.*got 2.5", {"method": "mlem", "max_iterations": 2.5}),
        ("iterations.*got nan", {"method": "mlem", "max_iterations": np.nan}),
        ("iterations.*got '3'", {"method": "mlem", "max_iterations": "3"}),
        ("tolerance between 0 and 1, got 0", {"method": "mlem", "tolerance": 0}),
        ("tolerance between 0 and 1, got 1", {"method": "lsmr", "tolerance": 1}),
        ("tolerance between 0 and 1, got -0.1", {"method": "mlem", "tolerance": -0.1}),
        ("tolerance between 0 and 1, got nan", {"method": "mlem", "tolerance": np.nan}),
        ("tolerance.*got '1e-3'", {"method": "mlem", "tolerance": "1e-3"}),
        ("dummy.*got 'none'", {"dummy": "none"}),
        (r"variance of shape \(9, 7\).*got \(7, 9\)", {"variance": np.ones((2, 7, 9))}),
        (r"variance of shape \(2, 9, 7\).*got \(3, 9, 7\)", {"variance": np.ones((3, 9, 7))}),
        ("variance of integers or reals, got complex", {"variance": np.ones((2, 9, 7), complex)}),
    ],
)
def test_bad_options_are_refused(message, options):
    with pytest.raises(InputError, match=message) as caught:
        deconvolve(np.ones((2, 9, 7)), psf_of("PONI inside a pixel"), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "frames"),
    [
        (r"frames of shape \(9, 7\) \(y, x\), as the matrix, got \(7, 9\)", np.ones((2, 7, 9))),
        (r"frames of shape \(frame, y, x\), got \(63,\)", np.ones(63)),
        (r"frames of shape \(frame, y, x\), got \(0, 9, 7\)", np.ones((0, 9, 7))),
        ("frames of integers or reals, got bool", np.ones((2, 9, 7), bool)),
        ("frames of integers or reals, got complex128", np.ones((2, 9, 7), complex)),
    ],
)
def test_bad_frames_are_refused(message, frames):
    psf = psf_of("PONI inside a pixel")
    for call in (partial(deconvolve, psf=psf), psf.apply):
        with pytest.raises(InputError, match=message) as caught:
            call(frames)
        assert "\n" not in str(caught.value)
