"""The only code that touches files: lazy readers, the one zarr writer, and exports from it."""

from detcal.stores.apart import check_apart, check_not_taken
from detcal.stores.sources.arrays import get_array
from detcal.stores.sources.frames import frame_numbers, open_frames, roles_beside, roles_in
from detcal.stores.sources.listing import tree
from detcal.stores.sources.names import find_paths
from detcal.stores.targets.save import check_output, check_path, load, load_calibration, save

__all__ = [
    "check_apart", "check_not_taken", "check_output", "check_path", "find_paths", "frame_numbers", "get_array", "load", "load_calibration",
    "open_frames", "roles_beside", "roles_in", "save", "tree",
]  # fmt: skip
