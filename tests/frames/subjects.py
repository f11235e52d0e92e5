"""Small calibrations of all subjects, and frames with one pixel in question."""

import dask.array as da
import numpy as np
import xarray as xr
from pyFAI.detectors import Detector
from pyFAI.detectors.sensors import SensorConfig
from pyFAI.geometry import Geometry

from detcal import azimuthal, distortion, response, sensor

SHAPE = (8, 8)
HOLE = (4, 4)
GAIN = response.Response.from_gain(np.ones(SHAPE), sigma=1.0)
CORNERS = np.stack(np.meshgrid(*2 * [np.arange(9.0)], indexing="ij"), axis=-1)
IDEAL = distortion.DistortionMap.of_corners(CORNERS, (1.0, 1.0), np.zeros(SHAPE, bool))
PSF = sensor.build_psf(sensor.PlanarGeometry(SHAPE, (1e-4, 1e-4), 1.0, (0.0, 0.0)), attenuation_per_m=1e5, thickness_m=1e-3)


def bins_of(detector=None, **options):
    """Each pixel in a ring, or a few together, near the beam: a mean of few numbers."""
    detector = detector or Detector(1e-4, 1e-4, max_shape=SHAPE)
    return azimuthal.build_bins(Geometry(1.0, detector=detector), npt=1, unit="r_mm", solid_angle=False, **options)


ONE_RING = bins_of()


def mean_of(frames, bins=None, **options):
    return azimuthal.integrate(frames, bins or ONE_RING, **options).compute().intensity.values[:, 0]


def stack_of(value, dtype, count=2, background=100):
    """Frames of 100 counts with a value in one pixel."""
    frames = np.full((count, *SHAPE), background, dtype)
    frames[(slice(None), *HOLE)] = value
    return frames


def lazy(frames, **attrs):
    return xr.DataArray(da.from_array(frames, chunks=(1, -1, -1)), dims=("frame", "y", "x"), attrs=attrs)


def known_pixel(found):
    return np.isfinite(found[(slice(None), *HOLE)]).all()


def parallax_geometry():
    detector = Detector(1e-4, 1e-4, max_shape=SHAPE, sensor=SensorConfig.from_dict({"material": "Si", "thickness": 1e-3}))
    geometry = Geometry(0.1, detector=detector, wavelength=1e-10)
    geometry.enable_parallax(True)
    return geometry


DARK = np.full((2, *SHAPE), 3, np.uint16)
