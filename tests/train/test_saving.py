"""Checkpoints cost little, and where they are not required a training does without."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from tests.train.small import RECIPE, Cloud, loss, net

from tidemill.core.errors import WorkspaceError
from tidemill.train import checkpoint
from tidemill.train.runtime import train
from tidemill.train.saving import Pace, Saving
from tidemill.train.types import Event, Limits, Placement, Stop

CPU = Placement(device="cpu", micro_batch=13)


def test_the_longer_a_checkpoint_takes_the_rarer_they_are() -> None:
    pace = Pace(Saving(60.0, share=0.01), 0.0)
    assert not pace.is_measured
    pace.expect(2 * 10**9)
    assert not pace.is_due(999.0)
    assert pace.is_due(1000.0)
    pace.wrote(1000.0, 0.1)
    assert not pace.is_due(1059.0)
    assert pace.is_due(1060.0)


def test_of_a_training_that_goes_on_the_interval_begins_anew() -> None:
    pace = Pace(Saving(60.0, since=-50.0), 0.0)
    assert pace.is_due(10.0)
    pace.restart(5.0)
    assert not pace.is_due(10.0)


@pytest.mark.parametrize(("end_s", "left"), [(0.0, True), (math.inf, False)])
def test_the_end_is_kept_where_that_is_wanted(tmp_path: Path, end_s: float, left: bool) -> None:
    train(net(), loss, Cloud(), RECIPE, plan=CPU, folder=tmp_path / "f", saving=Saving(1e9, end_s=end_s))
    assert (tmp_path / "f").exists() is left


def test_who_is_asked_to_end_leaves_a_checkpoint_without_what_is_measured_only_then(tmp_path: Path) -> None:
    saving, asked = Saving(1e9, end_s=math.inf), Limits(cancelled=lambda: True)
    ended = train(net(), loss, Cloud(), RECIPE, plan=CPU, folder=tmp_path, saving=saving, limits=asked)
    assert (ended.stop, ended.step) == (Stop.CANCELLED, 1)
    again = train(net(5), loss, Cloud(), RECIPE, plan=CPU, folder=tmp_path, saving=saving)
    whole = train(net(), loss, Cloud(), RECIPE, plan=CPU)
    assert again.losses == whole.losses
    assert [(p.step, p.train_loss) for p in again.curve] == [(p.step, p.train_loss) for p in whole.curve]


def test_the_first_checkpoint_waits_until_it_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    monkeypatch.setattr(checkpoint, "nbytes", lambda tensors: 10**12)
    monkeypatch.setattr(checkpoint, "save", lambda *given: written.append(1))
    train(net(), loss, Cloud(), RECIPE, plan=CPU, folder=tmp_path, saving=Saving(1e-9, share=0.01, end_s=math.inf))
    assert not written


@pytest.mark.parametrize("required", [False, True])
def test_without_room_a_training_goes_on_where_checkpoints_are_not_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, required: bool
) -> None:
    tries: list[int] = []

    def full(*given: Any) -> Path:
        tries.append(1)
        raise WorkspaceError("The disk is full: a checkpoint could not be written.", where="there")

    monkeypatch.setattr(checkpoint, "save", full)
    heard: list[Event] = []
    words: dict[str, Any] = {"plan": CPU, "folder": tmp_path, "saving": Saving(1e-9, required=required)}
    if required:
        with pytest.raises(WorkspaceError, match="disk is full"):
            train(net(), loss, Cloud(), RECIPE, **words)
        return
    done = train(net(), loss, Cloud(), RECIPE, on_event=heard.append, **words)
    assert done.losses == train(net(), loss, Cloud(), replace(RECIPE), plan=CPU).losses
    assert len(tries) > 2
    (warning,) = [e for e in heard if e.kind == "warning"]
    assert warning.message == (
        "The disk is full: a checkpoint could not be written. The training goes on without a checkpoint."
    )
