"""Plans: a pure function of shapes and limits, which refuses what does not fit before the first task."""

import re

import h5py
import numpy as np
import pytest
from detcal_pipelines.plan import Plan, plan, size
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.template import render

from detcal.errors import PlanError

GIB = 2**30


@pytest.fixture
def folder(tmp_path):
    """Headers of files that would be large: HDF5 allocates nothing before it is written."""
    for name, frames in (("sweep", 1000), ("ct", 20000), ("dark", 5), ("flat", 5)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("entry/data/data", (frames, 2048, 2048), np.uint16, chunks=(1, 2048, 2048))
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
    assert found.workers == 2
    assert found.bytes_in == 1000 * 2048**2 * 2
    assert found.bytes_out == 2048**2 * (4 * 4 + 4 + 1)
    assert found.blocks * found.chunk_frames >= 1000
    assert found.steps[0].task_bytes > 2 * 7 * 8 * 2048**2  # at least the sums that come in and go out


def test_less_memory_means_smaller_blocks_then_fewer_workers(folder):
    budget, found = 8 * GIB, []
    while True:
        try:
            each = planned(folder, "fit_response", budget)
        except PlanError:
            break
        found.append((each.workers, each.chunk_frames))
        budget = each.peak_bytes - 1
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1][0]) == ((2, 8), 1)
    assert {chunk for workers, chunk in found if workers == 2} >= {8, 4}


def test_peak_does_not_depend_on_the_number_of_frames(folder):
    with h5py.File(folder / "ct.h5", "a") as file:
        del file["entry/data/data"]
        file.create_dataset("entry/data/data", (40000, 2048, 2048), np.uint16, chunks=(1, 2048, 2048))
    more = planned_correction(folder)
    with h5py.File(folder / "ct.h5", "a") as file:
        del file["entry/data/data"]
        file.create_dataset("entry/data/data", (20000, 2048, 2048), np.uint16, chunks=(1, 2048, 2048))
    assert planned_correction(folder).peak_bytes == more.peak_bytes


def test_dark_frames_that_lie_in_one_deep_chunk_are_planned_for(folder):
    shallow = planned(folder, "fit_response", 8 * GIB, workers=1)
    with h5py.File(folder / "dark.h5", "w") as file:
        file.create_dataset("entry/data/data", (256, 2048, 2048), np.uint16, chunks=(256, 2048, 2048))
    deep = planned(folder, "fit_response", 8 * GIB, workers=1)
    assert deep.peak_bytes > shallow.peak_bytes + 256 * 2048**2 * 2


def test_a_shard_is_the_block_of_a_task(folder):
    changes = [('"response.zarr"', '{ path = "flat.h5" }'), ("# shard_frames = 64 ", "shard_frames = 12 ")]
    assert planned(folder, "correct_response", 8 * GIB, text_changes=changes).chunk_frames == 12


def planned_correction(folder) -> Plan:
    return planned(folder, "correct_response", 4 * GIB, text_changes=[('"response.zarr"', '{ path = "flat.h5" }')])


def test_what_cannot_fit_is_refused_with_the_least_that_would(folder):
    with pytest.raises(
        PlanError, match=r"fit_response needs .* but the budget is 512 MiB: the least is .* chunk_frames = 1 and 1 worker"
    ) as caught:
        planned(folder, "fit_response", GIB // 2)
    least, unit = re.search(r"the least is ([\d.]+) (\w+),", str(caught.value)).groups()
    assert planned(folder, "fit_response", int(float(least) * {"MiB": 2**20, "GiB": GIB}[unit]) + 2**20).workers == 1


def test_a_chunk_that_cannot_fit_is_refused_with_one_that_would(folder):
    chunk = [("# chunk_frames = 16 ", "chunk_frames = 500 ")]
    with pytest.raises(PlanError, match=r"chunk_frames = 500 .* chunk_frames = (\d+) would fit") as caught:
        planned(folder, "fit_response", 2 * GIB, text_changes=chunk)
    fits = int(re.search(r"= (\d+) would fit", str(caught.value))[1])
    assert planned(folder, "fit_response", 2 * GIB, text_changes=[(chunk[0][0], f"chunk_frames = {fits} ")]).chunk_frames == fits
    with pytest.raises(PlanError):
        planned(folder, "fit_response", 2 * GIB, text_changes=[(chunk[0][0], f"chunk_frames = {fits + 1} ")])


def test_sizes_are_for_people():
    assert [size(n) for n in (0, 1023, 2**20, 1536 * 2**20, 2**50)] == ["0 B", "1023 B", "1 MiB", "1.5 GiB", "1024 TiB"]
