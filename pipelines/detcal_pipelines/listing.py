"""All steps in a line each. Ours are read from the text of their declarations: to import them takes seconds, for all that they do."""

import ast
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

SUBJECTS = ("response", "ct", "sensor", "distortion", "azimuthal", "xrf")  # modules of steps, in the order in which these are listed
GROUP = "detcal.steps"  # of other packages' entry points, which have the names of the operations


def list_steps() -> Iterator[str]:
    """A line for each step; those of other packages, which are imported, with their package, or with what is wrong with them."""
    told = list(own_summaries().items())
    if entry_points(group=GROUP):
        from detcal_pipelines.catalogue import tell_of_others  # here, because it imports ours too

        told += tell_of_others()
    width = max(len(operation) for operation, _ in told)
    for operation, text in told:
        yield f"{operation:<{width}}  {text}"


def own_summaries() -> dict[str, str]:
    """The first line of the docstring of each step of detcal, by its operation."""
    return {name: first_line(ast.get_docstring(declaration)) for name, _, declaration in own_declarations()}


def own_declarations() -> Iterator[tuple[str, str, ast.ClassDef]]:
    """The operation of each step of detcal, its subject, and the class that declares it."""
    for subject in SUBJECTS:
        text = (Path(__file__).with_name("steps") / f"{subject}.py").read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and (name := operation_of(node)):
                yield name, subject, node


def operation_of(declaration: ast.ClassDef) -> str | None:
    """The operation that a class declares, if it is a step, and not what several have in common."""
    keys = [part for part in declaration.body if isinstance(part, ast.AnnAssign) and part.value is not None]
    return next((str(ast.literal_eval(key.value)) for key in keys if ast.unparse(key.target) == "operation" and key.value), None)


def first_line(docstring: str | None) -> str:
    """What a docstring says in short."""
    return (docstring or "").strip().partition("\n")[0]
