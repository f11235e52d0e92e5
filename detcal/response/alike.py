"""Images of a whole detector beside frames of which a part was taken, or pixels joined, since: brought to the frames' pixels, lazily.

`crop` and `rebin` note what they did in an attribute of the frames, which files keep. A dark, a flat or a mask of the shape that frames had
before one of these goes the same way from there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from detcal.errors import InputError
from detcal.frames.corrections import attributes_of, corrections_of
from detcal.frames.limits import find_limit
from detcal.frames.notes import RESIZED
from detcal.frames.stack import as_stack
from detcal.frames.valid import as_mask, find_readings, without
from detcal.response.calibration import Response
from detcal.response.resizing import binned_line, crop, rebin

ALIKE = "resized_alike"  # attribute of a result: which of these images came to the frames' pixels so
DONE = re.compile(
    r"(?:crop (?P<region>\d+:\d+, \d+:\d+)|(?P<how>sum|mean) of (?P<down>\d+) x (?P<across>\d+))"
    r" of (?P<height>\d+) x (?P<width>\d+)"
)
MOVED = ("parallax", "distortion")  # corrections after which pixels are no longer those of the detector


@dataclass(frozen=True)
class Resizing:
    """A crop or a rebinning of frames, and the shape that these had before."""

    of: tuple[int, int]
    region: str | None
    how: Any
    factors: tuple[int, int]

    @classmethod
    def parse(cls, text: str) -> "Resizing | None":
        """As frames note it; None: another program's note."""
        found = DONE.fullmatch(text)
        if found is None:
            return None
        factors = int(found["down"] or 1), int(found["across"] or 1)
        return cls((int(found["height"]), int(found["width"])), found["region"], found["how"], factors)

    def of_frames(self, frames: Any) -> xr.DataArray:
        """Of frames, of which all numbers are readings if pixels are joined."""
        return crop(frames, self.region) if self.region else rebin(frames, self.factors, how=self.how)

    def of_image(self, image: xr.DataArray) -> xr.DataArray:
        """Of an image (y, x); a mask says of a group that it is bad if one of its pixels is."""
        if self.region is None:
            return binned_line(image, dict(zip("yx", self.factors, strict=True)))
        rows, columns = (slice(*map(int, part.split(":"))) for part in self.region.split(","))
        return image.isel(y=rows, x=columns)


class Alike(NamedTuple):
    """Images that go with frames, the saturation that is still to be heeded in them, and attributes that say what was done."""

    images: dict[str, Any]
    saturation: float | None
    attrs: dict[str, Any]


def as_the_frames(frames: xr.DataArray, given: Mapping[str, Any], *, dummy: float | None = None, saturation: float | None = None) -> Alike:
    """Darks and flats, masks and a response, of a detector of which the frames are a part, or have joined pixels, as the frames are.

    Parameters
    ----------
    frames : (frame, y, x)
        From `as_stack`.
    given
        By the names "dark", "flat", "mask" and "response", as the caller of an operation gave them.
    dummy, saturation
        As for `correct_response`. Where pixels are joined, saturated readings are left out before.

    Raises
    ------
    InputError
        A response beside frames of joined pixels; an image of another shape than frames have, or ever had.
    """
    ways = {name: way for name, each in given.items() if (way := way_to(frames, shape_of(each), f"a {name}"))}
    if not ways:
        return Alike(dict(given), saturation, {})
    joined = any(step.region is None for way in ways.values() for step in way)
    found = dict(given)
    for name, each in given.items():
        way = ways.get(name, [])
        if isinstance(each, Response):
            found[name] = response_along(each, way)
        elif name == "mask":
            found[name] = mask_along(each, way)
        elif np.ndim(each) >= 2 and (way or joined):
            found[name] = stack_along(each, way, f"a {name}", dummy, saturation, joined=joined)
    return Alike(found, None if joined else saturation, {ALIKE: list(ways)})


def way_to(frames: xr.DataArray, shape: tuple[int, ...], name: str) -> list[Resizing]:
    """What was done to the frames since they had a shape; nothing, if they have it, or were moved to other pixels.

    Raises
    ------
    InputError
        They never had it.
    """
    if len(shape) < 2 or shape == frames.shape[1:] or any(moved in corrections_of(frames) for moved in MOVED):
        return []
    noted = frames.attrs.get(RESIZED, ())
    done = [Resizing.parse(str(text)) for text in (noted if isinstance(noted, list | tuple) else ())]
    known = [] if None in done else [step for step in done if step is not None]
    first = next((number for number, step in enumerate(known) if step.of == shape), None)
    if known and first is None:
        raise InputError(
            f"expected {name} of shape {frames.shape[1:]} (y, x), as the frames, or {' or '.join(str(step.of) for step in known)}, as "
            f"these before they were cropped or rebinned, got {shape}"
        )
    return known[first:]


def shape_of(image: Any) -> tuple[int, ...]:
    """Rows and columns of an image, a stack or a response; none of a number."""
    return image.shape if isinstance(image, Response) else tuple(np.shape(image)[-2:])


def stack_along(image: Any, way: list[Resizing], name: str, dummy: float | None, saturation: float | None, *, joined: bool) -> xr.DataArray:
    """Frames, or an image, of the whole detector, along that way."""
    found = as_stack(image, name)
    if joined:
        limit = find_limit(found, saturation)
        found, valid = find_readings(found, dummy=dummy, beside=True)
        measured = without(found, valid if limit is None else valid.below(limit))
        found = measured.drop_attrs(deep=False).assign_attrs(attributes_of(found, {}))
    for step in way:
        found = step.of_frames(found)
    return found


def mask_along(mask: Any, way: list[Resizing]) -> Any:
    """A mask of the whole detector along that way."""
    if not way:
        return mask
    found = xr.DataArray(as_mask(mask, way[0].of, "detector"), dims=("y", "x"))
    for step in way:
        found = step.of_image(found)
    return found


def response_along(response: Response, way: list[Resizing]) -> Response:
    """The response of a part of the detector.

    Raises
    ------
    InputError
        Pixels were joined, whose gains differ.
    """
    if any(step.region is None for step in way):
        raise InputError(
            f"expected frames of shape {response.shape} (y, x), as the response, got some whose pixels were joined: the gains are those of "
            "single pixels; rebin after correct_response, or fit a response to a sweep that was rebinned alike"
        )
    images: dict[str, Any] = {
        field.name: image for field in fields(response) if isinstance(image := getattr(response, field.name), xr.DataArray)
    }
    for step in way:
        images = {name: step.of_image(image) for name, image in images.items()}
    return replace(response, **images) if way else response
