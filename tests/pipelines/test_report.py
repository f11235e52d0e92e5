"""The report of an output: written by every run, complete, safe whatever files are called, and readable, in a browser and as text."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tomllib
import warnings
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from types import FunctionType
from urllib.parse import unquote

import dask.array as da
import h5py
import numpy as np
import pytest
import xarray as xr
from dask._task_spec import Task
from detcal_pipelines.fingerprint import differences, fingerprint
from detcal_pipelines.ledger import Ledger, read_ledger
from detcal_pipelines.pictures import SIDE, pictures_of
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.reports import writing
from detcal_pipelines.reports.gathering import report_of
from detcal_pipelines.reports.plain import as_text
from detcal_pipelines.reports.toml import as_toml
from detcal_pipelines.run import run
from detcal_pipelines.steps.registry import find_step
from detcal_pipelines.stopwatch import Stopwatch
from detcal_pipelines.threads import MemoryWatch, compute_on_threads
from detcal_pipelines.unfinished import Places
from rich.console import Console

from detcal import open_frames, save
from detcal.response import Response
from detcal.version import __version__
from tests.pipelines.commands import AMPLE, in_process
from tests.pipelines.inputs import OPTIONS, write_inputs

GIB = 2**30
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EVIL = "<img src=x onerror=document.title=1>.npy"
LOOK = """
<script>addEventListener("load", async () => {
  const root = document.documentElement, found = {title: document.title, width: root.clientWidth, needs: root.scrollWidth};
  const svgs = [...document.querySelectorAll("svg")], box = each => each.getBoundingClientRect();
  found.pictures = svgs.length;
  found.outside = [], found.overlaps = [];
  for (const svg of svgs) {
    const words = [...svg.querySelectorAll("text")], place = box(svg);
    for (const [number, one] of words.entries()) {
      const a = box(one);
      if (a.left < place.left || a.right > place.right || a.top < place.top || a.bottom > place.bottom) found.outside.push(one.textContent);
      for (const other of words.slice(number + 1)) {
        const b = box(other);
        const apart = a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
        if (!apart) found.overlaps.push([one.textContent, other.textContent]);
      }
    }
  }
  const images = [...document.querySelectorAll("svg image")];
  found.images = images.length;
  found.broken = (await Promise.allSettled(images.map(each => each.decode()))).filter(each => each.status == "rejected").length;
  root.dataset.found = encodeURIComponent(JSON.stringify(found));
})</script>
"""


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pictures: list[bytes] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{name} would run a script"
            if name in ("src", "href"):
                self.links.append(value)
                self.pictures.append(b64decode(value.removeprefix("data:image/png;base64,")))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(output: Path) -> Page:
    return Page(output.with_name(f"{output.name}.html").read_text())


def recipe_run(folder: Path, name: str):
    return run(read_recipe(folder / f"{name}.toml"), (AMPLE, 2), Console(quiet=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Inputs of all recipes, and what their runs wrote: the response comes from a fit here."""
    place = tmp_path_factory.mktemp("reports")
    write_inputs(place, 48, 12, 6)
    recipe_run(place, "fit_response")
    text = (place / "correct_response.toml").read_text()
    (place / "correct_response.toml").write_text(text.replace('"response.zarr"', '"new_response.zarr"'))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what simulated scans lack
        for name in OPTIONS.keys() - {"fit_response", "median_filter", "quantile_filter"}:  # as integrate
            recipe_run(place, name)
    return place


def output_of(folder: Path, name: str) -> Path:
    return Path(read_recipe(folder / f"{name}.toml", {"output": {"overwrite": True}}).output.path)


# -------------------------------------------------------------------------------------------------- what is in it


@pytest.mark.parametrize("name", sorted(OPTIONS.keys() - {"median_filter", "quantile_filter"}))
def test_every_run_writes_a_page_with_pictures_of_what_went_in_and_came_out(folder, name):
    page = page_of(output_of(folder, name))
    assert not {"script", "link", "iframe", "object", "form", "base"} & set(page.tags)
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert page.tags.count("svg") >= (1 if name == "build_psf" else 2)
    for picture in page.pictures:
        width, height = struct.unpack(">II", picture[16:24])
        assert picture.startswith(b"\x89PNG")
        assert max(width, height) <= SIDE
    for words in (name, "Plan and measurement", "peak memory", "numpy", "What came out" if name != "fit_distortion" else "displaced"):
        assert words in page.text


def test_what_was_planned_and_measured_stands_side_by_side(folder):
    report = as_text(report_of(folder / "new_corrected.zarr"))
    for pattern in (
        r"time +\d+\.\d s", r"frames a second +\d", r"blocks +2 × 8 frames +2 of 2 written", r"out +.* uncompressed +.* on disk",
        r"peak memory +.* of 16 GiB +.* [MG]iB", r"correct_response +\(12, 48, 48\) +\(12, 48, 48\) .*\n +uint16 +float32",
    ):  # fmt: skip
        assert re.search(pattern, report), (pattern, report)


def test_pictures_of_frames_say_how_much_of_them_is_masked(folder):
    captions = page_of(folder / "new_corrected.zarr").text
    assert "frame 0 of 12: 48 × 48, none masked" in captions
    assert "frame 6 of 12" in captions


def test_each_step_has_pictures_of_its_own(folder):
    assert "lines of equal radius" in page_of(folder / "new_profiles.zarr").text
    assert "the dots that were used" in page_of(folder / "new_distortion.zarr").text
    assert "pixels whose light each pixel records: 48 × 48" in page_of(folder / "new_psf.zarr").text
    assert re.search(r"rate, mean of all energies: \d+ × \d+", page_of(folder / "new_cube.zarr").text)


def test_calibrations_are_traced_back_to_raw_files(folder):
    tree = as_text(report_of(folder / "new_corrected.zarr")).partition("WHERE INPUTS COME FROM\n")[2].splitlines()
    start = next(number for number, line in enumerate(tree) if line.startswith("new_response.zarr: Response, fit_response, detcal "))
    assert {line.strip() for line in tree[start + 1 : start + 3]} == {
        f"dark.h5: data, saved from Python, detcal {__version__}",
        "raw.h5: raw",
    }
    assert all(line.startswith("  ") for line in tree[start + 1 : start + 3])


def test_without_its_ledger_the_attributes_still_tell(folder, tmp_path):
    for name in ("new_response.zarr", "raw.h5", "dark.h5"):
        (shutil.copytree if (folder / name).is_dir() else shutil.copy)(folder / name, tmp_path / name)
    report = " ".join(as_text(report_of(tmp_path / "new_response.zarr")).split())
    assert 'operation = "fit_response"' in report
    assert "there is no ledger" in report
    assert re.search("raw.h5: raw", report)


def test_inputs_that_are_gone_or_changed_are_told(folder, tmp_path):
    for name in ("new_corrected.zarr", "new_corrected.zarr.ledger", "raw.h5"):
        (shutil.copytree if (folder / name).is_dir() else shutil.copy2)(folder / name, tmp_path / name)
    os.utime(tmp_path / "raw.h5", (1, 1))
    report = as_text(report_of(tmp_path / "new_corrected.zarr"))
    assert re.search(r"raw\.h5 .* another", report)
    assert re.search(r"dark\.h5 .* gone", report)
    assert "What went in is not shown" in " ".join(report.split())


def test_what_was_quarantined_and_who_worked_at_it_is_listed(folder, tmp_path):
    for name in ("new_corrected.zarr", "new_corrected.zarr.ledger"):
        (shutil.copytree if (folder / name).is_dir() else shutil.copy)(folder / name, tmp_path / name)
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


def test_a_recipe_is_shown_as_toml(folder):
    recipe = read_recipe(folder / "correct_response.toml", {"output": {"overwrite": True}})
    asked = json.loads(recipe.model_dump_json())
    found = tomllib.loads(as_toml(asked))
    assert found["steps"][0]["operation"] == "correct_response"
    assert found["steps"][0]["dark"] == str(folder / "dark.h5")
    assert found["output"]["path"] == recipe.output.path
    endless = tomllib.loads(as_toml({"input": {"a": [-np.inf, np.inf], "b": np.nan}}))["input"]
    np.testing.assert_array_equal([*endless["a"], endless["b"]], [-np.inf, np.inf, np.nan])
    assert tomllib.loads(as_toml({"input": {"a": [1.5, [True, 'quo"te']], "b": {"c": 1, "d": "µ\n"}, "e": None}})) == {
        "input": {"a": [1.5, [True, 'quo"te']], "b": {"c": 1, "d": "µ\n"}}
    }


# ----------------------------------------------------------------------------------------------- how it is written


def test_the_command_writes_it_anew_or_shows_it_in_80_columns(folder):
    page = folder / "new_corrected.zarr.html"
    before = page.read_text()
    page.unlink()
    done = in_process(folder, "report", "new_corrected.zarr")
    assert done.exit_code == 0
    assert done.stdout == f"wrote {page}\n"
    assert Page(page.read_text()).text == Page(before).text
    done = in_process(folder, "report", "new_corrected.zarr", "--text")
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "PLAN AND MEASUREMENT" in done.stdout


def test_nothing_to_tell_of_is_an_error(tmp_path):
    done = in_process(tmp_path, "report", "out.zarr")
    assert done.exit_code == 2
    assert "there is no out.zarr" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_page_of_somebody_elses_stays(folder, tmp_path):
    shutil.copytree(folder / "new_response.zarr", tmp_path / "a.zarr")
    (tmp_path / "a.zarr.html").write_text("<html>mine</html>")
    done = in_process(tmp_path, "report", "a.zarr")
    assert done.exit_code == 2
    assert "is no report of detcal" in done.stderr
    assert (tmp_path / "a.zarr.html").read_text() == "<html>mine</html>"


@pytest.fixture
def small(tmp_path):
    """A folder with a recipe that takes a moment, whose input has a name that wants to be a tag."""
    np.save(tmp_path / EVIL, np.random.default_rng(0).poisson(900, (6, 16, 24)).astype(np.uint16))
    save(Response.from_gain(np.ones((16, 24))), tmp_path / "response.zarr")
    (tmp_path / "small.toml").write_text(
        f'[input]\npath = "{EVIL}"\n[[steps]]\noperation = "correct_response"\nresponse = "response.zarr"\n[output]\npath = "out.zarr"\n'
    )
    return tmp_path


def test_a_report_that_cannot_be_written_is_one_warning_and_the_output_stays(small, monkeypatch):
    monkeypatch.setattr(writing, "as_page", lambda document: 1 / 0)
    with pytest.warns(UserWarning, match=r"out.zarr was written, its report was not: ZeroDivisionError") as told:
        outcome = recipe_run(small, "small")
    assert len(told) == 1
    assert outcome.report is None
    assert open_frames(outcome.output).shape == (6, 16, 24)
    assert not list(small.glob(".*")) + list(small.glob("*.html"))


def test_ctrl_c_while_it_is_written_tells_that_the_output_is_there(small, monkeypatch):
    def interrupted(document):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "as_page", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"out\.zarr was written, its report was not"):
        recipe_run(small, "small")
    assert open_frames(small / "out.zarr").shape == (6, 16, 24)


def test_names_of_files_are_no_tags(small):
    outcome = recipe_run(small, "small")
    assert outcome.report == small / "out.zarr.html"
    page = page_of(small / "out.zarr")
    assert EVIL in page.text
    assert set(page.links) == {link for link in page.links if link.startswith("data:")}


def test_a_recipe_with_infinite_numbers_and_nan_is_kept_as_it_is(small):
    """In the ledger, which a resumed run compares with its own recipe, in the output and in the report."""
    text = (small / "small.toml").read_text().replace('.npy"\n', '.npy"\nvalid_range = [0.0, inf]\ndummy = nan\n')
    (small / "small.toml").write_text(text)
    outcome = recipe_run(small, "small")
    report = as_text(report_of(outcome.output))
    assert "valid_range = [0.0, inf]\ndummy = nan" in report or "dummy = nan\nvalid_range = [0.0, inf]" in report
    assert "frames, frame 0 of 6" in report
    noted = read_ledger(Places.of(outcome.output).last_ledger).header["fingerprint"]
    recipe = read_recipe(small / "small.toml", {"output": {"overwrite": True}})
    assert differences(noted, fingerprint(recipe, [small / name for name in noted["inputs"]])) == []


@pytest.mark.parametrize("damaged", [1, 3])
def test_a_run_of_damaged_input_tells_of_it_in_report_and_status(small, damaged):
    """Frame 3 of 6 is one of those that are drawn."""
    with h5py.File(small / "raw.h5", "w") as file:
        file.create_dataset(
            "data", data=np.random.default_rng(0).poisson(900, (6, 16, 24)).astype(np.uint16), chunks=(1, 16, 24), compression="gzip"
        )
        chunk = file["data"].id.get_chunk_info(damaged)
    content = bytearray((small / "raw.h5").read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    (small / "raw.h5").write_bytes(content)
    (small / "small.toml").write_text((small / "small.toml").read_text().replace(EVIL, "raw.h5"))
    done = in_process(small, "run", "small.toml", "--memory", "16GiB")
    assert done.exit_code == 3, done.output
    assert not list(small.glob(".*"))
    report = as_text(report_of(small / "out.zarr"))
    assert not list(small.glob(".*"))
    assert "1 frame could not be read" in report
    assert re.search(rf"raw\.h5 +{damaged} +\S", report)
    assert "frames, frame 0 of 6" in report
    assert "corrected, frame 3 of 6: 16 × 24, " + ("384 of 384 masked" if damaged == 3 else "none masked") in report
    told = " ".join(in_process(small, "status", "out.zarr").stdout.split())
    assert f"quarantined 1 frame cannot be read: {damaged} of {small / 'raw.h5'}".replace(" ", "") in told.replace(" ", "")


def test_no_library_for_figures_is_loaded(small):
    """It would take a second of each run, and 50 MiB beyond what was planned."""
    command = "import sys; from detcal_pipelines.cli import main; main(sys.argv[1:], standalone_mode=False)"
    program = f"{command}; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", program, "run", "small.toml", "--memory", "1GiB"], cwd=small, check=True, timeout=120)
    assert (small / "out.zarr.html").is_file()


def test_of_a_run_that_broke_off_there_is_a_report_without_pictures(folder, tmp_path):
    places = Places.of(tmp_path / "new_corrected.zarr")
    shutil.copytree(folder / "new_corrected.zarr", places.store)
    lines = (folder / "new_corrected.zarr.ledger").read_bytes().splitlines(keepends=True)
    places.ledger.write_bytes(b"".join(lines[:3]))
    report = as_text(report_of(places.output))
    assert "0 % done" in report
    assert "drawn once the output is whole" in report


# ------------------------------------------------------------------------------------------------------ a browser


def look_at(page, profile):
    """What a script on a page has found in a browser; None if it has not ended."""
    shown = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,900", f"--user-data-dir={profile}",
         "--virtual-time-budget=10000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    return re.search(r'data-found="([^"]*)"', shown)


@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed: apt-get install chromium")
@pytest.mark.parametrize("name", ["new_corrected.zarr", "new_cube.zarr", "new_profiles.zarr", "new_distortion.zarr", "evil"])
def test_a_browser_shows_it_without_scrolling_sideways_and_no_words_upon_each_other(folder, small, name):
    if name == "evil":
        recipe_run(small, "small")
    page = small / "out.zarr.html" if name == "evil" else folder / f"{name}.html"
    looked = small / "looked.html"
    looked.write_text(page.read_text().replace("</body>", f"{LOOK}</body>"))
    looks = (look_at(looked, small / "profile") for _ in range(3))  # on a busy machine a browser may print before it has looked
    found = json.loads(unquote(next(look for look in looks if look)[1]))
    assert found["width"] <= 1000
    assert found["needs"] <= found["width"]
    assert found["title"] == page.name.removesuffix(".html")
    assert found["pictures"] >= 2
    assert found["images"] >= 2
    assert not found["broken"]
    assert not found["outside"]
    assert not found["overlaps"]


# ------------------------------------------------------------------------------------------------------- pictures


def test_large_frames_are_read_one_at_a_time_and_thinned():
    read = []

    def frame(block_info=None):
        read.append(block_info[None]["chunk-location"][0])
        return np.full((1, 1500, 40), 7, np.uint16)

    frames = da.map_blocks(frame, dtype=np.uint16, chunks=((1,) * 1000, (1500,), (40,)), meta=np.empty((0, 0, 0), np.uint16))
    pictures = pictures_of(xr.DataArray(frames, dims=("frame", "y", "x")))
    assert sorted(read) == [0, 500]
    assert [picture.shape for picture in pictures] == [(1500, 40)] * 2
    assert max(pictures[0].values.shape) <= SIDE


def test_flagged_numbers_and_masks_are_counted():
    frames = np.zeros((1, 4, 5), np.uint32)
    frames[0, 1, :3] = 2**32 - 1
    mask = np.zeros((4, 5), bool)
    mask[2] = True
    data = xr.Dataset({"frames": (("frame", "y", "x"), da.from_array(frames)), "mask": (("y", "x"), mask)})
    assert [picture.missing for picture in pictures_of(data)] == [3, 5]


def test_of_a_large_cube_some_rows_are_read(monkeypatch):
    read = []

    def tile(block_info=None):
        read.append(block_info[None]["chunk-location"][0])
        return np.full((4, 6, 8), block_info[None]["chunk-location"][0], np.float32)

    cube = da.map_blocks(tile, dtype=np.float32, chunks=((4,) * 100, (6,), (8,)), meta=np.empty((0, 0, 0), np.float32))
    rate = xr.DataArray(cube, dims=("row", "column", "energy"), coords={"energy": np.linspace(0, 20, 8)}, name="rate")
    whole, spectrum = pictures_of(rate)
    assert whole.values.shape == (400, 6)
    np.testing.assert_allclose(spectrum.lines["mean"], 49.5)
    read.clear()
    monkeypatch.setattr("detcal_pipelines.pictures.MAP_BYTES", 20 * 4 * 6 * 8 * 4)
    some, spectrum = pictures_of(rate)
    assert len(set(read)) == 20
    assert some.shape == (400, 6)
    np.testing.assert_array_equal(some.values[[0, -1], 0], [0, 99])
    assert "(20 of its 400 rows)" in some.title


# ----------------------------------------------------------------------------------------------- where time went


def at_work_in(module: str, seconds: float) -> FunctionType:
    """A function of some module that takes so long."""
    code = compile(f"def work(*_):\n    import time\n    time.sleep({seconds})\n", module, "exec")
    place = {"__name__": module}
    exec(code, place)
    return place["work"]


def test_time_is_that_of_the_step_a_thread_is_at():
    steps = [find_step(name).model_construct(operation=name) for name in ("correct_response", "sigma_clip", "integrate")]
    graph = {}
    for number, (module, seconds) in enumerate(
        [("detcal.stores.sources.hdf5", 0.2), ("detcal.response.kernels", 0.4), ("detcal.azimuthal.kernels", 0.6), ("somewhere", 0.3)]
    ):
        graph[number] = Task(number, at_work_in(module, seconds))
    with MemoryWatch() as watch, Stopwatch(steps) as stopwatch:
        compute_on_threads(graph, list(graph), 2, 64 * GIB, watch, lambda key: None, lambda key: None, lambda: None)
    times = stopwatch.times()
    assert list(times) == ["reading", "correct_response", "sigma_clip and integrate", "other"]
    np.testing.assert_allclose(list(times.values()), [0.2, 0.4, 0.6, 0.3], atol=0.1)
