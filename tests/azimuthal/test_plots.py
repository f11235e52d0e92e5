"""Figures: what is drawn in them, where, and in which unit; and what cannot be drawn."""

import matplotlib
import numpy as np
import pytest
import xarray as xr
from matplotlib import pyplot
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from detcal.azimuthal import build_bins, integrate, integrate_azimuthal, plot_frame, plot_profiles, sigma_clip
from detcal.errors import InputError

SHAPE = (50, 60)
LABEL = {"2th_deg": "2θ (°)", "q_nm^-1": "q (nm⁻¹)", "d_A": "d (Å)"}


@pytest.fixture(autouse=True)
def figures():
    """Without a window, and closed."""
    matplotlib.use("Agg")
    yield
    pyplot.close("all")


def place(wavelength=1e-10):
    return AzimuthalIntegrator(0.02, 0.0022, 0.0031, detector=Detector(1e-4, 1e-4, max_shape=SHAPE), wavelength=wavelength)


def frames(count):
    stack = np.random.default_rng(0).poisson(200, (count, *SHAPE)).astype(float)
    return stack * (1 + np.arange(count))[:, None, None]


@pytest.mark.parametrize("unit", [None, *LABEL])
def test_a_stack_is_drawn_as_lines_and_as_an_image(unit):
    profiles = integrate(frames(30), build_bins(place(), npt=20)).compute()
    figure = plot_profiles(profiles, unit=unit)
    lines, image = figure.axes[:2]
    wanted = place().array_from_unit(SHAPE, "center", "q_nm^-1")
    assert image.get_xlabel() == LABEL[unit or "q_nm^-1"]
    drawn = [line for line in lines.get_lines() if len(line.get_xdata()) == 20]
    assert [line.get_label() for line in drawn] == [f"frame {number}" for number in (0, 4, 8, 12, 17, 21, 25, 29)]
    for line, number in zip(drawn, (0, 4, 8, 12, 17, 21, 25, 29), strict=True):
        np.testing.assert_allclose(line.get_ydata(), profiles.intensity[number])
    q = {
        "2th_deg": lambda angle: 4 * np.pi / 0.1 * np.sin(np.deg2rad(angle) / 2), "d_A": lambda d: 20 * np.pi / d,
    }.get(unit, lambda same: same)  # fmt: skip
    np.testing.assert_allclose(q(drawn[0].get_xdata()), profiles.radial, rtol=1e-6)
    assert wanted.min() < profiles.radial.min() < profiles.radial.max() < wanted.max()
    (mesh,) = image.collections
    np.testing.assert_allclose(mesh.get_array().reshape(30, 20), profiles.intensity)
    low, high = image.get_ylim()
    assert low > high, "the first frame is at the top"


def test_errors_are_a_band_and_a_frame_alone_has_no_image():
    profiles = sigma_clip(frames(1), build_bins(place(), npt=20)).compute()
    figure = plot_profiles(profiles)
    (axis,) = figure.axes
    (band,) = axis.collections
    top = band.get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(float((profiles.intensity + profiles.sem).max()))
    (alone,) = plot_profiles(profiles.intensity.isel(frame=0), log_scale=True).axes
    assert not alone.collections
    assert alone.get_yscale() == "log"


def test_azimuths_and_cakes():
    ring = integrate_azimuthal(frames(3), build_bins(place(), npt=1, npt_azimuth=12))
    assert plot_profiles(ring).axes[1].get_xlabel() == "azimuth (°)"
    cakes = integrate(frames(2), build_bins(place(), npt=10, npt_azimuth=12)).compute()
    figure = plot_profiles(cakes.isel(frame=1), unit="2th_deg")
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("2θ (°)", "azimuth (°)")
    (mesh,) = figure.axes[0].collections
    np.testing.assert_allclose(np.ma.filled(mesh.get_array(), np.nan).reshape(12, 10), cakes.intensity[1])


def test_a_frame_with_rings_and_what_is_masked():
    masked, more = np.zeros((2, *SHAPE), bool)
    masked[:3], more[9, 9] = True, True
    bins = build_bins(place(), npt=20, unit="2th_deg", mask=masked)
    image = frames(1)[0]
    image[20, 20] = np.nan
    figure = plot_frame(image, bins, mask=more, rings=np.array([2.0, 4.5]), log_scale=False)
    shown, red = (each.get_array() for each in figure.axes[0].get_images())
    np.testing.assert_array_equal(np.ma.filled(shown, np.nan), image.astype(np.float32))
    np.testing.assert_array_equal(~np.ma.getmaskarray(red), masked | more)
    assert f"rings of 2θ (°); {masked.sum() + 1} of 3000 pixels masked" in figure.axes[0].get_title()
    (rings,) = [each for each in figure.axes[0].collections if hasattr(each, "levels")]
    assert list(rings.levels) == [2.0, 4.5]
    for level, path in zip(rings.levels, rings.get_paths(), strict=True):
        x, y = path.vertices.T
        away = 1e-4 * np.hypot(y + 0.5 - 22, x + 0.5 - 31)
        np.testing.assert_allclose(np.rad2deg(np.arctan(away / 0.02)), level, atol=0.01)


def test_rings_are_at_round_numbers_of_the_unit_that_is_asked_for():
    figure = plot_frame(frames(1), build_bins(place(), npt=20, unit="2th_deg"), unit="q_nm^-1", rings=5)
    (rings,) = [each for each in figure.axes[0].collections if hasattr(each, "levels")]
    most = place().array_from_unit(SHAPE, "center", "q_nm^-1").max()
    assert 3 <= len(rings.levels) <= 6
    assert np.allclose(np.diff(rings.levels) % 0.5, 0)
    assert rings.levels.max() < most < 2 * rings.levels.max()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda bins: plot_profiles(np.ones(3)), "expected profiles, as integrate gives them, got ndarray"),
        (lambda bins: plot_profiles(xr.Dataset({"a": ("x", [1.0])})), "got Dataset of a"),
        (lambda bins: plot_profiles(xr.DataArray(frames(2), dims=("frame", "y", "x"))), "got DataArray"),
        (lambda bins: plot_profiles(integrate(frames(2), build_bins(place(), npt=3, npt_azimuth=4))), r"take isel\(frame=0\)"),
        (lambda bins: plot_profiles(integrate(frames(4).reshape(2, 2, *SHAPE), bins)), r"take isel\(row=0, column=0\)"),
        (lambda bins: plot_profiles(xr.DataArray([1.0, 2.0], dims="radial")), "expected profiles with a coordinate radial, got none"),
        (
            lambda bins: plot_profiles(integrate(frames(2), bins), unit="2th_deg"),
            "2th_rad in 2th_deg needs|r_mm cannot be shown in 2th_deg",
        ),
        (lambda bins: plot_frame(frames(2), bins), "expected a frame, one image, got a stack of 2 frames"),
        (lambda bins: plot_frame(frames(1)[0, :9], bins), r"expected a frame of shape \(50, 60\)"),
        (lambda bins: plot_frame(frames(1)[0], bins, mask=np.ones((3, 3))), r"expected a mask of shape \(50, 60\)"),
        (lambda bins: plot_frame(frames(1)[0], "bins"), "expected AzimuthalBins"),
        (lambda bins: plot_frame(frames(1)[0], bins, unit="q"), "unknown unit 'q'"),
        (lambda bins: plot_frame(frames(1)[0], bins, rings=0), "expected a number of rings, or radii from .* got 0"),
        (lambda bins: plot_frame(frames(1)[0], bins, rings=[900.0]), r"got \[900.0\]"),
        (lambda bins: plot_frame(frames(1)[0], bins, rings="many"), "got 'many'"),
        (lambda bins: plot_frame(frames(1)[0], build_bins(place(None), npt=3, unit="2th_deg"), unit="q_nm^-1"), "needs a wavelength"),
    ],
)
def test_what_cannot_be_drawn(call, message):
    with pytest.raises(InputError, match=message):
        call(build_bins(place(), npt=20, unit="r_mm"))
