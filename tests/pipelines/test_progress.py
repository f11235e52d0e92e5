"""The bar of blocks: what a notebook shows, and what becomes of errors."""

from contextlib import nullcontext
from io import StringIO
from pathlib import Path

import dask.array as da
import nbformat
import numpy as np
import pytest
from detcal_pipelines.progress import block_bar, compute_with_bar
from distributed import Client
from nbclient import NotebookClient
from rich.console import Console

from detcal import open_frames, save

SAVES = """\
import dask.array as da
import detcal
from detcal_pipelines.progress import compute_with_bar
{}
detcal.save(da.ones((6, 4, 5), chunks=(2, -1, -1)), "{}.zarr", compute=compute_with_bar);
"""
CLIENT = 'from dask.distributed import Client\nclient = Client(processes=False, n_workers=1, dashboard_address="127.0.0.1:0")'


@pytest.mark.parametrize("scheduler", ["", CLIENT], ids=["threads", "client"])
def test_a_notebook_shows_how_far_a_save_is(tmp_path: Path, scheduler: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SAVES.format(scheduler, "ones"))])
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output.data["text/html"] for output in notebook.cells[0].outputs if output.output_type == "display_data"]
    assert len(shown) == 1
    assert shown[0].startswith("save <progress value='1.0000' max='1'")
    assert "3/3 blocks" in shown[0]
    assert (open_frames(tmp_path / "ones.zarr") == 1).all()


def fails_late(block: np.ndarray, block_info=None) -> np.ndarray:
    if block_info[0]["chunk-location"][0] == 2:
        raise RuntimeError("the third block")
    return block


@pytest.mark.parametrize("workers", [0, 1], ids=["threads", "client"])
def test_an_error_ends_a_save_with_a_bar_and_leaves_nothing(tmp_path: Path, workers: int) -> None:
    broken = da.ones((6, 4, 5), chunks=(2, -1, -1)).map_blocks(fails_late, dtype=np.float64)
    place = Client(processes=False, n_workers=1, dashboard_address="127.0.0.1:0") if workers else nullcontext()
    with place, pytest.raises(RuntimeError, match="the third block"):
        save(broken, tmp_path / "ones.zarr", compute=compute_with_bar)
    assert not list(tmp_path.iterdir())


def test_a_terminal_shows_it_too() -> None:
    screen = StringIO()
    with block_bar("a label", 4, Console(file=screen, width=100, force_terminal=True)) as show:
        show(0.75)
    assert "3/4" in screen.getvalue()
