"""A plain module as a job: trained, killed, gone on with; cancelled without a result, ended in time with one."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from tidemill.core.errors import OptionError
from tidemill.jobs.queue.context import JobContext, JobStopped
from tidemill.jobs.queue.folders import checkpoint_folder
from tidemill.jobs.queue.queue import JobQueue
from tidemill.jobs.queue.types import Capacity
from tidemill.jobs.queue.worker import Worker
from tidemill.sdk import jobs
from tidemill.sdk.job_kinds import known_kinds
from tidemill.sdk.job_train import train
from tidemill.store.workspace import Workspace
from tidemill.train.checkpoint import newest

DEFINITION = """
import time
import torch
from torch import nn
from tidemill.train.types import Recipe


class Line:
    def __len__(self):
        return 64

    def batch(self, indices, *, train, rng):
        time.sleep(PAUSE)
        x = torch.linspace(-1, 1, 64)[torch.from_numpy(indices)][:, None]
        return {"input": x}, 2 * x[:, 0]


def loss(outputs, targets):
    return (outputs[:, 0] - targets) ** 2


def build():
    return nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1)), loss, Line(), Recipe(batch=16, checkpoint_s=0.01)


def empty():
    with torch.device("meta"):
        return build()
"""


@pytest.fixture
def source(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    # A name of its own for each test: modules are imported once.
    path = tmp_path / f"net_{abs(hash(request.node.name))}.py"
    path.write_text(DEFINITION.replace("PAUSE", str(getattr(request, "param", 0.0))), encoding="ascii")
    return f"{path}:build"


def context_of(place: Path, **words: Any) -> JobContext:
    (place / "checkpoint").mkdir(parents=True, exist_ok=True)
    return JobContext(1, 1, "", place, place / "checkpoint", **words)


def test_a_module_is_trained_and_its_weights_are_written(source: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    out = tmp_path / "deep" / "net.safetensors"
    context = context_of(tmp_path / "ws")
    told = train(context, source=source, out=str(out), recipe={"epochs": 3, "lr": 0.01})
    assert (told["stop"], told["step"], told["out"]) == ("done", 12, str(out))
    assert {name: tuple(t.shape) for name, t in load_file(out).items()} == {
        "0.weight": (8, 1), "0.bias": (8,), "2.weight": (1, 8), "2.bias": (1,),
    }  # fmt: skip
    assert context.told()["share"] == 1.0
    again = train(context, source=source, recipe={"epochs": 3, "lr": 0.01})
    assert (again["step"], again["loss"]) == (12, told["loss"]), "nothing is trained twice"


def test_the_same_seed_gives_the_same_training(source: str, tmp_path: Path) -> None:
    losses = [
        train(context_of(tmp_path / str(n)), source=source, recipe={"epochs": 2}, seed=seed)["loss"]
        for n, seed in enumerate((5, 5, 6))
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("source", [0.02], indirect=True)
def test_a_training_ends_in_time_with_the_weights_that_it_has(source: str, tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    told = train(context_of(tmp_path / "ws"), source=source, out=str(out), recipe={"epochs": 1e6}, time="3s")
    assert told["stop"] == "time"
    assert told["step"] > 0
    assert out.exists()


def test_who_cancels_gets_no_weights_and_can_go_on(source: str, tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    context = context_of(tmp_path / "ws")
    context.ask_to_stop("cancel")
    with pytest.raises(JobStopped):
        train(context, source=source, out=str(out), recipe={"epochs": 3})
    assert not out.exists()
    late = context_of(tmp_path / "ws")
    late.ask_to_stop("time")
    assert train(late, source=source, out=str(out), recipe={"epochs": 3})["stop"] == "cancelled"
    assert out.exists(), "one whose time is over keeps what it has"
    assert train(context_of(tmp_path / "ws"), source=source, recipe={"epochs": 3})["step"] == 12


def test_the_memory_of_the_job_is_that_of_the_training(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def spy(*_: Any, limits: Any, **__: Any) -> None:
        seen.append(limits.memory_bytes)
        raise KeyboardInterrupt

    monkeypatch.setattr("tidemill.train.runtime.train", spy)
    for words in ({"memory_bytes": 7}, {"memory_bytes": 7, "devices": ("cuda:0",), "device_bytes": 5}, {}):
        with pytest.raises(KeyboardInterrupt):
            train(context_of(tmp_path / "ws", **words), source=source)
    assert seen == [7, 5, None]


def test_a_module_without_weights_is_refused(source: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="meta device"):
        train(context_of(tmp_path / "ws"), source=source.replace(":build", ":empty"))


@pytest.mark.timeout(280)
@pytest.mark.parametrize("source", [0.05], indirect=True)
def test_a_training_that_is_killed_goes_on_from_its_checkpoint(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "ws"
    out = tmp_path / "net.safetensors"
    monkeypatch.chdir(tmp_path)
    words = {"source": Path(source).name, "out": out.name, "recipe": {"epochs": 15}}
    made = jobs.submit_job("train", words, workspace=place, actor="mia")
    assert made["arguments"]["source"] == source
    steps = checkpoint_folder(place, made["job"]) / "training"

    def kill() -> None:
        end = time.monotonic() + 120
        with Workspace.open(place) as opened:
            while time.monotonic() < end:
                pid = JobQueue(opened.database).get(made["job"]).pid
                if pid is not None and steps.is_dir() and newest(steps) is not None:
                    os.kill(pid, signal.SIGKILL)
                    return
                time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    with Workspace.open(place) as opened:
        queue = JobQueue(opened.database, first_pause_s=0.1)
        Worker(opened, known_kinds(), Capacity(2, 10**10), queue=queue).run(threading.Event(), until_idle=True)
        thread.join()
        done = queue.get(made["job"])
        assert [a.outcome for a in queue.attempts(done.id)] == ["died", "done"], done.error
    assert (done.result["step"], done.result["stop"]) == (60, "done")
    assert out.exists()
    second = jobs.job_log(done.id, attempt=2, workspace=place)["text"]
    assert "Training on" in second
    assert "step 0:" not in second, "the second attempt began where the first had been"
