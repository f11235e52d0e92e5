"""Stacks in several files: lists, virtual datasets and external links."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from detcal import open_frames
from detcal.errors import InputError, MissingWarning
from tests.stores.kinds import SHAPE, make_stack, write_edf, write_edf_files, write_linked, write_virtual


def write_other_shape(folder: Path) -> None:
    write_edf(folder, np.zeros((1, 20, 30), "u2"), "scan_4.edf")


def write_other_type(folder: Path) -> None:
    write_edf(folder, np.zeros((1, 20, 31), "f4"), "scan_4.edf")


def write_more_frames(folder: Path) -> None:
    write_edf(folder, np.zeros((3, 20, 31), "u2"), "scan_4.edf")


@pytest.mark.parametrize(
    ("write_another", "expected"),
    [
        (write_other_shape, r"expected frames of shape \(20, 31\) .*scan_0\.edf, got \(20, 30\) .*scan_4\.edf$"),
        (write_other_type, r"type uint16, as in .*scan_0\.edf, got .* float32 in .*scan_4\.edf$"),
        (write_more_frames, r"expected 1 frames in .*scan_4\.edf, as in .*scan_0\.edf.* got 3$"),
        (lambda folder: (folder / "scan_4.edf").unlink(), r"no such file: .*scan_4\.edf"),
    ],
    ids=["shape", "type", "count", "gone"],
)
def test_listed_files_that_disagree_are_named(write_another: Callable[[Path], None], expected: str, tmp_path: Path) -> None:
    frames = open_frames(write_edf_files(tmp_path, make_stack("uint16")), chunks={"frame": 2})
    write_another(tmp_path)
    frames[:4].compute()
    with pytest.raises(InputError, match=expected):
        frames[4:].compute()


def test_pages_of_different_shapes_are_refused(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((5, 7), "u2"))
        file.write(np.zeros((5, 8), "u2"))
    with pytest.raises(InputError, match=r"expected frames of shape \(5, 7\).*got \(5, 8\)"):
        open_frames(tmp_path / "a.tif").compute()


def test_a_missing_source_of_a_virtual_dataset_is_nan(tmp_path: Path) -> None:
    path, stack = write_virtual(tmp_path, make_stack("uint16")), make_stack("uint16").astype(np.float32)
    stack[3:] = np.nan
    with h5py.File(tmp_path / "part1.h5", "a") as file:
        del file["raw"]
    with pytest.warns(UserWarning, match=r"master\.nxs::/entry/data lacks 3 of 6 frames \(3–5\).* not there: part1\.h5::raw$"):
        frames = open_frames(path)
    np.testing.assert_array_equal(frames.values, stack)
    (tmp_path / "part1.h5").unlink()
    with pytest.warns(UserWarning, match=r"lacks 3 of 6 frames \(3–5\).* not there: part1\.h5::raw$"):
        np.testing.assert_array_equal(open_frames(path).values, stack)


def test_a_missing_source_of_a_virtual_dataset_behind_a_link_and_another_is_found(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    write_virtual(inner, make_stack("uint16"))
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:] = h5py.VirtualSource("inner/master.nxs", "entry/data", SHAPE)
    with h5py.File(tmp_path / "outer.h5", "w") as file:
        file.create_virtual_dataset("again", layout)
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file["frames"] = h5py.ExternalLink("inner/master.nxs", "entry/data")
    for name in ("outer.h5", "linked.h5"):
        np.testing.assert_array_equal(open_frames(tmp_path / name).values, make_stack("uint16"))
    (inner / "part0.h5").unlink()
    for name in ("outer.h5", "linked.h5"):
        with pytest.warns(UserWarning, match=r"lacks 3 of 6 frames \(0–2\).* not there: part0\.h5"):
            frames = open_frames(tmp_path / name)
        assert np.isnan(frames[:3].values).all()
        np.testing.assert_array_equal(frames[3:].values, make_stack("uint16")[3:])


def test_a_virtual_dataset_may_be_moved_with_its_sources(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    with h5py.File(before / "part.h5", "w") as file:
        file["raw"] = make_stack("uint16")
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:] = h5py.VirtualSource(before / "part.h5", "raw", SHAPE)  # an absolute path
    with h5py.File(before / "master.h5", "w") as file:
        file.create_virtual_dataset("frames", layout)
    before.rename(after)
    np.testing.assert_array_equal(open_frames(after / "master.h5").values, make_stack("uint16"))


def test_a_missing_external_link_is_named(tmp_path: Path) -> None:
    path = write_linked(tmp_path, make_stack("uint16"))
    (tmp_path / "raw.h5").unlink()
    with pytest.raises(InputError, match=r"no dataset .* in .*master\.h5; links .*: /entry/measurement → raw\.h5"):
        open_frames(path)
    with pytest.raises(
        InputError, match=r"no dataset /entry/measurement/.* in .*master\.h5: entry/measurement links to raw\.h5, which is not there"
    ):
        open_frames(path, "/entry/measurement/detector/frames")


def test_links_that_lead_nowhere_and_were_not_asked_for_are_named_and_left(tmp_path: Path) -> None:
    path = write_linked(tmp_path, stack := make_stack("uint16"))
    with h5py.File(path, "a") as file:
        file["entry/gone"] = h5py.SoftLink("/nowhere")
        file["entry/sample"] = h5py.ExternalLink("sample.h5", "/entry/sample")
    expected = r"links in .*master\.h5 .* are left out: /entry/gone → /nowhere, /entry/sample → sample\.h5$"
    with pytest.warns(MissingWarning, match=expected) as said:
        frames = open_frames(path)
    assert len(said) == 1
    np.testing.assert_array_equal(frames.values, stack)
    open_frames(path, "/entry/measurement/detector/frames")  # with a name there is nothing to look for
