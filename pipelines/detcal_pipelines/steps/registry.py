"""All steps by their names: ours, and those of other packages, of which only what is asked for is imported."""

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from detcal.errors import DetcalError
from detcal_pipelines.listing import GROUP, own_declarations
from detcal_pipelines.steps.declaration import is_declared
from detcal_pipelines.steps.step import Step


class UnknownStep(DetcalError, ValueError):
    """A step that nobody declares, or whose package cannot be imported."""


class Package(NamedTuple):
    """Whose step it is."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True)
class Listed:
    """A step of another package as `detcal steps` lists it: its class, or why there is none."""

    operation: str
    kind: type[Step[Any]] | None
    package: Package
    fault: str = ""


@cache
def own_classes() -> dict[str, tuple[str, str]]:
    """The module and the class of each step of detcal, by its operation; none of them is imported, as that may take seconds."""
    return {name: (f"detcal_pipelines.steps.{subject}", declaration.name) for name, subject, declaration in own_declarations()}


def own_step(operation: str) -> type[Step[Any]]:
    """The class of a step of detcal."""
    module, name = own_classes()[operation]
    kind: type[Step[Any]] = getattr(import_module(module), name)
    return kind


def own_steps() -> dict[str, type[Step[Any]]]:
    """The steps of detcal."""
    return {operation: own_step(operation) for operation in own_classes()}


def name_of(kind: type[Step[Any]]) -> str:
    """The name of a step."""
    return str(kind.model_fields["operation"].default)


def others() -> dict[str, list[EntryPoint]]:
    """What other packages say that they have, by name; nothing of them is imported."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(entry.name, []).append(entry)
    return found


def step_names() -> list[str]:
    """Names of all steps that may be asked for."""
    return list(dict.fromkeys([*own_classes(), *others()]))


def find_step(operation: str) -> type[Step[Any]]:
    """The class of a step.

    Raises
    ------
    UnknownStep
        There is none of this name, or its package is at fault.
    """
    if operation in own_classes():
        return own_step(operation)
    entries = others().get(operation)
    if not entries:
        raise UnknownStep(f"unknown step{suggest(operation, step_names())}")
    listed = look_at(operation, entries)
    if listed.kind is None:
        raise UnknownStep(f"{operation} of {listed.package} cannot be used: {listed.fault}")
    return listed.kind


def package_of(operation: str) -> Package | None:
    """The package that a step comes from, if that is not detcal."""
    entries = [] if operation in own_classes() else others().get(operation, [])
    return owner(entries[0]) if entries else None


def other_steps() -> Iterator[Listed]:
    """The steps of other packages, which are imported, and what is wrong with those that cannot be used."""
    for operation, entries in others().items():
        yield look_at(operation, entries)


def look_at(operation: str, entries: list[EntryPoint]) -> Listed:
    """The step of an entry point."""
    package = owner(entries[0])
    if operation in own_classes():
        return Listed(operation, None, package, "detcal has a step of this name: it needs another one")
    if len(entries) > 1:
        return Listed(operation, None, package, f"{owner(entries[1])} has one of this name too: remove one of them")
    try:
        return Listed(operation, load(entries[0]), package)
    except (Exception, SystemExit) as error:  # whatever another package does when it is imported
        return Listed(operation, None, package, one_line(error))


def load(entry: EntryPoint) -> type[Step[Any]]:
    """The class that an entry point names.

    Raises
    ------
    UnknownStep
        It is no step, or one of another name; and whatever its import raises.
    """
    kind = entry.load()
    if not (isinstance(kind, type) and issubclass(kind, Step) and is_declared(kind)):
        raise UnknownStep(f'{entry.value} is no step: expected a subclass of Step with operation: Literal["{entry.name}"] = "{entry.name}"')
    if name_of(kind) != entry.name:
        raise UnknownStep(f"its entry point is called {entry.name}, and its operation {name_of(kind)}: give both one name")
    return kind


def owner(entry: EntryPoint) -> Package:
    """The package that an entry point belongs to."""
    return Package(entry.dist.name, entry.dist.version) if entry.dist else Package("an unnamed package", "")


def one_line(error: BaseException) -> str:
    """An error in one line; ours need no name of a type."""
    text = " ".join(str(error).partition("\n")[0].split())
    return text if isinstance(error, DetcalError) else f"{type(error).__name__}: {text}"


def suggest(wrong: str, known: list[str]) -> str:
    """The nearest known name, or all of them."""
    near = get_close_matches(wrong, known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"
