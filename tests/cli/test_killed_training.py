"""A study of images that is killed inside of a training goes on with that training, not with its first step."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.sdk.queued import work_off

from tidemill.cli.main import run
from tidemill.core.trial import Trial, TrialState
from tidemill.store.workspace import Workspace

pytest.importorskip("torch", reason="nets are trained")
pytest.importorskip("onnxscript", reason="a measured trial exports its net")

OFTEN = """
import tidemill.search.fit
tidemill.search.fit.CHECKPOINT_S = 0.1
from tidemill.cli.main import main
main()
"""


def photos(folder: Path, count: int = 240) -> Path:
    """Noise with a bright square on the left or on the right."""
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
        pixels[8:24, 2 + 16 * (i % 2) : 14 + 16 * (i % 2)] += 60
        place = folder / "ab"[i % 2] / f"{i:03d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    return folder


def fit(*more: str | Path) -> list[str]:
    return ["fit", *map(str, more), "--no-report", "--cpus", "1"]


def trial_of(workspace: Path) -> Trial:
    with Workspace.open(workspace) as opened:
        (trial,) = opened.metadata.trials("photos-1")
    return trial


def kept(workspace: Path) -> list[Path]:
    return sorted(workspace.glob("scratch/checkpoints/*/0/*/step-*"))


def until_kept(process: subprocess.Popen[str], workspace: Path) -> None:
    until = time.monotonic() + 240
    while not kept(workspace):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "no checkpoint came"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.timeout(580)
def test_kill_9_costs_a_training_what_came_after_its_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = (photos(tmp_path / "photos"), "--family", "quicknet", "--trials", "1", "--seed", "3")
    calm, hit = tmp_path / "calm", tmp_path / "hit"
    assert run(fit(*new, "--workspace", calm, "--quiet")) == 0
    assert not kept(calm), "a training of some seconds leaves nothing"

    words = fit(*new, "--workspace", hit, "--quiet")
    process = subprocess.Popen(
        [sys.executable, "-c", OFTEN, *words], text=True, start_new_session=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        until_kept(process, hit)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert trial_of(hit).state is TrialState.RUNNING
    step = int(kept(hit)[-1].name.removeprefix("step-"))
    assert step > 0

    capsys.readouterr()
    assert run(fit("--workspace", hit, "--resume", "photos-1", "--json")) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    said = [e["message"] for e in events if "goes on from step" in e.get("message", "")]
    assert len(said) == 1
    assert int(re.findall(r"from step (\d+)", said[0])[0]) >= step
    expected, found = trial_of(calm), trial_of(hit)
    assert found.curve == expected.curve
    assert found.fold_scores == expected.fold_scores
    assert found.usage.wall_s > 0
    assert not kept(hit)
    assert not list(hit.glob("scratch/checkpoints/*"))


KILLED = """
import os, signal, threading, time

import tidemill.search.fit
from tidemill.sdk import job_fit


def fit(context, **arguments):
    tidemill.search.fit.CHECKPOINT_S = 0.1

    def die():
        while not list(context.workspace.glob("scratch/checkpoints/*/0/*/step-*")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)

    def heard(self, event, hear=job_fit.Listening.hear):
        with (context.workspace / f"said-{context.attempt}").open("a") as file:
            print(event.message, file=file)
        hear(self, event)

    job_fit.Listening.hear = heard
    if context.attempt == 1:
        threading.Thread(target=die, daemon=True).start()
    return job_fit.fit(context, **arguments)
"""


@pytest.mark.slow
@pytest.mark.timeout(580)
def test_a_job_that_is_killed_inside_of_a_training_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "killed.py").write_text(KILLED, encoding="ascii")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    data = str(photos(tmp_path / "photos"))
    new = {"data": data, "families": ["quicknet"], "trials": 1, "seed": 3, "name": "photos-1"}
    place = tmp_path / "ws"
    with Workspace.open(place) as opened:
        done, outcomes = work_off(opened, "fit", new, "killed:fit")
    assert outcomes == ["died", "done"], done.error
    said = (place / "said-2").read_text()
    assert len(re.findall(r"goes on from step [1-9]", said)) == 1, said
    trial = trial_of(place)
    assert trial.state is TrialState.COMPLETE
    steps = [step for step, _ in trial.curve]
    assert steps == sorted(set(steps)), "no step stands on the curve twice"
    assert not list(place.glob("scratch/checkpoints/*"))
