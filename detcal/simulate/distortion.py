"""Images of a hole grid behind a lens whose distortion is known."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Image = NDArray[np.float32]


@dataclass(frozen=True)
class HoleGrid:
    """A simulated image of a hole grid and what is true of it.

    Attributes
    ----------
    image : (y, x) float32
        Counts.
    y, x, row, column : (point,)
        Where the centres of the dots that are there lie, in pixels (pixel centres at whole numbers), and their place in the grid.
    affine : (2, 2)
        Pixels (y, x) a step of the grid along rows and columns.
    centre : (y, x)
        Pixel about which the lens is round.
    barrel, scale_px
        Strength of the lens, and the radius at which it moves by all of it: see `undistort`.
    """

    image: Image
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    affine: NDArray[np.float64]
    centre: NDArray[np.float64]
    barrel: float
    scale_px: float

    def to_grid(self, place: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rows and columns of the grid (…, 2), as fractions, at pixels (…, 2) as (y, x)."""
        return np.asarray((undistort(place, self.centre, self.barrel, self.scale_px) - self.centre) @ np.linalg.inv(self.affine).T)

    def to_pixels(self, grid: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels (…, 2) as (y, x), at rows and columns of the grid (…, 2)."""
        return distort(grid @ self.affine.T + self.centre, self.centre, self.barrel, self.scale_px)


def undistort(place: NDArray[np.float64], centre: NDArray[np.float64], barrel: float, scale: float) -> NDArray[np.float64]:
    """Where a place in the image (…, 2) would be without the lens: r from the centre is r·(1 + barrel·(r/scale)²) then."""
    away = place - centre
    return np.asarray(centre + away * (1 + barrel * ((away / scale) ** 2).sum(axis=-1, keepdims=True)))


def distort(place: NDArray[np.float64], centre: NDArray[np.float64], barrel: float, scale: float) -> NDArray[np.float64]:
    """The inverse of `undistort`, by Newton's method; NaN where a pincushion images nothing."""
    away = place - centre
    wanted = np.sqrt((away**2).sum(axis=-1, keepdims=True)) / scale
    rim = np.inf if barrel >= 0 else 1 / np.sqrt(-3 * barrel)  # of the image: further out the formula folds it over
    found = np.minimum(wanted, 0.99 * rim)
    for _ in range(40):
        found = np.minimum(found - (found * (1 + barrel * found**2) - wanted) / (1 + 3 * barrel * found**2), 0.9999 * rim)
    found[abs(found * (1 + barrel * found**2) - wanted) > 1e-9] = np.nan
    return np.asarray(centre + away * np.divide(found, wanted, out=np.ones_like(found), where=wanted > 0))


def hole_grid(
    shape: tuple[int, int] = (2048, 2048),
    *,
    pitch_px: float = 97.0,
    dot_diameter_px: float | None = None,
    rotation_deg: float = 0.5,
    shear: float = 0.0,
    stretch: float = 1.0,
    barrel: float = 0.03,
    missing: float = 0.05,
    peak: float = 3000.0,
    background: float = 200.0,
    unevenness: float = 0.5,
    blur_px: float = 0.8,
    dark_dots: bool = False,
    seed: int = 0,
) -> HoleGrid:
    """An image of a hole grid behind a lens, as counts with Poisson noise.

    Parameters
    ----------
    shape : rows, columns
    pitch_px
        Between holes in the middle of the image.
    dot_diameter_px
        By default a quarter of the pitch.
    rotation_deg
        Of the grid.
    shear, stretch
        Of the camera: columns that rows are shifted by, a row; how much lower pixels are than wide.
    barrel
        By which the corners of the image are drawn in, relative to their distance from its middle; negative: pincushion.
    missing
        Share of dots that are not there.
    peak, background
        Counts of light through holes, and all over the image, in the middle.
    unevenness
        How much of the light is lost in the corners; the middle of the light is not that of the image.
    blur_px
        Standard deviation of the blur of the dots' edges.
    dark_dots
        Dots take light away in place of adding it.
    seed
        Of the noise and of the missing dots.
    """
    rng = np.random.default_rng(seed)
    angle = np.radians(rotation_deg)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    affine = pitch_px * np.array([[stretch, 0.0], [shear, 1.0]]) @ turn
    middle = (np.array(shape) - 1) / 2
    centre, scale = middle + 0.01 * np.array(shape) * (0.7, -0.4), float(np.hypot(*middle))
    diameter = pitch_px / 4 if dot_diameter_px is None else dot_diameter_px
    none, nodeless = np.empty(0), np.empty(0, np.int64)
    model = HoleGrid(np.empty((0, 0), np.float32), none, none, nodeless, nodeless, affine, centre, barrel, scale)
    reach = int(1.6 * scale / pitch_px / min(1, stretch)) + 2
    nodes = np.stack(np.meshgrid(*(np.arange(-reach, reach + 1),) * 2, indexing="ij"), -1).reshape(-1, 2)
    places = model.to_pixels(nodes.astype(float))
    seen = (places > -diameter).all(axis=1) & (places < np.array(shape) + diameter).all(axis=1) & (rng.random(len(nodes)) >= missing)
    nodes, places = nodes[seen], places[seen]
    light = np.zeros(shape)
    for place in places:
        add_dot(light, place, model, diameter / pitch_px / 2, blur_px)
    y, x = np.ogrid[: shape[0], : shape[1]]
    lamp = 1 - unevenness * (((y - 0.6 * shape[0]) / shape[0]) ** 2 + ((x - 0.35 * shape[1]) / shape[1]) ** 2) / 0.78
    mean = lamp * (background + peak * (1 - light if dark_dots else light))
    image = rng.poisson(mean.clip(0)).astype(np.float32)
    inside = (places > diameter).all(axis=1) & (places < np.array(shape) - 1 - diameter).all(axis=1)
    (y, x), (row, column) = places[inside].T, nodes[inside].T
    return HoleGrid(image, y, x, row, column, affine, centre, barrel, scale)


def add_dot(light: NDArray[np.float64], place: NDArray[np.float64], model: HoleGrid, radius: float, blur_px: float) -> None:
    """Add the light through a hole of some radius, in pitches, whose edge is drawn by the map itself."""
    pixels_a_pitch = np.sqrt(abs(np.linalg.det(model.affine)))
    reach = int(1.6 * radius * pixels_a_pitch + 4 * blur_px) + 2
    first = np.maximum(np.round(place).astype(int) - reach, 0)
    last = np.minimum(np.round(place).astype(int) + reach + 1, light.shape)
    if (first >= last).any():
        return
    pixels = np.stack(np.meshgrid(*map(np.arange, first, last), indexing="ij"), -1).astype(float)
    away = model.to_grid(pixels) - model.to_grid(place)
    depth = (radius - np.hypot(away[..., 0], away[..., 1])) * pixels_a_pitch
    light[first[0] : last[0], first[1] : last[1]] += ndtr(depth / blur_px)
