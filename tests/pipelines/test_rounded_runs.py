"""Runs whose output is rounded to a fraction of its noise."""

import numpy as np
import xarray as xr

from detcal import open_frames
from detcal.frames.rounding import round_to_noise
from tests.pipelines.commands import detcal

RECIPE = """\
[input]
path = "raw.npy"
chunk_frames = 4
[[steps]]
operation = "correct_response"
response = "gain.npy"
[output]
path = "{output}"
precision = 0.125
"""


def test_a_run_rounds_each_block_of_what_its_steps_give(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "raw.npy", rng.poisson(900, (10, 40, 50)).astype(np.uint16))
    np.save(tmp_path / "gain.npy", rng.normal(1, 0.1, (40, 50)).astype(np.float32))
    (tmp_path / "exact.toml").write_text(RECIPE.format(output="exact.zarr").replace("precision", "# precision"))
    (tmp_path / "rounded.toml").write_text(RECIPE.format(output="rounded.zarr"))
    (tmp_path / "file.toml").write_text(RECIPE.format(output="rounded.h5"))
    for name in ("exact", "rounded", "file"):
        detcal(tmp_path, "run", f"{name}.toml")
    exact, rounded = (open_frames(tmp_path / name).values for name in ("exact.zarr", "rounded.zarr"))
    assert (exact != rounded).mean() > 0.9
    for first in (0, 4, 8):
        np.testing.assert_array_equal(rounded[first : first + 4], round_to_noise(exact[first : first + 4], 0.125))
    np.testing.assert_array_equal(open_frames(tmp_path / "rounded.h5"), rounded)
    assert xr.open_zarr(tmp_path / "rounded.zarr").corrected.attrs["precision"] == 0.125
    assert "precision" not in xr.open_zarr(tmp_path / "exact.zarr").corrected.attrs
