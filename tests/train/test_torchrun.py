"""Started by torchrun, a training is one: its processes find each other, and SIGTERM ends it in good order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from tests.train.small import RECIPE, Cloud, accuracy, loss, net

from tidemill.core.errors import OptionError
from tidemill.train.runtime import train
from tidemill.train.torchrun import Launch, check_world, ending_on_sigterm, launch_of
from tidemill.train.types import Event, Limits, Placement, Stop

ROOT = Path(__file__).parents[2]
MEET = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29400"}


@contextmanager
def torchrun(folder: Path, **how: object) -> Iterator[subprocess.Popen[bytes]]:
    """Two processes of `tests.train.launched` on this machine."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=0"]
    with (folder / "log").open("ab") as log:
        program = subprocess.Popen(
            [*words, "-m", "tests.train.launched", str(folder), json.dumps(how)],
            cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )  # fmt: skip
        try:
            yield program
        finally:
            program.kill()
            program.wait()


def seen(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in range(2)]


def launched(folder: Path, **how: object) -> list[dict[str, Any]]:
    with torchrun(folder, **how) as program:
        assert program.wait(300) == 0, (folder / "log").read_text()[-4000:]
    return seen(folder)


@pytest.fixture(scope="module")
def alone() -> tuple[tuple[float, ...], dict[str, Any]]:
    module = net()
    plan = Placement(device="cpu", micro_batch=5)
    recipe = replace(RECIPE, keep_best=False)
    trained = train(module, loss, Cloud(), recipe, validation=Cloud(21, seed=3), score=accuracy, plan=plan)
    return trained.losses, module.state_dict()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("plan", "where"),
    [(None, "2 replicas (DDP)"), ({"device": "cpu", "shards": 2, "micro_batch": 4}, "2 shards (FSDP)")],
)
def test_its_processes_are_one_training(
    plan: dict[str, object] | None, where: str, alone: tuple[tuple[float, ...], dict[str, Any]], tmp_path: Path
) -> None:
    found = launched(tmp_path, plan=plan)
    for one in found:
        assert (one["stop"], one["where"]) == ("done", where)
        assert one["replicas"] == [0], "a group that dies with its last replica may wait for itself for ever"
        np.testing.assert_allclose(one["losses"], alone[0], atol=1e-5)
        for name, tensor in alone[1].items():
            np.testing.assert_allclose(one["weights"][name], tensor, atol=1e-4, err_msg=name)
    assert "checkpoint" in found[0]["told"]
    assert found[1]["told"] == []
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["step-000000015"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_program_may_train_twice(tmp_path: Path) -> None:
    assert [one["stop"] for one in launched(tmp_path, times=2, keeps=False)] == ["done", "done"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_plan_for_another_number_is_refused_by_each(tmp_path: Path) -> None:
    for one in launched(tmp_path, plan={"device": "cpu"}):
        assert one["error"].startswith("The plan is for 1 process, but this group has 2.")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigterm_ends_it_after_a_step_with_a_checkpoint_to_go_on_from(tmp_path: Path) -> None:
    with torchrun(tmp_path, epochs=1_000_000) as program:
        end = time.monotonic() + 240
        while not (tmp_path / "going").exists():
            assert program.poll() is None, (tmp_path / "log").read_text()[-4000:]
            assert time.monotonic() < end
            time.sleep(0.05)
        program.send_signal(signal.SIGTERM)  # to torchrun, which passes it on, as a scheduler does
        program.wait(120)
    found = seen(tmp_path)
    steps = {one["step"] for one in found}
    assert [one["stop"] for one in found] == ["cancelled", "cancelled"]
    assert len(steps) == 1
    folder = tmp_path / "run"
    assert f"step-{steps.pop():09d}" in {p.name for p in folder.iterdir()}
    heard: list[Event] = []
    recipe = replace(RECIPE, keep_best=False, epochs=1_000_000)
    again = train(
        net(), loss, Cloud(), recipe, validation=Cloud(21, seed=3), score=accuracy, folder=folder,
        plan=Placement(device="cpu", micro_batch=13), on_event=heard.append, limits=Limits(cancelled=lambda: True),
    )  # fmt: skip
    assert again.step == found[0]["step"] + 1
    assert heard[0].message == f"Going on from step {found[0]['step']}."


def test_without_a_launcher_nothing_is_joined() -> None:
    assert launch_of({}) is None
    assert launch_of({"RANK": "0", "WORLD_SIZE": "2", **MEET}) is None  # no torchrun: it says the place on the machine
    assert launch_of({"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", **MEET}) == Launch(3, 1, 4)


@pytest.mark.parametrize("words", [("2", "0", "2"), ("x", "0", "2"), ("-1", "0", "2")])
def test_an_environment_that_can_t_be_is_refused(words: tuple[str, str, str]) -> None:
    with pytest.raises(OptionError, match=f"RANK={words[0]}"):
        launch_of(dict(zip(("RANK", "LOCAL_RANK", "WORLD_SIZE"), words, strict=True)) | MEET)


def test_a_plan_and_its_group_agree() -> None:
    check_world(Placement(replicas=2, shards=2), 4)
    with pytest.raises(OptionError, match="for 4 processes, but this group has 2"):
        check_world(Placement(replicas=2, shards=2), 2)


def test_sigterm_is_heard_where_a_launcher_has_started_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, word in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", **MEET}.items():
        monkeypatch.setenv(name, word)
    monkeypatch.setattr("tidemill.train.torchrun._told_to_end", threading.Event())
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def end(event: Event) -> None:
        if event.kind == "point":
            signal.raise_signal(signal.SIGTERM)

    try:
        trained = train(
            net(), loss, Cloud(), RECIPE, plan=Placement(device="cpu", micro_batch=13), folder=tmp_path, on_event=end
        )
        signal.raise_signal(signal.SIGTERM)  # launchers repeat it
    finally:
        signal.signal(signal.SIGTERM, before)
    assert trained.stop is Stop.CANCELLED
    assert [p.name for p in tmp_path.iterdir()] == [f"step-{trained.step:09d}"]


def test_a_program_s_own_handler_is_left_alone() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    limits = Limits(epochs=1)
    try:
        with ending_on_sigterm(limits) as given:
            assert given is limits
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_after_a_training_sigterm_is_the_program_s_again() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with ending_on_sigterm(Limits()) as given:
            assert given.cancelled is not None
            assert not given.cancelled()
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
