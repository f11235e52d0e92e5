"""A dry run does one block of everything, keeps nothing, and tells how long the run would take; a plan refuses what a run would."""

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from detcal_pipelines import disk, trial
from detcal_pipelines.report import in_words

from detcal import save
from detcal.stores.sources.hdf5 import Hdf5Reader
from tests.pipelines.commands import detcal, in_process
from tests.pipelines.inputs import write_inputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("trial")
    write_inputs(place, 128, 64, 8)
    return place


def row(told: str, name: str) -> str:
    """What a table says under a name."""
    found = re.search(rf"│ {name} +│ (.+?) +│", told)
    assert found, told
    return found[1]


@pytest.mark.parametrize(
    "name", ["correct_response", "fit_response", "build_psf", "fit_distortion", "regrid_xrf"]
)  # each cut in its own way
def test_a_recipe_can_be_tried_and_nothing_is_kept(folder, name):
    before = sorted(folder.rglob("*"))
    told = detcal(folder, "run", f"{name}.toml", "--workers", "2", "--dry-run").stdout
    assert sorted(folder.rglob("*")) == before
    assert re.fullmatch(r"about [\d.]+ s", row(told, "the whole run"))


@pytest.mark.parametrize(("name", "frames"), [("correct_response", 16), ("fit_response", 32)])
def test_a_trial_reads_two_blocks_and_no_more(folder, monkeypatch, name, frames):
    """Of 64 frames in blocks of 8; a fit sums parts of 16 frames."""
    read, found = Hdf5Reader.read, []

    def noted(reader, start, stop):
        if reader.shape[0] == 64:
            found.append(range(start, stop))
        return read(reader, start, stop)

    monkeypatch.setattr(Hdf5Reader, "read", noted)
    detcal(folder, "run", f"{name}.toml", "--dry-run")
    assert sorted(frame for block in found for frame in block) == [*range(frames)]


def test_the_time_of_a_run():
    """The first block alone, and 99 others on 4 threads."""
    tried = trial.Trial(SimpleNamespace(tasks=4), first=3.0, block=2.0, blocks=100, stored_bytes=10, tried=2, peak_bytes=1)
    assert tried.seconds == 3.0 + 99 * 2.0 / 4
    assert tried.output_bytes == 500


@pytest.mark.parametrize(("seconds", "words"), [(9.84, "9.8 s"), (99.0, "99.0 s"), (600, "10 min"), (36_000, "10.0 h")])
def test_a_time_in_words(seconds, words):
    assert in_words(seconds) == words


def test_a_plan_refuses_an_output_for_which_the_disk_has_no_room(folder, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    done = in_process(folder, "plan", "correct_response.toml")
    assert done.exit_code == 2
    assert "which has 1000 B left: make room there, or choose another folder" in done.stderr


def test_a_plan_of_an_output_that_exists_warns(folder):
    save(np.zeros((2, 2)), folder / "new_corrected.zarr")
    done = detcal(folder, "plan", "correct_response.toml")
    assert done.stderr.count("warning: ") == 1
    assert "exists already: a run needs another name, or --overwrite" in done.stderr
    shutil.rmtree(folder / "new_corrected.zarr")
