"""Rings after reconstruction: python -m tests.benchmarks.bench_rings [SCAN.h5 [CENTRE]]

A simulated scan, of which the truth is known, corrected in three ways: not at all, by the flat alone, and by the gains of a sweep; each as
it is, and then with that of algotom's filters of stripes, in several strengths, that leaves the least rings. For each: the amplitude of the
rings (what is left of the error of the slice when it is averaged along circles), and the whole error inside the sample, which says what a
filter takes from it. Then a measured scan (a data exchange file), where there is no sweep. Needs `pip install .[bench]`.
"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import xarray as xr
from algotom.prep import removal
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

import detcal
from detcal import simulate
from detcal.response import correct_response, fit_response, minus_log

Image = NDArray[np.float64]
SHAPE, ANGLES, ROW, REACH = (128, 384), 360, 64, 10.0
STRENGTHS: dict[str, list[dict[str, object]]] = {
    "remove_stripe_based_sorting": [{"size": size} for size in (5, 11, 21, 31)],
    "remove_stripe_based_filtering": [{"sigma": sigma, "size": size} for sigma in (2, 3) for size in (5, 11, 21, 31)],
    "remove_stripe_based_fitting": [{"order": order, "sigma": sigma} for order in (1, 2) for sigma in (5, 10, 20)],
    "remove_stripe_based_wavelet_fft": [{"level": level, "size": size} for level in (3, 5) for size in (1, 2)],
    "remove_stripe_based_normalization": [{"sigma": sigma} for sigma in (5, 15, 31)],
    "remove_stripe_based_regularization": [{"alpha": alpha} for alpha in (0.0005, 0.005, 0.05)],
    "remove_all_stripe": [
        {"snr": snr, "la_size": large, "sm_size": small} for snr in (1.5, 3.0) for large in (31, 51) for small in (5, 11)
    ],
}


def filtered(sinogram: Image) -> dict[str, Image]:
    """A sinogram after each of algotom's filters, by the filter's name and its strength."""
    found = {}
    for name, strengths in STRENGTHS.items():
        run: Callable[..., Image] = getattr(removal, name)
        for strength in strengths:
            known = {key: value for key, value in strength.items() if key in inspect.signature(run).parameters}
            found[f"{name.removeprefix('remove_')} {known}"] = run(sinogram.copy(), **known)
    return found


def sinogram_of(transmission: xr.DataArray, row: int) -> Image:
    """The attenuation of one row of all projections; masked pixels are interpolated along it."""
    rows = minus_log(transmission).isel(y=row).compute()
    return rows.interpolate_na("x", fill_value="extrapolate").values.astype(float)


def reconstruct(sinogram: Image, angles: Image) -> Image:
    return simulate.reconstruct_slice(sinogram, angles, sinogram.shape[1] // 2)


def rings_of(image: Image) -> float:
    """Standard deviation over the radii of an image's mean along circles, in ‰, without what is smooth, from eight pixels to the edge."""
    y, x = np.indices(image.shape) - (np.array(image.shape)[:, None, None] - 1) / 2
    radius = np.hypot(y, x).astype(int)
    inside = radius < image.shape[0] // 2
    circles = np.bincount(radius[inside], image[inside]) / np.bincount(radius[inside])
    return 1e3 * float((circles - gaussian_filter1d(circles, REACH))[8:].std())


def dust() -> Image:
    """Spots of a few pixels on the reconstructed row, which absorb 10 to 20 %."""
    y, x = np.indices(SHAPE)
    spots = ((150, 3, 0.20), (70, 4, 0.15), (235, 3, 0.12), (310, 5, 0.10))
    return sum(absorbed * np.exp(-((((y - ROW) ** 2 + (x - column) ** 2) / radius**2) ** 2)) for column, radius, absorbed in spots)


def bench_simulated(title: str, dusty: bool) -> None:
    detector = simulate.detector(SHAPE, gain_spread=0.03)
    dark = simulate.dark_frames(detector, 20)
    response = fit_response(simulate.beam_sweep(detector, 128), dark=dark, mask=detector.bad).compute()
    if dusty:
        detector = replace(detector, gain=detector.gain / (1 - dust()))
    scan, flat = simulate.ct_frames(detector, ANGLES), simulate.flat_frames(detector, 10)
    angles = scan.angle.values
    ways = {
        "no correction": correct_response(scan, response.from_gain(np.ones(SHAPE)), dark=dark, flat=flat),
        "flat alone": correct_response(scan, dark=dark, flat=flat),
        "gains of the sweep": correct_response(scan, response, dark=dark, flat=flat, residual_sigma=3.0 if dusty else None),
    }
    sinograms = {name: sinogram_of(way, ROW) for name, way in ways.items()}
    true = reconstruct(-np.log([simulate.transmission(SHAPE, angle)[ROW] for angle in angles]), angles)
    print(title)
    tell({name: reconstruct(sinogram, angles) - true for name, sinogram in sinograms.items()}, true)
    for name, sinogram in sinograms.items():
        errors = {f"{name}, then {how}": reconstruct(rows, angles) - true for how, rows in filtered(sinogram).items()}
        best = min(errors, key=lambda how: rings_of(errors[how]))
        tell({best: errors[best]}, true)


def tell(errors: dict[str, Image], true: Image) -> None:
    sample = true > 0.1
    for name, error in errors.items():
        print(f"  {name:<110} rings {rings_of(error):6.2f} ‰   error in the sample {1e3 * np.sqrt(np.mean(error[sample] ** 2)):6.1f} ‰")


def bench_measured(path: str, centre: float) -> None:
    """Half of the rows' width of a measured scan, about its axis; structure of the sample counts as rings too."""
    projections, flat, dark = (detcal.open_frames(path, frames=frames) for frames in ("projections", "flats", "darks"))
    corrected = correct_response(projections, dark=dark, flat=flat)
    angles = corrected["theta"].values
    whole = sinogram_of(corrected, 0)
    half = int(min(centre, whole.shape[1] - 1 - centre))
    rows = whole[:, int(centre) - half : int(centre) + half + 1]
    print(path)
    found = {"flat alone": rows, **{f"flat alone, then {how}": sinogram for how, sinogram in filtered(rows).items()}}
    rings = {name: rings_of(reconstruct(sinogram, angles)) for name, sinogram in found.items()}
    for name in ("flat alone", min(rings, key=lambda how: rings[how])):
        print(f"  {name:<110} rings {rings[name]:6.2f} ‰")


if __name__ == "__main__":
    bench_simulated("a detector as in the sweep", dusty=False)
    bench_simulated("a detector with dust since the sweep", dusty=True)
    if sys.argv[1:]:
        bench_measured(sys.argv[1], float(sys.argv[2]) if sys.argv[2:] else 319.5)
