"""What can go wrong on the user's side: each message says what was expected, what came and how to mend it."""

from numbers import Real
from typing import Any

import numpy as np


def are_two_numbers(values: Any) -> bool:
    """Whether it is a pair, as ranges are, of numbers."""
    numbers = list(values) if np.iterable(values) else []
    return len(numbers) == 2 and all(isinstance(number, Real) for number in numbers)


class DetcalError(Exception):
    """Any error that detcal raises on purpose."""


class InputError(DetcalError, ValueError):
    """Data, a file or an option that cannot be used."""


class OutputError(DetcalError):
    """An output that exists already, or that cannot be written."""


class RecipeError(DetcalError):
    """A recipe with mistakes; every one of them has a line in the message."""


class PlanError(DetcalError):
    """A run that would not fit into the memory that it was given."""


class RunError(DetcalError):
    """A run that failed although its recipe and input were good."""


class MissingWarning(UserWarning):
    """Parts of a file are missing, and are NaN; as an error, by warnings.simplefilter("error", MissingWarning), it refuses such files."""
