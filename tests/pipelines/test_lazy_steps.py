"""Building the graph of a step reads nothing: every step over frames, images and scans that raise when they are read."""

from dataclasses import replace
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.chain import open_first, prepared
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.steps import sources
from detcal_pipelines.steps.registry import own_steps

from detcal import open_frames, save
from tests.frames.test_lazy import ReadTooEarly, never
from tests.pipelines.inputs import write_inputs

SIDE, GRID_SIDE = 48, 256
VARIANCE = 'variance = "raw.h5"\n'
MORE = {  # files beside the frames
    **dict.fromkeys(("integrate", "integrate_azimuthal", "sigma_clip", "outlier_mask", "find_hot_pixels", "deconvolve"), VARIANCE),
    "fit_response": 'mask = "mask.h5"\n',
    "fit_distortion": 'mask = "grid_mask.h5"\n',
    "regrid_xrf": 'elements = ["Fe"]\n',
}
MASK = never(SIDE, SIDE, dtype=np.bool_)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recipes with all the files that they can name."""
    place = tmp_path_factory.mktemp("lazy")
    write_inputs(place, SIDE, 12, 6)
    for name, side in (("mask", SIDE), ("grid_mask", GRID_SIDE)):
        save(np.eye(side, dtype=np.uint8), place / f"{name}.h5")
    for recipe in place.glob("*.toml"):
        text = recipe.read_text().replace("[output]", MORE.get(recipe.stem, "") + "[output]")
        recipe.write_text(text.replace("variance = 'poisson'\n", VARIANCE))
    return place


def unreadable(data: Any) -> Any:
    """The same frames or scan, which nobody may read."""
    if isinstance(data, xr.Dataset):
        return data.assign(spectra=unreadable(data.spectra))
    return None if data is None else data.copy(data=never(*data.shape, dtype=data.dtype, chunks=data.data.chunksize))


def compute(result: Any) -> Any:
    """All that it holds."""
    return result.compute() if dask.is_dask_collection(result) else dask.compute(vars(replace(result)))


@pytest.mark.parametrize("name", own_steps())
def test_nothing_is_read_while_a_step_is_built(folder, monkeypatch, name):
    recipe = read_recipe(folder / f"{name}.toml")
    data = unreadable(open_first(recipe, None))
    step = recipe.steps[0].for_data(data)
    ready = {"mask": MASK} if data is None else prepared(step)
    monkeypatch.setattr(sources, "open_frames", lambda *path, **options: unreadable(open_frames(*path, **options)))
    with dask.config.set(scheduler="synchronous"):
        result = step.in_blocks(4, 2).build(data, ready)
        with pytest.raises(ReadTooEarly):
            compute(result)
