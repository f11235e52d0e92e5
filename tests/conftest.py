"""What several tests share."""

import logging
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Before numpy is loaded: workers of pytest share the cores, and threads of OpenBLAS would spin while they wait for one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared" / "data"
# Those that compile kernels come first, then those that start processes which only load them, and short ones last.
ORDER = [
    "sensor",
    "azimuthal",
    "distortion",
    "xrf",
    "response",
    "pipelines",
    "faults",
    "test_cluster.py",
    "test_notebooks.py",
    "stores",
    "frames",
]


class BySubject(LoadScopeScheduling):
    """A worker of pytest takes a subject whole: no kernel is compiled by both, and what tests of a folder share is made once."""

    def _split_scope(self, nodeid: str) -> str:  # xdist's own groups are lost in pytest 9, whose names of tests it cannot change
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> BySubject:
    """In place of what --dist names."""
    return BySubject(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers take the groups in this order."""
    items.sort(key=lambda item: ORDER.index(group) if (group := group_of(item.nodeid)) in ORDER else len(ORDER))


def group_of(nodeid: str) -> str:
    """The folder of a test; files beside this one are a group each, and so is one that waits for clusters much of its time."""
    path = Path(nodeid.partition("::")[0])
    return path.name if path.parent.name == HERE.name or path.name in ORDER else path.parent.name


class AsWarning(logging.Handler):
    """pyFAI writes where a function that it gives up is called into its log, with a traceback that users would see."""

    def emit(self, record: logging.LogRecord) -> None:
        warnings.warn(record.getMessage(), DeprecationWarning, stacklevel=2)


logging.getLogger("pyFAI.DEPRECATION").addHandler(AsWarning())


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Measured data that is not part of the project; a clone has none."""
    if not SHARED.is_dir():
        pytest.skip("no measured data: the folder ../shared/data is not there")
    return SHARED
