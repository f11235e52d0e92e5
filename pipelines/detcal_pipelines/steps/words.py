"""What a key of a recipe means: as its field says, or else as the functions say whose option it is."""

import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from inspect import getdoc, signature
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from detcal_pipelines.steps.sources import FileTable, InputFile, Source, Table
from detcal_pipelines.steps.step import Kind, Step

ELSEWHERE = re.compile(r"As for `([\w.]+)`(?: of ([\w.]*\w))?[.:]? ?")
SENTENCE = re.compile(r"(.+?[.:])(?=\s+[A-Z\"'µ]|$)", re.DOTALL)
UNITS = re.compile(r"^(pixels|counts|m|m, or \(y, x\)|keV|1/m|g/cm³|degrees|in the unit|−1 … 1)\b")


def meaning(kind: type[Step[Any]], key: str) -> str:
    """A key in one line: what its field says, or else the first sentence of the functions, and what may be chosen."""
    field = kind.model_fields[key]
    if field.description:
        return field.description
    unit, text = told(kind, key)
    choices = literals(field.annotation)
    more = [f"({unit})"] if unit else []
    said = " ".join([first_sentence(text), *more])
    return said if all(choice in said for choice in choices) else f"{said}: {', '.join(choices)}"


def details(kind: type[Step[Any]], key: str) -> str:
    """All that the functions say of a key, if that is more than one line says."""
    _, text = told(kind, key)
    return "" if text.rstrip(".:").lower() in meaning(kind, key).lower() else text


def told(kind: type[Step[Any]], key: str) -> tuple[str, str]:
    """The unit and the text of the first function that tells of a key."""
    return next((found for function in kind.mirrors if (found := entry(function, key))[1]), ("", ""))


def first_sentence(text: str) -> str:
    """The first sentence of a text, without its end, and as goes on after a key."""
    found = SENTENCE.match(text)
    first = (found[1] if found else text).rstrip(".:")
    return first[:1].lower() + first[1:] if first[1:2].islower() or first[1:2] == " " else first


def literals(annotation: Any) -> list[str]:
    """Texts and numbers that may be chosen."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [each for inner in get_args(annotation) for each in literals(inner)]


def entry(function: Callable[..., Any], name: str) -> tuple[str, str]:
    """The unit of a parameter, and what its docstring says, with what is said elsewhere in its place."""
    unit, text = parameters(function).get(name, ("", ""))
    return unit, elsewhere(function, name, text) if text else ""


def elsewhere(function: Callable[..., Any], name: str, text: str) -> str:
    """A text in which "As for `other`." is replaced by what is said there."""
    found = ELSEWHERE.match(text)
    if found is None:
        return text
    subject = import_module(found[2] or function.__module__.rpartition(".")[0])
    other = getattr(subject, found[1], None)
    there = entry(other, name)[1] if callable(other) else ""
    return " ".join(part for part in (there, text[found.end() :]) if part) or text


@cache
def parameters(function: Callable[..., Any]) -> dict[str, tuple[str, str]]:
    """Unit and text of each parameter in a numpy docstring."""
    lines = iter((getdoc(function) or "").partition("Parameters\n----------\n")[2].splitlines())
    found: dict[str, tuple[str, str]] = {}
    names: list[str] = []
    for line in lines:
        if line.startswith("---"):
            break  # the names above belong to the next section
        if line and not line.startswith(" "):
            given, _, head = line.partition(" : ")
            unit = UNITS.match(head)
            names = [name.strip() for name in given.split(",")]
            found |= dict.fromkeys(names, (unit[1] if unit else "", ""))
        else:
            found |= {name: (found[name][0], f"{found[name][1]} {line.strip()}".strip()) for name in names}
    return {name: each for name, each in found.items() if name in signature(function).parameters}


# --------------------------------------------------------------------------------------------------------- kinds and types

KINDS: dict[Kind, str] = {
    "frames": "frames", "scan": "a scan", "nothing": "nothing", "table": "a table", "calibration": "a calibration", "cube": "a cube",
}  # fmt: skip
PLAIN: dict[Any, str] = {int: "whole number", float: "number", str: "text", bool: "true or false"}


def goes_through(kind: type[Step[Any]]) -> str:
    """What a step takes and gives."""
    made = kind.model_construct(operation="")
    return f"takes {KINDS[kind.takes]}, gives {'frames' if made.gives == 'frames' else made.product}"


def type_in_words(annotation: Any) -> str:
    """A type as someone says it who writes a recipe."""
    if annotation in PLAIN:
        return PLAIN[annotation]
    if get_origin(annotation) is Annotated:
        return type_in_words(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return " or ".join(f'"{choice}"' if isinstance(choice, str) else str(choice) for choice in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(dict.fromkeys(type_in_words(inner) for inner in get_args(annotation) if inner is not NoneType))
    if get_origin(annotation) is list:
        return f"list of {type_in_words(get_args(annotation)[0])}s".replace("texts", "names")
    if isinstance(annotation, type) and issubclass(annotation, Source | FileTable):
        return f"path or {{ {', '.join(annotation.model_fields)} }}"
    if isinstance(annotation, type) and issubclass(annotation, Table):
        return f"{{ {', '.join(annotation.model_fields)} }}"
    return "path" if isinstance(annotation, type) and issubclass(annotation, InputFile) else "value"


def default_in_words(field: FieldInfo) -> str:
    """The default of a key."""
    if field.is_required():
        return "must be given"
    return "" if field.default is None else f"default {toml(field.default)}"


def toml(value: Any) -> str:
    """A value as a recipe has it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {toml(each)}' for key, each in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)
