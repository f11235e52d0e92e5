"""Attributes of HDF5 objects as Python's own types, and what detcal notes beside them."""

import json
from typing import Any

import h5py
import numpy as np

# What detcal notes beside the attributes of a group or dataset that it writes, so that it can give them back as they were:
JSON_MARK = "detcal_json"  # the names of attributes that are JSON
DIMS_MARK = "detcal_dims"  # the names of a variable's dimensions
TYPE_MARK = "detcal_dtype"  # the type of times, which are written as text
UNITS_MARK = "detcal_units"  # the units, where NeXus has others for the same


def own_attributes(item: h5py.Group | h5py.Dataset) -> dict[str, Any]:
    """The attributes of an HDF5 object as Python's own types, without detcal's notes."""
    as_json = set(item.attrs.get(JSON_MARK, ()))
    attributes = {name: value for name, value in item.attrs.items() if name not in (JSON_MARK, DIMS_MARK, TYPE_MARK, UNITS_MARK)}
    attributes |= {"units": item.attrs[UNITS_MARK]} if UNITS_MARK in item.attrs else {}
    return {name: json.loads(value) if name in as_json else own_type(value) for name, value in attributes.items()}


def own_type(value: Any) -> Any:
    """Texts and numbers as str, bool, int and float; anything else as it is."""
    if isinstance(value, bytes):  # numpy's too
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) else value
