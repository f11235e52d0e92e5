"""Measured dot patterns (skipped where the data is not there): all dots are found, and lie on one grid."""

from collections import Counter

import fabio
import numpy as np
import pytest
from scipy.spatial import cKDTree

from detcal.distortion import find_grid_points, fit_distortion

# dots, rows and columns at least that are seen, the scatter of the holes themselves about a smooth grid in pixels, and dots that are seen
# and not found
PATTERNS = {"dot_pattern_01.jpg": (6600, 69, 97, 0.03, 2), "dot_pattern_03.jpg": (4700, 58, 87, 0.6, 0)}


def empty_nodes(warp):
    """Where dots should be (node, 2), by the eight nearest ones, that are not in the map and have at least two neighbours there."""
    nodes = np.column_stack([warp.row, warp.column])
    places, taken = np.column_stack([warp.point_y, warp.point_x]), {tuple(node) for node in nodes.tolist()}
    beside = [(row + i, column + j) for row, column in taken for i, j in ((1, 0), (-1, 0), (0, 1), (0, -1))]
    empty = np.array(sorted(node for node, count in Counter(beside).items() if count > 1 and node not in taken))
    _, near = cKDTree(nodes).query(empty, 8)
    found = np.empty((len(empty), 2))
    for k, some in enumerate(near):
        steps = np.linalg.lstsq(np.column_stack([np.ones(8), nodes[some]]), places[some], rcond=None)[0]
        found[k] = np.array([1, *empty[k]]) @ steps
    return found


def contrast(image, place, radius):
    """How much darker a disc of half the dot's radius is than the light about the dot, relative to that."""
    size = int(2 * radius) + 1
    y, x = np.round(place).astype(int)
    part = image[y - size : y + size + 1, x - size : x + size + 1].astype(float)
    away = np.hypot(*(np.indices(part.shape) - size))
    light = np.median(part[(away > 1.6 * radius) & (away < 2 * radius)])
    return (light - part[away < radius / 2].mean()) / max(1, light)


@pytest.mark.parametrize("name", PATTERNS)
def test_dot_patterns(shared_data, name):
    path = shared_data / "distortion" / name
    if not path.exists():
        pytest.skip(f"no measured image: {name} is not there")
    dots, rows, columns, scatter, missed = PATTERNS[name]
    image = fabio.open(str(path)).data
    points = find_grid_points(image)
    assert len(points) > dots
    assert (points.height.values < 0).all(), "the dots are dark"
    warp = fit_distortion(image, 1e-3, points=points)
    assert len(warp.row) > 0.95 * len(points)
    assert warp.row.max() >= rows - 1
    assert warp.column.max() >= columns - 1
    nodes = set(zip(warp.row.values.tolist(), warp.column.values.tolist(), strict=True))
    assert len(nodes) == len(warp.row), "each dot has a place of its own"
    assert warp.cross_validated_rms_px < scatter
    # of the places where a dot should be and none was found, none has one
    empty, radius = empty_nodes(warp), points.dot_diameter_px / 2
    inside = ((empty > 2 * radius + 2) & (empty < np.array(image.shape) - 2 * radius - 3)).all(axis=1)
    away, _ = cKDTree(np.column_stack([points.y, points.x])).query(empty)
    seen = [place for place in empty[inside & (away > radius)] if contrast(image, place, radius) > 0.15]
    assert len(seen) <= missed, np.round(seen)
    # along rows, columns grow by one a step
    order = np.lexsort((warp.column, warp.row))
    same = np.diff(warp.row.values[order]) == 0
    steps = np.diff(warp.point_x.values[order])[same] / np.diff(warp.column.values[order])[same]
    assert np.ptp(steps) < 0.35 * np.median(steps)
