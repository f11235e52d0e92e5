"""Zip files that hold no store at their top, or are damaged, and URLs of no protocol, are told for what they are."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

import detcal
from detcal.errors import InputError


@pytest.mark.parametrize("what", [detcal.load, detcal.open_frames])
@pytest.mark.parametrize(("kind", "says"), [("cut", "it is no whole zip file"), ("nested", "pack what is in the store's folder")])
def test_a_zip_that_is_cut_or_has_its_store_in_a_folder(tmp_path: Path, kind: str, says: str, what: object) -> None:
    path = detcal.save(np.ones((2, 8, 9)), tmp_path / "a.zip")
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    else:
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(f"a.zarr/{name}", content)
    with pytest.raises(InputError, match=says):
        what(path)  # type: ignore[operator]


def test_a_url_of_no_protocol() -> None:
    with pytest.raises(InputError, match=r"cannot read htp://here/a\.zarr: htp:// is unknown; expected a path, or a URL") as caught:
        detcal.open_frames("htp://here/a.zarr")
    assert "cut short" not in str(caught.value)
