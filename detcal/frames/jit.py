"""How every kernel is compiled, in one place.

nogil, and never parallel: dask owns the cores. The fastmath flags let sums run in SIMD lanes; nnan and ninf are
left out, because NaN marks a pixel without a value. Division by zero gives what it gives in numpy: a check for it would keep
loops out of the SIMD lanes.
"""

from numba import njit

kernel = njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "arcp", "nsz"})
