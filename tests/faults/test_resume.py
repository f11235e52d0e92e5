"""Runs that are ended at random moments go on where they stopped, and give the same bits as one that nobody disturbed."""

import os
import re
import shutil
import signal
from collections import Counter
from random import Random

import pytest
from detcal_pipelines.clean import clean
from detcal_pipelines.ledger import read_ledger
from detcal_pipelines.unfinished import Places
from distributed import LocalCluster

from tests.faults.amount import ALL, times
from tests.faults.killing import Series, contents, kill_run, left_of, remove_output, same, times_done
from tests.pipelines.inputs import write_inputs

SEED = 20261129
KILLS, KILLS_ON_A_CLUSTER = times(20, 2), times(5, 1)  # of each recipe

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
SHARDED = f'{RESPONSE}[output]\npath = "new_sharded.zarr"\nshard_frames = 8\nprecision = 0.125\n'
CHAIN = f'{RESPONSE}{RINGS}[output]\npath = "new_chain.zarr"\n'
RESTARTS = times(20, 2)
MOST_TORN = 3  # files that a machine has not written whole when it goes down
KINDS = ["correct_response", "sigma_clip", "fit_response", "build_psf", "regrid_xrf", "chain", "sharded", "exported"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    write_inputs(folder, 192, 400, 40)
    (folder / "sharded.toml").write_text(SHARDED)
    (folder / "chain.toml").write_text(CHAIN)
    exported = (folder / "correct_response.toml").read_text()
    (folder / "exported.toml").write_text(re.sub(r'path = "new_\w+\.zarr"', 'path = "new_exported.h5"', exported))
    return folder


def series_of(folder, kind):
    """The runs of a recipe in a folder."""
    recipe = folder / f"{kind}.toml"
    output = folder / re.search(r'path = "(new_\w+\.\w+)"', recipe.read_text())[1]
    return Series(recipe, output, ["--memory", "4GiB", "--workers", "2"])


def one_undisturbed(folder, kind):
    """What a run gives that nobody disturbs, the seconds that another one takes, and of these those in which it writes.

    The first one may compile kernels.
    """
    series = series_of(folder, kind)
    undisturbed, times = series.output.with_name(f"undisturbed_{series.output.name}"), folder / f"{kind}.seconds"
    if not undisturbed.exists():
        series.undisturbed()
        series.output.rename(undisturbed)
        remove_output(series.output)
        seconds = series.undisturbed()
        writing = read_ledger(Places.of(series.output).last_ledger).processes[-1].seconds
        assert_same(series.output, undisturbed)
        remove_output(series.output)
        times.write_text(f"{seconds} {writing}")
    return (undisturbed, *map(float, times.read_text().split()))


def assert_same(output, undisturbed):
    """Every bit is the same."""
    if output.suffix == ".h5":
        assert same(output, undisturbed)
    else:
        assert contents(output) == contents(undisturbed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_killed_goes_on(folder, kind, capsys):
    series = series_of(folder, kind)
    undisturbed, seconds, writing = one_undisturbed(folder, kind)
    series.disturbed(Random(f"{SEED} {kind}"), KILLS, seconds, writing)
    assert_same(series.output, undisturbed)
    assert set(times_done(series.output).values()) == {1}
    left = [path for path in left_of(series.output) if not path.name.startswith(f".{series.output.name}.html.")]
    assert {path.name for path in left} <= {Places.of(series.output).lock.name}  # of one killed as it wrote its report, as that is
    list(clean(series.output))
    assert not left_of(series.output)
    remove_output(series.output)
    with capsys.disabled():
        counts = dict(sorted(series.kills.items()))
        print(f"\n{kind}: {counts} in {series.starts} starts of {seconds:.1f} s, {writing:.1f} s of which it writes")


@pytest.fixture(scope="module")
def cluster():
    """As many workers as runs here have threads, since sums depend on that; they are started again when they are killed."""
    with LocalCluster(n_workers=2, threads_per_worker=1, memory_limit="1.2GiB", dashboard_address="127.0.0.1:0") as found:
        yield found


@pytest.mark.parametrize("kind", KINDS if ALL else ["correct_response"])
def test_a_run_on_a_cluster_whose_workers_are_killed_goes_on(folder, kind, cluster, capsys):
    """Or the process that drives it: workers are at work at its blocks meanwhile."""
    undisturbed, _, writing = one_undisturbed(folder, kind)
    series = series_of(folder, kind)
    series.options = ["--scheduler", cluster.scheduler_address]
    seconds = series.undisturbed()
    assert_same(series.output, undisturbed)
    remove_output(series.output)

    def kill(number, random):
        workers = [nanny.pid for nanny in cluster.workers.values() if nanny.pid]
        if not workers or random.random() < 0.25:
            return kill_run(number, random)
        os.kill(random.choice(workers), signal.SIGKILL)
        return "a worker"

    series.disturbed(Random(f"{SEED} {kind} on a cluster"), KILLS_ON_A_CLUSTER, seconds, writing, kill)
    assert_same(series.output, undisturbed)
    assert set(times_done(series.output).values()) == {1}
    list(clean(series.output))
    assert not left_of(series.output)
    remove_output(series.output)
    with capsys.disabled():
        print(f"\n{kind} on a cluster: {dict(sorted(series.kills.items()))} in {series.starts} starts of {seconds:.1f} s")


@pytest.mark.parametrize("kind", ["correct_response", "chain", "sharded", "exported"])
def test_a_run_goes_on_from_a_copy_of_the_disk_of_a_machine_that_went_down(folder, kind, tmp_path, capsys):
    """What was written last may be torn there: blocks, and the end of the ledger."""
    random = Random(f"{SEED} copies {kind}")
    undisturbed, _, writing = one_undisturbed(folder, kind)
    counts: Counter[str] = Counter()
    for number in range(RESTARTS // 4 or 1):
        before = tmp_path / f"before_{number}"
        inputs = shutil.ignore_patterns(".*", "new_*", "undisturbed_*")
        shutil.copytree(folder, before, ignore=inputs)
        series = series_of(before, kind)
        process = series.start()
        while process.is_alive() and not Places.of(series.output).ledger.exists():
            process.join(0.005)
        process.join(random.uniform(0, writing))
        at_work = process.exitcode is None  # or its number may belong to another process
        if at_work:
            os.kill(process.pid, signal.SIGSTOP)
        shutil.copytree(before, tmp_path / f"after_{number}")
        if at_work:
            os.kill(process.pid, signal.SIGCONT)
        process.join()
        restarted = series_of(tmp_path / f"after_{number}", kind)
        counts[restarted.moment()] += 1
        counts["torn"] += tear(Places.of(restarted.output), random)
        if not restarted.output.exists():
            restarted.undisturbed()
        assert_same(restarted.output, undisturbed)
        assert set(times_done(restarted.output).values()) == {1}
        shutil.rmtree(before)
        shutil.rmtree(restarted.output.parent)
    with capsys.disabled():
        print(f"\n{kind}: {dict(sorted(counts.items()))}")


def tear(places, random):
    """Cut blocks of a run, or fill them with zeros, and cut the ledger; how many."""
    if places.output.exists() or not places.ledger.exists():
        return 0
    arrays = read_ledger(places.ledger).header["arrays"]
    blocks = [file for name in arrays for file in sorted(places.store.glob(f"{name}/c/**/*")) if file.is_file()]
    torn = random.sample(blocks, min(len(blocks), random.randint(0, MOST_TORN)))
    for file in torn:
        size = file.stat().st_size
        file.write_bytes(bytes(size) if random.random() < 0.5 else file.read_bytes()[: random.randrange(size)])
    lines = places.ledger.read_bytes().splitlines(keepends=True)
    if len(lines) > 1 and random.random() < 0.5:
        places.ledger.write_bytes(b"".join(lines[:-1]) + lines[-1][: random.randrange(len(lines[-1]))])
    return len(torn)
