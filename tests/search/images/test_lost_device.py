"""A device that is lost takes one trial along: the search goes on, in processes that never knew it."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("torch", reason="a fit on images trains nets")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")

from tests.sdk.test_images import digits

import tidemill as tm
from tidemill.models import registry
from tidemill.models.vision import pool

# A package of somebody else with two families: the first loses its device at its third step.
PROGRAM = """
import os
from pathlib import Path

from torch import nn

from tidemill.models.vision.families.resnet9 import ResNet9Family


class Body(nn.Module):
    def __init__(self, net, breaks):
        super().__init__()
        self.net, self.linear, self.breaks, self.seen = net, net.linear, breaks, 0

    def forward(self, x):
        if self.training and x.device.type == "cpu" and type(x).__name__ == "Tensor":
            self.seen += 1
            if self.seen == 1:
                with Path(os.environ["PIDS"]).open("a") as file:
                    file.write(f"{os.getpid()}\\n")
            if self.breaks and self.seen == 3:
                raise RuntimeError("CUDA error: device-side assert triggered\\nAdvice on kernels.")
        return self.net(x)


class Family(ResNet9Family):
    breaks = False

    def build(self, config, outputs, profile):
        return Body(super().build(config, outputs, profile), self.breaks)


class Lossy(Family):
    name = "lossy"
    breaks = True


class Steady(Family):
    name = "steady"


LOSSY, STEADY = Lossy(), Steady()
"""
POINTS = "[tidemill.vision_families]\nlossy = lossyfamilies:LOSSY\nsteady = lossyfamilies:STEADY\n"


@pytest.fixture
def pids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install the package for this test; gives the file with the processes that trained."""
    site, told = tmp_path / "site", tmp_path / "pids"
    about = site / "lossyfamilies-1.0.dist-info"
    about.mkdir(parents=True)
    (site / "lossyfamilies.py").write_text(PROGRAM)
    (about / "entry_points.txt").write_text(POINTS)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: lossyfamilies\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PIDS", str(told))
    importlib.invalidate_caches()
    registry._outside.cache_clear()
    yield told
    registry._outside.cache_clear()


def test_the_trial_fails_with_its_reason_and_the_next_ones_run_in_other_processes(tmp_path: Path, pids: Path) -> None:
    assert {"lossy", "steady"} <= {entry.name for entry in pool.entries()}
    photos = digits(tmp_path / "photos", 60)
    words: dict[str, Any] = {"families": ("lossy", "steady"), "trials": 4, "cpus": 1, "test_size": 0.0}
    with tm.fit(photos, workspace=tmp_path / "w", **words) as study:
        trials = study.search.trials()
        assert len(trials) == 4
        failed = [t for t in trials if t.family == "lossy"]
        assert failed
        assert all(t.state.value == "failed" for t in failed)
        told = "The device cpu failed at step 3: CUDA error: device-side assert triggered."
        assert all(told in str(t.error) for t in failed)
        assert all("Run it again" in str(t.error) for t in failed)
        assert all("Advice" not in str(t.error) for t in failed)
        fine = [t for t in trials if t.family == "steady"]
        assert fine
        assert all(t.state.value == "complete" for t in fine)
        assert min(t.number for t in failed) < max(t.number for t in fine), "the search went on after it"
    processes = [int(line) for line in pids.read_text().split()]
    assert len(set(processes)) == len(processes) >= 4, "none of them trained twice"
    assert not [pid for pid in processes if psutil.pid_exists(pid)]
