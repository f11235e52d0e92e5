"""What a report tells of a run: pictures, plan and measurement, where inputs come from, quarantine, the recipe."""

import json
import os
import re
import shutil
import struct
import tomllib

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.ledger import Ledger
from detcal_pipelines.pictures import SIDE
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.reports.gathering import report_of
from detcal_pipelines.reports.plain import as_text
from detcal_pipelines.reports.toml import as_toml
from detcal_pipelines.steps.response import FEWEST, few_frames, rings_in
from detcal_pipelines.unfinished import Places

from detcal.frames.stack import DIMS
from detcal.version import __version__
from tests.pipelines.inputs import OPTIONS
from tests.pipelines.reports import output_of, page_of


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - {"median_filter", "quantile_filter"}))
def test_every_run_writes_a_page_with_pictures_of_what_went_in_and_came_out(reported, name):
    page = page_of(output_of(reported, name))
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(page.tags)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert page.tags.count("svg") >= (1 if name == "build_psf" else 2)
    for picture in page.pictures:
        width, height = struct.unpack(">II", picture[16:24])
        assert picture.startswith(b"\x89PNG")
        assert max(width, height) <= SIDE
    for words in (name, "Plan and measurement", "peak memory", "numpy", "What came out" if name != "fit_distortion" else "displaced"):
        assert words in page.text


def test_what_was_planned_and_measured_stands_side_by_side(reported):
    report = as_text(report_of(reported / "new_corrected.zarr"))
    for pattern in (
        r"time +\d+\.\d s", r"frames a second +\d", r"blocks +2 × 8 frames +2 of 2 written", r"out +.* uncompressed +.* on disk",
        r"peak memory +.* of 16 GiB +.* [MG]iB", r"correct_response +\(12, 48, 48\) +\(12, 48, 48\) .*\n +uint16 +float32",
    ):  # fmt: skip
        assert re.search(pattern, report), (pattern, report)


def test_pictures_of_frames_say_how_much_of_them_is_masked(reported):
    captions = page_of(reported / "new_corrected.zarr").text
    assert "frame 0 of 12: 48 × 48, none masked" in captions
    assert "frame 6 of 12" in captions


def test_a_correction_tells_its_rings_before_and_after(finished):
    """Gains were simulated to scatter by 30 ‰; of 10 flats and 40 frames of the sweep about 2 ‰ are left."""
    report = " ".join(as_text(report_of(finished / "corrected.zarr")).split())
    found = re.search(r"in 32 of 50 frames alike, by (\S+) ‰ of the beam before and (\S+) ‰ after", report)
    before, after = map(float, found.groups())
    assert 25 < before < 35
    assert 0 < after < 0.2 * before


def test_of_large_frames_few_are_looked_at_and_of_rows_some():
    large = xr.DataArray(da.zeros((100, 8192, 4096), np.float32, chunks=(1, -1, -1)), dims=DIMS)
    assert few_frames(large).shape == (FEWEST, 8192, 4096)
    assert few_frames(large[:3]).shape[0] == 3
    assert few_frames(large.chunk({"frame": -1, "y": 64})).shape == (100, 64, 4096)
    assert rings_in(large[:3], large[:3]) == "They are measured from 4 frames on."


def test_each_step_has_pictures_of_its_own(reported):
    assert "lines of equal radius" in page_of(reported / "new_profiles.zarr").text
    assert "the dots that were used" in page_of(reported / "new_distortion.zarr").text
    assert "pixels whose light each pixel records: 48 × 48" in page_of(reported / "new_psf.zarr").text
    assert re.search(r"rate, mean along energy: \d+ × \d+", page_of(reported / "new_cube.zarr").text)


def test_calibrations_are_traced_back_to_raw_files(reported):
    tree = as_text(report_of(reported / "new_corrected.zarr")).partition("WHERE INPUTS COME FROM\n")[2].splitlines()
    start = next(number for number, line in enumerate(tree) if line.startswith("new_response.zarr: Response, fit_response, detcal "))
    assert {line.strip() for line in tree[start + 1 : start + 3]} == {
        f"dark.h5: data, saved from Python, detcal {__version__}",
        "raw.h5: raw",
    }
    assert all(line.startswith("  ") for line in tree[start + 1 : start + 3])


def test_without_its_ledger_the_attributes_still_tell(reported, tmp_path):
    for name in ("new_response.zarr", "raw.h5", "dark.h5"):
        (shutil.copytree if (reported / name).is_dir() else shutil.copy)(reported / name, tmp_path / name)
    report = " ".join(as_text(report_of(tmp_path / "new_response.zarr")).split())
    assert 'operation = "fit_response"' in report
    assert "there is no ledger" in report
    assert re.search("raw.h5: raw", report)


def test_inputs_that_are_gone_or_changed_are_told(reported, tmp_path):
    for name in ("new_corrected.zarr", "new_corrected.zarr.ledger", "raw.h5"):
        (shutil.copytree if (reported / name).is_dir() else shutil.copy2)(reported / name, tmp_path / name)
    os.utime(tmp_path / "raw.h5", (1, 1))
    report = as_text(report_of(tmp_path / "new_corrected.zarr"))
    assert re.search(r"raw\.h5 .* another", report)
    assert re.search(r"dark\.h5 .* gone", report)
    assert "What went in is not shown" in " ".join(report.split())


def test_what_was_quarantined_and_who_worked_at_it_is_listed(reported, tmp_path):
    for name in ("new_corrected.zarr", "new_corrected.zarr.ledger"):
        (shutil.copytree if (reported / name).is_dir() else shutil.copy)(reported / name, tmp_path / name)
    ledger = Ledger.go_on(Places.of(tmp_path / "new_corrected.zarr").last_ledger)
    for number in range(30):
        note = {"file": str(tmp_path / f"raw-{number}.h5"), "unit": "frames", "frames": [5 * number, 5 * number + 2]}
        ledger.note(bad=note | {"reason": "a checksum is wrong"})
    ledger.close()
    report = as_text(report_of(tmp_path / "new_corrected.zarr"))
    assert "90 frames could not be read" in report
    assert re.search(r"\nfile +frames +reason\n", report)
    assert re.search(r"raw-1\.h5 +5–7 +a checksum is wrong", report)
    assert "… and 11 more" in report
    assert re.search(r"\d+ on \S+ +2 +\d+\.\d s +ended well", report)


def test_a_recipe_is_shown_as_toml(reported):
    recipe = read_recipe(reported / "correct_response.toml", {"output": {"overwrite": True}})
    asked = json.loads(recipe.model_dump_json())
    found = tomllib.loads(as_toml(asked))
    assert found["steps"][0]["operation"] == "correct_response"
    assert found["steps"][0]["dark"] == str(reported / "dark.h5")
    assert found["output"]["path"] == recipe.output.path
    endless = tomllib.loads(as_toml({"input": {"a": [-np.inf, np.inf], "b": np.nan}}))["input"]
    np.testing.assert_array_equal([*endless["a"], endless["b"]], [-np.inf, np.inf, np.nan])
    assert tomllib.loads(as_toml({"input": {"a": [1.5, [True, 'quo"te']], "b": {"c": 1, "d": "µ\n"}, "e": None}})) == {
        "input": {"a": [1.5, [True, 'quo"te']], "b": {"c": 1, "d": "µ\n"}}
    }
