"""Kernels are compiled, or loaded, before the first task: a compiler takes memory that no plan has, and gives none of it back."""

import gc

import pytest
from detcal_pipelines.run import Job
from numba.core.dispatcher import Dispatcher

from tests.pipelines.commands import detcal
from tests.pipelines.inputs import OPTIONS, write_inputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("compiling")
    write_inputs(place, 64, 20, 8)
    return place


def loaded() -> set:
    """Every kernel of this process with each type of arguments that it was compiled for."""
    kernels = [each for each in gc.get_objects() if isinstance(each, Dispatcher)]
    return {(kernel.__module__, kernel.__name__, signature) for kernel in kernels for signature in kernel.signatures}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_compiles_nothing_once_it_has_begun(folder, monkeypatch, name):
    before, write = [], Job.write

    def watched(*arguments):
        before.append(loaded())
        return write(*arguments)

    monkeypatch.setattr(Job, "write", watched)
    detcal(folder, "run", f"{name}.toml", "--workers", "2", "--overwrite")
    assert before[0]
    assert loaded() - before[0] == set()
