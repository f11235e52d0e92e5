"""What several tests share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Measured data that is not part of the project; a clone has none."""
    if not SHARED.is_dir():
        pytest.skip("no measured data: the folder ../shared/data is not there")
    return SHARED
