"""A report in a headless browser: nothing is too wide, broken, or upon something else."""

import json
import re
import shutil
import subprocess
from urllib.parse import unquote

import pytest

from tests.pipelines.reports import recipe_run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LOOK = """
<script>addEventListener("load", async () => {
  const root = document.documentElement, found = {title: document.title, width: root.clientWidth, needs: root.scrollWidth};
  const svgs = [...document.querySelectorAll("svg")], box = each => each.getBoundingClientRect();
  found.pictures = svgs.length;
  found.outside = [], found.overlaps = [];
  for (const svg of svgs) {
    const words = [...svg.querySelectorAll("text")], place = box(svg);
    for (const [number, one] of words.entries()) {
      const a = box(one);
      if (a.left < place.left || a.right > place.right || a.top < place.top || a.bottom > place.bottom) found.outside.push(one.textContent);
      for (const other of words.slice(number + 1)) {
        const b = box(other);
        const apart = a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
        if (!apart) found.overlaps.push([one.textContent, other.textContent]);
      }
    }
  }
  const images = [...document.querySelectorAll("svg image")];
  found.images = images.length;
  found.broken = (await Promise.allSettled(images.map(each => each.decode()))).filter(each => each.status == "rejected").length;
  root.dataset.found = encodeURIComponent(JSON.stringify(found));
})</script>
"""


def look_at(page, profile):
    """What a script on a page has found in a browser; None if it has not ended."""
    shown = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,900", f"--user-data-dir={profile}",
         "--virtual-time-budget=10000", "--dump-dom", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    return re.search(r'data-found="([^"]*)"', shown)


@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed: apt-get install chromium")
@pytest.mark.parametrize("name", ["new_corrected.zarr", "new_cube.zarr", "new_profiles.zarr", "new_distortion.zarr", "evil"])
def test_a_browser_shows_it_without_scrolling_sideways_and_no_words_upon_each_other(reported, small, name):
    if name == "evil":
        recipe_run(small, "small")
    page = small / "out.zarr.html" if name == "evil" else reported / f"{name}.html"
    looked = small / "looked.html"
    looked.write_text(page.read_text().replace("</body>", f"{LOOK}</body>"))
    looks = (look_at(looked, small / "profile") for _ in range(3))  # on a busy machine a browser may print before it has looked
    found = json.loads(unquote(next(look for look in looks if look)[1]))
    assert found["width"] <= 1000
    assert found["needs"] <= found["width"]
    assert found["title"] == page.name.removesuffix(".html")
    assert found["pictures"] >= 2
    assert found["images"] >= 2
    assert not found["broken"]
    assert not found["outside"]
    assert not found["overlaps"]
