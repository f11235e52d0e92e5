"""Where a run's time went."""

from types import FunctionType

import numpy as np
from dask._task_spec import Task
from detcal_pipelines.steps.registry import find_step
from detcal_pipelines.stopwatch import Stopwatch
from detcal_pipelines.threads import MemoryWatch, compute_on_threads

GIB = 2**30


def at_work_in(module: str, seconds: float) -> FunctionType:
    """A function of some module that takes so long."""
    code = compile(f"def work(*_):\n    import time\n    time.sleep({seconds})\n", module, "exec")
    place = {"__name__": module}
    exec(code, place)
    return place["work"]


def test_time_is_that_of_the_step_a_thread_is_at():
    steps = [find_step(name).model_construct(operation=name) for name in ("correct_response", "sigma_clip", "integrate")]
    graph = {}
    for number, (module, seconds) in enumerate(
        [("detcal.stores.sources.hdf5", 0.2), ("detcal.response.kernels", 0.4), ("detcal.azimuthal.kernels", 0.6), ("somewhere", 0.3)]
    ):
        graph[number] = Task(number, at_work_in(module, seconds))
    with MemoryWatch() as watch, Stopwatch(steps) as stopwatch:
        compute_on_threads(graph, list(graph), 2, 64 * GIB, watch, lambda key: None, lambda key: None, lambda: None)
    times = stopwatch.times()
    assert list(times) == ["reading", "correct_response", "sigma_clip and integrate", "other"]
    np.testing.assert_allclose(list(times.values()), [0.2, 0.4, 0.6, 0.3], atol=0.1)
