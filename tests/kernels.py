"""The kernels of this process."""

import gc

from numba.core.dispatcher import Dispatcher


def compiled_kernels() -> set[tuple[str, str, object]]:
    """Each with each type of arguments that it was compiled for, or loaded from the cache."""
    kernels = [each for each in gc.get_objects() if isinstance(each, Dispatcher)]
    return {(kernel.__module__, kernel.__name__, signature) for kernel in kernels for signature in kernel.signatures}
