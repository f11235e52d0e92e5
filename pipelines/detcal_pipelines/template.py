"""The commented recipes that `detcal init` writes, made from the recipe's own models so that they cannot fall behind."""

import json
from typing import Any, Literal, get_origin

from pydantic.fields import FieldInfo

from detcal_pipelines.recipe import STEPS, Compute, Input, Output, Table

# What each ready recipe does: a line about it, its steps, and values that suit it.
READY: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "fit_response": (
        "From a beam sweep to the pixels' gains (Croton et al. 2019).",
        ("fit_response",),
        {"input.path": "sweep.h5", "output.path": "response.zarr", "dark": "dark.h5"},
    ),
    "correct_response": (
        "From raw CT frames to transmission without rings.",
        ("correct_response",),
        {"input.path": "ct.h5", "output.path": "corrected.zarr", "dark": "dark.h5", "flat": "flat.h5"},
    ),
    "build_psf": (
        "From a detector's geometry to the blur of its thick sensor.",
        ("build_psf",),
        {"output.path": "psf.zarr", "geometry": "detector.poni"},
    ),
    "deconvolve": (
        "From the frames of a thick sensor to what entered its pixels.",
        ("deconvolve",),
        {"input.path": "scan.h5", "output.path": "deconvolved.zarr", "psf": "psf.zarr"},
    ),
    "fit_distortion": (
        "From an image of a hole grid to a camera's distortion.",
        ("fit_distortion",),
        {"input.path": "grid.edf", "output.path": "distortion.zarr", "pitch_m": 5e-3},
    ),
    "correct_distortion": (
        "From the frames of a distorting camera to those of an even one.",
        ("correct_distortion",),
        {"input.path": "scan.h5", "output.path": "straight.zarr", "distortion": "distortion.zarr"},
    ),
    "sigma_clip": (
        "From diffraction frames to profiles without spots and hot pixels.",
        ("sigma_clip",),
        {"input.path": "scan.h5", "output.path": "profiles.zarr", "geometry": "detector.poni"},
    ),
    "median_filter": (
        "From diffraction frames to the median of each ring.",
        ("median_filter",),
        {"input.path": "scan.h5", "output.path": "medians.zarr", "geometry": "detector.poni"},
    ),
    "integrate": (
        "From diffraction frames to the mean of each ring.",
        ("integrate",),
        {"input.path": "scan.h5", "output.path": "integrated.zarr", "geometry": "detector.poni"},
    ),
    "convert_crono": (
        "From the file of a Crono scanner to smoothed spectra, and the cube of those that it selected.",
        ("convert_crono",),
        {"output.path": "converted.zarr", "scan": "scan.h5"},
    ),
    "regrid_xrf": (
        "From an X-ray fluorescence scan to a calibrated cube on a regular grid, and maps of elements.",
        ("regrid_xrf",),
        {"output.path": "cube.zarr", "scan": "scan.h5"},
    ),
}


def render(name: str) -> str:
    """The text of a ready recipe."""
    purpose, steps, values = READY[name]
    parts = [
        f"# {purpose}\n# Paths are as seen from this file. Lines that are commented out show the defaults, or an example.\n",
        *([section("[input]", Input, part(values, "input."))] if "input.path" in values else []),
        *(section("[[steps]]", STEPS[step], {"operation": step, **values}) for step in steps),
        section("[output]", Output, part(values, "output.")),
        section("[compute]", Compute, {}),
    ]
    return "\n".join(parts)


def part(values: dict[str, Any], table: str) -> dict[str, Any]:
    """The values of one table."""
    return {key.removeprefix(table): value for key, value in values.items() if key.startswith(table)}


def section(header: str, table: type[Table], values: dict[str, Any]) -> str:
    """One table of a recipe, a line a key."""
    lines = [line(name, field, values) for name, field in table.model_fields.items()]
    return f"# {table.__doc__}\n{header}\n" + "".join(lines)


def line(name: str, field: FieldInfo, values: dict[str, Any]) -> str:
    """One key: set if it must be or has a value here, else commented out."""
    value = values.get(name, field.examples[0] if field.examples else field.default)
    given = f"{name} = {json.dumps(value)}"
    if get_origin(field.annotation) is Literal and field.is_required():
        return f"{given}\n"
    mark = "" if field.is_required() or name in values else "# "
    return f"{mark + given:<44}# {field.description}\n"
