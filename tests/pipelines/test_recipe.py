"""Recipes: every mistake at once, and the ready ones that `init` writes."""

import tomllib
from pathlib import Path

import pytest
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.steps.registry import own_steps, step_names
from detcal_pipelines.template import render

from detcal.errors import RecipeError
from detcal.stores.sources.names import find_paths

RECIPES = Path(__file__).parents[2] / "pipelines" / "recipes"


@pytest.fixture
def folder(tmp_path):
    frames = (
        "sweep.h5",
        "ct.h5",
        "dark.h5",
        "darks.h5",
        "flat.h5",
        "scan.h5",
        "mask.edf",
        "grid.edf",
        "variance.h5",
        "points.zarr",
        "straight.zarr",
    )
    for name in (
        *frames,
        "response.zarr",
        "corrected.zarr",
        "hot.edf",
        "first.zarr",
        "psf.zarr",
        "detector.poni",
        "distortion.zarr",
        "times.h5",
        "energies.h5",
    ):
        (tmp_path / name).touch()
    return tmp_path


def read(folder: Path, text: str, **changes):
    path = folder / "recipe.toml"
    path.write_text(text)
    return read_recipe(path, changes)


def test_five_mistakes_are_reported_at_once_with_place_line_and_suggestion(folder):
    text = """
[input]
path = "swep.h5"
chunk_frames = 0

[[steps]]
operation = "fit_response"
sigmaa = 30.0
order = 3

[output]
pth = "response.zarr"
"""
    with pytest.raises(RecipeError) as caught:
        read(folder, text)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("6 mistakes in ")
    assert lines[1] == f"  input.path (line 3): no such file: {folder / 'swep.h5'}"
    assert lines[2] == "  input.chunk_frames (line 4): expected a number above 0, got 0"
    assert lines[3] == "  steps[0].sigmaa (line 8): unknown key; did you mean sigma?"
    assert lines[4] == "  steps[0].order (line 9): expected 1 or 2, got 3"
    assert lines[5] == "  output.path (line 11): missing"
    assert lines[6] == "  output.pth (line 12): unknown key; did you mean path?"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ('operation = "fit_respons"', "steps[0].operation (line 4): unknown step; did you mean fit_response?"),
        ("sigma = 3", f"steps[0].operation (line 3): missing; one of {', '.join(step_names())}"),
        (
            'operation = "fit_response"\ndark = { path = "dark.h5", datset = "x" }',
            "steps[0].dark.datset (line 5): unknown key; did you mean dataset?",
        ),
        ('operation = "deconvolve"', "steps[0].psf (line 3): missing"),
        ('operation = "correct_response"\nflat = 5', "steps[0].flat (line 5): expected a path, or { path, dataset, frames, flip }, got 5"),
        ('operation = "fit_response"\nsigma = "wide"', "steps[0].sigma (line 5): expected a number, got 'wide'"),
    ],
)  # fmt: skip
def test_mistakes_in_a_step(folder, step, message):
    with pytest.raises(RecipeError) as caught:
        read(folder, f'[input]\npath = "sweep.h5"\n[[steps]]\n{step}\n[output]\npath = "out.zarr"\n')
    assert str(caught.value).splitlines()[1].strip() == message


PLANE = "shape = [30, 40], pixel_size_m = [1e-4, 1e-4], distance_m = 0.1, poni_m = [0, 0]"


@pytest.mark.parametrize(
    ("geometry", "messages"),
    [
        ('"none.poni"', ["steps[0].geometry (line 3): no such file: {folder}/none.poni"]),
        ("5", ["steps[0].geometry (line 3): expected a path, or {{ shape, pixel_size_m, distance_m, poni_m }}, got 5"]),
        (f"{{ {PLANE}, poni = 1 }}", ["steps[0].geometry.poni (line 3): unknown key; did you mean poni_m?"]),
        (
            '{ shape = [30, 40], pixel_size_m = [1e-4, 1e-4], distance_m = "far" }',
            [
                "steps[0].geometry.distance_m (line 3): expected a number, got 'far'",
                "steps[0].geometry.poni_m (line 3): missing",
            ],
        ),
    ],
)  # fmt: skip
def test_mistakes_in_a_geometry(folder, geometry, messages):
    with pytest.raises(RecipeError) as caught:
        read(folder, f'[[steps]]\noperation = "build_psf"\ngeometry = {geometry}\n[output]\npath = "out.zarr"\n')
    found = [line.strip() for line in str(caught.value).splitlines()[1:]]
    assert found == [message.format(folder=folder) for message in messages]


def test_a_plane_may_stand_in_place_of_a_poni_file(folder):
    recipe = read(folder, render("build_psf").replace('"detector.poni"', f"{{ {PLANE} }}"))
    assert recipe.steps[0].geometry.shape == [30, 40]
    assert '"pixel_size_m":[0.0001,0.0001]' in recipe.model_dump_json()


def test_all_steps_but_build_psf_take_frames(folder):
    frames = '[input]\npath = "scan.h5"\n'
    with pytest.raises(RecipeError, match=r"input \(line 1\): build_psf takes no frames: leave \[input\] out"):
        read(folder, frames + render("build_psf"))
    text = render("deconvolve")
    with pytest.raises(RecipeError, match="input: missing: deconvolve takes frames"):
        read(folder, text[text.index("# Undo") :])
    with pytest.raises(RecipeError, match="steps: build_psf takes no frames, and gives none: make it the only step"):
        read(folder, text + '[[steps]]\noperation = "build_psf"\ngeometry = "detector.poni"\n')


def test_a_scheduler_has_its_own_limits(folder):
    text = render("fit_response").replace("# scheduler", "scheduler").replace("# memory", "memory")
    with pytest.raises(RecipeError, match="leave memory and workers out"):
        read(folder, text)


@pytest.mark.parametrize("name", ["with space", "br[1]", "ümlaut"])
def test_folders_may_have_any_name_and_files_any_pattern(tmp_path, name):
    inner = tmp_path / name
    inner.mkdir()
    for file in ("a1.edf", "a2.edf", "dark.h5"):
        (inner / file).touch()
    recipe = read(inner, render("fit_response").replace("sweep.h5", "a*.edf"))
    assert len(find_paths(recipe.input.path)) == 2
    assert recipe.steps[0].dark.path == str(inner / "dark.h5")


def test_a_calibration_is_the_last_step(folder):
    text = render("fit_response").replace("[output]", '[[steps]]\noperation = "fit_response"\n[output]')
    with pytest.raises(RecipeError, match="steps: fit_response gives a calibration, not frames: make it the last step"):
        read(folder, text)


def test_what_is_not_toml_has_a_line(folder):
    with pytest.raises(RecipeError, match=r"is not TOML: .*line 2"):
        read(folder, "[input]\npath = \n")
    with pytest.raises(RecipeError, match="no such recipe"):
        read_recipe(folder / "none.toml")


def test_paths_are_seen_from_the_recipes_folder_and_the_command_line_has_the_last_word(folder):
    text = render("fit_response")
    recipe = read(folder, text, compute={"memory": "2GiB", "workers": 3}, output={"overwrite": True})
    assert recipe.input.path == str(folder / "sweep.h5")
    assert recipe.steps[0].dark.path == str(folder / "dark.h5")
    assert recipe.output.path == str(folder / "response.zarr")
    assert recipe.compute.memory == 2 * 2**30
    assert recipe.compute.workers == 3
    assert recipe.output.overwrite


@pytest.mark.parametrize("name", own_steps())
def test_ready_recipes_are_what_init_writes_and_valid(folder, name):
    text = (RECIPES / f"{name}.toml").read_text()
    assert text == render(name), f"write it again: detcal init {name}"
    read(folder, text)


@pytest.mark.parametrize("name", own_steps())
def test_lines_that_are_commented_out_are_valid_too(folder, name):
    lines = [line for line in render(name).splitlines() if "scheduler" not in line]  # which excludes memory and workers
    text = "\n".join(line[2:] if line.startswith("# ") and " = " in line else line for line in lines)
    given = tomllib.loads(text)
    for table in {"input", "output", "compute"} & set(given):
        assert len(given[table]) >= 2
    read(folder, text)
