"""What runs are forked from in tests of faults: all is imported, and numba has loaded its tables, which take each process a second."""

from detcal_pipelines import cluster, report, run, trial  # noqa: F401
from detcal_pipelines.steps.registry import own_steps
from numba.core.registry import cpu_target

own_steps()
cpu_target.typing_context.refresh()
cpu_target.target_context.refresh()
