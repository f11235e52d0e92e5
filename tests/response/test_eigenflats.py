"""Flats of a beam that moves from frame to frame: their eigenflats, and what is left in corrected frames."""

import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.template import render
from scipy.ndimage import gaussian_filter

from detcal import save, simulate
from detcal.errors import InputError
from detcal.response import Response, correct_response
from detcal.response import eigenflats as model
from detcal.response.memory import Flats, eigenflats_bytes
from detcal.response.variation import find_weights, slopes, variation
from tests.pipelines.commands import change, detcal
from tests.reference import eigenflats as reference

SHAPE, FLATS, FRAMES, COUNTS = (96, 128), 40, 6, 20000
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]
DARK = 100 + 10 * np.random.default_rng(9).normal(size=SHAPE)
PROFILE = np.exp(-(((Y - 40) / 90) ** 2)) * (1 + 0.05 * np.random.default_rng(8).normal(size=SHAPE))
TRUTH = np.array([simulate.transmission(SHAPE, angle) for angle in np.linspace(0, 3, FRAMES)])


def beams(number, rng, strength):
    """A beam whose stripes, as of a monochromator, move and change: of two components, a sine and a cosine, however far they move."""
    shifts, heights = rng.normal(0, 0.7, number).cumsum(), rng.uniform(0.5, 1.5, number)
    stripes = [height * np.sin(2 * np.pi / 17 * X + 0.03 * Y + shift) for shift, height in zip(shifts, heights, strict=True)]
    return PROFILE * (1 + strength * np.array(stripes))


def measured(strength=0.05, flats=FLATS, seed=0):
    """Frames with a sample, flats, both with photon noise, and the light of the frames."""
    rng = np.random.default_rng(seed)
    light, behind = beams(flats, rng, strength), beams(FRAMES, rng, strength)
    return rng.poisson(COUNTS * TRUTH * behind) + DARK, rng.poisson(COUNTS * light) + DARK, behind


def residual(corrected, truth=TRUTH, group=4):
    """The rms by which corrected frames differ from the truth, relative to it, in groups of pixels: in single ones photon noise is all."""
    ratio = reference.binned(np.asarray(corrected) / truth, group)
    return np.nanstd(ratio / np.nanmean(ratio, axis=(1, 2), keepdims=True) - 1)


@pytest.fixture(scope="module")
def moving():
    return measured()


def found_components(flats):
    average = flats.mean(axis=0).astype(np.float32)
    light = model.light_of(average, DARK.astype(np.float32), None)
    products = model.add_products(None, flats.astype(np.float32), average, light, top=0)
    return len(model.find_basis(products, light, None).vectors)


# --------------------------------------------------------------------------------------------------- what is left


def test_of_moving_stripes_less_than_half_is_left(moving):
    """Of the residual of the mean flat, and of flats between which frames lie in time; beside it photon noise is all."""
    frames, flats, _ = moving
    found = residual(correct_response(frames, dark=DARK, flat=flats, flat_model="eigenflats"))
    half = FLATS // 2
    in_time = correct_response(frames, dark=DARK, flat=flats, flat_positions=[-1] * half + [FRAMES] * half)
    each = correct_response(frames, dark=DARK, flat=flats, flat_positions=np.linspace(-1, FRAMES, FLATS))
    for other in (correct_response(frames, dark=DARK, flat=flats), in_time, each):
        assert found < residual(other) / 4
    noise = np.random.default_rng(1).poisson(COUNTS * TRUTH) / COUNTS
    assert found < 1.6 * residual(noise)


def test_flat_change_says_how_far_the_beam_moved(moving):
    frames, flats, behind = moving
    average = flats.mean(axis=0) - DARK
    wanted = np.sqrt([np.average((light / light.sum() * average.sum() / average - 1) ** 2, weights=average) for light in behind])
    found = correct_response(frames, dark=DARK, flat=flats, flat_model="eigenflats").flat_change
    np.testing.assert_allclose(found, wanted, atol=0.003)


def test_a_response_takes_no_stripe_for_a_gain(moving):
    """Eigenflats are relative to the flat: gains cancel, and the smoothing of the flat is not that of the stripes."""
    frames, flats, _ = moving
    gain = 1 / np.random.default_rng(3).normal(1, 0.03, SHAPE)
    response, given = Response.from_gain(gain, sigma=4.0), {"dark": DARK, "flat": (flats - DARK) / gain + DARK}
    frames = (frames - DARK) / gain + DARK
    average = flats.mean(axis=0) - DARK
    wanted = correct_response(TRUTH * average / gain, response, flat=average / gain).values  # of a beam at rest
    static = residual(correct_response(frames, response, **given), wanted)
    assert residual(correct_response(frames, response, flat_model="eigenflats", **given), wanted) < static / 4


def test_what_was_not_measured_takes_no_part(moving):
    """NaN, masked pixels and zingers in flats leave all other pixels as they are, but for the weights' own errors."""
    frames, flats, _ = moving
    good = correct_response(frames, dark=DARK, flat=flats, flat_model="eigenflats").values
    mask = np.zeros(SHAPE, bool)
    mask[30, 40:60] = mask[70:73] = True
    frames, flats = frames.copy(), flats.copy()
    frames[:, mask], flats[:, mask] = 60000 * np.random.default_rng(5).random((2, 1, 1))
    frames[2, 50:60, 50:60], flats[5, 20:40, 20:40] = np.nan, np.nan
    flats[7, 10, 10] += 50000
    found = correct_response(frames, dark=DARK, flat=flats, mask=mask, flat_model="eigenflats").values
    missing = np.isnan(found)
    assert missing[:, mask].all()
    assert missing[2, 50:60, 50:60].all()
    assert missing.sum() == FRAMES * mask.sum() + 100
    np.testing.assert_allclose(found[~missing], good[~missing], rtol=1e-2)


def test_brightness_is_for_a_monitor(moving):
    """A beam that fades makes no component, and is not taken off: a monitor does."""
    frames, flats, _ = moving
    fades, faded = np.linspace(1, 0.7, FRAMES)[:, None, None], np.linspace(1.2, 0.8, FLATS)[:, None, None]
    assert found_components((flats - DARK) * faded + DARK) == 2
    stacks = [(frames - DARK) * fades + DARK, (flats - DARK) * faded + DARK]
    named = [
        xr.DataArray(s, dims=("frame", "y", "x"), coords={"i0": ("frame", line.ravel())})
        for s, line in zip(stacks, (fades, faded), strict=True)
    ]
    found = correct_response(named[0], dark=DARK, flat=named[1], flat_model="eigenflats", normalization="i0")
    plain = correct_response(frames, dark=DARK, flat=flats, flat_model="eigenflats")
    np.testing.assert_allclose(found.mean(("y", "x")), plain.mean(("y", "x")), rtol=2e-3)
    assert residual(found) < 1.1 * residual(plain)


# ------------------------------------------------------------------------------------------------- how many there are


@pytest.mark.parametrize("flats", [5, 12, 40, 100])
@pytest.mark.parametrize(("strength", "wanted"), [(0, 0), (0.01, 2), (0.05, 2)])
def test_as_many_components_are_found_as_there_are(flats, strength, wanted):
    for seed in range(2):
        rng = np.random.default_rng(seed)
        assert found_components(rng.poisson(COUNTS * beams(flats, rng, strength)) + DARK) == wanted


@pytest.mark.parametrize(("strength", "wanted"), [(0, 0), (0.05, 2)])
def test_pixels_that_share_light_make_no_components(strength, wanted):
    """As of a lens, or a thick scintillator: noise of neighbours is alike, and its eigenvalues are spread more than white noise's."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(COUNTS * beams(FLATS, rng, strength)).astype(float)
    assert found_components(gaussian_filter(counts, (0, 1, 1)) + DARK) == wanted


def test_static_flats_are_averaged():
    """To the last bit."""
    frames, flats, _ = measured(strength=0)
    for response in (None, Response.from_gain(np.ones(SHAPE), sigma=2.0)):
        found = correct_response(frames, response, dark=DARK, flat=flats, flat_model="eigenflats")
        np.testing.assert_array_equal(found, correct_response(frames, response, dark=DARK, flat=flats))
        np.testing.assert_array_equal(found.flat_change, 0)
    alike = np.repeat(flats[:1], 5, axis=0)
    np.testing.assert_array_equal(correct_response(frames, flat=alike, flat_model="eigenflats"), correct_response(frames, flat=alike[0]))


def test_noise_is_drawn_without_images():
    """Eigenvalues of products of white noise, as numpy makes them of images."""
    rng = np.random.default_rng(0)
    slow = [np.linalg.eigvalsh(image @ image.T)[::-1] / 500 for image in rng.standard_normal((200, 10, 500))]
    np.testing.assert_allclose(model.noise_eigenvalues(10, 500).mean(axis=0), np.mean(slow, axis=0), rtol=0.03)


# ------------------------------------------------------------------------------------------------- beside a slow twin


def test_eigenflats_and_weights_are_those_of_a_slow_twin(moving, monkeypatch):
    """Whatever the strips and blocks."""
    frames, flats, _ = moving
    wanted, weights = reference.eigenflats(flats, DARK, 2)
    corrected = (frames - DARK) / (flats.mean(axis=0) - DARK)
    for name, rows in (("STRIP_BYTES", 20), ("PIECE_BYTES", 6)):
        monkeypatch.setattr(model, name, 4 * FLATS * SHAPE[1] * rows)
    lazy = [xr.DataArray(stack, dims=("frame", "y", "x")).chunk(frame=5, y=48) for stack in (frames, flats)]
    for stack, flat in ((frames, flats), lazy):
        found = correct_response(stack, dark=DARK, flat=flat, average="mean", flat_model="eigenflats").values
        ratio = corrected / found - 1
        ours = np.linalg.lstsq(wanted.reshape(2, -1).T, ratio.reshape(FRAMES, -1).T, rcond=None)
        np.testing.assert_allclose(ours[0].T @ wanted.reshape(2, -1), ratio.reshape(FRAMES, -1), atol=2e-5)
    size = 4
    coarse = reference.binned(wanted, size)
    slow = [reference.find_weights(image, coarse) for image in reference.binned(corrected, size)]
    np.testing.assert_allclose(ours[0].T, slow, atol=0.03 * np.abs(weights).max())


def test_strips_are_as_large_as_blocks_and_change_no_bit(moving, monkeypatch):
    """In strips of 18 of 96 rows flats are decoded six times for products, and for eigenflats; beside a large block, once for each."""
    frames, flats, _ = (each.astype(np.float32) for each in moving)
    for name, rows in (("STRIP_BYTES", 20), ("PIECE_BYTES", 6)):
        monkeypatch.setattr(model, name, 4 * FLATS * SHAPE[1] * rows)
    calls, in_pieces = [], model.in_pieces
    monkeypatch.setattr(model, "in_pieces", lambda *given, **options: calls.append(1) or in_pieces(*given, **options))
    found = []
    for times, strips in ((1, 2 * 6), (10, 2)):
        stack = xr.DataArray(np.repeat(frames, times, axis=0), dims=("frame", "y", "x")).chunk(frame=1 if times == 1 else -1)
        found.append(correct_response(stack, dark=DARK, flat=flats, flat_model="eigenflats").flat_change.values[::times])
        assert len(calls) == strips
        calls.clear()
    np.testing.assert_array_equal(*found)


def test_neighbours_of_what_was_not_measured_do_not_differ():
    """The kernel's variation and its slope, against the twin and finite differences."""
    rng = np.random.default_rng(2)
    image, parts = rng.uniform(1, 2, (7, 9)), 0.1 * rng.normal(size=(3, 7, 9))
    image[3, 4] = image[6, 8] = image[0, 5] = np.nan
    quotient, slope = np.empty(image.shape), np.empty(image.shape)
    at = np.array([0.3, -0.2, 0.5])

    def value(weights):
        return variation(image, parts, weights, 1e-9, quotient, slope)

    assert value(at) == pytest.approx(reference.total_variation(image / (1 + np.tensordot(at, parts, 1))), rel=1e-6)
    found = slopes(parts, at, quotient, slope)
    for number, step in enumerate(1e-6 * np.eye(3)):
        assert (value(at + step) - value(at - step)) / 2e-6 == pytest.approx(found[number], rel=1e-4)
    nothing = model.Eigenflats(parts, np.ones(3), np.ones(3), parts, 1)
    np.testing.assert_array_equal(find_weights(np.full((7, 9), np.nan, np.float32), nothing), 0)


def test_memory_does_not_grow_with_the_number_of_flats():
    """Beyond the products of each two of them."""
    few, many = (eigenflats_bytes((2000, 2000), 8, 2, Flats(flats, 2, 0), 2) for flats in (20, 400))
    assert many.prepared - 64 * 400**2 < 1.1 * few.prepared < 400e6
    assert many.once == few.once


# ---------------------------------------------------------------------------------------------------------- bad input


def test_flats_with_holes_everywhere_are_averaged_with_a_warning(moving):
    frames, flats, _ = moving
    flats = flats[:4].copy()
    for number, flat in enumerate(flats):
        flat[:, number::4] = np.nan
    with pytest.warns(UserWarning, match="no pixel was measured by all flats: their average serves for all frames"):
        found = correct_response(frames, flat=flats, flat_model="eigenflats").compute()
    np.testing.assert_array_equal(found, correct_response(frames, flat=flats))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"flat_model": "eigenflat"}, "expected flat_model = \"eigenflats\", or none, got 'eigenflat'"),
        ({"flat_model": "eigenflats", "flat_positions": [0, 1, 2, 3]}, "expected flat_model or flat_positions, got both"),
        ({"flat_components": 2}, "flat_components are those of eigenflats: give flat_model"),
        ({"flat_model": "eigenflats", "flat_components": 4}, "expected flat_components from 1 to 3, of 4 flats, got 4"),
        ({"flat_model": "eigenflats", "flat_components": 0}, "expected flat_components from 1 to 3, of 4 flats, got 0"),
        ({"flat_model": "eigenflats", "flat": np.ones((2, *SHAPE))}, "expected at least 3 flats to find eigenflats in, got 2"),
        ({"flat_model": "eigenflats", "flat": None, "dark": 1}, "expected at least 3 flats to find eigenflats in, got 0"),
    ],
)
def test_what_eigenflats_are_not_found_of_is_refused_in_one_line(options, words):
    with pytest.raises(InputError, match=words) as caught:
        correct_response(np.ones((1, *SHAPE)), **{"flat": np.ones((4, *SHAPE))} | options)
    assert "\n" not in str(caught.value)


def test_a_flat_without_light_says_so():
    with pytest.raises(InputError, match="brighter than its dark"):
        correct_response(np.ones((1, *SHAPE)), dark=np.ones(SHAPE), flat=np.ones((4, *SHAPE)), flat_model="eigenflats").compute()


# -------------------------------------------------------------------------------------------------------- in a recipe


def test_a_recipe_takes_eigenflats(moving, tmp_path):
    frames, flats = (np.rint(stack).astype(np.uint16) for stack in moving[:2])
    for name, stack in (("ct", frames), ("flat", flats), ("dark", DARK.astype(np.float32))):
        save(stack, tmp_path / f"{name}.h5")
    (tmp_path / "r.toml").write_text(render("correct_response").replace('response = "', '# response = "'))
    change(tmp_path, "r.toml", "# flat_model", "flat_model")
    detcal(tmp_path, "run", "r.toml", "--workers", "2")
    found = xr.open_zarr(tmp_path / "corrected.zarr")
    wanted = correct_response(frames, dark=DARK.astype(np.float32), flat=flats, flat_model="eigenflats")
    np.testing.assert_allclose(found.corrected, wanted, rtol=1e-4)
    np.testing.assert_allclose(found.flat_change, wanted.flat_change, rtol=1e-2)
