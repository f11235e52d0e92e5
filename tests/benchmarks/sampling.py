"""Memory of a run's worker processes, seen from outside it."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil

DETCAL = [sys.executable, "-m", "detcal_pipelines"]


def peak_of_workers(arguments: list[str], folder: Path, compiled: Path | None, *, driver_too: bool = False) -> tuple[int, str]:
    """Run detcal in a folder: the largest resident memory of all its child processes together, and what it printed.

    With `driver_too`, that of the first process alone counts as well, if it is larger.

    Compiled kernels are kept in `compiled`; a user's first run finds none. Without it, they are those that other tests have left.
    """
    environment = dict(os.environ) if compiled is None else {**os.environ, "NUMBA_CACHE_DIR": str(compiled)}
    run = subprocess.Popen([*DETCAL, *arguments], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    driver, peak = psutil.Process(run.pid), 0
    while run.poll() is None:
        peak = max(peak, sum(resident(child) for child in driver.children(recursive=True)), resident(driver) if driver_too else 0)
        time.sleep(0.02)
    output = run.stdout.read()
    run.stdout.close()
    assert run.returncode == 0, output
    return peak, output


def planned_peak(told: str) -> float:
    """Bytes that a run has planned for its workers, by what it printed."""
    planned = re.search(r"peak memory, planned\W+([\d.]+) (\w+) of", told)
    assert planned, told
    return float(planned[1]) * {"MiB": 2**20, "GiB": 2**30}[planned[2]]


def resident(process: psutil.Process) -> int:
    """Resident memory of a process; one that has just ended holds none."""
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
