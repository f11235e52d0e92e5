"""Which dimensions of an array in a zarr store are rows and columns: by their names, as zarr, xarray and OME-Zarr keep them."""

from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

import zarr

OF_XARRAY = "_ARRAY_DIMENSIONS"  # attribute in which xarray keeps names in stores of the second version
OME, IMAGES = "ome", "multiscales"  # attributes of a group of OME-Zarr


def names_of_dims(array: zarr.Array) -> tuple[str, ...]:
    """The names that an array gives its dimensions; none, if it does not."""
    names: Any = getattr(array.metadata, "dimension_names", None) or array.attrs.get(OF_XARRAY) or ()
    return tuple(map(str, names)) if len(names) == array.ndim else ()


def images_of(attrs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The images of a group of OME-Zarr, of either version; none in any other group."""
    return list(attrs.get(OME, attrs).get(IMAGES, ()))


def first_of(image: Mapping[str, Any]) -> str:
    """The array of an image that is not made smaller."""
    return str(image["datasets"][0]["path"])


def axes_of_image(image: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of an image's dimensions: before version 0.3 these were always the same, and until 0.4 texts."""
    axes = image.get("axes", ("t", "c", "z", "y", "x"))
    return tuple(str(axis["name"]) if isinstance(axis, Mapping) else str(axis) for axis in axes)


def full_images(node: zarr.Array | zarr.Group) -> Iterator[str]:
    """The names of the arrays of all images of OME-Zarr in a store."""
    groups = (
        []
        if isinstance(node, zarr.Array)
        else [("", node), *((n, m) for n, m in sorted(node.members(max_depth=None), key=itemgetter(0)) if isinstance(m, zarr.Group))]
    )
    for name, group in groups:
        yield from (f"{name}/{first_of(image)}".lstrip("/") for image in images_of(group.attrs))


def names_in(store: Any, name: str, array: zarr.Array) -> tuple[str, ...]:
    """The names of an array's dimensions, as it or the group in which it lies says them."""
    if names := names_of_dims(array):
        return names
    folder, _, own = name.rpartition("/")
    images = images_of(zarr.open_group(store, path=folder, mode="r").attrs) if own else []
    named = [axes_of_image(image) for image in images if own in [str(each["path"]) for each in image["datasets"]]]
    return named[0] if named and len(named[0]) == array.ndim else ()
