"""Response fit, smoothing and correction beside what they replace: python -m tests.benchmarks.bench_response"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import tempfile
from functools import partial
from pathlib import Path

import dask
import dask.array as da
import numpy as np
from scipy.ndimage import gaussian_filter

from detcal import load, open_frames, save, simulate
from detcal.response import correct_response, fit_response, smoothing
from tests.benchmarks.timing import in_turn, in_turn_on_both_clocks, report


def detectorcal_style_fit(sweep, sigma=50, cutoff=300):
    """A frame at a time through scipy's gaussian, then lstsq in a loop over the pixels."""
    smoothed = np.stack([gaussian_filter(frame, sigma, mode="nearest") for frame in sweep])
    gain = np.zeros(sweep.shape[1:])
    for row, column in np.ndindex(gain.shape):
        used = smoothed[:, row, column] > cutoff
        gain[row, column] = np.linalg.lstsq(sweep[used, row, column][:, None], smoothed[used, row, column], rcond=None)[0][0]
    return gain


def in_memory(sweep: np.ndarray, frames: int) -> da.Array:
    """A sweep in blocks of so many frames."""
    return da.from_array(sweep, chunks=(frames, -1, -1), name=False)


def bench_fit() -> None:
    """The whole fit of a float32 (10, 512, 512) sweep."""
    sweep = simulate.beam_sweep(simulate.detector((512, 512)), 10).compute().values.astype(np.float32)
    np.testing.assert_allclose(fit_response(sweep).compute().gain, detectorcal_style_fit(sweep), rtol=1e-5)
    ours, peer = in_turn(lambda: fit_response(in_memory(sweep, 5)).compute(), lambda: detectorcal_style_fit(sweep), rounds=3)
    report("fit of (10, 512, 512), threads", ours, peer, 60)
    with dask.config.set(scheduler="synchronous"):
        ours, _ = in_turn(lambda: fit_response(in_memory(sweep, 10)).compute(), lambda: None)
    report("fit of (10, 512, 512), one thread", ours, peer, 60)


def bench_smoothing() -> None:
    """One gaussian of sigma 50 on one thread."""
    image = np.random.default_rng(0).normal(1000, 30, (2048, 2048)).astype(np.float32)
    for boundary in ("nearest", "reflect"):
        ours, peer = in_turn(partial(smoothing.smooth, image, 50.0, boundary), partial(gaussian_filter, image, 50, mode=boundary))
        report(f"gaussian of sigma 50, 2048 × 2048, {boundary}", ours, peer, 12)


def bench_correction(count: int = 256) -> None:
    """Correcting a zarr stack beside a bare copy to the same type, chunks and codec."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        detector = simulate.detector((1024, 1024))
        save(simulate.ct_frames(detector, count), folder / "raw.zarr", chunks={"frame": 8})
        save(fit_response(simulate.beam_sweep(detector, 20), detector.dark), folder / "response.zarr")
        frames = open_frames(folder / "raw.zarr", chunks={"frame": 8})
        flat = simulate.flat_frames(detector).compute()
        corrected = correct_response(frames, load(folder / "response.zarr"), dark=detector.dark, flat=flat, residual_sigma=3)
        for precision, wanted in ((None, 0.7), (0.125, 0.9)):
            clocks = in_turn_on_both_clocks(
                lambda precision=precision: save(corrected, folder / "corrected.zarr", overwrite=True, precision=precision),
                lambda: save(frames.astype(np.float32), folder / "copy.zarr", overwrite=True),
            )
            said = f"correction of zarr ({count}, 1024, 1024), precision {precision}"
            for clock, (ours, peer) in clocks.items():
                report(f"{said}, {clock}", ours, peer, wanted)
            print(f"{said}: {megabytes(folder / 'corrected.zarr'):.0f} MB, the copy {megabytes(folder / 'copy.zarr'):.0f} MB")
            if precision is None:
                exact = np.asarray(corrected[:8].values)
        stored = open_frames(folder / "corrected.zarr")[:8].values
    noise = np.sqrt(exact.var(axis=0).mean())
    print(f"largest error {np.abs(stored - exact).max() / noise:.3f} of the mean noise, bias {(stored - exact).mean() / noise:.1e}")


def megabytes(store: Path) -> float:
    """What a store takes on disk."""
    return sum(file.stat().st_size for file in store.rglob("*") if file.is_file()) / 1e6


if __name__ == "__main__":
    bench_smoothing()
    bench_fit()
    bench_correction()
