"""Maps of frames (row, column, y, x) in files: opened as such, block by block, and through recipes to results that are maps too."""

from itertools import product
from pathlib import Path

import dask
import dask.array as da
import h5py
import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner
from detcal_pipelines.chain import build
from detcal_pipelines.cli import main
from detcal_pipelines.plan import plan
from detcal_pipelines.recipe import read_recipe

from detcal import load, open_frames, save
from detcal.azimuthal import build_bins, integrate
from detcal.errors import InputError, MissingWarning
from detcal.frames.maps import as_they_lie, cut_by_rows, frames_of_map, in_rows, in_series, rows_of
from detcal.frames.rounding import round_to_noise
from detcal.response import correct_response, fit_response
from detcal.sensor import deconvolve
from detcal.stores.sources.scanned import boxes, frames_a_chunk
from tests.azimuthal.test_azimuthal_ranges import geometry
from tests.sensor.blurs import frames_of, psf_of
from tests.stores.recipes import refused, write

CORRECT = 'operation = "correct_response"\ndark = 3.0'
SIZES, SHAPE = (3, 5), (60, 64)
MAP = np.random.default_rng(0).poisson(100, (*SIZES, *SHAPE)).astype(np.float32)
SY, SX = np.arange(3) / 2, np.arange(5) + 10.0


def write_map(path: Path, chunks: tuple[int, ...] | None = (1, 1, *SHAPE), frames: np.ndarray = MAP) -> Path:
    """A NeXus file with a map, where its points lie, and a spectrum at each of them."""
    with h5py.File(path, "w") as file:
        group = file.create_group("entry/data")
        group.create_dataset("frames", data=frames, chunks=chunks)
        group["sy"], group["sx"], group["spectra"] = SY, SX, np.ones((*SIZES, 7))
        group["sx"].attrs["units"] = "mm"
        group.attrs.update({"NX_class": "NXdata", "signal": "frames", "axes": ["sy", "sx", ".", "."]})
        file.attrs["default"], file["entry"].attrs["default"], file["entry"].attrs["NX_class"] = "entry", "data", "NXentry"
    return path


def run_recipe(step: str, output: str, source: str = 'path = "a.h5"') -> None:
    done = CliRunner().invoke(main, ["run", str(write(step, source=source, output=output)), "--workers", "1", "--memory", "16GiB"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("chunks", [None, (1, 1, *SHAPE), (1, 3, *SHAPE), (2, 5, *SHAPE), (2, 2, 30, 64)])
@pytest.mark.parametrize("cut", [None, {"frame": 2}, {"frame": 11}, {"frame": 2, "y": 30}])
def test_a_map_is_opened_as_one(chunks, cut, tmp_path):
    found = open_frames(write_map(tmp_path / "a.h5", chunks), chunks=cut)
    assert found.dims == ("row", "column", "y", "x")
    np.testing.assert_array_equal(found, MAP)
    assert (found.sy.dims, found.sx.dims, found.sx.attrs) == (("row",), ("column",), {"units": "mm"})
    np.testing.assert_array_equal(found.sx, SX)
    assert set(found.coords) == {"sy", "sx"}


def test_some_frames_of_a_map_know_where_they_were(tmp_path):
    some = open_frames(write_map(tmp_path / "a.h5"), frames=[1, 7, 14])
    np.testing.assert_array_equal(some, MAP.reshape(-1, *SHAPE)[[1, 7, 14]])
    for name, wanted in (("row_number", [0, 1, 2]), ("column_number", [1, 2, 4]), ("sy", [0, 0.5, 1]), ("sx", [11, 12, 14])):
        assert some[name].dims == ("frame",)
        np.testing.assert_array_equal(some[name], wanted)
    whole = open_frames(tmp_path / "a.h5", frames=":")
    assert whole.dims == ("frame", "y", "x")
    np.testing.assert_array_equal(as_they_lie(whole), MAP)


def test_maps_of_zarr_and_npy(tmp_path):
    save(xr.DataArray(MAP, {"line": ("line", SY)}, ("line", "point", "y", "x")), tmp_path / "a.zarr", chunks={"point": 2, "line": 1})
    found = open_frames(tmp_path / "a.zarr", chunks={"frame": 2})
    assert (found.dims, found.data.chunks[:2]) == (("line", "point", "y", "x"), ((1, 1, 1), (5,)))  # of 2, 2 and 1, which are one piece
    np.testing.assert_array_equal(found, MAP)
    np.testing.assert_array_equal(found.line, SY)
    zarr.create_array(str(tmp_path / "b.zarr"), data=MAP, chunks=(1, 1, *SHAPE))
    np.save(tmp_path / "b.npy", MAP)
    for name in ("b.zarr", "b.npy"):
        found = open_frames(tmp_path / name)
        assert found.dims == ("row", "column", "y", "x")
        np.testing.assert_array_equal(found, MAP)


def test_frames_that_are_missing_of_a_map_are_nan(tmp_path):
    path = write_map(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file["entry/data/frames"]
        made = file["entry/data"].create_dataset("frames", (*SIZES, *SHAPE), np.float32, chunks=(1, 1, *SHAPE), fillvalue=0)
        made[0], made[1, :3] = MAP[0], MAP[1, :3]
    with pytest.warns(MissingWarning, match=r"lacks 7 of 15 frames \(8–14\)"):
        found = open_frames(path)
    np.testing.assert_array_equal(np.isnan(found).all(("y", "x")).values.ravel(), np.arange(15) >= 8)
    np.testing.assert_array_equal(found[0], MAP[0])


def test_a_block_is_read_by_the_task_that_works_on_it(tmp_path):
    found = integrate(open_frames(write_map(tmp_path / "a.h5"), chunks={"frame": 5}), build_bins(geometry(), npt=9))
    assert found.intensity.dims == ("row", "column", "radial")
    graph = dict(dask.optimize(found.intensity.data)[0].__dask_graph__())
    assert not [key for key in graph if str(key).startswith("('frames-")]


@pytest.mark.parametrize("suffix", ["zarr", "nxs"])
def test_a_recipe_gives_profiles_of_a_map(suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_map(tmp_path / "a.h5")
    geometry().save("a.poni")
    rings = 'operation = "integrate"\ngeometry = "a.poni"\nnpt = 9\nvariance = "a.h5"'
    run_recipe(f"{CORRECT}\n[[steps]]\n{rings}", f"out.{suffix}", 'path = "a.h5"\nchunk_frames = 2')
    found = load(tmp_path / f"out.{suffix}")
    wanted = integrate(MAP - 3, build_bins(geometry(), npt=9), variance=MAP).compute()
    assert found.sizes == {"row": 3, "column": 5, "radial": 9}
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])
    assert (found.sy.dims, found.sx.dims, set(found.coords)) == (("row",), ("column",), {"sy", "sx", "radial"})
    if suffix == "zarr":
        assert found.intensity.data.chunksize == (1, 2, 9)
    else:
        with h5py.File(tmp_path / "out.nxs") as file:
            assert file["entry/intensity"].attrs["axes"].tolist() == ["sy", "sx", "radial"]


@pytest.mark.parametrize("chunks", [(1, 1, *SHAPE), (1, 3, *SHAPE), (2, 5, *SHAPE)])
@pytest.mark.parametrize("frames", ["", '\nframes = ":"', '\nframes = "1:"'])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 7, 11, 15])
def test_a_plan_counts_the_blocks_of_a_map(depth, frames, chunks, tmp_path, monkeypatch):
    """Those of parts of a row end with it; some frames of a map are a stack."""
    monkeypatch.chdir(tmp_path)
    write_map(tmp_path / "a.h5", chunks)
    recipe = read_recipe(write(CORRECT, source=f'path = "a.h5"{frames}\nchunk_frames = {depth}'))
    planned = plan(recipe, 2**34, 2)
    assert planned.blocks == build(recipe, planned.depth).data.npartitions


def test_steps_that_give_frames_keep_rows_and_columns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_map(tmp_path / "a.h5")
    run_recipe(CORRECT, "out.zarr")
    found = open_frames(tmp_path / "out.zarr")
    assert found.dims == ("row", "column", "y", "x")
    np.testing.assert_array_equal(found, MAP - 3)
    assert set(found.coords) == {"sy", "sx"}
    run_recipe(CORRECT, "out.tif", 'path = "a.h5"\nframes = ":"')
    np.testing.assert_array_equal(open_frames(tmp_path / "out.tif"), MAP.reshape(-1, *SHAPE) - 3)


@pytest.mark.parametrize("step", [CORRECT, 'operation = "integrate"\ngeometry = "a.poni"\nnpt = 9'], ids=["correct", "integrate"])
def test_a_monitor_by_row_and_column_divides_a_map(step, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_map(tmp_path / "a.h5")
    geometry().save("a.poni")
    monitor = np.random.default_rng(1).uniform(0.5, 2, SIZES)
    with h5py.File("a.h5", "r+") as file:
        file["monitor"] = monitor
        file["turned"] = monitor.T
    run_recipe(step, "plain.zarr")
    run_recipe(f'{step}\nnormalization = {{ path = "a.h5", dataset = "monitor" }}', "out.zarr")
    plain, found = (load(name)["corrected" if step == CORRECT else "intensity"] for name in ("plain.zarr", "out.zarr"))
    np.testing.assert_allclose(found, plain / monitor.reshape(*SIZES, *(1,) * (plain.ndim - 2)), rtol=1e-6)
    np.testing.assert_array_equal(found.normalization, monitor)
    run_recipe(f'{step}\nnormalization = {{ path = "a.h5", dataset = "monitor" }}', "some.zarr", 'path = "a.h5"\nframes = "4:7"')
    np.testing.assert_array_equal(load("some.zarr").normalization, monitor.ravel()[4:7])
    wrong = write(f'{step}\nnormalization = {{ path = "a.h5", dataset = "turned" }}', source='path = "a.h5"')
    (said,) = refused(wrong, "check")
    assert "expected a normalization for each of the 15 frames, (3, 5) of a map, or one for all, got (5, 3) numbers" in said


@pytest.mark.parametrize("dims", [("row", "column", "y", "x"), ("y", "row", "x", "column")])
@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_numbers_of_the_points_of_a_map_come_back_by_their_name(suffix, dims, tmp_path):
    monitor = np.random.default_rng(1).uniform(0.5, 2, SIZES)
    given = xr.DataArray(MAP, {"monitor": (("row", "column"), monitor, {"units": "V"})}, ("row", "column", "y", "x"))
    found = open_frames(save(given.transpose(*dims), tmp_path / f"a.{suffix}"))
    assert (found.monitor.dims, found.monitor.attrs) == (("row", "column"), {"units": "V"})
    np.testing.assert_array_equal(found.monitor, monitor)
    divided = correct_response(found, dark=3.0, normalization="monitor")
    np.testing.assert_allclose(divided, (MAP - 3) / monitor[:, :, None, None], rtol=1e-6)


@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_the_output_of_a_map_is_rounded_as_its_frames_are(suffix, tmp_path, monkeypatch):
    """Blocks of two frames: of the last of each row, one."""
    monkeypatch.chdir(tmp_path)
    write_map(tmp_path / "a.h5")
    run_recipe(CORRECT, f'out.{suffix}"\nprecision = 0.125 #', 'path = "a.h5"\nchunk_frames = 2')
    found = load(f"out.{suffix}").corrected
    assert (found.dims, found.attrs["precision"]) == (("row", "column", "y", "x"), 0.125)
    for row, first in product(range(3), (0, 2, 4)):
        block = MAP[row, first : first + 2] - np.float32(3)
        np.testing.assert_array_equal(found[row, first : first + 2], round_to_noise(block, 0.125))


def test_a_map_is_saved_with_a_precision_whatever_the_order_of_its_dimensions(tmp_path):
    given = xr.DataArray(MAP, dims=("row", "column", "y", "x")).chunk({"row": 1, "column": 5})
    found = load(save(given.transpose("y", "row", "x", "column"), tmp_path / "a.zarr", precision=0.125))
    for row in range(3):
        np.testing.assert_array_equal(found.data.isel(row=row).transpose("column", "y", "x"), round_to_noise(MAP[row], 0.125))
    with pytest.raises(InputError, match=r"precision is that of frames, .* and the result is of data float32 \(row, column, x\)"):
        save(given[:, :, 0], tmp_path / "b.zarr", precision=0.125)


def test_corrections_of_a_map_are_those_of_its_frames():
    given = xr.DataArray(MAP, {"sx": ("column", SX)}, ("row", "column", "y", "x"))
    found = correct_response(given, dark=3.0, normalization=(slice(0, 3), slice(0, 3)))
    assert found.dims == given.dims
    np.testing.assert_array_equal(found.sx, SX)
    wanted = correct_response(MAP.reshape(-1, *SHAPE), dark=3.0, normalization=(slice(0, 3), slice(0, 3)))
    np.testing.assert_array_equal(found.values.reshape(wanted.shape), wanted)
    psf = psf_of("PONI outside")
    frames = frames_of(psf, 4)
    found = deconvolve(frames.reshape(2, 2, *frames.shape[1:]), psf, method="direct")
    np.testing.assert_array_equal(found.values.reshape(frames.shape), deconvolve(frames, psf, method="direct"))
    one_by_one = r"a map, whose frames one after the other are data.reshape\(-1, 60, 64\), or"
    with pytest.raises(InputError, match=rf"got \(3, 5, 60, 64\): {one_by_one}"):
        fit_response(given)


# ------------------------------------------------------------------------------------------------------- cut and put together


@pytest.mark.parametrize("sizes", [(7,), (3, 5), (2, 3, 4), (1, 6), (6, 1)])
def test_boxes_hold_the_frames_in_their_order(sizes):
    numbers = np.arange(np.prod(sizes)).reshape(sizes)
    for start, stop in product(range(numbers.size), range(1, numbers.size + 1)):
        if start < stop:
            parts = [*boxes(start, stop, sizes)]
            np.testing.assert_array_equal(np.concatenate([numbers[part].ravel() for part in parts]), np.arange(start, stop))
            assert len(parts) <= 2 * len(sizes) - 1


@pytest.mark.parametrize(
    ("sizes", "chunks", "wanted"),
    [((9,), (2,), 2), ((3, 6), (1, 2), 2), ((3, 5), (1, 2), 5), ((3, 5), (2, 2), 10), ((4, 3, 6), (1, 2, 1), 18)],
)
def test_frames_that_make_whole_chunks(sizes, chunks, wanted):
    assert frames_a_chunk(sizes, chunks) == wanted


@pytest.mark.parametrize("sizes", [(3, 5), (2, 3, 4)])
@pytest.mark.parametrize("depth", [1, 2, 3, 5, 7, 12, 100])
def test_blocks_end_with_rows_and_stay_as_they_are(sizes, depth):
    cut = cut_by_rows(depth, sizes)
    assert sum(cut) == np.prod(sizes)
    assert max(cut) <= depth
    series = da.arange(sum(cut), chunks=(cut,))
    assert in_rows(cut, sizes) is not None
    whole = rows_of(series, sizes)
    np.testing.assert_array_equal(whole, np.arange(sum(cut)).reshape(sizes))
    assert whole.npartitions == len(cut)
    assert in_series(whole, len(sizes)).name == series.name
    np.testing.assert_array_equal(in_series(whole + 0, len(sizes)), np.arange(sum(cut)))


def test_a_stack_stays_one():
    stack = xr.DataArray(MAP[0], dims=("frame", "y", "x"))
    assert frames_of_map(stack) is stack
    assert as_they_lie(stack) is stack
    some = frames_of_map(xr.DataArray(MAP, dims=("row", "column", "y", "x")))[[0, 2, 1]]
    assert as_they_lie(some) is some
