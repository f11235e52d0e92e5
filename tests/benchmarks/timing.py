"""Timing two things side by side, in turn, so that a drift of the machine's speed hits both."""

from collections.abc import Callable
from statistics import median
from time import perf_counter


def in_turn(ours: Callable[[], object], peer: Callable[[], object], rounds: int = 5) -> tuple[float, float]:
    """Median seconds of each over some rounds, after one that is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for run, found in zip((ours, peer), times, strict=True):
            start = perf_counter()
            run()
            if number:
                found.append(perf_counter() - start)
    return median(times[0]), median(times[1])


def report(name: str, ours: float, peer: float, wanted: float) -> None:
    """One line: both times, the ratio, and what was aimed at."""
    print(f"{name:<58} {ours * 1e3:9.1f} ms  peer {peer * 1e3:9.1f} ms  {peer / ours:6.2f} times as fast (aim: {wanted:g})")
