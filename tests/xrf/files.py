"""Files of scans, and how they are spoilt."""

import h5py
import numpy as np


def write_maps(path, live=0.5):
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        group = file.create_group("MAPS_RAW")
        for name in "abcd":
            group[f"data_{name}"] = rng.poisson(3, (32, 4, 5)).astype(np.int16)
        group["livetime"] = np.full((4, 4, 5), live, np.float32)
        group["livetime"][1] = 2 * live
        group["realtime"] = np.full((4, 4, 5), 1.0, np.float32)
    return path


def spoil(path, name, values):
    """Replace a dataset, or remove it."""
    with h5py.File(path, "r+") as file:
        stored = file[f"XRF/{name}"]
        whole = stored[...]
        del file[f"XRF/{name}"]
        if values is not None:
            file[f"XRF/{name}"] = values(whole)


def changed(values, index, value):
    values[index] = value
    return values
