"""Distortion maps in the files of other programs: NeXus detectors, which pyFAI opens, and Fit2D's splines."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import scipy  # of which an attribute is imported when it is asked for
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.sizes import check_pixels
from detcal.stores.absence import check_whole
from detcal.stores.sources.hdf5_data import Hdf5Array
from detcal.stores.sources.hdf5_files import open_hdf5
from detcal.stores.sources.readers import check_readable, clear_errors

if TYPE_CHECKING:
    from detcal.distortion.calibration import DistortionMap

# The corners of a pixel (row, column) in the order of NeXus files as pyFAI reads them
ORDER = ((0, 0), (1, 0), (1, 1), (0, 1))
ROWS_A_BLOCK = 64
APART = 1e-3  # of a pixel, by which corners that neighbours share may differ
NUMBER_WIDTH = 14  # characters of a number in a spline file
DEGREE = 3
UNITS = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "µm": 1e-6}


def add_detector(entry: h5py.Group, dataset: xr.Dataset) -> None:
    """A map as an NXdetector in an NXinstrument: corners (y, x, 4, 3) as (z, y, x) in metres, mask and pixel size."""
    entry["start_time"] = datetime.now(UTC).isoformat(timespec="seconds")  # without one, pyFAI sees no entry
    instrument = entry.create_group("instrument")
    instrument.attrs["NX_class"] = "NXinstrument"
    detector = instrument.create_group("detector")
    detector.attrs["NX_class"] = "NXdetector"
    mask, corners = dataset["mask"].values, dataset["corners_m"]
    fixed = {"API_VERSION": np.bytes_("1.0"), "IS_FLAT": True, "IS_CONTIGUOUS": True, "force_pixel": True}
    lines = {"shape": mask.shape, "max_shape": mask.shape, "binning": (1, 1)}
    for name, value in [*fixed.items(), *((name, np.array(line, np.int32)) for name, line in lines.items())]:
        detector[name] = value
    detector.create_dataset("pixel_size", data=np.array(dataset.attrs["pixel_size_m"], float)).attrs["units"] = "m"
    detector.create_dataset("mask", data=mask.astype(np.int8), compression="gzip", shuffle=True)
    stored = detector.create_dataset(
        "pixel_corners",
        (*mask.shape, 4, 3),
        np.float32,
        chunks=(1, mask.shape[1], 4, 3),
        compression="gzip",
        compression_opts=1,
        shuffle=True,
    )
    stored.attrs.update({"units": "m", "interpretation": "vertex"})
    for start in range(0, mask.shape[0], ROWS_A_BLOCK):
        stop = min(start + ROWS_A_BLOCK, mask.shape[0])
        some = corners[start : stop + 1].values
        block = np.zeros((stop - start, mask.shape[1], 4, 3), np.float32)
        for place, (i, j) in enumerate(ORDER):
            block[:, :, place, 1:] = some[i : i + stop - start, j : j + mask.shape[1]]
        stored[start:stop] = block


def find_detector(file: h5py.File) -> h5py.Group | None:
    """The first NXdetector with corners in a NeXus file, or else the first with the size of pixels, as pyFAI writes it."""
    found = [
        detector
        for entry in groups_of(file, "NXentry")
        for instrument in (*groups_of(entry, "NXinstrument"), *groups_of(entry, "NXsubentry"))
        for detector in groups_of(instrument, "NXdetector")
        if "pixel_corners" in detector or "pixel_size" in detector
    ]
    return min(found, key=lambda detector: "pixel_corners" not in detector, default=None)


def groups_of(group: h5py.Group, kind: str) -> Iterator[h5py.Group]:
    """The groups of a NeXus class."""
    for item in group.values():
        name = item.attrs.get("NX_class", "") if isinstance(item, h5py.Group) else ""
        if (name.decode() if isinstance(name, bytes) else name) == kind:
            yield item


def holds_detector(path: str) -> bool:
    """Whether an HDF5 file holds an NXdetector with corners, or with the size of pixels."""
    with open_hdf5(path) as file:
        return find_detector(file) is not None


def read_detector(path: str) -> "DistortionMap":
    """The map of the first NXdetector with corners in a file.

    Raises
    ------
    InputError
        A damaged file, a detector without corners, pixels that do not touch, or that are not on a plane.
    """
    with open_hdf5(path) as file:
        detector = find_detector(file)
        if detector is None or "pixel_corners" not in detector:
            raise InputError(f"expected an NXdetector with pixel_corners in {path}, got one without: it is a detector without distortion")
        parts = {name: Hdf5Array.of(detector[name]).lacks for name in ("pixel_corners", "pixel_size", "mask") if name in detector}
        check_whole(path, {name: lacks for name, lacks in parts.items() if lacks})
        quads = in_metres(path, detector, "pixel_corners")
        if quads.ndim != 4 or quads.shape[2:] != (4, 3) or not quads.size:
            raise InputError(f"expected pixel_corners of shape (y, x, 4, 3) in {path}, got {quads.shape}")
        size = in_metres(path, detector, "pixel_size") if "pixel_size" in detector else None
        masked = np.asarray(detector["mask"][()] != 0) if "mask" in detector else np.zeros(quads.shape[:2], np.bool_)
    if masked.shape != quads.shape[:2]:
        raise InputError(f"expected a mask of shape {quads.shape[:2]} (y, x) in {path}, as pixel_corners, got {masked.shape}")
    masked = masked | ~np.isfinite(quads).all(axis=(2, 3))
    if masked.all():
        raise InputError(f"expected pixels in {path}, got corners that are all masked or not finite")
    corners = joined(path, quads[..., 1:])
    if np.ptp(quads[~masked][..., 0]) > 1e-6:
        raise InputError(f"expected a flat detector in {path}: its pixels are not on one plane")
    return map_of(corners, mean_pitch(corners) if size is None else tuple(size.ravel().tolist()), masked).checked(path)


def in_metres(path: str, detector: h5py.Group, name: str) -> NDArray[np.float64]:
    """A dataset of lengths."""
    stored = detector[name]
    if not isinstance(stored, h5py.Dataset) or stored.dtype.kind not in "iuf":
        raise InputError(f"expected numbers as {name} in {path}, got something else")
    units = stored.attrs.get("units", "m")
    units = units.decode() if isinstance(units, bytes) else str(units)
    if units not in UNITS:
        raise InputError(f"expected {name} in {', '.join(UNITS)} in {path}, got {units!r}")
    return np.asarray(stored[()] * UNITS[units], float)


def joined(path: str, quads: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners (y + 1, x + 1, 2) of pixels that share them, from those of each pixel (y, x, 4, 2)."""
    height, width = quads.shape[:2]
    corners = np.full((height + 1, width + 1, 2), np.nan)
    for place, (i, j) in enumerate(ORDER):
        part = corners[i : i + height, j : j + width]
        np.copyto(part, quads[:, :, place], where=np.isnan(part))
    pitch = max(mean_pitch(corners))
    for place, (i, j) in enumerate(ORDER):
        apart = np.abs(corners[i : i + height, j : j + width] - quads[:, :, place])
        if np.nanmax(apart, initial=0) > max(APART * pitch, 1e-7):
            raise InputError(f"expected pixels that touch in {path}: a map has one corner where four pixels meet, and no gaps")
    return corners


def mean_pitch(corners: NDArray[np.float64]) -> tuple[float, float]:
    """Distances between corners along y and x, in the mean."""
    return float(np.nanmean(np.abs(np.diff(corners[..., 0], axis=0)))), float(np.nanmean(np.abs(np.diff(corners[..., 1], axis=1))))


def map_of(corners: NDArray[np.float64], size: tuple[float, ...], masked: NDArray[np.bool_]) -> "DistortionMap":
    """A map without dots."""
    from detcal.distortion.calibration import DistortionMap  # here, because workers that write frames need none

    return DistortionMap.of_corners(corners, size, masked)  # type: ignore[arg-type]  # which the check looks at


def read_spline(path: str) -> "DistortionMap":
    """The map of a Fit2D .spline file: displacements in pixels, along x and y, as bicubic B-splines over the pixels' corners.

    Raises
    ------
    InputError
        A file that is damaged or of another kind.
    """
    check_readable(path)
    with clear_errors(path):
        lines = Path(path).read_text(encoding="latin-1").splitlines()
        parts = {line.strip().upper(): number for number, line in enumerate(lines)}
        x0, y0, x1, y1 = numbers_after(lines, parts["VALID REGION"])[:4]
        _, pixel_x, pixel_y = numbers_after(lines, parts["GRID SPACING, X-PIXEL SIZE, Y-PIXEL SIZE"])[:3]
        shape = int(y1 - y0), int(x1 - x0)
        check_pixels(shape, f"a camera in {path}")
        if min(shape) < 1 or not min(pixel_x, pixel_y) > 0:
            raise InputError(f"expected a region of pixels of a positive size in {path}, got {shape} of {pixel_y} × {pixel_x} µm")
        y, x = (np.arange(size + 1.0) for size in shape)
        splines = [spline_after(lines, parts[name]) for name in ("X-DISTORTION", "Y-DISTORTION")]
        moved_x, moved_y = (scipy.interpolate.bisplev(x, y, spline).T for spline in splines)
    most = max(np.abs(moved_x).max(), np.abs(moved_y).max())
    if not most < max(shape):
        raise InputError(f"expected displacements of less than {max(shape)} pixels, as the camera has, in {path}, got {most:.3g}")
    size = pixel_y * 1e-6, pixel_x * 1e-6
    corners = np.stack([(y[:, None] + moved_y) * size[0], (x + moved_x) * size[1]], axis=-1)
    return map_of(corners, size, np.zeros(shape, np.bool_)).checked(path)


def numbers_after(lines: list[str], title: int) -> list[float]:
    """The numbers of the lines between a title and the next empty line, in columns of fixed width."""
    found = []
    for line in lines[title + 1 :]:
        if not line.strip():
            break
        found += [float(line[start : start + NUMBER_WIDTH]) for start in range(0, len(line.rstrip()), NUMBER_WIDTH)]
    return found


def spline_after(lines: list[str], title: int) -> tuple[Any, ...]:
    """Knots along x and y, coefficients and degrees of the B-spline below a title."""
    counts = [int(word) for word in lines[title + 1].split()]
    numbers = iter(numbers_after(lines, title + 1))
    knots_x, knots_y = (np.array(list(islice(numbers, count))) for count in counts)
    coefficients = np.array(list(numbers))
    for knots in (knots_x, knots_y):
        if len(knots) < 2 * (DEGREE + 1) or not (np.diff(knots) >= 0).all():
            raise InputError(f"expected at least {2 * (DEGREE + 1)} rising knots below {lines[title].strip()}, got {knots.tolist()}")
    expected = (counts[0] - DEGREE - 1) * (counts[1] - DEGREE - 1)
    if len(coefficients) != expected:
        raise InputError(f"expected {expected} coefficients below {lines[title].strip()}, got {len(coefficients)}")
    if not np.isfinite(coefficients).all():
        raise InputError(f"expected numbers as coefficients below {lines[title].strip()}, got NaN or infinity")
    return knots_x, knots_y, coefficients, DEGREE, DEGREE
