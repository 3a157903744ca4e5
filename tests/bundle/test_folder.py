"""A folder is there as a whole or not at all."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.bundle.small import make

from tidemill.bundle import folder as folder_module
from tidemill.bundle import manifest
from tidemill.bundle.folder import atomic_folder
from tidemill.bundle.verify import verify
from tidemill.core.errors import BundleError, OptionError


def leftovers(parent: Path) -> list[str]:
    return sorted(p.name for p in parent.iterdir() if p.name.startswith("."))


def test_the_folder_appears_with_all_its_files(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with atomic_folder(out) as inner:
        (inner / "a").write_text("1")
        assert not out.exists()
    assert [p.name for p in out.iterdir()] == ["a"]
    assert leftovers(out.parent) == []


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_folder(tmp_path / "out") as inner:
            (inner / "a").write_text("1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    with atomic_folder(tmp_path) as inner:
        (inner / "a").write_text("1")
    assert (tmp_path / "a").read_text() == "1"


def test_foreign_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OptionError, match="not a bundle"), atomic_folder(tmp_path):
        pass
    file = tmp_path / "mine.txt"
    with pytest.raises(OptionError, match="file of that name"), atomic_folder(file):
        pass
    assert file.read_text() == "mine"


def test_an_older_bundle_is_replaced_and_one_with_foreign_files_is_not(copied: Path) -> None:
    make(copied, "binary", seed=5)
    assert verify(copied) == []
    (copied / "notes.txt").write_text("mine")
    with pytest.raises(OptionError, match=r"not its own: notes\.txt"):
        make(copied)
    assert (copied / "notes.txt").read_text() == "mine"


def test_a_damaged_bundle_is_not_replaced(copied: Path) -> None:
    (copied / manifest.NAME).write_bytes((copied / manifest.NAME).read_bytes()[:-40])
    with pytest.raises(OptionError, match="damaged bundle"):
        make(copied)


def test_replacing_works_without_an_atomic_swap(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (copied / "1" / "model.onnx").read_bytes()
    monkeypatch.setattr(folder_module, "_exchange", lambda a, b: False)
    make(copied, "binary", seed=5)
    assert verify(copied) == []
    assert (copied / "1" / "model.onnx").read_bytes() != before
    assert leftovers(copied.parent) == []


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f".out.{dead.pid}-00ff.partial").mkdir()
    mine = tmp_path / f".out.{os.getpid()}-00ff.partial"
    mine.mkdir()
    with atomic_folder(tmp_path / "out"):
        pass
    assert leftovers(tmp_path) == [mine.name]


def test_a_bundle_that_was_moved_aside_by_a_killed_writer_comes_back(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    aside = tmp_path / f".out.{dead.pid}-00ff.older"
    make(aside)
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "out"):
        _ = 1 / 0
    assert verify(tmp_path / "out") == []


KILLED = """
import sys, time
from pathlib import Path
import tidemill.bundle.write as w
from tidemill.testing.parts import small_columns, small_recipe

real = Path.write_bytes
def slow(self, data):
    done = real(self, data)
    if ".partial" in str(self) and self.name != "MLmodel":
        print("writing", flush=True)
        time.sleep(120)
    return done
Path.write_bytes = slow
w.write_bundle(sys.argv[1], small_recipe(seed=9), columns_train=small_columns(50))
"""


def test_kill_9_in_the_middle_leaves_the_older_bundle_whole(copied: Path) -> None:
    before = (copied / manifest.NAME).read_bytes()
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(copied)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "writing\n"
        time.sleep(0.2)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert (copied / manifest.NAME).read_bytes() == before
    assert verify(copied) == []
    assert len(leftovers(copied.parent)) == 1
    make(copied)
    assert leftovers(copied.parent) == []


LIMITED = """
import resource, sys
from tidemill.bundle.parity import prove
from tidemill.bundle import write
from tidemill.core.errors import BundleError
from tidemill.testing.parts import small_columns, small_recipe

real = write.write_files
def limited(folder, files):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, resource.RLIM_INFINITY))
    real(folder, files)
write.write_files = limited
try:
    write.write_bundle(sys.argv[1], small_recipe(), columns_train=small_columns(50))
except BundleError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit of file sizes here")
def test_a_file_system_that_refuses_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    assert "could not be written: File too large." in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Path:
    """A file system of 32 kB."""
    place = tmp_path / "tiny"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("file systems can't be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_keeps_the_older_bundle(tiny_disk: Path) -> None:
    with pytest.raises(BundleError, match="No space left on device") as caught:
        make(tiny_disk / "out")
    assert "Nothing was left behind" in str(caught.value)
    assert list(tiny_disk.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BundleError, match="Permission denied"):
        make(tmp_path / "out")
