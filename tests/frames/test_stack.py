"""Stacks that lie in memory: copied as they are given, and cut so that threads have the same to do."""

import dask
import numpy as np
import pytest
import xarray as xr

from detcal.frames import stack
from detcal.frames.stack import as_stack, threads_a_block


@pytest.mark.parametrize("least", [0, 2**40], ids=["by threads", "at once"])
@pytest.mark.parametrize("length", [1, 2, 7])
@pytest.mark.parametrize("form", [lambda a: a, lambda a: a[:, ::2, ::-1], lambda a: a.transpose(0, 2, 1), lambda a: a.astype(">u2")])
def test_frames_are_those_that_were_given_whatever_their_array_holds_later(form, length, least, monkeypatch):
    """As a detector's buffer is filled anew before the first frames are averaged."""
    monkeypatch.setattr(stack, "THREADED_BYTES", least)
    buffer = np.random.default_rng(0).integers(0, 2**16, (length, 31, 17), np.uint16)
    given = form(buffer)
    wanted = given.copy()
    found = as_stack(given, shared_out=True)
    given[:] = 0
    np.testing.assert_array_equal(found.values, wanted)
    assert found.dtype == np.uint16
    assert found.dtype.isnative


def test_half_precision_becomes_what_kernels_take():
    values = np.float16([[[1.5, np.nan], [-np.inf, 6e4]]])
    found = as_stack(xr.DataArray(values, dims=("frame", "y", "x"), attrs={"units": "counts"}))
    assert found.data.dtype == found.values.dtype == np.float32
    np.testing.assert_array_equal(found.values, values)
    assert found.attrs == {"units": "counts"}


@pytest.mark.parametrize(
    ("length", "threads", "blocks"),
    [(16, 2, (4, 4, 4, 4)), (11, 2, (3, 3, 3, 2)), (10, 2, (5, 5)), (16, 8, (2,) * 8), (3, 2, (2, 1)), (1, 2, (1,)), (21, 4, (3,) * 7)],
)
def test_threads_have_as_many_frames_of_a_stack_that_lies_in_memory(length, threads, blocks, monkeypatch):
    monkeypatch.setattr(stack, "SHARED_BYTES", 5 * 24)  # five frames
    with dask.config.set(num_workers=threads):
        assert as_stack(np.zeros((length, 3, 4), np.uint16), shared_out=True).data.chunks[0] == blocks


def test_threads_without_a_block_help_with_those_of_others_if_the_stack_lay_in_memory(monkeypatch):
    monkeypatch.setattr(stack, "CPU_COUNT", 8)
    frames = np.zeros((3, 3, 4), np.uint16)
    with dask.config.set(num_workers=8):
        found = as_stack(frames, shared_out=True)
        assert found.data.numblocks[0] == 3
        assert threads_a_block(found, frames) == threads_a_block(found, xr.DataArray(frames)) == 2
        assert threads_a_block(found, found) == threads_a_block(found, found.data) == 1
    with dask.config.set(num_workers=2):
        assert threads_a_block(found, frames) == 1
