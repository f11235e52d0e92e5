"""A run goes through its blocks in windows, each of them once, in the order of the data."""

from math import ceil
from unittest.mock import patch

import dask.array as da
import numpy as np
from dask.core import flatten
from detcal_pipelines import graph
from detcal_pipelines.graph import Turns
from hypothesis import given
from hypothesis import strategies as st

SHAPES = st.lists(st.integers(1, 5), max_size=3).map(tuple)


@given(shapes=st.lists(SHAPES, min_size=1, max_size=2), window=st.integers(1, 40), data=st.data())
def test_each_block_that_is_not_done_comes_once_and_in_order(shapes: list[tuple[int, ...]], window: int, data: st.DataObject) -> None:
    arrays = {str(number): da.full(shape, number, chunks=1) for number, shape in enumerate(shapes)}
    places = [(name, place) for name, array in arrays.items() for place in np.ndindex(array.shape)]
    done = data.draw(st.sets(st.sampled_from(places)))
    with patch.object(graph, "WINDOW_BLOCKS", window):
        turns = Turns(arrays, done)
        found = list(turns)
    assert turns.sizes() == [len(ends) for ends in found]
    assert len(found) <= ceil(max(array.npartitions for array in arrays.values()) / window)
    assert all(found)
    for name, array in arrays.items():
        wanted = [(name, key[1:]) for key in flatten(array.__dask_keys__()) if (name, key[1:]) not in done]
        assert [block for ends in found for block in ends.values() if block[0] == name] == wanted
    assert all(key[0] == arrays[name].name and key[1:] == place for ends in found for key, (name, place) in ends.items())
