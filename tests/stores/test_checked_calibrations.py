"""Calibrations that were saved as HDF5 have checksums: a bit that is flipped is an error, never another number."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

import detcal
from detcal.errors import InputError
from detcal.response import Response


@pytest.mark.parametrize("suffix", ["h5", "nxs"])
def test_each_flipped_bit_of_its_numbers_is_an_error(tmp_path: Path, suffix: str) -> None:
    random = np.random.default_rng(5)
    gain = random.normal(1, 0.02, (60, 70))
    path = detcal.save(Response.from_gain(gain), tmp_path / f"response.{suffix}")
    np.testing.assert_array_equal(detcal.load(path).gain, gain.astype(detcal.load(path).gain.dtype))
    with h5py.File(path) as file:
        stored = file["entry/gain/gain"]
        chunks = [stored.id.get_chunk_info(number) for number in range(stored.id.get_num_chunks())]
    whole = path.read_bytes()
    for _ in range(20):
        chunk = chunks[random.integers(len(chunks))]
        flipped = bytearray(whole)
        flipped[chunk.byte_offset + random.integers(chunk.size)] ^= 1 << random.integers(8)
        path.write_bytes(flipped)
        with pytest.raises(InputError, match=r"response\.(h5|nxs)"):
            np.asarray(detcal.load(path).gain)


def test_frames_have_none_which_would_take_more_than_twice_as_long_to_write(tmp_path: Path) -> None:
    frames = xr.DataArray(np.ones((2, 4, 5), np.float32), dims=("frame", "y", "x"), name="frames")
    with h5py.File(detcal.save(frames, tmp_path / "frames.h5")) as file:
        assert not file["entry/frames/frames"].fletcher32
