from __future__ import annotations

import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tidemill.report.facts import ReportFacts
from tidemill.report.html import write_report

CHROMIUM = os.environ.get("TIDEMILL_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: set TIDEMILL_TEST_CHROMIUM to one")
def test_a_browser_shows_the_report_without_complaint(cancer: ReportFacts, tmp_path: Path) -> None:
    page = write_report(replace(cancer, deadline=time.monotonic() + 3), tmp_path / "report.html")
    picture = tmp_path / "report.png"
    done = subprocess.run(
        [
            str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0", "--window-size=1280,2400",
            f"--screenshot={picture}", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    assert picture.stat().st_size > 50_000
