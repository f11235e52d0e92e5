"""Hole grids, and how far a map is from the truth."""

import numpy as np
from scipy.spatial import cKDTree

PITCH_M = 5e-3
SMALL = {"shape": (400, 480), "pitch_px": 40.0}
CASES = {
    "the issue's": {},
    "barrel": {"barrel": 0.15},
    "pincushion": {"barrel": -0.15},
    "rotated": {"rotation_deg": 20.0},
    "pitch 20": {"shape": (1024, 1024), "pitch_px": 20.0},
    "pitch 60": {"shape": (1024, 1024), "pitch_px": 60.0},
    "all at once": {"shape": (1024, 1024), "pitch_px": 30.0, "rotation_deg": 20.0, "barrel": 0.15, "shear": 0.03, "stretch": 1.05},
    "dark dots": {"shape": (1024, 1024), "pitch_px": 50.0, "dark_dots": True},
    "wide dots": {"shape": (1024, 1024), "pitch_px": 60.0, "dot_diameter_px": 30.0, "unevenness": 0.9, "background": 2000.0},
}


def matched(points_y, points_x, grid):
    """Errors (point, 2) of centres, and the number of the true dot of each."""
    distance, which = cKDTree(np.column_stack([grid.y, grid.x])).query(np.column_stack([points_y, points_x]))
    near = distance < 2
    found = np.column_stack([points_y, points_x])[near] - np.column_stack([grid.y, grid.x])[which[near]]
    return found, which[near], near


def map_error(grid, warp, step=4):
    """Distances in pixels between the map's corners and the true ones within the dots, moved onto each other rigidly."""
    places = np.stack(np.meshgrid(*(np.arange(size + 1)[::step] - 0.5 for size in warp.shape), indexing="ij"), axis=-1)
    known = np.pad(~warp.mask.values, ((0, 1), (0, 1)))[::step, ::step]
    true, found = grid.to_grid(places[known]) * PITCH_M, warp.corners_m.values[::step, ::step][known]
    true, found = true - true.mean(axis=0), found - found.mean(axis=0)
    left, _, right = np.linalg.svd(true.T @ found)
    turn = left @ np.diag([1, np.linalg.det(left @ right)]) @ right  # no mirror
    return np.linalg.norm((true @ turn - found) / warp.pixel_size_m, axis=1)
