"""How every kernel is compiled and kept, in one place.

nogil, and never parallel: dask owns the cores. The fastmath flags let sums run in SIMD lanes; nnan and ninf are
left out, because NaN marks a pixel without a value. Division by zero gives what it gives in numpy: a check for it would keep
loops out of the SIMD lanes.

numba keeps compiled kernels in files, and notices an edit of the file that a kernel is in. A kernel also holds the code of the kernels and
SIMD instructions that it calls: those files count here too.
"""

from collections.abc import Callable
from functools import cache
from hashlib import file_digest
from typing import Any

import numpy as np
from numba import njit
from numba.extending import register_jitable

from detcal.frames import simd, simd_numpy

INSTRUCTIONS = frozenset({simd.__file__, simd_numpy.__file__})
compiled: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})
compiled_as_written: Any = njit(nogil=True, cache=True, error_model="numpy")
inlined: Any = register_jitable  # a function that kernels and Python call alike: of its own it is not compiled


def kernel(function: Callable[..., Any]) -> Any:
    """A function as a compiled kernel; with NUMBA_DISABLE_JIT=1 as it is, with numpy as quiet about NaN as a kernel."""
    return compile_with(compiled, function)


def exact_kernel(function: Callable[..., Any]) -> Any:
    """The same, whose sums and products are rounded as they are written: compiled for other arrays it gives the same bits."""
    return compile_with(compiled_as_written, function)


def compile_with(compiler: Any, function: Callable[..., Any]) -> Any:
    """A kernel, as `kernel` says."""
    if simd.PLAIN_PYTHON:
        return np.errstate(all="ignore")(function)
    found = compiler(function)
    called = [value.sources for value in function.__globals__.values() if isinstance(value, type(found)) and hasattr(value, "sources")]
    others = INSTRUCTIONS.union(*called)
    found.sources = others | {function.__code__.co_filename}
    kept = found._cache._cache_file  # numba has no other way in: tests/frames/test_numba.py says first if this one is gone
    kept._source_stamp = (kept._source_stamp, *(digest(path) for path in sorted(others)))
    return found


@cache
def digest(path: str) -> str:
    """What tells a file from any edit of it."""
    with open(path, "rb") as file:
        return file_digest(file, "blake2b").hexdigest()
