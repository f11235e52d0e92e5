"""Raw files, calibrations and recipes for runs of every kind."""

import re
from pathlib import Path

import h5py
import numpy as np
from detcal_pipelines.template import render

from detcal import save, simulate
from detcal.distortion import DistortionMap
from detcal.response import Response
from detcal.sensor import PlanarGeometry, build_psf
from detcal.stores.targets.crono_writer import write_crono

OPTIONS = {
    "fit_response": "",
    "plot_pixel_calibrations": "",
    "correct_response": "",
    "remove_zingers": "",
    "minus_log": "",
    "crop": "",
    "rebin": "",
    "build_psf": "tile_rows = 32\nthickness_m = 4.5e-4\nmaterial = 'Si'\n",
    "deconvolve": "",
    "correct_distortion": "variance = 'poisson'\ncoverage = true\n",
    "fit_distortion": "",
    "sigma_clip": "",
    "integrate": "",
    "integrate_azimuthal": "",
    "median_filter": "",
    "quantile_filter": "",
    "outlier_mask": "",
    "find_hot_pixels": "",
    "radial_background": "",
    "uncorrect": "",
    "smooth_spectra": "chunk_spectra = 128\n",
    "summary_spectra": "chunk_spectra = 128\n",
    "convert_crono": "chunk_spectra = 128\n",
    "regrid_xrf": "tile_rows = 2\n",
}
PONI = """\
poni_version: 2.1
Detector: Detector
Detector_config: {{"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [{0}, {0}], "orientation": 3}}
Distance: 0.1
Poni1: 0.02
Poni2: 0.02
Rot1: 0
Rot2: 0
Rot3: 0
Wavelength: 7e-11
"""


def write_inputs(folder: Path, side: int, frames: int, lines: int) -> None:
    """Frames and images of side × side, and a scan of so many lines; outputs begin with new_, so that no run changes another's input."""
    frame = np.random.default_rng(0).poisson(3000, (side, side)).astype(np.uint16)
    with h5py.File(folder / "raw.h5", "w") as file:
        stack = file.create_dataset("data", (frames, side, side), np.uint16)
        for number in range(len(stack)):
            stack[number] = frame // (1 + number % 5)
    save(np.full((side, side), 100, np.uint16), folder / "dark.h5")
    save(np.full((side, side), 3000, np.uint16), folder / "flat.h5")
    save(Response.from_gain(np.ones((side, side))), folder / "response.zarr")
    corners = np.stack(np.meshgrid(*2 * [np.arange(side + 1.0)], indexing="ij"), axis=-1) * 1e-4
    save(DistortionMap.of_corners(corners, (1e-4, 1e-4), np.zeros((side, side), bool)), folder / "distortion.zarr")
    plane = PlanarGeometry((side, side), (1e-4, 1e-4), 0.1, (0.02, 0.02))
    save(build_psf(plane, thickness_m=4.5e-4, attenuation_per_m=1500.0), folder / "psf.zarr")
    save(simulate.hole_grid((256, 256), pitch_px=32.0).image[None], folder / "grid.h5")
    (folder / "detector.poni").write_text(PONI.format(side))
    write_crono(simulate.maxrf_scan(lines, 60, channels=2048, counts=0.3), folder / "scan.h5")
    for name, options in OPTIONS.items():
        text = re.sub(r'(\[input]\npath = )"(?!grid)[^"]+"', r'\1"raw.h5"', render(name)).replace("grid.edf", "grid.h5")
        if name == "minus_log":  # which takes no counts
            text = text.replace("[[steps]]", "[[steps]]\noperation = 'correct_response'\nflat = 'flat.h5'\n[[steps]]")
        text = text.replace("# chunk_frames = 16", "chunk_frames = 8 ").replace("[output]", options + "[output]")
        (folder / f"{name}.toml").write_text(re.sub(r'path = "(\w+)\.zarr"', r'path = "new_\1.zarr"', text))
