"""Small recipes, and what is said of those that are refused."""

from pathlib import Path

from click.testing import CliRunner
from detcal_pipelines.cli import main

SHAPE = (8, 9)


def write(step: str, *, source: str = 'path = "scan.npy"', output: str = "out.zarr", name: str = "r.toml") -> Path:
    Path(name).write_text(f'[input]\n{source}\n[[steps]]\n{step}\n[output]\npath = "{output}"\n')
    return Path(name)


def refused(recipe: Path, *commands: str, options: tuple[str, ...] = ()) -> set[str]:
    """What check, plan and run say of a recipe that none of them takes."""
    said = set()
    for command in commands or ("check", "plan", "run"):
        done = CliRunner().invoke(main, [command, str(recipe), *(options if command != "plan" else ())])
        assert done.exit_code == 2, f"{command}: {done.output}"
        said.add(done.stderr.strip().splitlines()[-1])
    return said


CORRECT = 'operation = "correct_response"\nresponse = {response}'
RINGS = 'operation = "integrate"\ngeometry = "plane.poni"\nnpt = 5\nunit = "r_mm"\nmask = {mask}'
FIT = 'operation = "fit_response"\nsigma = 2.0\nmask = {mask}'
