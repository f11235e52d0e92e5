"""Intensities of each frame divided by a monitor, and the sums that profiles are made of."""

import numpy as np
import pytest
import xarray as xr

from detcal import save
from detcal.azimuthal import integrate, median_filter, quantile_filter, radial_background, sigma_clip
from detcal.errors import InputError
from tests.azimuthal.rings import random_frames, random_rings, same, trial

JOBS = {"integrate": integrate, "sigma_clip": sigma_clip, "quantile_filter": quantile_filter, "median_filter": median_filter}
MONITOR = np.array([0.5, 3.0, 1e6])


def stack_of(frames, **coords):
    lines = {name: ("frame", line) for name, line in coords.items()}
    return xr.DataArray(frames, dims=("frame", "y", "x"), coords=lines, attrs={"units": "counts"})


@pytest.mark.parametrize("job", JOBS)
def test_intensities_are_divided_and_errors_with_them(job):
    bins, frames, _ = trial(0, split=True)
    plain = JOBS[job](frames, bins).compute()
    found = JOBS[job](frames, bins, normalization=MONITOR).compute()
    for name in plain:
        factor = 1 if name == "count" else MONITOR[:, None]
        np.testing.assert_allclose(found[name], plain[name].values / factor, rtol=1e-6, err_msg=name)
    np.testing.assert_array_equal(found.normalization, MONITOR)


def test_a_number_a_coordinate_and_an_integer_array_do():
    bins, frames, _ = trial(1, split=False)
    plain = integrate(frames, bins).compute()
    np.testing.assert_allclose(integrate(frames, bins, normalization=4).compute().intensity, plain.intensity / 4, rtol=1e-6)
    timed = stack_of(frames, exposure=[1, 2, 4]).assign_coords(exposure=("frame", [1, 2, 4], {"units": "s"}))
    found = integrate(timed, bins, normalization="exposure").compute()
    np.testing.assert_allclose(found.intensity, plain.intensity / np.array([[1], [2], [4]]), rtol=1e-6)
    assert found.intensity.attrs["units"] == "counts/(s)"
    assert found["count"].attrs["units"] == "1"


def test_backgrounds_are_in_counts_again(tmp_path):
    """Through a file too; a coordinate of that name that divided nothing multiplies nothing."""
    rng = np.random.default_rng(3)
    bins = random_rings(rng)
    frames = random_frames(rng, bins.shape)
    wanted = radial_background(median_filter(frames, bins).intensity, bins).compute()
    profiles = median_filter(frames, bins, normalization=MONITOR)
    save(profiles, tmp_path / "p.zarr")
    for each in (profiles, xr.open_zarr(tmp_path / "p.zarr")):
        found = radial_background(each.intensity, bins).compute()
        same(found, wanted)
        assert "normalized_by" not in found.attrs
    named = median_filter(stack_of(frames, normalization=MONITOR), bins)
    same(radial_background(named.intensity, bins), wanted)


@pytest.mark.parametrize("model", ["poisson", "azimuthal"])
@pytest.mark.parametrize("monitor", [None, MONITOR])
def test_sums_are_those_of_the_profiles_and_add_up(model, monitor):
    bins, frames, _ = trial(2, split=True)
    options = {"error_model": model, "sums": True}
    found = integrate(frames, bins, normalization=monitor, **options).compute()
    several = found["count"].values > 1
    assert several.any()
    assert not several.all()
    signal, variance, norm = (found[f"sum_{name}"].values for name in ("signal", "variance", "normalization"))
    np.testing.assert_allclose(signal[several] / norm[several], found.intensity.values[several], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(variance[several]) / norm[several], found.sem.values[several], rtol=1e-5)
    for name in (signal, variance, norm):
        assert (name[found["count"].values == 0] == 0).all()
    flat = np.nan_to_num(frames.reshape(len(frames), -1) - bins.dark.values.ravel())
    np.testing.assert_allclose(signal, flat @ bins.to_scipy().T, rtol=1e-5, atol=1e-2)
    known = np.isfinite(frames).reshape(len(frames), -1) * bins.norm.values.ravel()
    np.testing.assert_allclose(norm / (1 if monitor is None else monitor[:, None]), known @ bins.to_scipy().T, rtol=1e-5)
    assert "sum_normalization" not in integrate(frames, bins, error_model=model)


def test_sums_of_two_runs_are_those_of_both_detectors_halves():
    bins, frames, _ = trial(3, split=False)
    left, right = frames.copy(), frames.copy()
    left[..., ::2], right[..., 1::2] = np.nan, np.nan
    parts = [sigma_clip(each, bins, max_iterations=0, error_model="poisson", sums=True).compute() for each in (left, right)]
    signal, variance, norm = (sum(part[f"sum_{name}"] for part in parts) for name in ("signal", "variance", "normalization"))
    whole = integrate(frames, bins).compute()
    there = whole["count"].values > 0
    same((signal.values[there] / norm.values[there]), whole.intensity.values[there])
    same(np.sqrt(variance.values[there]) / norm.values[there], whole.sem.values[there])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0, "expected positive numbers as normalization, got 0 for frame 0 and 2 more that are not: leave such frames out"),
        ([1, np.nan, 2], "expected positive numbers as normalization, got nan for frame 1: leave such frames out"),
        ([1, -1, 2], "got -1 for frame 1"),
        ([1, 2, np.inf], "got inf for frame 2"),
        ([1, 2], r"expected a normalization for each of the 3 frames, or one for all, got \(2,\) numbers"),
        (np.ones((3, 1)), r"got \(3, 1\) numbers"),
        ("monitor", "expected a coordinate of the frames as normalization, got 'monitor': they have time"),
        ("/entry/monitor", r"they have time; a dataset is read by get_array\(path, dataset\), in a recipe by { path, dataset, frames }"),
        ("time", "expected numbers as normalization, got <U1 'time'"),
        ([True, True, True], "expected numbers as normalization, got bool"),
    ],
)
@pytest.mark.parametrize("job", JOBS)
def test_what_is_no_normalization(job, given, message):
    bins, frames, _ = trial(0, split=False)
    with pytest.raises(InputError, match=message) as caught:
        JOBS[job](stack_of(frames, time=["a", "b", "c"]), bins, normalization=given)
    assert "\n" not in str(caught.value)


def test_a_threshold_of_0_is_chauvenets_criterion():
    """Of n normal values half a one is further out than k, so that k is below 5 here, and above 2."""
    rng = np.random.default_rng(5)
    bins = random_rings(rng)
    frames = random_frames(rng, bins.shape)
    found = {k: sigma_clip(frames, bins, threshold=k).compute()["count"].sum().item() for k in (0, 1e-9, 2, 5)}
    assert found[0] == found[1e-9] <= found[2] < found[5]
