"""Frames that a virtual dataset lacks are NaN with a warning that counts them."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from h5py import h5s

from detcal import get_array, open_frames
from detcal.errors import InputError, MissingWarning
from tests.stores.losses import SHAPE, STACK, check_frames, without, write


def write_virtual(path: Path, parts: list[tuple[Any, str, tuple[int, ...]]], shape: tuple[int, ...] = SHAPE) -> Path:
    """A virtual dataset of parts: where in it, from which file beside it, of which shape there."""
    layout = h5py.VirtualLayout(shape, "u2")
    for place, name, source in parts:
        layout[place] = h5py.VirtualSource(name, "d", source)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("d", layout, fillvalue=5)
    return path


def test_frames_that_a_virtual_dataset_takes_from_nowhere(tmp_path: Path) -> None:
    write(tmp_path / "part.h5", STACK[:4], chunks=(2, 20, 30), compression="gzip")
    path = write_virtual(tmp_path / "v.h5", [(np.s_[:4], "part.h5", (4, 20, 30))])
    check_frames(path, without(4, 5), r"v\.h5::/?d lacks 2 of 6 frames \(4–5\)")


def test_gaps_between_modules(tmp_path: Path) -> None:
    for number in (0, 1):
        write(tmp_path / f"m{number}.h5", STACK[:, :, 16 * number : 16 * number + 14])
    path = write_virtual(tmp_path / "v.h5", [(np.s_[:, :, 16 * n : 16 * n + 14], f"m{n}.h5", (6, 20, 14)) for n in (0, 1)])
    wanted = STACK.astype(np.float32)
    wanted[:, :, 14:16] = np.nan
    check_frames(path, wanted, r"lacks parts of 6 of 6 frames \(0–5\)")
    (tmp_path / "m1.h5").unlink()
    wanted[:, :, 14:] = np.nan
    check_frames(path, wanted, r"lacks parts of 6 of 6 frames \(0–5\).*; sources that are not there: m1\.h5::d$")


def test_frames_in_turn_from_several_files_of_which_one_is_shorter(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"q{number}.h5", STACK[number::3])
    path = write_virtual(tmp_path / "v.h5", [(np.s_[n::3], f"q{n}.h5", (2, 20, 30)) for n in range(3)])
    np.testing.assert_array_equal(open_frames(path).values, STACK)
    write(tmp_path / "q1.h5", STACK[1:2])
    check_frames(path, without(4), r"lacks 1 of 6 frames \(4\)")


def test_chunks_that_were_never_written_in_the_source_of_a_virtual_dataset(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("d", (8, 20, 30), "u2", chunks=(2, 20, 15))[:4] = np.concatenate([STACK[:1], STACK[:3]])
    path = write_virtual(tmp_path / "inner.h5", [(np.s_[:], "raw.h5", (8, 20, 30))], (8, 20, 30))
    layout = h5py.VirtualLayout(SHAPE, "u2")
    layout[:] = h5py.VirtualSource("inner.h5", "d", (8, 20, 30))[1:7]
    path = tmp_path / "outer.h5"
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("d", layout)
    check_frames(path, without(3, 4, 5), r"lacks 3 of 6 frames \(3–5\)")


def test_images_as_frames_of_a_virtual_dataset(tmp_path: Path) -> None:
    for number, frame in enumerate(STACK):
        write(tmp_path / f"i{number}.h5", frame)
    path = write_virtual(tmp_path / "v.h5", [(n, f"i{n}.h5", SHAPE[1:]) for n in range(6)])
    np.testing.assert_array_equal(open_frames(path).values, STACK)
    (tmp_path / "i2.h5").unlink()
    check_frames(path, without(2), r"lacks 1 of 6 frames \(2\).*i2\.h5::d")


def test_numbered_files_of_a_virtual_dataset_of_which_one_is_missing(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"p_{number}.h5", STACK[2 * number : 2 * number + 2])
    space = h5s.create_simple(SHAPE, (h5s.UNLIMITED, 20, 30))
    space.select_hyperslab((0, 0, 0), (h5s.UNLIMITED, 1, 1), (2, 1, 1), (2, 20, 30))
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_virtual(space, b"p_%b.h5", b"d", h5s.create_simple((2, 20, 30)))
    with h5py.File(tmp_path / "v.h5", "w", libver="latest") as file:
        h5py.h5d.create(file.id, b"d", h5py.h5t.NATIVE_UINT16, h5s.create_simple((0, 20, 30), (h5s.UNLIMITED, 20, 30)), created)
    np.testing.assert_array_equal(open_frames(tmp_path / "v.h5").values, STACK)
    (tmp_path / "p_1.h5").unlink()
    check_frames(tmp_path / "v.h5", without(2, 3), r"lacks 2 of 6 frames \(2–3\).* not there: p_1\.h5::d")
    (tmp_path / "p_0.h5").unlink()
    check_frames(tmp_path / "v.h5", without(0, 1, 2, 3), r"lacks 4 of 6 frames \(0–3\)")


def test_a_virtual_dataset_of_which_nothing_is_there(tmp_path: Path) -> None:
    path = write_virtual(tmp_path / "v.h5", [(np.s_[:], "gone.h5", SHAPE)])
    check_frames(path, without(*range(6)), r"lacks 6 of 6 frames \(0–5\).* not there: gone\.h5::d")


def test_a_source_of_another_type_is_converted_by_hdf5(tmp_path: Path) -> None:
    write(tmp_path / "part.h5", STACK[:4].astype(np.float64) + 0.5)
    path = write_virtual(tmp_path / "v.h5", [(np.s_[:4], "part.h5", (4, 20, 30))])
    check_frames(path, without(4, 5), r"lacks 2 of 6 frames \(4–5\)")
    with pytest.warns(MissingWarning):
        frames = open_frames(path)
    (tmp_path / "part.h5").unlink()
    with pytest.raises(InputError, match=r"no such file: .*part\.h5"):
        frames.compute()


def test_values_along_one_dimension_of_a_virtual_dataset(tmp_path: Path) -> None:
    write(tmp_path / "part.h5", STACK[0, 0, :20])
    layout = h5py.VirtualLayout((30,), "u2")
    layout[5:25] = h5py.VirtualSource("part.h5", "d", (20,))
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file.create_virtual_dataset("d", layout)
    with pytest.warns(MissingWarning, match=r"lacks 10 of 30 rows \(0–4, 25–29\)"):
        found = get_array(tmp_path / "v.h5", "d")
    np.testing.assert_array_equal(found, [*[np.nan] * 5, *STACK[0, 0, :20], *[np.nan] * 5])


def test_a_source_that_goes_after_the_virtual_dataset_was_opened_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "part.h5", STACK)
    frames = open_frames(write_virtual(tmp_path / "v.h5", [(np.s_[:], "part.h5", SHAPE)]))
    (tmp_path / "part.h5").unlink()
    with pytest.raises(InputError, match=r"no such file: .*part\.h5"):
        frames.compute()
