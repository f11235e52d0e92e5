"""Coefficients of a response in a TIFF file that detcal wrote: a page each, which its description names."""

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import dask.array as da
import tifffile
import xarray as xr
from numpy.typing import NDArray

from detcal.errors import InputError
from detcal.stores.calibrations import from_dataset
from detcal.stores.sources.image_files import check_last_page, is_tiff
from detcal.stores.sources.readers import clear_errors

SUFFIXES = (".tif", ".tiff")


def describe(name: str, page: NDArray[Any], dataset: xr.Dataset) -> str:
    """The description of a page of a calibration: its name alone in the first line; then, as JSON, what makes it one again."""
    variable, names = dataset[name], list(map(str, dataset))
    said: dict[str, Any] = {"dtype": str(variable.dtype), "attrs": variable.attrs, "crc32": crc32(page.tobytes())}
    if name == names[0]:
        said |= {"calibration": dataset.attrs, "pages": names}
    return f"{name}\n{json.dumps(said, default=lambda value: value.tolist())}"


def read_description(page: Any) -> tuple[str, dict[str, Any]]:
    """The name of a page, and what else detcal wrote there; nothing in a file of another program."""
    name, _, said = (page.description or "").partition("\n")
    try:
        found = json.loads(said)
    except ValueError:
        return name, {}
    return name, found if isinstance(found, dict) else {}


def holds_coefficients(path: str) -> bool:
    """Whether a file is a TIFF in which detcal wrote a calibration."""
    if Path(path).suffix.lower() not in SUFFIXES or not Path(path).is_file() or not is_tiff(path):
        return False
    with clear_errors(path), tifffile.TiffFile(path) as file:
        return "calibration" in read_description(file.pages[0])[1]


def read_coefficients(path: str) -> Any:
    """The calibration of a TIFF file, in memory.

    Raises
    ------
    InputError
        A file of another program, a damaged one, or one that lacks pages.
    """
    with clear_errors(path), tifffile.TiffFile(path) as file:
        check_last_page(path, file)
        whole = read_description(file.pages[0])[1]
        if "calibration" not in whole:
            raise InputError(f"expected coefficients that detcal.save wrote, got {path}: open its images with open_frames")
        images = {}
        for page in file.pages:
            name, said = read_description(page)
            stored = page.asarray()
            if crc32(stored.tobytes()) != said["crc32"]:
                raise InputError(f"{name} in {path} is damaged: its checksum is wrong; copy or write it again")
            values = da.from_array(stored.astype(said["dtype"]), chunks=-1, name=False)
            images[name] = xr.DataArray(values, dims=("y", "x"), attrs=said["attrs"])
    lacks = [name for name in whole["pages"] if name not in images]
    if lacks:
        raise InputError(f"expected {len(whole['pages'])} pages in {path}, it lacks {', '.join(lacks)}: save the calibration again")
    return from_dataset(xr.Dataset(images, attrs=whole["calibration"]))
