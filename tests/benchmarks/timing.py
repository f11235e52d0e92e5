"""Timing two things side by side, in turn, so that a drift of the machine's speed hits both."""

from collections.abc import Callable
from statistics import median
from time import perf_counter


def in_turn(ours: Callable[[], object], peer: Callable[[], object], rounds: int = 5) -> tuple[float, float]:
    """Median seconds a call of each over some rounds, after one that is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for run, found in zip((ours, peer), times, strict=True):
            seconds = seconds_a_call(run)
            if number:
                found.append(seconds)
    return median(times[0]), median(times[1])


def seconds_a_call(run: Callable[[], object], at_least: float = 0.5) -> float:
    """Mean over calls back to back for half a second or more: one short call alone would time the processor's waking up."""
    calls, start = 0, perf_counter()
    while perf_counter() - start < at_least:
        run()
        calls += 1
    return (perf_counter() - start) / calls


def report(name: str, ours: float, peer: float, wanted: float) -> None:
    """One line: both times, the ratio, and what was aimed at."""
    print(f"{name:<58} {ours * 1e3:9.1f} ms  peer {peer * 1e3:9.1f} ms  {peer / ours:6.2f} times as fast (aim: {wanted:g})")
