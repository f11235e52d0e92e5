"""What is far too large is refused before anything of its size is allocated: in a process that could not hold it."""

import json
import re
import resource
import struct
import subprocess
import sys
from functools import partial

import h5py
import numpy as np
import pytest
import zarr
from fabio.cbfimage import CbfImage

from detcal.azimuthal import build_bins
from detcal.errors import InputError
from detcal.response import fit_response
from detcal.sensor import PlanarGeometry
from detcal.sizes import MOST_PIXELS, check_pixels, check_radius
from detcal.xrf import smooth_spectra

PONI = (
    'poni_version: 2.1\nDetector: Detector\nDetector_config: {"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [%s, %s], "orientation": 3}\n'
    "Distance: 0.1\nPoni1: 0.0032\nPoni2: 0.0032\nRot1: 0\nRot2: 0\nRot3: 0\nWavelength: 1e-10\n"
)
LIMIT = 8 * 2**30  # bytes of address space: what is refused here would need a hundred times more


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe for small frames, with a detector of a size."""

    def write(steps, size=64, frames=True):
        np.save(tmp_path / "frames.npy", np.ones((4, 64, 64), "u2"))
        (tmp_path / "d.poni").write_text(PONI % (size, size))
        source = '[input]\npath = "frames.npy"\n' if frames else ""
        (tmp_path / "r.toml").write_text(f'{source}[[steps]]\n{steps}\n[output]\npath = "o.zarr"\n')
        return tmp_path

    return write


def refused(folder, command):
    """The last line of a command that ends with exit code 2, in a process of limited memory."""
    limit = partial(resource.setrlimit, resource.RLIMIT_AS, (LIMIT, LIMIT))
    call = [sys.executable, "-m", "detcal_pipelines", command, "r.toml"]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, preexec_fn=limit, timeout=100)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return (done.stderr or done.stdout).strip().splitlines()[-1]


@pytest.mark.parametrize("command", ["check", "plan"])
def test_a_slip_in_npt_is_refused(recipe, command):
    folder = recipe('operation = "integrate"\ngeometry = "d.poni"\nnpt = 1000000000')
    assert "expected up to 1048576 rings, or parts of them, for 4096 pixels, got 1000000000" in refused(folder, command)


def test_detectors_of_a_slip_are_refused(recipe):
    folder = recipe('operation = "sigma_clip"\ngeometry = "d.poni"', size=10**6)
    assert "of up to 268435456 pixels (2^28), got 1000000000000" in refused(folder, "check")
    plane = "{ shape = [1000000, 1000000], pixel_size_m = [1e-4, 1e-4], distance_m = 0.1, poni_m = [0.0, 0.0] }"
    folder = recipe(f'operation = "build_psf"\ngeometry = {plane}\nenergy_kev = 17.0', frames=False)
    assert "expected a detector of up to 268435456 pixels" in refused(folder, "check")


@pytest.mark.parametrize(
    "options",
    [{"npt": 2**31}, {"npt": 10**18}, {"npt": 10**5, "npt_azimuth": 10**5}, {"npt": 2**20 + 1}, {"npt_azimuth": 10**12}],
)
def test_bins_without_end_are_refused(recipe, options):
    with pytest.raises(InputError, match="expected up to 1048576 rings, or parts of them, for 4096 pixels"):
        build_bins(recipe("") / "d.poni", **options)


@pytest.mark.filterwarnings("ignore:.*many will be empty")
def test_rings_that_cut_pixels_into_dust_are_refused(recipe):
    with pytest.raises(InputError, match=r"that cut a pixel into up to 64 on average, got .*: take a smaller npt"):
        build_bins(recipe("") / "d.poni", npt=10**6, split="bbox")
    assert len(build_bins(recipe("") / "d.poni", npt=10**6).centres) == 10**6  # unsplit, each is in one


def test_gaussians_without_end_are_refused():
    sweep = np.ones((3, 8, 8))
    for options in ({"sigma": 1e9}, {"truncate": 1e12}):
        with pytest.raises(InputError, match="of a radius, truncate·sigma, of up to 65536"):
            fit_response(sweep, **options)
    with pytest.raises(InputError, match="of a radius"):
        smooth_spectra(np.ones((2, 8)), sigma_channels=1e9)
    check_radius(50.0, 4.0)


def test_detectors_have_up_to_16384_pixels_a_side():
    check_pixels((16384, 16384), "a detector")
    PlanarGeometry((16384, 16384), (1e-4, 1e-4), 0.1, (0.0, 0.0))
    with pytest.raises(InputError, match="expected a detector of up to 268435456 pixels"):
        PlanarGeometry((16384, 16385), (1e-4, 1e-4), 0.1, (0.0, 0.0))
    assert MOST_PIXELS == 16384**2


# ------------------------------------------------------------------------------------------------- files that claim to be huge

SIDE = 10**6


def write_claims(folder):
    """Small files whose headers speak of 10¹² pixels, chunks or frames; what of it is refused, by name."""
    for name, shape, small, chunks in (
        ("pixels", (3, SIDE, SIDE), (1, 1000, 1000), (1, SIDE, SIDE)),  # HDF5 itself has a limit for chunks
        ("chunks", (10**8, 4, 4), (1, 4, 4), (1, 4, 4)),
        ("rows", (10**12, 4, 4), (10**6, 4, 4), (10**9, 4, 4)),
    ):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("d", shape, "u2", chunks=small)[0, :4, :4] = 1
        zarr.create_array(folder / f"{name}.zarr", data=np.ones((3, 4, 4), "u2"), chunks=(1, 4, 4))
        described = json.loads((folder / f"{name}.zarr/zarr.json").read_text())
        described["shape"], described["chunk_grid"]["configuration"]["chunk_shape"] = shape, chunks
        (folder / f"{name}.zarr/zarr.json").write_text(json.dumps(described))
    with h5py.File(folder / "unwritten.h5", "w") as file:
        file.create_dataset("d", (10**12, 4, 4), "u2")
    header = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {(SIDE, SIDE)}, }}".ljust(117) + "\n"
    (folder / "cut.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(100))
    tags = (256, SIDE), (257, SIDE), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, SIDE), (279, 2**32 - 1)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    (folder / "pixels.tif").write_bytes(struct.pack("<2sHI8xH", b"II", 42, 16, len(tags)) + entries + bytes(104))
    edf = f"{{\nByteOrder = LowByteFirst ;\nDataType = UnsignedShort ;\nDim_1 = {SIDE} ;\nDim_2 = {SIDE} ;\nSize = {2 * SIDE**2} ;\n"
    (folder / "pixels.edf").write_bytes(edf.ljust(510).encode() + b"}\n" + bytes(100))
    CbfImage(data=np.ones((20, 20), np.int32)).write(str(folder / "whole.cbf"))
    claim = (folder / "whole.cbf").read_bytes().replace(b"Dimension: 20", b"Dimension: %d" % SIDE)
    (folder / "pixels.cbf").write_bytes(claim)


REFUSED = {
    "pixels.h5": "frames in .* of up to 268435456 pixels", "pixels.zarr": "frames in .* of up to 268435456 pixels",
    "chunks.h5": "up to 16777216 chunks, got 100000000", "chunks.zarr": "up to 16777216 chunks, got 100000000",
    "rows.h5": "up to 268435456 (rows|frames), got 1000000000000", "rows.zarr": "up to 268435456 (rows|frames), got 1000000000000",
    "unwritten.h5": "up to 268435456 (rows|frames), got 1000000000000", "cut.npy": "cannot read",
    "pixels.tif": "an image in .* of up to 268435456 pixels", "pixels.edf": "an image in .* of up to 268435456 pixels|cut short",
    "pixels.cbf": "an image in .* of up to 268435456 pixels",
}  # fmt: skip
OPEN_ALL = """if True:
    import sys
    from detcal import open_frames
    from detcal.errors import InputError
    for name in sys.argv[1:]:
        try:
            open_frames(name)
        except InputError as error:
            print(name, error)
"""


def test_files_that_claim_to_be_huge_are_refused_before_anything_is_allocated(tmp_path):
    write_claims(tmp_path)
    limit = partial(resource.setrlimit, resource.RLIMIT_AS, (LIMIT, LIMIT))
    call = [sys.executable, "-c", OPEN_ALL, *REFUSED]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit, timeout=100)
    assert not done.stderr
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    for name, message in REFUSED.items():
        assert re.search(message, told[name]), told[name]
        assert name in told[name].replace(" ", "")
