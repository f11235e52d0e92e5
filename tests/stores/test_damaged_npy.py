"""A .npy file of a series that is cut short is like an image file that is: an error when its frames are read, and NaN in a run."""

from pathlib import Path

import numpy as np
import pytest

import detcal
from detcal.errors import InputError
from tests.pipelines.commands import in_process

CUTS = {"empty": 0, "header": 40, "numbers": 170}


@pytest.fixture(params=CUTS)
def series(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for number in range(4):
        np.save(tmp_path / f"f_{number}.npy", np.full((4, 5), number + 1, np.float64))
    damaged = tmp_path / "f_2.npy"
    damaged.write_bytes(damaged.read_bytes()[: CUTS[request.param]])
    return tmp_path


def test_the_others_are_read(series: Path) -> None:
    frames = detcal.open_frames(str(series / "f_*.npy"), chunks={"frame": 1})
    assert frames.shape == (4, 4, 5)
    np.testing.assert_array_equal(frames[[0, 1]], np.array([1, 2])[:, None, None] * np.ones((4, 5)))
    with pytest.raises(InputError, match=r"cannot read .*f_2\.npy"):
        frames[2].compute()


def test_a_run_has_nan_in_its_place(series: Path) -> None:
    (series / "recipe.toml").write_text(
        '[input]\npath = "f_*.npy"\n[[steps]]\noperation = "crop"\nregion = "0:2, 0:2"\n[output]\npath = "out.zarr"\n'
    )
    assert in_process(series, "run", "recipe.toml").exit_code == 3
    (found,) = detcal.load(series / "out.zarr").values()
    np.testing.assert_array_equal(found[:, 0, 0], [1, 2, np.nan, 4])


def test_the_first_tells_what_all_hold(tmp_path: Path) -> None:
    (tmp_path / "f_0.npy").write_bytes(b"")
    np.save(tmp_path / "f_1.npy", np.ones((4, 5)))
    with pytest.raises(InputError, match=r"cannot read .*f_0\.npy"):
        detcal.open_frames(str(tmp_path / "f_*.npy"))


def test_a_whole_file_of_another_shape_is_refused_at_once(tmp_path: Path) -> None:
    for number, shape in enumerate([(4, 5), (4, 6)]):
        np.save(tmp_path / f"f_{number}.npy", np.ones(shape))
    with pytest.raises(InputError, match=r"\(4, 6\)"):
        detcal.open_frames(str(tmp_path / "f_*.npy"))
