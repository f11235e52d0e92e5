"""What the calibration of a distorted camera gives: the dots that were found, and the map that they tell of."""

from dataclasses import dataclass

import xarray as xr


@dataclass(frozen=True, eq=False)
class GridPoints:
    """Dots of a grid in an image. From `find_grid_points`.

    Attributes
    ----------
    y, x : (point,) px
        Centres; those of pixels lie at whole numbers.
    quality : (point,)
        Share of the image's variation about the dot that a round dot explains, 0 … 1.
    height : (point,) counts
        Of the dot above the background; negative for dark dots.
    dot_diameter_px, spacing_px
        Of the dots in the mean.
    shape : rows, columns
        Of the image.
    """

    y: xr.DataArray
    x: xr.DataArray
    quality: xr.DataArray
    height: xr.DataArray
    dot_diameter_px: float
    spacing_px: float
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.y)
