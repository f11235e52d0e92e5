"""Specks beside the dots of a grid make no other grid, whatever the lattice that they and the dots would make together."""

import numpy as np
import pytest
import scipy.ndimage as ndi

from detcal.distortion import fit_distortion
from detcal.distortion.indexing import index_grid
from detcal.errors import InputError


def between(rows, columns):
    """Specks in the middle of cells, (row, column) + ½."""
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2) + 0.5


SPECKS = {
    "none": np.empty((0, 2)),
    "in a cell": [(3.5, 3.5)],
    "in a cell at the corner": [(0.5, 0.5)],
    "on an edge": [(3, 3.5)],
    "on two edges": [(3, 3.5), (3.5, 3)],
    "all about a cell": [(3.5, 3.5), (3, 3.5), (3.5, 3), (4, 3.5), (3.5, 4)],
    "thirds of a diagonal": [(3 + 1 / 3, 3 + 1 / 3), (3 + 2 / 3, 3 + 2 / 3)],
    "thirds of an edge": [(3, 3 + 1 / 3), (3, 3 + 2 / 3)],
    "along a row of cells": between([3], range(7)),
    "along a row of dots": between([2.5], range(7)),
    "in a quarter of the cells": between(range(0, 7, 2), range(0, 7, 2)),
}


def seen(nodes, turned, aspect, lens):
    """Places in pixels of nodes (dot, 2) of a grid of 8 × 8, turned by degrees, seen by a lens with 3rd-order distortion."""
    angle = np.radians(turned)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    places = (np.asarray(nodes, float) - 3.5) * [1, aspect] @ turn / 5
    return 500 + 400 * places * (1 + lens * (places**2).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("specks", SPECKS)
@pytest.mark.parametrize(("turned", "aspect", "lens"), [(0, 1, 0), (11, 1, 0), (45, 1, 0.15), (30, 1.4, -0.1), (0, 1.4, 0.1)])
@pytest.mark.parametrize("lacking", [(), [(5, 2)], [(2, 5), (2, 6), (5, 1)], "corner"])
def test_dots_are_numbered_by_the_grid_and_specks_are_not(specks, turned, aspect, lens, lacking):
    nodes = np.stack(np.meshgrid(range(8), range(8), indexing="ij"), axis=-1).reshape(-1, 2)
    cut = (nodes >= 5).all(axis=1) if lacking == "corner" else (nodes[:, None] == np.reshape(lacking, (-1, 2))).all(axis=2).any(axis=1)
    nodes = nodes[~cut]
    found, numbers = index_grid(seen(np.concatenate([nodes, SPECKS[specks]]), turned, aspect, lens))
    assert found[: len(nodes)].all()
    assert not found[len(nodes) :].any()
    steps, *_ = np.linalg.lstsq(np.column_stack([np.ones(len(nodes)), nodes]), numbers[: len(nodes)], rcond=None)
    assert abs(np.linalg.det(steps[1:])) == pytest.approx(1), "a cell of the grid"
    np.testing.assert_allclose(np.column_stack([np.ones(len(nodes)), nodes]) @ steps, numbers[: len(nodes)], atol=1e-9)


@pytest.mark.parametrize("place", [(12, 12), (32, 32), (22, 12)])
def test_a_speck_in_an_image_leaves_the_pixels_their_size(place):
    """36 dots 10 pixels apart, 1 mm: pixels of 100 µm."""
    image = np.zeros((64, 64), bool)
    image[7:64:10, 7:64:10] = image[place] = True
    warp = fit_distortion(ndi.binary_dilation(image, iterations=2).astype(np.float32), 1e-3)
    assert (len(warp.point_y), warp.left_out) == (36, 1)
    assert warp.pixel_size_m == pytest.approx((1e-4, 1e-4), rel=1e-9)
    assert warp.cross_validated_rms_px < 1e-6


def dots_at(places):
    """An image of 400 × 400 pixels with round dots of 6 pixels, softened by a pixel."""
    image = np.zeros((400, 400), np.float32)
    y, x = np.indices(image.shape)
    for place in places:
        image += np.clip(3.5 - np.hypot(y - place[0], x - place[1]), 0, 1)
    return ndi.gaussian_filter(image, 0.7)


def test_many_specks_that_make_no_grid_are_left_out():
    grid = np.stack(np.meshgrid(np.arange(20, 400, 30.0), np.arange(20, 400, 30.0), indexing="ij"), axis=-1).reshape(-1, 2)
    random = np.random.default_rng(0).uniform(20, 380, (400, 2))
    away = np.linalg.norm(random[:, None] - grid, axis=2).min(axis=1) > 12
    specks = [random[away][0]]
    for place in random[away]:
        if np.linalg.norm(np.array(specks) - place, axis=1).min() > 12:
            specks.append(place)
    specks = np.array(specks[: len(grid) * 4 // 10])  # two of seven spots
    warp = fit_distortion(dots_at([*grid, *specks]), 1e-3)
    assert warp.pixel_size_m == pytest.approx((1e-3 / 30, 1e-3 / 30), rel=1e-4)
    assert len(warp.point_y) >= len(grid) - 2


def test_specks_that_make_a_grid_of_their_own_are_refused():
    half = np.arange(20, 200, 30.0), np.arange(20, 400, 30.0)
    one = np.stack(np.meshgrid(*half, indexing="ij"), axis=-1).reshape(-1, 2)
    other = np.stack(np.meshgrid(np.arange(210, 390, 24.0), np.arange(25, 390, 24.0), indexing="ij"), axis=-1).reshape(-1, 2)
    with pytest.raises(InputError, match="two grids"):
        fit_distortion(dots_at([*one, *other]), 1e-3)
