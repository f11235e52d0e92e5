"""The ready recipes that `detcal init` writes, and the table of steps, made from the steps so that they cannot fall behind.

python -m detcal_pipelines.template writes those of this project again.
"""

import re
from pathlib import Path
from typing import Any, Literal, get_origin

from pydantic import BaseModel

from detcal_pipelines.listing import first_line
from detcal_pipelines.recipe import Compute, Input, Output
from detcal_pipelines.steps.registry import find_step, own_steps
from detcal_pipelines.steps.step import Step
from detcal_pipelines.steps.words import meaning, toml

PIPELINES = Path(__file__).parents[1]
TABLE = re.compile(r"\| job \| recipe \| output \|\n(?:\|.*\n)+")


def render(name: str) -> str:
    """The text of the ready recipe of a step."""
    kind = find_step(name)
    ready = kind.ready_recipe
    purpose = ready.purpose or first_line(kind.__doc__)
    parts = [
        f"# {purpose}\n# Paths are as seen from this file. Lines that are commented out show the defaults, or an example.\n",
        *([section("[input]", Input, {"path": ready.input})] if kind.takes == "frames" else []),
        section("[[steps]]", kind, {"operation": name, **{key: example(kind, key) for key in ready.sets}}),
        section("[output]", Output, {"path": output_of(kind)}),
        section("[compute]", Compute, {}),
    ]
    return "\n".join(parts)


def output_of(kind: type[Step[Any]]) -> str:
    """Where the ready recipe of a step writes."""
    return kind.ready_recipe.output or f"{kind.model_fields['operation'].default}.zarr"


def example(table: type[BaseModel], key: str) -> Any:
    """A value that suits a key."""
    field = table.model_fields[key]
    return field.examples[0] if field.examples else None if field.is_required() else field.default


def section(header: str, table: type[BaseModel], values: dict[str, Any]) -> str:
    """One table of a recipe, a line a key."""
    lines = [line(table, name, values) for name in table.model_fields]
    return f"# {first_line(table.__doc__)}\n{header}\n" + "".join(lines)


def line(table: type[BaseModel], name: str, values: dict[str, Any]) -> str:
    """One key: set if it must be or has a value here, else commented out."""
    field = table.model_fields[name]
    given = f"{name} = {toml(values.get(name, example(table, name)))}"
    if get_origin(field.annotation) is Literal and name == "operation":
        return f"{given}\n"
    hidden = "" if field.is_required() or name in values else "# "
    said = meaning(table, name) if issubclass(table, Step) else field.description
    return f"{hidden + given:<44}# {said}\n" if said else f"{hidden + given}\n"


def table_of_steps() -> str:
    """The table of pipelines/README.md."""
    lines = ["| job | recipe | output |", "|---|---|---|"]
    for name, kind in own_steps().items():
        job = first_line(kind.__doc__).partition(";")[0].rstrip(".")
        lines.append(f"| {job} | `{name}` | `{output_of(kind)}`: {kind.ready_recipe.writes} |")
    return "\n".join(lines) + "\n"


def write_all(folder: Path = PIPELINES) -> None:
    """Write the ready recipes, and the table, of this project."""
    for name in own_steps():
        (folder / "recipes" / f"{name}.toml").write_text(render(name))
    readme = folder / "README.md"
    readme.write_text(TABLE.sub(lambda _: table_of_steps(), readme.read_text()))


if __name__ == "__main__":
    write_all()
