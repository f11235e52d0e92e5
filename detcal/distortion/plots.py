"""Figures of a distortion map."""

from typing import TYPE_CHECKING

import numpy as np

from detcal.distortion.calibration import DistortionMap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_ARROWS = 1500
MOST_PIXELS = 512  # a side of the maps that are drawn


def plot_distortion(warp: DistortionMap, *, magnify: float = 5.0) -> "Figure":
    """Draw the dots with their displacements as arrows, and the displacements of pixels along y and x as images.

    Parameters
    ----------
    warp
        From `fit_distortion`, or loaded.
    magnify
        How much longer than true the arrows are.

    Returns
    -------
    matplotlib Figure
        Three panels; what the map masks is left out of the images.

    Examples
    --------
    >>> from detcal.distortion import fit_distortion, plot_distortion
    >>> from detcal.simulate import hole_grid
    >>> image = hole_grid((160, 160), pitch_px=20, barrel=0.03, missing=0, unevenness=0).image
    >>> warp = fit_distortion(image, pitch_m=5e-3)
    >>> figure = plot_distortion(warp)
    >>> figure.savefig("distortion.png")
    """
    from matplotlib import pyplot  # here, because workers need not carry it

    figure, (arrows, *maps) = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    moved = warp.displacement_px[:-1, :-1]
    y, x = warp.point_y.values, warp.point_x.values
    step = -(-len(y) // MOST_ARROWS) or 1
    places = tuple(np.round(line[::step]).astype(int).clip(0, size - 1) for line, size in zip((y, x), warp.shape, strict=True))
    arrows.plot(x, y, ".", color="0.7", markersize=2)
    arrows.quiver(
        x[::step], y[::step], moved[..., 1][places], moved[..., 0][places], angles="xy", scale_units="xy", scale=1 / magnify, color="C0"
    )
    arrows.set(title=f"dots, displacements × {magnify:g}", xlim=(0, warp.shape[1]), ylim=(warp.shape[0], 0), aspect="equal")
    thin = tuple(slice(None, None, -(-size // MOST_PIXELS)) for size in warp.shape)
    shown = np.where(warp.mask.values[..., None], np.nan, moved)[thin]
    limit = np.nanmax(np.abs(shown), initial=0) or 1.0
    for axis, name, image in zip(maps, ("y", "x"), np.moveaxis(shown, -1, 0), strict=True):
        drawn = axis.imshow(image, cmap="RdBu", vmin=-limit, vmax=limit, extent=(-0.5, warp.shape[1] - 0.5, warp.shape[0] - 0.5, -0.5))
        axis.set_title(f"displacement along {name} (px)")
    figure.colorbar(drawn, ax=maps)
    if warp.cross_validated_rms_px is not None:
        figure.suptitle(f"{len(y)} dots, {warp.left_out or 'none'} left out, cross-validated rms {warp.cross_validated_rms_px:.3f} px")
    return figure
