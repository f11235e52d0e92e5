"""From a recipe to the lazy object that it describes, and what each of its steps costs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from detcal.errors import InputError, OutputError
from detcal.response import Response, correct_response, fit_response
from detcal.response.memory import correct_response_bytes, fit_response_bytes, mean_image_bytes
from detcal.stores import check_output, load_calibration, open_frames
from detcal_pipelines.recipe import CorrectResponse, FitResponse, Input, Recipe, Source, Step


def open_input(source: Input, chunk_frames: int | None) -> xr.DataArray:
    """The raw frames of a recipe, in blocks of so many."""
    return open_frames(source.path, source.dataset, chunks=None if chunk_frames is None else {"frame": chunk_frames})


def build(recipe: Recipe, chunk_frames: int | None = None, lanes: int = 1) -> Any:
    """The lazy result of all steps: a stack or a calibration."""
    result: Any = open_input(recipe.input, chunk_frames)
    for step in recipe.steps:
        result = apply(step, result, lanes)
    return result


def check_result(recipe: Recipe, result: Any) -> None:
    """Refuse, before anything runs, an output that could not be written, or that would take the place of an input."""
    output = recipe.output
    shards = None if output.shard_frames is None else {"frame": output.shard_frames}
    frames = [recipe.input.path] if isinstance(recipe.input.path, str) else recipe.input.path
    images = [source.path for step in recipe.steps for _, source in step if isinstance(source, Source)]
    target = Path(output.path)
    for path in map(Path, frames + images):
        if any(place in (each, *each.parents) for place in (target, target.resolve()) for each in (path, path.resolve())):
            raise OutputError(f"the output {output.path} would take the place of the input {path}: choose another name")
    check_output(result, output.path, overwrite=output.overwrite, shards=shards)


def apply(step: Step, frames: xr.DataArray, lanes: int) -> Any:
    """One step on lazy frames."""
    depth = frames.data.chunksize[0]
    match step:
        case FitResponse():
            options = step.model_dump(exclude={"operation", "dark", "mask"})
            return fit_response(frames, open_image(step.dark, depth), mask=open_mask(step.mask), lanes=lanes, **options)
        case CorrectResponse():
            options = step.model_dump(include={"residual_sigma", "flat_is_dark_subtracted"})
            dark, flat = open_image(step.dark, depth), open_image(step.flat, depth)
            return correct_response(frames, open_response(step.response), dark, flat, **options)


def compile_kernels(step: Step, frames: xr.DataArray) -> None:
    """Run a step on a few pixels of the frames' type: workers then load its machine code, and need no compiler's memory."""
    tiny = np.ones((2, 4, 4), frames.dtype)
    unit = Response.from_gain(np.ones((4, 4)), sigma=1.0)
    match step:
        case FitResponse():
            result: Any = fit_response(tiny, sigma=1.0, cutoff=0.0, order=step.order, intercept=step.intercept).gain
        case CorrectResponse():
            curved = replace(unit, curvature=unit.offset)
            result = correct_response(tiny, curved, flat=tiny) + correct_response(tiny, unit, flat=tiny)
    result.compute(scheduler="synchronous")


def open_image(source: Source | None, chunk_frames: int) -> xr.DataArray | None:
    """An image or its frames, if the recipe names one."""
    return None if source is None else open_frames(source.path, source.dataset, chunks={"frame": chunk_frames})


def open_mask(source: Source | None) -> Any:
    """The mask of an earlier response, or an image that is not 0 in bad pixels."""
    if source is None:
        return None
    response = find_response(source)
    return open_frames(source.path, source.dataset)[0] != 0 if response is None else response.mask


def open_response(source: Source) -> Response:
    """A response that `detcal` wrote, or an image of gains."""
    response = find_response(source)
    return Response.from_gain(open_frames(source.path, source.dataset)[0]) if response is None else response


def find_response(source: Source) -> Response | None:
    """The response in a file, if it holds one and no single array of it is asked for."""
    found = None if source.dataset is not None else load_calibration(source.path)
    if found is not None and not isinstance(found, Response):
        raise InputError(f"expected a response in {source.path}, found {type(found).__name__}: fit_response writes one")
    return found


def task_bytes(step: Step, frames: xr.DataArray, chunk_frames: int) -> int:
    """What one task of a step holds at its peak: in its blocks, or before them in those of its dark and flat."""
    shape = (frames.shape[1], frames.shape[2])
    itemsize = frames.dtype.itemsize
    match step:
        case FitResponse():
            own, sources = fit_response_bytes(shape, chunk_frames, itemsize, step.order), [step.dark]
        case CorrectResponse():
            own, sources = correct_response_bytes(shape, chunk_frames, itemsize, order=2), [step.dark, step.flat]
    images = [image for source in sources if (image := open_image(source, chunk_frames)) is not None]
    return max(own, *(mean_image_bytes(shape, image.data.chunksize[0], image.dtype.itemsize) for image in images), 0)
