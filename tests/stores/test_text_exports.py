"""Profiles as text, and in NeXus with their errors and units."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray as xr
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

import detcal
from detcal import azimuthal
from detcal.errors import InputError, OutputError
from detcal.stores import check_output
from tests.pipelines.commands import detcal as command
from tests.pipelines.commands import fails

NEAR = Geometry(0.1, 0.0032, 0.0032, detector=Detector(1e-4, 1e-4, max_shape=(64, 64)), wavelength=1e-10)
COUNTS = np.random.default_rng(0).poisson(50, (3, 64, 64)).astype("i4")


def profiles(unit: str = "2th_deg", frames: int = 1, **options: Any) -> xr.Dataset:
    return azimuthal.integrate(COUNTS[:frames], azimuthal.build_bins(NEAR, npt=30, unit=unit), **options)


@pytest.mark.parametrize("suffix", [".xy", ".dat"])
def test_columns_are_the_profile_below_what_is_known_of_it(tmp_path: Path, suffix: str) -> None:
    found = profiles().compute()
    detcal.save(found, tmp_path / f"a{suffix}")
    radial, intensity, error = np.loadtxt(tmp_path / f"a{suffix}", unpack=True)
    np.testing.assert_allclose(radial, found.radial, rtol=1e-7)
    np.testing.assert_allclose(intensity, found.intensity[0], rtol=1e-7)
    np.testing.assert_allclose(error, found.sem[0], rtol=1e-7)
    header = [line for line in (tmp_path / f"a{suffix}").read_text().splitlines() if line.startswith("#")]
    for line in ("Distance: 0.1 m", "Poni1: 0.0032 m", "Rot1: 0 rad", "Wavelength: 1e-10 m", "unit: 2th_deg", "intensity: counts"):
        assert f"# {line}" in header
    assert header[-1] == "# columns: radial intensity error"


def test_columns_without_errors_and_empty_bins(tmp_path: Path) -> None:
    found = profiles(error_model="no").compute().drop_vars(["sem", "std"])
    found.intensity[0, 3] = np.nan
    detcal.save(found, tmp_path / "a.xy")
    table = np.loadtxt(tmp_path / "a.xy")
    assert table.shape == (29, 2)
    np.testing.assert_allclose(table[:, 1], np.delete(found.intensity.values[0], 3), rtol=1e-7)


def test_chi_is_fit2ds(tmp_path: Path) -> None:
    found = profiles("q_nm^-1").compute()
    detcal.save(found, tmp_path / "a.chi")
    title, radial, intensity, points, *rows = (tmp_path / "a.chi").read_text().splitlines()
    assert "Wavelength: 1e-10 m" in title
    assert (radial, intensity, int(points)) == ("q_nm^-1", "intensity", 30)
    np.testing.assert_allclose(np.loadtxt(rows), np.stack([found.radial, found.intensity[0]], axis=1), rtol=1e-7)


@pytest.mark.parametrize("unit", ["2th_deg", "2th_rad"])
def test_fxye_is_gsas(tmp_path: Path, unit: str) -> None:
    found = profiles(unit).compute()
    detcal.save(found, tmp_path / "a.fxye")
    lines = (tmp_path / "a.fxye").read_text().splitlines()
    bank = next(number for number, line in enumerate(lines) if line.startswith("BANK"))
    assert all(len(line) == 80 for line in lines[: bank + 1])
    assert lines[bank].split()[:5] == ["BANK", "1", "30", "30", "CONS"]
    assert lines[bank].split()[-1] == "FXYE"
    radial, intensity, error = np.loadtxt(lines[bank + 1 :], unpack=True)
    degrees = found.radial if unit == "2th_deg" else np.degrees(found.radial)
    np.testing.assert_allclose(radial, 100 * degrees, rtol=1e-6)
    np.testing.assert_allclose([intensity, error], [found.intensity[0], found.sem[0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("obj", "name", "says"),
    [
        (profiles(frames=3), "a.xy", r"holds one profile, not 3 along frame: choose one, \.isel\(frame=0\), in a recipe .* frames = 0"),
        (profiles("q_nm^-1"), "a.fxye", r'over 2θ, and these profiles are over q_nm\^-1: integrate with unit = "2th_deg"'),
        (profiles().drop_vars("sem"), "a.fxye", "has a column of errors, and these profiles have none"),
        (np.ones((2, 4, 4)), "a.xy", "holds a profile, intensity over radial, not data"),
        (np.ones((4, 4)), "a.png", r"is a picture of maps \(element, row, column\), not of data"),
    ],
    ids=["several", "not over an angle", "no errors", "frames", "image"],
)
def test_what_does_not_fit_is_refused_before_it_is_computed(tmp_path: Path, obj: Any, name: str, says: str) -> None:
    for refuse in (check_output, detcal.save):
        with pytest.raises(InputError, match=says):
            refuse(obj, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_suffix_names_those_that_fit(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\.nxs, \.xy, \.dat, \.chi, \.fxye at the end of its name, got \.csv"):
        detcal.save(profiles(), tmp_path / "a.csv")
    with pytest.raises(OutputError, match=r"\.nxs, \.tif, \.tiff, \.edf at the end of its name, got \.tff; did you mean a\.tif"):
        detcal.save(COUNTS, tmp_path / "a.tff")


# ---------------------------------------------------------------------------------------------------------- NeXus


def test_viewers_draw_error_bars_and_units(tmp_path: Path) -> None:
    nxdata = pytest.importorskip("silx.io.nxdata")
    found = profiles(frames=3).compute()
    detcal.save(found, tmp_path / "a.nxs")
    with h5py.File(tmp_path / "a.nxs") as file:
        plot = nxdata.get_default(file)
        np.testing.assert_array_equal(plot.errors, found.sem)
        assert plot.signal.attrs["units"] == "counts"
        assert plot.axes_dataset_names == [None, "radial"]
        assert file["entry/intensity/radial"].attrs["units"] == "degree"
        assert file["entry/intensity/intensity_errors"] == file["entry/sem/sem"]  # one dataset of two names
        assert json.loads(file["entry"].attrs["geometry"])["Distance"] == 0.1
    xr.testing.assert_identical(detcal.load(tmp_path / "a.nxs").compute().drop_attrs(deep=False), found.drop_attrs(deep=False))


@pytest.mark.parametrize(
    ("unit", "known"), [("q_nm^-1", "1/nm"), ("q_A^-1", "1/angstrom"), ("2th_rad", "rad"), ("r_mm", "mm"), ("log10(q.m)_None", "1")]
)
def test_units_are_those_of_udunits_and_come_back(tmp_path: Path, unit: str, known: str) -> None:
    detcal.save(profiles(unit), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["entry/intensity/radial"].attrs["units"] == known
    assert detcal.load(tmp_path / "a.h5").radial.attrs == {"units": unit, "long_name": unit.rpartition("_")[0]}


@pytest.mark.parametrize(("unit", "known"), [("q_nm^-1", "1/nm"), ("q_A^-1", "1/angstrom")])
def test_one_profile_over_q_is_nxcansas_too(tmp_path: Path, unit: str, known: str) -> None:
    found = profiles(unit).compute()
    found.intensity[0, 4] = np.nan
    detcal.save(found, tmp_path / "a.nxs")
    with h5py.File(tmp_path / "a.nxs") as file:
        first = next(iter(file))  # SasView stumbles over an entry before its own
        entry, data = file[first], file[f"{first}/sasdata"]
        assert (entry.attrs["canSAS_class"], entry.attrs["version"], entry["definition"].asstr()[()]) == ("SASentry", "1.1", "NXcanSAS")
        assert (data.attrs["canSAS_class"], data.attrs["I_axes"], data.attrs["Q_indices"]) == ("SASdata", "Q", 0)
        assert (data["Q"].attrs["units"], data["I"].attrs["uncertainties"]) == (known, "Idev")
        for name, column in (("Q", found.radial), ("I", found.intensity[0]), ("Idev", found.sem[0])):
            np.testing.assert_array_equal(data[name], np.delete(column.values, 4))
    xr.testing.assert_equal(detcal.load(tmp_path / "a.nxs").compute(), found)


@pytest.mark.parametrize("found", [profiles("2th_deg"), profiles("q_nm^-1", frames=3)], ids=["angles", "several"])
def test_other_profiles_are_no_nxcansas(tmp_path: Path, found: xr.Dataset) -> None:
    detcal.save(found, tmp_path / "a.nxs")
    with h5py.File(tmp_path / "a.nxs") as file:
        assert [group.attrs.get("canSAS_class") for group in file.values()] == [None]


def test_errors_follow_from_variances(tmp_path: Path) -> None:
    cube = np.arange(24.0).reshape(2, 3, 4)
    rates = xr.Dataset({name: (("row", "column", "energy"), cube * factor) for name, factor in (("rate", 1), ("variance", 2))})
    detcal.save(rates, tmp_path / "a.nxs")
    with h5py.File(tmp_path / "a.nxs") as file:
        np.testing.assert_allclose(file["entry/rate/rate_errors"], np.sqrt(2 * cube))
    assert set(detcal.load(tmp_path / "a.nxs").variables) == {"rate", "variance"}


@pytest.mark.parametrize("suffix", [".xy", ".fxye", ".nxs"])
def test_a_recipe_writes_what_save_writes(tmp_path: Path, suffix: str) -> None:
    np.save(tmp_path / "frames.npy", COUNTS)
    NEAR.write(str(tmp_path / "near.poni"))
    recipe = f"""
[input]
path = "frames.npy"
frames = 0
[[steps]]
operation = "integrate"
geometry = "near.poni"
npt = 30
unit = "2th_deg"
[output]
path = "run{suffix}"
"""
    (tmp_path / "recipe.toml").write_text(recipe)
    command(tmp_path, "run", "recipe.toml")
    detcal.save(profiles(), tmp_path / f"own{suffix}")
    if suffix == ".nxs":
        xr.testing.assert_equal(detcal.load(tmp_path / "run.nxs").compute(), detcal.load(tmp_path / "own.nxs").compute())
    else:
        run, own = ((tmp_path / f"{name}{suffix}").read_text().splitlines() for name in ("run", "own"))
        assert run[-30:] == own[-30:]
        assert any("Wavelength: 1e-10 m" in line for line in run)
    (tmp_path / "several.toml").write_text(recipe.replace("frames = 0\n", "").replace(".nxs", ".xy").replace("run", "several"))
    assert "holds one profile, not 3 along frame" in fails(tmp_path, "check", "several.toml")
