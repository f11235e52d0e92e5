"""The blur applied, and undone exactly, against dense algebra."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from detcal.sensor import build_psf
from tests.kernels import compiled_kernels
from tests.reference import sensor as reference
from tests.sensor.blurs import HARSH, METHODS, MILD, assert_near, dense, frames_of, furthest, plane, psf_of, solved, undone, with_gaps

# --------------------------------------------------------------------------------------------------------------- apply


def test_what_is_no_number_enters_as_its_neighbours_do():
    psf = psf_of("PONI inside a pixel")
    lit = with_gaps(frames_of(psf, 1))
    whole = np.eye(lit[0].size)  # of a sensor that records all where it enters: frames are the light itself
    light = reference.light_of(whole, lit.ravel().astype(float), psf.shape, furthest(psf))
    filled = np.where(np.isfinite(lit), lit, light.reshape(lit.shape))
    assert (light > 0).sum() > 3
    np.testing.assert_allclose(psf.apply(lit), psf.apply(filled), rtol=1e-6)


def test_what_no_neighbour_tells_is_not_known():
    psf = psf_of("PONI outside", dead=False)
    lit = np.full(psf.shape, 5.0)
    lit[4:, 6:] = np.nan
    found = psf.apply(lit).values[0]
    np.testing.assert_allclose(found[:4], psf.apply(np.full(psf.shape, 5.0)).values[0, :4], rtol=1e-6)
    assert np.isnan(found[-1, -1])


@pytest.mark.parametrize("name", MILD)
def test_blur_keeps_what_the_sensor_absorbs(name):
    psf = psf_of(name)
    lit = np.random.default_rng(0).uniform(0, 1000, (3, *psf.shape))
    np.testing.assert_allclose(np.nansum(psf.apply(lit), axis=(1, 2)), (lit * psf.efficiency.values).sum(axis=(1, 2)), rtol=1e-5)


# -------------------------------------------------------------------------------------------------------------- direct


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("name", MILD)
def test_direct_is_the_solution_of_the_dense_matrix(name, dead):
    psf = psf_of(name, dead)
    frames = frames_of(psf)
    wanted = undone(psf, frames)
    np.testing.assert_allclose(solved(frames, psf), wanted, rtol=1e-5, atol=1e-6 * np.nanmax(wanted))


@pytest.mark.parametrize("name", HARSH)
def test_direct_is_that_solution_where_it_amplifies_noise(name):
    psf = psf_of(name)
    frames = frames_of(psf)
    assert_near(solved(frames, psf).values, undone(psf, frames), 2e-5)


@settings(max_examples=60, deadline=None)
@given(
    distance=st.floats(0.002, 1),
    pixel_size=st.tuples(st.floats(40e-6, 200e-6), st.floats(40e-6, 200e-6)),
    poni_px=st.tuples(st.floats(-20, 30) | st.integers(-5, 15), st.floats(-20, 30) | st.integers(-5, 15)),
    thickness=st.floats(50e-6, 1e-3),
    mu=st.floats(300, 3e4),
    lit=arrays(np.float32, (2, 9, 11), elements=st.floats(-1e6, 1e6, width=32)),
)
def test_direct_undoes_any_blur_to_rounding(distance, pixel_size, poni_px, thickness, mu, lit):
    """Substitution leaves no more than rounding of each pixel's sum, however much errors grow outwards."""
    geometry = plane((9, 11), pixel_size, distance, poni_px)
    assume(geometry.incidence().min() > np.cos(np.radians(80)))
    psf = build_psf(geometry, thickness_m=thickness, attenuation_per_m=mu).compute()
    recorded = psf.apply(lit).values.reshape(2, -1).T
    entered = solved(recorded.T.reshape(lit.shape), psf).values.reshape(2, -1).T.astype(float)
    matrix = dense.__wrapped__(psf)
    terms = np.count_nonzero(matrix, axis=1)[:, None] + 4
    assert (abs(matrix @ entered - recorded) <= terms * 2**-24 * (matrix @ abs(entered)) + 1e-30).all()
    # and so comes back what was blurred, where errors do not grow
    error = np.linalg.inv(matrix).__abs__() @ (terms * 2**-23 * (matrix @ abs(entered)))
    assert (abs(entered - lit.reshape(2, -1).T) <= error + 1e-30).all()


@pytest.mark.parametrize("factor", [-1, 2.0**-40, 2.0**40, 2.0**80])
@pytest.mark.parametrize("method", ["direct", "mlem"])
def test_solutions_go_with_the_counts_to_the_last_bit(method, factor):
    psf = psf_of("PONI outside")
    frames = with_gaps(frames_of(psf))
    if method == "direct" or factor > 0:
        np.testing.assert_array_equal(solved(frames * np.float32(factor), psf, method), factor * solved(frames, psf, method))


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "i4", "u4", "i8", "u8", "f2", "f8", ">u2", ">i4", ">f4", ">f8"])
def test_readings_of_any_type_are_numbers(dtype):
    """Up to the largest that it has."""
    psf = psf_of("PONI on a border")  # whose rows of 17 pixels are no whole sixteens
    kind, bits = np.dtype(dtype).kind, 8 * np.dtype(dtype).itemsize
    frames = frames_of(psf, 17, mean=300).clip(0, 255)
    if kind in "iu":
        frames = (frames // (2 if kind == "i" else 1)) * np.float32(2.0 ** (bits - 8))
    np.testing.assert_array_equal(solved(frames.astype(dtype), psf), solved(frames, psf))


@pytest.mark.parametrize("method", METHODS)
def test_types_that_detectors_do_not_write_need_no_kernels_of_their_own(method):
    """To compile them takes seconds for each."""
    psf = psf_of("PONI inside a pixel")
    frames = frames_of(psf, 3, mean=30)
    solved(frames, psf, method)
    before = compiled_kernels()
    assert before
    for dtype in ("i1", "u1", "i8", "u8", "f8"):
        solved(frames.astype(dtype), psf, method)
    assert compiled_kernels() == before


@pytest.mark.parametrize("method", METHODS)
def test_frames_may_lie_in_memory_anyhow(method):
    psf = psf_of("PONI inside a pixel")
    frames = frames_of(psf, 6)
    wanted = solved(frames, psf, method)
    locked = frames.copy()
    locked.flags.writeable = False
    blocks = da.from_array(np.repeat(frames, 2, axis=0), chunks=(4, -1, -1))
    for same in (locked, np.asfortranarray(frames), np.ascontiguousarray(frames[..., ::-1])[..., ::-1], blocks[::2]):
        np.testing.assert_array_equal(solved(same, psf, method), wanted)
    np.testing.assert_array_equal(solved(da.broadcast_to(frames[0], (3, *psf.shape)), psf, method), wanted[[0, 0, 0]])
