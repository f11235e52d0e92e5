"""Crono files and others: read, converted, refused; element maps and energy calibration."""

import json
import shutil
from pathlib import Path

import dask
import h5py
import numpy as np
import pytest
import xarray as xr
import xraydb
from distributed import Client

import detcal
from detcal import simulate, xrf
from detcal.errors import InputError, OutputError
from detcal.stores.sources.hdf5_data import Hdf5Array
from detcal.stores.targets.crono_writer import write_crono
from detcal.xrf import kernels, tiles
from detcal.xrf.elements import extent_of
from detcal.xrf.lines import background_patterns, lines_of, pattern_of, shell_lines
from tests.reference import xrf as reference

NAMES = ["maxrf_all_spectra", "maxrf_cube", "maxrf_max_spectrum", "maxrf_sum_spectrum", "maxrf_energies"]


@pytest.fixture(scope="module")
def simulated():
    return simulate.maxrf_scan(12, 15, channels=256, counts=0.3, lag=0.3).compute()


@pytest.fixture(scope="module")
def original(simulated, tmp_path_factory):
    path = tmp_path_factory.mktemp("crono") / "map.HDF5"
    return write_crono(simulated.assign(spectra=simulated.spectra.chunk(spectrum=50)), path)


@pytest.fixture
def crono(original, tmp_path):
    """A copy that may be spoilt."""
    return Path(shutil.copy(original, tmp_path / "map.HDF5"))


def test_a_crono_file_is_read_as_it_was_made(original, simulated):
    scan = detcal.open_crono(original)
    assert scan.spectra.dtype == np.uint16
    assert scan.spectra.dims == ("spectrum", "energy")
    for name in ("spectra", "positions", "selected", "live_time_s", "real_time_s"):
        np.testing.assert_allclose(scan[name].values, simulated[name].values, atol=1e-9)
    np.testing.assert_allclose(scan.energy.values, simulated.energy.values, rtol=1e-6)
    assert scan.attrs["SpectraTime"] == 60
    assert scan.attrs["ScanMode"] == "serpentine"
    assert (scan.positions.values[0] == scan.positions.values[2]).all()


def test_a_crono_file_of_any_size_is_written_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("detcal.simulate.xrf.BLOCK_BYTES", 2**12)
    path = write_crono(simulate.maxrf_scan(6, 10, channels=64, counts=0.5, seed=2), tmp_path / "a.h5")
    whole = simulate.maxrf_scan(6, 10, channels=64, counts=0.5, seed=2)
    assert whole.spectra.data.npartitions > 2
    monkeypatch.undo()
    np.testing.assert_array_equal(
        detcal.open_crono(path).spectra.values, simulate.maxrf_scan(6, 10, channels=64, counts=0.5, seed=2).spectra.values
    )
    with pytest.raises(OutputError, match="exists"):
        write_crono(simulate.maxrf_scan(6, 10), path)


@pytest.mark.parametrize("shift", [-(10**6), 0.5, 2.0**32, np.nan])
def test_positions_that_are_no_motor_steps_are_not_written(simulated, tmp_path, shift):
    with pytest.raises(InputError, match="whole numbers of µm"):
        write_crono(simulated.assign(positions=simulated.positions + shift), tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())


def test_spectra_in_memory_are_written_too(original, simulated, tmp_path):
    found = detcal.open_crono(write_crono(simulated, tmp_path / "a.h5"))
    np.testing.assert_array_equal(found.spectra.values, detcal.open_crono(original).spectra.values)


@pytest.mark.parametrize("chunks", [None, {"spectrum": 1}, {"spectrum": 100}])
def test_gzip_is_decompressed_as_hdf5_does(crono, simulated, chunks):
    with h5py.File(crono, "r+") as file:
        del file["XRF/Spectra"]
        file["XRF"].create_dataset("Spectra", data=simulated.spectra.values, chunks=(7, 256), compression="gzip")
    scan = detcal.open_crono(crono, chunks=chunks)
    np.testing.assert_array_equal(scan.spectra.values, simulated.spectra.values)
    np.testing.assert_array_equal(scan.spectra[13:55, 3:90].values, simulated.spectra.values[13:55, 3:90])
    np.testing.assert_array_equal(scan.spectra[5].values, simulated.spectra.values[5])


@pytest.mark.parametrize(
    "options", [{}, {"compression": "lzf"}, {"compression": "gzip", "shuffle": True}, {"chunks": (9, 100), "compression": "gzip"}]
)
def test_other_layouts_are_read_too(crono, simulated, options):
    with h5py.File(crono, "r+") as file:
        del file["XRF/Spectra"]
        file["XRF"].create_dataset("Spectra", data=simulated.spectra.values, **options)
    np.testing.assert_array_equal(detcal.open_crono(crono).spectra.values, simulated.spectra.values)


@pytest.mark.parametrize("options", [{}, {"chunks": (9, 256), "compression": "gzip"}])
def test_numbers_of_other_machines_are_read(crono, simulated, options):
    with h5py.File(crono, "r+") as file:
        del file["XRF/Spectra"]
        file["XRF"].create_dataset("Spectra", data=simulated.spectra.values.astype(">u2"), **options)
    scan = detcal.open_crono(crono)
    grid = xrf.build_scan_grid(scan)
    np.testing.assert_array_equal(xrf.regrid(scan.spectra, grid), xrf.regrid(simulated.spectra, grid))


def test_spectra_that_were_never_written_are_nan(tmp_path, simulated, crono):
    with h5py.File(crono, "r+") as file:
        del file["XRF/Spectra"]
        stored = file["XRF"].create_dataset("Spectra", simulated.spectra.shape, np.uint16, chunks=(9, 256), compression="gzip")
        stored[:9] = simulated.spectra.values[:9]
    with pytest.warns(UserWarning, match=r"Spectra lacks 231 of 240 spectra \(9–239\)"):
        found = detcal.open_crono(crono).spectra.values
    np.testing.assert_array_equal(found[:9], simulated.spectra.values[:9])
    assert np.isnan(found[9:]).all()


WRITTEN = {
    "Spectra": (np.uint16, 2), "EnergyVector": (np.float32, 1), "CalibrationPoints": (np.float32, 2), "MotorsPositions": (np.uint32, 2),
    "MotorsPositionsStats": (np.uint8, 1), "MotorsTimestamps": (np.uint64, 2), "SpectraSelectedIndex": (np.uint64, 3),
    "LiveTimes": (np.uint64, 1), "RealTimes": (np.uint64, 1), "Timestamps": (np.uint64, 1), "DPPStartTimestamp": (np.uint64, 1),
    "SpectraIDs": (np.uint16, 1), "OutputCountRates": (np.float64, 1), "Detected": (np.uint32, 1), "ResetCounterValue": (np.uint32, 1),
    "Maps/ComputedMaps": (np.float64, 3), "XComputedMapsCoordinate": (np.float64, 3), "YComputedMapsCoordinate": (np.float64, 3),
    "ROIs/ROIsEnergies": (np.float64, 2), "ROIs/ROIsNames": ("S1", 2), "ROIs/ROIsObjects": ("V2", 1),
}  # fmt: skip


def test_the_layout_is_that_of_the_instrument(original, simulated):
    """Every dataset that is published of it but the camera's pictures, and nothing that the reader loses."""
    with h5py.File(original) as file:
        found = {name: (file["XRF"][name].dtype, file["XRF"][name].ndim) for name in WRITTEN}
        assert found == {name: (np.dtype(kind), ndim) for name, (kind, ndim) in WRITTEN.items()}
        settings = dict(file["Configuration/Settings"].attrs)
        assert {value.ndim for value in settings.values()} == {1}
        assert {"SpectraTime", "XSpeed", "XStart", "XSize", "YStart", "YSize"} <= set(settings)
        assert settings["ScanMode"].dtype == "S1"
    scan = detcal.open_crono(original)
    assert set(scan.variables) == set(simulated.variables)
    for name in set(scan.variables) - {"energy", "live_time_s", "real_time_s"}:  # of which the last bit differs
        np.testing.assert_array_equal(scan[name].values, simulated[name].values, err_msg=name)
    np.testing.assert_array_equal(scan.detected.values, scan.spectra.values.sum(axis=1))
    assert (np.diff(scan.start_timestamps.values) == 60000).all()


def test_numbers_of_spectra_wrap():
    found = simulate.maxrf_scan(700, 75, channels=4).spectrum_id.values
    assert (found[65535], found[65536]) == (65535, 0)


@pytest.mark.parametrize("name", ["RealTimes", "Timestamps", "MotorsTimestamps", "ROIs/ROIsNames", "ROIs/ROIsEnergies"])
def test_datasets_of_another_length_are_left_out_aloud(crono, name):
    spoil(crono, name, lambda whole: whole[:-1])
    with pytest.warns(UserWarning, match=f"/XRF/{name} is left out: expected values of shape"):
        detcal.open_crono(crono)


def test_optional_datasets_may_be_missing_or_there(crono, simulated):
    number = simulated.sizes["spectrum"]
    with h5py.File(crono, "r+") as file:
        for name in set(WRITTEN) - {"Spectra", "MotorsPositions", "CalibrationPoints"}:
            del file[f"XRF/{name}"]
        del file["Configuration"]
        file["XRF/SpectraIDs"] = np.arange(number, dtype=np.uint16)
        file["XRF/MotorsTimestamps"] = np.zeros((number, 3), np.uint64)
        file["XRF/Maps/ComputedMaps"] = np.full((12, 15, 2), np.nan)
        file["XRF/ROIs/ROIsNames"] = np.array([list(b"Fe\0"), list(b"CuK")], np.uint8).view("S1")
        file["XRF/CalibrationPoints"][...] = [[50, 1.0], [150, 3.0]]
    scan = detcal.open_crono(crono)
    assert "live_time_s" not in scan
    assert "selected" not in scan
    np.testing.assert_allclose(scan.energy.values, 0.02 * np.arange(256), atol=1e-6)
    assert scan.spectrum_id.dims == ("spectrum",)
    assert scan.roi.values.tolist() == ["Fe", "CuK"]
    with h5py.File(crono, "r+") as file:
        del file["XRF/CalibrationPoints"]
    assert detcal.open_crono(crono).energy.attrs["units"] == "channels"


def test_positions_are_steps_of_a_known_length(original):
    first, second = detcal.open_crono(original), detcal.open_crono(original, motor_step_um=2.5)
    np.testing.assert_allclose(second.positions.values, 2.5 * first.positions.values)


# ---------------------------------------------------------------------------------------------------------- other files


def test_plain_spectra_and_positions(tmp_path, simulated):
    path = tmp_path / "plain.h5"
    with h5py.File(path, "w") as file:
        file["a/counts"], file["xy"] = simulated.spectra.values, simulated.positions.values[:, :2].T
        file["t"], file["e"] = simulated.live_time_s.values, simulated.energy.values
    scan = detcal.open_spectra(path, "a/counts", "xy", live_time_s="t", energy_kev="e")
    ours = xrf.regrid_rate(scan, xrf.build_scan_grid(scan))
    wanted = xrf.regrid_rate(simulated, xrf.build_scan_grid(simulated))
    np.testing.assert_array_equal(ours.rate.values, wanted.rate.values)
    assert detcal.open_spectra(path, "a/counts", "xy").energy.attrs["units"] == "channels"
    with pytest.raises(InputError, match="no dataset other"):
        detcal.open_spectra(path, "other", "xy")


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


def test_maps_of_several_detectors(tmp_path):
    path = write_maps(tmp_path / "maps.h5")
    scan = detcal.open_maps(path)
    with h5py.File(path) as file:
        cubes = np.stack([file[f"MAPS_RAW/data_{name}"][...] for name in "abcd"])
    wanted = cubes.sum(axis=0).reshape(32, 20).T
    np.testing.assert_array_equal(scan.spectra.values, wanted)
    np.testing.assert_allclose(scan.live_time_s.values, (0.5 + 1 + 0.5 + 0.5) / 4)
    second = detcal.open_maps(path, detector=1)
    np.testing.assert_array_equal(second.spectra.values, cubes[1].reshape(32, 20).T)
    np.testing.assert_allclose(second.live_time_s.values, 1)
    cube = xrf.regrid(scan.spectra, xrf.build_scan_grid(scan)).values
    np.testing.assert_allclose(cube, cubes.sum(axis=0).transpose(1, 2, 0), rtol=1e-6)


def test_maps_that_are_none(tmp_path, original):
    with pytest.raises(InputError, match="MAPS_RAW"):
        detcal.open_maps(original)
    path = write_maps(tmp_path / "maps.h5")
    with pytest.raises(InputError, match="detector from 0 to 3"):
        detcal.open_maps(path, detector=4)
    with pytest.raises(InputError, match="no spectrum is left to make a map of: of 20 spectra"):
        detcal.open_maps(write_maps(path, live=0))


# ----------------------------------------------------------------------------------------------------------- conversion


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


# ----------------------------------------------------------------------------------------------------- elements, energies


@pytest.fixture(scope="module")
def painted():
    """A scan with a known number of counts in the lines of each paint."""
    scan = simulate.maxrf_scan(30, 30, channels=1024, counts=1.0, seed=4).compute()
    means = simulate.paint_spectra(scan.energy.values)
    places = np.indices((30, 30)).reshape(2, -1).T.astype(float)
    means *= 1.0 / (means.mean(axis=1) @ simulate.paint(places, (30, 30)).mean(axis=0))
    return scan, simulate.true_map(30, 30) * 0.85 * means.sum(axis=1) / 0.06


@pytest.mark.parametrize("method", ["fit", "window"])
def test_elements_are_found_where_they_are(painted, method):
    """Against the truth, in units of the errors that come with the maps: pixels of one spectrum, without edges."""
    scan, truth = painted
    grid = xrf.build_scan_grid(scan, method="selected")
    found = xrf.element_maps(scan, grid, elements=list(simulate.PAINTS), method=method).compute()
    paints = simulate.true_map(30, 30)
    even = np.ptp([np.roll(paints, shift, axis) for shift in (-1, 0, 1) for axis in (0, 1)], axis=0).max(axis=-1) < 0.1
    even[[0, -1]] = even[:, [0, -1]] = False
    pull = ((found.rate.values - truth.transpose(2, 0, 1)) / found.error.values)[:, even]
    assert even.sum() > 100
    assert (np.abs(pull.mean(axis=1)) < 0.2).all(), pull.mean(axis=1)
    assert ((pull.std(axis=1) > 0.85) & (pull.std(axis=1) < 1.15)).all(), pull.std(axis=1)


def test_errors_hold_where_spectra_are_shared(painted):
    """Drizzled pixels are made of parts of spectra: their noise is less than Poisson's."""
    scan, _ = painted
    flat = scan.assign(spectra=(scan.spectra.dims, np.random.default_rng(1).poisson(scan.spectra.values.mean(axis=0), scan.spectra.shape)))
    grid = xrf.build_scan_grid(scan)
    found = xrf.element_maps(flat, grid, elements=["Fe", "Cu"]).isel(row=slice(1, -1), column=slice(6, -6)).compute()
    spread = found.rate.std(("row", "column")) / found.error.mean(("row", "column"))
    assert (np.abs(spread.values - 1) < 0.08).all(), spread.values


@pytest.mark.parametrize("method", ["fit", "window"])
@pytest.mark.parametrize(("counts", "least"), [(1, 0.5), (3, 0.8), (10, 0.9), (100, 0.9)])
def test_errors_hold_down_to_single_counts(method, counts, least):
    """Pulls over repeated noise, pixels in which nothing was found among them; of single counts the errors are too large, not too small."""
    energy = 0.04 * np.arange(330)
    names = ["Ca", "Fe", "Cu"]
    mean = counts * sum(pattern_of(lines_of(name, 1, 12), energy, 0.14) for name in names) + 5 / energy.size
    spectra = np.random.default_rng(counts).poisson(mean, (400, energy.size)).astype(np.uint16)
    scan = xr.Dataset(
        {"spectra": (("spectrum", "energy"), spectra), "positions": (("spectrum", "axis"), np.argwhere(np.ones((20, 20)))),
         "live_time_s": ("spectrum", np.full(400, 0.5)), "selected": (("row", "column"), np.arange(400).reshape(20, 20))},
        {"energy": ("energy", energy, {"units": "keV"})},
    )  # fmt: skip
    found = xrf.element_maps(scan, xrf.build_scan_grid(scan, method="selected"), elements=names, method=method).compute()
    pull = ((found.rate - 2 * counts) / found.error).values
    assert least < pull.std() < 1.2
    assert (found.error >= 2 * 0.999).all()  # a count in half a second
    assert abs((found.rate.values / 2).mean() - counts) < 0.15 + 0.02 * counts


def test_an_empty_pixel_is_uncertain_by_a_count():
    amounts, errors = np.empty((2, 2, 1))
    kernels.fit_pixels(np.zeros((2, 50)), np.full((1, 50), 0.02), np.array([[0, 50]]), np.array([1.0, 0.25]), amounts, errors)
    np.testing.assert_array_equal(amounts, 0)
    np.testing.assert_allclose(errors[:, 0], [1, 0.25], rtol=0.01)


def test_the_fit_is_the_likeliest_one(painted):
    """One pixel at a time, down to a few counts, against scipy's minimum of the likelihood."""
    scan, _ = painted
    energy = scan.energy.values[70:300]
    patterns = [pattern_of(lines_of(name, 1, 40), scan.energy.values, 0.14)[70:300] for name in ("Ca", "Ti", "Fe", "Cu", "Pb")]
    patterns = np.stack([*patterns, *background_patterns(energy, 2.0).T])
    many = scan.spectra.values[:6, 70:300].astype(float)
    few = np.random.default_rng(0).binomial(many.astype(int), 0.03).astype(float)
    counts = np.concatenate([many, few])
    extents = np.array([extent_of(pattern) for pattern in patterns])
    amounts, errors = np.empty((2, 12, len(patterns)))
    kernels.fit_pixels(counts, patterns, extents, np.full(12, 0.5), amounts, errors)
    wanted, wrong = np.stack([reference.fit(spectrum, patterns, 0.5) for spectrum in counts], axis=1)
    assert ((wanted[:, :5] > 0.01) & (wanted[:, :5] < 1)).sum() > 2
    np.testing.assert_allclose(amounts, wanted, rtol=1e-3, atol=2e-3)
    np.testing.assert_allclose(errors[:, :5], wrong[:, :5], rtol=1e-2)


def test_windows_before_and_after_the_grid_are_the_same(painted):
    from detcal.xrf.lines import window_of

    scan, _ = painted
    grid = xrf.build_scan_grid(scan)
    line = lines_of("Fe", 1, 40)
    weights, pattern = (make(line, scan.energy.values, 0.14) for make in (window_of, pattern_of))
    rates = xrf.regrid_rate(scan, grid).rate.values.astype(float)
    after = rates @ weights / (weights @ pattern)
    before = xrf.element_maps(scan, grid, elements=["Fe"], method="window").rate.values[0]
    np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-4 * np.nanmax(after))


def test_elements_read_what_they_need_once(crono, simulated, monkeypatch):
    """Amounts and errors of windows come from one pass; fits put no other channels on the grid than theirs."""
    with h5py.File(crono, "r+") as file:
        del file["XRF/Spectra"]
        file["XRF"].create_dataset("Spectra", data=simulated.spectra.values, chunks=(32, 256), compression="gzip")
    keys = []
    read = Hdf5Array.__getitem__
    scan = detcal.open_crono(crono, chunks={"spectrum": 32})
    monkeypatch.setattr(Hdf5Array, "__getitem__", lambda self, key: keys.append(key) or read(self, key))
    grid = xrf.build_scan_grid(scan)
    dask.compute(xrf.element_maps(scan, grid, elements=["Fe"], method="window", fwhm_kev=0.6, tile_rows=2))
    assert sum(len(range(*rows.indices(grid.spectra))) for rows, _ in keys) == grid.spectra
    shapes = []
    regrid_tile = tiles.regrid_tile
    monkeypatch.setattr(tiles, "regrid_tile", lambda *arguments: shapes.append(arguments[-1]) or regrid_tile(*arguments))
    dask.compute(xrf.element_maps(scan, grid, elements=["Fe"], energy_range_kev=(5, 8)))
    assert {shape[2] for shape in shapes} == {15}


def test_windows_leave_a_slope_out():
    from detcal.xrf.lines import window_of

    energy = np.linspace(0, 30, 2000)
    weights = window_of(lines_of("Fe", 1, 30), energy, 0.14)
    assert abs(weights @ (3 * energy + 5)) < 1e-9 * (np.abs(weights) @ (3 * energy + 5))


def test_element_maps_do_not_depend_on_chunks(painted):
    scan, _ = painted
    grid = xrf.build_scan_grid(scan)
    for method in ("fit", "window"):
        whole = xrf.element_maps(scan, grid, elements=["Fe", "Pb-M"], method=method).compute()
        parts = xrf.element_maps(
            scan.assign(spectra=scan.spectra.chunk(spectrum=77)), grid, elements=["Fe", "Pb-M"], method=method
        ).compute()
        xr.testing.assert_identical(whole, parts)
        assert np.isnan(whole.rate.values[:, grid.coverage.values == 0]).all()


@pytest.mark.parametrize(
    ("element", "published"),
    [
        ("Ca", {3.69168: 100, 3.68809: 50}),
        ("Fe", {6.40384: 100, 6.39084: 50, 7.05798: 17}),
        ("Cu", {8.04778: 100, 8.02783: 51}),
    ],
)
def test_lines_are_where_and_as_bright_as_others_say(element, published):
    """X-ray Data Booklet (Lawrence Berkeley National Laboratory, 2009), table 1-3: Kα1, Kα2, Kβ1,3; tables differ by a few %."""
    found = lines_of(element, 1, 40)
    for energy, brightness in published.items():
        near = np.abs(found.energy_kev - energy) < 0.002
        assert near.any()
        assert 100 * found.share[near].sum() / found.share.max() == pytest.approx(brightness, abs=5)
    assert found.strongest_kev == pytest.approx(next(iter(published)), abs=0.002)


def test_lines_are_those_of_the_tables():
    iron = lines_of("Fe", 1, 40)
    assert iron.share.sum() == pytest.approx(1)
    assert iron.strongest_kev == pytest.approx(xraydb.xray_lines("Fe")["Ka1"].energy / 1000)
    assert lines_of("Pb", 1, 40).strongest_kev == pytest.approx(10.551, abs=0.01)
    assert lines_of("Pb-M", 1, 40).strongest_kev == pytest.approx(2.34, abs=0.02)
    assert shell_lines("H", "H", "K") is None
    energy = np.linspace(0, 40, 4000)
    pattern = pattern_of(iron, energy, 0.14)
    assert pattern.sum() == pytest.approx(1)
    assert pattern @ energy == pytest.approx(iron.share @ iron.energy_kev, rel=1e-6)


@pytest.mark.parametrize(
    ("elements", "options", "says"),
    [
        (["Fe", "Xx"], {}, "no element 'Xx'"),
        (["H"], {}, "no strong line"),
        (["Fe-Q"], {}, "shell K, L or M"),
        ([], {}, "one or more symbols"),
        (["Fe", "Fe"], {}, "each shell of an element once"),
        (["Fe", "Fe-K"], {}, "each shell of an element once"),
        ([26], {}, "symbols of elements"),
        (None, {}, "symbols of elements"),
        (["Fe"], {"background_kev": 0}, "positive background_kev"),
        (["Fe"], {"background_kev": -1}, "positive background_kev"),
        (["Fe"], {"background_kev": np.nan}, "positive background_kev"),
        (["Fe"], {"method": "peaks"}, "method"),
        (["Fe"], {"fwhm_kev": 0.05}, "fwhm_kev of at least"),
        (["Fe"], {"energy_range_kev": (6.3, 6.5)}, "more channels than elements"),
    ],
)
def test_elements_that_cannot_be_mapped(simulated, elements, options, says):
    grid = xrf.build_scan_grid(simulated)
    with pytest.raises(InputError, match=says) as caught:
        xrf.element_maps(simulated, grid, elements=elements, **options)
    assert "\n" not in str(caught.value)


def test_elements_need_energies(simulated):
    grid = xrf.build_scan_grid(simulated)
    for energy in (("energy", np.arange(256.0), {"units": "channels"}), ("energy", simulated.energy.values[::-1], {"units": "keV"})):
        with pytest.raises(InputError, match=r"energies (in keV|that rise)"):
            xrf.element_maps(simulated.assign_coords(energy=energy), grid, elements=["Fe"])


def test_energies_are_calibrated_by_lines(painted):
    scan, _ = painted
    true = scan.energy.values
    gain = true[1] - true[0]
    names = ("Ca", "Fe", "Cu")
    lines = [lines_of(name, 1, 40).strongest_kev for name in names]
    places = [(line - true[0]) / gain for line in lines]
    found = xrf.calibrate_energy(scan, channels=places, lines_kev=lines)
    np.testing.assert_allclose(found.energy.values, true, atol=1e-9)
    assert found.energy.attrs["gain_kev"] == pytest.approx(gain)
    searched = xrf.calibrate_energy(scan, channels=[round(place) + 2 for place in places], lines_kev=lines, search_channels=6)
    assert np.abs(searched.energy.values - true)[70:300].max() < gain / 3


@pytest.mark.parametrize(
    ("channels", "lines", "says"),
    [([10], [1.0], "two or more"), ([10, 10], [1.0, 2.0], "two or more"), ([10, 20, 30], [1, 2], "two or more"),
     ([10, 999], [1, 2], "channels from 0"), ([20, 10], [1, 2], "rise")],
)  # fmt: skip
def test_energies_that_cannot_be_calibrated(simulated, channels, lines, says):
    with pytest.raises(InputError, match=says):
        xrf.calibrate_energy(simulated, channels=channels, lines_kev=lines)


def test_no_peak_is_no_line(simulated):
    with pytest.raises(InputError, match="no peak"):
        xrf.calibrate_energy(simulated, channels=[220, 240], lines_kev=[30, 33], search_channels=4)


# ------------------------------------------------------------------------------------------------------------- bad files


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


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("Spectra", None, "no dataset XRF/Spectra"),
        ("Spectra", lambda whole: whole[0], "spectra \\(spectrum, energy\\)"),
        ("MotorsPositions", None, "no dataset XRF/MotorsPositions"),
        ("MotorsPositions", lambda whole: whole[:-5], "expected positions of shape"),
        ("MotorsPositions", lambda whole: np.ones_like(whole), "positions equal"),
        ("LiveTimes", lambda whole: 0 * whole, "no spectrum is left to make a map of"),
        ("LiveTimes", lambda whole: whole[:-1], "a live time for each"),
        ("SpectraSelectedIndex", lambda whole: changed(whole, (3, 3), 10**6), "selected spectra from 0 to"),
        ("EnergyVector", lambda whole: whole[::-1], "energies that rise"),
        ("EnergyVector", lambda whole: whole[:-1], "an energy for each of 256 channels"),
    ],
)
def test_files_that_cannot_be_used(crono, name, values, says):
    spoil(crono, name, values)
    with pytest.raises(InputError, match=says) as caught:
        detcal.open_crono(crono)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_cut_short(crono):
    with open(crono, "r+b") as file:
        file.truncate(crono.stat().st_size // 2)
    with pytest.raises(InputError, match="truncated file"):
        detcal.open_crono(crono)


def test_a_file_with_a_spoilt_chunk(crono):
    with h5py.File(crono) as file:
        place = file["XRF/Spectra"].id.get_chunk_info(0)
    with open(crono, "r+b") as file:
        file.seek(place.byte_offset + place.size // 2)
        file.write(b"\xff" * 40)
    with pytest.raises(InputError, match="cannot read"):
        detcal.open_crono(crono).spectra.compute()


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match="no such"):
        detcal.open_crono(tmp_path / "gone.h5")


def test_bad_live_times_can_be_replaced(crono, simulated):
    spoil(crono, "LiveTimes", lambda whole: 0 * whole)
    scan = detcal.open_crono(crono, live_time_s=simulated.real_time_s.values)
    np.testing.assert_allclose(scan.live_time_s.values, 0.06)


def test_bad_energies_can_be_replaced(crono, simulated):
    spoil(crono, "EnergyVector", lambda whole: whole[::-1])
    with pytest.raises(InputError, match="give energy_kev= in place of the file's own"):
        detcal.open_crono(crono)
    scan = detcal.open_crono(crono, energy_kev=simulated.energy.values)
    np.testing.assert_array_equal(scan.energy.values, simulated.energy.values)


def test_chunks_are_of_spectra(original):
    with pytest.raises(InputError, match="chunks such as"):
        detcal.open_crono(original, chunks={"energy": 3})


def test_graphs_hold_no_open_files(original):
    """So that they can be sent to any worker."""
    import pickle

    assert len(pickle.dumps(detcal.open_crono(original).spectra.data)) < 10000
    assert json.dumps(detcal.open_crono(original).attrs)


def test_open_scan_finds_the_layout(original, tmp_path):
    xr.testing.assert_identical(detcal.open_scan(original), detcal.open_crono(original))
    fly = write_maps(tmp_path / "fly.h5")
    xr.testing.assert_identical(detcal.open_scan(fly, chunks={"row": 2}), detcal.open_maps(fly, chunks={"row": 2}))
    named = detcal.open_scan(original, spectra="XRF/Spectra", positions="XRF/MotorsPositions")
    xr.testing.assert_identical(named, detcal.open_spectra(original, "XRF/Spectra", "XRF/MotorsPositions"))


def test_open_scan_says_what_it_looked_for(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["counts"] = np.zeros((3, 4))
    with pytest.raises(InputError, match=r"with /XRF \(Crono\) or /MAPS_RAW \(APS\), got neither: give spectra= and positions="):
        detcal.open_scan(tmp_path / "a.h5")
    with pytest.raises(InputError, match="expected both spectra= and positions=, or neither, got spectra='counts' and positions=None"):
        detcal.open_scan(tmp_path / "a.h5", spectra="counts")
    with pytest.raises(InputError, match="no such file"):
        detcal.open_scan(tmp_path / "b.h5")
