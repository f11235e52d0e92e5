"""Frames in groups that go through the matrix side by side, of few types. ndarrays in, ndarrays out."""

from collections.abc import Iterator

import numpy as np

from detcal.frames.lanes import in_groups, read_only
from detcal.frames.readings import Frames

MOST_ALONE = 4  # frames: MLEM of one alone takes a tenth to a fifth of the time of sixteen; the exact solution almost half
KEPT_BYTES = 2, 4  # a number: of types that detectors write, which need no copy


def groups_of(frames: Frames, few: int = 1) -> Iterator[tuple[Frames, slice]]:
    """As `in_groups`, but up to so few frames one by one; frames of other types as float32, as which kernels take each number anyway.

    So those of bytes, or of 64 bits, need no kernels of their own: to compile them for one more type takes seconds.
    """
    for some, group in in_groups(frames):
        numbers = some if is_kept(frames.itemsize) else as_float32(some)
        if len(some) > few:
            yield numbers, group
            continue
        for number in range(len(some)):
            yield numbers[number : number + 1], slice(group.start + number, group.start + number + 1)


def is_kept(itemsize: int) -> bool:
    """Whether kernels take frames of so many bytes a number as they are."""
    return itemsize in KEPT_BYTES


def as_float32(frames: Frames) -> Frames:
    """Frames as float32, in which what is too large is infinite."""
    with np.errstate(over="ignore"):
        return read_only(frames.astype(np.float32))
