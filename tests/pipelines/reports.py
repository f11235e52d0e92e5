"""Runs that write reports, and what their pages are made of."""

from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path

from detcal_pipelines.recipe import read_recipe
from detcal_pipelines.run import run
from rich.console import Console

from tests.pipelines.commands import AMPLE

EVIL = "<img src=x onerror=document.title=1>.npy"


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pictures: list[bytes] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), f"{name} would run a script"
            if name in ("src", "href"):
                self.links.append(value)
                self.pictures.append(b64decode(value.removeprefix("data:image/png;base64,")))

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(output: Path) -> Page:
    return Page(output.with_name(f"{output.name}.html").read_text())


def recipe_run(folder: Path, name: str):
    return run(read_recipe(folder / f"{name}.toml"), (AMPLE, 2), Console(quiet=True))


def output_of(folder: Path, name: str) -> Path:
    return Path(read_recipe(folder / f"{name}.toml", {"output": {"overwrite": True}}).output.path)
