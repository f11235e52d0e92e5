"""What a declaration of a step must have: one that lacks something is refused where its class is made."""

from abc import ABCMeta
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from detcal.errors import DetcalError

Kind = Literal["frames", "scan", "nothing", "table", "calibration", "cube"]
Cut = Literal["frames", "rows", "lines", "spectra"]
TAKEN: tuple[Kind, ...] = ("frames", "scan", "nothing")


class DeclarationError(DetcalError, TypeError):
    """The class of a step that lacks something."""


def is_declared(kind: type[BaseModel]) -> bool:
    """Whether a class is a step, and not what several steps have in common: it has a name."""
    return get_origin(kind.model_fields["operation"].annotation) is Literal


def check_declaration(kind: Any) -> None:
    """Refuse the class of a step that lacks something.

    Raises
    ------
    DeclarationError
        With all that is missing, in one line.
    """
    if "operation" not in kind.__annotations__:
        return  # what several steps have in common
    missing = [*lacks_a_name(kind), *lacks_words(kind), *lacks_kinds(kind), *lacks_types(kind), *lacks_methods(kind)]
    if missing:
        raise DeclarationError(f"{kind.__module__}.{kind.__qualname__} is no step: {'; '.join(missing)}")


def lacks_a_name(kind: type[BaseModel]) -> list[str]:
    """The name of the operation, as a type and as a default."""
    field = kind.model_fields["operation"]
    names = get_args(field.annotation) if is_declared(kind) else ()
    if len(names) == 1 and field.default == names[0] and str(names[0]).isidentifier():
        return []
    return ['expected operation: Literal["name"] = "name"']


def lacks_words(kind: type[BaseModel]) -> list[str]:
    """A docstring of its own."""
    return [] if (vars(kind).get("__doc__") or "").strip() else ["it has no docstring: write one line that says what it does"]


def lacks_kinds(kind: Any) -> list[str]:
    """Known kinds of what it takes and cuts."""
    wrong = []
    if kind.takes not in TAKEN:
        wrong.append(f"expected takes to be one of {', '.join(TAKEN)}, got {kind.takes!r}")
    if kind.cut not in get_args(Cut):
        wrong.append(f"expected cut to be one of {', '.join(get_args(Cut))}, got {kind.cut!r}")
    return wrong


def lacks_types(kind: type[BaseModel]) -> list[str]:
    """A type of each key."""
    return [f"the key {name} has no type: write {name}: float, say" for name, field in kind.model_fields.items() if field.annotation is Any]


def lacks_methods(kind: ABCMeta) -> list[str]:
    """The three methods, and `work` where it cuts something else than frames."""
    names = sorted(kind.__abstractmethods__)
    if kind.cut != "frames" and kind.work.__module__ == "detcal_pipelines.steps.step":  # type: ignore[attr-defined]
        names.append("work")
    return [f"it has no method {', '.join(names)}"] if names else []
