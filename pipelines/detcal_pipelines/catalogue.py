"""What `detcal steps` shows: all steps in a line each, or the keys of one."""

from collections.abc import Iterator
from textwrap import fill

from detcal_pipelines.steps.registry import Listed, all_steps, find_step, package_of
from detcal_pipelines.steps.words import default_in_words, details, goes_through, meaning, type_in_words
from detcal_pipelines.template import summary

WIDTH = 100


def list_steps() -> Iterator[str]:
    """A line for each step; those of other packages with their package, or with what is wrong with them."""
    steps = list(all_steps())
    width = max(len(step.operation) for step in steps)
    for step in steps:
        yield f"{step.operation:<{width}}  {told(step)}"


def told(step: Listed) -> str:
    """What there is to say of a step."""
    if step.kind is None:
        return f"broken, of {step.package}: {step.fault}"
    return summary(step.kind) + (f" ({step.package})" if step.package else "")


def show_step(name: str) -> Iterator[str]:
    """A step with its keys: their types, defaults and meaning."""
    kind, package = find_step(name), package_of(name)
    yield f"{name}: {summary(kind)}" + (f" ({package})" if package else "")
    yield f"{goes_through(kind)}; a task takes some {kind.cut}"
    for key, field in kind.model_fields.items():
        if key != "operation":
            yield ""
            yield f"{key}: " + ", ".join(part for part in (type_in_words(field.annotation), default_in_words(field)) if part)
            for text in filter(None, (meaning(kind, key), details(kind, key))):
                yield fill(text, WIDTH, initial_indent="    ", subsequent_indent="    ")
