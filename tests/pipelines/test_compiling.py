"""Kernels are compiled, or loaded, before the first task: a compiler takes memory that no plan has, and gives none of it back."""

import pytest
from detcal_pipelines.run import Job

from tests.kernels import compiled_kernels
from tests.pipelines.commands import detcal
from tests.pipelines.inputs import OPTIONS, write_inputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("compiling")
    write_inputs(place, 64, 20, 8)
    return place


@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_compiles_nothing_once_it_has_begun(folder, monkeypatch, name):
    before, write = [], Job.write

    def watched(*arguments):
        before.append(compiled_kernels())
        return write(*arguments)

    monkeypatch.setattr(Job, "write", watched)
    detcal(folder, "run", f"{name}.toml", "--workers", "2", "--overwrite")
    assert before[0]
    assert compiled_kernels() - before[0] == set()
