"""Runs that are ended at random moments go on where they stopped, and give the same bits as one that nobody disturbed."""

import os
import re
from random import Random

import h5py
import pytest
from detcal_pipelines.clean import clean
from detcal_pipelines.ledger import read_ledger
from detcal_pipelines.unfinished import Places

from tests.faults.killing import Series, contents, remove_output, same, times_done
from tests.pipelines.inputs import write_inputs

SEED = 20261129
KILLS = int(os.environ.get("DETCAL_KILLS", "2"))  # of each recipe

RESPONSE = """\
[input]
path = "raw.h5"
chunk_frames = 4
[[steps]]
operation = "correct_response"
response = "response.zarr"
"""
RINGS = """\
[[steps]]
operation = "sigma_clip"
geometry = "detector.poni"
npt = 64
"""
SHARDED = f'{RESPONSE}[output]\npath = "new_sharded.zarr"\nshard_frames = 8\n'
CHAIN = f'{RESPONSE}{RINGS}[output]\npath = "new_chain.zarr"\n'
KINDS = ["correct_response", "sigma_clip", "fit_response", "build_psf", "regrid_xrf", "chain", "sharded", "exported"]


def left_of(output):
    """Hidden files beside an output."""
    return list(output.parent.glob(f".{output.name}*"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    write_inputs(folder, 192, 400, 40)
    (folder / "sharded.toml").write_text(SHARDED)
    (folder / "chain.toml").write_text(CHAIN)
    exported = (folder / "correct_response.toml").read_text()
    (folder / "exported.toml").write_text(re.sub(r'path = "new_\w+\.zarr"', 'path = "new_exported.h5"', exported))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_killed_goes_on(folder, kind, capsys):
    recipe = folder / f"{kind}.toml"
    output = folder / re.search(r'path = "(new_\w+\.\w+)"', recipe.read_text())[1]
    series = Series(recipe, output, ["--memory", "1GiB", "--workers", "2"])
    series.undisturbed()  # with whatever is to be compiled
    undisturbed = output.with_name(f"undisturbed_{output.name}")
    remove_output(output)
    seconds = series.undisturbed()
    writing = read_ledger(Places.of(output).last_ledger).processes[-1].seconds
    output.rename(undisturbed)
    remove_output(output)
    series.disturbed(Random(f"{SEED} {kind}"), KILLS, seconds, writing)
    if output.suffix == ".h5":
        assert same(output, undisturbed)
        with h5py.File(output) as file:
            assert "entry" in file
    else:
        assert contents(output) == contents(undisturbed)
    assert set(times_done(output).values()) == {1}
    assert {path.name for path in left_of(output)} <= {Places.of(output).lock.name}  # of one killed as it wrote its report
    list(clean(output))
    assert not left_of(output)
    with capsys.disabled():
        counts = dict(sorted(series.kills.items()))
        print(f"\n{kind}: {counts} in {series.starts} starts of {seconds:.1f} s, {writing:.1f} s of which it writes")
