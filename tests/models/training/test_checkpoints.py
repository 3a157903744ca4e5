"""A training that was killed goes on from its last checkpoint, and becomes the net that it would have been."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidemill.core.errors import DataError, OptionError
from tidemill.models.training.budget import TrainBudget
from tidemill.models.training.checkpoints import NET, TrialCheckpoints
from tidemill.testing.clock import Clock
from tidemill.train.types import Event

torch = pytest.importorskip("torch", reason="nets are trained")

SLOW = [pytest.param(*given, marks=pytest.mark.slow) for given in ((0.0, 3), (0.5, 3), (0.5, 14), (0.5, 30))]
"""Shares of joined lines, and checkpoints after which a training is killed, in all of its parts."""
Fit = Callable[[TrainBudget], Any]


class Killed(BaseException):
    """Nobody hears it, as of a signal that can't be caught."""


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let a training write a checkpoint after each step, and be killed behind so many of them; 0 for never."""
    from tidemill.train import checkpoint

    whole = checkpoint.save
    monkeypatch.setattr("tidemill.models.training.checkpoints._SHARE", math.inf)

    def killed_after(count: int) -> None:
        written = []

        def save(*given: Any) -> Path:
            written.append(whole(*given))
            if len(written) == count:
                raise Killed
            return written[-1]

        monkeypatch.setattr(checkpoint, "save", save)

    return killed_after


def kept(folder: Path, said: list[str] | None = None) -> TrainBudget:
    told = [] if said is None else said
    return TrainBudget(device="cpu", checkpoints=TrialCheckpoints(folder, told.append, 1e-9))


def quicknet() -> Fit:
    """Halved images first, then whole ones: 6 steps of each."""
    from tests.models.vision.made import CLASSES, data

    from tidemill.models.vision import pool

    profile, train, valid = data(64, side=32)
    config = {**pool.space(CLASSES, profile, ["quicknet"]).default(), "quicknet.epochs": 4}
    assert config["quicknet.coarse"] == 0.5
    family = pool.families(["quicknet"])["quicknet"]
    return lambda budget: family.fit(config, CLASSES, profile, train, valid, budget, 3)


def crnn(joined: float) -> Fit:
    """The start with even letters, the lines as they are, and then joined ones."""
    from tests.models.recognition.made import READ, data

    from tidemill.models.recognition import pool

    profile, train, valid = data(96)
    own = {"crnn.width": 8, "crnn.joined": joined, "crnn.epochs": 8, "crnn.augment": 0.5}
    config = {**pool.space(READ, profile, ["crnn"]).complete({"family": "crnn", **own})}
    family = pool.families(["crnn"])["crnn"]
    return lambda budget: family.fit(config, READ, profile, train, valid, budget, 3)


def encoder(folder: Path) -> Fit:
    """A head on the encoder as it is, then all of it."""
    for package in ("transformers", "tokenizers"):
        pytest.importorskip(package, reason="encoders need the extra `text`")
    from tests.models.text.made import CLASSES, data
    from tests.models.text.made import encoder as drawn

    from tidemill.models.text import pool

    profile, train, valid = data(96, (str(drawn(folder / "bert")),))
    own = {"encoder.lr": 6e-4, "encoder.epochs": 2.0}
    config = {**pool.space(CLASSES, profile, ["encoder"]).complete({"family": "encoder", **own})}
    family = pool.families(["encoder"])["encoder"]
    return lambda budget: family.fit(config, CLASSES, profile, train, valid, budget, 3)


def goes_on(fit: Fit, folder: Path, steps: Callable[[int], None], at: int) -> tuple[list[str], int]:
    """Kill a fit behind a checkpoint, let it go on, and hold it against one that nobody killed; what it said."""
    whole = TrainBudget(device="cpu")
    expected = fit(whole)
    steps(at)
    with pytest.raises(Killed):
        fit(kept(folder))
    steps(0)
    said: list[str] = []
    budget = kept(folder, said)
    found = fit(budget)
    assert budget.curve == whole.curve, "the curve has what was measured before, once"
    for name, tensor in expected.net.state_dict().items():
        torch.testing.assert_close(found.net.state_dict()[name], tensor, rtol=0, atol=0, msg=name)
    return said, len(whole.curve)


@pytest.mark.parametrize(("at", "part"), [(3, "coarse"), (9, NET)])
def test_images_go_on_in_the_part_in_which_they_were(
    tmp_path: Path, steps: Callable[[int], None], at: int, part: str
) -> None:
    said, points = goes_on(quicknet(), tmp_path / "0", steps, at)
    assert points > 1
    assert said == ["It goes on from step 3 of its training."]
    assert TrialCheckpoints(tmp_path / "0", said.append).holds(part)


@pytest.mark.parametrize(("joined", "at"), [(0.0, 14), *SLOW])
def test_lines_go_on_in_the_part_in_which_they_were(
    tmp_path: Path, steps: Callable[[int], None], joined: float, at: int
) -> None:
    said, _ = goes_on(crnn(joined), tmp_path / "0", steps, at)
    assert said
    assert all(sentence.startswith("It goes on from step") for sentence in said)


@pytest.mark.slow
def test_texts_go_on_with_the_head_that_they_had(tmp_path: Path, steps: Callable[[int], None]) -> None:
    said, _ = goes_on(encoder(tmp_path), tmp_path / "0", steps, 5)
    assert said == ["It goes on from step 5 of its training."]


def test_what_was_decided_stands_as_long_as_there_is_something_to_go_on_with(tmp_path: Path) -> None:
    kept = TrialCheckpoints(tmp_path / "0", print)
    assert kept.decided(NET, lambda: {"epochs": 4.0}, NET) == {"epochs": 4.0}
    assert kept.decided(NET, lambda: {"epochs": 7.0}, NET) == {"epochs": 7.0}, "nothing was trained by the first"
    (tmp_path / "0" / NET / "step-000000003").mkdir(parents=True)
    assert kept.decided(NET, lambda: {"epochs": 1.0}, NET) == {"epochs": 7.0}
    (tmp_path / "0" / f"{NET}.json").write_text("[")
    with pytest.raises(DataError, match="can't be read") as found:
        kept.decided(NET, dict, NET)
    assert kept.refused(found.value)


def test_a_training_whose_time_was_short_keeps_to_its_plan(
    tmp_path: Path, steps: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from tidemill.train import runtime

    fit, seen = quicknet(), []
    whole = runtime.train

    def watched(*given: Any, **more: Any) -> Any:
        seen.append(given[3])
        return whole(*given, **more)

    steps(9)
    first = kept(tmp_path / "0")
    first.deadline = time.monotonic() + 600.0
    monkeypatch.setattr(runtime, "train", watched)
    with pytest.raises(Killed):
        fit(first)
    steps(0)
    plan = json.loads((tmp_path / "0" / f"{NET}.json").read_text())
    plan["recipe"]["evaluate_every"] = 0.5  # nobody would decide that again
    (tmp_path / "0" / f"{NET}.json").write_text(json.dumps(plan))
    fit(kept(tmp_path / "0"))
    assert len(seen) == 3, "two parts, and of what went on the second alone"
    assert seen[-1].evaluate_every == 0.5


def test_nothing_is_kept_of_a_part_that_follows_on_one_that_was_asked_to_end(tmp_path: Path) -> None:
    kept = TrialCheckpoints(tmp_path / "0", print)
    assert kept.of_part(NET, asked_to_end=True, follows=False) == {}
    assert kept.of_part(NET, asked_to_end=False, follows=False)["folder"] == tmp_path / "0" / NET
    (tmp_path / "0" / NET / "step-000000003").mkdir(parents=True)
    assert kept.of_part(NET, asked_to_end=True, follows=False)["folder"] == tmp_path / "0" / NET


def test_an_interval_spans_the_parts(tmp_path: Path) -> None:
    clock = Clock()
    kept = TrialCheckpoints(tmp_path, print, 60.0, clock=clock)
    clock.now += 50.0
    assert clock() - kept.of_part(NET, asked_to_end=False, follows=False)["saving"].since == 50.0
    kept.hear(Event("checkpoint", 4, "Checkpoint at step 4."))
    assert clock() - kept.of_part(NET, asked_to_end=False, follows=False)["saving"].since == 0.0


def test_what_people_should_know_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    kept = TrialCheckpoints(tmp_path, said.append)
    kept.hear(Event("warning", 3, "There is no time for all 9 steps."))
    kept.hear(Event("warning", 3, "The disk is full.", {"unsaved": "there"}))
    kept.hear(Event("checkpoint", 3, "Checkpoint at step 3."))
    assert said == ["The disk is full."]
    kept.hear(Event("checkpoint", 3, "Going on from step 3.", {"before_s": 7.5}))
    assert kept.before_s == 7.5


@pytest.mark.parametrize("trouble", ["broken", "foreign", "plan"])
def test_what_cannot_be_gone_on_with_is_told_and_the_training_begins_anew(
    tmp_path: Path, steps: Callable[[int], None], trouble: str
) -> None:
    from tidemill.search.heldout.trial import trained

    fit, said = quicknet(), []
    expected = fit(TrainBudget(device="cpu"))
    steps(9)
    with pytest.raises(Killed):
        fit(kept(tmp_path / "0"))
    steps(0)
    for path in (tmp_path / "0" / NET).glob("step-*"):
        if trouble == "broken":
            next(path.glob("*.distcp")).write_bytes(b"none of ours")
        if trouble == "foreign":
            there = json.loads((path / "training.json").read_text())
            (path / "training.json").write_text(json.dumps({**there, "seed": 99}))
    if trouble == "plan":
        (tmp_path / "0" / f"{NET}.json").unlink()
    net, budget = trained(fit, kept(tmp_path / "0", said))
    (sentence,) = said
    assert sentence.startswith("Its training begins anew: ")
    assert {"broken": "can't be read", "foreign": "seed 99 there", "plan": "decided"}[trouble] in sentence
    assert budget.checkpoints is not None
    assert budget.checkpoints.before_s == 0.0
    images = np.random.default_rng(0).integers(0, 255, (4, 3, 32, 32))
    np.testing.assert_array_equal(net.predict(images), expected.predict(images))


def test_another_error_ends_the_trial_as_ever(tmp_path: Path) -> None:
    from tidemill.search.heldout.trial import trained

    def fails(budget: TrainBudget) -> Any:
        raise OptionError("There is no GPU.", where="--device")

    with pytest.raises(OptionError, match="no GPU"):
        trained(fails, kept(tmp_path / "0"))
