"""How every kernel is compiled, in one place.

nogil, and never parallel: dask owns the cores. The fastmath flags let sums run in SIMD lanes; nnan and ninf are
left out, because NaN marks a pixel without a value.
"""

from numba import njit

kernel = njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "arcp", "nsz"})
