"""What a store of detcal says of itself has a checksum: damage is found whenever it is opened, and changes that others make are none."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from detcal import get_array, load, open_frames, save
from detcal.errors import InputError
from detcal.response import Response
from detcal.stores.sources.zarr_data import check_metadata
from tests.stores.losses import STACK


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return save(Response.from_gain(np.linspace(0.5, 1.5, 80).reshape(8, 10), sigma=12.5), tmp_path / "response.zarr")


@pytest.mark.parametrize("name", ["zarr.json", "gain/zarr.json"])
def test_a_flipped_bit_is_found(store: Path, name: str) -> None:
    """Each bit but those of spaces between the words, which say nothing."""
    content, chance = (store / name).read_bytes(), random.Random(5)
    whole = json.loads(content)
    for _ in range(60):
        place, bit = chance.randrange(len(content)), 1 << chance.randrange(8)
        damaged = bytearray(content)
        damaged[place] ^= bit
        (store / name).write_bytes(damaged)
        if is_json(damaged) and json.loads(damaged) == whole:
            continue
        with pytest.raises(InputError, match=r"response\.zarr") as caught:
            check_metadata(str(store), "gain")
        assert "\n" not in str(caught.value)


def is_json(content: bytearray) -> bool:
    try:
        json.loads(content)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "read",
    [load, lambda path: open_frames(path, "gain"), lambda path: get_array(path, "gain")],
    ids=["load", "open_frames", "get_array"],
)
def test_a_digit_that_is_another_is_told_however_it_is_read(tmp_path: Path, read: Any) -> None:
    path = save(Response.from_gain(np.ones((8, 10)), sigma=12.5), tmp_path / "response.zarr")
    text = (path / "zarr.json").read_text()
    assert "12.5" in text
    (path / "zarr.json").write_text(text.replace("12.5", "52.5"))
    with pytest.raises(InputError, match=r"response\.zarr is damaged: its zarr\.json is not as it was written; copy or write it again$"):
        read(path)


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_metadata_of_an_array_that_say_something_else_are_refused_until_the_store_says_so_too(store: Path) -> None:
    zarr.open_array(store / "gain", mode="r+").attrs["comment"] = "of last week"
    with pytest.raises(InputError, match=r"gain/zarr\.json does not say what the store says of gain; .*zarr\.consolidate_metadata"):
        load(store)
    zarr.consolidate_metadata(store)
    assert load(store).gain.attrs["comment"] == "of last week"


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_what_zarr_and_xarray_write_anew_is_no_damage(tmp_path: Path) -> None:
    path = save(xr.DataArray(STACK, dims=("frame", "y", "x"), name="frames"), tmp_path / "a.zarr")
    xr.open_zarr(path).to_zarr(tmp_path / "b.zarr")
    zarr.open_group(path, mode="r+").attrs["comment"] = "of last week"
    for store in (path, tmp_path / "b.zarr"):
        np.testing.assert_array_equal(open_frames(store).values, STACK)
        assert "detcal_checksum" not in (store / "zarr.json").read_text()
