"""Timing two things side by side, in turn, so that a drift of the machine's speed hits both."""

from collections.abc import Callable
from statistics import median
from time import perf_counter, process_time


def in_turn(ours: Callable[[], object], peer: Callable[[], object], rounds: int = 5) -> tuple[float, float]:
    """Median seconds a call of each over some rounds, after one that is not counted."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for run, found in zip((ours, peer), times, strict=True):
            seconds = seconds_a_call(run)
            if number:
                found.append(seconds)
    return median(times[0]), median(times[1])


def in_turn_on_both_clocks(ours: Callable[[], object], peer: Callable[[], object], rounds: int = 3) -> dict[str, tuple[float, float]]:
    """As `in_turn`, of long calls, in seconds of the wall and of the processor: the latter say what work there is on a busy machine."""
    times: list[list[tuple[float, float]]] = [[], []]
    for number in range(rounds + 1):
        for run, found in zip((ours, peer), times, strict=True):
            wall, processor = perf_counter(), process_time()
            run()
            if number:
                found.append((perf_counter() - wall, process_time() - processor))
    one, other = ([median(clock) for clock in zip(*found, strict=True)] for found in times)
    return dict(zip(("wall", "processor"), zip(one, other, strict=True), strict=True))


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
