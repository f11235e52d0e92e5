"""Steps of the detector's response."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import xarray as xr
from pydantic import Field, PrivateAttr

from detcal.frames.averages import Average
from detcal.frames.maps import frames_of_map
from detcal.frames.needs import Needs
from detcal.response import Response, correct_response, fit_response, plot_pixel_calibrations, ring_amplitude
from detcal.response.brightness import REGION
from detcal.response.eigenflats import MOST
from detcal.response.flats import flats_in_time
from detcal.response.kernels import count_planes
from detcal.response.memory import (
    Flats,
    correct_response_bytes,
    divided_bytes,
    eigenflats_bytes,
    fill_bytes,
    fit_response_bytes,
    sample_pixels_bytes,
)
from detcal.response.operations import Boundary
from detcal.response.samples import fit_samples, sample_pixels
from detcal_pipelines.pictures import Lines, Picture, pictures_of
from detcal_pipelines.steps.factors import Normalization, as_factors
from detcal_pipelines.steps.response_sources import DARK, Exposures, Place, ResponseSource, frames_a_block, means
from detcal_pipelines.steps.sources import DarkOrNumber
from detcal_pipelines.steps.step import Block, DarkSource, FlatSource, Kind, MaskSource, ReadyRecipe, Step, opened

FEWEST, RING_FRAMES, RING_BYTES = 4, 32, 2**26  # frames that rings are measured in, for a report, and bytes of them


class OfSweep(Step[Any]):
    """What steps that regress each pixel's expected signal on what it read in a beam sweep have in common."""

    beside: ClassVar = {"dark": DarkSource}

    dark: DarkOrNumber | None = Field(None, description=DARK, examples=["dark.h5"])
    mask: MaskSource | None = Field(
        None, description="known bad pixels: an image (not 0: bad), or an earlier response", examples=["first.zarr"]
    )
    sigma: float = Field(50.0, gt=0)
    cutoff: float = Field(300.0)
    order: Literal[1, 2] = Field(1, description="1: linear; 2: with a curvature")
    intercept: bool = Field(False, description="fit an offset too; by default the line goes through the origin")
    boundary: Boundary = Field("nearest")
    truncate: float = Field(4.0, gt=0)

    def prepare(self) -> Any:
        """The mask; the dark is part of the graph."""
        return opened(self.mask)


class FitResponse(OfSweep):
    """Fit the pixels' gains to a beam sweep."""

    operation: Literal["fit_response"] = "fit_response"
    mirrors = (fit_response,)
    ready_recipe = ReadyRecipe(
        "From a beam sweep to the pixels' gains (Croton et al. 2019).", "sweep.h5", "response.zarr", sets=("dark",),
        writes="gain, offset, gain_error, r_squared, frames_used, mask, reasons (y, x)",
    )  # fmt: skip

    saturation: float | None = Field(
        None,
        description="readings from this number on are saturated; default: what the file says, or the largest number of 16 bits or fewer, "
        "or a full scale where they pile up",
        examples=[65535],
    )
    average: Average = Field("clipped", description="of dark frames; clipped leaves zingers out, of three frames or more")
    dead: float = Field(0.1, gt=0)
    hot: float = Field(10.0, gt=0)
    nonlinear: float = Field(5.0, gt=0)
    blinking: float = Field(6.0, gt=0)
    dummy: float | None = Field(None, examples=[-1])
    partial_sums: int | None = Field(None, gt=0, examples=[3])

    @property
    def gives(self) -> Kind:
        return "calibration"

    def in_blocks(self, depth: int | None, begun: int) -> Self:
        """No more partial sums than blocks that are begun, which the plan counts with."""
        return self if self.partial_sums else self.model_copy(update={"partial_sums": begun})

    def build(self, data: Any, ready: Any) -> Response:
        dark = opened(self.dark, frames_a_block(data))
        return fit_response(data, **self.options_of(fit_response) | {"dark": dark, "mask": ready})

    def task_bytes(self, block: Block, ready: Any) -> Needs:
        own = fit_response_bytes(block.image_shape, block.depth, block.itemsize, self.order)
        if self.partial_sums:  # so many at once, however many blocks are begun
            height, width = block.image_shape
            own = own._replace(begun=0, once=own.once + self.partial_sums * 8 * count_planes(self.order) * height * width)
        return own + means(block, self.dark)

    def try_out(self, data: Any) -> Any:
        dark = np.zeros(data.shape[1:], np.float32)
        sweep = data * np.arange(1, len(data) + 1, dtype=data.dtype)[:, None, None]
        fits = [fit_response(sweep, each, sigma=1.0, cutoff=0.0, order=self.order, intercept=self.intercept) for each in (dark, None)]
        return fits[0].gain + fits[1].gain


class PlotPixelCalibrations(OfSweep):
    """Take what a few pixels read in a beam sweep and should have read; the report plots it."""

    operation: Literal["plot_pixel_calibrations"] = "plot_pixel_calibrations"
    mirrors = (plot_pixel_calibrations,)
    ready_recipe = ReadyRecipe(
        "From a beam sweep to plots of what pixels measured against what they should have.", "sweep.h5", "pixels.zarr", sets=("dark",),
        writes="measured, expected, float32 (frame, pixel); `pixels.zarr.html` plots them",
    )  # fmt: skip

    n_pixels: int = Field(9, gt=0)
    pixels: list[Place] | None = Field(None, examples=[[[100, 200], [300, 50]]])
    seed: int = Field(0)

    @property
    def gives(self) -> Kind:
        return "table"

    def build(self, data: Any, ready: Any) -> Any:
        dark = opened(self.dark, frames_a_block(data))
        return sample_pixels(data, **self.options_of(sample_pixels) | {"dark": dark, "mask": ready})

    def task_bytes(self, block: Block, ready: Any) -> Needs:
        return sample_pixels_bytes(block.image_shape, block.depth, block.itemsize) + means(block, self.dark)

    def try_out(self, data: Any) -> Any:
        options = self.options_of(sample_pixels) | {"n_pixels": 1, "pixels": None, "sigma": 1.0}
        return sample_pixels(data, **options | {"dark": np.zeros(data.shape[1:]), "mask": None}).measured

    def pictures(self, data: Any, result: xr.Dataset, ready: Callable[[], Any]) -> Mapping[str, Sequence[Picture]]:
        """The sweep; and for each pixel what it should have read over what it read, and the fit."""
        samples = result.compute()
        fitted = np.transpose(fit_samples(samples, self.cutoff, self.order, self.intercept))
        plots = [drawn(samples.isel(pixel=pixel), *each) for pixel, each in enumerate(fitted)]
        return {"What went in": pictures_of(data), "What came out": plots}


def drawn(sample: xr.Dataset, gain: float, offset: float, curvature: float, gain_error: float, r_squared: float) -> Lines:
    """A pixel's samples by rising signal, and the line through them."""
    order = np.argsort(sample.measured.values)
    measured, expected = sample.measured.values[order], sample.expected.values[order]
    title = f"row {sample.row.item()}, column {sample.column.item()}: gain {gain:.4f} ± {gain_error:.4f}, R² {r_squared:.5f}"
    line = offset + (gain + curvature * measured) * measured
    return Lines(title, measured, {"expected": expected, "fitted": line}, "measured (counts)", "counts")


class Known(NamedTuple):
    """What a correction takes from calibrations."""

    response: Response | None
    mask: Any

    def count_bad(self) -> int:
        """How many pixels they say are bad."""
        masks = [] if self.response is None else [self.response.mask]
        masks += [] if self.mask is None else [self.mask]
        return sum(int(np.count_nonzero(mask)) for mask in masks)


class CorrectResponse(Step[Known]):
    """Take off the dark, multiply by the gain, divide by the flat."""

    operation: Literal["correct_response"] = "correct_response"
    mirrors = (correct_response,)
    pixelwise = True
    beside: ClassVar = {"dark": DarkSource, "flat": FlatSource}
    ready_recipe = ReadyRecipe(
        "From raw CT frames to transmission without rings.", "ct.h5", "corrected.zarr", sets=("response", "dark", "flat"),
        writes="float32 (frame, y, x), transmission where there is a flat",
    )  # fmt: skip

    response: ResponseSource | None = Field(
        None,
        description="what fit_response wrote, or an image of gains: { path, sigma, boundary, truncate }; default: none, so that frames are "
        "divided by the flat as it is",
        examples=["response.zarr"],
    )
    dark: DarkOrNumber | None = Field(None, description=DARK, examples=["dark.h5"])
    flat: FlatSource | None = Field(None, description="sample-free image or frames; default: as dark", examples=["flat.h5"])
    flat_positions: str | list[float] | None = Field(
        None,
        description="where flats were taken: a coordinate of frames and flats, or a number for each flat frame: 0 where the first of the "
        "frames was taken, 1 where the next was, negative before; default: the numbers in the file, where frames and flats come from one "
        "stack",
        examples=["rotation_angle"],
    )
    flat_model: Literal["eigenflats"] | None = Field(
        None,
        description="eigenflats: the flat of each frame is the average and a part of each way in which flats differ, of a beam that moves; "
        "default: the average, or between flats in time",
        examples=["eigenflats"],
    )
    flat_components: int | None = Field(
        None, gt=0, description="how many eigenflats; default: as many as differ by more than noise, at most 12", examples=[2]
    )
    average: Average = Field("clipped", description="of dark and flat frames; clipped leaves zingers out, of three frames or more")
    saturation: float | None = Field(
        None, description="readings of dark and flat from this number on are none; default: as in fit_response", examples=[65535]
    )
    flat_is_dark_subtracted: bool = Field(False)
    residual_sigma: float | None = Field(
        None, ge=0, description="keep what the flat still shows where it exceeds this many standard deviations", examples=[3.0]
    )
    normalization: Normalization | None = Field(
        None,
        description="what each frame is divided by: a number, a list of numbers, the name of a coordinate of frames and flats, "
        "{ path, dataset, frames } of an array (of the file of the frames, the numbers of those that are taken), "
        'or a region that sees the open beam, "y0:y1, x0:x1"',
        examples=["0:50, 0:2000"],
    )
    exposure: str | Exposures | None = Field(
        None,
        description="exposure times: the name of a coordinate or attribute of frames, flats and darks, or { frames, flat, dark }",
        examples=["exposure_time_s"],
    )
    mask: MaskSource | None = Field(
        None, description="bad pixels beside those of the response: an image (not 0: bad), or another response", examples=["mask.edf"]
    )
    fill: Literal["interpolate"] | None = Field(
        None, description="interpolate: bad pixels are filled from their neighbours; default: they are NaN", examples=["interpolate"]
    )
    dummy: float | None = Field(None, examples=[-1])

    _groups: int = PrivateAttr(1)  # of flats that were taken together

    @property
    def takes_rows(self) -> bool:
        """Neighbours of a bad pixel may be in other rows, and so may a region; eigenflats are of whole frames."""
        region = isinstance(self.normalization, str) and REGION.fullmatch(self.normalization)
        return self.fill is None and self.flat_model is None and not region

    def for_data(self, data: Any) -> Self:
        """Knowing how many images the flats are averaged to."""
        suited = self.model_copy()
        if self.flat is not None and self.flat_model is None:
            suited._groups = len(flats_in_time(data, self.flat.open(1), self.options_of(correct_response)["flat_positions"])[0])
        return suited

    def prepare(self) -> Known:
        return Known(opened(self.response), opened(self.mask))

    def build(self, data: Any, ready: Known) -> Any:
        dark, flat = (opened(source, frames_a_block(data)) for source in (self.dark, self.flat))
        given = {"dark": dark, "flat": flat, "normalization": as_factors(self.normalization)}
        if isinstance(self.exposure, Exposures):
            given["exposure"] = self.exposure.model_dump(exclude_none=True)
        return correct_response(data, **self.options_of(correct_response) | ready._asdict() | given)

    def task_bytes(self, block: Block, ready: Known) -> Needs:
        own = correct_response_bytes(block.image_shape, block.depth, block.itemsize, order=2, flats=self._groups)
        for _ in filter(None, (self.normalization, self.exposure)):
            own += divided_bytes(block.image_shape, block.depth)
        if self.flat_model is not None and self.flat is not None:
            stack = self.flat.open(block.depth)
            components = self.flat_components or min(len(stack) - 1, MOST)
            flats = Flats(len(stack), stack.dtype.itemsize, frames_a_block(stack) * stack[0].nbytes)
            own += eigenflats_bytes(block.image_shape, block.depth, block.itemsize, flats, components)
        if self.fill is not None:
            own += fill_bytes(block.image_shape, block.depth, ready.count_bad())
        return own + means(block, self.dark, self.flat)

    def pictures(self, data: Any, result: xr.Dataset, ready: Callable[[], Known]) -> Mapping[str, Sequence[Picture | str]]:
        """What went in and came out, and rings in both."""
        corrected = frames_of_map(result["corrected" if "corrected" in result else "frames"])  # files of images have no names
        return {**super().pictures(data, result, ready), "Rings": [rings_in(data, corrected)]}

    def try_out(self, data: Any) -> Any:
        unit = Response.from_gain(np.ones(data.shape[1:]), sigma=1.0)
        curved = replace(unit, curvature=unit.offset)
        in_time = correct_response(data, flat=data, flat_positions=np.array([0, len(data) - 1]))
        filled = correct_response(data, unit, flat=data, mask=np.eye(*data.shape[1:]), fill="interpolate", normalization="0:2, 0:2")
        found = correct_response(data, curved, flat=data) + filled + in_time
        if self.flat_model is None:
            return found
        return found + correct_response(data, flat=np.concatenate([data, data]), flat_model="eigenflats", flat_components=1)


def rings_in(before: xr.DataArray, after: xr.DataArray) -> str:
    """The ring amplitudes of a few frames, in a sentence."""
    looked = [few_frames(frames) for frames in (before, after)]
    if min(map(len, looked)) < FEWEST:
        return f"They are measured from {FEWEST} frames on."
    found = [1e3 * float(ring_amplitude(frames).compute(scheduler="synchronous")) for frames in looked]
    return (
        f"Pixels differ from their neighbours, in {len(looked[1])} of {len(after)} frames alike, by {found[0]:.3g} ‰ of the beam before "
        f"and {found[1]:.3g} ‰ after: a robust standard deviation, apart from noise (detcal.response.ring_amplitude)."
    )


def few_frames(frames: xr.DataArray) -> xr.DataArray:
    """Frames evenly between the first and the last; of those that are stored by rows some rows in the middle."""
    if frames.chunks is not None and len(frames.chunks[1]) > 1:
        rows = frames.chunks[1][0]
        top = frames.shape[1] // 2 // rows * rows
        return frames[:, top : top + rows]
    number = min(len(frames), RING_FRAMES, max(FEWEST, RING_BYTES // frames[0].nbytes))
    numbers = np.linspace(0, len(frames) - 1, number).round().astype(int).tolist()
    return xr.concat([frames[number : number + 1] for number in numbers], "frame")  # each read alone: an index takes whole blocks
