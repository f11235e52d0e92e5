"""What each instruction of `detcal.frames.simd` does, in numpy: in its place where numba is turned off (NUMBA_DISABLE_JIT=1).

Sixteen lanes are then an array (16,) of float32. Kernels run as plain Python, slowly: for debuggers and coverage.
"""

import numpy as np
from numpy.typing import NDArray

LANES = 16
Lanes = NDArray[np.float32]


def check_rows(array: NDArray[np.generic], *, shortest: bool = False, alignment: int = 4) -> None:
    """Raise, as compiled kernels do, if rows are of another width (or shorter), or begin at no multiple of so many bytes."""
    width = LANES if array.ndim == 1 else array.shape[1]
    if width < LANES if shortest else width != LANES:
        raise ValueError(wrong_width(shortest))
    if array.ctypes.data % alignment:
        raise ValueError(wrong_alignment(alignment))


def wrong_width(shortest: bool) -> str:
    """The error of rows of another width."""
    return f"expected an array (n, {LANES}{' or more' if shortest else ''}), got one of another width"


def wrong_alignment(alignment: int) -> str:
    """The error of rows that begin elsewhere."""
    return f"expected an array that begins at a multiple of {alignment} bytes: make it with detcal.frames.lanes.lines"


def load(array: Lanes, row: int) -> Lanes:
    check_rows(array)
    return array[row].copy()


def store(array: Lanes, row: int, value: Lanes) -> None:
    check_rows(array)
    array[row] = value


def splat_for(array: Lanes, number: np.float32) -> Lanes:
    return np.full(array.shape[1:], number, np.float32)


def stream(array: Lanes, row: int, value: Lanes) -> None:
    check_rows(array, alignment=4 * LANES)
    array[row] = value


def load_from(array: NDArray[np.generic], row: int, column: int) -> Lanes:
    check_rows(array, shortest=True, alignment=1)
    return array[row, column : column + LANES].astype(np.float32)


def store_to(array: Lanes, row: int, column: int, value: Lanes) -> None:
    check_rows(array, shortest=True)
    array[row, column : column + LANES] = value


def prefetch(array: NDArray[np.generic], column: int) -> None:
    """Nothing: there is no cache to fill."""


def gather(array: NDArray[np.generic], numbers: NDArray[np.uint32], row: int) -> Lanes:
    check_rows(numbers)
    return array[numbers[row]].astype(np.float32)


def prefetch_scattered(array: NDArray[np.generic], numbers: NDArray[np.uint32], row: int) -> None:
    """Nothing, likewise."""


def measured(value: Lanes, least: np.float32, most: np.float32, flag: np.float32, more: np.float32) -> Lanes:
    above = value - flag
    flagged = (above >= 0) & (above <= more) & (above == np.rint(above))
    return np.where((value >= least) & (value <= most) & ~flagged, value, np.float32(np.nan))


def splat(number: np.float32) -> Lanes:
    return np.full(LANES, number, np.float32)


def row_of(array: Lanes, row: int) -> Lanes:
    return load(array, row) if array.ndim == 2 else splat(array[row])


def where_number(value: Lanes, other: Lanes) -> Lanes:
    return np.where(np.isnan(value), other, value)


def plus_product(value: Lanes, one: Lanes, other: Lanes) -> Lanes:
    return (value + one.astype(np.float64) * other).astype(np.float32)


def where_positive(condition: Lanes, value: Lanes, other: Lanes) -> Lanes:
    return np.where(condition > 0, value, other)


def transpose(source: Lanes, row: int, column: int, target: Lanes, target_row: int, target_column: int) -> None:
    check_rows(source, shortest=True)
    check_rows(target, shortest=True)
    square = source[row : row + LANES, column : column + LANES]
    target[target_row : target_row + LANES, target_column : target_column + LANES] = square.T


def where_between(value: Lanes, low: Lanes, high: Lanes, then: Lanes, other: Lanes) -> Lanes:
    return np.where((value >= low) & (value <= high), then, other)


def where_up_to(value: Lanes, high: Lanes, then: Lanes, other: Lanes) -> Lanes:
    return np.where(value <= high, then, other)


def lanes_between(value: Lanes, low: Lanes, high: Lanes) -> np.uint64:
    lanes = np.flatnonzero((value >= low) & (value <= high))
    return np.uint64(sum(1 << int(lane) for lane in lanes))


def lowest_bit(bits: np.uint64) -> int:
    return (int(bits) & -int(bits)).bit_length() - 1


def smaller(one: Lanes, other: Lanes) -> Lanes:
    return np.where(one < other, one, other)


def larger(one: Lanes, other: Lanes) -> Lanes:
    return np.where(one > other, one, other)
