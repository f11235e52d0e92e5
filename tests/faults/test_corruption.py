"""Outputs and calibrations that were damaged on disk: verify names all that is bad and nothing else, and repair brings back every bit."""

import json
import random
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
import zarr
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.repair import repair
from detcal_pipelines.run import run
from detcal_pipelines.verify import verify
from rich.console import Console

from detcal import save
from detcal.response import Response
from tests.pipelines.inputs import PONI

SEED = 13
LIMITS = 2**30, 2
QUIET = Console(quiet=True)
SIDE, FRAMES = 24, 22
STEPS = {
    "plain.zarr": 'operation = "correct_response"\nresponse = "response.zarr"',
    "sharded.zarr": 'operation = "correct_response"\nresponse = "response.zarr"',
    "packed.zip": 'operation = "correct_response"\nresponse = "response.zarr"',
    "table.zarr": 'operation = "integrate"\ngeometry = "detector.poni"\nnpt = 12',
    "frames.h5": 'operation = "correct_response"\nresponse = "response.zarr"',
    "fitted.zarr": 'operation = "fit_response"\nsigma = 2.0\ncutoff = 1.0',
}
CORRUPTIONS = {"plain.zarr": 80, "sharded.zarr": 50, "packed.zip": 40, "table.zarr": 40, "frames.h5": 30, "fitted.zarr": 30, "saved.zarr": 30}
MOST_AT_ONCE = 4


def write_recipe(folder: Path, output: str) -> Path:
    """A recipe for an output, in blocks of four frames."""
    shards = "shard_frames = 4\n" if output == "sharded.zarr" else ""
    chunks = "" if shards else "chunk_frames = 4\n"
    text = f'[input]\npath = "raw.zarr"\n{chunks}[[steps]]\n{STEPS[output]}\n[output]\npath = "{output}"\n{shards}'
    (folder / f"{output}.toml").write_text(text)
    return folder / f"{output}.toml"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> tuple[Path, Path]:
    """A folder with an output of every kind, and one with the same of other frames."""
    folders = tuple(tmp_path_factory.mktemp(name) for name in ("outputs", "older"))
    for number, folder in enumerate(folders):
        frames = np.random.default_rng(number).poisson(900, (FRAMES, SIDE, SIDE)).astype(np.uint16)
        stack = xr.DataArray(frames, dims=("frame", "y", "x"), coords={"angle": ("frame", np.linspace(0, 180, FRAMES))})
        save(stack, folder / "raw.zarr", chunks={"frame": 4})
        save(Response.from_gain(1 + np.arange(SIDE * SIDE).reshape(SIDE, SIDE) / 1000 + number), folder / "response.zarr")
        save(Response.from_gain(2 + np.arange(SIDE * SIDE).reshape(SIDE, SIDE) / 1000 + number), folder / "saved.zarr")
        (folder / "detector.poni").write_text(PONI.format(SIDE))
        for output in STEPS:
            run(read_recipe(write_recipe(folder, output)), LIMITS, QUIET)
    return folders


def contents(path: Path) -> dict[str, bytes]:
    """All bytes of an output, by their files."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file() or file.is_symlink())
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in files}


def times(path: Path) -> dict[str, int]:
    """When the files of a store were written."""
    return {file.relative_to(path).as_posix(): file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
