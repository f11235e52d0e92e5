"""Memory and open files of a run, seen from outside it."""

import re
import subprocess
import sys
import time
from pathlib import Path

import psutil

DETCAL = [sys.executable, "-m", "detcal_pipelines"]


def peak_of_run(arguments: list[str], folder: Path, code: int = 0) -> tuple[int, str]:
    """Run detcal in a folder, to that exit code: the largest resident memory of its process, and what it printed.

    A run that finds no compiled kernels compiles them in another process, which is not counted.
    """
    peak, _, output = most_of_run(arguments, folder, code)
    return peak, output


def most_of_run(arguments: list[str], folder: Path, code: int = 0) -> tuple[int, int, str]:
    """As `peak_of_run`, with the number of files that were open at once."""
    run = subprocess.Popen([*DETCAL, *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    process, peak, files = psutil.Process(run.pid), 0, 0
    while run.poll() is None:
        peak, files = max(peak, resident(process)), max(files, open_files(process))
        time.sleep(0.01)
    output = run.stdout.read()
    run.stdout.close()
    assert run.returncode == code, output
    return peak, files, output


def planned_peak(told: str) -> float:
    """Bytes that a run has planned, by what it printed."""
    planned = re.search(r"peak memory, planned\W+([\d.]+) (\w+) of", told)
    assert planned, told
    return float(planned[1]) * {"MiB": 2**20, "GiB": 2**30}[planned[2]]


def resident(process: psutil.Process) -> int:
    """Resident memory of a process; one that has just ended holds none."""
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def open_files(process: psutil.Process) -> int:
    """How many files, pipes and sockets a process has open; one that has just ended has none."""
    try:
        return process.num_fds()
    except psutil.NoSuchProcess:
        return 0


def assert_within_plan(peak: int, told: str) -> None:
    """A plan is never below what is measured, nor above twice that."""
    assert planned_peak(told) / 2 <= peak <= planned_peak(told), f"measured {peak / 2**20:.0f} MiB: {told}"


def assert_no_growth(peaks: list[int], added: int) -> None:
    """The second of two runs, with so many bytes of frames more, holds none of them.

    Which tasks are at their peak together is chance: a part is allowed that is small beside the run or beside what was added.
    """
    assert peaks[1] - peaks[0] < max(peaks[0] / 20, added / 4), [f"{peak / 2**20:.0f} MiB" for peak in peaks]
