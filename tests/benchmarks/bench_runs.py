"""What ledger and checksums cost a run, and what a run of 10^5 blocks holds.

Run as `python -m tests.benchmarks.bench_runs [blocks]`. Each pair of runs is of the same data, in turn, in this process.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
from detcal_pipelines import recording
from detcal_pipelines import run as running
from detcal_pipelines.ledger import Ledger
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.run import Outcome
from detcal_pipelines.threads import anonymous_bytes
from rich.console import Console

from detcal.stores.sources.readers import FrameArray
from detcal.stores.targets import chunk_files, zarr_store

LIMITS = 2**30, 2
ROUNDS = 5
RECIPE = """\
[input]
path = "raw.npy"
chunk_frames = {depth}
[[steps]]
operation = "correct_response"
response = "gain.npy"
[output]
path = "out.zarr"
overwrite = true
"""


def write_inputs(folder: Path, frames: int, side: int, depth: int) -> None:
    """Frames of noise, gains, and a recipe."""
    some = np.random.default_rng(0).poisson(900, (min(frames, 64), side, side)).astype(np.uint16)
    stack = np.lib.format.open_memmap(folder / "raw.npy", "w+", np.uint16, (frames, side, side))
    for start in range(0, frames, len(some)):
        stack[start : start + len(some)] = some[: frames - start]
    stack.flush()
    np.save(folder / "gain.npy", np.ones((side, side), np.float32))
    (folder / "r.toml").write_text(RECIPE.format(depth=depth))


def once(folder: Path, blocks: int | None = None) -> Outcome:
    """One run, of all blocks or the first ones, without its report, which reads what was written."""
    with patch.object(running, "write_report_if_possible", lambda *_: None):
        changes = {} if blocks is None else {"input": {"frames": f":{blocks}"}}
        return running.run(read_recipe(folder / "r.toml", changes), LIMITS, Console(quiet=True), restart=True)


@contextmanager
def without_either() -> Iterator[None]:
    """No line of the ledger is written, no checksum is made, and none is read back."""

    def remember(self: Ledger, **event: Any) -> None:
        event["s"] = 0.0
        self.history.add(event)

    with ExitStack() as stack:
        stack.enter_context(patch.object(Ledger, "note", remember))
        stack.enter_context(patch.object(chunk_files, "checksum_of", lambda content: bytes(4)))
        stack.enter_context(patch.object(recording, "written_seal", lambda *_: (0, 0)))
        yield


def bench_overhead(label: str, frames: int, side: int, depth: int) -> None:
    """The same run with and without."""
    with TemporaryDirectory() as name:
        write_inputs(Path(name), frames, side, depth)
        times: dict[bool, list[float]] = {True: [], False: []}
        for number in range(ROUNDS + 1):
            for plain in (True, False):
                with without_either() if plain else ExitStack():
                    seconds = once(Path(name)).seconds
                if number:
                    times[plain].append(seconds)
    plain, whole = median(times[True]), median(times[False])
    more = 1e3 * (whole - plain) * depth / frames
    print(
        f"{label:<40} {plain:7.2f} s without, {whole:7.2f} s with: {100 * (whole / plain - 1):+5.1f} %, {more:+.3f} ms a block", flush=True
    )


def bench_many_blocks(blocks: int) -> None:
    """Memory beyond what the process held before; and the seconds of a block, of the ledger, and of all but reading, computing, writing
    and checking a file."""
    spent = [0.0]
    note = Ledger.note

    def timed(self: Ledger, **event: Any) -> None:
        start = perf_counter()
        note(self, **event)
        spent[0] += perf_counter() - start

    with TemporaryDirectory() as name:
        write_inputs(Path(name), blocks, 8, 1)
        once(Path(name), blocks=100)
        with written_nowhere():
            empty = once(Path(name))
        before = anonymous_bytes(psutil.Process())
        with patch.object(Ledger, "note", timed):
            whole = once(Path(name))
    for label, outcome in (("without files", empty), ("whole", whole)):
        held = (outcome.peak_bytes or 0) - before
        print(f"{blocks} blocks, {label}: {outcome.seconds:.0f} s, {1e3 * outcome.seconds / blocks:.2f} ms a block; "
              f"{held / 1e6:.0f} MB above the {before / 1e6:.0f} MB of before", flush=True)  # fmt: skip
    print(f"the ledger takes {1e3 * spent[0] / blocks:.3f} ms a block", flush=True)


@contextmanager
def written_nowhere() -> Iterator[None]:
    """Blocks are handed out and noted, and nothing is read, computed or written: what is left is scheduling."""

    def nothing(*_: Any, block_id: tuple[int, ...], **__: Any) -> np.ndarray:
        return np.ones((1,) * len(block_id), np.bool_)

    with ExitStack() as stack:
        stack.enter_context(patch.object(FrameArray, "__getitem__", lambda self, key: np.ones((1, 8, 8), self.dtype)))
        stack.enter_context(patch.object(zarr_store, "write_block", nothing))
        stack.enter_context(patch.object(recording, "written_seal", lambda *_: (0, 0)))
        yield


if __name__ == "__main__":
    bench_overhead("16 blocks of 8 frames of 1024 x 1024", 128, 1024, 8)
    bench_overhead("1000 blocks of a frame of 64 x 64", 1000, 64, 1)
    bench_many_blocks(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
