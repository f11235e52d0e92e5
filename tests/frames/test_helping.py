"""Threads that help with the work of one: all of it is done when it returns, and an error of any of them is raised."""

import multiprocessing
import os
import threading

import pytest
from dask.system import CPU_COUNT

from detcal.frames.helping import together


def sum_of(numbers, threads, meet=None):
    """What so many threads add up, and who they were."""
    shared, found, who = iter(range(numbers)), [], set()

    def take():
        for number in shared:
            if meet is not None and threading.get_ident() not in who:
                who.add(threading.get_ident())
                meet.wait(10)
            found.append(number)

    together(take, threads)
    return sum(found), len(who)


def test_all_of_the_work_is_done_by_as_many_threads():
    for threads in (1, 2):  # as many as any machine has
        assert sum_of(100, threads, threading.Barrier(threads)) == (4950, threads)


@pytest.mark.parametrize("fails", ["this one", "another one"])
def test_an_error_of_any_thread_is_raised_when_all_have_ended(fails):
    here, meet, ended = threading.get_ident(), threading.Barrier(2), []

    def take():
        meet.wait(10)
        if (threading.get_ident() == here) == (fails == "this one"):
            raise MemoryError("no room")
        threading.Event().wait(0.05)
        ended.append(True)

    with pytest.raises(MemoryError, match="no room"):
        together(take, 2)
    assert ended == [True]


def test_threads_that_are_busy_elsewhere_are_not_waited_for():
    """Nor is there an end to wait for where one that helps asks for help itself."""
    free, wait = threading.Event(), lambda: free.wait(10)
    busy = threading.Thread(target=together, args=(wait, CPU_COUNT + 1))
    busy.start()
    assert sum_of(100, 3)[0] == 4950
    assert busy.is_alive()
    free.set()
    busy.join()
    inner = []
    together(lambda: inner.append(sum_of(10, 3)[0]), 3)
    assert set(inner) == {45}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no process is forked here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_process_that_was_forked_has_threads_of_its_own():
    both_of_two()
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(both_of_two).get(30) == (4950, 2)


def both_of_two():
    """What two threads add up that wait for each other."""
    return sum_of(100, 2, threading.Barrier(2))
