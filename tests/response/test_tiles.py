"""Sums of a fit in tiles of the detector: what they give is what one tile gives, bit for bit."""

import dask
import dask.array as da
import numpy as np
import pytest
from dask.delayed import delayed
from detcal_pipelines.sums import Fold, read_sums, saved, share_saved, with_saved

from detcal import simulate
from detcal.frames.graph import FOLD, MERGED, TOTAL, fold_tiles
from detcal.response import defects, fit_response, solving

SHAPE = (200, 90)
NAMES = ("gain", "offset", "gain_error", "r_squared", "frames_used", "frames_saturated", "reasons", "mask")


@pytest.fixture(scope="module")
def sweep():
    """With pixels of all kinds, most of them near the edges of tiles of 64 rows."""
    rng = np.random.default_rng(5)
    frames = simulate.beam_sweep(simulate.detector(SHAPE), 24).compute().values
    rows, columns = rng.integers(56, 136, 60), rng.integers(0, 90, 60)
    frames[:, rows[:20], columns[:20]] = frames[:, rows[:20], columns[:20]] * np.linspace(1, 0.7, 24)[:, None]  # nonlinear
    frames[::3, rows[20:40], columns[20:40]] //= 2  # blinking
    frames[:, rows[40:50], columns[40:50]] = 0
    frames[:, rows[50:], columns[50:]] = 5000
    return frames


def fitted(sweep, monkeypatch, tile_pixels, **options):
    monkeypatch.setattr(solving, "TILE_PIXELS", tile_pixels)
    return fit_response(da.from_array(sweep, chunks=(5, -1, -1), name=False), sigma=9.0, **options).compute()


@pytest.mark.parametrize("options", [{}, {"order": 2}, {"intercept": True}])
def test_tiles_do_not_matter(sweep, monkeypatch, options):
    whole = fitted(sweep, monkeypatch, 10**9, **options)
    cut = fitted(sweep, monkeypatch, 50 * 90, **options)
    assert (whole.reasons & 0b100000).any()
    for name in NAMES:
        np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name), err_msg=name)


def test_neighbours_of_a_pixel_may_be_in_other_tiles():
    """Tiles of any whole number of squares, and what is left of the detector."""
    rng = np.random.default_rng(7)
    values, reasons = rng.normal(0, 3, SHAPE).astype(np.float32), (rng.random(SHAPE) < 0.02).astype(np.uint8)
    values += np.arange(SHAPE[0], dtype=np.float32)[:, None]
    whole = defects.against_neighbours((None, values, None), (None, reasons, None), 1.0)
    for rows in (64, 128, 192):
        tops = range(0, SHAPE[0], rows)
        cut = [[image[top : top + rows] for top in tops] for image in (values, reasons)]
        beside = [list(zip([None, *tiles], tiles, [*tiles[1:], None], strict=False)) for tiles in cut]
        found = [defects.against_neighbours(*each, 1.0) for each in zip(*beside, strict=True)]
        np.testing.assert_array_equal(np.concatenate(found), whole)


def test_tiles_are_chunks_of_the_images(sweep, monkeypatch):
    """Nothing is put together before it is written."""
    monkeypatch.setattr(solving, "TILE_PIXELS", 50 * 90)
    found = fit_response(sweep, sigma=9.0)
    assert found.gain.chunks == found.mask.chunks == ((64, 64, 64, 8), (90,))


def test_what_is_usable_is_counted_over_all_tiles(sweep, monkeypatch):
    """Rows that are never lit are bad, and no error, although nothing in their tile is usable."""
    dark = np.where(np.arange(200)[:, None] < 128, sweep, 0)
    found = fitted(dark, monkeypatch, 50 * 90, truncate=1.0)
    assert found.mask[140:].all()
    assert not found.mask[:50].all()


@pytest.mark.parametrize(
    ("shape", "tiles"), [((1024, 1024), 1), ((1030, 1065), 1), ((64, 30000), 1), ((2048, 2048), 4), ((4096, 4096), 16)]
)
def test_small_detectors_are_one_tile(shape, tiles):
    assert solving.count_tiles(shape) == tiles
    assert solving.rows_a_tile(shape) % defects.SQUARE == 0


def count_of(block_numbers, so_far, block, shared):
    """Sums of three rows, which note whose block they are of."""
    block_numbers.append(int(block[0, 0, 0]))
    return tuple((0 if so_far is None else so_far[tile]) + block[:, tile].sum(axis=0) for tile in range(3))


def numbered(parts, frames=16):
    """A stack of as many blocks as parts, each filled with its number."""
    return da.concatenate([da.full((frames, 3, 2), number, chunks=(frames, 3, 2)) for number in range(parts)])


def test_tiles_that_were_merged_before_are_not_read_again():
    """Of 12 parts 7 are merged in one tile, and 6 in the others: five blocks are read, and one more for those."""
    read, parts = [], 12
    totals = fold_tiles(numbered(parts), lambda *each: count_of(read, *each), np.add, delayed(0), tiles=3, partial_sums=3)
    fold = Fold(totals[0].key[0], parts, 3)
    assert fold.layer.startswith(FOLD)
    there = {(part, tile): np.full(2, 16.0 * sum(range(part + 1))) for tile, part in enumerate((6, 5, 5))}
    graph = with_saved(totals[0].dask, fold, there)
    with dask.config.set(scheduler="synchronous"):
        found = dask.threaded.get(graph, [total.key for total in totals], num_workers=1)
    np.testing.assert_array_equal(found, np.full((3, 2), 16.0 * sum(range(parts))))
    assert sorted(read) == [*range(6, 12)]


def test_totals_are_waited_for_where_they_lie():
    """A chain of sums waits for those before it by a word that these are there: no total goes to another worker for that."""
    totals = fold_tiles(numbered(4), count_of, np.add, delayed(0), tiles=3, partial_sums=1)
    layer = totals[0].dask.layers[totals[0].key[0]]
    waits = layer[totals[0].key[0], "part", 1][1]
    assert [key[1] for key in waits] == [MERGED] * 3
    assert [layer[key][1][1] for key in waits] == [TOTAL] * 3


def test_sums_are_saved_tile_by_tile(tmp_path, monkeypatch):
    monkeypatch.setattr("detcal_pipelines.sums.SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr("detcal_pipelines.sums.SHARE_OF_TIME", 1.0)
    folder, fold = tmp_path / "sums", Fold("fold-1", 10, 2)
    for part, tile in ((2, 0), (3, 0)):
        saved(np.full(3, part), folder, (part, tile), fold)
    assert share_saved(folder) == 0  # of the other tile nothing is there
    saved(np.full(3, 1), folder, (1, 1), fold)
    assert share_saved(folder) == 0.2
    found = read_sums(folder, fold)
    assert {place: total.tolist() for place, total in found.items()} == {(3, 0): [3, 3, 3], (1, 1): [1, 1, 1]}
    assert not read_sums(folder, Fold("fold-1", 11, 2))
    (torn,) = folder.glob("0-*.npy")
    torn.write_bytes(torn.read_bytes()[:-1])
    assert [*read_sums(folder, fold)] == [(1, 1)]
