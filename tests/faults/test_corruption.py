"""Outputs and calibrations that were damaged on disk: verify names all that is bad and nothing else, and repair brings back every bit."""

import json
import random
import shutil
import zipfile
from collections import Counter
from dataclasses import dataclass, field
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
from detcal.errors import OutputError
from detcal.response import Response
from tests.faults.amount import times
from tests.pipelines.commands import AMPLE
from tests.pipelines.inputs import PONI

SEED = 13
LIMITS = AMPLE, 2
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
# 300 in all, of each output so many, up to five at once; a quarter of that in the tests of every day
CORRUPTIONS = {
    "plain.zarr": 120,
    "sharded.zarr": 60,
    "packed.zip": 34,
    "table.zarr": 16,
    "frames.h5": 16,
    "fitted.zarr": 24,
    "saved.zarr": 30,
}
MOST_AT_ONCE = 5
ANY = ("flip", "truncate", "extend", "delete", "zero", "swap", "replace", "zero_block", "edit", "foreign")
OF_ITSELF = ("flip", "truncate", "extend", "delete", "zero", "foreign")  # what a store without a ledger shows
OF_A_FILE = ("flip", "truncate", "extend", "zero", "swap", "zero_block", "edit", "foreign")


def number_of(output: str) -> int:
    """How many corruptions of an output."""
    return times(CORRUPTIONS[output], CORRUPTIONS[output] // 4)


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


def written_at(path: Path) -> dict[str, int]:
    """When the files of a store were written."""
    return {file.relative_to(path).as_posix(): file.lstat().st_mtime_ns for file in path.rglob("*") if not file.is_dir()}


@dataclass
class Damage:
    """What damages a store in a folder; `touched` are the files that it did."""

    store: Path
    older: Path  # the same of another run
    chance: random.Random
    touched: set[str] = field(default_factory=set)

    def chunks(self) -> list[str]:
        """Files of chunks that are whole still."""
        return [name for name in self.files() if not name.endswith("zarr.json")]

    def files(self) -> list[str]:
        """All files that are whole still."""
        names = (file.relative_to(self.store).as_posix() for file in sorted(self.store.rglob("*")) if file.is_file())
        return [name for name in names if name not in self.touched]

    def write(self, name: str, content: bytes) -> None:
        """Write a file, and note it if it is another one then."""
        if (self.store / name).read_bytes() != content:
            self.touched.add(name)
            (self.store / name).write_bytes(content)

    def flip(self) -> None:
        name = self.chance.choice(self.chunks())
        content = bytearray((self.store / name).read_bytes())
        content[self.chance.randrange(len(content))] ^= 1 << self.chance.randrange(8)
        self.write(name, content)

    def truncate(self) -> None:
        name = self.chance.choice(self.files())
        content = (self.store / name).read_bytes()
        self.write(name, content[: self.chance.randrange(len(content))])

    def extend(self) -> None:
        name = self.chance.choice(self.files())
        self.write(name, (self.store / name).read_bytes() + self.chance.randbytes(self.chance.randint(1, 40)))

    def delete(self) -> None:
        name = self.chance.choice(self.files())
        self.touched.add(name)
        (self.store / name).unlink()

    def zero(self) -> None:
        name = self.chance.choice(self.files())
        self.write(name, bytes((self.store / name).stat().st_size))

    def swap(self) -> None:
        """Two chunks of an array, both sound, change places."""
        first = self.chance.choice(self.chunks())
        second = self.chance.choice([name for name in self.chunks() if name.split("/")[0] == first.split("/")[0]])
        contents = [(self.store / name).read_bytes() for name in (first, second)]
        self.write(first, contents[1])
        if first in self.touched:
            self.write(second, contents[0])

    def replace(self) -> None:
        """A sound chunk of another run takes the place of one."""
        name = self.chance.choice(self.chunks())
        self.write(name, (self.older / name).read_bytes())

    def zero_block(self) -> None:
        """Another program writes zeros, with checksums that are right."""
        name = self.chance.choice(self.chunks())
        before = (self.store / name).read_bytes()
        array, _, *place = name.split("/")
        metadata = self.store / array / "zarr.json"
        if f"{array}/zarr.json" in self.touched or not metadata.exists():
            return
        with zarr.config.set({"array.write_empty_chunks": True}):
            stored = zarr.open_array(self.store / array, mode="r+")
            units = stored.shards or stored.chunks
            stored[tuple(slice(int(number) * size, (int(number) + 1) * size) for number, size in zip(place, units, strict=True))] = 0
        if (self.store / name).read_bytes() != before:
            self.touched.add(name)

    def edit(self) -> None:
        """Metadata say something else."""
        name = self.chance.choice([name for name in self.files() if name.endswith("zarr.json")] or self.files())
        text = (self.store / name).read_bytes()
        if name.endswith("zarr.json"):
            metadata = json.loads(text)
            metadata["attributes"] = {**metadata["attributes"], "units": "furlongs"}
            text = json.dumps(metadata).encode()
        self.write(name, text)

    def foreign(self) -> None:
        folder = self.chance.choice([file.parent for file in self.store.rglob("*") if file.is_file()])
        file = folder / f"{self.chance.randrange(10**6)}"
        self.touched.add(file.relative_to(self.store).as_posix())
        file.write_bytes(self.chance.randbytes(20))

    def several(self, kinds: tuple[str, ...], most: int) -> list[str]:
        """Damage at random, up to so many times; of which kinds."""
        done: list[str] = []
        for kind in self.chance.choices(kinds, k=self.chance.randint(1, most)):
            before = len(self.touched)
            if self.chunks():
                getattr(self, kind)()
            done += [kind] * (len(self.touched) > before)
        return done


def damage_file(path: Path, kind: str, chance: random.Random) -> None:
    """Damage an HDF5 file, or any other one whose inside is not looked at."""
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content))
    match kind:
        case "flip":
            content[place] ^= 1 << chance.randrange(8)
        case "truncate":
            del content[place:]
        case "extend":
            content += chance.randbytes(20)
        case "zero":
            content[place : place + 4096] = bytes(len(content[place : place + 4096]))
    path.write_bytes(content)
    if kind in ("swap", "zero_block", "edit", "foreign"):
        with h5py.File(path, "r+") as file:
            stored = file["entry/corrected/corrected"]
            if kind == "swap":
                stored[:2] = stored[:2][::-1]
            elif kind == "zero_block":
                stored[4:8] = 0
            elif kind == "edit":
                stored.attrs["units"] = "furlongs"
            else:
                file["entry/corrected/foreign"] = 1


def check_repaired(output: Path, pristine: dict[str, bytes]) -> None:
    """A repair brings every bit back, and verify agrees."""
    before, after = repair(output, LIMITS, QUIET)
    assert not before.sound
    assert after.sound, list(after.lines())
    assert contents(output) == pristine
    assert verify(output).sound


def rounds(output: str) -> tuple[random.Random, Counter[str]]:
    """Chance, and a count of what was done."""
    return random.Random(f"{SEED} {output}"), Counter()


@pytest.mark.parametrize("output", ["plain.zarr", "sharded.zarr", "table.zarr", "fitted.zarr"])
def test_stores_of_runs(outputs, output):
    folder, older = outputs
    chance, counts = rounds(output)
    pristine = contents(folder / output)
    assert verify(folder / output).sound
    while (left := number_of(output) - counts.total()) > 0:
        damage = Damage(folder / output, older / output, chance)
        done = damage.several(ANY, min(left, MOST_AT_ONCE))
        if not done:
            continue
        counts.update(done)
        found = verify(folder / output)
        assert {fault.file for fault in found.faults} == damage.touched, list(found.lines())
        untouched = {name: time for name, time in written_at(folder / output).items() if name not in damage.touched}
        check_repaired(folder / output, pristine)
        assert {name: written_at(folder / output)[name] for name in untouched} == untouched, "what was sound is not written again"
    print(f"{output}: {counts.total()} corruptions found and repaired: {dict(sorted(counts.items()))}")


def test_zipped_stores_of_runs(outputs, tmp_path):
    folder, older = outputs
    output = folder / "packed.zip"
    chance, counts = rounds(output.name)
    pristine = contents(output)
    for path, place in ((output, tmp_path / "here"), (older / output.name, tmp_path / "older")):
        zipfile.ZipFile(path).extractall(place)
    while (left := number_of(output.name) - counts.total()) > 0:
        store = shutil.copytree(tmp_path / "here", tmp_path / f"{counts.total()}", dirs_exist_ok=True)
        damage = Damage(store, tmp_path / "older", chance)
        if chance.random() < 0.3:
            kind = chance.choice(OF_A_FILE[:4])
            damage_file(output, kind, chance)
            if contents(output) == pristine:
                continue
            counts[kind] += 1
            assert verify(output).faults
        elif done := damage.several(ANY, min(left, MOST_AT_ONCE)):
            counts.update(done)
            with zipfile.ZipFile(output, "w") as archive:
                for name in damage.files() + [name for name in damage.touched if (store / name).is_file()]:
                    archive.write(store / name, name)
            assert {fault.file for fault in verify(output).faults} == damage.touched
        else:
            continue
        check_repaired(output, pristine)
    print(f"{output.name}: {counts.total()} corruptions found and repaired: {dict(sorted(counts.items()))}")


def test_hdf5_files_of_runs(outputs):
    output = outputs[0] / "frames.h5"
    chance, counts = rounds(output.name)
    pristine = contents(output)
    while counts.total() < number_of(output.name):
        kind = chance.choice(OF_A_FILE)
        damage_file(output, kind, chance)
        if contents(output) == pristine:
            continue
        counts[kind] += 1
        assert [fault.file for fault in verify(output).faults] == ["."]
        check_repaired(output, pristine)
    print(f"{output.name}: {counts.total()} corruptions found and repaired: {dict(sorted(counts.items()))}")


def without_metadata(touched: set[str]) -> set[str]:
    """Chunks of arrays of which neither the store nor they themselves say any more what they are."""
    lost = {name.split("/")[0] for name in touched if name.endswith("/zarr.json") and "zarr.json" in touched}
    return {name for name in touched if name.split("/")[0] in lost and not name.endswith("zarr.json")}


def test_calibrations_that_no_run_made(outputs, tmp_path):
    chance, counts = rounds("saved.zarr")
    while (left := number_of("saved.zarr") - counts.total()) > 0:
        store = shutil.copytree(outputs[0] / "saved.zarr", tmp_path / f"{counts.total()}.zarr", dirs_exist_ok=True)
        damage = Damage(store, outputs[1] / "saved.zarr", chance)
        done = damage.several(OF_ITSELF, min(left, MOST_AT_ONCE))
        counts.update(done)
        found = verify(store)
        named = {fault.file for fault in found.faults}
        assert damage.touched - without_metadata(damage.touched) <= named <= damage.touched, list(found.lines())
        with pytest.raises(OutputError, match="cannot be repaired: no ledger says"):
            repair(store, LIMITS, QUIET)
        shutil.rmtree(store)
    print(f"saved.zarr: {counts.total()} corruptions found: {dict(sorted(counts.items()))}")
