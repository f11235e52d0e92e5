"""Whole runs of convert_crono and regrid_xrf: results, memory measured from outside, and one clear line for bad input."""

import shutil

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.chain import build, check_result
from detcal_pipelines.graph import optimise_together
from detcal_pipelines.plan import plan
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.template import render

import detcal as library
from detcal import simulate, xrf
from detcal.errors import DetcalError, InputError, PlanError
from detcal.stores.sources.hdf5_data import Hdf5Array
from detcal.stores.targets.crono_writer import write_crono
from detcal.stores.targets.zarr_store import prepare_zarr
from tests.benchmarks.sampling import assert_no_growth, assert_within_plan, peak_of_run, planned_peak
from tests.pipelines.commands import change, detcal, fails
from tests.xrf.files import spoil

MIB = 2**20
RECIPES = {"convert_crono": "converted", "regrid_xrf": "cube", "smooth_spectra": "smoothed", "summary_spectra": "summary"}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return write_crono(simulate.maxrf_scan(12, 15, channels=1024, counts=0.3, lag=0.3), tmp_path_factory.mktemp("crono") / "scan.h5")


@pytest.fixture
def folder(original, tmp_path):
    """A scan that may be spoilt, and fresh recipes."""
    shutil.copy(original, tmp_path / "scan.h5")
    for name in RECIPES:
        (tmp_path / f"{name}.toml").write_text(render(name))
    return tmp_path


def result_of(folder, name):
    detcal(folder, "run", f"{name}.toml", "--workers", "2")
    return library.load(folder / f"{RECIPES[name]}.zarr").compute()


def built(folder, name, depth=None):
    """What a run computes, in tasks of so many spectra or lines, once its recipe has been checked."""
    recipe = read_recipe(folder / f"{name}.toml")
    check_result(recipe, build(recipe), overwrite=recipe.output.overwrite)
    return build(recipe, depth)


def assert_same(found, wanted):
    xr.testing.assert_equal(found.compute().drop_attrs(), wanted.compute().drop_attrs())


# --------------------------------------------------------------------------------------------------------- results


def test_a_conversion_gives_what_the_library_gives(folder):
    change(folder, "convert_crono.toml", "# chunk_spectra = 512", "chunk_spectra = 100")
    change(folder, "convert_crono.toml", "# sigma_channels = 7.0", "sigma_channels = 5")
    found = result_of(folder, "convert_crono")
    wanted = library.load(library.convert_crono(folder / "scan.h5", folder / "wanted.zarr", sigma_channels=5, progress=False))
    assert_same(found, wanted)
    assert found.maxrf_cube.shape == (12, 15, 1024)
    assert found.attrs["sigma_channels"] == 5
    np.testing.assert_array_equal(library.get_array(folder / "converted.zarr", "maxrf_cube"), wanted.maxrf_cube)


def test_smoothed_scans_and_their_sums_are_those_of_the_library(folder):
    options = {"sigma_channels": ("7.0", "3.0"), "boundary": ('"reflect"', '"mirror"'), "truncate": ("4.0", "3.0")}
    for key, (old, new) in options.items():
        change(folder, "smooth_spectra.toml", f"# {key} = {old}", f"{key} = {new}")
    change(folder, "smooth_spectra.toml", "# chunk_spectra = 512", "chunk_spectra = 100")
    change(folder, "summary_spectra.toml", "# chunk_spectra = 512", "chunk_spectra = 100")
    scan, smoothed = library.open_crono(folder / "scan.h5"), result_of(folder, "smooth_spectra")
    assert_same(smoothed.spectra, xrf.smooth_spectra(scan.spectra, sigma_channels=3.0, boundary="mirror", truncate=3.0))
    assert_same(smoothed.drop_vars("spectra"), scan.drop_vars("spectra"))
    assert xrf.regrid_rate(smoothed, xrf.build_scan_grid(smoothed)).rate.sizes["energy"] == 1024
    assert_same(result_of(folder, "summary_spectra"), xrf.summary_spectra(scan.spectra))


def test_a_grid_gives_what_the_library_gives(folder):
    scan = library.open_crono(folder / "scan.h5")
    found, wanted = result_of(folder, "regrid_xrf"), xrf.regrid_rate(scan, xrf.build_scan_grid(scan))
    assert_same(found, wanted.drop_vars("variance"))
    assert (found.rate.attrs["units"], found.y.attrs["units"]) == ("counts/s", "um")


@pytest.mark.parametrize("element_method", ["fit", "window"])
def test_options_reach_the_grid_and_the_elements(folder, element_method):
    lagging = simulate.maxrf_scan(20, 15, channels=1024, counts=0.3, lag=0.3)  # enough lines to tell a lag
    write_crono(lagging, folder / "scan.h5", overwrite=True)
    options = {
        'method = "drizzle"': 'method = "gaussian"', "step = [500.0, 800.0]": "step = [900, 1100.0]", "line_lag": "line_lag",
        "sigma_channels = 7.0": "sigma_channels = 3", "variance = false": "variance = true",
        'elements = ["Fe", "Pb-L"]': 'elements = ["Cu", "Pb-M"]', "fwhm_kev = 0.14": "fwhm_kev = 0.2",
        "motor_step_um = 1.0": "motor_step_um = 1.5", 'element_method = "fit"': f'element_method = "{element_method}"',
    }  # fmt: skip
    for old, new in options.items():
        change(folder, "regrid_xrf.toml", f"# {old}", new)
    scan = library.open_crono(folder / "scan.h5", motor_step_um=1.5)
    grid = xrf.build_scan_grid(scan, step=(900, 1100), method="gaussian", line_lag="auto")
    elements = xrf.element_maps(scan, grid, elements=["Cu", "Pb-M"], method=element_method, fwhm_kev=0.2)
    wanted = xrf.regrid_rate(scan, grid, sigma_channels=3).assign(element_rate=elements.rate, element_error=elements.error)
    assert_same(built(folder, "regrid_xrf", depth=2), wanted)


def test_counts_need_no_live_times(folder):
    spoil(folder / "scan.h5", "LiveTimes", None)
    with pytest.raises(InputError, match='in a recipe quantity = "counts" is both'):
        built(folder, "regrid_xrf")
    change(folder, "regrid_xrf.toml", '# quantity = "rate"', 'quantity = "counts"')
    scan = library.open_crono(folder / "scan.h5")
    found = built(folder, "regrid_xrf", depth=3)
    np.testing.assert_array_equal(found.counts, xrf.regrid(scan.spectra, xrf.build_scan_grid(scan)))
    assert set(found) == {"counts", "coverage"}
    change(folder, "regrid_xrf.toml", '# elements = ["Fe", "Pb-L"]', 'elements = ["Cu", "Pb-M"]')
    found = built(folder, "regrid_xrf", depth=3)
    wanted = xrf.element_maps(scan, xrf.build_scan_grid(scan), elements=["Cu", "Pb-M"], quantity="counts")
    assert set(found) == {"counts", "coverage", "element_counts", "element_error"}
    np.testing.assert_array_equal(found.element_counts, wanted.counts)
    np.testing.assert_array_equal(found.element_error, wanted.error)


def test_lines_may_be_columns_of_the_map(folder):
    spoil(folder / "scan.h5", "MotorsPositions", lambda whole: whole[:, [1, 0, 2]])
    change(folder, "regrid_xrf.toml", "# tile_rows = 4", "tile_rows = 2")
    scan = library.open_crono(folder / "scan.h5")
    planned = plan(read_recipe(folder / "regrid_xrf.toml"), 2**30, 2)
    found = built(folder, "regrid_xrf", planned.depth)
    assert_same(found, xrf.regrid_rate(scan, xrf.build_scan_grid(scan)).drop_vars("variance"))
    assert planned.cut.length == found.sizes["column"] < found.sizes["row"]
    assert planned.blocks == -(-found.sizes["column"] // 2)


def test_a_conversion_reads_the_file_once(folder, monkeypatch):
    """Among all the tasks that a run sends to its workers each spectrum is read by one."""
    rows = []
    read = Hdf5Array.__getitem__

    def counted(self, key):
        if self.name == "/XRF/Spectra":
            rows.append(len(range(*key[0].indices(self.shape[0]))))
        return read(self, key)

    monkeypatch.setattr(Hdf5Array, "__getitem__", counted)
    result = build(read_recipe(folder / "convert_crono.toml"), 128)
    dask.get(*optimise_together(list(prepare_zarr(result, folder / "once.zarr").values())))
    assert sorted(rows) == [112, 128]


# ---------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("name", RECIPES)
def test_memory_stays_under_the_plan_and_does_not_grow_with_the_spectra(tmp_path, name):
    (tmp_path / f"{name}.toml").write_text(render(name))
    if name == "regrid_xrf":
        for key in ("elements", "sigma_channels", "variance = false", "tile_rows"):
            change(tmp_path, "regrid_xrf.toml", f"# {key}", key.replace("false", "true"))
    peaks, plans = [], []
    for rows in (32, 64) if name == "regrid_xrf" else (32, 128):
        write_scan(tmp_path / "scan.h5", rows, 60, 4096)
        peak, output = peak_of_run(["run", f"{name}.toml", "--memory", "1GiB", "--workers", "2", "--overwrite"], tmp_path)
        assert_within_plan(peak, output)
        peaks.append(peak)
        plans.append(planned_peak(output))
    assert plans[1] < 1.02 * plans[0]
    # The few blocks of a short conversion are not all at their peak together; those of a long one are, and are in its plan.
    if name != "convert_crono":
        assert_no_growth(peaks, 0)


def write_scan(path, rows, columns, channels):
    """A scan like those of `simulate`, of which each line has the same spectra."""
    scan = simulate.maxrf_scan(rows, columns, channels=channels)
    line = np.random.default_rng(0).poisson(0.05, (scan.sizes["spectrum"] // rows, channels)).astype(np.uint16)
    spectra = da.concatenate([da.from_array(line, chunks=-1, name=False)] * rows)
    write_crono(
        scan.drop_vars(["detected", "output_count_rate"]).assign(spectra=(scan.spectra.dims, spectra)),
        path,
        overwrite=True,
        compression="lzf",
    )


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("command", "name", "dataset", "values", "message"),
    [
        ("check", "convert_crono", "SpectraSelectedIndex", None, "expected a scan with selected (row, column), got one without"),
        ("run", "regrid_xrf", "LiveTimes", lambda whole: 0 * whole, "no spectrum is left to make a map of"),
    ],
)
def test_a_file_that_cannot_be_used(folder, command, name, dataset, values, message):
    spoil(folder / "scan.h5", dataset, values)
    assert message in fails(folder, command, f"{name}.toml")


def test_a_zero_live_time_is_left_out_with_one_warning(folder):
    spoil(folder / "scan.h5", "LiveTimes", lambda whole: np.where(np.arange(len(whole)) == 7, 0, whole).astype(np.uint64))
    done = detcal(folder, "run", "regrid_xrf.toml", "--workers", "2")
    assert done.stderr.count("warning: ") == 1
    assert "spectra of " in done.stderr
    assert "1 without a positive live time (number 7) are left out" in done.stderr
    found = library.load(folder / "cube.zarr").compute()
    with pytest.warns(UserWarning, match="number 7"):
        scan = library.open_crono(folder / "scan.h5")
    assert_same(found, xrf.regrid_rate(scan, xrf.build_scan_grid(scan)).drop_vars("variance"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# step = [500.0, 800.0]", "step = [0.01, 0.01]", "pixels, more than 1e\\+09"),
        ("# step = [500.0, 800.0]", "step = [-1, 1]", "expected a positive step"),
        ("# step = [500.0, 800.0]", "step = [1]", r"steps\[0\].step \(line \d+\): expected 2 or more values, got"),
        ('# line_lag = "auto"', 'line_lag = "some"', r"1 mistake in .*\n.*line_lag \(line \d+\): expected 'auto', got 'some'$"),
        ('# line_lag = "auto"', "line_lag = [1]", r"1 mistake in .*\n.*line_lag \(line \d+\): expected a number, got"),
        ('# elements = ["Fe", "Pb-L"]', 'elements = ["Xx"]', "no element 'Xx'"),
        ('# elements = ["Fe", "Pb-L"]', "elements = []", "elements .*expected 1 or more values"),
        ("# variance = false", 'variance = true\nquantity = "counts"', "variances are of rates: leave variance or quantity out"),
        ("# sigma_channels = 7.0", "sigma_channels = 0", "sigma_channels .*number above 0, got 0"),
        ('"scan.h5"', '"gone.h5"', "scan .*: no such file"),
        ('"scan.h5"', '"cut.h5"', "cut short"),
        ('"cube.zarr"', '"scan.h5"', "would take the place of the input"),
        ('"cube.zarr"', '"cube.tif"', "a .tif holds one stack or image"),
        ("# shard_frames = 64", "shard_frames = 64", "sizes of at least 1 for some of the dimensions .*'frame': 64"),
        ("# Put all", '[input]\npath = "scan.h5"\n# Put all', "regrid_xrf takes no frames: leave \\[input\\] out"),
        (
            "# Where the", '[[steps]]\noperation = "convert_crono"\nscan = "scan.h5"\n# Where the',
            "regrid_xrf takes no frames, and gives none: make it the only step",
        ),
    ],
)  # fmt: skip
def test_one_clear_line(folder, old, new, message):
    whole = (folder / "scan.h5").read_bytes()
    (folder / "cut.h5").write_bytes(whole[: len(whole) // 2])
    change(folder, "regrid_xrf.toml", old, new)
    with pytest.raises(DetcalError, match=message):
        built(folder, "regrid_xrf")


def test_what_does_not_fit_is_refused_with_what_would(folder):
    change(folder, "regrid_xrf.toml", "# tile_rows = 4", "tile_rows = 13")
    recipe = read_recipe(folder / "regrid_xrf.toml")
    with pytest.raises(PlanError, match=r"regrid_xrf needs .* with tile_rows = 13 and 1 task at once, .*: tile_rows = \d would fit"):
        plan(recipe, plan(recipe, 2**30, 1).peak_bytes - 2**20, 1)
