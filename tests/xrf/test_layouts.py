"""Scans as beamlines and their programs write them, opened by open_scan, by names, and by recipes."""

import subprocess
import sys
import warnings
from contextlib import contextmanager

import h5py
import numpy as np
import pytest
import tifffile

import detcal
from detcal import xrf
from detcal.errors import InputError
from tests.benchmarks.sampling import assert_within_plan, peak_of_run
from tests.pipelines.commands import detcal as command
from tests.xrf.layouts import (
    CHANNELS,
    COLUMNS,
    COUNTS,
    ELEMENTS,
    ENERGY_EV,
    LAYOUTS,
    LIVE_S,
    MAP,
    POINTS,
    ROWS,
    WITHOUT_POSITIONS,
    X,
    Y,
    maps_raw,
    put,
    write,
)  # fmt: skip
from tests.xrf.scans import warned

PLACES_UM = np.stack([X.ravel(), Y.ravel()], axis=1) * 1000
RECIPE = """
[[steps]]
operation = "{operation}"
scan = "scan.h5"
{keys}
[output]
path = "out.zarr"
"""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_found_and_is_the_same_scan(tmp_path, layout):
    scan, texts = warned(lambda: detcal.open_scan(write(tmp_path / "scan.h5", layout)))
    assert texts == []
    np.testing.assert_array_equal(scan.spectra, POINTS)
    places = PLACES_UM / 500 if layout in WITHOUT_POSITIONS else PLACES_UM
    np.testing.assert_allclose(scan.positions, places)
    assert scan.positions.attrs["units"] == ("pixels" if layout in WITHOUT_POSITIONS else "um")
    if scan.energy.attrs["units"] == "keV":
        np.testing.assert_allclose(scan.energy, ENERGY_EV / 1000)
    assert ("detector_spectra" in scan) == (layout in ("maps_raw", "pyxrf_elements", "plain_elements"))
    cube = xrf.regrid(scan.spectra, xrf.build_scan_grid(scan))
    np.testing.assert_allclose(cube, MAP, rtol=1e-6)


@pytest.mark.parametrize("layout", ["maps", "xrf_maps", "nexus", "nexus_bytes", "nexus_colons", "nxfluo"])
def test_energies_are_kev(tmp_path, layout):
    scan = detcal.open_scan(write(tmp_path / "scan.h5", layout))
    assert scan.energy.attrs["units"] == "keV"
    np.testing.assert_allclose(scan.energy, ENERGY_EV / 1000)


@pytest.mark.parametrize(("layout", "format"), [("maps", "maps"), ("pyxrf", "pyxrf"), ("nexus", "nexus"), ("plain", "plain")])
def test_a_format_that_is_named_is_taken(tmp_path, layout, format):
    path = write(tmp_path / "scan.h5", layout)
    assert detcal.open_scan(path, format=format).identical(detcal.open_scan(path))
    other = "pyxrf" if format != "pyxrf" else "maps"
    with pytest.raises(InputError, match=r"expected /.* in .*scan\.h5, found none: give spectra and positions"):
        detcal.open_scan(path, format=other)


def shaped(order):
    """The counts in an order of dimensions, and as one element has them."""
    dims = {"detector": 0, "row": 1, "column": 2, "energy": 3}
    counts = COUNTS if "detector" in order else COUNTS.sum(axis=0, keepdims=True)
    if "spectrum" in order:
        counts = counts.reshape(counts.shape[0], 1, -1, CHANNELS)
    places = [dims["column" if dim == "spectrum" else dim] for dim in order]
    return counts.transpose([*(axis for axis in range(4) if axis not in places), *places]).reshape([counts.shape[axis] for axis in places])


@pytest.mark.parametrize(
    "order",
    [("spectrum", "energy"), ("energy", "spectrum"), ("row", "column", "energy"), ("energy", "row", "column"),
     ("spectrum", "detector", "energy"), ("detector", "spectrum", "energy"), ("row", "column", "detector", "energy"),
     ("detector", "row", "column", "energy")],
    ids="-".join,
)  # fmt: skip
@pytest.mark.parametrize("positions", ["xy", "xy3", "3xy", ["x", "y"], ["x2", "y2"], ["columns", "rows"]], ids=str)
def test_spectra_of_any_order_by_names(tmp_path, order, positions):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["counts"] = shaped(order)
        file["xy"], file["xy3"], file["3xy"] = PLACES_UM, np.stack([X, Y], -1), np.stack([X, Y])
        file["x"], file["y"], file["x2"], file["y2"], file["columns"], file["rows"] = X.ravel(), Y.ravel(), X, Y, X[0], Y[:, 0]
    needs_a_map = positions == ["columns", "rows"] or positions in ("xy3", "3xy")
    if needs_a_map and "spectrum" in order:
        with pytest.raises(InputError, match="expected positions of shape"):
            detcal.open_spectra(path, "counts", positions)
        return
    scan = detcal.open_spectra(path, "counts", positions)
    np.testing.assert_array_equal(scan.spectra, POINTS)
    np.testing.assert_allclose(scan.positions, PLACES_UM if positions == "xy" else PLACES_UM / 1000)
    assert scan.sizes.get("detector", 1) == (ELEMENTS if "detector" in order else 1)
    for start, stop in ((0, 1), (3, 12), (6, 9), (18, 20), (5, 5)):  # parts of rows too
        np.testing.assert_array_equal(scan.spectra[start:stop, 3:7], POINTS[start:stop, 3:7])


@pytest.mark.parametrize("chunks", [None, (1, 2, 8), (2, 5, 32), (3, 4, 32)])
@pytest.mark.parametrize("asked", [None, {"row": 2}, {"spectrum": 3}, {"spectrum": 7}])
def test_chunks_of_a_map_do_not_change_what_is_read(tmp_path, chunks, asked):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("cube", data=MAP, chunks=chunks, compression=None if chunks is None else "gzip")
    scan = detcal.open_spectra(path, "cube", chunks=asked)
    np.testing.assert_array_equal(scan.spectra, POINTS)
    np.testing.assert_array_equal(scan.positions, PLACES_UM / 500)


def test_times_and_rates_of_elements_by_names(tmp_path):
    path = tmp_path / "scan.h5"
    rates = np.array([300, 200, 100])
    with h5py.File(path, "w") as file:
        file["counts"] = (LIVE_S.transpose(1, 2, 0) * rates)[..., None] * np.ones(CHANNELS)
        put(file, "ms", LIVE_S * 1000, "ms")
        file["per_spectrum"] = LIVE_S.reshape(ELEMENTS, -1).T
        put(file, "hours", LIVE_S, "h")
    for times in ("ms", "per_spectrum"):
        scan = detcal.open_scan(path, spectra="counts", live_time_s=times)
        grid = xrf.build_scan_grid(scan)
        np.testing.assert_allclose(xrf.regrid_rate(scan, grid).rate, np.full(MAP.shape, 600), rtol=1e-5)
        one = detcal.open_scan(path, spectra="counts", live_time_s=times, detector=[2, 0])
        np.testing.assert_allclose(xrf.regrid_rate(one, grid).rate, np.full(MAP.shape, 400), rtol=1e-5)
    with pytest.raises(InputError, match=r"expected times in s, .*, got 'h'"):
        detcal.open_scan(path, spectra="counts", live_time_s="hours")


def test_times_and_energies_of_ones_own_are_taken(tmp_path):
    path = write(tmp_path / "scan.h5", "nexus")
    scan = detcal.open_scan(path, live_time_s=np.full((ROWS, COLUMNS), 0.5), energy_kev=np.arange(CHANNELS) + 1)
    np.testing.assert_array_equal(scan.live_time_s, 0.5)
    np.testing.assert_array_equal(scan.energy, np.arange(CHANNELS) + 1)
    with pytest.raises(InputError, match="a live time for each of 20 spectra"):
        detcal.open_scan(path, live_time_s=np.ones(7))


def test_energies_without_a_unit_that_only_ev_can_be(tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        file["cube"], file["energy"] = MAP, ENERGY_EV
        put(file, "joule", ENERGY_EV, "J")
    scan, texts = warned(lambda: detcal.open_scan(path, spectra="cube", energy_kev="energy"))
    assert len(texts) == 1
    assert "energy has no unit and goes to 7200: it is taken as eV" in texts[0]
    np.testing.assert_allclose(scan.energy, ENERGY_EV / 1000)
    with pytest.raises(InputError, match=r"expected energies in eV or keV in .*, got 'J'"):
        detcal.open_scan(path, spectra="cube", energy_kev="joule")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"format": "mca"}, "expected format to be one of crono, maps, pyxrf, nexus, plain, detcal, got 'mca'"),
        ({"format": "maps", "spectra": "scan/spectra"}, "spectra names a dataset in a file of any layout"),
        ({"spectra": "scan/spectra"}, "expected positions of the spectra"),
        ({"spectra": "scan/spectra", "positions": "scan/x"}, r"expected positions of shape \(20, 2 to 4\), .* or x and y by two names"),
        ({"spectra": "scan/spectra", "positions": ["scan/x", "scan/y", "scan/x"]}, "the names of two"),
        ({"spectra": "scan/monitor"}, "expected spectra .*, or of 3 or 4 dimensions"),
        ({"spectra": "nothing"}, "no dataset nothing"),
        ({"motor_step_um": 2.0}, "motor_step_um is for scans of a Crono scanner"),
        ({"detector": 1}, "expected a detector from 0 to 0"),
    ],
)
def test_what_does_not_fit_a_file_is_refused(tmp_path, options, says):
    path = write(tmp_path / "scan.h5", "plain")
    with pytest.raises(InputError, match=says):
        detcal.open_scan(path, **options)


def test_options_without_use_for_a_crono_file(original):
    for options in ({"detector": 0}, {"positions": "XRF/MotorsPositions"}):
        with pytest.raises(InputError, match=f"{next(iter(options))} is not for scans of a Crono scanner"):
            detcal.open_scan(original, **options)


def test_two_datasets_that_may_be_spectra_are_not_chosen_from(tmp_path):
    path = write(tmp_path / "scan.h5", "plain")
    with h5py.File(path, "r+") as file:
        file["scan/other"] = POINTS
    with pytest.raises(InputError, match="a single dataset of the size of spectra"):
        detcal.open_scan(path)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("operation", ["regrid_xrf", "convert_crono", "smooth_spectra", "summary_spectra"])
def test_recipes_take_every_layout(tmp_path, layout, operation):
    write(tmp_path / "scan.h5", layout)
    keys = 'quantity = "counts"' if operation == "regrid_xrf" else ""
    (tmp_path / "recipe.toml").write_text(RECIPE.format(operation=operation, keys=keys))
    if operation == "convert_crono" and layout.startswith("plain"):
        return  # points in a list are no grid
    command(tmp_path, "check", "recipe.toml")
    if layout == "maps_raw":
        command(tmp_path, "run", "recipe.toml")
        found = detcal.load(tmp_path / "out.zarr")
        scan = detcal.open_scan(tmp_path / "scan.h5")
        if operation == "regrid_xrf":
            np.testing.assert_allclose(found.counts, MAP, rtol=1e-6)
        if operation == "summary_spectra":
            np.testing.assert_array_equal(found["sum"], POINTS.sum(axis=0))
        if operation == "smooth_spectra":
            np.testing.assert_allclose(found.spectra, xrf.smooth_spectra(scan.spectra), rtol=1e-6)
        if operation == "convert_crono":
            np.testing.assert_allclose(found.maxrf_cube.values.reshape(20, -1), xrf.smooth_spectra(scan.spectra), rtol=1e-6)


def test_a_recipe_has_every_option(tmp_path):
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        maps_raw(file)
        file["counts"] = COUNTS.reshape(ELEMENTS, -1, CHANNELS).transpose(1, 0, 2)
        put(file, "x", X.ravel(), "mm")
        put(file, "y", Y.ravel(), "mm")
        put(file, "ev", ENERGY_EV, "eV")
    with h5py.File(tmp_path / "times.h5", "w") as file:
        file["times"] = np.full(ROWS * COLUMNS, 0.5)
    keys = """
spectra = "counts"
positions = ["x", "y"]
energy_kev = "ev"
live_time_s = { path = "times.h5", dataset = "/times" }
detector = [0, 2]
"""
    (tmp_path / "recipe.toml").write_text(RECIPE.format(operation="regrid_xrf", keys=keys))
    command(tmp_path, "run", "recipe.toml")
    found = detcal.load(tmp_path / "out.zarr")
    np.testing.assert_allclose(found.rate, (COUNTS[0] + COUNTS[2]) / 0.5, rtol=1e-6)
    np.testing.assert_allclose(found.energy, ENERGY_EV / 1000)
    assert found.x.attrs["units"] == "um"


def test_a_recipe_writes_maps_of_elements_as_an_image(tmp_path):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["counts"] = np.random.default_rng(0).poisson(5, (4, 5, 400)).astype(np.uint16)
        put(file, "time", np.ones((4, 5)), "s")
        put(file, "energy", 0.03 * np.arange(400), "keV")
    keys = 'spectra = "counts"\nlive_time_s = "time"\nenergy_kev = "energy"\nelements = ["Fe", "Ca"]'
    (tmp_path / "recipe.toml").write_text(RECIPE.format(operation="regrid_xrf", keys=keys).replace("out.zarr", "out.tif"))
    command(tmp_path, "run", "recipe.toml")
    with tifffile.TiffFile(tmp_path / "out.tif") as image:
        assert [page.description for page in image.pages][:2] == ["Fe element_rate", "Ca element_rate"]
    scan = detcal.open_scan(tmp_path / "scan.h5", spectra="counts", live_time_s="time", energy_kev="energy")
    wanted = xrf.element_maps(scan, xrf.build_scan_grid(scan), elements=["Fe", "Ca"]).rate
    np.testing.assert_allclose(tifffile.imread(tmp_path / "out.tif", key=range(2)), wanted, rtol=1e-5)


GROWING = """
import sys, h5py, numpy as np
spectra, places, way = int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
with h5py.File(sys.argv[1], "w", libver="latest") as file:
    xy = np.stack([np.arange(20) % 5, np.arange(20) // 5], 1).astype(float)
    counts = file.create_dataset("counts", data=np.ones((spectra, 32), "u2"), maxshape=(None, 32), chunks=(5, 32))
    file.create_dataset("xy", data=xy[:places], maxshape=(None, 2), chunks=(5, 2))
    if way == "swmr":
        file.swmr_mode = True
    file.flush()
    print("open", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def being_written(path, spectra, places, way="swmr"):
    """A scan that another process holds open for writing."""
    code = [sys.executable, "-c", GROWING, str(path), str(spectra), str(places), way]
    with subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout.readline() == "open\n"
        yield
        writer.communicate("\n")


def test_a_scan_that_is_being_written_is_opened_as_far_as_it_is(tmp_path):
    with being_written(tmp_path / "scan.h5", 20, 20):
        scan = detcal.open_spectra(tmp_path / "scan.h5", "counts", "xy")
        assert scan.spectra.values.sum() == 20 * 32
        cube = xrf.regrid(scan.spectra, xrf.build_scan_grid(scan))
        np.testing.assert_allclose(cube, np.ones((4, 5, 32)), rtol=1e-6)


@pytest.mark.parametrize(
    ("spectra", "places", "says"),
    [(18, 20, "20 positions but 18 spectra"), (20, 17, "3 without a position that is a number (number 17, 18, 19)")],
)
def test_of_a_scan_whose_last_points_are_not_whole_the_others_are_used(tmp_path, spectra, places, says):
    with being_written(tmp_path / "scan.h5", spectra, places):
        scan, texts = warned(lambda: detcal.open_spectra(tmp_path / "scan.h5", "counts", "xy"))
        assert len(texts) == 1
        assert says in texts[0]
        cube = xrf.regrid(scan.spectra, xrf.build_scan_grid(scan)).values
    assert np.nansum(cube) == pytest.approx(min(spectra, places) * 32)


def test_x_alone_is_no_list_of_positions(tmp_path):
    """Not of five points either, of six elements of a detector."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["cube"], file["x"] = np.ones((5, 6, 64)), np.indices((5, 6))[1]
    with pytest.raises(InputError, match=r"expected positions of shape .*, or x and y by two names, got \(5, 6\)"):
        detcal.open_spectra(tmp_path / "scan.h5", "cube", "x")


def test_x_and_y_of_a_map_that_was_turned_are_refused(tmp_path):
    """As many numbers as there are spectra, but of others."""
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["cube"], file["x"], file["y"] = np.ones((5, 6, 64)), *np.indices((6, 5)).astype(float)
    with pytest.raises(InputError, match=r"expected positions of shape .*, got \(6, 5\) and \(6, 5\) for spectra of shape \(5, 6, 64\)"):
        detcal.open_spectra(tmp_path / "scan.h5", "cube", ["x", "y"])


@pytest.mark.parametrize("energies", ["keV", "numbers", None])
@pytest.mark.parametrize("order", [("row", "column", "energy"), ("energy", "row", "column")], ids="-".join)
def test_the_energies_tell_which_axis_is_theirs(tmp_path, order, energies):
    path, kev = tmp_path / "scan.h5", np.arange(1.0, 33.0)
    with h5py.File(path, "w") as file:
        file["cube"], file["keV"] = shaped(order), kev
    scan = detcal.open_scan(path, spectra="cube", energy_kev=kev if energies == "numbers" else energies)
    np.testing.assert_array_equal(scan.spectra, POINTS)


def test_a_scan_that_its_writer_keeps_for_itself(tmp_path):
    with (
        being_written(tmp_path / "scan.h5", 20, 20, "alone"),
        pytest.raises(InputError, match="It is locked: a program, mostly the one that writes it"),
    ):
        detcal.open_spectra(tmp_path / "scan.h5", "counts", "xy")


@pytest.mark.parametrize("operation", ["regrid_xrf", "summary_spectra"])
def test_memory_of_a_detector_of_several_elements_stays_under_the_plan(tmp_path, operation):
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        for name in "abcd":
            file.create_dataset(f"MAPS_RAW/data_{name}", data=np.ones((1024, 64, 120), np.uint16), chunks=(1024, 1, 120), compression="lzf")
        file["MAPS_RAW/livetime"] = np.random.default_rng(0).uniform(0.5, 1, (4, 64, 120))
    (tmp_path / "recipe.toml").write_text(RECIPE.format(operation=operation, keys=""))
    peak, told = peak_of_run(["run", "recipe.toml", "--memory", "1GiB", "--workers", "2"], tmp_path)
    assert_within_plan(peak, told)


@pytest.mark.parametrize(("suffix", "numbers"), [(".rpl", ".raw"), (".hdr", ".img")])
def test_a_recipe_writes_a_cube_as_numbers_beside_a_header(tmp_path, suffix, numbers):
    write(tmp_path / "scan.h5", "nexus")
    text = RECIPE.format(operation="regrid_xrf", keys='quantity = "counts"').replace("out.zarr", f"out{suffix}")
    (tmp_path / "recipe.toml").write_text(text)
    command(tmp_path, "run", "recipe.toml")
    np.testing.assert_allclose(np.fromfile(tmp_path / f"out{numbers}", "<f4").reshape(MAP.shape), MAP, rtol=1e-6)
    assert sorted(path.name for path in tmp_path.glob("*.*") if path.stem == "out") == sorted([f"out{suffix}", f"out{numbers}"])


def test_a_stack_that_nothing_calls_spectra_is_told_of(tmp_path):
    with h5py.File(tmp_path / "stack.h5", "w") as file:
        file["entry/data"] = np.ones((4, 5, 32), np.uint16)
    with pytest.warns(UserWarning, match="nothing in .* says that .*entry/data is spectra"):
        detcal.open_scan(tmp_path / "stack.h5")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detcal.open_scan(tmp_path / "stack.h5", spectra="entry/data")
