"""Steps of other packages: listed, checked, planned and run as ours; one that is broken harms nothing else."""

import json

import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.chain import build
from detcal_pipelines.recipe import read_recipe
from distributed import LocalCluster

from detcal import save
from detcal.response import Response, correct_response
from tests.pipelines.commands import detcal, fails, in_process
from tests.pipelines.packages import PACKAGE, found_in, install, pretend

SHAPE = (32, 24)
CHAIN = """
[input]
path = "scan.h5"
chunk_frames = 4
[[steps]]
operation = "subtract_background"
background = "background.h5"
factor = 0.5
[[steps]]
operation = "correct_response"
response = "response.zarr"
[[steps]]
operation = "frame_statistics"
[output]
path = "table.zarr"
overwrite = true
"""
BROKEN = "import no_such_library"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The laboratory's package."""
    folder = install(tmp_path_factory.mktemp("installed") / "packages")
    with found_in(folder):
        yield folder


@pytest.fixture
def frames():
    stack = np.random.default_rng(0).poisson(100, (20, *SHAPE)).astype(np.uint32)
    stack[3, 5] = 2**32 - 1  # not measured
    return stack


@pytest.fixture
def folder(installed, frames, tmp_path):
    save(frames, tmp_path / "scan.h5")
    save(np.full(SHAPE, 20, np.float32), tmp_path / "background.h5")
    save(Response.from_gain(np.full(SHAPE, 2.0)), tmp_path / "response.zarr")
    (tmp_path / "chain.toml").write_text(CHAIN)
    return tmp_path


def expected(frames):
    known = np.where(frames == 2**32 - 1, np.nan, frames).astype(np.float32)
    corrected = correct_response(known - np.float32(10), Response.from_gain(np.full(SHAPE, 2.0))).values
    return np.nanmean(corrected, axis=(1, 2)), np.nanmax(corrected, axis=(1, 2))


def test_a_declaration_takes_at_most_forty_lines():
    for module in ("background", "statistics"):
        assert len((PACKAGE / "labsteps" / f"{module}.py").read_text().splitlines()) <= 40


def test_they_are_listed_with_their_package_and_shown_with_their_keys(installed):
    lines = in_process(installed, "steps").output.splitlines()
    told = dict(line.split(maxsplit=1) for line in lines)
    assert told["subtract_background"] == "Take a background off the frames. (labsteps 1.2.3)"
    assert told["frame_statistics"] == "Mean and largest reading of each frame. (labsteps 1.2.3)"
    shown = in_process(installed, "steps", "subtract_background").output
    assert "takes frames, gives frames" in shown
    assert "factor: number, default 1.0\n    what the background is multiplied by" in shown
    assert "background: path or { path, dataset, frames, flip }, must be given" in shown


def test_a_ready_recipe_is_checked_planned_and_run(folder, frames):
    detcal(folder, "init", "subtract_background")
    detcal(folder, "check", "subtract_background.toml")
    assert "subtract_background" in detcal(folder, "plan", "subtract_background.toml", "--memory", "1GiB").output
    detcal(folder, "run", "subtract_background.toml", "--workers", "2")
    found = xr.open_zarr(folder / "subtract_background.zarr")
    wanted = np.where(frames == 2**32 - 1, np.nan, frames).astype(np.float32) - np.float32(20)
    np.testing.assert_array_equal(found[next(iter(found))], wanted)
    assert json.loads(found.attrs["detcal_steps_of"]) == {"subtract_background": "labsteps 1.2.3"}


def test_they_go_with_ours_and_what_was_not_measured_stays_so(folder, frames):
    mean, highest = expected(frames)
    found = build(read_recipe(folder / "chain.toml"), 4).compute()
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-5)
    np.testing.assert_array_equal(found.highest, highest)


def test_they_run_on_the_workers_of_a_cluster(folder, frames):
    with LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="1.2GiB", dashboard_address="127.0.0.1:0") as cluster:
        detcal(folder, "run", "chain.toml", "--scheduler", cluster.scheduler_address)
    found = xr.open_zarr(folder / "table.zarr")
    np.testing.assert_array_equal(found.highest, expected(frames)[1])
    assert "labsteps 1.2.3" in found.attrs["detcal_steps_of"]


def test_a_table_is_no_frames(folder):
    first, second, third = CHAIN.split("[[steps]]\n")[1:]
    third, output = third.split("[output]")
    steps = "".join(f"[[steps]]\n{step}" for step in (third, first, second))
    (folder / "chain.toml").write_text(f'[input]\npath = "scan.h5"\n{steps}[output]{output}')
    assert "frame_statistics gives a table, not frames: make it the last step" in fails(folder, "check", "chain.toml")


def test_mistakes_in_their_keys_are_found_with_the_others(folder):
    text = CHAIN.replace("factor", "factro").replace('"response.zarr"', '"gone.zarr"')
    (folder / "chain.toml").write_text(text)
    said = fails(folder, "check", "chain.toml")
    assert "steps[0].factro (line 8): unknown key; did you mean factor?" in said
    assert "steps[1].response.path (line 11): no such file" in said


# ------------------------------------------------------------------------------------------------------- broken ones


DECLARED = '''
from typing import Any, Literal
from detcal_pipelines.steps import Step

class Bad(Step[None]):
    """A step."""
    operation: Literal["bad"] = "bad"
    {more}
    def prepare(self): ...
    def build(self, data, ready): {body}
    def task_bytes(self, block, ready): return 0
'''


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (BROKEN, "ModuleNotFoundError: No module named 'no_such_library'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = (", "SyntaxError: "),
        ("class Bad: ...", "is no step: expected a subclass of Step"),
        (DECLARED.format(more="factor = 3.0", body="..."), "`factor = 3.0`. All model fields require a type annotation"),
        (DECLARED.format(more="factor: Any = 3.0", body="..."), "the key factor has no type: write factor: float, say"),
        (DECLARED.format(more="takes = 'images'", body="..."), "expected takes to be one of frames, scan, nothing, got 'images'"),
        (DECLARED.format(more="cut = 'rows'", body="..."), "it has no method work"),
        (DECLARED.format(more="", body="...").replace('"""A step."""', ""), "it has no docstring: write one line that says what it does"),
        (DECLARED.format(more="", body="...").replace("def build", "def built"), "it has no method build"),
        (DECLARED.format(more="", body="...").replace('"bad"', '"worse"'), "its entry point is called bad, and its operation worse"),
    ],
)
def test_a_broken_one_is_named_in_one_line_and_harms_nothing_else(folder, tmp_path, source, reason):
    pretend(tmp_path / "more", "badlab", source, bad="badlab:Bad")
    (tmp_path / "bad.toml").write_text('[input]\npath = "scan.h5"\n[[steps]]\noperation = "bad"\n[output]\npath = "out.zarr"\n')
    with found_in(tmp_path / "more"):
        listed = in_process(folder, "steps")
        assert listed.exit_code == 0
        (line,) = [line for line in listed.output.splitlines() if line.startswith("bad ")]
        assert line.split(maxsplit=1)[1].startswith("broken, of badlab 0.1: ")
        assert reason in line
        said = fails(folder, "check", "bad.toml")
        assert said.splitlines()[1].startswith("  steps[0].operation (line 4): bad of badlab 0.1 cannot be used: ")
        assert reason in said
        assert in_process(folder, "check", "chain.toml").exit_code == 0


def test_only_those_are_imported_that_a_recipe_names(folder, tmp_path):
    pretend(tmp_path / "more", "loudlab", "raise AssertionError('imported')", loud="loudlab:Loud")
    with found_in(tmp_path / "more"):
        assert in_process(folder, "check", "chain.toml").exit_code == 0


@pytest.mark.parametrize(("body", "reason"), [("return 1 / 0", "ZeroDivisionError: division by zero"), ("return 3", "got int")])
def test_one_that_fails_is_named_too(folder, tmp_path, body, reason):
    pretend(tmp_path / "more", "badlab", DECLARED.format(more="", body=body), bad="badlab:Bad")
    (tmp_path / "bad.toml").write_text('[input]\npath = "scan.h5"\n[[steps]]\noperation = "bad"\n[output]\npath = "out.zarr"\n')
    with found_in(tmp_path / "more"):
        said = fails(folder, "check", "bad.toml")
    assert reason in said
    assert "bad" in said


def test_names_are_had_by_one_package(folder, tmp_path):
    declared = DECLARED.format(more="", body="...")
    pretend(tmp_path / "more", "onelab", declared, bad="onelab:Bad", integrate="onelab:Bad")
    pretend(tmp_path / "more", "twolab", declared, bad="twolab:Bad")
    with found_in(tmp_path / "more"):
        lines = in_process(folder, "steps").output.splitlines()
    assert any(line.startswith("bad ") and "has one of this name too: remove one of them" in line for line in lines)
    assert any(line.startswith("integrate ") and "detcal has a step of this name: it needs another one" in line for line in lines)
