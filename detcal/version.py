"""The version that is installed: from the repository's tags."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("detcal")
except PackageNotFoundError:  # a source tree that was put on the path, not installed
    __version__ = "0.0.0"
