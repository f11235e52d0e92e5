"""Centres of dots, and grids walked from dot to dot. ndarrays in, ndarrays out."""

from heapq import heappop, heappush
from math import floor, hypot, nan, sqrt

import numpy as np
from scipy.special import erf

from detcal.frames.jit import kernel

PARAMETERS = 9  # of a dot: a plane's three, the dot's height, its centre's two, and its ellipse's three
ROUNDS = 25  # of Gauss-Newton steps at most; few are needed
ROUND_FIRST = 3  # steps in which the dot is taken to be of the usual shape
SMALL_STEP = 1e-4  # of a pixel, that ends them
DAMPING = 0.02  # of the ellipse, which tiny dots hardly show
LARGEST_STRAIN = 0.6  # by which a dot is taken to be narrower or wider than usual
LONE = 2.0  # times the spread of the pixels about it, by which one that is hot or dead lies off them


EDGE, STEPS_A_UNIT = 4.0, 256  # of the profile's table, in √2 blurs from the edge
EDGES = np.arange(-EDGE, EDGE + 2 / STEPS_A_UNIT, 1 / STEPS_A_UNIT)
PROFILE, FALL = 0.5 - 0.5 * erf(EDGES), np.exp(-(EDGES**2)) / np.sqrt(np.pi)


@kernel
def solve(matrix, vector):  # type: ignore[no-untyped-def]
    """x of matrix·x = vector, symmetric and positive, in place; False if it is singular."""
    size = vector.size
    for k in range(size):
        pivot = matrix[k, k]
        if not pivot > 1e-12:
            return False
        for i in range(k + 1, size):
            factor = matrix[i, k] / pivot
            for j in range(k, size):
                matrix[i, j] -= factor * matrix[k, j]
            vector[i] -= factor * vector[k]
    for k in range(size - 1, -1, -1):
        for j in range(k + 1, size):
            vector[k] -= matrix[k, j] * vector[j]
        vector[k] /= matrix[k, k]
    return True


@kernel
def fit_dot(picture, y, x, slope_y, slope_x, radius, blur, usual_reach, work):  # type: ignore[no-untyped-def]
    """Centre (y, x), height, background and quality of the dot at (y, x), by least squares.

    The model is a plane and a dot, b + b_y·dy + b_x·dx + a·(1 + slope·d)·D(|M·d|), with the profile of a disc with a blurred edge,
    D(r) = ½ − ½·erf((r − radius)/(√2·blur)), and a symmetric matrix M, near unity, that makes an ellipse of it. Pixels count within
    `usual_reach` of the centre, or more if the dot is larger; those that are NaN do not.
    Quality is the share of the variation in there that the model explains; all is NaN if there is no dot. The terms and the values of all
    pixels are put into `work` (term, pixel), and multiplied from there, in SIMD lanes.
    """
    moments, matrix, vector = np.empty((PARAMETERS + 1, PARAMETERS + 1)), np.empty((PARAMETERS, PARAMETERS)), np.empty(PARAMETERS)
    height, level, quality = nan, nan, nan
    start_y, start_x = y, x
    yy, xx, yx = 1.0, 1.0, 0.0  # of M
    scale = 1 / (sqrt(2.0) * blur)
    for step in range(ROUNDS):
        used = PARAMETERS if step >= ROUND_FIRST else PARAMETERS - 3
        reach = usual_reach / sqrt(yy * xx - yx * yx)
        count = 0
        for i in range(max(0, floor(y - reach)), min(picture.shape[0], floor(y + reach) + 2)):
            for j in range(max(0, floor(x - reach)), min(picture.shape[1], floor(x + reach) + 2)):
                value = picture[i, j]
                dy, dx = i - y, j - x
                weight = min(1.0, reach + 0.5 - sqrt(dy * dy + dx * dx))
                if not (weight > 0 and value == value):
                    continue
                v, h = yy * dy + yx * dx, yx * dy + xx * dx
                away = max(sqrt(v * v + h * h), 1e-6)
                place = (min(max((away - radius) * scale, -EDGE), EDGE) + EDGE) * STEPS_A_UNIT
                entry = int(place)
                part, root = place - entry, sqrt(weight)
                tilt = root * (1 + slope_y * dy + slope_x * dx)
                fall = tilt * scale / away * (FALL[entry] + part * (FALL[entry + 1] - FALL[entry]))  # of the profile, over the distance
                work[0, count], work[1, count], work[2, count] = root, root * dy, root * dx
                work[3, count] = tilt * (PROFILE[entry] + part * (PROFILE[entry + 1] - PROFILE[entry]))
                work[4, count], work[5, count] = fall * (yy * v + yx * h), fall * (yx * v + xx * h)
                work[6, count], work[7, count], work[8, count] = -fall * v * dy, -fall * h * dx, -fall * (v * dx + h * dy)
                work[9, count] = root * value
                count += 1
        for k in range(PARAMETERS + 1):
            for m in range(k + 1):
                moment = 0.0
                for n in range(count):
                    moment += work[k, n] * work[m, n]
                moments[k, m] = moment
        weights, total, squares = moments[0, 0], moments[PARAMETERS, 0], moments[PARAMETERS, PARAMETERS]
        for k in range(PARAMETERS):
            vector[k] = moments[PARAMETERS, k]
        if weights < 2 * PARAMETERS:
            return nan, nan, nan, nan, nan
        for k in range(used):
            for m in range(k + 1):
                matrix[k, m], matrix[m, k] = moments[k, m], moments[k, m]
        for k in range(PARAMETERS - 3, used):
            matrix[k, k] *= 1 + DAMPING
        if not solve(matrix[:used, :used], vector[:used]):
            return nan, nan, nan, nan, nan
        height, level = vector[3], vector[0]
        explained = 0.0
        for k in range(used):
            explained += vector[k] * moments[PARAMETERS, k]
        variation = squares - total * total / weights
        quality = 1 - (squares - explained) / variation if variation > 0 else nan
        # the terms in the centre and in M are height times shift
        shift_y, shift_x = vector[4] / height, vector[5] / height
        length = hypot(shift_y, shift_x)
        if not length < 1e6:
            return nan, nan, nan, nan, nan
        if length > 0.5 * radius:
            shift_y, shift_x = shift_y * 0.5 * radius / length, shift_x * 0.5 * radius / length
        y, x = y + shift_y, x + shift_x
        if hypot(y - start_y, x - start_x) > usual_reach:
            return nan, nan, nan, nan, nan
        if used == PARAMETERS:
            strain = hypot(hypot(vector[6], vector[7]), vector[8]) / abs(height)
            part = min(1.0, 0.2 / max(strain, 1e-9)) / height
            yy = min(max(yy + part * vector[6], 1 / (1 + LARGEST_STRAIN)), 1 + LARGEST_STRAIN)
            xx = min(max(xx + part * vector[7], 1 / (1 + LARGEST_STRAIN)), 1 + LARGEST_STRAIN)
            yx = min(max(yx + part * vector[8], -0.5 / (1 + LARGEST_STRAIN)), 0.5 / (1 + LARGEST_STRAIN))
            if length < SMALL_STEP and strain < 100 * SMALL_STEP:
                break
    return y, x, height, level, quality


@kernel
def fit_dots(picture, places, slopes, radius, blur, reach):  # type: ignore[no-untyped-def]
    """`fit_dot` for places (dot, 2) with slopes (dot, 2): centre, height, background, quality (dot, 5)."""
    found = np.empty((len(places), 5))
    work = np.empty((PARAMETERS + 1, int(4 * reach + 3) ** 2))  # an ellipse may reach nearly twice as far
    for k in range(len(places)):
        y, x, height, level, quality = fit_dot(picture, places[k, 0], places[k, 1], slopes[k, 0], slopes[k, 1], radius, blur, reach, work)
        found[k, 0], found[k, 1], found[k, 2], found[k, 3], found[k, 4] = y, x, height, level, quality
    return found


@kernel
def radial_profile(picture, dots, reach, bins):  # type: ignore[no-untyped-def]
    """Mean of (value − background)/height of dots as `fit_dots` gives them, by distance from the centre in `bins` up to `reach`."""
    sums, counts = np.zeros(bins), np.zeros(bins)
    for k in range(len(dots)):
        y, x, height, level = dots[k, 0], dots[k, 1], dots[k, 2], dots[k, 3]
        for i in range(max(0, floor(y - reach)), min(picture.shape[0], floor(y + reach) + 2)):
            for j in range(max(0, floor(x - reach)), min(picture.shape[1], floor(x + reach) + 2)):
                place = int(hypot(i - y, j - x) / reach * bins)
                if place < bins and picture[i, j] == picture[i, j]:
                    sums[place] += (picture[i, j] - level) / height
                    counts[place] += 1
    return sums / counts


@kernel
def unknown_shares(picture, places, radius):  # type: ignore[no-untyped-def]
    """Share of pixels that are NaN within `radius` of each place (place, 2)."""
    shares = np.zeros(len(places))
    for k in range(len(places)):
        y, x = places[k]
        unknown, count = 0, 0
        for i in range(max(0, floor(y - radius)), min(picture.shape[0], floor(y + radius) + 2)):
            for j in range(max(0, floor(x - radius)), min(picture.shape[1], floor(x + radius) + 2)):
                if hypot(i - y, j - x) <= radius:
                    unknown += picture[i, j] != picture[i, j]
                    count += 1
        shares[k] = unknown / count if count > 0 else 1.0
    return shares


@kernel
def smooth(image, taps, smoothed):  # type: ignore[no-untyped-def]
    """An image (y, x) float32 convolved along both axes with taps (0 … reach) on both sides, reflected at the edges."""
    height, width = image.shape
    reach = len(taps) - 1
    line = np.empty(width + 2 * reach, np.float32)
    for i in range(height):
        middle = line[reach : reach + width]
        for j in range(width):
            middle[j] = taps[0] * image[i, j]
        for k in range(1, reach + 1):
            above, below = i - k if i >= k else k - i - 1, i + k if i + k < height else 2 * height - 1 - i - k
            one, other, tap = image[above], image[below], taps[k]
            for j in range(width):
                middle[j] += tap * (one[j] + other[j])
        for k in range(reach):
            line[reach - 1 - k], line[reach + width + k] = line[reach + k], line[reach + width - 1 - k]
        row = smoothed[i]
        for j in range(width):
            row[j] = taps[0] * middle[j]
        for k in range(1, reach + 1):
            left, right, tap = line[reach - k :], line[reach + k :], taps[k]
            for j in range(width):
                row[j] += tap * (left[j] + right[j])


@kernel
def lone_pixels(image, least):  # type: ignore[no-untyped-def]
    """Pixels (y, x) that lie off all others of the 5 × 5 about them by more than `least`, and than LONE times the spread of these.

    Of the others, the highest and the lowest do not count: a hot pixel may have another one beside it. Dots are too wide for it, even
    sharp ones, from 2 pixels on.
    """
    height, width = image.shape
    found = np.zeros((height, width), np.bool_)
    around = np.empty(24, image.dtype)
    for i in range(height):
        for j in range(width):
            value = image[i, j]
            if 0 < j < width - 1 and abs(value - image[i, j - 1]) <= least and abs(value - image[i, j + 1]) <= least:
                continue  # as nearly all
            higher, lower, near = 0, 0, 0  # of the eight about it
            for k in range(max(0, i - 1), min(height, i + 2)):
                for m in range(max(0, j - 1), min(width, j + 2)):
                    other = image[k, m]
                    near += other == other
                    higher += value - other > least
                    lower += other - value > least
            if value != value or near < 4 or max(higher, lower) < near - 2:  # itself is among the near ones
                continue
            count = 0
            for k in range(max(0, i - 2), min(height, i + 3)):
                for m in range(max(0, j - 2), min(width, j + 3)):
                    if image[k, m] == image[k, m] and (k != i or m != j):
                        around[count] = image[k, m]
                        count += 1
            put_in_order(around, count)
            low, high = around[1], around[count - 2]
            away = max(value - high, low - value)
            found[i, j] = away > least and away > LONE * (high - low)
    return found


@kernel
def put_in_order(numbers, count):  # type: ignore[no-untyped-def]
    """Put the first few numbers in rising order. np.sort of any number of them takes seconds to compile."""
    for k in range(1, count):
        number, place = numbers[k], k
        while place > 0 and numbers[place - 1] > number:
            numbers[place] = numbers[place - 1]
            place -= 1
        numbers[place] = number


@kernel
def local_maxima(image, least):  # type: ignore[no-untyped-def]
    """Rows and columns (place, 2) of pixels above `least` that none of their eight neighbours exceeds; of equal ones the first."""
    height, width = image.shape
    found = np.empty((height * width // 4 + 1, 2), np.int64)
    count = 0
    for i in range(1, height - 1):
        for j in range(1, width - 1):
            value = image[i, j]
            if not value > least or value < image[i, j + 1] or value <= image[i, j - 1]:
                continue
            top = True
            for k in range(j - 1, j + 2):
                top = top and value > image[i - 1, k] and value >= image[i + 1, k]
            if top:
                found[count, 0], found[count, 1] = i, j
                count += 1
    return found[:count].copy()


# ------------------------------------------------------------------------------------------------------ walking the grid


@kernel
def nearest_to(place_y, place_x, candidates, places):  # type: ignore[no-untyped-def]
    """The candidate nearest to a place, and its distance."""
    best, distance = -1, np.inf
    for other in candidates:
        if other >= len(places):
            break
        away = hypot(places[other, 0] - place_y, places[other, 1] - place_x)
        if away < distance:
            best, distance = other, away
    return best, distance


@kernel
def step_at(dot, step_y, step_x, tolerance, neighbours, places):  # type: ignore[no-untyped-def]
    """A grid step as measured at a dot: half the way between its neighbours on both sides, or to the one that there is."""
    length = tolerance * hypot(step_y, step_x)
    y, x = places[dot]
    ahead, miss_ahead = nearest_to(y + step_y, x + step_x, neighbours[dot], places)
    behind, miss_behind = nearest_to(y - step_y, x - step_x, neighbours[dot], places)
    if miss_ahead < length and miss_behind < length:
        return (places[ahead, 0] - places[behind, 0]) / 2, (places[ahead, 1] - places[behind, 1]) / 2
    if miss_ahead < length:
        return places[ahead, 0] - y, places[ahead, 1] - x
    if miss_behind < length:
        return y - places[behind, 0], x - places[behind, 1]
    return step_y, step_x


@kernel
def walk(places, neighbours, seed, down, right, tolerance, steps, nodes):  # type: ignore[no-untyped-def]
    """Number the dots of the grid around `seed`, from each dot to its neighbours, the surest first.

    places (dot, 2) and each dot's nearest dots, `neighbours` (dot, k); down and right are the grid's steps at the seed (y, x). A neighbour
    is sought at each of `steps` (row, column), within `tolerance` of a step of where it should be. nodes (dot, 2): row and column,
    which are large numbers for dots that are not reached.
    """
    count = len(places)
    basis = np.zeros((count, 4))
    wide = 8 * count  # more columns than a walk can come to
    taken = {0: seed}  # by row · wide + column: a pair as key takes seconds to compile
    basis[seed, 0], basis[seed, 1], basis[seed, 2], basis[seed, 3] = down[0], down[1], right[0], right[1]
    nodes[seed, 0], nodes[seed, 1] = 0, 0
    queue = [(0.0, seed)]
    done = 0
    while done < count and len(queue) > 0:
        _, dot = heappop(queue)
        done += 1
        down_y, down_x = step_at(dot, basis[dot, 0], basis[dot, 1], tolerance, neighbours, places)
        right_y, right_x = step_at(dot, basis[dot, 2], basis[dot, 3], tolerance, neighbours, places)
        basis[dot, 0], basis[dot, 1], basis[dot, 2], basis[dot, 3] = down_y, down_x, right_y, right_x
        size = sqrt(abs(down_y * right_x - down_x * right_y))
        for k in range(len(steps)):
            i, j = steps[k]
            row, column = nodes[dot, 0] + i, nodes[dot, 1] + j
            if row * wide + column in taken:
                continue
            place_y, place_x = places[dot, 0] + i * down_y + j * right_y, places[dot, 1] + i * down_x + j * right_x
            other, miss = nearest_to(place_y, place_x, neighbours[dot], places)
            if miss < tolerance * size and nodes[other, 0] > count:
                nodes[other, 0], nodes[other, 1] = row, column
                for m in range(4):
                    basis[other, m] = basis[dot, m]
                taken[row * wide + column] = other
                heappush(queue, (miss / size + 0.1 * (abs(i) + abs(j)), other))


# --------------------------------------------------------------------------------------------------------------- hull


@kernel
def row_spans(vertices, rows, first, last):  # type: ignore[no-untyped-def]
    """Where each row y of `rows` enters and leaves a convex polygon (vertex, 2): x in first and last; first > last if it misses it."""
    for k in range(len(rows)):
        first[k], last[k] = np.inf, -np.inf
        for i in range(len(vertices)):
            y0, x0 = vertices[i - 1]
            y1, x1 = vertices[i]
            if min(y0, y1) <= rows[k] <= max(y0, y1):
                part = (rows[k] - y0) / (y1 - y0) if y1 != y0 else 0.0
                x = x0 + part * (x1 - x0)
                first[k], last[k] = min(first[k], x), max(last[k], x)
                if y1 == y0:
                    first[k], last[k] = min(first[k], x1), max(last[k], x1)


@kernel
def along_edge(vertices, i, y, x):  # type: ignore[no-untyped-def]
    """The part of the way along edge i of a polygon at which it is nearest to a place, and the square of its distance."""
    y0, x0 = vertices[i]
    dy, dx = vertices[(i + 1) % len(vertices), 0] - y0, vertices[(i + 1) % len(vertices), 1] - x0
    along = min(max(((y - y0) * dy + (x - x0) * dx) / (dy * dy + dx * dx), 0.0), 1.0)
    return along, (y - y0 - along * dy) ** 2 + (x - x0 - along * dx) ** 2


@kernel
def nearest_on_hull(vertices, places):  # type: ignore[no-untyped-def]
    """The place on the outline of a convex polygon (vertex, 2) that is nearest to each place: number of its edge, and how far along it.

    From one place outside to another beside it, the nearest edge stays or is the next one.
    """
    found = np.empty(len(places))
    edge, count = 0, len(vertices)
    for k in range(len(places)):
        y, x = places[k]
        if k == 0 or abs(y - places[k - 1, 0]) + abs(x - places[k - 1, 1]) > 1.5:
            least = np.inf
            for i in range(count):
                away = along_edge(vertices, i, y, x)[1]
                if away < least:
                    edge, least = i, away
        along, away = along_edge(vertices, edge, y, x)
        for step in (1, count - 1):
            while True:
                other = (edge + step) % count
                along_other, away_other = along_edge(vertices, other, y, x)
                if not away_other < away:
                    break
                edge, along, away = other, along_other, away_other
        found[k] = edge + min(along, 0.9999999)
    return found
