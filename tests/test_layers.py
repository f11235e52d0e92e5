"""The house holds: imports go one way (contracts in pyproject.toml), kernels are compiled in one, and the top level is small."""

import ast
from pathlib import Path

from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {"pyproject.toml", "README.md", "LICENSE", "detcal", "pipelines", "tests", "notebooks"}
MAY_IMPORT_NUMBA = {"jit.py", "simd.py", "compiling.py"}  # compiling.py listens to numba


def libraries(path: Path) -> set[str]:
    """The packages that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_imports_go_one_way():
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == EXIT_STATUS_SUCCESS


def test_kernels_are_never_parallel_and_keep_nan():
    options = (ROOT / "detcal" / "frames" / "jit.py").read_text()
    fast, as_written = [line for line in options.splitlines() if "njit(" in line]
    for compiled in (fast, as_written):
        assert "nogil=True" in compiled
        assert "parallel" not in compiled
    assert "fastmath={" in fast
    assert "fastmath" not in as_written
    assert not {'"nnan"', '"ninf"'} & set(fast.replace(",", " ").replace("{", " ").replace("}", " ").split())
    for path in [*(ROOT / "detcal").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")]:
        assert path.name in MAY_IMPORT_NUMBA or "numba" not in libraries(path), f"{path}: kernels are compiled by frames.jit alone"


def test_the_top_level_is_as_agreed():
    visible = {path.name for path in ROOT.iterdir() if not path.name.startswith(".") and not path.name.endswith(".egg-info")}
    assert visible - {"build", "detcal-demo"} == TOP_LEVEL
