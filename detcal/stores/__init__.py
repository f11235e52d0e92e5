"""The only code that touches files: lazy readers, the one zarr writer, and exports from it."""

from detcal.stores.arrays import get_array
from detcal.stores.frames import open_frames
from detcal.stores.listing import tree
from detcal.stores.save import check_output, load, load_calibration, save

__all__ = ["check_output", "get_array", "load", "load_calibration", "open_frames", "save", "tree"]
