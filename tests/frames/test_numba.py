"""What kernels need of numba and llvmlite: this fails first, and says what is gone, where a newer version has broken it.

The bounds in pyproject.toml are those versions for which it passes: after a new release, run it, then raise the bound.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import llvmlite.binding
import numpy as np
import pytest
from numba import njit
from numba.core import event
from packaging.requirements import Requirement
from packaging.version import Version

from detcal.frames import simd, simd_numpy
from detcal.frames.lanes import lines, to_lanes

FRAMES = Path(simd.__file__).parent
VERSIONS = f"numba {version('numba')} with llvmlite {version('llvmlite')}"
PROBE = """\
from detcal.frames.lanes import tile_to_lanes
from detcal.frames.simd import load, splat, store
from detcal.frames.jit import kernel
import numpy as np

@kernel
def twice(rows):
    store(rows, 0, splat(np.float32(2)) * load(rows, 0))

rows = np.ones((1, 16), np.float32)
twice(rows)
assert (rows == 2).all()
print(sum(twice.stats.cache_hits.values()), end="")
"""


def test_numba_has_what_kernels_are_made_of():
    """What is private in numba, or lives in LLVM's own names."""
    kept = getattr(getattr(to_lanes, "_cache", None), "_cache_file", None)
    assert isinstance(getattr(kept, "_source_stamp", None), tuple), f"{VERSIONS}: kernels kept in files do not notice edits (frames/jit.py)"
    assert hasattr(event, "install_listener"), f"{VERSIONS}: no events of the compiler (pipelines/compiling.py)"
    assert Path(to_lanes.stats.cache_path).name == "__pycache__" or "NUMBA_CACHE_DIR" in os.environ, f"{VERSIONS}: kept elsewhere"
    assert llvmlite.binding.get_host_cpu_name(), f"{VERSIONS}: no compiler for this machine"


def test_a_kernel_of_all_instructions_compiles():
    rows, out = lines(16), lines(40)
    rows[:] = np.arange(256).reshape(16, 16)
    try:
        use_all(rows, out)
    except Exception as error:
        pytest.fail(f"{VERSIONS}: an instruction of frames/simd.py does not compile any more: {error}")


def test_what_is_installed_is_within_the_bounds():
    named = {"numba": Version(version("numba")), "llvmlite": Version(version("llvmlite"))}
    project = tomllib.loads((FRAMES.parents[1] / "pyproject.toml").read_text())["project"]
    for requirement in map(Requirement, project["dependencies"]):
        if requirement.name in named:
            assert any(one.operator == "<" for one in requirement.specifier), f"{requirement.name} has no upper bound"
            assert requirement.specifier.contains(named.pop(requirement.name)), f"{VERSIONS}: not within {requirement}"
    assert not named


@njit
def use_all(rows, out):
    one, other, third = simd.load(rows, 0), simd.load(rows, 1), simd.load(rows, 2)
    nothing, lot = simd.splat(np.float32(3)), np.float32(1e6)
    simd.prefetch(rows, 0)
    results = (
        simd.measured(one, np.float32(1), np.float32(12), np.float32(4), np.float32(2)),
        simd.where_number(one, other),
        simd.where_positive(one, other, third),
        simd.where_between(one, nothing, other, third, nothing),
        simd.where_up_to(one, other, third, nothing),
        simd.plus_product(one, other, third),
        simd.row_of(rows, 4),
        simd.row_of(rows[5], 6),
        simd.smaller(one, other),
        simd.larger(one, other),
        one + other,
        one - other,
        one * other,
        one / other,
        lot * one,
        lot - one,
    )
    for k in range(len(results)):
        simd.store(out, k, results[k])
    simd.transpose(rows, 0, 0, out, 16, 0)
    simd.stream(out, 32, one)
    simd.store_to(out, 33, 0, simd.load_from(rows, 5, 0))
    found = simd.lanes_between(one, nothing, other)
    return found, simd.lowest_bit(found) if found else -1


def plain(rows, out):
    """The same in numpy: what `use_all` does where numba is turned off."""
    names = {name: getattr(simd_numpy, name) for name in dir(simd_numpy)}
    twin = type("twins", (), {name: staticmethod(value) for name, value in names.items() if callable(value)})
    with np.errstate(all="ignore"):
        return type(use_all.py_func)(use_all.py_func.__code__, {"simd": twin, "np": np})(rows, out)


@pytest.mark.parametrize("seed", range(5))
def test_instructions_do_what_their_twins_do(seed):
    rng = np.random.default_rng(seed)
    rows = lines(16)
    rows[:] = rng.choice([*np.arange(-8.0, 16), np.nan, np.inf, -np.inf], rows.shape)
    compiled, interpreted = lines(40), lines(40)
    compiled[:] = interpreted[:] = 0
    assert use_all(rows, compiled) == plain(rows, interpreted)
    np.testing.assert_array_equal(compiled, interpreted)


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_numbers_of_any_type_become_float32(dtype):
    array = np.arange(60).reshape(2, 30).astype(dtype)
    odd = np.frombuffer(bytearray(array.nbytes + 1), np.uint8)[1:].view(dtype).reshape(array.shape)  # as a file may have it
    odd[:] = array

    places = np.array([range(16), [29, 0, *range(14)]], np.uint32)

    @njit
    def read(array, out):
        simd.store(out, 0, simd.load_from(array, 1, 7))
        simd.prefetch_scattered(array[1], places, 1)
        simd.store(out, 1, simd.gather(array[1], places, 1))

    scattered = places[1]
    for given in (array, odd):
        found = lines(2)
        read(given, found)
        np.testing.assert_array_equal(found, [np.arange(37, 53), 30 + scattered])
        np.testing.assert_array_equal(simd_numpy.load_from(given, 1, 7), found[0])
        np.testing.assert_array_equal(simd_numpy.gather(given[1], places, 1), found[1])


def test_a_sum_with_a_product_is_rounded_once():
    """In between it would lose its last digit."""

    @njit
    def add(rows, out):
        simd.store(out, 0, simd.plus_product(simd.load(rows, 0), simd.load(rows, 1), simd.load(rows, 1)))

    rows, found = lines(2), lines(1)
    rows[0], rows[1] = -1, 1 + 2**-12
    add(rows, found)
    assert (found == 2**-11 + 2**-24).all()
    assert (simd_numpy.plus_product(rows[0], rows[1], rows[1]) == found).all()


def test_short_rows_raise():
    @njit
    def read(array, out):
        simd.store(out, 0, simd.load_from(array, 0, 0))

    @njit
    def turn(source, target):
        simd.transpose(source, 0, 0, target, 0, 0)

    @njit
    def put(array, row):
        simd.store_to(array, 0, 0, simd.load(row, 0))

    short, whole = np.zeros((40, 15), np.float32), lines(16)
    whole[:] = 0
    twins = (
        lambda: simd_numpy.store(whole, 0, simd_numpy.load_from(short, 0, 0)),
        lambda: simd_numpy.transpose(whole, 0, 0, short, 0, 0),
        lambda: simd_numpy.store_to(short, 0, 0, whole[0]),
    )
    for call in (lambda: read(short, whole), lambda: turn(whole, short), lambda: turn(short, whole), lambda: put(short, whole), *twins):
        with pytest.raises(ValueError, match=r"expected an array \(n, 16 or more\), got one of another width"):
            call()


def test_kept_kernels_notice_an_edit_of_what_they_call(tmp_path):
    """numba looks at the kernel's own file alone."""
    shutil.copytree(FRAMES, tmp_path / "detcal" / "frames", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "errors.py"):
        shutil.copy(FRAMES.parent / name, tmp_path / "detcal" / name)
    (tmp_path / "probe.py").write_text(PROBE)

    def hits() -> int:
        clean = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "NUMBA_DISABLE_JIT", "PYTHONPATH")}
        done = subprocess.run([sys.executable, "-c", "import probe"], env=clean, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    assert [hits(), hits()] == [0, 1]
    for name in ("simd.py", "lanes.py"):
        with (tmp_path / "detcal" / "frames" / name).open("a") as file:
            file.write("# edited\n")
        assert [hits(), hits()] == [0, 1], f"an edit of {name} was not noticed"
