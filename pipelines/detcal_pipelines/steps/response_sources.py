"""What steps of the response are given, and what it takes to average darks and flats."""

from typing import Annotated, Any

from pydantic import Field

from detcal.errors import InputError
from detcal.frames.images import FIT
from detcal.frames.needs import Needs
from detcal.response import Response
from detcal.response.memory import mean_image_bytes
from detcal.response.operations import Boundary
from detcal_pipelines.steps.blocks import Block
from detcal_pipelines.steps.sources import FramesSource, ImageSource, Table

DARK = (
    "dark image or frames: a path, a list, or { path, dataset, frames, flip }, or a number; default: those in the file of the frames, "
    "if it names any"
)


Place = Annotated[list[int], Field(min_length=2, max_length=2)]


class ResponseSource(ImageSource):
    """A response that `detcal` wrote, or an image of gains, with the smoothing that they were fitted with."""

    sigma: float | None = Field(None, gt=0)
    boundary: Boundary | None = None
    truncate: float | None = Field(None, gt=0)

    def open(self) -> Response:
        """The response.

        Raises
        ------
        InputError
            What is none, and a smoothing for a response that says its own.
        """
        given = {name: getattr(self, name) for name in ("sigma", "boundary", "truncate") if getattr(self, name) is not None}
        response = self.find_response()
        if response is None:
            return Response.from_gain(self.open_image("a response or gains", FIT), **given)
        if given:
            raise InputError(f"{self.path} is a response, which says its own smoothing: leave {' and '.join(given)} out")
        return response


Times = float | list[float] | None


class Exposures(Table):
    """Exposure times of frames, flats and darks: a number, or one for each."""

    frames: Times = None
    flat: Times = None
    dark: Times = None


def frames_a_block(frames: Any) -> int:
    """How deep the blocks of frames are: darks and flats are read in blocks as deep."""
    return int(frames.data.chunksize[0])


def means(block: Block, *sources: FramesSource | float | None) -> Needs:
    """What it takes to average darks and flats, before the first block: one after the other, some rows where their file has them so."""
    images = [source.open(block.depth) for source in sources if isinstance(source, FramesSource)]
    tiles = [(image.data.chunksize[1], image.shape[2]) for image in images]
    return Needs(
        prepared=sum(mean_image_bytes(tile, frames_a_block(image), image.dtype.itemsize) for tile, image in zip(tiles, images, strict=True))
    )
