"""The blur of a thick sensor as a sparse matrix, and its inverse."""

from detcal.attenuation import attenuation_per_m
from detcal.sensor.calibration import Conditioning, SensorPSF
from detcal.sensor.geometry import PlanarGeometry
from detcal.sensor.matrix import build_psf
from detcal.sensor.operations import deconvolve
from detcal.sensor.plots import plot_absorption

__all__ = ["Conditioning", "PlanarGeometry", "SensorPSF", "attenuation_per_m", "build_psf", "deconvolve", "plot_absorption"]
