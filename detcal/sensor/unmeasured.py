"""The light that entered pixels which were not measured: unknown, which is not dark. ndarrays in, ndarrays out.

Pixels further out have recorded some of it. Were it taken for dark, these would have to be brighter than they are, and the pixels behind
them darker. So it is estimated: what the nearest measured pixels recorded, over what they would record of uniform light of 1.
"""

import numpy as np

from detcal.frames.jit import kernel
from detcal.frames.lanes import by_lane, reading
from detcal.frames.simd import lanes_between, load, splat_for

LEAST = 3  # readings of which a mean is taken: so many lie beside each pixel of a gap's border


@kernel
def around(frames, valid, values, values_valid, matrix, lane, pixel):  # type: ignore[no-untyped-def]
    """Sums over the nearest measured pixels, of their values and of their response to uniform light.

    They are those in the smallest square that holds LEAST of them. It is no larger than rays reach: further away nothing rests on it.
    """
    (height, width), response = matrix.shape, matrix.response
    row, column = pixel // width, pixel % width
    total, uniform, count = 0.0, 0.0, 0
    for radius in range(1, matrix.furthest + 1):
        for i in range(max(row - radius, 0), min(row + radius + 1, height)):
            step = 1 if abs(i - row) == radius else 2 * radius  # the square's border alone: what is inside was added before
            for j in range(column - radius, column + radius + 1, step):
                near = i * width + j
                if 0 <= j < width and response[near] > 0 and not np.isnan(reading(frames[lane, near], valid)):
                    total += reading(values[lane, near], values_valid)
                    uniform += response[near]
                    count += 1
        if count >= LEAST:
            break
    return total, uniform


@kernel
def all_measured(value, nothing):  # type: ignore[no-untyped-def]
    """Whether all lanes are numbers; `nothing` is 0 in as many."""
    lowest, highest = np.float32(-np.inf) + nothing, np.float32(np.inf) + nothing
    return lanes_between(value, lowest, highest) == lanes_between(nothing, nothing, nothing)


@kernel
def put_light(frames, valid, matrix, pixel, lanes, place, light, light_place):  # type: ignore[no-untyped-def]
    """Where a pixel of these frames, `place` of lanes, is NaN, its light into `light`.

    Nothing where no measured pixel records any of it.
    """
    if matrix.sensitivity[pixel] > 0:
        readings, estimates = by_lane(lanes), by_lane(light)
        for lane in range(len(frames)):
            if np.isnan(readings[place, lane]):
                total, uniform = around(frames, valid, frames, valid, matrix, lane, pixel)
                if uniform > 0:
                    estimates[light_place, lane] = total / uniform


@kernel
def put_all_light(frames, valid, matrix, lanes, light):  # type: ignore[no-untyped-def]
    """The same of all pixels; both may be the same array."""
    nothing = splat_for(lanes, np.float32(0))
    for pixel in range(len(lanes)):
        if not all_measured(load(lanes, pixel), nothing):
            put_light(frames, valid, matrix, pixel, lanes, pixel, light, pixel)


@kernel
def put_variance(frames, valid, variance, variance_valid, matrix, lanes, found):  # type: ignore[no-untyped-def]
    """Where `lanes` of these frames is NaN, the variance of the light into `found`: NaN if that of a reading is not known."""
    readings, variances = by_lane(lanes), by_lane(found)
    for pixel in range(len(lanes)):
        for lane in range(len(frames)):
            if np.isnan(readings[pixel, lane]):
                total, uniform = around(frames, valid, variance, variance_valid, matrix, lane, pixel)
                variances[pixel, lane] = total / (uniform * uniform) if uniform > 0 else 0
