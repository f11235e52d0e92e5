"""Every notebook runs from top to bottom, is stored without its outputs, and makes its figure of the README.

The figures in notebooks/figures are made anew by `DETCAL_FIGURES=$PWD/notebooks/figures jupyter execute notebooks/*.ipynb`.
"""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_and_is_stored_clean(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = tmp_path / "figures"
    figures.mkdir()
    monkeypatch.setenv("DETCAL_FIGURES", str(figures))
    monkeypatch.setenv("DETCAL_STACK_GIB", "0.25")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells(notebook))

    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()

    assert all(cell.execution_count is not None for cell in code_cells(notebook))
    names = {f"{path.stem}.png"} & {figure.name for figure in (FOLDER / "figures").iterdir()}
    assert {figure.name for figure in figures.iterdir()} == names
    assert all(figure.stat().st_size <= 200_000 for figure in figures.iterdir())


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """The cells that run: those with code in them."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
