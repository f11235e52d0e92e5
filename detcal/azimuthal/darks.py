"""Darks of each frame, or of groups of frames, which are taken off while blocks are averaged."""

from collections.abc import Callable
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from detcal.azimuthal import kernels
from detcal.azimuthal.calibration import AzimuthalBins
from detcal.errors import InputError
from detcal.frames.beside import with_flags_of
from detcal.frames.corrections import ATTRIBUTE, corrections_of, refuse_twice
from detcal.frames.jit import kernel as compiled
from detcal.frames.lanes import in_order, reading
from detcal.frames.readings import ALL_NUMBERS, Valid
from detcal.frames.stack import as_stack_of
from detcal.frames.valid import find_readings

Kernel = Callable[..., Any]


def take_off(
    kernel: Kernel, stack: xr.DataArray, bins: AzimuthalBins, noise: list[da.Array], options: dict[str, Any], darks: Any
) -> tuple[Kernel, xr.DataArray, list[da.Array], dict[str, Any]]:
    """What `map_frames` needs so that darks are taken off before a kernel; all as it is, if there are none.

    Raises
    ------
    InputError
        Darks of another shape, or of another number than the frames can be shared out to; bins or frames that had a dark taken off;
        the hybrid model, of which the kernels know no variance then.
    """
    if darks is None:
        return kernel, stack, noise, options
    refuse_twice(stack, ["dark"], "leave darks= out")
    if "dark" in bins.corrections:
        raise InputError("expected either bins with a dark, or darks of the frames, got both: build the bins without dark=")
    if options["model"] == kernels.HYBRID:
        raise InputError('expected error_model "azimuthal" or "poisson" where there are darks, got "hybrid"')
    darks = with_flags_of(stack, darks, "darks")
    given, valid = find_readings(as_stack_of(bins.shape, "bins", darks, "darks"), detector=bins.detector_dummy, beside=True)
    if len(stack) % len(given):
        raise InputError(
            f"expected a dark for each of the {len(stack)} frames, or of groups of as many that follow each other, got {len(given)}"
        )
    shared_out = given.data[np.arange(len(stack)) // (len(stack) // len(given))]
    done = stack.assign_attrs({ATTRIBUTE: [*corrections_of(stack), "dark"]})
    return partial(less_darks, kernel=kernel), done, [*noise, shared_out], {**options, "dark_valid": valid}


def less_darks(
    frames: NDArray[Any],
    *stacks: NDArray[Any],
    kernel: Kernel,
    valid: Valid,
    noise_valid: Valid,
    dark_valid: Valid,
    model: int,
    **options: Any,
) -> Any:
    """A kernel of a block less its darks, the last one of the stacks; Poisson's variance is that of the readings and of the darks."""
    *noise, dark = stacks
    raw, spread = np.empty(frames.shape, np.float32), np.empty(frames.shape if model == kernels.POISSON else (0, 0, 0), np.float32)
    subtract(in_order(frames), valid, in_order(dark), dark_valid, raw.reshape(len(raw), -1), spread.reshape(len(spread), raw[0].size))
    if model == kernels.POISSON:
        noise, noise_valid, model = [spread], ALL_NUMBERS.within(0, noise_valid.most), kernels.GIVEN
    return kernel(
        raw, *noise, valid=ALL_NUMBERS.within(-noise_valid.most, noise_valid.most), noise_valid=noise_valid, model=model, **options
    )


@compiled
def subtract(frames, valid, darks, dark_valid, less, spread):  # type: ignore[no-untyped-def]
    """Readings less those of darks (frame, pixel), NaN where there is not both; and Poisson's variance of that, if there is room for it."""
    for number in range(len(frames)):
        for k in range(frames.shape[1]):
            raw, dark = reading(frames[number, k], valid), reading(darks[number, k], dark_valid)
            less[number, k] = raw - dark
            if len(spread) > 0:
                spread[number, k] = max(raw, np.float32(1)) + dark
