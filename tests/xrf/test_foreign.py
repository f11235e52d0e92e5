"""Scans of microscopes and table-top instruments, which rosettasciio reads; without it, one line that says so."""

import pickle
import subprocess
import sys

import dask
import numpy as np
import pytest
import zarr

import detcal
from detcal import xrf
from detcal.errors import InputError
from tests.pipelines.commands import detcal as command
from tests.stores.test_cube_exports import cube

HSPY_AXES = [
    {"name": "y", "size": 4, "offset": 100.0, "scale": 0.5, "units": "mm", "navigate": True, "index_in_array": 0},
    {"name": "x", "size": 6, "offset": 0.0, "scale": 0.25, "units": "mm", "navigate": True, "index_in_array": 1},
    {"name": "Energy", "size": 8, "offset": 500.0, "scale": 20.0, "units": "eV", "navigate": False, "index_in_array": 2},
]


def write(path):
    """The same cube in files of several programs."""
    if path.suffix == ".rpl":
        detcal.save(cube("uint16"), path)
        return path
    if path.suffix == ".zspy":
        return write_zspy(path)
    rsciio = pytest.importorskip(f"rsciio.{path.suffix[1:]}")
    signal = {
        "data": cube("uint16").values, "axes": HSPY_AXES,
        "metadata": {"General": {"title": "map"}, "Signal": {"signal_type": "EDS_SEM"}},
        "original_metadata": {},
        "package_info": {}, "package": "hyperspy", "package_version": "2",
        "attributes": {"_lazy": False, "ragged": False},
        "learning_results": {}, "models": {}, "tmp_parameters": {},
    }  # fmt: skip
    rsciio.file_writer(str(path), signal)
    return path


def write_zspy(path):
    """HyperSpy's folder as it writes it, of zarr's second format, which rosettasciio cannot write beside zarr 3."""
    root = zarr.open_group(path, mode="w", zarr_format=2)
    root.attrs.update({"file_format": "ZSpy", "file_format_version": "3.1"})
    group = root.create_group("Experiments/map")
    for number, axis in enumerate(HSPY_AXES):
        group.create_group(f"axis-{number}").attrs.update({"_type": "UniformDataAxis", **axis})
    group.create_array("data", data=cube("uint16").values, chunk_key_encoding={"name": "v2", "separator": "/"})
    group.create_group("metadata/General").attrs["title"] = "map"
    group.create_group("metadata/Signal").attrs["signal_type"] = "EDS_SEM"
    for name in ("original_metadata", "learning_results"):
        group.create_group(name)
    return path


@pytest.fixture(params=[".rpl", ".hspy", ".zspy"])
def path(request, tmp_path):
    pytest.importorskip("rsciio")
    return write(tmp_path / f"map{request.param}")


def test_a_map_is_the_scan_that_was_written(path):
    scan = detcal.open_scan(path)
    np.testing.assert_array_equal(scan.spectra, cube("uint16").values.reshape(24, 8))
    assert (scan.energy.attrs["units"], scan.positions.attrs["units"]) == ("keV", "um")
    np.testing.assert_allclose(scan.energy, 0.5 + 0.02 * np.arange(8))
    step_y = 500
    np.testing.assert_allclose(np.diff(scan.positions[[0, 1, 6]], axis=0), [[250, 0], [-250, step_y]])
    np.testing.assert_allclose(xrf.regrid(scan.spectra, xrf.build_scan_grid(scan)), cube(), rtol=1e-6)


def test_a_map_without_sizes_is_in_pixels(tmp_path):
    pytest.importorskip("rsciio")
    detcal.save(cube().drop_vars(["x", "y"]), tmp_path / "map.rpl")
    scan = detcal.open_scan(tmp_path / "map.rpl")
    assert scan.positions.attrs["units"] == "pixels"
    np.testing.assert_array_equal(scan.positions[[0, 1, 6]], [[0, 0], [1, 0], [0, 1]])


def test_it_is_sent_to_workers_as_a_path(path):
    spectra = detcal.open_scan(path, chunks={"row": 1}).spectra
    assert len(pickle.dumps(spectra.data)) < 5000
    with dask.config.set(scheduler="processes", num_workers=1):
        np.testing.assert_array_equal(spectra[5:8], cube("uint16").values.reshape(24, 8)[5:8])


@pytest.mark.parametrize("suffix", [".rpl", ".zspy"])
def test_a_recipe_takes_it(tmp_path, suffix):
    pytest.importorskip("rsciio")
    write(tmp_path / f"map{suffix}")
    (tmp_path / "recipe.toml").write_text(
        f'[[steps]]\noperation = "regrid_xrf"\nscan = "map{suffix}"\nquantity = "counts"\n[output]\npath = "out.rpl"\n'
    )
    command(tmp_path, "run", "recipe.toml")
    np.testing.assert_array_equal(np.fromfile(tmp_path / "out.raw", "<f4").reshape(4, 6, 8), cube())


def test_a_single_spectrum_is_opened_and_is_no_map(tmp_path):
    msa = pytest.importorskip("rsciio.msa")
    axes = [{"name": "Energy", "size": 8, "offset": 0.0, "scale": 10.0, "units": "eV", "navigate": False}]
    values = np.arange(8.0)
    metadata = {"General": {"title": "a"}, "Signal": {"signal_type": "EDS_SEM"}, "Acquisition_instrument": {}}
    msa.file_writer(str(tmp_path / "a.msa"), {"data": values, "axes": axes, "metadata": metadata, "original_metadata": {}})
    scan = detcal.open_scan(tmp_path / "a.msa")
    np.testing.assert_array_equal(xrf.summary_spectra(scan.spectra)["sum"], values)
    with pytest.raises(InputError, match="such a scan has no map, only a mean spectrum"):
        xrf.build_scan_grid(scan)


def test_options_for_other_files_are_refused(path):
    for options in ({"spectra": "a"}, {"format": "maps"}, {"live_time_s": "a"}):
        with pytest.raises(InputError, match=f"{next(iter(options))} names something in HDF5 files"):
            detcal.open_scan(path, **options)
    np.testing.assert_array_equal(detcal.open_scan(path, live_time_s=np.full(24, 2.0)).live_time_s, 2)


def test_a_damaged_file_is_named(tmp_path):
    pytest.importorskip("rsciio")
    (tmp_path / "a.bcf").write_bytes(b"AAMVHFSS" + b"0" * 100)
    with pytest.raises(InputError, match=r"cannot read .*a\.bcf"):
        detcal.open_scan(tmp_path / "a.bcf")


def test_without_rosettasciio_one_line_says_how_to_get_it(tmp_path):
    (tmp_path / "a.bcf").write_bytes(b"")
    code = "import sys; sys.modules['rsciio'] = None; import detcal; detcal.open_scan(sys.argv[1])"
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.bcf")], capture_output=True, text=True).stderr
    assert "needs rosettasciio" in said.splitlines()[-1]
    assert 'pip install "detcal[formats]"; it is GPL-3' in said.splitlines()[-1]


def test_nothing_else_imports_it():
    code = "import sys; import detcal, detcal.stores.sources.any_scan; detcal.open_scan; sys.exit('rsciio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
