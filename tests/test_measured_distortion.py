"""Measured dot patterns (skipped where the data is not there): all dots are found, and lie on one grid."""

import fabio
import numpy as np
import pytest

from detcal.distortion import find_grid_points, fit_distortion

# dots, rows and columns at least that are seen, and the scatter of the holes themselves about a smooth grid, in pixels
PATTERNS = {"dot_pattern_01.jpg": (6600, 69, 97, 0.1), "dot_pattern_03.jpg": (4700, 58, 87, 0.6)}


@pytest.mark.parametrize("name", PATTERNS)
def test_dot_patterns(shared_data, name):
    path = shared_data / "distortion" / name
    if not path.exists():
        pytest.skip(f"no measured image: {name} is not there")
    dots, rows, columns, scatter = PATTERNS[name]
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
    # along rows, columns grow by one a step
    order = np.lexsort((warp.column, warp.row))
    same = np.diff(warp.row.values[order]) == 0
    steps = np.diff(warp.point_x.values[order])[same] / np.diff(warp.column.values[order])[same]
    assert np.ptp(steps) < 0.35 * np.median(steps)
