"""What detcal removes, replaces, goes on with or calls its own is its own."""

import pytest
from detcal_pipelines.ledger import as_line, read_events
from detcal_pipelines.unfinished import Places

from detcal import load
from tests.pipelines.commands import change, detcal, in_process
from tests.pipelines.inputs import write_inputs

FOREIGN = [
    ".vimrc.new",
    ".poetry.lock",
    ".pre-commit-config.yaml.bad",
    ".download.partial",
    ".zshrc.old",
    ".scan.h5.partial",
    ".a.zarr.ledger",
]


@pytest.fixture
def folder(tmp_path):
    write_inputs(tmp_path, 64, 40, 8)
    return tmp_path


def test_clean_leaves_what_others_have_hidden(tmp_path):
    for name in FOREIGN:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".data.old").mkdir()
    (tmp_path / ".data.old" / "raw").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert detcal(tmp_path, "clean").stdout == "nothing is left in .\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_with_the_name_of_the_ledger_is_not_replaced(folder):
    (folder / "new_corrected.zarr.ledger").write_text("mine")
    done = in_process(folder, "run", "correct_response.toml", "--overwrite")
    assert done.exit_code == 2
    assert "new_corrected.zarr.ledger exists already, and is no ledger of detcal: move it away" in done.stderr
    assert (folder / "new_corrected.zarr.ledger").read_text() == "mine"


def break_off_at_the_end(folder, monkeypatch):
    """A run whose output does not get its name."""

    def killed(*_, **__):
        raise OSError("the disk went away")

    with monkeypatch.context() as patch:
        patch.setattr("detcal_pipelines.run.put_in_place", killed)
        in_process(folder, "run", "correct_response.toml")


def test_a_run_that_was_killed_after_all_blocks_does_not_go_on_with_another_recipe(folder, monkeypatch):
    """All is written, and noted so, but the output has not got its name."""
    break_off_at_the_end(folder, monkeypatch)
    assert any("commit" in event for event in read_events(Places.of(folder / "new_corrected.zarr").ledger)[0])
    change(folder, "correct_response.toml", "flat = ", "# flat = ")
    done = in_process(folder, "run", "correct_response.toml")
    assert done.exit_code == 2
    assert "cannot go on, since something has changed: the recipe's steps[0].flat" in done.stderr
    assert not (folder / "new_corrected.zarr").exists()
    detcal(folder, "run", "correct_response.toml", "--restart")
    (found,) = load(folder / "new_corrected.zarr").values()
    assert float(found.mean()) > 100  # counts, since they are not divided by the flat


@pytest.mark.parametrize(
    "spoil",
    [
        lambda header: header.pop("cut"),
        lambda header: header["cut"].pop("depth"),
        lambda header: header.update(arrays={}),
        lambda header: header.update(fingerprint=None),
        lambda header: header.update(arrays={"another": {"blocks": 3, "shape": [3], "chunks": 0}}),
    ],
)
@pytest.mark.parametrize("command", ["status", "run"])
def test_a_ledger_that_is_whole_and_says_something_else(folder, monkeypatch, command, spoil):
    break_off_at_the_end(folder, monkeypatch)
    path = Places.of(folder / "new_corrected.zarr").ledger
    events, _ = read_events(path)
    spoil(events[0])
    path.write_bytes(b"".join(map(as_line, events)))
    done = in_process(folder, command, "correct_response.toml" if command == "run" else "new_corrected.zarr")
    assert done.exit_code == 2, done.exception
    assert "does not say what a ledger says: begin anew with --restart, or restore it" in done.stderr


@pytest.mark.parametrize("command", ["status", "verify", "report"])
@pytest.mark.parametrize("name", ["/", ".", "correct_response.toml", "/dev/null"])
def test_what_is_no_output_is_not_called_one(folder, command, name):
    done = in_process(folder, command, name)
    assert done.exit_code == 2, done.output
    assert "expected" in done.stderr


def test_a_name_that_leaves_no_room_for_others_beside_it(folder):
    name = "n" * 230 + ".zarr"
    recipe = folder / "correct_response.toml"
    recipe.write_text(recipe.read_text().replace("new_corrected.zarr", name))
    for command in ("check", "plan", "run"):
        done = in_process(folder, command, "correct_response.toml")
        assert done.exit_code == 2, command
        assert "is too long: expected up to 220 bytes, got 235" in done.stderr
    assert not list(folder.glob(".*"))
