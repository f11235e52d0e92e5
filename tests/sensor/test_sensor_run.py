"""Whole runs of build_psf and deconvolve: results, memory measured from outside, and one clear line for bad input."""

import re
import tracemalloc

import h5py
import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.reports.gathering import stored_dataset
from detcal_pipelines.steps import sensor as steps
from detcal_pipelines.steps.sensor import BuildPSF
from detcal_pipelines.template import render

from detcal import load, open_frames, save
from detcal.frames.readings import ALL_NUMBERS
from detcal.response import Response
from detcal.sensor import PlanarGeometry, SensorPSF, build_psf, deconvolve, inversion, stopping
from detcal.sensor.memory import deconvolve_bytes
from tests.benchmarks.sampling import assert_no_growth, assert_within_plan, peak_of_run
from tests.pipelines.commands import change, detcal, fails, made_by

MIB = 2**20
RECIPES = "build_psf", "deconvolve"
SHAPE = (195, 487)  # of a Pilatus 100k
SENSOR = '"sensor": {"material": "Si", "thickness": 4.5e-4}'
PONI = f"""\
poni_version: 2.1
Detector: Pilatus100k
Detector_config: {{{SENSOR}}}
Distance: 0.2
Poni1: 0.015
Poni2: 0.04
Rot1: 0.1
Rot2: 0
Rot3: 0
Wavelength: 7e-11
"""


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).poisson(100, (40, *SHAPE)).astype(np.int32)


@pytest.fixture(scope="module")
def finished(frames, tmp_path_factory):
    """A folder with a geometry and frames, and what the two recipes made of them."""
    folder = tmp_path_factory.mktemp("sensor")
    (folder / "detector.poni").write_text(PONI)
    save(np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) % 100 == 7, folder / "mask.zarr")
    save(frames, folder / "scan.h5")
    for name in RECIPES:
        (folder / f"{name}.toml").write_text(render(name))
    change(folder, "build_psf.toml", '# mask = "mask.edf"', 'mask = "mask.zarr"')
    for name in RECIPES:
        detcal(folder, "check", f"{name}.toml")
        detcal(folder, "run", f"{name}.toml", "--workers", "2")
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """Links to the inputs and the matrix, and fresh recipes."""
    for name in ("detector.poni", "scan.h5", "psf.zarr"):
        (tmp_path / name).symlink_to(finished / name)
    for name in RECIPES:
        (tmp_path / f"{name}.toml").write_text(render(name))
    change(tmp_path, "build_psf.toml", '"psf.zarr"', '"new.zarr"')
    return tmp_path


# --------------------------------------------------------------------------------------------------------- results


def test_runs_give_what_the_library_gives(finished, frames):
    psf = load(finished / "psf.zarr")
    assert isinstance(psf, SensorPSF)
    wanted = build_psf(finished / "detector.poni", mask=open_frames(finished / "mask.zarr")[0])
    np.testing.assert_array_equal(psf.mask, wanted.mask)
    assert (psf.to_scipy() != wanted.to_scipy()).nnz == 0
    found = xr.open_zarr(finished / "deconvolved.zarr").deconvolved
    np.testing.assert_array_equal(found, deconvolve(frames, wanted))
    assert found.attrs["method"] == "auto"


def test_a_report_draws_a_matrix_in_its_bands(finished, monkeypatch):
    """Pixel by pixel it took longer than the matrix."""
    drawn = []
    monkeypatch.setattr(steps, "image", lambda title, shown: drawn.append(shown))
    list(BuildPSF.pictures(None, None, stored_dataset(finished / "psf.zarr"), None))
    assert drawn[0].chunks == ((SHAPE[0],), (SHAPE[1],))
    np.testing.assert_array_equal(drawn[0].values.ravel(), np.diff(load(finished / "psf.zarr").to_scipy().indptr))


def test_a_plane_gives_the_matrix_of_its_poni_file_in_bands_of_any_height(folder):
    wanted = build_psf(folder / "detector.poni")
    pitch = wanted.pixel_size_m[0]
    plane = f"shape = {list(SHAPE)}, pixel_size_m = [{pitch}, {pitch}], distance_m = 0.2, poni_m = {list(wanted.poni_m)}"
    change(folder, "build_psf.toml", '"detector.poni"', f"{{ {plane} }}")
    change(folder, "build_psf.toml", "# thickness_m = 0.00045", "thickness_m = 0.00045")
    change(folder, "build_psf.toml", "# attenuation_per_m = 1500.0", f"attenuation_per_m = {wanted.attenuation_per_m!r}")
    change(folder, "build_psf.toml", "# tile_rows = 64", "tile_rows = 10")
    detcal(folder, "run", "build_psf.toml", "--workers", "2")
    found = load(folder / "new.zarr")
    assert (found.data.npartitions, wanted.data.npartitions) == (20, 1)
    assert (found.to_scipy() != wanted.to_scipy()).nnz == 0


def test_options_reach_the_method(folder, frames):
    change(folder, "deconvolve.toml", '# method = "auto"', 'method = "mlem"')
    change(folder, "deconvolve.toml", "# max_iterations = 20", "max_iterations = 3")
    change(folder, "deconvolve.toml", "# dummy", "dummy")
    wanted = deconvolve(frames, load(folder / "psf.zarr"), method="mlem", max_iterations=3, dummy=-1)
    np.testing.assert_allclose(made_by(folder / "deconvolve.toml"), wanted, rtol=1e-5)
    assert (wanted == -1).any()


def test_frames_may_be_corrected_first(folder, frames):
    response = Response.from_gain(np.full(SHAPE, 2.0))
    save(response, folder / "response.zarr")
    first = '[[steps]]\noperation = "correct_response"\nresponse = "response.zarr"\n\n# Undo'
    change(folder, "deconvolve.toml", "# Undo", first)
    wanted = deconvolve(2.0 * frames, load(folder / "psf.zarr"))
    np.testing.assert_allclose(made_by(folder / "deconvolve.toml"), wanted, rtol=1e-5, atol=1e-3)


def test_plans_are_in_rows_and_in_frames(folder):
    shown = detcal(folder, "plan", "build_psf.toml", "--memory", "2GiB").stdout
    assert "1 × 195 rows" in shown
    assert "million" in shown
    change(folder, "deconvolve.toml", '# method = "auto"', 'method = "direct"')
    assert re.search(r"3 × 16 frames, 14.49 MiB in", detcal(folder, "plan", "deconvolve.toml", "--memory", "460MiB").stdout)


def test_noise_that_is_amplified_is_one_line(folder):
    """Rays so flat that the exact solution is of no use."""
    save(
        build_psf(PlanarGeometry(SHAPE, (75e-6, 75e-6), 0.05, (-0.1, 0)), thickness_m=450e-6, material="Si", energy_kev=17.4),
        folder / "flat.zarr",
    )
    change(folder, "deconvolve.toml", '"psf.zarr"', '"flat.zarr"')
    change(folder, "deconvolve.toml", '# method = "auto"', 'method = "direct"')
    for command in ("check", "run"):
        errors = detcal(folder, command, "deconvolve.toml").stderr
        assert re.fullmatch(r'warning: the exact solution amplifies noise \S+ times somewhere: method="auto" .*\n', errors)


# ---------------------------------------------------------------------------------------------------------- memory


def test_building_stays_under_the_plan_and_holds_bands_alone(tmp_path):
    """A matrix three times as large, the same peak; both end where rays are as oblique, so that their largest tiles are as large.

    Of one thread: whether the tiles of several are largest at once is chance in a short run, and in a longer one nearly sure.
    """
    peaks, sizes = [], []
    for rows, poni, threads in ((1000, 0.0125, 1), (3000, 0.1625, 1), (1000, 0.0125, 2)):
        (tmp_path / "build_psf.toml").write_text(f"""
[[steps]]
operation = "build_psf"
geometry = {{ shape = [{rows}, 1000], pixel_size_m = [75e-6, 75e-6], distance_m = 0.1, poni_m = [{poni}, -0.1] }}
thickness_m = 450e-6
material = "Si"
energy_kev = 17.4
tile_rows = 20
[output]
path = "psf.zarr"
""")
        limits = ["--memory", "1GiB", "--workers", str(threads)]
        peak, output = peak_of_run(["run", "build_psf.toml", *limits, "--overwrite"], tmp_path)
        assert_within_plan(peak, output)
        peaks.append(peak)
        sizes.append(load(tmp_path / "psf.zarr").data.nbytes)
    assert sizes[0] > 50 * MIB
    assert_no_growth(peaks, sizes[1] - sizes[0])


@pytest.mark.parametrize("method", ["auto", "direct", "mlem"])
def test_deconvolving_stays_under_the_plan_and_does_not_grow_with_the_frames(tmp_path, method):
    save(
        build_psf(PlanarGeometry((512, 512), (172e-6, 172e-6), 0.2, (0.04, 0.04)), thickness_m=450e-6, material="Si", energy_kev=17.4),
        tmp_path / "psf.zarr",
    )
    (tmp_path / "deconvolve.toml").write_text(render("deconvolve"))
    change(tmp_path, "deconvolve.toml", '# method = "auto"', f'method = "{method}"')
    if method == "mlem":
        change(tmp_path, "deconvolve.toml", "# max_iterations = 20", "max_iterations = 3")
        change(tmp_path, "deconvolve.toml", "# tolerance", "tolerance")
    change(tmp_path, "deconvolve.toml", "# chunk_frames", "chunk_frames")
    image = np.random.default_rng(0).poisson(100, (512, 512))
    peaks = []
    for frames in (240, 480):  # of fewer, it is chance whether all tasks are at their peak together
        with h5py.File(tmp_path / "scan.h5", "w") as file:
            stack = file.create_dataset("data", (frames, 512, 512), np.int32)
            for frame in range(frames):
                stack[frame] = np.roll(image, frame)
        peak, output = peak_of_run(["run", "deconvolve.toml", "--memory", "1GiB", "--workers", "2", "--overwrite"], tmp_path)
        assert_within_plan(peak, output)
        peaks.append(peak)
    assert_no_growth(peaks, 240 * image.size * 4)


@pytest.mark.parametrize(("count", "dtype"), [(1, "i4"), (5, "i4"), (16, "i4"), (40, "i4"), (40, "i8")])
@pytest.mark.parametrize("method", ["auto", "direct", "lsmr", "mlem"])
def test_methods_hold_no_more_than_is_planned(finished, frames, method, count, dtype):
    frames = frames.astype(dtype)
    psf = load(finished / "psf.zarr").compute()
    matrix = psf.in_memory.compute(scheduler="synchronous")
    valid = ALL_NUMBERS
    functions = {
        "auto": lambda block: stopping.auto_frames(block, matrix, valid, 4),
        "direct": lambda block: inversion.solve_frames(block, matrix, valid),
        "lsmr": lambda block: inversion.lsmr_frames(block, matrix, valid, 3, 1e-6),
        "mlem": lambda block: inversion.mlem_frames(block, matrix, valid, 4, 1e-6),
    }
    functions[method](frames[: min(count, 5)])  # which loads the kernels
    tracemalloc.start()
    functions[method](frames[:count])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    held = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes + frames[:count].nbytes
    needs = deconvolve_bytes(SHAPE, count, frames.itemsize, len(matrix.data), method)
    planned = needs.once + needs.task
    assert 0.6 * planned < peak + held < planned


# ------------------------------------------------------------------------------------------------------- bad input


def test_a_recipe_says_the_sensor_that_its_geometry_leaves_open(tmp_path):
    (tmp_path / "detector.poni").write_text(PONI.replace(SENSOR, ""))
    (tmp_path / "build_psf.toml").write_text(render("build_psf"))
    message = "of the sensor of Pilatus 100k is known: Si 320 µm; Si 450 µm; Si 1000 µm: give thickness_m"
    assert fails(tmp_path, "check", "build_psf.toml") == message
    change(tmp_path, "build_psf.toml", "# thickness_m", "thickness_m")
    detcal(tmp_path, "check", "build_psf.toml")


def test_geometries_and_materials_that_there_are_not(folder):
    change(folder, "build_psf.toml", '# material = "Si"', 'material = "Sj"')
    assert fails(folder, "check", "build_psf.toml").startswith("unknown material 'Sj'")
    change(folder, "build_psf.toml", 'material = "Sj"', '# material = "Si"')
    (folder / "no_wavelength.poni").write_text(PONI.replace("Wavelength: 7e-11\n", ""))
    change(folder, "build_psf.toml", '"detector.poni"', '"no_wavelength.poni"')
    assert fails(folder, "plan", "build_psf.toml") == "the geometry has no wavelength: give energy_kev, or attenuation_per_m"
    (folder / "empty.poni").touch()
    change(folder, "build_psf.toml", '"no_wavelength.poni"', '"empty.poni"')
    assert f"cannot read {folder / 'empty.poni'} as a .poni file" in fails(folder, "run", "build_psf.toml")
    change(folder, "build_psf.toml", '"empty.poni"', '"none.poni"')
    assert "steps[0].geometry (line 7): no such file" in fails(folder, "run", "build_psf.toml")


def test_a_mask_of_another_shape(folder):
    save(np.zeros((20, 20), bool), folder / "small.zarr")
    change(folder, "build_psf.toml", '# mask = "mask.edf"', 'mask = "small.zarr"')
    assert fails(folder, "check", "build_psf.toml") == "expected a mask of shape (195, 487) (y, x), as the detector, got (20, 20)"


def test_what_is_no_matrix(folder):
    save(Response.from_gain(np.ones(SHAPE)), folder / "response.zarr")
    change(folder, "deconvolve.toml", '"psf.zarr"', '"response.zarr"')
    message = fails(folder, "check", "deconvolve.toml")
    assert message == f"expected the matrix of a sensor in {folder / 'response.zarr'}, found Response: build_psf writes one"
    change(folder, "deconvolve.toml", '"response.zarr"', '"scan.h5"')
    assert "found no calibration" in fails(folder, "run", "deconvolve.toml")


def test_frames_of_another_shape_and_options_of_another_method(folder):
    save(np.zeros((3, 20, 20), np.int32), folder / "small.h5")
    change(folder, "deconvolve.toml", '"scan.h5"', '"small.h5"')
    assert fails(folder, "check", "deconvolve.toml") == "expected frames of shape (195, 487) (y, x), as the matrix, got (20, 20)"
    change(folder, "deconvolve.toml", '"small.h5"', '"scan.h5"')
    change(folder, "deconvolve.toml", "# max_iterations = 20", "max_iterations = 20")
    change(folder, "deconvolve.toml", '# method = "auto"', 'method = "direct"')
    assert 'max_iterations and tolerance are of "lsmr" and "mlem"' in fails(folder, "check", "deconvolve.toml")


@pytest.mark.parametrize(("name", "inputs"), [("build_psf", ["detector.poni"]), ("deconvolve", ["scan.h5", "psf.zarr"])])
def test_an_output_never_takes_the_place_of_an_input(folder, name, inputs):
    text = (folder / f"{name}.toml").read_text()
    for path in inputs:
        (folder / f"{name}.toml").write_text(re.sub(r'(\[output\]\npath = )"\S+"', rf'\1"{path}"', text))
        assert "would take the place of the input" in fails(folder, "check", f"{name}.toml", "--overwrite")


def test_a_matrix_is_no_image(folder):
    change(folder, "build_psf.toml", '"new.zarr"', '"new.tif"')
    assert "a .tif holds one stack or image" in fails(folder, "check", "build_psf.toml")
