"""The house holds: imports go one way, and only the stores touch files."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUBJECTS = {"response", "sensor", "distortion", "azimuthal", "xrf"}
FILE_LIBRARIES = {"h5py", "zarr", "fabio", "tifffile", "hdf5plugin"}
TOP_LEVEL = {"pyproject.toml", "README.md", "LICENSE", "detcal", "pipelines", "tests", "notebooks"}


def modules() -> list[Path]:
    return [*sorted((ROOT / "detcal").rglob("*.py")), *sorted((ROOT / "pipelines").rglob("*.py"))]


def imports(path: Path) -> set[str]:
    """Every module that a file imports, those inside functions too, but not those for type checking alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


KERNELS = {"blobs", "clipping", "inversion", "kernels", "lanes", "overlaps", "quantiles", "readings", "resampling", "smoothing"}


@pytest.mark.parametrize("path", sorted((ROOT / "detcal").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    parts = path.relative_to(ROOT).parts
    found, libraries = imports(path), roots(path)
    assert not libraries & {"detcal_pipelines", "click", "rich", "pydantic", "distributed"}, "detcal knows no cluster and no command line"
    subject = parts[1] if len(parts) > 2 and parts[1] in SUBJECTS else None
    if parts[1] != "stores":
        assert not libraries & FILE_LIBRARIES, "only the stores touch files"
        assert not any(name.startswith("detcal.stores") for name in found) or parts == ("detcal", "__init__.py")
    if subject:
        others = {f"detcal.{other}" for other in SUBJECTS - {subject}}
        assert not any(name.startswith(other) for name in found for other in others), "subjects never import each other"
    if path.stem in KERNELS:
        assert not libraries & {"dask", "xarray", "logging", "pathlib"}, "kernels: ndarrays in, ndarrays out"
        assert not any(name.startswith(f"detcal.{subject}.{upper}") for name in found for upper in ("calibration", "operations"))
    if path.name == "calibration.py":
        assert not any(name.startswith(f"detcal.{subject}.operations") for name in found)
    if parts[1] == "stores":
        reads = {name for name in found if any(name.startswith(f"detcal.{subject}") for subject in SUBJECTS)}
        assert all(".calibration" in name for name in reads), "stores know calibrations only to read and write them"


def test_kernels_are_never_parallel_and_keep_nan():
    options = (ROOT / "detcal" / "frames" / "jit.py").read_text()
    assert "nogil=True" in options
    assert "fastmath={" in options
    assert "parallel" not in options.split('"""')[2]
    assert not {'"nnan"', '"ninf"'} & set(options.replace(",", " ").replace("{", " ").replace("}", " ").split())
    for path in modules():
        assert path.name in ("jit.py", "simd.py", "compiling.py") or "numba" not in roots(path), (
            f"{path}: kernels are compiled by frames.jit alone, with what frames.simd adds; compiling.py listens to that"
        )


def test_the_top_level_is_as_agreed():
    visible = {path.name for path in ROOT.iterdir() if not path.name.startswith(".") and not path.name.endswith(".egg-info")}
    assert visible - {"build", "detcal-demo"} == TOP_LEVEL
