"""`save` and `load`: any detcal object to a file and back."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import fields
from difflib import get_close_matches
from functools import partial
from os import PathLike, fsencode
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.threaded
import h5py
import numpy as np
import xarray as xr
from dask.base import get_scheduler
from dask.system import CPU_COUNT

from detcal.errors import InputError, OutputError
from detcal.frames.once import on_first_use
from detcal.frames.precision import with_precision
from detcal.frames.stack import DIMS
from detcal.stores.absence import check_whole, warn_of
from detcal.stores.apart import check_apart, origins
from detcal.stores.calibrations import from_dataset, is_calibration, to_dataset
from detcal.stores.sources.coefficient_files import SUFFIXES, holds_coefficients, read_coefficients
from detcal.stores.sources.detector_files import holds_detector, read_detector, read_spline
from detcal.stores.sources.matrix_files import read_npz
from detcal.stores.sources.names import is_pattern
from detcal.stores.sources.nexus import holds_calibration, load_hdf5, written_by_detcal
from detcal.stores.sources.readers import check_readable, clear_errors
from detcal.stores.sources.zarr_data import attributes_of, check_metadata
from detcal.stores.sources.zarr_reader import load_zarr
from detcal.stores.sources.zarr_zip import ZIP, is_store, is_zip, pack
from detcal.stores.targets.cubes import export_raw
from detcal.stores.targets.exports import EXPORTERS, Exporter
from detcal.stores.targets.replacing import (
    check_free,
    clear_write_errors,
    is_zarr_store,
    ledger_of,
    put_in_place,
    remove,
    removed_at_the_end,
    temporary_beside,
)
from detcal.stores.targets.zarr_store import Sizes, complete, plan_layouts, prepare_zarr
from detcal.version import __version__

Compute = Callable[[list[da.Array]], Any]

READ_ALONE = ".npy"  # known, and never meant for .npz
MOST_NAME_BYTES = 220  # of 255 that disks take
# All kinds of files that are written, by suffix; None: a zarr store.
WRITERS: dict[str, Exporter | None] = {".zarr": None, ZIP: None, **EXPORTERS}


def compute_writes(writes: list[da.Array]) -> None:
    """`dask.compute`, but threads that still write when one of them has failed are waited for: nothing may follow them."""
    if get_scheduler(collections=writes) is not dask.threaded.get or dask.config.get("pool", None) is not None:
        dask.compute(writes)
        return
    with ThreadPoolExecutor(dask.config.get("num_workers", None) or CPU_COUNT) as threads:
        dask.compute(writes, scheduler=threads)


def save(
    obj: Any,
    path: str | PathLike[str],
    *,
    overwrite: bool = False,
    chunks: Sizes | None = None,
    shards: Sizes | None = None,
    precision: float | None = None,
    attrs: Mapping[str, Any] | None = None,
    compute: Compute = compute_writes,
) -> Path:
    """Compute and write an object; the target appears when it is whole, and an older one stays until then.

    Parameters
    ----------
    obj
        DataArray, Dataset, array, or a calibration such as Response.
    path
        .zarr, .zip (a zarr store in one file), .h5, .hdf5 or .nxs (NeXus NXdata; a DistortionMap also as NXdetector, one profile over q
        also as NXcanSAS), .tif or .tiff (a page a frame), .edf (a block a frame), these also of maps of elements, with their names; .png
        (a picture of maps); one profile also .xy or .dat (columns), .chi (Fit2D) and, over 2θ, .fxye (GSAS); a DistortionMap .spline
        (Fit2D); a SensorPSF .npz (scipy's sparse matrix); a cube of spectra .hspy (HyperSpy), .rpl (with a .raw beside it) or .hdr (ENVI,
        with an .img).
    overwrite
        Replace an output that exists.
    chunks, shards
        For .zarr: sizes by dimension of its chunks, and of shards that hold several; by default a chunk is a dask block.
    precision
        Of frames of float32: numbers are rounded to a power of two that is at most this fraction of each pixel's noise, so that
        they compress; 0.125 adds less than 0.1 % to the noise, and files are half as large. The noise is estimated from second differences
        along x, y and the frames of a block, too low rather than too high, and falls in thin dark structures as that of photons does; but
        it is too high of textures of single pixels in blocks of fewer than three frames, and of pixels of a few counts among brighter ones,
        up to 1.4 times. NaN and infinities stay, and so does what has no noise. Blocks alone decide: the same blocks give the same bits,
        other blocks may give other steps.
        By default numbers stay as they are.
    attrs
        More provenance for the output's attributes.
    compute
        What runs the writes; by default dask's current scheduler or client.

    Returns
    -------
    Path
        Where it was written.

    Raises
    ------
    OutputError
        The output exists or cannot be written there, its folder does not exist, its suffix is none of the above or missing, it would
        replace a folder that is not a zarr store, or a file that the object is read from, or lie inside one, or the disk is full. If
        something of its name appears while it is computed, and may not be overwritten, the result is kept under the name that is said.
    InputError
        The object, or sizes of chunks and shards, do not fit the kind of file; a precision that is not above 0 and up to 1, or of what
        is no frames of float32; and whatever computing it raises.

    Examples
    --------
    >>> import detcal
    >>> import numpy as np
    >>> import xarray as xr
    >>> frames = xr.DataArray(np.ones((2, 4, 4), np.float32), dims=("frame", "y", "x"))
    >>> str(detcal.save(frames, "frames.zarr"))
    'frames.zarr'
    """
    target = Path(path)
    check_output(obj, target, overwrite=overwrite, chunks=chunks, shards=shards, precision=precision)
    dataset = stored_form(with_precision(as_dataset(obj), precision), attrs)
    final = target.absolute()  # a worker may run in another folder
    with temporary_beside(final) as store, clear_write_errors(final, store):
        compute(list(prepare_zarr(dataset, store, chunks=chunks, shards=shards).values()))
        with finished(dataset, store, final) as whole:
            put_in_place(whole, final, overwrite)
    ledger_of(final).unlink(missing_ok=True)  # of a run whose output was there before
    return target


def stored_form(obj: Any, attrs: Mapping[str, Any] | None = None) -> xr.Dataset:
    """What is to be stored, as named variables, with what says where they come from."""
    return as_dataset(obj).assign_attrs({"detcal_version": __version__, **(attrs or {})})


@contextmanager
def finished(dataset: xr.Dataset, store: Path, target: Path) -> Iterator[Path]:
    """What is to get the target's name: a store that is written, or what one task packs or exports, since workers cannot together."""
    complete(store)
    suffix = target.suffix.lower()
    exporter = WRITERS[suffix]
    if exporter is None and suffix != ZIP:
        yield store
        return
    file = store.with_suffix(".whole")
    remove(file)  # of a run that was killed as it was here
    with removed_at_the_end(file):
        if exporter is None:
            pack(store, file)
        else:
            stored = xr.open_dataset(store, engine="zarr", chunks=None, mask_and_scale=False)[list(dataset)]
            exporter.write(stored, file)
            if exporter.beside is not None:
                put_numbers_beside(stored, file, target.with_suffix(exporter.beside), overwrite=target.exists())
        yield file


def put_numbers_beside(stored: xr.Dataset, header: Path, target: Path, *, overwrite: bool) -> None:
    """The numbers that a header is of, before it: without one nobody takes them for a result."""
    numbers = header.with_suffix(".numbers")
    with removed_at_the_end(numbers):
        export_raw(stored, numbers)
        put_in_place(numbers, target, overwrite)


def check_output(
    obj: Any,
    path: str | PathLike[str],
    *,
    overwrite: bool = False,
    chunks: Sizes | None = None,
    shards: Sizes | None = None,
    precision: float | None = None,
) -> None:
    """Raise what `save` would raise before it computes anything; nothing is written.

    Raises
    ------
    OutputError, InputError
        As `save`.
    """
    target = Path(path)
    check_free(target, overwrite)
    dataset, suffix = as_dataset(obj), target.suffix.lower()
    check_suffix(target, [each for each, kind in WRITERS.items() if kind is None or kind.takes(dataset, each)])
    exporter = WRITERS[suffix]
    check_apart(target, origins(dataset), "source")
    if exporter is not None and (chunks or shards):
        raise InputError(f"chunks and shards are those of a .zarr, and {target.name} has none: leave them out, or save to .zarr")
    if exporter is not None:
        exporter.check(dataset, suffix)
    if exporter is not None and exporter.beside is not None:
        check_free(target.with_suffix(exporter.beside), overwrite)
        check_apart(target.with_suffix(exporter.beside), origins(dataset), "source")
    plan_layouts(dataset, chunks, shards)
    with_precision(dataset, precision)


def check_path(path: str | PathLike[str], *, overwrite: bool) -> None:
    """Raise what `save` would raise of a path alone, whatever is to be written.

    Raises
    ------
    OutputError
        As `save`.
    """
    target = Path(path)
    check_name(target)
    check_free(target, overwrite)
    check_suffix(target, list(WRITERS))


def check_name(target: Path) -> None:
    """Refuse a name that leaves no room for the hidden names beside it, which are longer.

    Raises
    ------
    OutputError
        With the longest that there may be.
    """
    length = len(fsencode(target.name))
    if length > MOST_NAME_BYTES:
        raise OutputError(f"the name of {target} is too long: expected up to {MOST_NAME_BYTES} bytes, got {length}")


def check_suffix(target: Path, fitting: list[str]) -> None:
    """Refuse a suffix that is unknown; `fitting` are those that can be written, of what is at hand.

    Raises
    ------
    OutputError
        With these.
    """
    suffix = target.suffix.lower()
    if suffix not in WRITERS:
        kinds = f"expected one of {', '.join(fitting)}"
        near = [] if suffix == READ_ALONE else get_close_matches(suffix, fitting, n=1, cutoff=0.7)
        hint = f"; did you mean {target.stem}{near[0]}?" if near else ""
        raise OutputError(f"cannot write {target}: {kinds} at the end of its name, got {suffix or 'none'}{hint}")


def as_dataset(obj: Any) -> xr.Dataset:
    """What is to be stored, as named variables."""
    if isinstance(obj, xr.Dataset) and obj.data_vars:
        return obj
    if is_calibration(obj):
        return to_dataset(obj)
    if isinstance(obj, xr.DataArray):
        return obj.to_dataset(name=obj.name or "data")
    if isinstance(obj, da.Array | np.ndarray):
        return xr.DataArray(obj, dims=DIMS[3 - obj.ndim :] if obj.ndim <= 3 else None).to_dataset(name="data")
    raise InputError(f"expected a DataArray, Dataset, array or calibration to save, got {type(obj).__name__} without data")


def load(path: str | PathLike[str]) -> Any:
    """A calibration as its own type, or a Dataset, lazily, from a zarr store (a zipped one too) or HDF5 file that `save` wrote.

    Detectors with distorted pixels in NeXus files of other programs, and Fit2D's .spline files, are DistortionMaps; an .npz is the matrix
    of a sensor; a .tif that was saved of a Response is one. Chunks of a Dataset that are missing are NaN, with one warning: integers then
    become float32, those of more than 16 bits float64.

    Raises
    ------
    InputError
        No such file, one of another kind, or a damaged one; a calibration of which something is missing. Chunks whose checksum is wrong
        are found when they are computed.

    Examples
    --------
    >>> import detcal
    >>> import numpy as np
    >>> from detcal.response import Response
    >>> path = detcal.save(Response.from_gain(np.ones((4, 4))), "response.zarr")
    >>> detcal.load(path).shape
    (4, 4)
    """
    check_readable(str(path))
    found = Path(path).absolute()  # a worker may run in another folder
    if found.suffix.lower() == ".spline":
        return read_spline(str(found))
    if found.suffix.lower() == ".npz":
        return read_npz(str(found))
    if found.suffix.lower() in SUFFIXES:
        return read_coefficients(str(found))
    store = is_zarr_store(found) or (found.is_file() and is_store(str(found)))
    if not store and not h5py.is_hdf5(found):
        raise InputError(f"expected a zarr store or an HDF5 file that detcal wrote, got {path}")
    if not store and not written_by_detcal(str(found)) and holds_detector(str(found)):
        return read_detector(str(found))
    with clear_errors(str(path)):
        dataset, lacks = load_zarr(str(found)) if store else load_hdf5(str(found))
        if "detcal_type" in dataset.attrs:
            check_whole(str(path), lacks)
        warn_of(str(path), lacks, "rows", stacklevel=2)
        found_in = from_dataset(dataset)
        if dataset.attrs.get("detcal_type") != "DistortionMap":
            return found_in
        found_in.check_shapes(str(path))
    known = {field.name: value for field in fields(found_in) if not isinstance(value := getattr(found_in, field.name), xr.DataArray)}
    return on_first_use(type(found_in), partial(read_map, dataset, str(path)), shape=found_in.shape, **known)


def read_map(dataset: xr.Dataset, path: str) -> Any:
    """A DistortionMap in memory, checked."""
    with clear_errors(path):
        # in this thread: whoever calls may hold the lock of HDF5, for which others would wait for ever
        return from_dataset(dataset.compute(scheduler="synchronous")).checked(path)


def load_calibration(path: str | PathLike[str]) -> Any:
    """The calibration that a file holds; None if it holds something else.

    Raises
    ------
    InputError
        No such file, or a damaged one.
    """
    if is_pattern(path):  # of images
        return None
    check_readable(str(path))
    found = Path(path).absolute()
    if is_zarr_store(found) or is_zip(found):
        with clear_errors(str(path)):
            check_metadata(str(found), "")
            return load(found) if "detcal_type" in attributes_of(found) else None
    named = found.suffix.lower() in (".spline", ".npz") or holds_coefficients(str(found))
    return load(found) if named or (h5py.is_hdf5(found) and holds_calibration(str(found))) else None
