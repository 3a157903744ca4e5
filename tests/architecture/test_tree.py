"""Laws about the files of the project."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src" / "tidemill"
ROOMS = sorted(path.parent for path in SRC.glob("*/__init__.py"))
LOCKS = sorted(ROOT.glob("*.lock"))

# A path of somebody's machine; written in pieces so that this file keeps its own law.
MACHINE_PATH = re.compile(rb"(?<![\w.:/*-])/(?:ro" rb"ot|wo" rb"rk|op" rb"t|ho" rb"me/\w+|Us" rb"ers/\w+)/\w")


def tracked() -> list[Path]:
    """Give the files that git tracks or would track, or skip where there is no git."""
    try:
        done = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    paths = [ROOT / name.decode() for name in done.stdout.split(b"\0") if name]
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_every_room_says_why_it_exists(room: Path) -> None:
    readme = room / "README.md"
    assert readme.is_file(), f"{room.name}/ has no README.md"
    assert len(readme.read_text(encoding="utf-8").split()) >= 30, f"{room.name}/README.md says next to nothing"


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_locks_hold_names_and_versions_alone(lock: Path) -> None:
    lines = lock.read_text(encoding="utf-8").splitlines()
    strange = [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][A-Za-z0-9.+!]*", line)]
    assert lines
    assert strange == []
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(set(names))


def test_the_lock_for_the_demo_is_part_of_the_lock_for_tests() -> None:
    for small in ROOT.glob("requirements-run*.lock"):
        large = ROOT / small.name.replace("-run", "")
        assert set(small.read_text(encoding="utf-8").split()) <= set(large.read_text(encoding="utf-8").split())


def test_locks_answer_every_requirement() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "lock.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]!r}"
        for path in tracked()
        for number, line in enumerate(path.read_bytes().splitlines(), start=1)
        if b"\0" not in line and MACHINE_PATH.search(line)
    ]
    assert found == []
