"""The sensor's efficiency under oblique rays: rings of an evenly lit sphere are flat, and it is divided out where it should be."""

import json

import numpy as np
import pyFAI
import pytest
import xarray as xr
import xraydb
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

from detcal.azimuthal import build_bins, find_hot_pixels, integrate, median_filter, outlier_mask, sigma_clip
from detcal.errors import InputError

SENSORS = {"Si": (2.329, 450e-6), "CdTe": (5.85, 1e-3), "GaAs": (5.3176, 500e-6)}  # g/cm³, m
SHAPE = 40, 50


def place(material="Si", thickness=450e-6, energy=17.4, sensor=True, detector=None, **rotations):
    """Rays from 0 to 60° on a plane detector."""
    if detector is None:
        detector = Detector(1e-3, 1e-3, max_shape=SHAPE, orientation=3)
        if sensor:
            detector.set_config({"sensor": {"material": material, "thickness": thickness}})
    wavelength = None if energy is None else 12.39841984e-10 / energy
    return Geometry(0.03, 0.0, 0.0, **rotations, detector=detector, wavelength=wavelength)


def even(depth):
    """A frame of an evenly lit sphere in a sensor of µt, and angles of incidence, by the positions of pixels alone."""
    y, x = ((np.arange(size) + 0.5) * 1e-3 for size in SHAPE)
    cosine = 0.03 / np.sqrt(0.03**2 + y[:, None] ** 2 + x**2)
    return 1e4 * cosine**3 * (1 - np.exp(-depth / cosine)) / (1 - np.exp(-depth)), np.rad2deg(np.arccos(cosine))


@pytest.mark.parametrize("energy", [10, 17.8, 25.5, 45, 69, 80])
@pytest.mark.parametrize("material", SENSORS)
def test_rings_of_an_even_sphere_are_flat(material, energy, tmp_path):
    density, thickness = SENSORS[material]
    geometry = place(material, thickness, energy, rot1=0.3, rot2=-0.2)
    geometry.save(str(tmp_path / "a.poni"))
    frame, angle = even(thickness * 100 * xraydb.material_mu(material, 1000 * energy, density=density))
    assert angle.max() > 60
    bins = build_bins(tmp_path / "a.poni", npt=20, unit="2th_deg", mask=angle > 60)
    found = integrate(frame, bins, error_model="no").compute().intensity.values
    np.testing.assert_allclose(found, 1e4, rtol=1e-3)
    told = json.loads(bins.provenance)
    assert told["sensor_efficiency"]["thickness_m"] == thickness
    assert told["pyFAI_version"] == pyFAI.version


def test_it_can_be_left_out_and_is_with_a_flat():
    geometry, plain = place(), place(sensor=False)
    assert "efficiency" in build_bins(geometry, npt=3).corrections
    for bins in (
        build_bins(geometry, npt=3, sensor_efficiency=False),
        build_bins(plain, npt=3),
        build_bins(geometry, npt=3, flat=np.ones(SHAPE)),
    ):
        assert "efficiency" not in bins.corrections
        assert json.loads(bins.provenance)["sensor_efficiency"] is None
        np.testing.assert_array_equal(bins.norm, build_bins(plain, npt=3).norm)
    both = build_bins(geometry, npt=3, flat=np.ones(SHAPE), sensor_efficiency=True)
    assert both.corrections == ("flat", "efficiency")


def test_the_only_sensor_of_a_model_has_to_be_asked_for():
    geometry = place(detector=pyFAI.detector_factory("Pilatus CdTe 300k"))
    assert "efficiency" not in build_bins(geometry, npt=3).corrections
    assert "efficiency" in build_bins(geometry, npt=3, sensor_efficiency=True).corrections


def test_it_makes_steep_pixels_count_less():
    """Twice the way at 60°: of a thin sensor they see up to twice as much, of a thick one no more than others."""
    thin, thick = (build_bins(place(thickness=t), npt=3, solid_angle=False).norm.values for t in (1e-6, 4e-2))
    np.testing.assert_allclose(thin[-1, -1], np.sqrt(1 + (39.5**2 + 49.5**2) / 30**2), rtol=2e-3)
    np.testing.assert_allclose(thick, 1, rtol=1e-6)


def test_what_is_not_known_is_said():
    geometry = place(energy=None)
    with pytest.warns(UserWarning, match="efficiency needs its wavelength.*not divided out.*sensor_efficiency=False"):
        assert build_bins(geometry, npt=3, unit="2th_deg").corrections == ()
    build_bins(geometry, npt=3, unit="2th_deg", sensor_efficiency=False)
    with pytest.raises(InputError, match="efficiency needs its wavelength"):
        build_bins(geometry, npt=3, unit="2th_deg", sensor_efficiency=True)
    with pytest.raises(InputError, match="efficiency needs its thickness and material; the geometry says nothing of its sensor"):
        build_bins(place(sensor=False), npt=3, sensor_efficiency=True)
    with pytest.raises(InputError, match="sensor_efficiency to be True, False or None, got 'Si'"):
        build_bins(geometry, npt=3, unit="2th_deg", sensor_efficiency="Si")


def test_a_flat_that_frames_had_is_not_joined_by_it_in_silence():
    """In Python: a step leaves it out by itself."""
    frames = xr.DataArray(np.ones((1, *SHAPE)), dims=("frame", "y", "x"), attrs={"corrections": ["dark", "flat"]})
    bins = build_bins(place(), npt=3)
    for job in (integrate, sigma_clip, median_filter, outlier_mask, find_hot_pixels):
        with pytest.warns(UserWarning, match="frames had a flat divided out, .* build them with sensor_efficiency=False"):
            job(frames, bins)
        job(frames, build_bins(place(), npt=3, sensor_efficiency=False))  # warnings are errors here
        job(frames.assign_attrs(corrections=["dark"]), bins)
