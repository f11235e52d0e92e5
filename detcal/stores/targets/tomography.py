"""Frames with rotation angles as NXtomo, beside what `save` writes anyway: what HTTomo, nabu and tomopy open."""

import h5py
import numpy as np
import xarray as xr

from detcal.frames.selection import KEY
from detcal.frames.stack import DIMS
from detcal.stores.sources.nxtomo import ANGLE

OF_DETECTOR = {"pixel_size_x_m": "x_pixel_size", "pixel_size_y_m": "y_pixel_size", "detector_distance_m": "distance"}
ENERGY = "energy_kev"


def add_tomography(entry: h5py.Group, dataset: xr.Dataset) -> None:
    """Links to the first stack that has rotation angles, by the names of NXtomo; with the key of its frames, or as projections."""
    stacks = [name for name, frames in dataset.items() if frames.dims == DIMS and ANGLE in frames.coords and ANGLE not in frames.dims]
    if not stacks or "data" in entry:
        return
    frames = dataset[stacks[0]]
    place = f"{entry.name}/{stacks[0]}"
    entry["definition"] = "NXtomo"
    detector = create(create(entry, "instrument", "NXinstrument"), "detector", "NXdetector")
    detector["data"] = h5py.SoftLink(f"{place}/{stacks[0]}")
    if KEY in frames.coords:
        detector[KEY] = h5py.SoftLink(f"{place}/{KEY}")
    else:
        detector[KEY] = np.zeros(len(frames), np.int32)
    for name, stored in OF_DETECTOR.items():
        if name in frames.attrs:
            detector[stored] = float(frames.attrs[name])
            detector[stored].attrs["units"] = "m"
    if ENERGY in frames.attrs:
        beam = create(entry["instrument"], "beam", "NXbeam")
        beam["incident_energy"] = float(frames.attrs[ENERGY])
        beam["incident_energy"].attrs["units"] = "keV"
    create(entry, "sample", "NXsample")[ANGLE] = h5py.SoftLink(f"{place}/{ANGLE}")
    data = create(entry, "data", "NXdata")
    data.attrs.update({"signal": "data", "axes": [ANGLE, ".", "."]})
    for name in ("data", KEY):
        data[name] = h5py.SoftLink(f"{detector.name}/{name}")
    data[ANGLE] = h5py.SoftLink(f"{place}/{ANGLE}")


def create(group: h5py.Group, name: str, kind: str) -> h5py.Group:
    """A group of a NeXus class."""
    made = group.require_group(name)
    made.attrs["NX_class"] = kind
    return made
