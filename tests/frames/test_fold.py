"""Sums over the blocks of a stack: what is held at a time, and in what order it is added."""

from threading import Barrier, Lock
from time import sleep

import dask
import dask.array as da
import numpy as np
import pytest

from detcal.frames.graph import FRAMES_A_PART, fold_blocks


@pytest.mark.parametrize("held_up", [0, 2])
def test_partial_sums_do_not_pile_up_behind_one_that_is_held_up(held_up):
    """At most so many are begun and not merged: here the task of one block waits until the others can go no further."""
    held, most, lock = set(), [0], Lock()

    def add(so_far, block):
        number = int(block[0, 0, 0])
        with lock:
            held.add(number)
            most[0] = max(most[0], len(held))
        if number == held_up:
            sleep(0.3)
        return {number}

    def merge(total, part):
        with lock:
            held.difference_update(part, total)
        return total | part

    blocks = da.arange(40, chunks=1).reshape(40, 1, 1) * da.ones((1, FRAMES_A_PART, 1), chunks=-1)
    frames = da.map_blocks(
        lambda block: block.reshape(FRAMES_A_PART, 1, 1), blocks, chunks=((FRAMES_A_PART,) * 40, (1,), (1,)), dtype=float
    )
    with dask.config.set(scheduler="threads", num_workers=8):
        total = fold_blocks(frames, add, merge, partial_sums=3).compute()
    assert total == set(range(40))
    assert most[0] <= 4  # three, and the total while the first of them is added to it


def test_a_short_stack_is_summed_on_several_threads():
    """Its four blocks are begun together: each waits for the others, and would wait for ever in one chain."""
    together = Barrier(4)

    def add(so_far, block):
        together.wait(timeout=10)
        return (so_far or 0) + block.sum()

    with dask.config.set(scheduler="threads", num_workers=4):
        assert fold_blocks(da.ones((8, 1, 1), chunks=(2, 1, 1)), add, np.add, partial_sums=4).compute() == 8
