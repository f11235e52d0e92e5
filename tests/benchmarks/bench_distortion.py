"""Distortion beside the chain of pyFAI's CCD calibration tutorial, on an image of 2048²: python -m tests.benchmarks.bench_distortion

Both operators are held in memory. Ours corrects BLOCKS blocks of FRAMES frames, as dask sees fit, into an array that is already there, as
blocks go to a store one by one; pyFAI's, which takes one frame at a time and is parallel in itself, gives a list of images.
"""

import logging

import dask.array as da
import numpy as np
from pyFAI.detectors import Detector
from pyFAI.distortion import Distortion
from pyFAI.ext.bilinear import Bilinear
from pyFAI.ext.watershed import InverseWatershed
from scipy.interpolate import griddata
from scipy.signal import convolve2d
from scipy.spatial import cKDTree

from detcal.distortion import build_overlaps, correct_distortion, fit_distortion
from detcal.simulate import HoleGrid, hole_grid
from tests.benchmarks.timing import in_turn, report

PITCH_M = 5e-3
FRAMES = 16  # a block
BLOCKS = 4


def peer_points(image: np.ndarray, diameter: int) -> np.ndarray:
    """Sub-pixel maxima of the image smoothed by a disc, as in the tutorial."""
    offsets = np.arange(diameter) - (diameter - 1) / 2
    disc = (offsets[:, None] ** 2 + offsets**2 <= (diameter / 2) ** 2).astype(np.float32)
    smooth = np.ascontiguousarray(convolve2d(image, disc / disc.sum(), mode="same"), np.float32)
    watershed = InverseWatershed(smooth)
    watershed.init_labels()
    watershed.init_borders()
    watershed.init_regions()
    level = np.median(smooth) + 0.3 * np.ptp(smooth)
    tops = (divmod(region.index, image.shape[1]) for region in set(watershed.regions.values()))
    surface = Bilinear(smooth)
    return np.array([surface.local_maxi(top) for top in tops if smooth[top] > level])


def peer_calibration(grid: HoleGrid) -> np.ndarray:
    """Corners of pixels (y + 1, x + 1, 2) by the tutorial's chain; which dot is which is taken from the truth, at no cost."""
    found = peer_points(grid.image, 25)
    true = np.column_stack([grid.y, grid.x])
    distance, which = cKDTree(true).query(found)
    found, nodes = found[distance < 5], np.column_stack([grid.row, grid.column])[which[distance < 5]]
    solved = np.linalg.lstsq(np.column_stack([np.ones(len(nodes)), nodes]), found, rcond=None)[0]
    moved = np.column_stack([np.ones(len(nodes)), nodes]) @ solved - found
    places = tuple(np.mgrid[: grid.image.shape[0] + 1, : grid.image.shape[1] + 1])
    return np.stack([griddata(found, moved[:, k], places, method="cubic", fill_value=0) for k in (0, 1)], axis=-1)


def peer_detector(corners_m: np.ndarray, pixel_size_m: tuple[float, float]) -> Detector:
    """pyFAI's detector of the same corners."""
    height, width = (size - 1 for size in corners_m.shape[:2])
    quads = np.zeros((height, width, 4, 3), np.float32)
    for place, (i, j) in enumerate(((0, 0), (1, 0), (1, 1), (0, 1))):
        quads[:, :, place, 1:] = corners_m[i : i + height, j : j + width]
    detector = Detector(*pixel_size_m, max_shape=(height, width))
    detector.uniform_pixel, detector.IS_FLAT = False, True
    detector.set_pixel_corners(quads)
    detector.mask = np.zeros((height, width), np.int8)
    return detector


def main() -> None:
    """Calibration, building the operator, applying it."""
    grid = hole_grid()
    ours, peer = in_turn(lambda: fit_distortion(grid.image, PITCH_M), lambda: peer_calibration(grid), rounds=2)
    report("calibration", ours, peer, 4)
    warp = fit_distortion(grid.image, PITCH_M)
    detector = peer_detector(warp.corners_m.values, warp.pixel_size_m)

    def peer_operator() -> Distortion:
        found = Distortion(detector, shape=warp.shape, resize=False, method="csr")
        found.calc_init()
        return found

    ours, peer = in_turn(lambda: build_overlaps(warp).to_arrays(), peer_operator, rounds=3)
    report("building the operator", ours, peer, 3)
    matrix, operator = build_overlaps(warp).compute(), peer_operator()
    block = np.random.default_rng(1).poisson(200, (FRAMES, *warp.shape)).astype(np.uint16)
    stack = da.concatenate([da.from_array(block, chunks=-1, name=False)] * BLOCKS)
    held = [image.astype(np.float32) for image in block[:4]]
    target = np.zeros(stack.shape, np.float32)
    for conserve in ("counts", "mean"):
        ours, peer = in_turn(
            lambda conserve=conserve: correct_distortion(stack, matrix, conserve=conserve).data.store(target, lock=False),
            lambda: [operator.correct(image) for image in held],
            rounds=5,
        )
        report(f"a frame of blocks of {FRAMES}, {conserve}", ours / FRAMES / BLOCKS, peer / len(held), 3)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main()
