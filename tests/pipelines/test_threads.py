"""Threads that run tasks: how many, within what memory, and how they stop."""

import signal
import subprocess
import sys
import time
from threading import Event, Lock

import dask
import dask.array as da
import numpy as np
import psutil
import pytest
from detcal_pipelines.graph import in_stages, in_turn, optimise_together
from detcal_pipelines.interrupts import tasks_run_on
from detcal_pipelines.threads import MemoryWatch, OutOfMemory, TaskThreads, compute_on_threads

from detcal import save
from detcal.response import Response

GIB = 2**30
MIB = 2**20


def compute(graph, keys, threads=2, budget=GIB * 64):
    with MemoryWatch() as watch:
        compute_on_threads(graph, keys, threads, budget, watch, lambda key: None, lambda key: None, lambda: None)
    return watch.peak


@pytest.fixture
def pool():
    found = TaskThreads(2, 100)
    yield found
    found.stop()
    found.join()


# ---------------------------------------------------------------------------------------------------------- memory


def test_no_task_begins_above_the_budget_but_the_only_one(pool):
    begun, go = [], Event()

    def task(number):
        begun.append(number)
        go.wait(10)

    pool.look(105)
    futures = [pool.submit(task, number) for number in range(3)]
    time.sleep(0.2)
    assert len(begun) == 1
    pool.look(95)
    time.sleep(0.2)
    assert len(begun) == 2
    go.set()
    for future in futures:
        future.result(10)
    assert sorted(begun) == [0, 1, 2]


def test_far_above_the_budget_the_tasks_at_work_fail(pool):
    go = Event()
    future = pool.submit(go.wait, 10)
    time.sleep(0.1)
    pool.look(109)
    assert not future.done()
    pool.look(111)
    with pytest.raises(OutOfMemory, match=r"holds 111 B, more than a tenth above its 100 B, .* --memory more, or --workers fewer"):
        future.result(10)
    go.set()


def test_the_peak_is_that_of_anonymous_memory():
    """Pages of a file that is mapped into memory can be dropped at any time, and are not counted."""

    def hold(size):
        array = np.ones(size, np.uint8)
        time.sleep(0.2)
        return len(array)

    before = compute(*graph_of(dask.delayed(hold)(1)))
    grown = compute(*graph_of(dask.delayed(hold)(300 * MIB))) - before
    assert 290 * MIB < grown < 310 * MIB


def graph_of(value):
    return optimise_together([da.from_delayed(value, (), float)])


# ----------------------------------------------------------------------------------------------------------- turns


@pytest.mark.parametrize("held_up", [0, 3])
@pytest.mark.parametrize("at_once", [2, 4])
def test_blocks_wait_for_their_turn_where_one_is_held_up(held_up, at_once):
    """All blocks take something of the first task, and neighbours share what they are made of."""
    lock, begun, written, most = Lock(), set(), set(), [0]

    def begin(block, block_info=None):
        number = block_info[0]["chunk-location"][0]
        if number == held_up:
            time.sleep(0.3)
        with lock:
            begun.add(number)
            most[0] = max(most[0], len(begun - written))
        return block

    def write(block, block_info=None):
        with lock:
            written.add(block_info[0]["chunk-location"][0])
        return block

    shared = da.from_delayed(dask.delayed(np.ones)(1), (1,), float)
    blocks = da.map_blocks(begin, da.zeros(30, chunks=1), dtype=float) + shared
    writes = [da.map_blocks(write, blocks, dtype=float), da.map_blocks(write, blocks + 1, dtype=float)]
    graph, keys = optimise_together(writes)
    compute(in_turn(in_stages(graph, keys), at_once), keys, threads=8)
    assert begun == written == set(range(30))
    assert most[0] <= at_once


def test_blocks_wait_until_what_is_added_up_of_others_is_there():
    """A sum over all blocks ends after the last of them: what it takes of each block is slow here, and keeps the block until it is done."""
    lock, held, most = Lock(), set(), [0]

    def begin(block, block_info=None):
        with lock:
            held.add(block_info[0]["chunk-location"][0])
            most[0] = max(most[0], len(held))
        return block

    def part_of_sum(block, block_info=None):
        time.sleep(0.05)
        with lock:
            held.discard(block_info[0]["chunk-location"][0])
        return block

    blocks = da.map_blocks(begin, da.zeros(30, chunks=1), dtype=float)
    writes = da.map_blocks(lambda block: block, blocks, dtype=float)
    total = da.map_blocks(part_of_sum, blocks, dtype=float).rechunk(-1).sum(keepdims=True)
    graph, keys = optimise_together([writes, total])
    compute(in_turn(in_stages(graph, keys), 3), keys, threads=8)
    assert not held
    assert most[0] <= 3 + 1  # and what the first block takes, which might be a matrix for all


def test_stages_hold_every_task_once():
    writes = [da.map_blocks(lambda block: block, da.zeros(6, chunks=1).rechunk(chunk) + 1, dtype=float) for chunk in (1, 2, 3)]
    graph, keys = optimise_together(writes)
    stages = in_stages(graph, keys)
    assert sorted(key for stage in stages for key in stage.tasks) == sorted(graph)
    assert sorted(key for stage in stages for key in stage.ends) == sorted(keys)
    done = set()
    for stage in stages:
        assert all(each in done or each in stage.tasks for node in stage.tasks.values() for each in node.dependencies)
        done |= set(stage.tasks)


# ----------------------------------------------------------------------------------------------------------- stops


def test_an_error_ends_all_tasks_and_is_raised():
    begun, ended = [], []

    def task(number):
        begun.append(number)
        if len(begun) == 1:
            raise OSError("a disk")
        time.sleep(0.3)
        ended.append(number)

    with pytest.raises(OSError, match="a disk"):
        compute(*optimise_together([da.from_delayed(dask.delayed(task)(number), (), float) for number in range(20)]))
    assert not tasks_run_on()
    assert len(ended) < 19


SLOW = """
import time
from detcal.response import correction
correction.correct = lambda frames, *rest, **options: (time.sleep(20 if len(frames) == 1 else 0), frames.astype("f4"))[1]
from detcal_pipelines.cli import main
main()
"""


@pytest.mark.parametrize("pause", [0.1, 1.0])
def test_a_second_ctrl_c_does_not_wait_for_tasks(tmp_path, pause):
    """A kernel cannot be interrupted: here each takes 20 s."""
    save(np.ones((8, 16, 16), np.uint16), tmp_path / "ct.h5")
    save(Response.from_gain(np.ones((16, 16))), tmp_path / "response.zarr")
    (tmp_path / "recipe.toml").write_text(
        '[input]\npath = "ct.h5"\nchunk_frames = 1\n[[steps]]\noperation = "correct_response"\nresponse = "response.zarr"\n'
        '[output]\npath = "out.zarr"\n'
    )
    run = subprocess.Popen(
        [sys.executable, "-c", SLOW, "run", "recipe.toml", "--workers", "2"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.zarr.*/zarr.json")) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    assert not [each for each in psutil.Process(run.pid).net_connections() if each.status == psutil.CONN_LISTEN], "nobody else gets in"
    run.send_signal(signal.SIGINT)
    time.sleep(pause)
    run.send_signal(signal.SIGINT)
    start = time.monotonic()
    printed, errors = run.communicate(timeout=30)
    assert time.monotonic() - start < 10
    assert run.returncode == 130, errors
    assert "Ctrl-C again stops at once" in printed
    assert errors.strip().splitlines()[-1] == "stopped; no output was written"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.h5", "recipe.toml", "response.zarr"]
