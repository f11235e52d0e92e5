"""How many faults are made."""

import os

ALL = os.environ.get("DETCAL_FAULTS") == "all"


def times(whole: int, part: int) -> int:
    """The whole number with DETCAL_FAULTS=all, which takes half an hour; a part of it in the tests of every day."""
    return whole if ALL else part
