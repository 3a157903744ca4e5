"""Checkpoints are whole or not there, and say what is wrong with them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from tests.train.small import RECIPE, Cloud, loss, net

from tidemill.core.errors import DataError, OptionError, WorkspaceError
from tidemill.train import checkpoint
from tidemill.train.runtime import train
from tidemill.train.types import Event, Limits, Placement, Trained

ROOT = Path(__file__).resolve().parents[2]
CPU = Placement(device="cpu", micro_batch=13)


def half(folder: Path) -> Trained:
    return train(net(), loss, Cloud(), RECIPE, plan=CPU, folder=folder, limits=Limits(epochs=2))


def rest(folder: Path, **how: object) -> Trained:
    return train(net(seed=5), loss, Cloud(), RECIPE, plan=CPU, folder=folder, **how)  # type: ignore[arg-type]


def whole() -> Trained:
    return train(net(), loss, Cloud(), RECIPE, plan=CPU)


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    train(net(), loss, Cloud(), replace(RECIPE, checkpoint_s=1e-9), plan=CPU, folder=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000014", "step-000000015"]


def test_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    every = replace(RECIPE, checkpoint_s=1e-9)
    train(net(), loss, Cloud(), every, plan=CPU, folder=tmp_path, limits=Limits(epochs=2))
    newest = max(tmp_path.glob("step-*"))
    (newest / "training.json").write_text("{")
    assert rest(tmp_path).losses == whole().losses


def test_where_none_can_be_read_it_is_said(tmp_path: Path) -> None:
    half(tmp_path)
    for path in tmp_path.glob("step-*"):
        (path / "losses.npy").unlink()
    with pytest.raises(DataError, match="can't be read"):
        rest(tmp_path)


def test_damaged_tensors_are_named(tmp_path: Path) -> None:
    half(tmp_path)
    for path in tmp_path.glob("step-*/*.distcp"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="checkpoint can't be read"):
        rest(tmp_path)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"seed": 9}, "seed 0 there, 9 here"),
        ({"batch": 7}, "batch 13 there, 7 here"),
        ({"size": 49}, "samples 50 there"),
        ({"width": 8}, "tensors"),
    ],
)
def test_another_training_is_refused(tmp_path: Path, change: dict[str, int], word: str) -> None:
    half(tmp_path)
    recipe = replace(RECIPE, batch=change.get("batch", 13))
    module = net(width=change.get("width", 7))
    with pytest.raises(OptionError, match=word):
        train(
            module, loss, Cloud(change.get("size", 50)), recipe, seed=change.get("seed", 0), plan=CPU, folder=tmp_path
        )


def test_another_version_is_refused(tmp_path: Path) -> None:
    half(tmp_path)
    for path in tmp_path.glob("step-*/training.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    with pytest.raises(DataError, match="another version"):
        rest(tmp_path)


def test_what_a_killed_process_left_half_written_is_ignored_and_swept(tmp_path: Path) -> None:
    half(tmp_path)
    whole_one = next(tmp_path.glob("step-*"))
    shutil.copytree(whole_one, tmp_path / ".part-000000999")
    assert rest(tmp_path).losses == whole().losses
    assert not list(tmp_path.glob(".part-*"))


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage(100, 100, 10))
    with pytest.raises(WorkspaceError, match=r"disk is full: a checkpoint takes [\d,]+ bytes, 10 are free"):
        rest(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_that_fills_up_leaves_the_checkpoints_before(tmp_path: Path) -> None:
    """The kernel refuses to write more than some kilobytes to a file, in the middle of a checkpoint."""
    half(tmp_path)
    before = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    program = f"""
import resource, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.train.test_checkpoint import rest
from tidemill.core.errors import WorkspaceError
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))
try:
    rest(Path({str(tmp_path)!r}))
except WorkspaceError as error:
    print("REFUSED", error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert "REFUSED" in done.stdout, done.stdout + done.stderr
    assert "The disk is full" in done.stdout
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == before
    assert rest(tmp_path).losses == whole().losses


PROGRAM = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from dataclasses import replace
from pathlib import Path
from tests.train.small import RECIPE, Cloud, loss, net
from tidemill.train.runtime import train
from tidemill.train.types import Placement

class Slow(Cloud):
    def batch(self, indices, *, train, rng):
        time.sleep(0.05)
        return super().batch(indices, train=train, rng=rng)

recipe = replace(RECIPE, checkpoint_s=0.2, epochs=100)
def say(event):
    print(event.kind, event.step, flush=True)
train(net(), loss, Slow(), recipe, plan=Placement(device="cpu", micro_batch=13), folder=Path(sys.argv[1]), on_event=say)
"""


def test_kill_9_loses_at_most_one_interval(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    last = 0
    for line in child.stdout:
        kind, _, step = line.strip().partition(" ")
        if kind == "checkpoint":
            last = int(step)
        if last > 10:
            break
    time.sleep(0.1)
    child.send_signal(signal.SIGKILL)
    child.stdout.close()
    child.wait(30)
    heard: list[Event] = []
    recipe = replace(RECIPE, epochs=100)
    limits = Limits(epochs=10)
    again = train(net(), loss, Cloud(), recipe, plan=CPU, folder=tmp_path, limits=limits, on_event=heard.append)
    began = next(e.step for e in heard if e.kind == "checkpoint")
    assert began >= last
    fresh = train(net(), loss, Cloud(), recipe, plan=CPU, limits=limits)
    assert again.losses == fresh.losses


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(WorkspaceError, match="could not be written"):
        half(tmp_path)
