"""The response fit and correction against the reference, the simulator's truth, and themselves in other chunks."""

from time import sleep

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from detcal import simulate
from detcal.errors import InputError
from detcal.response import Response, correct_response, fit_response, kernels, plot_pixel_calibrations, smoothing
from tests.reference import response as reference

BOUNDARIES = ("nearest", "reflect", "mirror", "wrap")


@pytest.fixture(scope="module")
def scene():
    """A small detector with its sweep, dark and flat."""
    detector = simulate.detector((41, 57), dead=3, stuck=2, seed=5)
    sweep = simulate.beam_sweep(detector, 24).compute()
    dark = simulate.dark_frames(detector, 5).compute()
    flat = simulate.flat_frames(detector, 5).compute()
    return detector, sweep, dark, flat


# ---------------------------------------------------------------------------------------------------------- smoothing


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    sigma=st.floats(0.3, 60),
    boundary=st.sampled_from(BOUNDARIES),
    truncate=st.floats(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_smoothing_is_scipys_gaussian(shape, sigma, boundary, truncate, seed):
    image = np.random.default_rng(seed).normal(1000, 100, shape).astype(np.float32)
    wanted = gaussian_filter(image.astype(np.float64), sigma, mode=boundary, truncate=truncate)
    np.testing.assert_allclose(smoothing.smooth(image, sigma, boundary, truncate), wanted, rtol=2e-6)


@pytest.mark.parametrize("boundary", ["nearest", "reflect"])
@pytest.mark.parametrize("shape", [(301, 517), (199, 64)])
def test_smoothing_at_sigma_50(boundary, shape):
    image = np.random.default_rng(1).gamma(4, 500, shape).astype(np.float32)
    wanted = gaussian_filter(image.astype(np.float64), 50, mode=boundary)
    np.testing.assert_allclose(smoothing.smooth(image, 50.0, boundary), wanted, rtol=1e-6)


def test_invalid_pixels_take_no_part_in_smoothing():
    rng = np.random.default_rng(2)
    image = rng.normal(1000, 100, (60, 70)).astype(np.float32)
    image[rng.random(image.shape) < 0.2] = np.nan
    found = smoothing.ValidSmoother(6.0, "nearest", 4.0)(image)
    np.testing.assert_allclose(found, reference.smooth(image, 6.0), rtol=2e-6)


def test_smoothing_is_nan_where_no_valid_pixel_is_near():
    image = np.full((80, 80), np.nan, np.float32)
    image[:5] = 7
    found = smoothing.ValidSmoother(3.0, "nearest", 4.0)(image)
    np.testing.assert_allclose(found[:5], 7, rtol=1e-6)
    assert np.isnan(found[30:]).all()


# ---------------------------------------------------------------------------------------------------------------- fit


@pytest.mark.parametrize(("order", "intercept"), [(1, False), (1, True), (2, False), (2, True)])
@pytest.mark.parametrize("boundary", ["nearest", "reflect"])
def test_fit_equals_least_squares_in_each_pixel(scene, order, intercept, boundary):
    _, sweep, dark, _ = scene
    options = {"sigma": 9.0, "cutoff": 300.0, "order": order, "intercept": intercept, "boundary": boundary}
    found = fit_response(sweep, dark, **options).compute()
    (offset, gain, curvature), error, r_squared, used = reference.fit(sweep.values, dark.values.mean(axis=0), **options)
    good = ~found.mask.values
    assert good.sum() > 0.95 * good.size
    np.testing.assert_allclose(found.gain.values[good], gain[good], rtol=1e-5)
    np.testing.assert_allclose(found.gain_error.values[good], error[good], rtol=1e-3)
    np.testing.assert_allclose(found.r_squared.values[good], r_squared[good], atol=1e-6)
    np.testing.assert_array_equal(found.frames_used, used)
    if intercept:
        np.testing.assert_allclose(found.offset.values[good], offset[good], rtol=1e-3, atol=2e-2)
    else:
        assert (found.offset.values[good] == 0).all()
    if order == 2:
        np.testing.assert_allclose(found.curvature.values[good], curvature[good], rtol=1e-3, atol=1e-10)
    else:
        assert found.curvature is None


@pytest.mark.parametrize("boundary", ["nearest", "reflect"])
@pytest.mark.parametrize("shape", [(75, 131), (260, 301)])
def test_gain_is_detectorcals_closed_form_on_scipys_smoothing(shape, boundary):
    """c = ΣVS/ΣV² over the frames with S > 300: images smaller and larger than the kernel's radius of 200, odd sizes."""
    rng = np.random.default_rng(3)
    response = rng.normal(1, 0.03, shape)
    sweep = rng.poisson(response * np.geomspace(200, 20000, 12)[:, None, None]).astype(np.uint16)
    smoothed = np.stack([gaussian_filter(frame.astype(np.float64), 50, mode=boundary) for frame in sweep])
    measured = np.where(smoothed > 300, sweep, 0).astype(np.float64)
    wanted = (measured * smoothed).sum(axis=0) / (measured**2).sum(axis=0)
    found = fit_response(sweep, boundary=boundary).compute()
    np.testing.assert_allclose(found.gain, wanted, rtol=1e-5)


def test_pulls_of_the_gain_are_standard_normal():
    detector = simulate.detector((256, 300), seed=11)
    frames, peak = 40, 50000.0
    beams = [simulate.swept_beam((256, 300), peak, np.geomspace(1 / 30, 1, frames), np.linspace(-1, 1, frames), i) for i in range(frames)]
    truth = fit_response(np.stack(beams) / detector.gain).compute()
    found = fit_response(simulate.beam_sweep(detector, frames, peak=peak), detector.dark).compute()
    pulls = ((found.gain - truth.gain) / found.gain_error).values
    assert abs(pulls.mean()) < 0.05
    assert abs(pulls.std() - 1) < 0.1


def test_bad_pixels_are_found(scene):
    detector, sweep, dark, _ = scene
    np.testing.assert_array_equal(fit_response(sweep, dark, sigma=9.0).compute().mask, detector.bad)


def test_pixels_that_are_never_lit_are_masked():
    sweep = np.full((6, 40, 40), 1000, np.uint16)
    sweep[:, :, 25:] = 0
    found = fit_response(sweep, sigma=1.0).compute()
    assert found.mask[:, 30:].all()
    assert not found.mask[:, :20].any()
    assert (found.frames_used[:, 30:] == 0).all()
    assert np.isnan(found.gain[:, 30:]).all()


def test_a_pixel_that_is_stuck_at_a_usual_level_is_hot():
    sweep = simulate.beam_sweep(simulate.detector((40, 40)), 24).compute().values
    sweep[:, 7, 9] = 5000
    (row,), (column,) = np.nonzero(fit_response(sweep, sigma=9.0).mask.values)
    assert (row, column) == (7, 9)


def test_sums_that_came_in_are_not_changed(scene):
    """A cluster may run a task again."""
    _, sweep, _, _ = scene
    options = {"order": 1, "sigma": 9.0, "cutoff": 300.0, "boundary": "nearest", "truncate": 4.0}
    dark = np.zeros(sweep.shape[1:], np.float32)
    first = kernels.accumulate(None, sweep.values[:4], dark, **options)
    before = first.copy()
    assert (kernels.accumulate(first, sweep.values[4:], dark, **options) != before).any()
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf])
def test_nan_in_a_frame_spoils_no_neighbour(scene, nothing):
    _, sweep, dark, _ = scene
    sweep = sweep.values.astype(np.float32)
    sweep[21, 10:14, 20:25] = nothing
    sweep[22, 30:33, 40:50] = nothing
    sweep[7] = nothing
    options = {"sigma": 9.0, "cutoff": 300.0}
    found = fit_response(sweep, dark, **options).compute()
    (_, gain, _), _, _, used = reference.fit(sweep, dark.values.mean(axis=0), **options)
    good = ~found.mask.values
    np.testing.assert_allclose(found.gain.values[good], gain[good], rtol=1e-5)
    np.testing.assert_array_equal(found.frames_used, used)


def test_masked_pixels_take_no_part(scene):
    detector, sweep, dark, _ = scene
    changed = np.where(detector.bad, 12345, sweep.values).astype(np.uint16)
    one, other = (fit_response(frames, dark, mask=detector.bad, sigma=9.0).compute() for frames in (sweep, changed))
    np.testing.assert_array_equal(one.gain, other.gain)
    assert one.mask.values[detector.bad].all()


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "f2", "f4", "f8", ">u2", ">i4", ">f4"])
def test_dark_is_subtracted_in_float_from_any_type(dtype):
    """uint16 minus uint16 wraps where the reading is below the dark; the fit must see the negative signal."""
    rng = np.random.default_rng(8)
    sweep = (rng.poisson(40, (10, 20, 20)) * np.linspace(0.1, 1, 10)[:, None, None]).astype(dtype)
    dark = np.full((20, 20), 20, dtype)
    found = fit_response(sweep, dark, sigma=5.0, cutoff=-100.0).compute()
    (_, gain, _), *_ = reference.fit(sweep, dark.astype(float), sigma=5.0, cutoff=-100.0)
    np.testing.assert_allclose(found.gain, gain, rtol=1e-4)
    corrected = correct_response(sweep, found, dark=dark)
    np.testing.assert_allclose(corrected, (sweep.astype(float) - 20) * found.gain.where(~found.mask).values, rtol=1e-5, atol=1e-4)


# --------------------------------------------------------------------------------------------------------- correction


@pytest.mark.parametrize("residual_sigma", [None, 2.0])
def test_correction_equals_the_reference(scene, residual_sigma):
    detector, sweep, dark, flat = scene
    cal = fit_response(sweep, dark, sigma=9.0).compute()
    found = correct_response(sweep, cal, dark=dark, flat=flat, residual_sigma=residual_sigma)
    assert found.dtype == np.float32
    gain, dark_image, flat_image = cal.gain.values, dark.values.mean(axis=0), flat.values.mean(axis=0)
    wanted = reference.correct(sweep.values, gain, dark_image, flat_image, 9.0, residual_sigma, mask=detector.bad)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6)


def test_corrected_frames_are_the_true_transmission():
    detector = simulate.detector((128, 160), seed=1)
    # sigma is small beside the beam's width of 3 detectors, so that smoothing does not bend the beam
    cal = fit_response(simulate.beam_sweep(detector, 100, peak=50000), detector.dark, sigma=15.0).compute()
    frames = simulate.ct_frames(detector, 30, peak=50000)
    found = correct_response(frames, cal, dark=detector.dark, flat=simulate.flat_frames(detector, 10, peak=50000))
    truth = np.stack([simulate.transmission((128, 160), angle) for angle in frames.angle.values])
    error = (found.values / truth - 1) * np.sqrt(50000 * truth)
    # what is left is the frames' own photon noise, and the gains' and the flat's beside it
    assert abs(error.mean()) < 0.05
    assert error.std() < 1.15


def test_residuals_of_new_dust_are_removed(scene):
    detector, sweep, dark, _ = scene
    cal = fit_response(sweep, dark, sigma=9.0).compute()
    flat = np.full(detector.gain.shape, 16000.0) / detector.gain
    dusty = flat.copy()
    dusty[20:23, 30:33] *= 0.8
    frame = 0.5 * dusty
    kept, removed = (
        correct_response(frame, cal, flat=dusty, flat_is_dark_subtracted=True, residual_sigma=k).values[0, 20:23, 30:33] for k in (None, 3)
    )
    assert (np.abs(kept / 0.5 - 1) > 0.1).all()
    np.testing.assert_allclose(removed, 0.5, rtol=0.01)


def test_order_2_and_intercept_take_part_in_the_correction(scene):
    _, sweep, dark, _ = scene
    cal = fit_response(sweep, dark, sigma=9.0, order=2, intercept=True).compute()
    signal = sweep.values - dark.values.mean(axis=0)
    wanted = cal.offset.values + cal.gain.values * signal + cal.curvature.values * signal**2
    found = correct_response(sweep, cal, dark=dark).values
    good = ~cal.mask.values
    np.testing.assert_allclose(found[:, good], wanted[:, good], rtol=1e-4, atol=0.05)
    assert np.isnan(found[:, ~good]).all()


def test_flat_that_is_dark_subtracted_can_be_said_to_be(scene):
    _, sweep, dark, flat = scene
    cal = fit_response(sweep, dark, sigma=9.0).compute()
    signal = flat.values.mean(axis=0) - dark.values.mean(axis=0)
    said = correct_response(sweep, cal, dark=dark, flat=signal, flat_is_dark_subtracted=True)
    np.testing.assert_allclose(said, correct_response(sweep, cal, dark=dark, flat=flat), rtol=1e-5)


# ------------------------------------------------------------------------------------------------- graphs and clusters


def test_nothing_is_computed_until_asked():
    def explode(block):
        raise AssertionError("computed too early")

    sweep = da.map_blocks(explode, da.zeros((8, 20, 20), chunks=(2, -1, -1)), dtype=np.uint16, meta=np.empty((0, 0, 0), np.uint16))
    cal = fit_response(sweep)
    correct_response(sweep, cal, dark=sweep, flat=sweep)
    with pytest.raises(AssertionError, match="too early"):
        cal.compute()


@pytest.mark.parametrize("partial_sums", [1, 2, 5])
@pytest.mark.parametrize("chunks", [(1, -1, -1), (7, -1, -1), (24, -1, -1), (5, 10, 20)])
def test_results_do_not_depend_on_chunks_or_partial_sums(scene, chunks, partial_sums):
    _, sweep, dark, flat = scene
    whole = fit_response(sweep, dark, sigma=9.0, partial_sums=1).compute()
    cut = xr.DataArray(da.from_array(sweep.values, chunks=chunks), dims=("frame", "y", "x"))
    found = fit_response(cut, dark, sigma=9.0, partial_sums=partial_sums).compute()
    np.testing.assert_allclose(found.gain, whole.gain, rtol=1e-6)
    np.testing.assert_array_equal(found.mask, whole.mask)
    one, other = (correct_response(frames, whole, dark=dark, flat=flat, residual_sigma=3) for frames in (sweep, cut))
    np.testing.assert_array_equal(one, other)


def test_results_do_not_depend_on_the_scheduler(scene):
    _, sweep, dark, flat = scene
    cut = sweep.chunk(frame=4)
    cal = fit_response(sweep, dark, sigma=9.0).compute()
    lazy = (fit_response(cut, dark, sigma=9.0).gain, correct_response(cut, cal, dark=dark, flat=flat, residual_sigma=3))
    found = {name: dask.compute(*lazy, scheduler=name) for name in ("synchronous", "threads", "processes")}
    for workers in (1, 3):
        with LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster, Client(cluster):
            found[f"distributed {workers}"] = dask.compute(*lazy)
    for gain, corrected in found.values():
        np.testing.assert_allclose(gain, cal.gain, rtol=1e-6)
        np.testing.assert_array_equal(corrected, found["synchronous"][1])


@pytest.mark.parametrize("frames", [1, 3, 8, 20])
def test_sums_depend_on_the_blocks_alone(scene, frames):
    """Bit for bit, whatever thread comes first, and however many there are."""
    _, sweep, dark, _ = scene
    cut = sweep.chunk(frame=frames)
    rng = np.random.default_rng(frames)
    dawdling = cut.copy(data=da.map_blocks(lambda block: (sleep(rng.uniform(0, 0.02)), block)[1], cut.data, dtype=cut.dtype))
    found = []
    for threads, partial_sums, stack in ((1, 1, cut), (1, None, cut), (4, 2, dawdling), (4, 5, dawdling), (7, None, dawdling)):
        with dask.config.set(scheduler="threads", num_workers=threads):
            found.append(fit_response(stack, dark, sigma=9.0, order=2, partial_sums=partial_sums).compute())
    for each in found[1:]:
        np.testing.assert_array_equal(each.gain, found[0].gain)
        np.testing.assert_array_equal(each.curvature, found[0].curvature)


def test_a_sweep_that_lies_on_a_cluster_is_fitted(scene):
    _, sweep, dark, _ = scene
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster, Client(cluster):
        persisted = sweep.chunk(frame=6).persist()
        found = fit_response(persisted, dark, sigma=9.0).compute()
    np.testing.assert_allclose(found.gain, fit_response(sweep, dark, sigma=9.0).gain, rtol=1e-6)


def test_nan_in_some_dark_frames_takes_no_part(scene):
    _, sweep, dark, _ = scene
    holed = dark.values.astype(float)
    holed[1, 5, 5], holed[:, 6, 7] = np.nan, np.nan
    mean = np.append(holed[:1], holed[2:], axis=0)[:, 5, 5].mean()
    cal = fit_response(sweep, dark, sigma=9.0)
    found = correct_response(sweep, cal, dark=holed).values
    np.testing.assert_allclose(found[:, 5, 5], (sweep.values[:, 5, 5] - mean) * cal.gain.values[5, 5], rtol=1e-5)
    assert np.isnan(found[:, 6, 7]).all()


def test_nan_in_the_flat_is_bridged_and_infinity_in_a_frame_is_nan(scene):
    _, sweep, dark, flat = scene
    cal = fit_response(sweep, dark, sigma=9.0).compute()
    flat = flat.astype(float).copy(data=np.where(np.arange(57) == 30, np.nan, flat.values))
    frames = sweep.values.astype(np.float32)
    frames[2, 3, 4] = np.inf
    found = correct_response(frames, cal, dark=dark, flat=flat, residual_sigma=3).values
    assert np.isfinite(found[5, ~cal.mask.values]).all()
    assert np.isnan(found[2, 3, 4])


def test_other_dims_and_coords_are_taken(scene):
    _, sweep, dark, _ = scene
    named = xr.DataArray(sweep.values, dims=("angle", "y", "x"), coords={"angle": np.arange(24.0), "frame": ("angle", np.arange(24))})
    np.testing.assert_array_equal(fit_response(named, dark, sigma=9.0).gain, fit_response(sweep, dark, sigma=9.0).gain)


def test_coords_attrs_and_dims_are_kept(scene):
    detector, sweep, dark, flat = scene
    cal = fit_response(sweep, dark, sigma=9.0)
    frames = simulate.ct_frames(detector, 5)
    found = correct_response(frames, cal, dark=dark, flat=flat)
    assert found.dims == ("frame", "y", "x")
    np.testing.assert_array_equal(found.angle, frames.angle)
    assert found.attrs["units"] == "1"
    assert correct_response(frames, cal, dark=dark).attrs["units"] == "counts"


def test_plot_shows_the_pixels_asked_for(scene):
    _, sweep, dark, _ = scene
    figure = plot_pixel_calibrations(sweep, dark, pixels=[(3, 4), (20, 30)], sigma=9.0)
    cal = fit_response(sweep, dark, sigma=9.0).compute()
    panels = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in panels] == ["row 3, column 4", "row 20, column 30"]
    assert f"gain {cal.gain.values[3, 4]:.4f}" in panels[0].texts[0].get_text()
    assert len(plot_pixel_calibrations(sweep, dark, n_pixels=9, sigma=9.0).axes) == 9


# ---------------------------------------------------------------------------------------------------------- bad input


def test_bad_options_and_shapes_are_refused(scene):
    _, sweep, dark, _ = scene
    cal = fit_response(sweep, dark, sigma=9.0)
    with pytest.raises(InputError, match=r"expected a dark of shape \(41, 57\).*got \(10, 10\)"):
        fit_response(sweep, np.zeros((10, 10)))
    with pytest.raises(InputError, match=r"expected a mask of shape \(41, 57\)"):
        fit_response(sweep, mask=np.zeros((2, 2), bool))
    with pytest.raises(InputError, match="expected order 1 or 2, got 3"):
        fit_response(sweep, order=3)
    with pytest.raises(InputError, match="boundary to be one of nearest"):
        fit_response(sweep, boundary="constant")
    with pytest.raises(InputError, match="positive sigma"):
        fit_response(sweep, sigma=0)
    with pytest.raises(InputError, match="at least 2 frames, got 1"):
        fit_response(sweep[0])
    with pytest.raises(InputError, match=r"expected a sweep of shape \(frame, y, x\)"):
        fit_response(np.zeros(7))
    with pytest.raises(InputError, match="integers or reals"):
        fit_response(sweep.astype(complex))
    with pytest.raises(InputError, match=r"expected frames of shape \(41, 57\)"):
        correct_response(np.zeros((2, 5, 5)), cal)
    with pytest.raises(InputError, match="expected a flat of shape"):
        correct_response(sweep, cal, flat=np.zeros((5, 5)))
    with pytest.raises(InputError, match="needs a flat"):
        correct_response(sweep, cal, residual_sigma=3)
    with pytest.raises(InputError, match="inside"):
        plot_pixel_calibrations(sweep, pixels=[(100, 0)])
    for options in ({"sigma": np.inf}, {"truncate": 0}, {"partial_sums": 0}):
        with pytest.raises(InputError, match="expected"):
            fit_response(sweep, dark, **options)
    with pytest.raises(InputError, match="residual_sigma of 0 or more"):
        correct_response(sweep, cal, dark=dark, flat=dark, residual_sigma=-1)
    for options in ({"order": 3}, {"n_pixels": 0}, {"n_pixels": 10**6}):
        with pytest.raises(InputError, match="expected"):
            plot_pixel_calibrations(sweep, dark, **options)
    with pytest.raises(InputError, match="gains of shape"):
        Response.from_gain(np.ones(3))


@pytest.mark.parametrize(
    "change",
    [
        lambda sweep: sweep * 0,
        lambda sweep: sweep - 1e6,  # a dark brighter than the sweep comes to this
        lambda sweep: sweep * np.nan,
        lambda sweep: sweep.where(sweep.frame == 20, 0),
    ],
)
def test_fewer_than_two_usable_frames_are_an_error(scene, change):
    _, sweep, _, _ = scene
    with pytest.raises(InputError, match="at least 2 usable frames"):
        fit_response(change(sweep.assign_coords(frame=np.arange(24)).astype(float)), sigma=9.0).compute()


def test_a_flat_that_is_nowhere_brighter_than_its_dark_is_an_error(scene):
    _, sweep, dark, _ = scene
    cal = fit_response(sweep, dark, sigma=9.0)
    for flat in (np.zeros((41, 57)), np.full((41, 57), np.nan)):
        with pytest.raises(InputError, match="brighter than its dark"):
            correct_response(sweep, cal, dark=dark, flat=flat).compute()
