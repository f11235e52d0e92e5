"""What the plan of each ready recipe says of memory, beside what is measured from outside the process, at three sizes.

Run as `python -m tests.benchmarks.bench_plan [recipe ...]`.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.benchmarks.sampling import most_of_run, planned_peak
from tests.pipelines.inputs import OPTIONS, write_inputs

MIB = 2**20
SIZES = {"small": (256, 160, 40), "middle": (512, 240, 120), "large": (1024, 240, 360)}  # pixels a side, frames, lines of a scan
LIMITS = ["--memory", "4GiB", "--workers", "2"]


def bench(names: list[str]) -> None:
    """All of them, a size after the other."""
    for label, (side, frames, lines) in SIZES.items():
        with TemporaryDirectory() as folder:
            write_inputs(Path(folder), side, frames, lines)
            for name in names:
                peak, files, told = most_of_run(["run", f"{name}.toml", *LIMITS], Path(folder))
                planned = planned_peak(told)
                good = "" if planned / 2 <= peak <= planned else "  NOT WITHIN THE PLAN"
                print(
                    f"{label:<8}{name:<20}planned {planned / MIB:6.0f} MiB, measured {peak / MIB:6.0f} MiB: {peak / planned:.2f}, "
                    f"{files} files{good}",
                    flush=True,
                )


if __name__ == "__main__":
    bench(sys.argv[1:] or list(OPTIONS))
