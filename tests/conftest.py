"""What several tests share."""

import os
from pathlib import Path

import pytest

# Before numpy is loaded: workers of pytest share the cores, and threads of OpenBLAS would spin while they wait for one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

SHARED = Path(__file__).parents[2] / "shared" / "data"
LONG = {"test_cluster.py", "test_notebooks.py"}  # files of more than a minute


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first: a worker that begins one at the end leaves the other without work."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Measured data that is not part of the project; a clone has none."""
    if not SHARED.is_dir():
        pytest.skip("no measured data: the folder ../shared/data is not there")
    return SHARED
