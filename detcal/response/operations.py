"""The response fit and the correction as lazy graphs: a stack in, a calibration or a stack out."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from dask.delayed import delayed

from detcal.errors import InputError
from detcal.frames.arrays import ArrayLike
from detcal.frames.averages import Average, check_average
from detcal.frames.beside import with_flags_of
from detcal.frames.corrections import attributes_of, corrections_of, refuse_twice
from detcal.frames.graph import fold_tiles, map_frames, whole_frames
from detcal.frames.limits import find_limit, said_highest
from detcal.frames.maps import over_maps
from detcal.frames.selection import check_projections
from detcal.frames.single import images_too
from detcal.frames.stack import as_stack
from detcal.frames.valid import find_readings
from detcal.response import correction, defects, kernels
from detcal.response.alike import as_the_frames
from detcal.response.brightness import (
    as_region,
    divided_by,
    divided_by_region,
    exposures_of,
    light_of_frames,
    with_light,
)
from detcal.response.calibration import Response
from detcal.response.flats import flats_in_time
from detcal.response.images import as_dark_image, as_flat, dark_at, darks_by_exposure, divided_terms, filled, terms_of
from detcal.response.moving import check_eigenflats, correct_by_eigenflats, find_eigenflats
from detcal.response.options import check_correction, check_order, check_smoothing, checked_limits
from detcal.response.solving import count_tiles, rows_a_tile, solve_tiles

Boundary = Literal["nearest", "reflect", "mirror", "wrap"]
# What the bits of an image of reasons mean, in the words of the CF conventions
REASONS = {"flag_masks": [1 << bit for bit in range(len(defects.NAMES))], "flag_meanings": " ".join(defects.NAMES)}


def fit_response(
    sweep: ArrayLike,
    dark: ArrayLike | None = None,
    *,
    mask: ArrayLike | None = None,
    sigma: float = 50.0,
    cutoff: float = 300.0,
    saturation: float | None = None,
    average: Average = "clipped",
    dead: float = 0.1,
    hot: float = 10.0,
    nonlinear: float = 5.0,
    blinking: float = 6.0,
    order: Literal[1, 2] = 1,
    intercept: bool = False,
    boundary: Boundary = "nearest",
    truncate: float = 4.0,
    dummy: float | None = None,
    partial_sums: int | None = None,
) -> Response:
    """Fit each pixel's gain to a beam sweep, lazily.

    Each frame, less the dark (V), is smoothed (S) to what the pixel should have read; S is then regressed on V over the
    frames where S is above the cutoff: gain = ΣVS/ΣV². Only sums are kept, so that the sweep is read once and the
    smoothed stack never exists.

    Parameters
    ----------
    sweep : (frame, y, x)
        Frames over the range of beam intensities, any integer or real type, counts. What was not measured (NaN, infinite, and
        flagged numbers, see `detcal.frames.valid`) takes no part, nor in the smoothing of its neighbours.
    dark : (y, x) or (frame, y, x), or number, optional
        Dark image, or dark frames to be averaged, of which what was not measured takes no part. A number is that of all pixels.
    mask : (y, x) bool, optional
        True: pixels known to be bad. A stuck pixel that is not masked raises what its neighbours are expected to read; a
        second fit with `mask=first.mask` is free of that.
    sigma : pixels
        Standard deviation of the gaussian that smooths each frame; large enough to average the pixels' differences out.
    cutoff : counts
        Smoothed signals below or at it are left out.
    saturation : counts, optional
        Readings from this number on are saturated: they take no part, nor do frames in pixels near which more than 1 in 500 readings
        (by the weights of the smoothing) are. By default what the file says, or the largest number of an integer of up to 16 bits; and, in
        frames of any type, with a warning, the full scale of 10 to 16 bits (2¹²−1, say) at which the readings of a frame pile up.
    average : "clipped", "mean" or "median"
        Of dark frames. "clipped" leaves out what single readings of three or more have too much, or too little: zingers, dropped
        readings. Of two it says where they differ by far more than noise.
    dead : float
        A pixel is dead that reads less than this part of what is expected.
    hot : float
        A pixel is hot that reads more than so many times what is expected.
    nonlinear : standard deviations
        Of the neighbours, by which an intercept must fit a pixel better for it to be nonlinear. Not looked for where one is fitted, nor in
        order 2.
    blinking : standard deviations
        Of the neighbours, by which the scatter of a pixel's readings about its fit (the logarithm of their variance) must be larger for it
        to be blinking.
    order : 1 or 2
        Linear, or with a curvature.
    intercept : bool
        Fit an offset too. By default the line goes through the origin.
    boundary : "nearest", "reflect", "mirror" or "wrap"
        How the smoothing goes on beyond the edge, as in scipy.ndimage.
    truncate : float
        Radius of the gaussian in sigmas.
    dummy : number, optional
        Stands for "no reading" in the sweep and the dark, in place of all other flags. It and they are compared as float32.
    partial_sums : int, optional
        How many partial sums may exist at once; each holds 7 float64 images (10 for order 2). The result does not depend on it.
        Default: one more than there are threads, or threads of workers on a cluster.

    Returns
    -------
    Response
        Its images are lazy (y, x).

    Raises
    ------
    InputError
        Here, for options and shapes; when computed, if fewer than two frames are usable, or the beam is the same in all of them: what each
        pixel should have read deviates from its mean by less than 1 %, in all pixels but one of a hundred.

    Notes
    -----
    Neighbours, for what is nonlinear or blinking, are good pixels in a square of 128 × 128 about a tile of 64 × 64. A standard deviation
    is at least what photons' noise makes, and what is below 0.1 % of the signal counts for nothing. What few frames cannot tell is not
    found: of 24 frames of 700 to 20000 counts, nine of ten pixels that lack 15 % at the end of their range are, and nearly all that lack
    15 % in every third frame. Of good pixels fewer than 1 in 10⁵ are taken for bad.

    The noise of V lowers the gain by about 1/(mean counts), in all pixels alike: no rings come of it. Where the beam
    bends over a few sigma, S is not what the pixel should have read, and the gain carries a smooth error.

    References
    ----------
    Croton, Ruben, Morgan, Paganin and Kitchen, Optics Express 27 (2019) 14231, eq. 2.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.response import fit_response
    >>> pixels = np.ones((8, 8))
    >>> pixels[3, 4] = 0.5
    >>> sweep = np.linspace(1000, 9000, 5)[:, None, None] * pixels
    >>> response = fit_response(sweep, sigma=1.0)
    >>> round(float(response.gain[3, 4]), 1)
    1.8
    """
    check_smoothing(sigma, boundary, truncate)
    check_order(order)
    check_average(average)
    if partial_sums is not None and partial_sums < 1:
        raise InputError(f"expected partial_sums of at least 1, got {partial_sums}")
    limits = checked_limits(dead=dead, hot=hot, nonlinear=nonlinear, blinking=blinking)
    stack = as_stack(sweep, "a sweep")
    if len(stack) < 2:
        raise InputError("expected a sweep of at least 2 frames, got 1")
    if dark is not None:
        refuse_twice(stack, ["dark"], "leave the dark out", "a sweep")
    shape = stack.shape[1:]
    dark = with_flags_of(stack, dark, "a dark")
    limit, sought = find_limit(stack, saturation), saturation is None and said_highest(stack) is None
    beside = as_the_frames(stack, {"dark": dark, "mask": mask}, dummy=dummy, saturation=saturation)
    dark, mask = beside.images["dark"], beside.images["mask"]
    stack, valid = find_readings(stack, dummy=dummy)
    dark_image = delayed(as_dark_image(dark, mask, shape, dummy=dummy, saturation=beside.saturation, average=average))
    add = partial(
        kernels.accumulate, tile_rows=rows_a_tile(shape), order=order, sigma=sigma, cutoff=cutoff, boundary=boundary, truncate=truncate,
        valid=valid if saturation is None else valid.below(saturation), limit=limit, sought=sought,
    )  # fmt: skip
    sums = fold_tiles(whole_frames(stack), add, np.add, dark_image, tiles=count_tiles(shape), partial_sums=partial_sums)
    solved = solve_tiles(sums, shape, order=order, intercept=intercept, cutoff=cutoff, limits=limits)
    gain, offset, curvature, gain_error, r_squared, frames_used, frames_saturated, reasons = (
        xr.DataArray(image, dims=("y", "x")) for image in solved
    )
    return Response(
        gain=gain, offset=offset, gain_error=gain_error, r_squared=r_squared, frames_used=frames_used, mask=reasons != 0,
        frames_saturated=frames_saturated, reasons=reasons.assign_attrs(REASONS), curvature=curvature if order == 2 else None,
        sigma=sigma, cutoff=cutoff, order=order, intercept=intercept, boundary=boundary, truncate=truncate,
    )  # fmt: skip


@images_too
@over_maps()
def correct_response(
    frames: ArrayLike,
    response: Response | None = None,
    *,
    dark: ArrayLike | None = None,
    flat: ArrayLike | None = None,
    flat_positions: str | ArrayLike | None = None,
    flat_model: Literal["eigenflats"] | None = None,
    flat_components: int | None = None,
    average: Average = "clipped",
    saturation: float | None = None,
    residual_sigma: float | None = None,
    flat_is_dark_subtracted: bool = False,
    normalization: ArrayLike | float | str | tuple[slice, slice] | None = None,
    exposure: str | Mapping[str, Any] | None = None,
    mask: ArrayLike | None = None,
    fill: Literal["interpolate"] | None = None,
    dummy: float | None = None,
) -> xr.DataArray:
    """Take the dark off the frames, multiply by the gain and divide by the smoothed flat, lazily.

    Without a response this is plain flat-field correction, (frame − dark)/(flat − dark), by the flat as it is.

    Parameters
    ----------
    frames : (frame, y, x), or (row, column, y, x) of a map, or an image (y, x)
        Raw frames of any integer or real type, counts.
    response : Response, optional
        From `fit_response`, `detcal.load` or `Response.from_gain`.
    dark : (y, x) or (frame, y, x), or number, optional
        Dark image, or dark frames to be averaged. Taken off the frames and the flat. A number is that of all pixels. Darks and flats that
        say nothing of it have the flags of the frames. Where these say how they were cropped or rebinned, a dark, flat, mask or response
        may have the shape before: it goes the same way.
    flat : (y, x) or (frame, y, x), optional
        Sample-free image, or frames to be averaged. With a response it is smoothed as in the fit, so that its own noise makes no rings.
    flat_positions : str or numbers, optional
        Where the flats were taken: between those before and those after it, a frame is divided by a flat in proportion. The name of a
        coordinate of frames and flats, a time or an angle say; or a number for each flat frame: 0 where the first of the frames that are
        given was taken, 1 where the next was, negative before. By default the numbers in the file, where frames and flats come from one
        stack of it (NXtomo); else all flats are averaged.
    flat_model : "eigenflats", optional
        Of a beam that moves from frame to frame: its flat is the average flat and a part of each eigenflat (see Notes). None: the average
        is the flat, or lies between those that `flat_positions` says.
    flat_components : int, optional
        How many eigenflats there are. Default: as many as differ by more than noise does, at most 12.
    average : "clipped", "mean" or "median"
        Of dark and flat frames. "clipped" leaves out what single readings of three or more have too much, or too little: zingers, dropped
        readings. Of two it says where they differ by far more than noise.
    saturation : counts, optional
        Readings of dark and flat from this number on are none. By default what the file says, or the largest number of an integer of up to
        16 bits.
    residual_sigma : float, optional
        Keep what the flat still shows after the gain (new dust, say) where it exceeds this many standard deviations; 3 is
        usual. None: none of it.
    flat_is_dark_subtracted : bool
        The flat has had its dark taken off already. Not needed for one that says so in its attributes.
    normalization : (frame,), number, name or region, optional
        What each frame is divided by: a monitor, say, which becomes a coordinate of the result. The name of a coordinate, or attribute, of
        the frames: flats are then divided by theirs, so that they must have it too; numbers are taken relative to those of the flats. Or
        a region that sees the open beam in every frame, "y0:y1, x0:x1" (or two slices), the mean of which becomes 1: a frame of
        which it is not above 0 is NaN.
    exposure : name, or numbers by "frames", "flat" and "dark", optional
        Exposure times: frames and flats are divided by theirs. The name of a coordinate, or attribute, of all; or a number, or one for
        each, of frames, flats and darks. Between darks of several exposures that of frames or flats is taken on a line; a dark of one
        exposure, or of which it is not known, is taken off as it is.
    mask : (y, x) bool, optional
        True: pixels that are bad, beside those of the response; they take no part in the smoothing of a flat either.
    fill : "interpolate", optional
        Bad pixels (of the response and the mask, and those for which dark or flat have no value) are filled from their neighbours, good
        ones up to 8 pixels away: the mean of lines between the nearest on opposite sides, in a row, a column and both diagonals, by inverse
        distance. None: they are NaN. What single frames lack stays NaN.
    dummy : number, optional
        Stands for "no reading" in frames, dark and flat, in place of all other flags. It and they are compared as float32.

    Returns
    -------
    DataArray (frame, y, x), float32
        Counts, or transmission with a flat; of an image (y, x). NaN: masked by the response, or not measured (NaN, infinite, flagged, see
        `detcal.frames.valid`) in the frame, or in the dark, or in all of its frames. A flat's is bridged by its smoothing. Coords and
        chunks are those of `frames`; attributes say what was corrected. With `fill`, the coordinate `filled` (y, x) is True where values
        were not measured but filled, and the attribute `fill` says how.

    Raises
    ------
    InputError
        Here, for shapes and options, for projections among which are flats or darks of their file, by an image_key, and for frames that
        say they have had a gain, a dark, a flat or a normalization already; when
        computed, for a flat that is nowhere brighter than its dark, or all of it saturated.

    Notes
    -----
    Eigenflats are the principal components of the flats, each less the average flat of the same brightness, in units of photon noise;
    readings that stand out, zingers, take no part. How many there are says parallel analysis (Horn 1965): their eigenvalues are larger
    than those of white noise, whose level and spread are those of the smaller half. A frame's part of each is what leaves the least total
    variation in the corrected frame, in groups of as many pixels as show the eigenflats best (Van Nieuwenhove et al. 2015). No region has
    to be free of the sample; but what is as smooth as the sample is found less well, and a sample that looks like an eigenflat is
    corrected away. How bright the beam was no frame with a sample says: that is for `normalization`. Flats should be many, and show all
    that the beam does.

    References
    ----------
    Croton et al., Optics Express 27 (2019) 14231, section 2. Van Nieuwenhove, De Beenhouwer, De Carlo, Mancini, Marone and Sijbers, Optics
    Express 23 (2015) 27975. Horn, Psychometrika 30 (1965) 179.

    Examples
    --------
    >>> import numpy as np
    >>> from detcal.response import Response, correct_response
    >>> gains = Response.from_gain(np.ones((4, 4)), sigma=1.0)
    >>> frames, dark, flat = np.full((2, 4, 4), 1100.0), np.full((4, 4), 100.0), np.full((4, 4), 2100.0)
    >>> float(correct_response(frames, gains, dark=dark, flat=flat).mean())
    0.5
    >>> fading = np.stack([flat, flat - 400])  # before the first frame, and after the last
    >>> correct_response(frames, dark=dark, flat=fading, flat_positions=[-0.5, 1.5]).mean(("y", "x")).values.round(3)
    array([0.526, 0.588], dtype=float32)
    """
    stack = as_stack(frames)
    shape = stack.shape[1], stack.shape[2]
    check_average(average)
    dark, flat = with_flags_of(stack, dark, "a dark"), with_flags_of(stack, flat, "a flat")
    beside = as_the_frames(stack, {"response": response, "dark": dark, "flat": flat, "mask": mask}, dummy=dummy, saturation=saturation)
    (response, dark, flat, mask), saturation = beside.images.values(), beside.saturation
    check_correction(shape, response, dark, flat, flat_positions, residual_sigma, fill)
    check_eigenflats(flat_model, flat_components, flat, flat_positions)
    if dark is not None or flat is not None:
        check_projections(stack)
    given = {"dark": dark, "gain": response, "flat": flat, "normalization": normalization}
    done = [name for name, each in given.items() if each is not None]
    refuse_twice(stack, done, "leave out what was done: dark, flat, normalization, or the whole correction")
    region = as_region(normalization, shape)
    monitor = None if region else normalization
    light = light_of_frames(stack, monitor, exposure)
    groups, places = [], None
    if flat is not None:
        flat = with_light(flat, monitor, exposure)
        groups, places = ([flat], None) if flat_model else flats_in_time(stack, flat, flat_positions)
    stack, valid = find_readings(stack, dummy=dummy)
    options: dict[str, Any] = {"dummy": dummy, "average": average, "saturation": saturation}
    darks = darks_by_exposure(dark, exposure, shape, **options)
    dark_image = dark_at(darks, None if exposure is None else exposures_of(stack, exposure), "frames")
    terms, bad, smoothing = terms_of(response, mask, shape)
    flat_is_dark_subtracted |= "dark" in corrections_of(flat)
    divide = partial(correction.flat_divisor, smoothing=smoothing, residual_sigma=residual_sigma)
    flats = [as_flat(each, {} if flat_is_dark_subtracted else darks, shape, divide, terms, bad, **options) for each in groups]
    divisors = [each.divisor for each in flats]
    units, long_name = ("counts", "corrected signal") if flat is None else ("1", "transmission")
    names = {"units": units, "long_name": long_name, **beside.attrs}
    if flat_model is not None:
        names["flats"] = flat_model
    if places is not None:
        names["flats"] = f"interpolated between {len(groups)} groups"
    options = {"whole": False, "name": "corrected", "attrs": attributes_of(stack, names, done=done)}
    if flat_model is not None:
        images = [dark_image, *divided_terms(terms, bad, *divisors)]
        (mean,) = flats
        limit = find_limit(as_stack(flat), saturation)
        block_bytes = stack.dtype.itemsize * math.prod(stack.data.chunksize)
        model = find_eigenflats(flat, mean.image, mean.dark, bad, flat_components, block_bytes, dummy=dummy, saturation=limit)
        corrected = correct_by_eigenflats(stack, images, model, valid, **options | {"whole": True})
    elif places is None:
        images = [dark_image, *divided_terms(terms, bad, *divisors)]
        corrected = map_frames(correction.correct, stack, {"valid": valid}, images=images, **options)
    else:
        images = [dark_image, *divided_terms(terms, bad), *(da.from_delayed(each, shape, np.float32) for each in divisors)]
        known = {"valid": valid, "flats": len(divisors)}
        corrected = map_frames(correction.correct_in_time, stack, known, stacks=[places], images=images, **options)
    if light is not None:
        corrected = divided_by(corrected, light, relative=flat is not None)
    if region is not None:
        corrected = divided_by_region(corrected, region)
    return corrected if fill is None else filled(corrected, images)
