"""What several tests share."""

import os
from pathlib import Path

import pytest

# Before numpy is loaded: workers of pytest share the cores, and threads of OpenBLAS would spin while they wait for one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared" / "data"
# Those that compile kernels come first, then those that start processes which only load them, and short ones last.
ORDER = ["sensor", "azimuthal", "distortion", "xrf", "response", "pipelines", "test_cluster.py", "test_notebooks.py", "stores", "frames"]


def pytest_itemcollected(item: pytest.Item) -> None:
    """A worker of pytest takes a subject whole: no kernel is compiled by both, and what tests of a folder share is made once."""
    item.add_marker(pytest.mark.xdist_group(group_of(item.path)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers take the groups in this order."""
    items.sort(key=lambda item: ORDER.index(group) if (group := group_of(item.path)) in ORDER else len(ORDER))


def group_of(path: Path) -> str:
    """The folder of a file of tests; those beside this file are a group each, and so is one that waits for clusters much of its time."""
    return path.name if path.parent == HERE or path.name in ORDER else path.parent.name


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Measured data that is not part of the project; a clone has none."""
    if not SHARED.is_dir():
        pytest.skip("no measured data: the folder ../shared/data is not there")
    return SHARED
