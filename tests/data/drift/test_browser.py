"""A browser shows the page of checks and drift: no complaint, no request, nothing wider than the window."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tidemill.data.checks._base import Finding
from tidemill.data.drift.compare import drift
from tidemill.data.drift.page import render_page
from tidemill.data.drift.sketch import sketch_matrix

CHROMIUM = os.environ.get("TIDEMILL_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FOUND = [
    Finding("error", "absent", "a_column_with_a_rather_long_name_" * 3, "The column is absent.", "Bring it back."),
    Finding("warning", "range", "<b>bold</b>", "3 values lie outside; " + "x" * 300, "Look for a change of unit."),
    Finding("info", "rows", None, "There are few rows.", "Collect more."),
]
PROBE = """
<script>
addEventListener("load", () => {
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  const bars = document.querySelectorAll("rect.new").length;
  const loaded = performance.getEntriesByType("resource").length;
  document.title = `wide=${wide} bars=${bars} loaded=${loaded} rows=${document.querySelectorAll("tbody tr").length}`;
});
</script>
"""


def page(columns: int = 60) -> str:
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=(2000, columns)), rng.normal(size=(2000, columns))
    after[:, ::7] += 0.6
    names = [f"feature {i}" for i in range(columns)]
    one = sketch_matrix(before, names)
    found = drift(one, sketch_matrix(after, names, one.grid))
    return render_page("Drift from people@1 to people@2", drift=found, findings=FOUND, names=("people@1", "people@2"))


def show(html: str, folder: Path, *options: str, size: str = "1280,2400") -> subprocess.CompletedProcess[str]:
    (folder / "page.html").write_text(html, encoding="utf-8")
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            f"--user-data-dir={folder / 'profile'}", "--enable-logging=stderr", "--v=0", f"--window-size={size}",
            *options,
            (folder / "page.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    return done


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: set TIDEMILL_TEST_CHROMIUM to one")
@pytest.mark.parametrize("size", ["1280,2400", "500,2400"], ids=["desk", "narrow"])
def test_a_browser_shows_the_page_without_complaint(tmp_path: Path, size: str) -> None:
    html = page()
    picture = tmp_path / "page.png"
    show(html, tmp_path, f"--screenshot={picture}", size=size)
    assert picture.stat().st_size > 30_000
    told = show(html.replace("</body>", PROBE + "</body>"), tmp_path, "--dump-dom", size=size).stdout
    title = re.search(r"<title>wide=(-?\d+) bars=(\d+) loaded=(\d+) rows=(\d+)</title>", told)
    assert title is not None, told[:500]
    wide, bars, loaded, rows = map(int, title.groups())
    assert wide <= 0  # nothing has to be scrolled sideways
    assert bars >= 40 * 20
    assert loaded == 0
    assert rows == 3 + 60


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: set TIDEMILL_TEST_CHROMIUM to one")
def test_a_browser_shows_a_page_of_checks_alone(tmp_path: Path) -> None:
    told = show(render_page("Checks of people@1", findings=FOUND), tmp_path, "--dump-dom").stdout
    assert "&lt;b&gt;bold&lt;/b&gt;" in told
    assert "<figure>" not in told
