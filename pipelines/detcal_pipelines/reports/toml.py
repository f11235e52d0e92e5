"""A recipe as TOML, as it was understood: with the values of keys that were left out."""

import json
from math import isfinite
from typing import Any

TABLES = ("input", "steps", "output", "compute")  # in the order in which people write them


def as_toml(recipe: dict[str, Any]) -> str:
    """The tables of a recipe, without keys that have no value."""
    parts = []
    for name in (*TABLES, *(each for each in recipe if each not in TABLES)):
        found = recipe.get(name)
        tables, head = (found, f"[[{name}]]") if isinstance(found, list) else ([found], f"[{name}]")
        for table in tables:
            if isinstance(table, dict) and known(table):
                parts.append("\n".join([head, *(f"{key} = {as_value(value)}" for key, value in known(table).items())]))
    return "\n\n".join(parts)


def known(table: dict[str, Any]) -> dict[str, Any]:
    """The keys that have a value; of a file of which only the path is known, that path."""
    return {key: just_path(value) for key, value in table.items() if value is not None}


def just_path(value: Any) -> Any:
    """A path alone, as it may stand for a table of which nothing else is set."""
    return value["path"] if isinstance(value, dict) and [*known(value)] == ["path"] else value


def as_value(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {as_value(each)}' for key, each in known(value).items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(as_value, value))}]"
    if isinstance(value, float) and not isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False)
