"""Calibrations as Datasets and back: images become variables, options become attributes."""

from dataclasses import fields
from importlib import import_module
from typing import Any

import dask.array as da
import xarray as xr

from detcal.sizes import check_pixels

# Where each calibration is defined: imported when one is met, since a worker that writes frames needs none of them.
CALIBRATIONS = {
    "Response": "detcal.response.calibration",
    "SensorPSF": "detcal.sensor.calibration",
    "AzimuthalBins": "detcal.azimuthal.calibration",
    "GridPoints": "detcal.distortion.calibration",
    "DistortionMap": "detcal.distortion.calibration",
    "OverlapMatrix": "detcal.distortion.calibration",
    "ScanGrid": "detcal.xrf.calibration",
}


def is_calibration(obj: Any) -> bool:
    """Whether an object is a calibration that can be stored."""
    return CALIBRATIONS.get(type(obj).__name__) == type(obj).__module__


def to_dataset(calibration: Any) -> xr.Dataset:
    """The Dataset that stores a calibration: what it computed already as it is, and the rest lazily."""
    calibration = calibration.at_hand() if hasattr(calibration, "at_hand") else calibration
    values = {field.name: getattr(calibration, field.name) for field in fields(calibration)}
    images = {name: value for name, value in values.items() if isinstance(value, xr.DataArray)}
    images |= {name: xr.DataArray(value, dims=f"{name}_place") for name, value in values.items() if isinstance(value, da.Array)}
    options = {name: value for name, value in values.items() if value is not None and name not in images}
    return xr.Dataset(images, attrs={"detcal_type": type(calibration).__name__, **options})


def from_dataset(dataset: xr.Dataset) -> Any:
    """The calibration that a Dataset holds, or the Dataset itself if it holds none.

    Raises
    ------
    ValueError
        Something of it is not there.
    """
    name = dataset.attrs.get("detcal_type", "")
    if name not in CALIBRATIONS:
        return dataset
    kind = getattr(import_module(CALIBRATIONS[name]), name)
    names = {field.name: field.type for field in fields(kind)}
    images = {str(name): variable.data if names[name] is da.Array else variable for name, variable in dataset.items() if name in names}
    for field, image in images.items():
        if image.ndim >= 2:
            check_pixels(image.shape[:2], f"{field} of a {name}")
    options = {str(key): as_tuples(value) for key, value in dataset.attrs.items() if key in names}
    stored = [each.name for each in fields(kind) if each.default is not None]  # options of None are not
    if lost := [each for each in stored if each not in images.keys() | options.keys()]:
        raise ValueError(f"it does not say the {', '.join(lost)} of its {name}")
    return kind(**images, **options)


def as_tuples(value: Any) -> Any:
    """A calibration cannot be changed, so that its options are tuples where files hold lists."""
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value
