"""The fit of gains in other chunks and on clusters, and what it refuses."""

from time import sleep

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.template import render
from distributed import Client, LocalCluster

from detcal import save
from detcal.errors import InputError
from detcal.response import Response, correct_response, fit_response, plot_pixel_calibrations
from tests.pipelines.commands import detcal

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


def test_plot_shows_the_pixels_asked_for(scene):
    _, sweep, dark, _ = scene
    figure = plot_pixel_calibrations(sweep, dark, pixels=[(3, 4), (20, 30)], sigma=9.0)
    cal = fit_response(sweep, dark, sigma=9.0).compute()
    panels = [axis for axis in figure.axes if axis.axison]
    assert [axis.get_title() for axis in panels] == ["row 3, column 4", "row 20, column 30"]
    assert f"gain {cal.gain.values[3, 4]:.4f}" in panels[0].texts[0].get_text()
    assert len(plot_pixel_calibrations(sweep, dark, n_pixels=9, sigma=9.0).axes) == 9


def test_a_recipe_plots_them_too(scene, tmp_path):
    """In its report; what is drawn is kept in the output."""
    _, sweep, dark, _ = scene
    save(sweep, tmp_path / "sweep.h5")
    save(dark, tmp_path / "dark.h5")
    text = render("plot_pixel_calibrations").replace("# sigma = 50.0", "sigma = 9.0")
    (tmp_path / "r.toml").write_text(text.replace("# pixels = [[100, 200], [300, 50]]", "pixels = [[3, 4], [20, 30]]"))
    detcal(tmp_path, "run", "r.toml", "--workers", "2")
    found, cal = xr.open_zarr(tmp_path / "pixels.zarr"), fit_response(sweep, dark, sigma=9.0).compute()
    np.testing.assert_allclose(found.measured[:, 1], sweep.values[:, 20, 30] - dark.values.mean(axis=0)[20, 30], rtol=1e-3)
    page = (tmp_path / "pixels.zarr.html").read_text()
    for row, column in zip(found.row.values, found.column.values, strict=True):
        assert f"row {row}, column {column}: gain {cal.gain.values[row, column]:.4f}" in page


def test_a_recipe_takes_a_dark_that_is_a_number(scene, tmp_path):
    _, sweep, _, _ = scene
    save(sweep, tmp_path / "sweep.h5")
    lines = (
        '[input]\npath = "sweep.h5"',
        '[[steps]]\noperation = "plot_pixel_calibrations"',
        "dark = 100",
        "pixels = [[20, 30]]",
        "sigma = 9.0",
    )
    (tmp_path / "r.toml").write_text("\n".join((*lines, '[output]\npath = "pixels.zarr"')))
    detcal(tmp_path, "run", "r.toml")
    np.testing.assert_allclose(xr.open_zarr(tmp_path / "pixels.zarr").measured[:, 0], sweep.values[:, 20, 30] - 100.0, rtol=1e-6)


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


@pytest.mark.parametrize("options", [{}, {"order": 2}, {"intercept": True}])
@pytest.mark.parametrize("shape", [(41, 57), (1300, 1700)], ids=["one tile", "two tiles"])
def test_a_beam_that_never_changes_is_an_error(shape, options):
    """Frames of a flat; dark ones, below the cutoff, are no other level of the beam."""
    frames = np.random.default_rng(0).poisson(5000, (5, *shape)).astype(np.uint16)
    frames[0] = 100
    with pytest.raises(InputError, match=r"beam changes.*up to 4 usable frames.*less than 1% in all but 0 of .*as its flat"):
        fit_response(frames, sigma=9.0, **options).compute()


@pytest.mark.parametrize("part", [slice(None), slice(50)], ids=["everywhere", "in a part of the detector"])
def test_a_beam_that_changes_by_a_tenth_is_fitted(part):
    gain = np.random.default_rng(1).normal(1, 0.05, (100, 100))
    beam = np.full((11, 100, 100), 1e4)
    beam[:, part] *= np.linspace(1, 1.1, 11)[:, None, None]
    found = fit_response(np.random.default_rng(0).poisson(beam * gain), sigma=9.0).compute().gain.values * gain
    assert np.std(found[20:-20, 20:-20]) < 0.02  # the noise of the smoothed gains, and of 11 frames of 10⁴ counts


def test_a_flat_that_is_nowhere_brighter_than_its_dark_is_an_error(scene):
    _, sweep, dark, _ = scene
    cal = fit_response(sweep, dark, sigma=9.0)
    for flat, words in ((np.zeros((41, 57)), "brighter than its dark"), (np.full((41, 57), np.nan), "flat with readings, found none")):
        with pytest.raises(InputError, match=words):
            correct_response(sweep, cal, dark=dark, flat=flat).compute()
