"""One scan in files of many layouts, as beamlines write them."""

import h5py
import numpy as np

ROWS, COLUMNS, CHANNELS, ELEMENTS = 4, 5, 32, 3
COUNTS = np.random.default_rng(7).poisson(40, (ELEMENTS, ROWS, COLUMNS, CHANNELS)).astype(np.uint16)  # (element, row, column, energy)
LIVE_S = np.random.default_rng(8).uniform(0.2, 1, (ELEMENTS, ROWS, COLUMNS))
Y, X = (axis * 0.5 for axis in np.indices((ROWS, COLUMNS)))  # mm
ENERGY_EV = 1000.0 + 200 * np.arange(CHANNELS)
MAP = COUNTS.sum(axis=0, dtype=int)  # (row, column, energy)
POINTS = MAP.reshape(-1, CHANNELS)


def put(file, name, values, units=None):
    stored = file.create_dataset(name, data=values)
    if units is not None:
        stored.attrs["units"] = units


def maps_raw(file):
    """The APS' raw fly scans, a dataset for each element."""
    for name, counts in zip("abc", COUNTS, strict=True):
        file[f"MAPS_RAW/data_{name}"] = counts.transpose(2, 0, 1)
    file["MAPS_RAW/livetime"] = LIVE_S


def maps(file, folder="MAPS/", energy="energy", axes=""):
    """MAPS' own results: energies, then rows and columns."""
    file[f"{folder}mca_arr"] = MAP.transpose(2, 0, 1).astype(np.float32)
    put(file, f"{folder}{energy}", ENERGY_EV / 1000)
    put(file, f"MAPS/{axes}x_axis", X[0], "mm")
    put(file, f"MAPS/{axes}y_axis", Y[:, 0], "mm")


def xrf_maps(file):
    """The same as XRF-Maps writes them."""
    maps(file, "MAPS/Spectra/", "Energy", "Scan/")


def pyxrf(file):
    file["xrfmap/detsum/counts"] = MAP
    put(file, "xrfmap/positions/pos", np.stack([X, Y]), "mm")
    file["xrfmap/positions/name"] = np.array([b"x_pos", b"y_pos"])


def pyxrf_elements(file):
    pyxrf(file)
    for number, counts in enumerate(COUNTS, 1):
        file[f"xrfmap/det{number}/counts"] = counts


def nxdata(file, axes, place="entry/plot"):
    group = file.create_group(place)
    group.attrs.update({"NX_class": "NXdata", "signal": "data", "axes": axes})
    group["data"] = MAP
    put(group, "energy", ENERGY_EV, "eV")
    put(group, "y", Y[:, 0], "mm")
    put(group, "x", X[0], "mm")
    file["entry"].attrs["NX_class"] = "NXentry"


def nexus(file):
    nxdata(file, ["y", "x", "energy"])


def nexus_bytes(file):
    nxdata(file, np.array([b"y", b"x", b"energy"]))


def nexus_colons(file):
    nxdata(file, "y:x:energy")


def nxfluo(file):
    """An application definition whose spectra lie in the instrument."""
    file["entry1/definition"] = "NXfluo"
    file["entry1"].attrs["NX_class"] = "NXentry"
    file["entry1/instrument/fluorescence/data"] = MAP
    put(file, "entry1/instrument/fluorescence/energy", ENERGY_EV / 1000, "keV")
    put(file, "entry1/sample/x", X.ravel() * 1000, "um")
    put(file, "entry1/sample/y", Y.ravel() * 1000, "um")


def plain(file):
    """Points in a list, x and y each by themselves, among other things."""
    file["scan/spectra"] = POINTS
    put(file, "scan/x", X.ravel(), "mm")
    put(file, "scan/y", Y.ravel(), "mm")
    file["scan/monitor"] = np.ones(ROWS * COLUMNS)


def plain_at_the_top(file):
    """As `plain`, x and y outside the group of the spectra."""
    file["scan/detector/spectra"] = POINTS
    put(file, "samx", X.ravel(), "mm")
    put(file, "samy", Y.ravel(), "mm")


def plain_elements(file):
    """(spectrum, detector, energy), as at NanoMAX, and positions together."""
    file["entry/measurement/xspress3"] = COUNTS.reshape(ELEMENTS, -1, CHANNELS).transpose(1, 0, 2)
    put(file, "entry/measurement/positions", np.stack([X.ravel(), Y.ravel()], axis=1), "mm")


LAYOUTS = {
    function.__name__: function
    for function in (
        maps_raw,
        maps,
        xrf_maps,
        pyxrf,
        pyxrf_elements,
        nexus,
        nexus_bytes,
        nexus_colons,
        nxfluo,
        plain,
        plain_at_the_top,
        plain_elements,
    )
}
WITHOUT_POSITIONS = ("maps_raw",)


def write(path, layout):
    with h5py.File(path, "w") as file:
        LAYOUTS[layout](file)
    return path
