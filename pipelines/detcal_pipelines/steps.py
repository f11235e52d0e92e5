"""From a recipe to the lazy object that it describes, and what each of its steps costs."""

from dataclasses import replace
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

from detcal.azimuthal import AzimuthalBins, build_bins, integrate, quantile_filter, sigma_clip
from detcal.azimuthal.memory import profiles_bytes
from detcal.distortion import DistortionMap, OverlapMatrix, build_overlaps, correct_distortion, fit_distortion
from detcal.distortion.memory import correct_distortion_bytes, fit_distortion_bytes
from detcal.errors import InputError, OutputError
from detcal.frames.stack import check_nothing_lacks
from detcal.poni import read_poni
from detcal.response import Response, correct_response, fit_response
from detcal.response.memory import correct_response_bytes, fit_response_bytes, mean_image_bytes
from detcal.sensor import PlanarGeometry, SensorPSF, build_psf, deconvolve
from detcal.sensor.memory import build_psf_bytes, deconvolve_bytes
from detcal.stores import check_output, load, load_calibration, open_frames
from detcal.xrf import ScanGrid, build_scan_grid, convert_scan, element_maps, open_crono, regrid, regrid_rate
from detcal.xrf.memory import convert_scan_bytes, fit_bytes, matrix_bytes, regrid_bytes
from detcal.xrf.operations import lines_are_rows, most_spectra
from detcal_pipelines.recipe import (
    BuildPSF,
    ConvertCrono,
    CorrectDistortion,
    CorrectResponse,
    Deconvolve,
    FitDistortion,
    FitResponse,
    Input,
    InRings,
    Integrate,
    MedianFilter,
    OfScan,
    Plane,
    Recipe,
    RegridXRF,
    SigmaClip,
    Source,
    Step,
)

PYFAI_BYTES = 72 * 2**20  # of a worker process: pyFAI and xraydb come with detcal.sensor, and nearly as much with detcal.azimuthal

COMPILER_BYTES = 64 * 2**20  # of the driver, which fits distortions itself; workers find compiled code


def open_input(source: Input, chunk_frames: int | None) -> xr.DataArray:
    """The raw frames of a recipe, in blocks of so many."""
    return open_frames(source.path, source.dataset, chunks=None if chunk_frames is None else {"frame": chunk_frames})


def open_first(recipe: Recipe, depth: int | None) -> Any:
    """What the first step takes: frames in blocks of so many, a scan, or nothing."""
    first = recipe.steps[0]
    if isinstance(first, OfScan):
        return open_scan(first, depth)
    return None if recipe.input is None else open_input(recipe.input, depth)


def open_scan(step: OfScan, depth: int | None) -> xr.Dataset:
    """The scan of a step; spectra come in blocks of so many where these are what the work is cut into."""
    chunks = None if depth is None or isinstance(step, RegridXRF) else {"spectrum": depth}
    return open_crono(step.scan, motor_step_um=step.motor_step_um, chunks=chunks)


def build(recipe: Recipe, depth: int | None = None, lanes: int = 1) -> Any:
    """The lazy result of all steps, in tasks of so many frames, rows or lines: a stack, a calibration or maps."""
    result = open_first(recipe, depth)
    for step in recipe.steps:
        result = apply(step, result, lanes, depth)
    return result


def check_result(recipe: Recipe, result: Any) -> None:
    """Refuse, before anything runs, an output that could not be written, or that would take the place of an input."""
    output = recipe.output
    shards = None if output.shard_frames is None else {"frame": output.shard_frames}
    target = Path(output.path)
    for path in map(Path, input_paths(recipe)):
        if any(place in (each, *each.parents) for place in (target, target.resolve()) for each in (path, path.resolve())):
            raise OutputError(f"the output {output.path} would take the place of the input {path}: choose another name")
    check_output(result, output.path, overwrite=output.overwrite, shards=shards)


def input_paths(recipe: Recipe) -> list[str]:
    """Every file that a recipe reads."""
    paths = [] if recipe.input is None else [recipe.input.path] if isinstance(recipe.input.path, str) else recipe.input.path
    for step in recipe.steps:
        paths = [*paths, *(source.path for _, source in step if isinstance(source, Source))]
        match step:
            case (
                BuildPSF(geometry=str(path))
                | Deconvolve(psf=path)
                | InRings(geometry=path)
                | CorrectDistortion(distortion=path)
                | OfScan(scan=path)
            ):
                paths.append(path)
    return paths


def apply(step: Step, frames: Any, lanes: int, tile_rows: int | None = None) -> Any:
    """One step on lazy frames or a scan, or on nothing if it begins with a geometry."""
    match step:
        case FitResponse():
            options = step.model_dump(exclude={"operation", "dark", "mask"})
            dark = open_image(step.dark, frames.data.chunksize[0])
            return fit_response(frames, dark, mask=open_mask(step.mask), lanes=lanes, **options)
        case CorrectResponse():
            options = step.model_dump(include={"residual_sigma", "flat_is_dark_subtracted"})
            dark, flat = (open_image(source, frames.data.chunksize[0]) for source in (step.dark, step.flat))
            return correct_response(frames, open_response(step.response), dark, flat, **options)
        case BuildPSF():
            options = step.model_dump(exclude={"operation", "geometry", "mask", "tile_rows"})
            geometry = PlanarGeometry(**dict(step.geometry)) if isinstance(step.geometry, Plane) else step.geometry
            return build_psf(geometry, mask=open_mask(step.mask), tile_rows=tile_rows, **options)
        case Deconvolve():
            return deconvolve(frames, open_psf(step.psf), **step.model_dump(exclude={"operation", "psf"}))
        case FitDistortion():
            return fit_distortion(frames, mask=open_mask(step.mask), **step.model_dump(exclude={"operation", "mask"}))
        case CorrectDistortion():
            options = step.model_dump(include={"conserve", "variance", "coverage", "dummy"})
            return correct_distortion(frames, overlaps_of(step), **options)
        case InRings():
            return profiles(step, frames, bins_of(step, (frames.shape[1], frames.shape[2])))
        case ConvertCrono():
            return convert_scan(frames, step.sigma_channels, tile_lines=selected_lines(frames, tile_rows))
        case RegridXRF():
            return maps(step, frames, grid_of(step), tile_rows)


def maps(step: RegridXRF, scan: xr.Dataset, grid: ScanGrid, tile_lines: int | None) -> xr.Dataset:
    """A scan on a grid: the cube, what it is made of, and elements."""
    options: dict[str, Any] = {"sigma_channels": step.sigma_channels, "tile_lines": tile_lines}
    if step.quantity == "counts":
        found = xr.Dataset({"counts": regrid(scan.spectra, grid, **options), "coverage": grid.coverage})
    else:
        rates = regrid_rate(scan, grid, **options)
        found = rates if step.variance else rates.drop_vars("variance")
    if step.elements is None:
        return found
    elements = element_maps(scan, grid, step.elements, method=step.element_method, fwhm_kev=step.fwhm_kev, tile_lines=tile_lines)
    return found.assign(element_rate=elements.rate, element_error=elements.error)


def selected_lines(scan: xr.Dataset, spectra: int | None) -> int | None:
    """Lines of the instrument's grid that are about as large as a block of so many spectra."""
    if spectra is None:
        return None
    return max(1, spectra // pixels_a_line(build_scan_grid(scan, method="selected")))


def profiles(step: InRings, frames: Any, bins: AzimuthalBins) -> xr.Dataset:
    """Frames in rings."""
    match step:
        case SigmaClip():
            return sigma_clip(frames, bins, step.threshold, step.max_iterations, step.error_model, dummy=step.dummy)
        case MedianFilter(quantiles=(low, high)):
            return quantile_filter(frames, bins, (low, high), dummy=step.dummy)
        case Integrate():
            return integrate(frames, bins, step.error_model, dummy=step.dummy)
    raise TypeError(f"{type(step).__name__} is no step in rings")


def compile_kernels(recipe: Recipe) -> None:
    """Run the steps on a few pixels of the frames' type: workers then load their machine code, and need no compiler's memory."""
    first = open_first(recipe, None)
    result: Any = first if isinstance(first, xr.Dataset | None) else np.ones((2, 4, 4), first.dtype)
    for step in recipe.steps:
        result = try_out(step, result).compute(scheduler="synchronous")


def try_out(step: Step, frames: Any) -> Any:
    """A step on a few pixels, lazily."""
    near = PlanarGeometry((4, 4), (1e-4, 1e-4), 1e-3, (0.0, 0.0))
    match step:
        case FitDistortion():  # which the workers have no part in
            return xr.DataArray(frames)
        case CorrectDistortion():
            corners = np.stack(np.meshgrid(*2 * [np.arange(5.0)], indexing="ij"), axis=-1)
            even = DistortionMap.of_corners(corners, (1.0, 1.0), np.zeros((4, 4), np.bool_))
            return correct_distortion(frames, even, **step.model_dump(include={"conserve", "variance", "coverage"}))
        case InRings():
            return profiles(step, frames, build_bins(Geometry(1.0, detector=Detector(1e-4, 1e-4, max_shape=(4, 4))), 2, "r_mm"))
        case FitResponse():
            return fit_response(frames, sigma=1.0, cutoff=0.0, order=step.order, intercept=step.intercept).gain
        case CorrectResponse():
            unit = Response.from_gain(np.ones((4, 4)), sigma=1.0)
            curved = replace(unit, curvature=unit.offset)
            return correct_response(frames, curved, flat=frames) + correct_response(frames, unit, flat=frames)
        case BuildPSF():
            return build_psf(near, attenuation_per_m=1e3).data
        case Deconvolve():
            # blurred so much that it is not undone before every kernel has run
            ramp = np.arange(frames.size, dtype=frames.dtype).reshape(frames.shape)
            return deconvolve(ramp, build_psf(near, attenuation_per_m=1e3), **step.model_dump(exclude={"operation", "psf"}))
        case ConvertCrono():
            return convert_scan(few_spectra(frames), step.sigma_channels)
        case RegridXRF():
            few = few_spectra(frames)
            grids = build_scan_grid(few, method="selected"), build_scan_grid(few, step=(2.0, 2.0))  # smoothed before, and after
            return xr.concat([maps(step, few, grid, None).sum() for grid in grids], "grid")


def few_spectra(scan: xr.Dataset) -> xr.Dataset:
    """A scan of three lines with the energies of another, and its type of spectra."""
    line, place = (axis.ravel() for axis in np.indices((3, 3)))
    return xr.Dataset(
        {
            "spectra": (("spectrum", "energy"), np.ones((9, scan.sizes["energy"]), scan.spectra.dtype)),
            "positions": (("spectrum", "axis"), np.stack([place, line], axis=1)),
            "live_time_s": ("spectrum", np.ones(9)),
            "selected": (("row", "column"), np.arange(9).reshape(3, 3)),
        },
        {"energy": scan.energy},
    )


def open_image(source: Source | None, chunk_frames: int) -> xr.DataArray | None:
    """An image or its frames, if the recipe names one."""
    return None if source is None else open_whole(source, {"frame": chunk_frames})


def open_whole(source: Source, chunks: dict[str, int] | None = None) -> xr.DataArray:
    """Frames of which nothing may be missing, since all results rest on them."""
    frames = open_frames(source.path, source.dataset, chunks=chunks)
    check_nothing_lacks(frames, source.path)
    return frames


def open_mask(source: Source | None) -> Any:
    """The mask of an earlier response, or an image that is not 0 in bad pixels."""
    if source is None:
        return None
    response = find_response(source)
    return open_whole(source)[0] != 0 if response is None else response.mask


def open_response(source: Source) -> Response:
    """A response that `detcal` wrote, or an image of gains."""
    response = find_response(source)
    return Response.from_gain(open_whole(source)[0]) if response is None else response


def open_psf(path: str) -> SensorPSF:
    """The matrix that a file holds: the same object each time, since it keeps what it has found out of itself."""
    return load_psf(path, Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=4)
def load_psf(path: str, modified: int) -> SensorPSF:
    """The matrix that a file held when it was modified."""
    found = load_calibration(path)
    if not isinstance(found, SensorPSF):
        kind = "no calibration" if found is None else type(found).__name__
        raise InputError(f"expected the matrix of a sensor in {path}, found {kind}: build_psf writes one")
    return found


def overlaps_of(step: CorrectDistortion) -> OverlapMatrix:
    """The matrix of a step: the same object each time."""
    files = [step.distortion, *(source.path for _, source in step if isinstance(source, Source))]
    return build_overlaps_once(step.model_dump_json(), tuple(Path(path).stat().st_mtime_ns for path in files))


@lru_cache(maxsize=4)
def build_overlaps_once(options: str, modified: tuple[int, ...]) -> OverlapMatrix:
    """The matrix of a step as its files were when they were modified."""
    step = CorrectDistortion.model_validate_json(options, context={"folder": "."})
    warp = load(step.distortion)  # detectors in files of other programs too
    if not isinstance(warp, DistortionMap):
        kind = "no calibration" if isinstance(warp, xr.Dataset) else type(warp).__name__
        raise InputError(f"expected a camera's distortion in {step.distortion}, found {kind}: fit_distortion writes one")
    grid = step.model_dump(include={"shape", "pixel_size_m", "origin_m"})
    return build_overlaps(warp, mask=open_mask(step.mask), **grid)


def grid_of(step: RegridXRF) -> ScanGrid:
    """The grid of a step: the same object each time, since a lag is found by reading all spectra."""
    return build_grid_once(step.model_dump_json(), Path(step.scan).stat().st_mtime_ns)


@lru_cache(maxsize=4)
def build_grid_once(options: str, modified: int) -> ScanGrid:
    """The grid of a step as its file was when it was modified."""
    step = RegridXRF.model_validate_json(options, context={"folder": "."})
    pixel = None if step.step is None else (step.step[0], step.step[1])
    return build_scan_grid(open_scan(step, None), pixel, step.method, step.line_lag)


def bins_of(step: InRings, shape: tuple[int, int]) -> AzimuthalBins:
    """The rings of a step for frames of a shape: the same object each time, since pyFAI takes a second for them."""
    files = [step.geometry, *(source.path for _, source in step if isinstance(source, Source))]
    return build_bins_once(type(step), step.model_dump_json(), shape, tuple(Path(path).stat().st_mtime_ns for path in files))


@lru_cache(maxsize=4)
def build_bins_once(kind: type[InRings], options: str, shape: tuple[int, int], modified: tuple[int, ...]) -> AzimuthalBins:
    """The rings of a step as its files were when they were modified."""
    step = kind.model_validate_json(options, context={"folder": "."})
    dark, flat = (None if source is None else open_frames(source.path, source.dataset) for source in (step.dark, step.flat))
    mask = open_mask(step.mask)
    others = step.model_dump(include={*InRings.model_fields} - {"operation", "geometry", "mask", "dark", "flat", "dummy"})
    modelled = read_poni(step.geometry).detector.shape is not None
    return build_bins(step.geometry, mask=mask, dark=dark, flat=flat, shape=None if modelled else shape, **others)


def find_response(source: Source) -> Response | None:
    """The response in a file, if it holds one and no single array of it is asked for."""
    found = None if source.dataset is not None else load_calibration(source.path)
    if found is not None and not isinstance(found, Response):
        raise InputError(f"expected a response in {source.path}, found {type(found).__name__}: fit_response writes one")
    return found


def task_bytes(step: Step, frames: Any, result: Any, depth: int) -> int:
    """What one task of a step, of so many frames or rows, holds at its peak: in its blocks, or before in those of its dark and flat."""
    if isinstance(step, BuildPSF):
        pixels = depth * result.shape[1]
        return PYFAI_BYTES + build_psf_bytes(pixels, int(most_coefficients(result) * pixels), ceil(result.shape[0] / depth))
    if isinstance(step, OfScan):
        return scan_task_bytes(step, frames, depth)
    shape = (frames.shape[1], frames.shape[2])
    itemsize = frames.dtype.itemsize
    sources: list[Source | None] = []
    match step:
        case FitResponse():
            own, sources = fit_response_bytes(shape, depth, itemsize, step.order), [step.dark]
        case CorrectResponse():
            own, sources = correct_response_bytes(shape, depth, itemsize, order=2), [step.dark, step.flat]
        case Deconvolve():
            own = PYFAI_BYTES + deconvolve_bytes(shape, depth, itemsize, open_psf(step.psf).data.size, step.method)
        case FitDistortion():
            own = PYFAI_BYTES + COMPILER_BYTES + fit_distortion_bytes(shape, frames.data.chunksize[0], itemsize)
        case CorrectDistortion():
            matrix = overlaps_of(step)
            own = correct_distortion_bytes(shape, matrix.shape, depth, itemsize, matrix.data.size, step.variance is not None)
            if isinstance(
                result, xr.Dataset
            ):  # its images are written one by one, and the next block's are made meanwhile, and taken apart
                own += 2 * result.nbytes * depth // len(frames)
        case InRings():
            bins = bins_of(step, shape)
            counts = np.diff(bins.starts)
            own = PYFAI_BYTES + profiles_bytes(shape, depth, itemsize, int(counts.sum()), int(counts.max()), len(counts))
    images = [image for source in sources if (image := open_image(source, depth)) is not None]
    return max(own, *(mean_image_bytes(shape, image.data.chunksize[0], image.dtype.itemsize) for image in images), 0)


def scan_task_bytes(step: OfScan, scan: xr.Dataset, depth: int) -> int:
    """As `task_bytes`, of so many spectra or lines of a map."""
    channels, itemsize = scan.sizes["energy"], scan.spectra.dtype.itemsize
    if not isinstance(step, RegridXRF):
        grid = build_scan_grid(scan, method="selected")
        lines = selected_lines(scan, depth) or 1
        spectra = most_spectra(grid, lines, da.core.normalize_chunks(depth, (grid.spectra,))[0])
        return PYFAI_BYTES + convert_scan_bytes(depth, lines * pixels_a_line(grid), spectra, channels, itemsize)
    grid = grid_of(step)
    pixels, spectra = depth * pixels_a_line(grid), most_spectra(grid, depth, scan.spectra.data.chunks[0])
    own = regrid_bytes(pixels, spectra, channels, itemsize, smoothed=step.sigma_channels is not None)
    fitted = fit_bytes(pixels, channels) if step.elements and step.element_method == "fit" else 0
    cubes = 1 + step.variance + 2 * (step.elements is not None)
    matrices = cubes * matrix_bytes(grid.data.size, grid.coverage.size)
    return PYFAI_BYTES + matrices + max(own, regrid_bytes(pixels, spectra, channels, itemsize) + fitted)


def pixels_a_line(grid: ScanGrid) -> int:
    """Pixels of the map that lie on a line of the scan."""
    return grid.shape[1] if lines_are_rows(grid.W, grid.shape) else grid.shape[0]


def most_coefficients(psf: SensorPSF) -> float:
    """Coefficients a pixel in that of the matrix's bands which has most."""
    counts, ends = psf.data.chunks[0], psf.indptr.chunks[0][1:]
    return max(count / pixels for count, pixels in zip(counts, ends, strict=True))
