"""Image files as other programs write them: under other names, with other pages, with bytes behind their frames."""

from pathlib import Path
from typing import Any

import fabio
import numpy as np
import pytest
import tifffile
from PIL import Image

from detcal import open_frames
from detcal.errors import InputError
from tests.stores.kinds import make_stack, write_edf

STACK = make_stack("uint16")


@pytest.mark.parametrize("name", ["a.btf", "a.mask", "a", "a.tf8", "a.data"])
@pytest.mark.parametrize("options", [{}, {"bigtiff": True}, {"byteorder": ">"}, {"compression": "zlib"}], ids=repr)
def test_a_tiff_file_of_any_name_is_opened(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / name, STACK, photometric="minisblack", **options)
    np.testing.assert_array_equal(open_frames(tmp_path / name).values, STACK)


@pytest.mark.parametrize("compression", [None, "tiff_deflate", "packbits"])
def test_a_mask_as_dioptas_saves_it(compression: str | None, tmp_path: Path) -> None:
    mask = (np.indices((60, 50)).sum(0) % 7 == 0).astype(np.uint8)
    Image.fromarray(mask).save(tmp_path / "a.mask", "TIFF", compression=compression)
    np.save(tmp_path / "frames.npy", np.ones((2, 60, 50), np.uint16))
    np.testing.assert_array_equal(open_frames(tmp_path / "a.mask").values[0], mask)
    frames = open_frames(tmp_path / "frames.npy", mask=tmp_path / "a.mask")
    np.testing.assert_array_equal(np.isnan(frames.values), [mask, mask])


def write_fit2d(path: Path, mask: Any) -> None:
    fabio.fit2dmaskimage.Fit2dMaskImage(data=mask).write(str(path))


def write_png(path: Path, mask: Any) -> None:
    Image.fromarray(mask).save(path)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.msk", write_fit2d), ("a.png", write_png), ("a.npy", np.save),
        ("a.edf", lambda path, mask: fabio.edfimage.EdfImage(data=mask).write(str(path))),
    ],
)  # fmt: skip
def test_masks_of_other_programs(name: str, write: Any, tmp_path: Path) -> None:
    mask = (np.indices((64, 96)).sum(0) % 7 == 0).astype(np.uint8)
    write(tmp_path / name, mask)
    np.save(tmp_path / "frames.npy", np.ones((2, 64, 96), np.uint16))
    frames = open_frames(tmp_path / "frames.npy", mask=tmp_path / name)
    np.testing.assert_array_equal(np.isnan(frames.values), [mask, mask])


@pytest.mark.parametrize("count", [3, 4])
def test_three_images_that_tifffile_takes_for_colours_are_three(count: int, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK[:count], photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(open_frames(tmp_path / "a.tif", chunks={"frame": 2}).values, STACK[:count])


def test_pages_of_another_shape_at_the_end_are_left_out(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for frame in STACK:
            file.write(frame)
        file.write(np.zeros((3, 2), np.uint8))
    with pytest.warns(UserWarning, match=r"a\.tif: of 7 pages the 6 of shape \(20, 31\) are taken"):
        frames = open_frames(tmp_path / "a.tif")
    np.testing.assert_array_equal(frames.values, STACK)


def test_series_of_one_shape_follow_each_other(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(STACK[:4], photometric="minisblack")
        file.write(STACK[4:], photometric="minisblack")
    np.testing.assert_array_equal(open_frames(tmp_path / "a.tif").values, STACK)


@pytest.mark.parametrize("behind", [bytes(100), b"\n\n", b"\0" * 5000, b"end of file"], ids=["zeros", "lines", "many", "text"])
def test_bytes_behind_the_last_frame_of_an_edf_file_are_left_out(behind: bytes, tmp_path: Path) -> None:
    path = write_edf(tmp_path, STACK)
    path.write_bytes(path.read_bytes() + behind)
    if behind.strip():
        with pytest.warns(UserWarning, match=r"stack\.edf: what stands behind its last frame is left out"):
            frames = open_frames(path)
    else:
        frames = open_frames(path)
    np.testing.assert_array_equal(frames.values, STACK)


def test_an_edf_file_that_ends_in_a_header_is_cut_short(tmp_path: Path) -> None:
    path = write_edf(tmp_path, STACK)
    path.write_bytes(path.read_bytes() + b"{\nHeaderID = EH:000007:000000:000000 ;\n")
    with pytest.raises(InputError, match="cut short"):
        open_frames(path)


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg"])
def test_a_compression_that_needs_another_package_is_read_or_told(compression: str, tmp_path: Path) -> None:
    image = np.full((16, 16), 7, np.uint8)
    Image.fromarray(image).save(tmp_path / "a.tif", compression=compression)
    try:
        import imagecodecs  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match=r"^cannot read .*a\.tif: .* requires the 'imagecodecs' package\. pip install imagecodecs$"):
            open_frames(tmp_path / "a.tif")
    else:
        np.testing.assert_array_equal(open_frames(tmp_path / "a.tif").values[0], image)
