"""Chains of steps: bit for bit what the steps give one by one, with a file between them."""

import re
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.chain import build
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.steps.registry import find_step, step_names
from detcal_pipelines.steps.step import arrays_of
from detcal_pipelines.template import render

from detcal import save
from detcal.errors import DetcalError
from tests.pipelines.inputs import write_inputs
from tests.pipelines.packages import found_in, install

SIDE, FRAMES, DEPTH = 48, 12, 4
# Those that give frames
FIRST = ("correct_response", "remove_zingers", "deconvolve", "correct_distortion", "uncorrect", "radial_background", "subtract_background")
HEAD = "[[steps]]\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Calibrations, a mask, and frames with flagged numbers, and with NaN."""
    place = tmp_path_factory.mktemp("chains")
    write_inputs(place, SIDE, FRAMES, 6)
    rng = np.random.default_rng(0)
    counts = rng.poisson(200, (FRAMES, SIDE, SIDE))
    flagged, unknown = counts.astype(np.uint32), counts.astype(np.float32)
    places = tuple(rng.integers(size, size=200) for size in counts.shape)
    flagged[places], unknown[places] = 2**32 - 1, np.nan
    save(flagged, place / "flagged.h5")
    save(unknown, place / "unknown.zarr")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20:22, 7:30] = 1
    save(mask, place / "mask.h5")
    save(rng.uniform(0, 20, (SIDE, SIDE)).astype(np.float32), place / "background.h5")
    with found_in(install(tmp_path_factory.mktemp("installed"))):
        yield place


def step_of(name: str) -> str:
    """A step with the keys that it must have."""
    return HEAD + render(name).split(HEAD)[1].split("# Where the result goes.")[0].replace("grid.edf", "grid.h5")


def built(folder, frames: str, *steps: str, mask: bool = False) -> Any:
    """What steps make of a file, computed; or the error that they raise."""
    text = f'[input]\npath = "{frames}"\n' + 'mask = "mask.h5"\n' * mask + "".join(map(step_of, steps)) + '[output]\npath = "out.zarr"\n'
    (folder / "recipe.toml").write_text(text)
    try:
        return computed(build(read_recipe(folder / "recipe.toml"), DEPTH, 2))
    except DetcalError as error:
        return f"{type(error).__name__}: {error}"


def computed(result: Any) -> Any:
    if isinstance(result, xr.DataArray | xr.Dataset):
        return result.compute()
    return [np.asarray(array) for array in dask.compute(*arrays_of(result))]


def assert_same(found: Any, wanted: Any) -> None:
    if isinstance(wanted, xr.DataArray):
        found, wanted = found.to_dataset(name="frames"), wanted.to_dataset(name="frames")
    if isinstance(wanted, xr.Dataset):
        assert set(found) == set(wanted)
        found, wanted = ([each[name].values for name in wanted] for each in (found, wanted))
    if isinstance(wanted, str):
        assert found == wanted
        return
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def takers(folder) -> list[str]:
    return [name for name in step_names() if find_step(name).takes == "frames"]


@pytest.mark.parametrize("frames", ["flagged.h5", "unknown.zarr"])
@pytest.mark.parametrize("first", FIRST)
def test_a_chain_gives_what_its_steps_give_one_by_one(folder, first, frames):
    stored = folder / f"between_{first}.zarr"
    between = built(folder, frames, first, mask=True)
    assert between.isnull().any()
    assert not between.isnull().all()
    save(between.chunk({"frame": DEPTH}), stored, overwrite=True)
    given = 0
    for second in takers(folder):
        wanted = built(folder, stored.name, second)
        assert_same(built(folder, frames, first, second, mask=True), wanted)
        given += not isinstance(wanted, str)
    assert given >= 6  # the others refuse what was corrected already, or find no dots


def test_all_steps_that_give_frames_are_tried_first(folder):
    gives = [name for name in takers(folder) if find_step(name).model_construct(operation=name).gives == "frames"]
    assert sorted(gives) == sorted([*FIRST, "minus_log", "crop", "rebin"])  # these take no counts, or give frames that others do not fit
    assert all(re.search(rf'operation = "{name}"', step_of(name)) for name in gives)
