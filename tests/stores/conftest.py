"""What several tests of the stores share."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture
def ordinary_folder() -> Iterator[Path]:
    """A folder of a user who is not allowed everything, as which the test runs."""
    nobody, own = 65534, os.geteuid()
    with TemporaryDirectory() as name:
        if own == 0:
            os.chown(name, nobody, nobody)
            os.seteuid(nobody)
        try:
            yield Path(name)
        finally:
            os.seteuid(own)
            os.chmod(name, 0o700)
