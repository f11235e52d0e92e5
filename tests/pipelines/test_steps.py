"""Steps are declared once: they say what the functions say, and nothing else of the pipelines knows them by name."""

import re
import shutil
import subprocess
import sys
from inspect import Parameter, isfunction, signature
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.listing import first_line
from detcal_pipelines.steps import Step
from detcal_pipelines.steps.registry import own_steps
from detcal_pipelines.steps.sources import ArraySource, FramesSource, InputFile, Source
from detcal_pipelines.steps.words import ELSEWHERE, entry, literals, meaning
from detcal_pipelines.template import PIPELINES, TABLE, table_of_steps

from detcal import azimuthal, distortion, response, save, sensor, xrf
from tests.pipelines.commands import in_process

ROOT = Path(__file__).parents[2]
WITHOUT_NAMES = (
    "recipe",
    "mistakes",
    "plan",
    "run",
    "chain",
    "template",
    "catalogue",
    "listing",
    "display",
    "compiling",
    "cli",
    "cluster",
    "threads",
    "graph",
    "report",
    "status",
    "stopwatch",
    "pictures",
    "reports/gathering",
)

# Parameters that are no keys of a recipe: what the steps before give, and how the work is cut, which is the plan's affair
DATA = {"frames", "sweep", "image", "scan", "spectra", "profile", "bins", "psf", "warp", "grid", "path", "output"}
PLANNED = {"chunks", "progress", "overwrite"}
RENAMED = {("regrid_xrf", "element_maps", "method"): "element_method"}  # two functions of the step have a method
# Whose tile_rows follow from other sizes
TILES = {("convert_crono", "convert_scan"), ("correct_distortion", "build_overlaps"), ("uncorrect", "build_overlaps")}
OPTIONAL = {"elements"}  # which a map has beside its cube
FILES = (Source, ArraySource, InputFile)
SUBJECTS = (response, sensor, distortion, azimuthal, xrf)
WITHOUT_STEP = {
    "attenuation_per_m": "a number: build_psf takes material and energy",
    "find_grid_points": "fit_distortion has its options, and takes dots that it found",
    "calibrate_energy": "its two lines are chosen by eye; a scan takes energy_kev",
    "ring_amplitude": "a number: the report of correct_response has it",
    "plot_absorption": "a figure",
    "plot_distortion": "a figure",
    "plot_frame": "a figure",
    "plot_profiles": "a figure",
}

OPTIONS = [
    pytest.param(kind, function, option, id=f"{name}-{function.__name__}-{option.name}")
    for name, kind in own_steps().items()
    for function in kind.mirrors
    for option in signature(function).parameters.values()
    if option.name not in DATA | PLANNED and not (option.name == "tile_rows" and (name, function.__name__) in TILES)
]


def key_of(kind: type[Step], function: Any, option: Parameter) -> str:
    return RENAMED.get((kind.model_fields["operation"].default, function.__name__, option.name), option.name)


def kinds_in(annotation: Any) -> list[type]:
    """All classes in a type."""
    inner = [kind for each in get_args(annotation) if not isinstance(each, str) for kind in kinds_in(each)]
    return [annotation, *inner] if isinstance(annotation, type) else inner


@pytest.mark.parametrize(("kind", "function", "option"), OPTIONS)
def test_a_recipe_sets_every_option_by_its_name_and_default(kind, function, option):
    field = kind.model_fields[key_of(kind, function, option)]
    if option.default is Parameter.empty:
        assert field.is_required() or option.name in OPTIONAL
        return
    assert (tuple(field.default) if isinstance(field.default, list) else field.default) == option.default
    if get_origin(option.annotation) is Literal:
        assert {*literals(field.annotation)} <= {*map(str, get_args(option.annotation))}


@pytest.mark.parametrize(("kind", "function", "option"), OPTIONS)
def test_a_key_has_the_words_of_the_functions(kind, function, option):
    """What a field itself says of an option has no word that the docstrings of its functions have not; files are of recipes alone."""
    key = key_of(kind, function, option)
    said = meaning(kind, key)
    assert said
    assert not ELSEWHERE.match(said)
    field = kind.model_fields[key]
    if not any(issubclass(each, FILES) for each in kinds_in(field.annotation)) and field.description:
        told = [*(each.__doc__ or "" for each in kind.mirrors), *(entry(each, option.name)[1] for each in kind.mirrors), *RECIPE_WORDS]
        known = {word[:6] for word in words_of(" ".join(told))} | {word[:6] for word in literals(field.annotation)}
        unknown = [word for word in words_of(said) if word[:6] not in known]
        assert unknown == []


def words_of(text: str) -> list[str]:
    """Words of four letters and more."""
    return re.findall(r"[a-zµ]{4,}", text.lower())


RECIPE_WORDS = [
    "default",
    "chosen",
    "memory budget",
    "task",
    "whether",
    "whichever",
    "given",
    "write",
    "stands for no reading, in place of all other flags",
]


def test_every_operation_has_a_step():
    mirrored = {function.__name__ for kind in own_steps().values() for function in kind.mirrors}
    public = {name for subject in SUBJECTS for name in subject.__all__ if isfunction(getattr(subject, name))}
    assert public - mirrored == {*WITHOUT_STEP}


@pytest.mark.parametrize("module", WITHOUT_NAMES)
def test_no_step_is_known_by_name(module):
    text = (PIPELINES / "detcal_pipelines" / f"{module}.py").read_text()
    names = [*own_steps(), *(kind.__name__ for kind in own_steps().values())]
    assert [name for name in names if re.search(rf"\b{name}\b", text)] == []


def test_the_table_of_steps_is_written_from_them():
    (found,) = TABLE.findall((PIPELINES / "README.md").read_text())
    assert found == table_of_steps(), "write it again: python -m detcal_pipelines.template"


def test_all_are_listed_in_a_line_each_and_shown_with_their_keys(tmp_path):
    lines = in_process(tmp_path, "steps").output.splitlines()
    told = {name: first_line(kind.__doc__) for name, kind in own_steps().items()}
    assert [tuple(line.split(maxsplit=1)) for line in lines[: len(told)]] == list(told.items())
    for name, kind in own_steps().items():
        shown = in_process(tmp_path, "steps", name).output
        for key in kind.model_fields.keys() - {"operation"}:
            assert re.search(rf"^{key}: .+\n    .+", shown, re.MULTILINE), f"{key} of {name}"
    assert "threshold: number, default 5.0\n" in in_process(tmp_path, "steps", "sigma_clip").output
    done = in_process(tmp_path, "steps", "sigma_clop")
    assert (done.exit_code, done.stderr) == (2, "error: unknown step; did you mean sigma_clip?\n")


def test_the_list_of_steps_imports_no_kernels():
    program = "import sys; from detcal_pipelines.listing import list_steps; print(*list_steps()); sys.exit('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0]) == (0, next(iter(own_steps()))), done.stderr


def test_a_step_is_used_from_python_too(tmp_path):
    """Without a recipe: its keys are checked, and its three methods are all that is needed."""
    np.save(tmp_path / "gain.npy", np.full((4, 5), 2.0))
    step = own_steps()["correct_response"](response={"path": str(tmp_path / "gain.npy")})
    frames = xr.DataArray(np.ones((3, 4, 5), np.float32), dims=("frame", "y", "x")).chunk({"frame": 1})
    np.testing.assert_array_equal(step.build(frames, step.prepare()), np.full((3, 4, 5), 2))


# ------------------------------------------------------------------------------------------------------- a new step

KERNEL = '''

def lowered(frames, *, level):
    """Frames less a level."""
    return frames - np.float32(level)
'''
OPERATION = '''

def lower(frames: ArrayLike, *, level: float = 1.0) -> xr.DataArray:
    """Frames less a level, lazily.

    Parameters
    ----------
    level
        What is taken off, counts.
    """
    return map_frames(kernels.lowered, as_stack(frames), {"level": level})
'''
DECLARATION = '''

from detcal.response.operations import lower  # noqa: E402


class Lower(Step[None]):
    """Take a level off the frames."""

    operation: Literal["lower"] = "lower"
    mirrors = (lower,)

    level: float = Field(1.0)

    def prepare(self) -> None:
        """Nothing."""

    def build(self, data: Any, ready: None) -> Any:
        return lower(data, **self.options_of(lower))

    def task_bytes(self, block: Block, ready: None) -> int:
        return 3 * block.nbytes
'''
END = "end of a command"
PLACES = {
    "detcal/response/kernels.py": KERNEL,
    "detcal/response/operations.py": OPERATION,
    "pipelines/detcal_pipelines/steps/response.py": DECLARATION,
}


def test_adding_a_step_takes_three_places(tmp_path):
    """In a copy of the project: then it is listed, written, checked, planned and run."""
    for part in ("detcal", "pipelines"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for place, text in PLACES.items():
        with open(tmp_path / place, "a") as file:
            file.write(text)
    save(np.full((6, 4, 5), 9, np.float32), tmp_path / "scan.h5")

    listed, shown, _, _, planned, _ = in_a_copy(
        tmp_path, ["steps"], ["steps", "lower"], ["init", "lower"], ["check", "lower.toml"], ["plan", "lower.toml", "--memory", "1GiB"],
        ["run", "lower.toml", "--memory", "16GiB", "--workers", "1"],
    )  # fmt: skip
    assert re.search(r"^lower +Take a level off the frames\.$", listed, re.MULTILINE)
    assert "what is taken off, counts" in shown
    assert "# level = 1.0                               # what is taken off, counts" in (tmp_path / "lower.toml").read_text()
    assert "lower" in planned
    found = xr.open_zarr(tmp_path / "lower.zarr")
    np.testing.assert_array_equal(found[next(iter(found))], np.full((6, 4, 5), 8))


def in_a_copy(folder: Path, *commands: list[str]) -> list[str]:
    """What commands of a copy of the project print, in a process of their own."""
    program = f"""if True:
        import sys
        sys.path[:0] = {[str(folder), str(folder / "pipelines")]}
        from detcal_pipelines.cli import main
        for command in {commands}:
            main(command, standalone_mode=False)
            print("{END}")
    """
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split(END)[:-1]


def test_variances_may_be_frames_of_a_file():
    for name in ("integrate", "sigma_clip", "deconvolve", "correct_distortion"):
        assert any(issubclass(each, FramesSource) for each in kinds_in(own_steps()[name].model_fields["variance"].annotation))
