"""Files that a run reads, damaged at random: the result is as it was, or NaN in frames that are listed as bad, or there is none.

Nothing is silently another number, where the format has checksums, or says which chunks there are.
"""

import random
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from detcal_pipelines.ledger import read_ledger

from detcal import save
from detcal.response import Response
from detcal.sensor import PlanarGeometry, build_psf
from tests.faults.amount import times
from tests.pipelines.commands import in_process

SEED = 14
SIDE, FRAMES, DEPTH = 16, 12, 2
CORRECT = 'operation = "correct_response"\nresponse = "response.zarr"'
SHARPEN = 'operation = "deconvolve"\npsf = "psf.zarr"'
RECIPES = {  # of each file that is damaged: what is read, and what is made of it
    "raw.h5": ("raw.h5", CORRECT),
    "raw.zarr": ("raw.zarr", CORRECT),
    "response.zarr": ("raw.zarr", CORRECT),
    "psf.zarr": ("raw.zarr", SHARPEN),
}
DAMAGES = 50  # of each, 200 in all; in the tests of every day a few


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames with angles in a zarr store and in an HDF5 file with checksums, a response, a PSF, and what comes of them."""
    folder = tmp_path_factory.mktemp("inputs")
    frames = np.random.default_rng(0).poisson(900, (FRAMES, SIDE, SIDE)).astype(np.uint16)
    angles = np.linspace(0, 180, FRAMES)
    stack = xr.DataArray(frames, {"angle": ("frame", angles, {"units": "degree"})}, ("frame", "y", "x"), "frames", {"units": "counts"})
    save(stack, folder / "raw.zarr", chunks={"frame": DEPTH})
    write_hdf5(folder / "raw.h5", stack)
    gain = 1 + np.arange(SIDE * SIDE).reshape(SIDE, SIDE) / 1000
    save(Response.from_gain(gain), folder / "response.zarr")
    plane = PlanarGeometry((SIDE, SIDE), (1e-4, 1e-4), 0.1, (0.02, 0.02))
    save(build_psf(plane, thickness_m=4.5e-4, attenuation_per_m=1500.0), folder / "psf.zarr")
    for name in RECIPES:
        write_recipe(folder, name)
        assert outcome(folder, name).code == 0
    return folder


def write_hdf5(path: Path, stack: xr.DataArray) -> None:
    """With checksums of everything: of chunks by a filter, of all else by the newer of the two forms of the format."""
    with h5py.File(path, "w", libver="latest") as file:
        group = file.create_group("entry")
        group.attrs.update({"NX_class": "NXdata", "signal": "frames", "axes": ["angle", ".", "."]})
        frames = group.create_dataset("frames", data=stack, chunks=(DEPTH, SIDE, SIDE), compression="gzip", fletcher32=True)
        frames.attrs["units"] = "counts"
        angle = group.create_dataset("angle", data=stack.angle, chunks=(FRAMES,), fletcher32=True)
        angle.attrs["units"] = "degree"


def write_recipe(folder: Path, name: str) -> None:
    path, step = RECIPES[name]
    text = f'[input]\npath = "{path}"\nchunk_frames = {DEPTH}\n[[steps]]\n{step}\n[output]\npath = "of_{name}.zarr"\n'
    (folder / f"{name}.toml").write_text(text)


@dataclass
class Outcome:
    """How a run ended: its exit code, what it said, the frames that it lists as bad, and its result."""

    code: int
    said: str
    bad: list[int]
    result: xr.Dataset | None


def outcome(folder: Path, name: str) -> Outcome:
    """A run in a folder."""
    done = in_process(folder, "run", f"{name}.toml", "--overwrite", "--workers", "1", "--memory", "16GiB")
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    output = folder / f"of_{name}.zarr"
    if done.exit_code not in (0, 3):
        return Outcome(done.exit_code, done.output, [], None)
    listed = read_ledger(Path(f"{output}.ledger")).quarantine
    bad = {number for note in listed for number in range(note["frames"][0], note["frames"][1] + 1)}
    return Outcome(done.exit_code, done.output, sorted(bad), xr.open_zarr(output).load())


def flip(content: bytearray, chance: random.Random) -> None:
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def another_digit(content: bytearray, chance: random.Random) -> None:
    """A flipped bit after which JSON is still JSON."""
    place = chance.choice([place for place, byte in enumerate(content) if chr(byte) in "234567"])
    content[place] ^= 1


def cut(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content)) :]


def leave_out(content: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(content))
    del content[start : start + chance.randint(1, 64)]


def damage(path: Path, chance: random.Random) -> str:
    """Damage a file, or one of a store, which may also be deleted; what was done."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    file, kinds = chance.choice(files), [flip, flip, cut, leave_out]
    if file != path and chance.random() < 0.25:
        file.unlink()
        return f"{file.relative_to(path.parent)} deleted"
    kinds += [another_digit] * (file.suffix == ".json")
    kind, content = chance.choice(kinds), bytearray(file.read_bytes())
    kind(content, chance)
    file.write_bytes(content)
    return f"{file.relative_to(path.parent)} {kind.__name__}"


def restore(folder: Path, pristine: Path, name: str) -> None:
    """A file or store as it was."""
    if (pristine / name).is_file():
        shutil.copy2(pristine / name, folder / name)
        return
    shutil.rmtree(folder / name)
    shutil.copytree(pristine / name, folder / name)


def fault_of(found: Outcome, expected: xr.Dataset, name: str) -> str:
    """What is wrong with an outcome; nothing, if the result is as it was, or nobody can take it for that."""
    if found.result is None:
        return "" if found.code == 2 and name in found.said else f"exit code {found.code}, and the file is not named: {found.said}"
    if (found.code == 3) != bool(found.bad):
        return f"exit code {found.code}, listed are {found.bad}"
    others = [str(line) for line, variable in expected.variables.items() if not is_same(found.result, variable, str(line), found.bad)]
    warned = [line for line in found.said.splitlines() if line.startswith("warning: ") and name in line]
    return "" if not others or warned else f"another {' and '.join(others)}, silently: {found.said}"


def is_same(result: xr.Dataset, expected: xr.Variable, name: str, bad: list[int]) -> bool:
    """Whether a variable is as it was, but for NaN in frames that are listed as bad; NaN elsewhere, or another unit, is another one.

    Numbers are never others, whatever is said of them.
    """
    if name not in result.variables:
        return False
    found = result.variables[name]
    assert found.shape == expected.shape
    known = np.isnan(expected.values) | ~np.isnan(found.values)
    np.testing.assert_array_equal(found.values[known], expected.values[known])
    others = np.flatnonzero(~known.reshape(len(known), -1).all(axis=1))
    return set(others) <= set(bad) and all(found.attrs.get(key) == expected.attrs.get(key) for key in ("units", "missing_value"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", RECIPES)
def test_no_damage_is_silent(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    expected = xr.open_zarr(folder / f"of_{name}.zarr").load()
    chance, ends, silent = random.Random(f"{SEED} {name}"), Counter[str](), []
    for number in range(times(DAMAGES, 3)):
        done = damage(tmp_path / name, chance)
        found = outcome(tmp_path, name)
        fault = fault_of(found, expected, name)
        if fault:
            silent.append(f"{number}: {done}: {fault}")
        ends["unnoticed, and harmless" if found.code == 0 else f"exit code {found.code}"] += 1
        restore(tmp_path, folder, name)
    print(f"{name}: {dict(ends)}")
    assert not silent, "\n".join(silent)
