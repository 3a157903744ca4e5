"""A disk that is full costs what can't be kept, says so, and costs no prediction."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.faults.conftest import MakeSite
from tests.deploy.faults.sites import NAME, Load, Records, Site, until

from tidemill.deploy.watch import feedback
from tidemill.deploy.watch.capture import collect
from tidemill.deploy.watch.sources import folder_of

OPTIONS = {"capture": {"sample": 1.0, "per_hour": 10_000}}


def _feedback(here: Site, *ids: str, note: str = "") -> tuple[int, Any]:
    items = [{"request_id": i, "label": "yes", "note": note} for i in ids]
    return here.front.ask(f"/v1/feedback/{NAME}", {"items": items})


def _kept(here: Site) -> set[str]:
    return set(feedback.read_all(folder_of(here.workspace, NAME) / "feedback")["request_id"].to_pylist())


def _lines(here: Site, metric: str) -> int:
    text = here.front.request("/metrics")[2].decode()
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in text.splitlines() if line.startswith(metric + "{"))


def test_a_disk_that_refuses_every_write_costs_no_prediction(
    site: MakeSite, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = site()
    here.serves(here.deploy(pair[0], options=OPTIONS))
    assert _feedback(here, "before") == (200, {"kept": 1})

    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Load(here.front.port, Records(pair[0], count=2000).ask) as load:
        load.more(50)
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", full)
            load.more(100)
            status, got = _feedback(here, "during", "also-during")
            assert (status, got["code"]) == (503, "unavailable"), got
            assert "No space left" in got["error"]
            assert got["retry_after_s"] > 0
            until(lambda: _lines(here, "tidemill_watch_refused_by_disk_total") > 0)
        assert _feedback(here, "after") == (200, {"kept": 1})
        load.more(50)
    load.assert_whole(200)
    assert _kept(here) == {"before", "after"}
    until(lambda: collect(here.workspace, NAME, reasons=["sample"]).num_rows > 0)


def test_a_write_that_is_cut_in_the_middle_is_taken_back(
    site: MakeSite, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some bytes fit, the rest does not: what was acknowledged before stays whole, what was not is not there."""
    here = site()
    here.serves(here.deploy(pair[0]))
    real = os.pwrite
    acknowledged: set[str] = set()
    room = 3000

    def small(handle: int, data: Any, at: int) -> int:
        nonlocal room
        if room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(handle, bytes(data)[:room], at)
        room -= written
        return written

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", small)
        for number in range(40):
            if _feedback(here, f"r{number}")[0] == 200:
                acknowledged.add(f"r{number}")
    assert 0 < len(acknowledged) < 40
    assert _feedback(here, "last")[0] == 200
    assert _kept(here) == acknowledged | {"last"}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes; the test is skipped where none may be made."""
    place = tmp_path / "disk"
    place.mkdir()
    mount, umount = shutil.which("mount"), shutil.which("umount")
    if mount is None or umount is None or os.geteuid() != 0:
        pytest.skip("a file system can't be made here")
    command = [mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("a file system can't be made here")
    yield place
    subprocess.run([umount, "-l", str(place)], check=True)


def test_a_real_disk_that_is_full(site: MakeSite, pair: tuple[Path, Path], small_disk: Path) -> None:
    here = site()
    watched = here.workspace.path / "watch"
    shutil.rmtree(watched, ignore_errors=True)
    watched.symlink_to(small_disk, target_is_directory=True)
    here.serves(here.deploy(pair[0], options=OPTIONS))
    assert _feedback(here, "before")[0] == 200
    filler = small_disk / "filler"
    with Load(here.front.port, Records(pair[0], count=2000).ask) as load:
        load.more(50)
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\0" * 4096):
                pass
        load.more(100)
        ids = [[f"during-{k}-{i}" for i in range(20)] for k in range(10)]
        told = {_feedback(here, *some, note="x" * 500)[0] for some in ids}
        assert 503 in told
        assert told <= {200, 503}
        load.more(50)
        filler.unlink()
        until(lambda: _feedback(here, "after")[0] == 200)
        load.more(50)
    load.assert_whole(250)
    assert {"before", "after"} <= _kept(here)
