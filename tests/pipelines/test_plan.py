"""Plans: a pure function of shapes and limits, which refuses what does not fit before the first task."""

import re
from dataclasses import replace

import numpy as np
import pyFAI
import pytest
from detcal_pipelines.chain import build
from detcal_pipelines.display import TOO_MUCH
from detcal_pipelines.plan import PROCESS_BYTES, Plan, plan, size
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.template import render

from detcal import save
from detcal.errors import PlanError
from detcal.sensor import PlanarGeometry, build_psf
from detcal.sensor.matrix import BAND_PIXELS
from detcal.sensor.memory import build_psf_bytes
from detcal.sensor.operations import METHODS
from tests.reference.sparse import allocate

MIB, GIB = 2**20, 2**30


@pytest.fixture
def folder(tmp_path):
    """Files that would be large."""
    for name, frames in (("sweep", 1000), ("ct", 20000), ("dark", 5), ("flat", 5)):
        allocate(tmp_path / f"{name}.h5", (frames, 2048, 2048), np.uint16)
    np.save(tmp_path / "gain.npy", np.ones((2048, 2048), np.float32))
    return tmp_path


def planned(folder, name, budget, workers=2, text_changes=()) -> Plan:
    text = render(name)
    for old, new in text_changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "recipe.toml").write_text(text)
    return plan(read_recipe(folder / "recipe.toml"), budget, workers)


def test_plan_of_a_fit(folder):
    found = planned(folder, "fit_response", 8 * GIB)
    assert found.peak_bytes <= 8 * GIB
    assert found.tasks == 2
    assert found.bytes_in == 1000 * 2048**2 * 2
    assert found.bytes_out == 2048**2 * (4 * 4 + 2 * 4 + 2 * 1)  # four images, two counts, mask and reasons
    assert found.blocks * found.depth >= 1000
    assert found.peak_bytes - PROCESS_BYTES > 4 * 7 * 8 * 2048**2  # a partial sum of each task, one that waits, and the total


def test_any_number_of_workers_is_planned_at_once(folder):
    """No more than there are blocks are looked at: those of a slip of the finger took minutes and all memory."""
    found = planned(folder, "fit_response", 1000 * GIB, workers=10**9)
    assert 2 < found.tasks <= found.blocks <= 1000


def test_less_memory_means_smaller_blocks_then_fewer_workers(folder):
    budget, found = 8 * GIB, []
    while True:
        try:
            each = planned(folder, "fit_response", budget)
        except PlanError:
            break
        found.append((each.tasks, each.depth))
        budget = each.peak_bytes - 1
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1][0]) == ((2, 4), 1)
    assert {chunk for workers, chunk in found if workers == 2} >= {4, 2}


def test_peak_does_not_depend_on_the_number_of_frames(folder):
    peak = planned_correction(folder).peak_bytes
    allocate(folder / "ct.h5", (40000, 2048, 2048), np.uint16)
    assert planned_correction(folder).peak_bytes == peak


def test_dark_frames_that_lie_in_one_deep_chunk_are_planned_for(folder):
    shallow = planned(folder, "fit_response", 8 * GIB, workers=1)
    allocate(folder / "dark.h5", (256, 2048, 2048), np.uint16, chunks=(256, 2048, 2048))
    deep = planned(folder, "fit_response", 8 * GIB, workers=1)
    assert deep.peak_bytes > shallow.peak_bytes + 256 * 2048**2 * 2


def test_a_shard_is_the_block_of_a_task(folder):
    changes = [('"response.zarr"', '"gain.npy"'), ("# shard_frames = 64 ", "shard_frames = 12 ")]
    assert planned(folder, "correct_response", 8 * GIB, text_changes=changes).depth == 12


def test_rounding_takes_a_copy_of_each_block(folder):
    exact, rounded = (planned_correction(folder, *changes) for changes in ((), [("# precision", "precision")]))
    assert (exact.depth, exact.tasks) == (rounded.depth, rounded.tasks)
    assert rounded.steps[-1].needs.task - exact.steps[-1].needs.task == rounded.depth * 2048**2 * 4


def planned_correction(folder, *changes) -> Plan:
    return planned(folder, "correct_response", 4 * GIB, text_changes=[('"response.zarr"', '"gain.npy"'), *changes])


def test_what_cannot_fit_is_refused_with_the_least_that_would(folder):
    with pytest.raises(
        PlanError, match=r"fit_response needs .* but the budget is 512 MiB: the least is .* chunk_frames = 1 and 1 task at once"
    ) as caught:
        planned(folder, "fit_response", GIB // 2)
    least, unit = re.search(r"the least is ([\d.]+) (\w+),", str(caught.value)).groups()
    assert planned(folder, "fit_response", int(float(least) * {"MiB": 2**20, "GiB": GIB}[unit]) + 2**20).tasks == 1


def test_a_chunk_that_cannot_fit_is_refused_with_one_that_would(folder):
    chunk = [("# chunk_frames = 16 ", "chunk_frames = 500 ")]
    with pytest.raises(PlanError, match=r"chunk_frames = 500 .* chunk_frames = (\d+) would fit") as caught:
        planned(folder, "fit_response", 2 * GIB, text_changes=chunk)
    fits = int(re.search(r"= (\d+) would fit", str(caught.value))[1])
    assert planned(folder, "fit_response", 2 * GIB, text_changes=[(chunk[0][0], f"chunk_frames = {fits} ")]).depth == fits
    with pytest.raises(PlanError):
        planned(folder, "fit_response", 2 * GIB, text_changes=[(chunk[0][0], f"chunk_frames = {fits + 1} ")])


def test_more_files_than_the_process_may_open_are_refused(folder, monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda kind: (64, 1024))
    assert planned_correction(folder).files == 64
    with pytest.raises(PlanError, match=r"opens up to 72 files at once, and this process may open 64: allow more by ulimit -n 72"):
        planned(folder, "correct_response", 8 * GIB, workers=3, text_changes=[('"response.zarr"', '"gain.npy"')])


# ---------------------------------------------------------------------------------------------------------- sensor


@pytest.fixture
def thick(tmp_path):
    """A recipe of a large detector, the matrix of a small one, and headers of its frames."""
    large = "{ shape = [2162, 2068], pixel_size_m = [75e-6, 75e-6], distance_m = 0.1, poni_m = [0.08, 0.08] }"
    (tmp_path / "detector.poni").touch()
    text = render("build_psf").replace('"detector.poni"', large)
    for key in ("thickness_m", "material", "energy_kev"):
        text = text.replace(f"# {key} =", f"{key} =")
    (tmp_path / "build_psf.toml").write_text(text)
    psf = build_psf(PlanarGeometry((300, 400), (75e-6, 75e-6), 0.1, (0.01, 0.01)), thickness_m=450e-6, material="Si", energy_kev=17.4)
    save(psf, tmp_path / "psf.zarr")
    allocate(tmp_path / "scan.h5", (1000, 300, 400), np.int32)
    return tmp_path


def planned_matrix(folder, budget, workers=2, **changes) -> Plan:
    return plan(read_recipe(folder / "build_psf.toml", changes), budget, workers)


def test_plan_of_a_matrix(thick):
    roomy = planned_matrix(thick, 8 * GIB)
    tight = planned_matrix(thick, roomy.peak_bytes - 1)
    assert roomy.tasks == tight.tasks == 2
    assert roomy.depth == BAND_PIXELS // 2068
    assert tight.depth < roomy.depth
    assert tight.peak_bytes < roomy.peak_bytes
    assert tight.bytes_out == roomy.bytes_out > 8 * 5 * 2162 * 2068
    assert tight.blocks * tight.depth >= 2162


def test_the_largest_band_is_planned_for(thick):
    """No band that the run builds has more coefficients than the plan counts with."""
    found = planned_matrix(thick, 870 * MIB)
    psf = build(read_recipe(thick / "build_psf.toml"), found.depth)
    pixels = found.depth * 2068
    assert build_psf_bytes(pixels, max(psf.data.chunks[0])).task <= 1.02 * found.steps[0].needs.task


def test_bands_that_cannot_fit_are_refused_with_some_that_would(thick):
    text = (thick / "build_psf.toml").read_text()
    (thick / "build_psf.toml").write_text(text.replace("# tile_rows = 64 ", "tile_rows = 2000 "))
    with pytest.raises(PlanError, match=r"tile_rows = 2000 and 1 task at once, .* tile_rows = (\d+) would fit") as caught:
        planned_matrix(thick, GIB)
    fits = re.search(r"= (\d+) would fit", str(caught.value))[1]
    (thick / "build_psf.toml").write_text(text.replace("# tile_rows = 64 ", f"tile_rows = {fits} "))
    assert planned_matrix(thick, GIB).depth == int(fits)


def test_lanes_are_filled_before_workers_are_added(thick):
    """Two tasks of eight frames, which would fit too, are no faster than one of sixteen."""
    direct = [('# method = "auto"', 'method = "direct"')]
    found = {budget: planned(thick, "deconvolve", budget * MIB, text_changes=direct) for budget in (476, 500, 816, 2016)}
    assert [each.tasks for each in found.values()] == [1, 1, 2, 2]
    assert all(each.depth % 16 == 0 for each in found.values())
    for budget, each in found.items():
        assert each.peak_bytes <= budget * MIB


def test_rings_go_to_two_workers_before_lanes_are_filled(tmp_path):
    """Rings of one frame fill them nearly as well as frames do: two tasks of a frame are faster than one of sixteen."""
    pyFAI.load({"detector": "Pilatus1M", "distance": 0.2, "poni1": 0.09, "poni2": 0.08, "wavelength": 1e-10}).save(
        tmp_path / "detector.poni"
    )
    allocate(tmp_path / "scan.h5", (1000, 1043, 981), np.int32)
    roomy = planned(tmp_path, "sigma_clip", 4 * GIB)
    assert (roomy.tasks, roomy.depth) == (2, 16)
    one_of_sixteen = replace(roomy, tasks=1).peak_bytes
    tight = planned(tmp_path, "sigma_clip", one_of_sixteen)
    assert tight.tasks == 2
    assert 1 <= tight.depth < 16
    assert tight.peak_bytes <= one_of_sixteen


def test_methods_cost_what_they_hold(thick):
    method = '# method = "auto"', 'method = "{}"'
    peaks = {name: planned(thick, "deconvolve", 8 * GIB, text_changes=[(method[0], method[1].format(name))]).peak_bytes for name in METHODS}
    assert peaks.pop("direct") < min(peaks.values())


def test_sizes_are_for_people():
    assert [size(n) for n in (0, 1023, 2**20, 1536 * 2**20, 2**50)] == ["0 B", "1023 B", "1 MiB", "1.5 GiB", "1024 TiB"]


# --------------------------------------------------------------------------------------------------------- pictures


def test_a_plan_shows_itself_as_its_steps_and_the_budget(folder):
    found = planned_correction(folder)
    shown = found._repr_html_()
    assert "<td style='text-align:left'>correct_response</td><td style='text-align:left'>(20000, 2048, 2048) uint16</td>" in shown
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", shown)]
    assert widths[0] == pytest.approx(100 * PROCESS_BYTES / (4 * GIB), abs=0.1)
    assert sum(widths) == pytest.approx(100 * found.peak_bytes / (4 * GIB), abs=0.2)
    assert f"2 tasks at once: peak {size(found.peak_bytes)} of 4 GiB" in shown
    too_large = replace(found, places=(replace(found.places[0], limit=found.peak_bytes - 1),))._repr_html_()
    assert [TOO_MUCH in each for each in (shown, too_large)] == [False, True]


def test_the_picture_of_a_plan_has_no_text_that_is_taken_for_tags(folder):
    found = planned_correction(folder)
    named = replace(found, steps=(replace(found.steps[0], gives="<b>"),))._repr_html_()
    assert "&lt;b&gt;" in named
    assert "<b>" not in named


def test_what_is_known_of_each_of_a_million_blocks_is_counted(folder):
    peaks = []
    for frames in (1000, 1_000_000):
        allocate(folder / "ct.h5", (frames, 8, 8), np.uint16)
        for name in ("dark", "flat"):
            allocate(folder / f"{name}.h5", (1, 8, 8), np.uint16)
        np.save(folder / "gain.npy", np.ones((8, 8), np.float32))
        peaks.append(planned_correction(folder, ("# chunk_frames = 16", "chunk_frames = 1")).peak_bytes)
    assert 4e8 < peaks[1] - peaks[0] < 8e8
