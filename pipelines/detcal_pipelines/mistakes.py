"""Every mistake in a recipe, a line each: where it is, what is wrong, and what was probably meant."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from detcal_pipelines.steps.registry import UnknownStep, find_step, suggest
from detcal_pipelines.steps.step import Step

Place = tuple[str | int, ...]
# By pydantic's types of errors: what it expected
EXPECTED = {
    ("bool_type", "bool_parsing"): "expected true or false",
    ("int_type", "int_parsing", "int_from_float"): "expected a whole number",
    ("float_type", "float_parsing"): "expected a number",
    ("finite_number",): "expected a finite number",
    ("string_type",): "expected a text",
    ("list_type",): "expected a list",
    ("dict_type", "model_type", "model_attributes_type"): "expected a table",
    ("literal_error",): "expected {expected}",
    ("greater_than",): "expected a number above {gt:g}",
    ("greater_than_equal",): "expected a number of {ge:g} or more",
    ("less_than",): "expected a number below {lt:g}",
    ("less_than_equal",): "expected a number of {le:g} or less",
    ("too_short",): "expected {min_length} or more values",
    ("too_long",): "expected {max_length} or fewer values",
}
OF_THE_OPERATION = ("no_operation", "unknown_operation")


def describe_mistakes(error: ValidationError, path: Path, text: str, model: type[BaseModel], values: Mapping[str, Any]) -> str:
    """All mistakes that pydantic found in `values`, the contents of a recipe's text, in the order of the file."""
    lines = key_lines(text)
    first = first_mistakes(error)
    ordered = sorted(first, key=lambda place: find_line(place, lines))
    found = [describe(first[place], lines, model, values) for place in ordered]
    return "\n".join([f"{len(found)} mistake{'s' if len(found) > 1 else ''} in {path}:", *found])


def first_mistakes(error: ValidationError) -> dict[Place, ErrorDetails]:
    """What is wrong at each place of the recipe, by the first of the types that a value may be of."""
    first: dict[Place, ErrorDetails] = {}
    for mistake in error.errors():
        first.setdefault(place_of(mistake), mistake)
    return first


def place_of(mistake: ErrorDetails) -> Place:
    """Where in the recipe: pydantic's place without the names of the types that it tried."""
    place = tuple(part for part in mistake["loc"] if "[" not in str(part))
    return (*place, "operation") if mistake["type"] in OF_THE_OPERATION else place


def find_line(place: Place, lines: dict[Place, int]) -> int:
    """The line of the nearest enclosing key that has one; 0 if none has."""
    return next((lines[place[:end]] for end in range(len(place), 0, -1) if place[:end] in lines), 0)


def describe(mistake: ErrorDetails, lines: dict[Place, int], model: type[BaseModel], values: Mapping[str, Any]) -> str:
    """One line: where it is, what is wrong, what was probably meant."""
    place = place_of(mistake)
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    line = find_line(place, lines)
    where = f"  {name}" + (f" (line {line})" if line else "")
    match mistake["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key{suggest(str(place[-1]), known_keys(place[:-1], model, values))}"
        case "missing":
            return f"{where}: missing"
        case "no_operation" | "unknown_operation":
            return f"{where}: {mistake['msg']}"
        case "value_error":
            return f"{where}: {mistake['ctx']['error']}"
        case "byte_size" | "byte_size_unit":
            return f"{where}: expected a size such as 4GiB, got {mistake['input']!r}"
    return f"{where}: {expected(mistake)}, got {as_written(mistake['input'])}"


def expected(mistake: ErrorDetails) -> str:
    """What should be there, in the words of all our errors; what pydantic says where it says anything else."""
    for kinds, words in EXPECTED.items():
        if mistake["type"] in kinds:
            return words.format(**mistake.get("ctx", {}))
    return mistake["msg"].lower()


def as_written(value: Any) -> str:
    """A value as TOML has it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def known_keys(place: Place, model: type[BaseModel], values: Any) -> list[str]:
    """The keys that may stand in a table of the recipe."""
    tables = [model]
    for part in place:
        values = part_of(values, part)
        if not isinstance(part, int):
            tables = [inner for table in tables if part in table.model_fields for inner in tables_in(table.model_fields[part].annotation)]
        tables = [step_in(values) or table if issubclass(table, Step) else table for table in tables]
    return [key for table in tables for key in table.model_fields]


def part_of(values: Any, part: str | int) -> Any:
    """What stands at a key or number; None if nothing does."""
    try:
        return values[part]
    except (LookupError, TypeError):
        return None


def tables_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """All models in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from tables_in(inner)


def step_in(values: Any) -> type[BaseModel] | None:
    """The class of the step that a table [[steps]] names."""
    try:
        return find_step(str(part_of(values, "operation")))
    except UnknownStep:
        return None


def key_lines(text: str) -> dict[Place, int]:
    """The line of each table and each key that begins one, by its place in the recipe."""
    lines: dict[Place, int] = {}
    table: Place = ()
    repeats: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*(\[\[?)\s*([\w.-]+)\s*\]", line):
            name = header[2]
            table = (name,)
            if header[1] == "[[":
                table = (name, repeats.setdefault(name, 0))
                repeats[name] += 1
            lines[table] = number
        elif key := re.match(r"\s*([\w-]+)\s*=", line):
            lines[(*table, key[1])] = number
    return lines
