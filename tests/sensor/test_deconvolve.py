"""The blur undone, against dense algebra and plain iterations; and the blur applied."""

import warnings
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse.linalg import lsmr

from detcal import load, open_frames, save
from detcal.errors import InputError
from detcal.sensor import PlanarGeometry, build_psf, calibration, deconvolve, inversion
from tests.reference import sensor as reference

PITCH = 172e-6
SQUARE = (PITCH, PITCH)
SILICON, CDTE = 1356.0, 3e4  # 1/m
TAN_75 = np.tan(np.radians(75))
METHODS = ("direct", "lsmr", "mlem")
EXACT = {"direct": {}, "lsmr": {"tolerance": 1e-10}, "mlem": {"tolerance": 1e-6}}  # so tight that their ends can be compared
WANTED = {"direct": np.linalg.solve, "lsmr": reference.least_squares, "mlem": partial(reference.likeliest, iterations=4000)}


class Case(NamedTuple):
    """A sensor."""

    plane: PlanarGeometry
    thickness: float
    mu: float


def plane(shape, pixel_size, distance, poni_px):
    """The PONI in pixels."""
    return PlanarGeometry(shape, pixel_size, distance, tuple(np.multiply(poni_px, pixel_size).tolist()))


def beyond(shape, pixel_size, distance, tangent_y, tangent_x):
    """A detector whose first corner is seen at these tangents of the incidence: the PONI is outside."""
    return PlanarGeometry(shape, pixel_size, distance, (-distance * tangent_y, -distance * tangent_x))


# whose blur can be undone without much noise
MILD = {
    "PONI inside a pixel": Case(plane((9, 7), SQUARE, 0.02, (4.3, 2.6)), 1e-3, SILICON),
    "PONI on a border": Case(plane((9, 17), SQUARE, 0.01, (4, 8.6)), 450e-6, SILICON),
    "PONI on a corner": Case(plane((16, 16), SQUARE, 0.01, (5, 11)), 450e-6, SILICON),
    "PONI on the detector's corner": Case(plane((12, 13), SQUARE, 0.01, (12, 0)), 450e-6, SILICON),
    "PONI outside": Case(beyond((13, 17), SQUARE, 0.2, 0.45, 0.35), 450e-6, 3e3),
    "PONI outside, other quadrant": Case(plane((12, 14), SQUARE, 0.2, (700.3, -500.2)), 450e-6, 3e3),
    "pixels 172×50 µm": Case(beyond((12, 30), (PITCH, 50e-6), 0.2, 0.5, 0.6), 450e-6, CDTE),
    "75°, many pixels crossed": Case(beyond((30, 24), SQUARE, 0.1, 0.8 * TAN_75, 0.6 * TAN_75), 1e-3, CDTE),
    "one row": Case(plane((1, 40), SQUARE, 0.01, (0.5, 11.2)), 450e-6, SILICON),
    "one column": Case(plane((40, 1), SQUARE, 0.01, (11.2, 0.5)), 450e-6, SILICON),
    "40×50": Case(plane((40, 50), SQUARE, 0.03, (13.1, 28.8)), 450e-6, SILICON),
}  # fmt: skip
# whose inverse amplifies noise
HARSH = {
    "45°": Case(beyond((40, 50), SQUARE, 0.1, 0.7, 0.7), 450e-6, SILICON),
    "60°, pixels 172×75 µm": Case(beyond((30, 24), (PITCH, 75e-6), 0.1, 1.2, 1.2), 450e-6, SILICON),
    "75°": Case(beyond((30, 24), SQUARE, 0.1, 0.8 * TAN_75, 0.6 * TAN_75), 1e-3, SILICON),
}


@cache
def psf_of(name, dead=True):
    """In memory; with dead pixels, among them the middle one."""
    case = {**MILD, **HARSH}[name]
    mask = np.random.default_rng(8).random(case.plane.shape) < (0.06 if dead else 0)
    mask[case.plane.shape[0] // 2, case.plane.shape[1] // 2] = dead
    return build_psf(case.plane, thickness_m=case.thickness, attenuation_per_m=case.mu, mask=mask).compute()


@cache
def dense(psf):
    return psf.to_scipy().toarray().astype(float)


def frames_of(psf, count=3, mean=1000, seed=0):
    """Counts of frames that are lit unevenly, blurred, in float32."""
    rng = np.random.default_rng(seed)
    lit = mean * rng.uniform(0.3, 1.7, (count, *psf.shape))
    return rng.poisson(np.nan_to_num(psf.apply(lit).values)).astype(np.float32)


def solved(frames, psf, method="direct", max_iterations=None, tolerance=None, **options):
    """The values of what deconvolve finds, without its warning of noise."""
    options |= {"method": method, "max_iterations": max_iterations, "tolerance": tolerance}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the exact solution amplifies noise")
        return deconvolve(frames, psf, **options).compute(scheduler="synchronous")


def undone(psf, frames, method=np.linalg.solve):
    """The same by the reference."""
    return np.reshape([reference.undo(dense(psf), frame.ravel().astype(float), method) for frame in frames], frames.shape)


def assert_near(found, wanted, share):
    """To this share of the largest."""
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=share * np.nanmax(np.abs(wanted)))


def with_gaps(frames, seed=1):
    """Here and there NaN and ±inf, in each frame elsewhere."""
    rng = np.random.default_rng(seed)
    holes = rng.choice([np.nan, np.inf, -np.inf], frames.shape)
    return np.where(rng.random(frames.shape) < 0.08, holes, frames).astype(np.float32)


# --------------------------------------------------------------------------------------------------------------- apply


def test_what_is_no_number_enters_as_nothing():
    psf = psf_of("PONI inside a pixel")
    frames = with_gaps(frames_of(psf))
    np.testing.assert_array_equal(psf.apply(frames), psf.apply(np.where(np.isfinite(frames), frames, 0)))


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


# ---------------------------------------------------------------------------------------------------------------- lsmr


@pytest.mark.parametrize("name", ["PONI inside a pixel", "PONI outside", "pixels 172×50 µm", "75°, many pixels crossed"])
def test_lsmr_is_the_least_squares_solution(name):
    psf = psf_of(name)
    frames = frames_of(psf)
    wanted = undone(psf, frames, reference.least_squares)
    assert_near(solved(frames, psf, "lsmr", tolerance=1e-10).values, wanted, 1e-6)
    assert_near(solved(frames, psf, "lsmr").values, wanted, 1e-4)


@pytest.mark.parametrize("iterations", [1, 2, 5])
def test_lsmr_stops_after_so_many_iterations(iterations):
    psf = psf_of("75°")
    frames = with_gaps(frames_of(psf))
    wanted = undone(psf, frames, lambda matrix, recorded: lsmr(matrix, recorded, maxiter=iterations)[0])
    assert_near(solved(frames, psf, "lsmr", iterations).values, wanted, 1e-6)


# ---------------------------------------------------------------------------------------------------------------- mlem


@pytest.fixture
def steps(monkeypatch):
    """How many iterations of MLEM have been done, one entry each; too many are an error."""
    done = []
    step = inversion.em_step

    def counted(*arguments):
        done.append(1)
        assert len(done) <= 20_000, "MLEM goes on and on"
        step(*arguments)

    monkeypatch.setattr(inversion, "em_step", counted)
    return done


@pytest.mark.parametrize("iterations", [1, 2, 5])
@pytest.mark.parametrize("name", ["PONI inside a pixel", "PONI on a corner", "pixels 172×50 µm", "60°, pixels 172×75 µm", "one row"])
def test_mlem_without_a_tolerance_is_so_many_plain_iterations(steps, name, iterations):
    psf = psf_of(name)
    frames = frames_of(psf)
    found = solved(frames, psf, "mlem", iterations).values
    assert_near(found, undone(psf, frames, partial(reference.likeliest, iterations=iterations)), 2e-6)
    assert len(steps) == iterations


@pytest.mark.parametrize("name", ["PONI inside a pixel", "PONI on a border", "75°, many pixels crossed"])
def test_mlem_comes_to_the_solution_where_that_is_positive(name):
    psf = psf_of(name)
    lit = np.random.default_rng(0).uniform(100, 1000, (3, *psf.shape))
    found = solved(psf.apply(lit), psf, "mlem", tolerance=1e-6).values
    assert_near(found, np.where(psf.mask, np.nan, undone(psf, psf.apply(lit).values)), 1e-5)


@pytest.mark.parametrize("name", ["PONI on a corner", "PONI outside", "PONI outside, other quadrant"])
def test_mlem_of_few_counts_comes_to_where_plain_iterations_do(name):
    """The direct solution is negative there in many pixels."""
    psf = psf_of(name)
    frames = frames_of(psf, mean=4)
    assert (undone(psf, frames) < -0.5).mean() > 0.01
    found = solved(frames, psf, "mlem", tolerance=1e-6).values
    assert (found >= 0)[:, ~psf.mask.values].all()
    assert_near(found, undone(psf, frames, WANTED["mlem"]), 1e-3)


@pytest.mark.parametrize("name", ["60°, pixels 172×75 µm", "75°"])
def test_mlem_finds_a_higher_likelihood_than_many_plain_iterations(name):
    """Where noise is amplified these are still far from the end after thousands."""
    psf = psf_of(name)
    frames = frames_of(psf, 1, mean=20)
    records, matrix = ~psf.mask.values.ravel(), dense(psf)

    def likelihood(entered):
        expected = (matrix @ np.nan_to_num(entered.ravel()))[records]
        return (frames.ravel()[records] * np.log(expected) - expected).sum()

    plain = undone(psf, frames, partial(reference.likeliest, iterations=300))
    assert likelihood(solved(frames, psf, "mlem").values) > likelihood(plain)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4])
def test_mlem_ends_where_an_iteration_changes_little_and_soon(steps, tolerance):
    psf = psf_of("75°")
    frames = frames_of(psf, 1)
    recorded, matrix = frames[0].ravel().astype(float), dense(psf)
    records = matrix.any(axis=1)
    found = solved(frames, psf, "mlem", tolerance=tolerance).values.ravel()[records].astype(float)
    matrix, recorded = matrix[np.ix_(records, records)], recorded[records]

    def relative_change(now):
        new = now * (matrix.T @ (recorded / (matrix @ now))) / matrix.sum(axis=0)
        return (abs(new - now) / (new + recorded.mean())).max(), new

    assert relative_change(found)[0] < 1.01 * tolerance
    # plain iterations take many more, and looser ones fewer
    plain, count = np.full(len(recorded), recorded.sum() / matrix.sum()), 0
    while True:
        change, plain = relative_change(plain)
        count += 1
        if change < tolerance:
            break
    assert len(steps) < max(10, count)
    assert len(steps) > 1


def test_mlem_is_taken_no_further_than_its_iterations_and_its_tolerance_say(steps):
    psf = psf_of("45°")
    frames = frames_of(psf)
    for most in (1, 2):  # before iterations are drawn out they are plain ones
        np.testing.assert_array_equal(solved(frames, psf, "mlem", most, 1e-6), solved(frames, psf, "mlem", most))
    for most in (3, 7, 11):
        steps.clear()
        solved(frames, psf, "mlem", most, 1e-6)
        assert len(steps) == most
    steps.clear()
    loose = solved(frames, psf, "mlem", tolerance=0.02)
    free = len(steps)
    steps.clear()
    np.testing.assert_array_equal(solved(frames, psf, "mlem", 10_000, 0.02), loose)
    assert len(steps) == free < 10_000


def test_mlem_has_by_default_a_tolerance_of_1e_4():
    psf = psf_of("45°")
    frames = frames_of(psf)
    np.testing.assert_array_equal(solved(frames, psf, "mlem"), solved(frames, psf, "mlem", tolerance=1e-4))


def test_mlem_ends_even_if_float32_does_not_reach_the_tolerance(steps):
    psf = psf_of("PONI inside a pixel")
    solved(frames_of(psf), psf, "mlem", tolerance=1e-9)


# -------------------------------------------------------------------------------------------------------- not measured


@pytest.mark.parametrize("name", ["PONI inside a pixel", "PONI outside", "75°, many pixels crossed"])
@pytest.mark.parametrize("method", METHODS)
def test_pixels_that_were_not_measured_are_out_of_the_problem(method, name):
    psf = psf_of(name)
    frames = with_gaps(frames_of(psf))
    share = 2e-4 if method == "mlem" else 1e-5  # plain iterations are not quite at their end
    assert_near(solved(frames, psf, method, **EXACT[method]).values, undone(psf, frames, WANTED[method]), share)


@pytest.mark.parametrize("options", [{"method": "direct"}, {"method": "lsmr", "max_iterations": 3}])
def test_pixels_that_were_not_measured_are_as_dead_ones(options):
    """Long before the iterations are at their end, too."""
    alive, holed = (psf_of("75°", dead) for dead in (False, True))
    frames = frames_of(holed)
    found = solved(np.where(holed.mask, np.nan, frames), alive, **options).values
    assert_near(found, solved(frames, holed, **options).values, 1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_what_was_not_measured_in_one_frame_leaves_the_others_alone(method):
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 5)
    wanted = solved(frames, psf, method).values
    frames[1, 3:6, 4:9], frames[4, 2] = np.nan, np.inf
    found = solved(frames, psf, method).values
    np.testing.assert_array_equal(found[[0, 2, 3]], wanted[[0, 2, 3]])
    assert np.isnan(found[1, 3:6, 4:9]).all()
    assert np.isnan(found[4, 2]).all()


@pytest.mark.parametrize("hole", [np.nan, np.inf, -np.inf])
def test_what_was_not_measured_moves_the_direct_solution_outwards_only(hole):
    psf = psf_of("PONI on a corner")
    frames = frames_of(psf, 1)
    wanted = solved(frames, psf).values
    frames[0, 2, 3] = hole
    found = solved(frames, psf).values
    reached = reference.influence(dense(psf))[:, 2 * 16 + 3].reshape(psf.shape) > 0
    np.testing.assert_array_equal(found[0][~reached], wanted[0][~reached])
    assert np.isnan(found[0, 2, 3])
    changed = (found[0] != wanted[0]) & np.isfinite(wanted[0])
    assert 1 < changed.sum() <= reached.sum()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8"])
def test_negative_integers_are_readings_as_negative_reals_are(method, dtype):
    """A dark was taken off."""
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 2, mean=50)
    below = np.random.default_rng(2).random(frames.shape) < 0.1
    given = np.where(below, np.random.default_rng(3).integers(-128, 0, frames.shape), frames)
    np.testing.assert_array_equal(solved(given.astype(dtype), psf, method), solved(given.astype(np.float32), psf, method))


def test_negative_reals_are_values_but_none_to_mlem():
    psf = psf_of("PONI inside a pixel")
    frames = frames_of(psf, mean=30) - np.float32(20)
    assert (frames < 0).any()
    assert_near(solved(frames, psf).values, undone(psf, frames), 1e-5)
    assert_near(solved(frames, psf, "lsmr", tolerance=1e-10).values, undone(psf, frames), 1e-5)
    np.testing.assert_array_equal(solved(frames, psf, "mlem"), solved(frames.clip(0), psf, "mlem"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("dtype", "dummy"), [("i4", -1), ("u4", 4294967295), ("u2", 65535), ("u1", 255), ("f4", 0), ("f4", -1.5), ("f8", 1e-3), ("f4", np.nan)]
)
def test_dummy_marks_what_was_not_measured_in_and_out(method, dtype, dummy):
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 2, mean=50) + np.float32(1)  # nowhere 0
    gaps = np.random.default_rng(2).random(frames.shape) < 0.1
    found = solved(np.where(gaps, dummy, frames.astype(float)).astype(dtype), psf, method, dummy=dummy).values
    wanted = solved(np.where(gaps, np.nan, frames), psf, method).values
    np.testing.assert_array_equal(found, np.where(np.isnan(wanted), np.float32(dummy), wanted))
    np.testing.assert_array_equal(found[:, psf.mask.values], np.float32(dummy))


@pytest.mark.parametrize(("dtype", "mark"), [("u2", 65535), ("u4", 4294967295)])
def test_marks_of_detectors_were_not_measured(dtype, mark):
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 2, mean=50)
    gaps = np.random.default_rng(2).random(frames.shape) < 0.1
    found = solved(np.where(gaps, mark, frames.astype(float)).astype(dtype), psf)
    np.testing.assert_array_equal(found, solved(np.where(gaps, np.nan, frames), psf))


def test_dummy_marks_the_variance_too():
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 2)
    frames[1, 4, 5] = -1
    given, marked = (solved(np.where(frames < 0, dummy, frames), psf, variance=frames, dummy=dummy).variance for dummy in (np.nan, -1))
    np.testing.assert_array_equal(marked, given.fillna(-1))
    assert marked[1, 4, 5] == -1


def test_a_number_beyond_float32_was_not_measured():
    psf = psf_of("PONI outside")
    frames = frames_of(psf).astype(float)
    frames[1, 4, 5] = 1e39
    np.testing.assert_array_equal(solved(frames, psf), solved(np.where(frames > 1e38, np.nan, frames), psf))


@pytest.mark.parametrize("method", METHODS)
def test_frames_without_counts_or_without_readings_have_none(method):
    psf = psf_of("PONI outside")
    frames = np.zeros((2, *psf.shape), np.float32)
    frames[1] = np.nan
    found = solved(frames, psf, method).values
    np.testing.assert_array_equal(found[0], np.where(psf.mask, np.nan, 0))
    assert np.isnan(found[1]).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_single_lit_pixel_is_one_among_zeros(method):
    psf = psf_of("PONI outside")
    frames = np.zeros((1, *psf.shape), np.float32)
    frames[0, 3, 4] = 100
    found = solved(frames, psf, method, **EXACT[method]).values
    assert_near(found, undone(psf, frames, WANTED[method]), 1e-4)
    assert found[0, 3, 4] > 100


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


# ------------------------------------------------------------------------------------------------------------ variance


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("name", [*MILD, "75°"])
def test_variance_is_that_of_the_dense_inverse(name, dead):
    psf = psf_of(name, dead)
    frames = frames_of(psf, 1)
    variance = np.random.default_rng(6).uniform(1, 1000, frames.shape)
    found = solved(frames, psf, variance=variance)
    np.testing.assert_array_equal(found.deconvolved, solved(frames, psf))
    np.testing.assert_allclose(found.variance, undone(psf, np.where(psf.mask, np.nan, variance), reference.propagated), rtol=1e-5)


@pytest.mark.parametrize("name", HARSH)
def test_variance_is_near_that_where_noise_is_amplified(name):
    """Small influences are left out, and may grow further inwards."""
    psf = psf_of(name, False)
    frames = frames_of(psf, 1)
    np.testing.assert_allclose(solved(frames, psf, variance=frames).variance, undone(psf, frames, reference.propagated), rtol=1e-3)


def test_variance_is_unknown_where_it_rests_on_a_pixel_that_was_not_measured():
    psf = psf_of("PONI outside")
    frames = frames_of(psf)
    variance = frames.copy()
    wanted = undone(psf, np.where(psf.mask, np.nan, variance), reference.propagated)
    frames[0, 3, 4], frames[1, 5:7, 2], variance[2, 4, 5] = np.nan, np.inf, np.nan
    found = solved(frames, psf, variance=variance).variance.values
    gaps = ~np.isfinite(frames) | np.isnan(variance)
    rests = [(reference.influence(dense(psf)) * gap.ravel()).max(axis=1).reshape(psf.shape) for gap in gaps]
    unknown, known = np.greater(rests, 2e-4), np.less(rests, 0.5e-4)  # it is said to be from 1e-4 on
    assert np.isnan(found[unknown]).all()
    assert (unknown.sum(axis=(1, 2)) > 5).all()
    np.testing.assert_allclose(found[known], wanted[known], rtol=1e-5)


def test_what_is_no_variance_is_as_one_that_was_not_measured():
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 2)
    variance, unknown = frames.astype(np.int32), frames.astype(np.float32)
    variance[0, 3, 4], unknown[0, 3, 4] = -2, np.nan
    np.testing.assert_array_equal(*(solved(frames, psf, variance=each).variance for each in (variance, unknown)))


def test_solutions_scatter_as_their_variance_says():
    psf = psf_of("PONI inside a pixel")
    lit = np.random.default_rng(0).uniform(300, 3000, psf.shape)
    mean = psf.apply(lit).values
    frames = np.random.default_rng(1).poisson(np.nan_to_num(mean)[0], (1000, *psf.shape))
    found = solved(frames, psf, variance=np.broadcast_to(np.nan_to_num(mean), frames.shape))
    pulls = ((found.deconvolved - undone(psf, mean)[0]) / np.sqrt(found.variance)).values[:, ~psf.mask.values]
    assert abs(pulls.mean(axis=0)).max() < 4.5 / np.sqrt(1000)
    assert abs((pulls**2).mean(axis=0) - 1).max() < 4.5 * np.sqrt(2 / 1000)


def test_variance_comes_in_a_dataset_with_units():
    psf = psf_of("PONI inside a pixel")
    frames = xr.DataArray(frames_of(psf, 2), dims=("frame", "y", "x"), coords={"frame": [10, 20]})
    found = deconvolve(frames, psf, variance=frames)
    assert set(found) == {"deconvolved", "variance"}
    assert (found.deconvolved.units, found.variance.units) == ("counts", "counts²")
    assert found.variance.dtype == found.variance.compute().dtype == np.float32
    assert found.frame.values.tolist() == [10, 20]


# -------------------------------------------------------------------------------------------------------- conditioning


def efficiency_of(psf):
    return -np.expm1(-psf.attenuation_per_m * psf.thickness_m / psf.geometry.incidence())


@pytest.mark.parametrize("dead", [False, True])
@pytest.mark.parametrize("name", ["PONI inside a pixel", "40×50", "75°, many pixels crossed", *HARSH])
def test_conditioning_is_that_of_the_dense_inverse(name, dead):
    psf = psf_of(name, dead)
    matrix = dense(psf)
    found = psf.conditioning
    assert found.noise_amplification == pytest.approx(reference.noise_amplification(matrix, efficiency_of(psf)), rel=0.2)
    assert found.smallest_diagonal == pytest.approx(matrix.diagonal()[matrix.any(axis=1)].min(), rel=1e-6)


LARGE = {
    "last corner furthest": Case(plane((200, 250), SQUARE, 0.08, (-60, -60)), 450e-6, 5e3),
    "first corner furthest": Case(plane((200, 250), SQUARE, 0.08, (260, 310)), 450e-6, 5e3),
    "last row's first pixel furthest": Case(plane((200, 250), SQUARE, 0.08, (-60, 310)), 450e-6, 5e3),
    "first row's last pixel furthest": Case(plane((200, 250), SQUARE, 0.08, (260, -60)), 450e-6, 5e3),
    "noise grows all the way to the edges": Case(plane((8, 1043), SQUARE, 0.08, (4, 521)), 450e-6, 2e3),
}


@pytest.mark.parametrize("name", LARGE)
def test_conditioning_of_a_large_detector_is_that_of_the_whole(name):
    case = LARGE[name]
    psf = build_psf(case.plane, thickness_m=case.thickness, attenuation_per_m=case.mu).compute()
    noise = np.random.default_rng(7).standard_normal((64, *psf.shape), np.float32)
    power = ((solved(noise, psf).values * efficiency_of(psf)) ** 2).mean(axis=0)
    whole = np.pad(power, [(0, -size % 8) for size in psf.shape], mode="edge")
    squares = whole.reshape(whole.shape[0] // 8, 8, whole.shape[1] // 8, 8).mean(axis=(1, 3))
    found = psf.conditioning
    assert found.noise_amplification == pytest.approx(np.sqrt(squares.max()), rel=0.25)
    assert found.smallest_diagonal == pytest.approx(psf.to_scipy().diagonal().min(), rel=0.01)


def test_masked_pixels_do_not_count():
    """Whatever else is seen of the detector is seen from straight ahead."""
    geometry = plane((200, 100), SQUARE, 0.02, (0, 50))
    mask = np.zeros(geometry.shape, bool)
    whole = build_psf(geometry, thickness_m=450e-6, attenuation_per_m=SILICON).conditioning
    mask[30:] = True
    found = build_psf(geometry, thickness_m=450e-6, attenuation_per_m=SILICON, mask=mask).conditioning
    alone = build_psf(plane((30, 100), SQUARE, 0.02, (0, 50)), thickness_m=450e-6, attenuation_per_m=SILICON).conditioning
    assert found.noise_amplification == pytest.approx(alone.noise_amplification, rel=0.1)
    assert found.smallest_diagonal == pytest.approx(alone.smallest_diagonal, rel=1e-4)
    assert whole.noise_amplification > 2 * found.noise_amplification


def test_noise_beyond_all_numbers_is_infinite():
    psf = build_psf(beyond((1, 400), SQUARE, 10.0, 0, 1.5 * PITCH / 450e-6), thickness_m=450e-6, attenuation_per_m=100.0)
    assert psf.conditioning.noise_amplification == np.inf


@pytest.mark.parametrize("name", HARSH)
def test_direct_warns_of_amplified_noise_and_the_smooth_methods_do_not(name):
    psf = psf_of(name)
    amplification = psf.conditioning.noise_amplification
    assert amplification > 10
    with pytest.warns(UserWarning, match=rf"amplifies noise {amplification:.3g} times.*mlem") as caught:
        deconvolve(da.from_array(frames_of(psf, 2), chunks=(1, -1, -1)), psf).compute()
    assert len(caught) == 1
    for method in ("lsmr", "mlem"):
        deconvolve(frames_of(psf), psf, method=method, max_iterations=1).compute()


def test_direct_does_not_warn_of_noise_that_is_little_amplified():
    for name in MILD:
        assert psf_of(name).conditioning.noise_amplification < 10
        deconvolve(frames_of(psf_of(name), 1), psf_of(name)).compute()


@pytest.mark.parametrize("method", METHODS)
def test_results_say_how_they_were_found(method):
    psf = psf_of("PONI outside")
    found = deconvolve(xr.DataArray(frames_of(psf), dims=("frame", "y", "x"), attrs={"sample": "Si"}), psf, method=method)
    assert found.name == "deconvolved"
    assert np.isnan(found.attrs.pop("missing_value"))
    assert found.attrs == {
        "sample": "Si", "units": "counts", "method": method, "corrections": ["parallax", "efficiency"],
    }  # fmt: skip


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
        ("method to be one of direct, lsmr, mlem, got 'inverse'", {"method": "inverse"}),
        ("method to be one of direct, lsmr, mlem, got None", {"method": None}),
        ("max_iterations and tolerance are of .*: the direct solution has none", {"max_iterations": 3}),
        ("max_iterations and tolerance are of .*: the direct solution has none", {"tolerance": 1e-3}),
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
        (r"frames of shape \(frame, y, x\), got \(1, 2, 9, 7\)", np.ones((1, 2, 9, 7))),
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
