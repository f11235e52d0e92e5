"""Scans that detcal wrote, by `save` or the step smooth_spectra, are scans again."""

from pathlib import Path
from typing import Any

import dask.array as da
import h5py
import numpy as np
import pytest
import xarray as xr
import zarr

import detcal
from detcal import simulate, xrf
from detcal.errors import InputError
from tests.pipelines.commands import detcal as command
from tests.xrf.layouts import maps_raw
from tests.xrf.test_layouts import RECIPE

SUFFIXES = ["zarr", "zip", "h5", "nxs"]


def scan_of(**more: Any) -> xr.Dataset:
    """A serpentine scan, with all that the instrument tells."""
    return simulate.maxrf_scan(5, 7, channels=64, counts=20.0).assign(**more)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_scan_comes_back_as_it_was(tmp_path: Path, suffix: str) -> None:
    scan = scan_of()
    found = detcal.open_scan(detcal.save(scan, tmp_path / f"a.{suffix}"))
    xr.testing.assert_equal(found.drop_attrs(), scan.drop_attrs())
    assert next(iter(found)) == "spectra"
    for name in ("spectra", "positions", "live_time_s", "real_time_s", "energy"):
        assert found[name].attrs == scan[name].attrs
    assert isinstance(found.spectra.data, da.Array)
    assert {**found.attrs, "source": ""} == {**scan.attrs, "source": ""}
    again = detcal.open_scan(detcal.save(found, tmp_path / f"b.{suffix}"), chunks={"spectrum": 8})
    xr.testing.assert_equal(again, found)
    assert again.spectra.data.chunksize[0] % 8 == 0 or suffix in ("zarr", "zip")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_dimensions_of_a_scan_may_lie_in_any_order(tmp_path: Path, suffix: str) -> None:
    scan = scan_of()
    turned = scan.transpose("energy", "axis", "column", "row", ...)
    assert turned.spectra.dims == ("energy", "spectrum")
    xr.testing.assert_equal(detcal.open_scan(detcal.save(turned, tmp_path / f"a.{suffix}")).drop_attrs(), scan.drop_attrs())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_maps_of_a_scan_that_was_saved_are_those_of_the_scan(tmp_path: Path, suffix: str) -> None:
    scan = scan_of()
    found = detcal.open_scan(detcal.save(scan, tmp_path / f"a.{suffix}"))
    wanted, rates = (xrf.regrid_rate(each, xrf.build_scan_grid(each)) for each in (scan, found))
    xr.testing.assert_allclose(rates, wanted)


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_elements_of_a_detector_come_back_too(tmp_path: Path, suffix: str) -> None:
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        maps_raw(file)
    scan = detcal.open_scan(tmp_path / "scan.h5")
    found = detcal.open_scan(detcal.save(scan, tmp_path / f"a.{suffix}"), chunks={"spectrum": 4})
    assert {"detector_spectra", "detectors_live_s"} <= set(found)
    xr.testing.assert_equal(found, scan)
    assert found.detector_spectra.data.chunksize[:2] == (1, found.spectra.data.chunksize[0])
    with pytest.raises(InputError, match="detector is not for scans that detcal wrote"):
        detcal.open_scan(tmp_path / f"a.{suffix}", detector=1)


@pytest.mark.filterwarnings("ignore:.*are left out")
@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_spectra_that_were_left_out_stay_so(tmp_path: Path, suffix: str) -> None:
    scan = scan_of()
    scan.live_time_s[3] = np.nan
    found = detcal.open_scan(detcal.save(scan, tmp_path / f"a.{suffix}"))
    assert np.flatnonzero(found.left_out).tolist() == [3]
    again = detcal.open_scan(detcal.save(found.assign(live_time_s=scan_of().live_time_s), tmp_path / f"b.{suffix}"))
    assert np.flatnonzero(again.left_out).tolist() == [3]


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_times_and_energies_that_are_given_take_the_place_of_its_own(tmp_path: Path, suffix: str) -> None:
    path = detcal.save(scan_of(), tmp_path / f"a.{suffix}")
    spectra = len(scan_of().spectrum)
    found = detcal.open_scan(path, live_time_s=np.arange(1.0, spectra + 1), energy_kev=np.arange(64) / 10)
    np.testing.assert_array_equal(found.live_time_s, np.arange(1, spectra + 1))
    np.testing.assert_array_equal(found.energy, np.arange(64) / 10)
    np.testing.assert_array_equal(detcal.open_scan(path, live_time_s="real_time_s").live_time_s, scan_of().real_time_s)
    for given, said in (
        ({"live_time_s": [1.0]}, "a live time for each of"),
        ({"live_time_s": "times"}, r"a line of numbers along spectrum in .*, got 'times': it has .*live_time_s"),
        ({"energy_kev": [1.0]}, "an energy for each of 64 channels"),
        ({"motor_step_um": 2.0}, "motor_step_um is for scans of a Crono scanner"),
        ({"positions": "xy"}, "positions is not for scans that detcal wrote"),
    ):
        with pytest.raises(InputError, match=said):
            detcal.open_scan(path, **given)


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_spectra_that_a_file_lacks_are_nan(tmp_path: Path, suffix: str) -> None:
    path = detcal.save(scan_of(), tmp_path / f"a.{suffix}", **({"chunks": {"spectrum": 8}} if suffix == "zarr" else {}))
    if suffix == "zarr":
        (path / "spectra/c/1/0").unlink()
    else:
        with h5py.File(path, "r+") as file:
            group = file["entry/spectra"]
            values, attrs = group["spectra"][()], dict(group["spectra"].attrs)
            del group["spectra"]
            made = group.create_dataset("spectra", values.shape, values.dtype, chunks=(8, 64))
            made[:8], made[16:] = values[:8], values[16:]
            made.attrs.update(attrs)
    with pytest.warns(UserWarning, match=r"lacks 8 of \d+ spectra \(8–15\)"):
        found = detcal.open_scan(path)
    np.testing.assert_array_equal(np.isnan(found.spectra).all("energy"), np.isin(found.spectrum, range(8, 16)))


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_a_step_takes_what_the_step_before_wrote(tmp_path: Path, suffix: str) -> None:
    """Of a detector of several elements, whose dead times differ: rates of smoothed spectra are smoothed rates."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        maps_raw(file)
    smooth = RECIPE.format(operation="smooth_spectra", keys="sigma_channels = 2.0").replace("out.zarr", f"smoothed.{suffix}")
    grid = RECIPE.format(operation="regrid_xrf", keys="").replace("scan.h5", f"smoothed.{suffix}")
    for name, text in (("smooth", smooth), ("grid", grid)):
        (tmp_path / f"{name}.toml").write_text(text)
        command(tmp_path, "check", f"{name}.toml")
        command(tmp_path, "run", f"{name}.toml")
    scan = detcal.open_scan(tmp_path / "scan.h5")
    wanted = xrf.smooth_spectra(xrf.regrid_rate(scan, xrf.build_scan_grid(scan)).rate, sigma_channels=2.0)
    found = detcal.load(tmp_path / "out.zarr")
    np.testing.assert_allclose(found.rate, wanted, rtol=1e-5)


def test_what_is_no_scan_is_told_by_what_it_holds(tmp_path: Path) -> None:
    path = detcal.save(scan_of().drop_vars("positions"), tmp_path / "a.zarr")
    with pytest.raises(
        InputError, match=r"expected a scan in .*a\.zarr, .*found .*spectra \(spectrum: \d+, energy: 64\).*: give another file"
    ):
        detcal.open_scan(path)
    zarr.open_group(tmp_path / "b.zarr", mode="w")
    with pytest.raises(InputError, match="found neither: give another file, and leave format out"):
        detcal.open_scan(tmp_path / "b.zarr", format="maps")
