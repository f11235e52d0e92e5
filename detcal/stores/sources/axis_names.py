"""How the dimensions of frames are called in HDF5 files: by detcal, or by programs that say as clearly which of them counts frames."""

from collections.abc import Iterator, Sequence

import h5py

from detcal.stores.sources.dimensions import ROW_AND_COLUMN
from detcal.stores.sources.hdf5_files import Members, dims_of
from detcal.stores.sources.nxdata import names_of, places_of, texts_of

# These alone count frames. y and x may be motors of the sample just as well as pixels: beside one of these they are pixels.
OF_FRAMES = {
    "rotation_angle", "angle", "angles", "theta", "omega", "phi", "frame", "frames", "frame_number", "frame_id", "image", "images",
    "image_number", "projection", "projections", "time", "times", "timestamp", "t",
}  # fmt: skip
PIXELS = dict.fromkeys(("y", "detector_y", "det_y", "y_pixel", "pixel_y", "y_pixel_offset"), "y") | dict.fromkeys(
    ("x", "detector_x", "det_x", "x_pixel", "pixel_x", "x_pixel_offset"), "x"
)
LABELS = (b"DIMENSION_LABELS", b"DIMENSION_LIST")  # in which HDF5 keeps names of dimensions, and the lines along them


def names_of_frames(file: h5py.File, dataset: str, found: h5py.Dataset, entry: Sequence[Members]) -> tuple[str, ...]:
    """The names of the dimensions of frames; none, where these do not say for sure which of them counts frames."""
    if own := dims_of(found):
        return own
    if found.ndim != len(ROW_AND_COLUMN) + 1:
        return ()
    return next(filter(None, (as_frames(names, found, group) for names, group in spelled(file, dataset, found, entry))), ())


def spelled(file: h5py.File, dataset: str, found: h5py.Dataset, entry: Sequence[Members]) -> Iterator[tuple[list[str], h5py.Group]]:
    """What other programs call the dimensions of a dataset, and the group in which lines of these names may lie."""
    if any(h5py.h5a.exists(found.id, mark) for mark in LABELS):
        yield [dim.label or (dim[0].name.rsplit("/", 1)[-1] if len(dim) else "") for dim in found.dims], found.parent
    for members, name in places_of(file, dataset, entry):
        attrs, own = members.group.attrs, members.group[name].attrs
        if "axes" in own:
            yield names_of(own["axes"]), members.group
        elif "axes" in attrs and name in texts_of(attrs.get("signal", "")):
            yield names_of(attrs["axes"]), members.group


def as_frames(names: Sequence[str], found: h5py.Dataset, group: h5py.Group) -> tuple[str, ...]:
    """Names of which one counts frames, and the others are y and x; none, if they are other ones, or lines of these names do not fit."""
    called = [PIXELS.get(name.lower(), name) for name in names]
    frames = [name for name in called if name.lower() in OF_FRAMES]
    if len(called) != found.ndim or len(frames) != 1 or {*called} != {*frames, *ROW_AND_COLUMN}:
        return ()
    lines = (group.get(name) for name in names)
    fitting = (
        not isinstance(line, h5py.Dataset) or line.ndim != 1 or line.size == size for line, size in zip(lines, found.shape, strict=True)
    )
    return tuple(called) if all(fitting) else ()
