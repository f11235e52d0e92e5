"""What a zarr store or an HDF5 file holds, without reading its data."""

from collections.abc import Iterator
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import h5py
import zarr

from detcal.errors import InputError
from detcal.stores.sources.hdf5_files import address, as_it_is_written, follow
from detcal.stores.sources.names import HDF5_SUFFIXES, OF_FRAMES, kind_of
from detcal.stores.sources.readers import check_readable, clear_errors
from detcal.stores.sources.settings import setting_of
from detcal.stores.sources.zarr_zip import is_store, zarr_place

LONGEST = 60  # characters of an attribute


def tree(path: str | PathLike[str]) -> str:
    """Names, shapes, types, chunks and attributes in a zarr store (a zipped one too) or HDF5 file, as indented text.

    Raises
    ------
    InputError
        No such file, or of another kind.

    Examples
    --------
    >>> import h5py
    >>> import numpy as np
    >>> import detcal
    >>> with h5py.File("scan.h5", "w") as file:
    ...     file["entry/data"] = np.ones((2, 3), np.uint16)
    >>> print(detcal.tree("scan.h5"))
    scan.h5
      entry/
        data  (2, 3) uint16
    """
    name = fspath(path)
    check_readable(name)
    with clear_errors(name):
        if is_store(name):
            return "\n".join([name, *describe_zarr(zarr.open(zarr_place(name), mode="r"), "  ")])
        check_is_listed(name)
        with as_it_is_written(name) as file:
            return "\n".join([name, *describe_hdf5(file, "", {address(file): "/"})])


def check_is_listed(name: str) -> None:
    """Refuse a file of a kind that has no names in it; one of HDF5 that is damaged shows only by its name.

    Raises
    ------
    InputError
        With what shows it.
    """
    suffix = kind_of(Path(name))
    if Path(name).is_dir() or h5py.is_hdf5(name) or suffix in HDF5_SUFFIXES:
        return
    instead = f"`detcal preview {name}` shows its frames" if suffix in OF_FRAMES else "another program has to show it"
    raise InputError(f"expected a zarr store or an HDF5 file, of which tree lists the names, got {name}: {instead}")


def describe_zarr(node: zarr.Array | zarr.Group, indent: str) -> Iterator[str]:
    """Lines for the attributes and members of a zarr node."""
    yield from describe_attributes(node.attrs, indent)
    if isinstance(node, zarr.Group):
        for name, member in sorted(node.members()):
            yield indent + name + (describe_array(member) if isinstance(member, zarr.Array) else "/")
            yield from describe_zarr(member, indent + "  ")


def describe_hdf5(node: h5py.Dataset | h5py.Group, place: str, seen: dict[object, str]) -> Iterator[str]:
    """Lines for the attributes and members of an HDF5 node at `place`; another name of what was told is only a line."""
    indent = "  " * (place.count("/") + 1)
    yield from describe_attributes(node.attrs, indent)
    for name in node if isinstance(node, h5py.Group) else ():
        member = follow(node, name)
        if member is None:
            yield f"{indent}{name} → missing"
            continue
        first = seen.setdefault(address(member), f"{place}/{name}")
        if first != f"{place}/{name}":
            yield f"{indent}{name} → {first}"
            continue
        yield indent + name + (describe_array(member) if isinstance(member, h5py.Dataset) else "/")
        yield from describe_hdf5(member, first, seen)


def describe_array(array: Any) -> str:
    """Shape, type, chunks and shards."""
    sizes = {name: getattr(array, name, None) for name in ("chunks", "shards")}
    return f"  {array.shape} {array.dtype}" + "".join(f", {name} {size}" for name, size in sizes.items() if size)


def describe_attributes(attributes: Any, indent: str) -> Iterator[str]:
    """A line an attribute, cut where it is long."""
    for name, value in attributes.items():
        text = " ".join(str(setting_of(value)).split())
        yield f"{indent}@{name} = {text if len(text) <= LONGEST else text[:LONGEST] + '…'}"
