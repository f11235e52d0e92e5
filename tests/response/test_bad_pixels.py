"""Bad pixels by what a sweep says of them, each kind at known places."""

import numpy as np
import pytest
import xarray as xr

from detcal import load, save, simulate
from detcal.errors import InputError
from detcal.response import correct_response, defects, fit_response

SHAPE, EACH, FRAMES, PEAK = (256, 256), 60, 64, 20000
REASON = {name: 1 << bit for bit, name in enumerate(defects.NAMES)}
KINDS = ("dead", "hot", "stuck", "nonlinear", "blinking")


def spoil(kind, signal, rng):
    """What a bad pixel reads (frame, pixel) in place of its signal."""
    if kind == "dead":
        return 0.03 * signal
    if kind == "hot":
        return 15 * signal
    if kind == "stuck":
        return np.broadcast_to(rng.uniform(500, 30000, signal.shape[1]), signal.shape)
    if kind == "nonlinear":
        return signal * (1 - 0.15 * signal / PEAK)
    return signal * (1 - 0.15 * (rng.random(signal.shape) < 0.3))


@pytest.fixture(scope="module")
def trial():
    """A fit to a sweep in which each kind of defect is in some pixels, and a corner never lit; and which pixels are of which kind."""
    detector = simulate.detector(SHAPE, seed=3)
    rng = np.random.default_rng(4)
    sweep = simulate.beam_sweep(detector, FRAMES, peak=PEAK).values.reshape(FRAMES, -1) - detector.dark.ravel()
    places = dict(zip(KINDS, rng.choice(sweep.shape[1], (len(KINDS), EACH), replace=False), strict=True))
    truth = np.zeros(sweep.shape[1], np.uint8)
    for kind, pixels in places.items():
        sweep[:, pixels] = spoil(kind, sweep[:, pixels], rng)
        truth[pixels] = REASON[kind]
    frames, truth = sweep.reshape(FRAMES, *SHAPE), truth.reshape(SHAPE)
    frames[:, :60, :60], truth[:60, :60] = 0, REASON["never_lit"]
    return fit_response(frames, sigma=15.0).compute(), frames, truth


def test_bad_pixels_are_found_and_good_ones_are_not(trial):
    """Beside the corner without light half of the gaussian is dark: such pixels are lit, or not, by the cutoff alone."""
    cal, _, truth = trial
    beside = np.zeros(SHAPE, bool)
    beside[:90, :90] = truth[:90, :90] != REASON["never_lit"]
    for kind in KINDS:
        assert cal.mask.values[(truth == REASON[kind]) & ~beside].mean() > 0.95, kind
    assert (cal.reasons.values[:20, :20] == REASON["never_lit"]).all()
    assert cal.mask.values[(truth == 0) & ~beside].mean() < 1e-4
    np.testing.assert_array_equal(cal.mask, cal.reasons != 0)


def test_reasons_are_those_that_they_have(trial):
    """What bends as little as here may be told from noise alone."""
    cal, _, truth = trial
    for kind in KINDS:
        named = cal.reasons.values[truth == REASON[kind]] & REASON[kind]
        assert (named != 0).mean() > (0.6 if kind == "nonlinear" else 0.95), kind


@pytest.mark.parametrize("model", [{"order": 2}, {"intercept": True}])
def test_other_models_find_what_scatters(trial, model):
    _, frames, truth = trial
    part = np.s_[100:200, 100:200]
    cal, truth = fit_response(frames[:, *part], sigma=15.0, **model).compute(), truth[part]
    assert cal.mask.values[truth == REASON["blinking"]].all()
    assert not cal.mask.values[truth == 0].any()
    assert not (cal.reasons.values & REASON["nonlinear"]).any()


def test_limits_may_be_none_or_narrow(trial):
    _, frames, truth = trial
    part = np.s_[100:200, 100:200]
    wide = fit_response(frames[:, *part], sigma=15.0, dead=1e-6, hot=1e6, nonlinear=np.inf, blinking=np.inf).compute()
    assert not (wide.reasons.values & ~np.uint8(REASON["stuck"])).any()
    assert fit_response(frames[:, *part], sigma=15.0, blinking=1.0).compute().mask.values[truth[part] == 0].mean() > 0.1


def test_what_has_no_noise_is_not_bad():
    """Frames that were calculated: what differs by rounding stands out from what does not."""
    pixels = np.random.default_rng(0).normal(1, 0.05, (80, 80))
    assert not fit_response(np.linspace(1000, 9000, 12)[:, None, None] * pixels, sigma=5.0).compute().mask.any()


@pytest.mark.parametrize("name", ["response.zarr", "response.h5"])
def test_reasons_are_saved_and_are_masks(trial, tmp_path, name):
    cal, frames, _ = trial
    save(cal, tmp_path / name)
    found = load(tmp_path / name)
    xr.testing.assert_equal(found.reasons, cal.reasons)
    assert found.reasons.attrs == cal.reasons.attrs
    assert cal.reasons.attrs["flag_meanings"].split()[cal.reasons.attrs["flag_masks"].index(32)] == "blinking"
    assert np.isnan(correct_response(frames[:1], found).values[0][cal.mask.values]).all()
    masked = fit_response(frames, sigma=15.0, mask=cal.reasons).compute()
    assert masked.mask.values[cal.mask.values].all()


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"dead": 0}, "expected dead as a positive number, or infinity for no limit, got 0"),
        ({"blinking": np.nan}, "expected blinking as a positive number"),
        ({"nonlinear": True}, "expected nonlinear as a positive number"),
        ({"dead": 11}, "expected hot above dead, got dead = 11 and hot = 10"),
    ],
)
def test_limits_that_are_none_are_refused(limits, words):
    with pytest.raises(InputError, match=words):
        fit_response(np.ones((2, 4, 4)), **limits)
