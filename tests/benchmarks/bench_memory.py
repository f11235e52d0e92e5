"""Stacks of 8 and 16 GiB fitted and corrected within 1 GiB: python -m tests.benchmarks.bench_memory [FOLDER]

Needs 60 GiB of disk. Prints, for each run, the planned peak and the one sampled from outside.
"""

import re
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
from detcal_pipelines.template import render

from detcal import save, simulate
from tests.benchmarks.sampling import peak_of_run

SHAPE = (1024, 1024)
FRAMES_OF_8_GIB = 4096


def write_stack(path: Path, frames: int, image: np.ndarray) -> None:
    """Frames of many levels, written as a detector would."""
    with h5py.File(path, "w") as file:
        stack = file.create_dataset("data", (frames, *SHAPE), np.uint16)
        for frame in range(frames):
            stack[frame] = np.roll(image, frame % 32, axis=1) // (1 + frame % 7)


def main(folder: Path) -> None:
    """Both jobs on one stack, then on one twice as long."""
    detector = simulate.detector(SHAPE)
    image = simulate.flat_frames(detector, 1).compute().values[0]
    save(simulate.dark_frames(detector), folder / "dark.h5")
    save(simulate.flat_frames(detector), folder / "flat.h5")
    for name in ("fit_response", "correct_response"):
        (folder / f"{name}.toml").write_text(re.sub(r'"(sweep|ct)\.h5"', '"raw.h5"', render(name)))
    for frames in (FRAMES_OF_8_GIB, 2 * FRAMES_OF_8_GIB):
        write_stack(folder / "raw.h5", frames, image)
        for name in ("fit_response", "correct_response"):
            peak, output = peak_of_run(["run", f"{name}.toml", "--memory", "1GiB", "--workers", "2", "--overwrite"], folder)
            rows = dict(re.findall(r"│ ([^│]+?) +│ ([^│]+?) +│", output))
            print(
                f"{name:<17} {rows['bytes in']:>8} in, planned {rows['peak memory, planned']}, "
                f"measured {peak / 2**20:.0f} MiB, {rows['frames a second']} frames a second",
                flush=True,
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as name:
            main(Path(name))
