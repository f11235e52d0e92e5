"""How a report is written: by every run and anew, safe whatever files are called, and never in the way of an output."""

import re
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from detcal_pipelines.fingerprint import differences, fingerprint
from detcal_pipelines.ledger import read_ledger
from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.reports import writing
from detcal_pipelines.reports.gathering import report_of
from detcal_pipelines.reports.plain import as_text
from detcal_pipelines.unfinished import Places

from detcal import open_frames
from tests.pipelines.commands import in_process
from tests.pipelines.reports import EVIL, Page, page_of, recipe_run


def test_the_command_writes_it_anew_or_shows_it_in_80_columns(reported):
    page = reported / "new_corrected.zarr.html"
    before = page.read_text()
    page.unlink()
    done = in_process(reported, "report", "new_corrected.zarr")
    assert done.exit_code == 0
    assert done.stdout == f"wrote {page}\n"
    assert Page(page.read_text()).text == Page(before).text
    done = in_process(reported, "report", "new_corrected.zarr", "--text")
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "PLAN AND MEASUREMENT" in done.stdout


def test_a_profile_in_a_text_has_a_report_and_names_of_datasets_stay(reported, tmp_path):
    """A name that begins with a slash is no path."""
    text = (reported / "integrate.toml").read_text()
    for old, new in (('path = "raw.h5"', f'path = "{reported}/raw.h5"\ndataset = "/data"\nframes = 3'),
                     ('"detector.poni"', f'"{reported}/detector.poni"')):  # fmt: skip
        text = text.replace(old, new)
    (tmp_path / "profile.toml").write_text(re.sub(r'path = "new_\w+.zarr"', 'path = "profile.xy"', text))
    outcome = recipe_run(tmp_path, "profile")
    page = Page(outcome.report.read_text()).text
    assert "Files .xy are not drawn." in page
    assert 'dataset = "/data"' in page


def test_nothing_to_tell_of_is_an_error(tmp_path):
    done = in_process(tmp_path, "report", "out.zarr")
    assert done.exit_code == 2
    assert "there is no out.zarr" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_page_of_somebody_elses_stays(reported, tmp_path):
    shutil.copytree(reported / "new_response.zarr", tmp_path / "a.zarr")
    (tmp_path / "a.zarr.html").write_text("<html>mine</html>")
    done = in_process(tmp_path, "report", "a.zarr")
    assert done.exit_code == 2
    assert "is no report of detcal" in done.stderr
    assert (tmp_path / "a.zarr.html").read_text() == "<html>mine</html>"


def test_a_report_that_cannot_be_written_is_one_warning_and_the_output_stays(small, monkeypatch):
    monkeypatch.setattr(writing, "as_page", lambda document: 1 / 0)
    with pytest.warns(UserWarning, match=r"out.zarr was written, its report was not: ZeroDivisionError") as told:
        outcome = recipe_run(small, "small")
    assert len(told) == 1
    assert outcome.report is None
    assert open_frames(outcome.output).shape == (6, 16, 24)
    assert not list(small.glob(".*")) + list(small.glob("*.html"))


def test_ctrl_c_while_it_is_written_tells_that_the_output_is_there(small, monkeypatch):
    def interrupted(document):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "as_page", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"out\.zarr was written, its report was not"):
        recipe_run(small, "small")
    assert open_frames(small / "out.zarr").shape == (6, 16, 24)


def test_names_of_files_are_no_tags(small):
    outcome = recipe_run(small, "small")
    assert outcome.report == small / "out.zarr.html"
    page = page_of(small / "out.zarr")
    assert EVIL in page.text
    assert set(page.links) == {link for link in page.links if link.startswith("data:")}


def test_a_recipe_with_infinite_numbers_and_nan_is_kept_as_it_is(small):
    """In the ledger, which a resumed run compares with its own recipe, in the output and in the report."""
    text = (small / "small.toml").read_text().replace('.npy"\n', '.npy"\nvalid_range = [0.0, inf]\ndummy = nan\n')
    (small / "small.toml").write_text(text)
    outcome = recipe_run(small, "small")
    report = as_text(report_of(outcome.output))
    assert "valid_range = [0.0, inf]\ndummy = nan" in report or "dummy = nan\nvalid_range = [0.0, inf]" in report
    assert "frames, frame 0 of 6" in report
    noted = read_ledger(Places.of(outcome.output).last_ledger).header["fingerprint"]
    recipe = read_recipe(small / "small.toml", {"output": {"overwrite": True}})
    assert differences(noted, fingerprint(recipe, [small / name for name in noted["inputs"]])) == []


@pytest.mark.parametrize("damaged", [1, 3])
def test_a_run_of_damaged_input_tells_of_it_in_report_and_status(small, damaged):
    """Frame 3 of 6 is one of those that are drawn."""
    with h5py.File(small / "raw.h5", "w") as file:
        file.create_dataset(
            "data", data=np.random.default_rng(0).poisson(900, (6, 16, 24)).astype(np.uint16), chunks=(1, 16, 24), compression="gzip"
        )
        chunk = file["data"].id.get_chunk_info(damaged)
    content = bytearray((small / "raw.h5").read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
    (small / "raw.h5").write_bytes(content)
    (small / "small.toml").write_text((small / "small.toml").read_text().replace(EVIL, "raw.h5"))
    done = in_process(small, "run", "small.toml", "--memory", "16GiB")
    assert done.exit_code == 3, done.output
    assert not list(small.glob(".*"))
    report = as_text(report_of(small / "out.zarr"))
    assert not list(small.glob(".*"))
    assert "1 frame could not be read" in report
    assert re.search(rf"raw\.h5 +{damaged} +\S", report)
    assert "frames, frame 0 of 6" in report
    assert "corrected, frame 3 of 6: 16 × 24, " + ("384 of 384 masked" if damaged == 3 else "none masked") in report
    told = " ".join(in_process(small, "status", "out.zarr").stdout.split())
    assert f"quarantined 1 frame cannot be read: {damaged} of {small / 'raw.h5'}".replace(" ", "") in told.replace(" ", "")


def test_no_library_for_figures_is_loaded(small):
    """It would take a second of each run, and 50 MiB beyond what was planned."""
    command = "import sys; from detcal_pipelines.cli import main; main(sys.argv[1:], standalone_mode=False)"
    program = f"{command}; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", program, "run", "small.toml", "--memory", "1GiB"], cwd=small, check=True, timeout=120)
    assert (small / "out.zarr.html").is_file()


def test_of_a_run_that_broke_off_there_is_a_report_without_pictures(reported, tmp_path):
    places = Places.of(tmp_path / "new_corrected.zarr")
    shutil.copytree(reported / "new_corrected.zarr", places.store)
    lines = (reported / "new_corrected.zarr.ledger").read_bytes().splitlines(keepends=True)
    places.ledger.write_bytes(b"".join(lines[:3]))
    report = as_text(report_of(places.output))
    assert "0 % done" in report
    assert "drawn once the output is whole" in report
