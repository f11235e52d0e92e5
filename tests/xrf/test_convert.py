"""Crono files converted to what cronomaxrf makes of them."""

import dask
import h5py
import numpy as np
import pytest
import xarray as xr
from distributed import Client

import detcal
from detcal import xrf
from detcal.errors import InputError, OutputError
from detcal.stores.sources.hdf5_data import Hdf5Array
from tests.reference import xrf as reference

NAMES = ["maxrf_all_spectra", "maxrf_cube", "maxrf_max_spectrum", "maxrf_sum_spectrum", "maxrf_energies"]


@pytest.mark.parametrize("name", ["map.zarr", "map.zip"])
def test_conversion_is_cronomaxrfs_arithmetic(original, simulated, tmp_path, name, capsys):
    path = detcal.convert_crono(original, tmp_path / name)
    assert "100%" in capsys.readouterr().out
    wanted = reference.cronomaxrf(simulated.spectra.values, simulated.selected.values)
    for array, values in wanted.items():
        np.testing.assert_allclose(detcal.get_array(path, array), values, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(detcal.get_array(path, "maxrf_energies"), simulated.energy.values, rtol=1e-6)
    np.testing.assert_array_equal(detcal.get_array(path, "maxrf_total_spectrum"), simulated.spectra.values.sum(axis=0))
    found = detcal.load(path)
    assert set(found) == {*NAMES, "maxrf_total_spectrum"}
    assert found.maxrf_cube.shape == (12, 15, 256)
    assert "mean" in found.maxrf_sum_spectrum.attrs["long_name"]
    told = detcal.tree(path)
    assert all(f"{array}  " in told for array in NAMES)


def test_conversion_reads_the_file_once(crono, simulated, tmp_path, monkeypatch):
    with h5py.File(crono, "r+") as file:
        del file["XRF/Spectra"]
        file["XRF"].create_dataset("Spectra", data=simulated.spectra.values, chunks=(32, 256), compression="gzip")
    rows = []
    read = Hdf5Array.__getitem__

    def counted(self, key):
        if self.name == "/XRF/Spectra":
            rows.append(len(range(*key[0].indices(self.shape[0]))))
        return read(self, key)

    monkeypatch.setattr(Hdf5Array, "__getitem__", counted)
    detcal.convert_crono(crono, tmp_path / "map.zarr", progress=False, chunks={"spectrum": 32})
    assert len(rows) > 3
    assert sum(rows) == simulated.sizes["spectrum"]


def test_conversion_does_not_depend_on_chunks(crono, simulated, tmp_path):
    with h5py.File(crono, "r+") as file:
        del file["XRF/Spectra"]
        file["XRF"].create_dataset("Spectra", data=simulated.spectra.values)
    found = []
    for number, chunks in enumerate(({"spectrum": 32}, {"spectrum": 1000})):
        with dask.config.set(scheduler="sync" if number else "threads"):
            found.append(detcal.load(detcal.convert_crono(crono, tmp_path / f"{number}.zarr", progress=False, chunks=chunks)).compute())
    xr.testing.assert_identical(*found)


def test_conversion_on_a_cluster_has_a_bar_too(original, simulated, tmp_path, capsys):
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"):
        path = detcal.convert_crono(original, tmp_path / "map.zarr")
    assert "[########################################] | 100% Completed" in capsys.readouterr().out
    wanted = reference.cronomaxrf(simulated.spectra.values, simulated.selected.values)
    np.testing.assert_allclose(detcal.get_array(path, "maxrf_cube"), wanted["maxrf_cube"], rtol=1e-6, atol=1e-7)


def test_conversion_keeps_an_output_that_exists(original, tmp_path):
    path = detcal.convert_crono(original, tmp_path / "map.zip", progress=False)
    with pytest.raises(OutputError, match="exists"):
        detcal.convert_crono(original, path, progress=False)
    detcal.convert_crono(original, path, progress=False, overwrite=True)


@pytest.mark.parametrize("linked", [False, True])
def test_a_conversion_does_not_take_the_place_of_its_file(crono, linked):
    whole, output = crono.read_bytes(), crono
    if linked:
        output = crono.with_name("link.zarr")
        output.symlink_to(crono)
    with pytest.raises(OutputError, match="would take the place of the Crono file"):
        detcal.convert_crono(crono, output, overwrite=True, progress=False)
    assert crono.read_bytes() == whole


def test_a_file_without_a_selection_cannot_be_converted(crono, tmp_path):
    with h5py.File(crono, "r+") as file:
        del file["XRF/SpectraSelectedIndex"]
    with pytest.raises(InputError, match="selected"):
        detcal.convert_crono(crono, tmp_path / "map.zarr", progress=False)
    assert not (tmp_path / "map.zarr").exists()


def test_arrays_by_name(original, tmp_path):
    path = detcal.convert_crono(original, tmp_path / "map.zarr", progress=False)
    lazy = detcal.get_array(path, "maxrf_cube", compute=False)
    assert lazy.shape == (12, 15, 256)
    np.testing.assert_array_equal(lazy.compute(), detcal.get_array(path, "maxrf_cube"))
    stored = detcal.get_array(original, "/XRF/Spectra", compute=False)
    np.testing.assert_array_equal(stored[3:5].compute(), detcal.open_crono(original).spectra[3:5].values)
    for place in (path, original):
        with pytest.raises(InputError, match="nothing"):
            detcal.get_array(place, "nothing")
        with pytest.raises(InputError, match="no such"):
            detcal.get_array(tmp_path / "gone.zarr", "a")


def test_what_is_no_array_of_numbers(tmp_path):
    path = tmp_path / "odd.h5"
    with h5py.File(path, "w") as file:
        file["texts"], file["letters"], file["nothing"] = ["ab", "c"], np.array([b"ab", b"c"]), h5py.Empty("f4")
    for compute in (True, False):
        assert np.asarray(detcal.get_array(path, "texts", compute=compute)).tolist() == ["ab", "c"]
        assert np.asarray(detcal.get_array(path, "letters", compute=compute)).tolist() == [b"ab", b"c"]
        with pytest.raises(InputError, match=r"nothing in .* is empty"):
            detcal.get_array(path, "nothing", compute=compute)
    detcal.save(xr.Dataset({"a": ("x", np.arange(3))}), tmp_path / "a.zarr")
    with pytest.raises(InputError, match="no array / in"):
        detcal.get_array(tmp_path / "a.zarr", "/")


def test_settings_are_told_as_they_are_read(original):
    told = detcal.tree(original)
    assert "@ScanMode = serpentine" in told
    assert "@SpectraTime = 60" in told


def test_a_grid_in_a_zip(simulated, tmp_path):
    grid = xrf.build_scan_grid(simulated)
    assert (detcal.load(detcal.save(grid, tmp_path / "grid.zip")).to_scipy() != grid.to_scipy()).nnz == 0
