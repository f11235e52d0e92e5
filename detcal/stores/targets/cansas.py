"""One profile over q as NXcanSAS, beside what `save` writes anyway: what SasView and others for small angles open."""

import h5py
import numpy as np
import xarray as xr

PER_LENGTH = {"q_nm^-1": "1/nm", "q_A^-1": "1/angstrom"}


def add_cansas(file: h5py.File, dataset: xr.Dataset) -> None:
    """An entry of its own for the only profile of a dataset, if it has one over q; bins without an intensity are left out."""
    if "intensity" not in dataset or "radial" not in dataset["intensity"].dims:
        return
    intensity, unit = dataset["intensity"], PER_LENGTH.get(str(dataset["radial"].attrs.get("units")))
    if unit is None or intensity.size != dataset.sizes["radial"]:
        return
    entry = file.create_group("cansas")  # SasView takes entries in the order of their names, and stumbles over another one before its own
    entry.attrs.update({"NX_class": "NXentry", "canSAS_class": "SASentry", "version": "1.1", "default": "sasdata"})
    for name, text in (("definition", "NXcanSAS"), ("title", "azimuthal mean"), ("run", "1")):
        entry[name] = text
    data = entry.create_group("sasdata")
    data.attrs.update({"NX_class": "NXdata", "canSAS_class": "SASdata", "signal": "I", "I_axes": "Q", "Q_indices": 0})
    values = np.asarray(intensity, np.float64).ravel()
    there = np.isfinite(values)
    columns = {"Q": (np.asarray(dataset["radial"], np.float64), unit), "I": (values, "arbitrary")}
    if "sem" in dataset:
        columns["Idev"] = np.asarray(dataset["sem"], np.float64).ravel(), "arbitrary"
    for name, (column, units) in columns.items():
        data.create_dataset(name, data=column[there]).attrs["units"] = units
    if "Idev" in columns:
        data["I"].attrs["uncertainties"] = "Idev"
