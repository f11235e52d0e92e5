"""All kinds of files that are streamed, block by block, from a finished zarr store by one task: who writes them, and what they hold."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import xarray as xr

from detcal.errors import InputError
from detcal.stores.targets.cubes import check_cube, export_envi, export_hyperspy, export_rpl
from detcal.stores.targets.images import check_maps, check_pages, export_edf, export_png, export_tiff
from detcal.stores.targets.matrices import check_psf, export_npz
from detcal.stores.targets.nexus_file import export_hdf5
from detcal.stores.targets.profiles import check_powder, check_profile, export_chi, export_columns, export_fxye
from detcal.stores.targets.splines import check_map, export_spline

Write = Callable[[xr.Dataset, Path], None]


def check_nothing(dataset: xr.Dataset, suffix: str) -> None:
    """All fits."""


@dataclass(frozen=True)
class Exporter:
    """A kind of file.

    Attributes
    ----------
    write
        Writes a stored dataset to a path.
    check
        Raises InputError of what does not fit, before it is computed.
    beside
        The suffix of a second file with the numbers, if the first one is their header.
    """

    write: Write
    check: Callable[[xr.Dataset, str], None] = check_nothing
    beside: str | None = None

    def takes(self, dataset: xr.Dataset, suffix: str) -> bool:
        """Whether a dataset fits."""
        try:
            self.check(dataset, suffix)
        except InputError:
            return False
        return True


NEXUS, TIFF, COLUMNS = Exporter(export_hdf5), Exporter(export_tiff, check_pages), Exporter(export_columns, check_profile)
EXPORTERS: dict[str, Exporter] = {
    ".h5": NEXUS, ".hdf5": NEXUS, ".nxs": NEXUS,
    ".tif": TIFF, ".tiff": TIFF, ".edf": Exporter(export_edf, check_pages), ".png": Exporter(export_png, check_maps),
    ".xy": COLUMNS, ".dat": COLUMNS, ".chi": Exporter(export_chi, check_profile), ".fxye": Exporter(export_fxye, check_powder),
    ".spline": Exporter(export_spline, check_map), ".npz": Exporter(export_npz, check_psf),
    ".hspy": Exporter(export_hyperspy, check_cube),
    ".rpl": Exporter(export_rpl, check_cube, ".raw"), ".hdr": Exporter(export_envi, check_cube, ".img"),
}  # fmt: skip
