"""What `detcal steps` shows of the keys of a step, and of the steps of other packages."""

from collections.abc import Iterator
from textwrap import fill

from detcal_pipelines.listing import first_line
from detcal_pipelines.steps.registry import Listed, find_step, other_steps, package_of
from detcal_pipelines.steps.words import default_in_words, details, goes_through, meaning, type_in_words

WIDTH = 100


def tell_of_others() -> list[tuple[str, str]]:
    """The steps of other packages, each with a line."""
    return [(step.operation, told(step)) for step in other_steps()]


def told(step: Listed) -> str:
    """What there is to say of a step of another package."""
    if step.kind is None:
        return f"broken, of {step.package}: {step.fault}"
    return f"{first_line(step.kind.__doc__)} ({step.package})"


def show_step(name: str) -> Iterator[str]:
    """A step with its keys: their types, defaults and meaning."""
    kind, package = find_step(name), package_of(name)
    yield f"{name}: {first_line(kind.__doc__)}" + (f" ({package})" if package else "")
    yield f"{goes_through(kind)}; a task takes some {kind.cut}"
    for key, field in kind.model_fields.items():
        if key != "operation":
            yield ""
            yield f"{key}: " + ", ".join(part for part in (type_in_words(field.annotation), default_in_words(field)) if part)
            for text in filter(None, (meaning(kind, key), details(kind, key))):
                yield fill(text, WIDTH, initial_indent="    ", subsequent_indent="    ")
