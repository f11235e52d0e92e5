"""Figures of the sensor."""

from typing import TYPE_CHECKING

import numpy as np

from detcal.sensor.calibration import SensorPSF

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 200


def plot_absorption(psf: SensorPSF) -> "Figure":
    """Draw which share of the light is absorbed down to each depth of the sensor, at its least and its most oblique rays.

    Parameters
    ----------
    psf
        From `build_psf`.

    Returns
    -------
    matplotlib.figure.Figure
        Depth in µm; share in %, 1 − exp(−µ·z/cosθ) (Lambert and Beer).

    Examples
    --------
    >>> from detcal.sensor import PlanarGeometry, build_psf, plot_absorption
    >>> plane = PlanarGeometry(shape=(4, 4), pixel_size_m=(1e-4, 1e-4), distance_m=0.1, poni_m=(0.0, 0.0))
    >>> figure = plot_absorption(build_psf(plane, thickness_m=4.5e-4, material="Si", energy_kev=17.4))
    >>> figure.axes[0].get_xlabel()
    'depth (µm)'
    """
    from matplotlib.figure import Figure  # slow to import, and wanted for figures alone

    figure = Figure(layout="constrained")
    axis = figure.subplots()
    depth, incidence = np.linspace(0, psf.thickness_m, POINTS), psf.geometry.incidence()
    for cosine in (incidence.max(), incidence.min()):
        absorbed = -100 * np.expm1(-psf.attenuation_per_m * depth / cosine)
        axis.plot(1e6 * depth, absorbed, label=f"{np.degrees(np.arccos(cosine)):.1f}° off the normal: {absorbed[-1]:.1f} %")
    axis.set(xlabel="depth (µm)", ylabel="absorbed (%)", xlim=(0, 1e6 * psf.thickness_m), ylim=(0, 100), title="absorption in the sensor")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure
