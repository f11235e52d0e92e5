"""From a recipe to the lazy object that it describes, and what each of its steps costs."""

import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray
from pyFAI.detectors import Detector
from pyFAI.geometry import Geometry

from detcal.azimuthal import AzimuthalBins, build_bins, integrate, quantile_filter, sigma_clip
from detcal.azimuthal.memory import profiles_bytes
from detcal.distortion import DistortionMap, OverlapMatrix, build_overlaps, correct_distortion, fit_distortion
from detcal.distortion.memory import correct_distortion_bytes, fit_distortion_bytes
from detcal.distortion.points import as_picture
from detcal.errors import InputError
from detcal.frames.corrections import corrections_of
from detcal.frames.images import mask_of_image, one_image
from detcal.frames.needs import Needs
from detcal.frames.valid import check_nothing_lacks
from detcal.poni import read_poni
from detcal.response import Response, correct_response, fit_response
from detcal.response.memory import correct_response_bytes, fit_response_bytes, mean_image_bytes
from detcal.sensor import PlanarGeometry, SensorPSF, build_psf, deconvolve
from detcal.sensor.memory import build_psf_bytes, deconvolve_bytes
from detcal.simulate import hole_grid
from detcal.stores import check_apart, check_output, check_path, find_paths, has_image_key, load, load_calibration, open_frames
from detcal.xrf import ScanGrid, build_scan_grid, convert_scan, element_maps, open_crono, regrid, regrid_rate
from detcal.xrf.memory import BYTES_A_SPECTRUM, convert_scan_bytes, fit_bytes, matrix_bytes, regrid_bytes
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
    Table,
    paths_in,
)


def open_input(source: Input, chunk_frames: int | None) -> xr.DataArray:
    """The raw frames of a recipe, in blocks of so many."""
    ends = None if source.valid_range is None else (source.valid_range[0], source.valid_range[1])
    return open_frames(
        source.path, source.dataset, chunks=None if chunk_frames is None else {"frame": chunk_frames}, frames=source.frames,
        flip=source.flip, mask=open_mask(source.mask), dummy=source.dummy, valid_range=ends,
    )  # fmt: skip


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


def build(recipe: Recipe, depth: int | None = None, partial_sums: int = 1) -> Any:
    """The lazy result of all steps, in tasks of so many frames, rows or lines: a stack, a calibration or maps."""
    result = open_first(recipe, depth)
    for step in recipe.steps:
        result = apply(step, result, partial_sums, depth)
    return result


def check_target(recipe: Recipe) -> None:
    """Refuse, before anything is opened, an output that nobody could write there; whether one exists is looked at later.

    Raises
    ------
    OutputError
        The output is, holds, or lies inside, the recipe or one of its inputs, or has no known suffix, or no folder.
    """
    check_apart(recipe.output.path, [file for path in recipe.inputs() for file in find_paths(path)])
    if recipe.file is not None:
        check_apart(recipe.output.path, [recipe.file], "recipe")
    check_path(recipe.output.path, overwrite=True)


def check_result(recipe: Recipe, result: Any, *, overwrite: bool) -> None:
    """Refuse, before anything runs, an output that could not be written, or that would take the place of an input."""
    check_target(recipe)
    shards = None if recipe.output.shard_frames is None else {"frame": recipe.output.shard_frames}
    check_output(result, recipe.output.path, overwrite=overwrite, shards=shards)


def modified_times(step: Table) -> tuple[int, ...]:
    """When the files that a step names were modified, whatever they are."""
    return tuple(Path(file).stat().st_mtime_ns for path in paths_in(step) for file in find_paths(path))


def apply(step: Step, frames: Any, partial_sums: int = 1, tile_rows: int | None = None) -> Any:
    """One step on lazy frames or a scan, or on nothing if it begins with a geometry."""
    match step:
        case FitResponse():
            options = step.model_dump(exclude={"operation", "dark", "mask"})
            dark = open_image(step.dark, frames.data.chunksize[0])
            return fit_response(frames, dark, mask=open_mask(step.mask), partial_sums=partial_sums, **options)
        case CorrectResponse():
            options = step.model_dump(include={"residual_sigma", "flat_is_dark_subtracted", "dummy"})
            dark, flat = (open_image(source, frames.data.chunksize[0]) for source in (step.dark, step.flat))
            return correct_response(frames, open_response(step.response), dark, flat, **options)
        case BuildPSF():
            options = step.model_dump(exclude={"operation", "geometry", "mask", "tile_rows"})
            geometry = PlanarGeometry(**dict(step.geometry)) if isinstance(step.geometry, Plane) else step.geometry
            return build_psf(geometry, mask=open_mask(step.mask), tile_rows=tile_rows, **options)
        case Deconvolve():
            return deconvolve(frames, open_psf(step.psf), **step.model_dump(exclude={"operation", "psf"}))
        case FitDistortion():
            return fit_once(GridImage.of(frames, open_mask(step.mask)), step.model_dump_json(exclude={"operation", "mask"}))
        case CorrectDistortion():
            options = step.model_dump(include={"conserve", "variance", "coverage", "dummy"})
            return correct_distortion(frames, overlaps_of(step), **options)
        case InRings():
            return profiles(step, frames, bins_of(step, frames))
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


def try_kernels(recipe: Recipe) -> None:
    """Run the steps on a few pixels of the frames' type, so that every kernel that a run needs is loaded, or compiled."""
    first = open_first(recipe, None)
    result: Any = first if isinstance(first, xr.Dataset | None) else np.ones((2, 4, 4), first.dtype)
    for step in recipe.steps:
        result = try_out(step, result).compute(scheduler="synchronous")


def try_out(step: Step, frames: Any) -> Any:
    """A step on a few pixels, lazily."""
    near = PlanarGeometry((4, 4), (1e-4, 1e-4), 1e-3, (0.0, 0.0))
    match step:
        case FitDistortion():
            grid = hole_grid((96, 96), pitch_px=16.0)
            options = step.model_dump(exclude={"operation", "pitch_m", "mask", "dot_diameter_px", "spacing_px", "dots"})
            return fit_distortion(grid.image.astype(frames.dtype), pitch_m=1.0, **options).corners_m
        case CorrectDistortion():
            corners = np.stack(np.meshgrid(*2 * [np.arange(5.0)], indexing="ij"), axis=-1)
            even = DistortionMap.of_corners(corners, (1.0, 1.0), np.zeros((4, 4), np.bool_))
            return correct_distortion(frames, even, **step.model_dump(include={"conserve", "variance", "coverage"}))
        case InRings():
            return profiles(step, frames, build_bins(Geometry(1.0, detector=Detector(1e-4, 1e-4, max_shape=(4, 4))), 2, "r_mm"))
        case FitResponse():
            dark = np.zeros((4, 4), np.float32)
            fits = [fit_response(frames, each, sigma=1.0, cutoff=0.0, order=step.order, intercept=step.intercept) for each in (dark, None)]
            return fits[0].gain + fits[1].gain
        case CorrectResponse():
            unit = Response.from_gain(np.ones((4, 4)), sigma=1.0)
            curved = replace(unit, curvature=unit.offset)
            return correct_response(frames, curved, flat=frames) + correct_response(frames, unit, flat=frames)
        case BuildPSF():
            return build_psf(near, 1e-3, attenuation_per_m=1e3).data
        case Deconvolve():
            # blurred so much that it is not undone before every kernel has run
            ramp = np.arange(frames.size, dtype=frames.dtype).reshape(frames.shape)
            return deconvolve(ramp, build_psf(near, 1e-3, attenuation_per_m=1e3), **step.model_dump(exclude={"operation", "psf"}))
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


def open_image(source: Source | None, chunk_frames: int | None) -> xr.DataArray | None:
    """An image or its frames, if the recipe names one; of a file with an image_key those of its role."""
    if source is None:
        return None
    chunks = None if chunk_frames is None else {"frame": chunk_frames}
    frames = source.role if source.frames is None and has_image_key(source.path, source.dataset) else source.frames
    found = open_frames(source.path, source.dataset, chunks=chunks, frames=frames, flip=source.flip)
    check_nothing_lacks(found, source.path)  # all results rest on it
    return found


def open_one_image(source: Source, name: str) -> xr.DataArray:
    """The only image of a file, for what is never averaged."""
    frames = open_frames(source.path, source.dataset, frames=source.frames, flip=source.flip)
    check_nothing_lacks(frames, source.path)
    return one_image(frames, name, f'choose one by {{ path = "{source.path}", frames = 0 }}, or give another file')


def open_mask(source: Source | None) -> Any:
    """The mask of an earlier response, or an image that is not 0 in bad pixels."""
    if source is None:
        return None
    response = find_response(source)
    return mask_of_image(open_one_image(source, "a mask")) if response is None else response.mask


def open_response(source: Source) -> Response:
    """A response that `detcal` wrote, or an image of gains."""
    response = find_response(source)
    return Response.from_gain(open_one_image(source, "a response or gains")) if response is None else response


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


@dataclass(frozen=True)
class GridImage:
    """The image of a hole grid, NaN where nothing is known; equal to others of the same pixels."""

    content: str
    picture: NDArray[np.float32] = field(compare=False)

    @classmethod
    def of(cls, frames: Any, mask: Any) -> "GridImage":
        """Of the mean of some frames, whatever their blocks."""
        picture = as_picture(frames, mask)
        return cls(tokenize(picture), picture)


@lru_cache(maxsize=1)
def fit_once(image: GridImage, options: str) -> DistortionMap:
    """The map of an image: a run builds its steps to check them, to plan, and to run, and a fit of a large image takes half a minute."""
    return fit_distortion(image.picture, **json.loads(options))


def overlaps_of(step: CorrectDistortion) -> OverlapMatrix:
    """The matrix of a step: the same object each time."""
    return build_overlaps_once(step.model_dump_json(), modified_times(step))


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


def bins_of(step: InRings, frames: xr.DataArray) -> AzimuthalBins:
    """The rings of a step for frames, without the parallax that they had taken out before: the same object each time, since pyFAI takes
    a second for them."""
    parallax = False if "parallax" in corrections_of(frames) else None
    shape = frames.shape[1], frames.shape[2]
    return build_bins_once(type(step), step.model_dump_json(), shape, modified_times(step), parallax)


@lru_cache(maxsize=4)
def build_bins_once(
    kind: type[InRings], options: str, shape: tuple[int, int], modified: tuple[int, ...], parallax: bool | None
) -> AzimuthalBins:
    """The rings of a step as its files were when they were modified."""
    step = kind.model_validate_json(options, context={"folder": "."})
    dark, flat = (open_image(source, None) for source in (step.dark, step.flat))
    mask = open_mask(step.mask)
    others = step.model_dump(include={*InRings.model_fields} - {"operation", "geometry", "mask", "dark", "flat", "dummy"})
    modelled = read_poni(step.geometry).detector.shape is not None
    return build_bins(step.geometry, mask=mask, dark=dark, flat=flat, shape=None if modelled else shape, parallax=parallax, **others)


def find_response(source: Source) -> Response | None:
    """The response in a file, if it holds one and no single array of it is asked for."""
    found = None if source.dataset is not None else load_calibration(source.path)
    if found is not None and not isinstance(found, Response):
        raise InputError(f"expected a response in {source.path}, found {type(found).__name__}: fit_response writes one")
    if found is not None and (source.frames is not None or source.flip is not None):
        raise InputError(f"a response has no frames to choose or to turn over, as {source.path} is: leave frames and flip out")
    return found


def needs_of(step: Step, frames: Any, result: Any, depth: int) -> Needs:
    """What a step holds, in blocks of so many frames, rows, spectra or lines."""
    match step:
        case BuildPSF():
            pixels = depth * result.shape[1]
            return build_psf_bytes(pixels, int(most_coefficients(result) * pixels))
        case ConvertCrono():
            return needs_of_conversion(frames, depth)
        case RegridXRF():
            return needs_of_maps(step, frames, depth)
    shape = (frames.shape[1], frames.shape[2])
    itemsize = frames.dtype.itemsize
    match step:
        case FitResponse():
            return with_means(fit_response_bytes(shape, depth, itemsize, step.order), shape, [step.dark], depth)
        case CorrectResponse():
            return with_means(correct_response_bytes(shape, depth, itemsize, order=2), shape, [step.dark, step.flat], depth)
        case Deconvolve():
            return deconvolve_bytes(shape, depth, itemsize, open_psf(step.psf).data.size, step.method)
        case FitDistortion():
            return fit_distortion_bytes(shape, frames.data.chunksize[0], itemsize)
        case CorrectDistortion():
            matrix = overlaps_of(step)
            own = correct_distortion_bytes(shape, matrix.shape, depth, itemsize, matrix.data.size, step.variance is not None)
            # images of a dataset are written one by one, and are taken apart for that
            apart = 2 * result.nbytes * depth // len(frames) if isinstance(result, xr.Dataset) else 0
            return own + Needs(task=apart)
        case InRings():
            bins = bins_of(step, frames)
            counts = np.diff(bins.starts)
            return profiles_bytes(shape, depth, itemsize, int(counts.sum()), int(counts.max()), len(counts))
    raise TypeError(f"{type(step).__name__} is no step")


def with_means(own: Needs, shape: tuple[int, int], sources: list[Source | None], depth: int) -> Needs:
    """What a step holds, with the means of its darks and flats, which are made before."""
    images = [image for source in sources if (image := open_image(source, depth)) is not None]
    means = sum(mean_image_bytes(shape, image.data.chunksize[0], image.dtype.itemsize) for image in images)
    return own + Needs(prepared=means)


def needs_of_conversion(scan: xr.Dataset, depth: int) -> Needs:
    """What a conversion holds, in blocks of so many spectra."""
    channels, itemsize = scan.sizes["energy"], scan.spectra.dtype.itemsize
    grid = build_scan_grid(scan, method="selected")
    lines = selected_lines(scan, depth) or 1
    spectra = most_spectra(grid, lines, da.core.normalize_chunks(depth, (grid.spectra,))[0])
    own = convert_scan_bytes(depth, lines * pixels_a_line(grid), spectra, channels, itemsize)
    return own + Needs(once=BYTES_A_SPECTRUM * grid.spectra)


def needs_of_maps(step: RegridXRF, scan: xr.Dataset, depth: int) -> Needs:
    """What maps hold, in blocks of so many lines."""
    channels, itemsize = scan.sizes["energy"], scan.spectra.dtype.itemsize
    grid = grid_of(step)
    pixels, spectra = depth * pixels_a_line(grid), most_spectra(grid, depth, scan.spectra.data.chunks[0])
    own = regrid_bytes(pixels, spectra, channels, itemsize, smoothed=step.sigma_channels is not None)
    fitted = fit_bytes(pixels, channels) if step.elements and step.element_method == "fit" else 0
    cubes = 1 + step.variance + 2 * (step.elements is not None)
    matrices = cubes * matrix_bytes(grid.data.size, grid.coverage.size)
    task = max(own, regrid_bytes(pixels, spectra, channels, itemsize) + fitted)
    return Needs(once=matrices + BYTES_A_SPECTRUM * grid.spectra, task=task)


def pixels_a_line(grid: ScanGrid) -> int:
    """Pixels of the map that lie on a line of the scan."""
    return grid.shape[1] if lines_are_rows(grid.W, grid.shape) else grid.shape[0]


def most_coefficients(psf: SensorPSF) -> float:
    """Coefficients a pixel in that of the matrix's bands which has most."""
    counts, ends = psf.data.chunks[0], psf.indptr.chunks[0][1:]
    return max(count / pixels for count, pixels in zip(counts, ends, strict=True))
