"""Maps of elements as images that say which element a page is, and how large a pixel is."""

from pathlib import Path

import fabio
import matplotlib.image
import numpy as np
import pytest
import tifffile
import xarray as xr

import detcal
from detcal.errors import InputError

LINES = {"y": ("row", 500.0 * np.arange(6), {"units": "um"}), "x": ("column", 100.0 + 250 * np.arange(10), {"units": "um"})}


def maps() -> xr.Dataset:
    values = np.random.default_rng(0).uniform(0, 9, (2, 2, 6, 10)).astype(np.float32)
    names = {
        name: (("element", "row", "column"), part, {"units": "counts/s"}) for name, part in zip(("rate", "error"), values, strict=True)
    }
    return xr.Dataset(names, {"element": np.array(["Fe", "Pb-L"], object), **LINES})


def test_pages_of_a_tif_are_named_and_have_a_size(tmp_path: Path) -> None:
    detcal.save(maps().rate, tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert [page.description for page in file.pages] == ["Fe", "Pb-L"]
        for page, values in zip(file.pages, maps().rate.values, strict=True):
            np.testing.assert_array_equal(page.asarray(), values)
            tags = {tag.name: tag.value for tag in page.tags.values()}
            assert tags["ResolutionUnit"] == tifffile.RESUNIT.CENTIMETER
            assert [tags[f"{axis}Resolution"][0] / tags[f"{axis}Resolution"][1] for axis in "XY"] == pytest.approx([40, 20])
    np.testing.assert_array_equal(detcal.open_frames(tmp_path / "a.tif"), maps().rate)


def test_blocks_of_an_edf_are_named_and_have_a_size(tmp_path: Path) -> None:
    detcal.save(maps().rate, tmp_path / "a.edf")
    with fabio.open(tmp_path / "a.edf") as file:
        frames = [file.getframe(number) for number in range(file.nframes)]
        np.testing.assert_array_equal(frames[1].data, maps().rate.values[1])
    assert [frame.header["Title"] for frame in frames] == ["Fe", "Pb-L"]
    assert [float(frames[1].header[name]) for name in ("PSize_1", "PSize_2")] == pytest.approx([250e-6, 500e-6])


def test_rates_and_errors_are_pages_one_after_the_other(tmp_path: Path) -> None:
    """As a run of regrid_xrf gives them, beside a cube that is no image."""
    found = maps().rename(rate="element_rate", error="element_error").assign(rate=(("row", "column", "energy"), np.ones((6, 10, 3))))
    detcal.save(found, tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        names = [page.description for page in file.pages]
        assert names == ["Fe element_rate", "Pb-L element_rate", "Fe element_error", "Pb-L element_error"]
        np.testing.assert_array_equal(file.pages[3].asarray(), maps().error.values[1])


def test_a_picture_has_all_maps(tmp_path: Path) -> None:
    detcal.save(maps().rate, tmp_path / "a.png")
    one = maps().rate.sel(element="Fe")
    detcal.save(one, tmp_path / "b.png")
    wide, narrow = (matplotlib.image.imread(tmp_path / name).shape for name in ("a.png", "b.png"))
    assert wide[1] == 2 * narrow[1]
    assert wide[0] == narrow[0]


@pytest.mark.parametrize("spoilt", [{"units": "pixels"}, None], ids=["pixels", "uneven"])
def test_a_size_that_is_no_length_is_not_told(tmp_path: Path, spoilt: dict[str, str] | None) -> None:
    found = maps()
    if spoilt is None:
        found = found.assign_coords(x=("column", np.arange(10.0) ** 2, {"units": "um"}))
    else:
        found = found.assign_coords(x=found.x.assign_attrs(spoilt))
    detcal.save(found.rate, tmp_path / "a.tif")
    detcal.save(found.rate, tmp_path / "a.edf")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages[0].tags["XResolution"].value == (1, 1)
    with fabio.open(tmp_path / "a.edf") as image:
        assert "PSize_1" not in image.header


def test_a_cube_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a picture of maps"):
        detcal.save(xr.DataArray(np.ones((2, 3, 4)), dims=("row", "column", "energy")), tmp_path / "a.png")
