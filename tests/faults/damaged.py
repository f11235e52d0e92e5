"""Frames in files of several kinds, some of them damaged, and short runs that read them."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import tifffile
import xarray as xr
from click.testing import Result
from detcal_pipelines.ledger import read_ledger
from fabio.cbfimage import CbfImage

from detcal import save
from tests.faults.conftest import SIDE
from tests.pipelines.commands import in_process

FRAMES, DEPTH = 40, 8
RESPONSE = '[[steps]]\noperation = "correct_response"\nresponse = "gain.npy"\n'
CLIP = '[[steps]]\noperation = "sigma_clip"\ngeometry = "detector.poni"\nnpt = 20\n'
STEPS = {
    "correct_response": RESPONSE,
    "sigma_clip": CLIP,
    "outlier_mask": CLIP.replace("sigma_clip", "outlier_mask"),
    "fit_response": '[[steps]]\noperation = "fit_response"\nsigma = 3.0\ncutoff = 10.0\n',
    "chain": RESPONSE + CLIP,
}


def stack() -> np.ndarray:
    """Frames whose largest number is no reading: flags are those of the recorded type, whatever type frames become."""
    lit = np.linspace(1000, 3000, FRAMES)[:, None, None]
    frames = np.random.default_rng(0).poisson(lit, (FRAMES, SIDE, SIDE)).astype(np.uint16)
    frames[:, 3, 4] = 65535
    return frames


def with_nan(bad: Sequence[int]) -> np.ndarray:
    """The same as reals, NaN in these frames and where nothing was measured."""
    frames = stack().astype(np.float32)
    frames[frames == 65535] = np.nan
    frames[list(bad)] = np.nan
    return frames


def write_recipe(folder: Path, steps: str, path: str, output: str = "out.zarr") -> None:
    (folder / "r.toml").write_text(f'[input]\npath = "{path}"\nchunk_frames = {DEPTH}\n{steps}[output]\npath = "{output}"\n')


def run(folder: Path, *options: str, code: int = 0) -> Result:
    done = in_process(folder, "run", "r.toml", "--workers", "2", "--memory", "4GiB", *options)
    assert done.exit_code == code, f"{done.exit_code}: {done.output} {done.exception!r}"
    assert "Traceback" not in done.stderr
    return done


def result_of(folder: Path, steps: str, path: str, output: str, code: int = 0) -> xr.Dataset:
    """What a run makes of a file."""
    write_recipe(folder, steps, path, output)
    run(folder, code=code)
    return xr.open_zarr(folder / output).load()


def bad_in(folder: Path, output: str = "out.zarr") -> list[dict[str, Any]]:
    """What the ledger of an output lists."""
    return read_ledger(folder / f"{output}.ledger").quarantine


def frames_in(listed: list[dict[str, Any]]) -> list[int]:
    return sorted({number for note in listed for number in range(note["frames"][0], note["frames"][1] + 1)})


def write_hdf5(folder: Path, depth: int = 1, **options: Any) -> str:
    with h5py.File(folder / "raw.h5", "w") as file:
        file.create_dataset("data", data=stack(), chunks=(depth, SIDE, SIDE), **options)
    return "raw.h5"


def flip_bytes(file: Path, start: int, size: int) -> None:
    """The same file, of the same time, in which some bytes are others."""
    times = file.stat()
    content = bytearray(file.read_bytes())
    content[start : start + size] = bytes(255 - byte for byte in content[start : start + size])
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def damage_chunk(file: Path, dataset: str, number: int) -> None:
    with h5py.File(file, "r") as opened:
        chunk = opened[dataset].id.get_chunk_info(number)
    flip_bytes(file, chunk.byte_offset, chunk.size)


def write_gzip(folder: Path, bad: Sequence[int]) -> str:
    path = write_hdf5(folder, compression="gzip", shuffle=True)
    for number in bad:
        damage_chunk(folder / path, "data", number)
    return path


def write_bitshuffle(folder: Path, bad: Sequence[int]) -> str:
    path = write_hdf5(folder, **hdf5plugin.Bitshuffle(cname="lz4"))
    for number in bad:
        damage_chunk(folder / path, "data", number)
    return path


def write_tiffs(folder: Path, bad: Sequence[int]) -> str:
    for number, frame in enumerate(stack()):
        file = folder / f"scan_{number:03}.tif"
        tifffile.imwrite(file, frame)
        if number in bad:
            file.write_bytes(file.read_bytes()[: SIDE * SIDE])
    return "scan_*.tif"


def write_cbfs(folder: Path, bad: Sequence[int]) -> str:
    """The first of the bad ones has nothing in it, the others have flipped bytes."""
    for number, frame in enumerate(stack().astype(np.int32)):
        file = folder / f"scan_{number:03}.cbf"
        CbfImage(data=frame).write(str(file))
        if number in bad[:1]:
            file.write_bytes(b"")
        elif number in bad:
            flip_bytes(file, file.read_bytes().index(CbfImage.STARTER) + 100, 10)
    return "scan_*.cbf"


def write_zarr(folder: Path, bad: Sequence[int]) -> str:
    save(xr.DataArray(stack(), dims=("frame", "y", "x")), folder / "raw.zarr", chunks={"frame": 1}, overwrite=True)
    for number in bad:
        chunk = folder / "raw.zarr" / "data" / "c" / str(number) / "0" / "0"
        flip_bytes(chunk, chunk.stat().st_size // 2, 1)
    return "raw.zarr"


WRITERS: dict[str, Callable[[Path, Sequence[int]], str]] = {
    "gzip": write_gzip, "bitshuffle": write_bitshuffle, "tiff": write_tiffs, "zarr": write_zarr, "cbf": write_cbfs,
}  # fmt: skip
