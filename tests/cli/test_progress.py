"""How a running search shows itself: curves of what is being trained, rungs on which it pauses."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from tidemill.cli.progress import _Lines, _Live, progress
from tidemill.core.trial import Trial, TrialState
from tidemill.search.events import Event
from tidemill.search.signals import CurvePoint


def event(kind: str, number: int = 3, **words: Any) -> Event:
    made = {"state": TrialState.RUNNING, **words.pop("trial", {})}
    trial = Trial("s", number, {"family": "crnn"}, family="crnn", **made)
    return Event(kind, "search", "s", "cer", 12.0, trial=trial, left_s=60.0, **words)


def point(step: int, value: float, number: int = 3) -> Event:
    return event("point", number, point=CurvePoint(step, step / 10, value))


def drawn(live: _Live) -> str:
    page = io.StringIO()
    Console(width=120, file=page).print(live._draw())
    return page.getvalue()


def test_curves_of_what_is_being_trained_are_drawn_until_it_has_ended() -> None:
    live = _Live()
    live.hear(event("started"))
    for step, value in ((10, 0.9), (20, 0.5), (30, 0.1)):
        live.hear(point(step, value))
    live.hear(point(10, 0.7, number=4))
    shown = drawn(live)
    assert "crnn-3  epoch 3: 0.1" in shown
    assert "█▅▁" in shown
    assert "crnn-4  epoch 1: 0.7" in shown
    live.hear(event("finished", trial={"state": TrialState.COMPLETE}, best=0.1))
    live.hear(event("paused", 4, trial={"state": TrialState.PAUSED}))
    shown = drawn(live)
    assert "epoch" not in shown


def test_only_some_of_many_trainings_are_drawn() -> None:
    live = _Live()
    for number in range(30):
        live.hear(point(10, 0.5, number))
    assert drawn(live).count("epoch") == 8


def test_a_trial_that_pauses_says_how_far_it_came_and_how_good_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    lines = _Lines()
    scores = {"cer": 0.25, "valid@3": 0.5, "valid@9": 0.25}
    lines.hear(event("paused", trial={"state": TrialState.PAUSED, "scores": scores}))
    lines.hear(point(10, 0.5))
    lines.hear(event("paused", trial={"state": TrialState.PAUSED, "scores": scores, "error": "The loss is no number."}))
    first, second = capsys.readouterr().err.splitlines()
    assert "crnn-3 cer 0.25" in first
    assert "paused after 9 epochs" in first
    assert second.endswith("crnn-3 paused: The loss is no number.")


def test_a_leg_that_pauses_is_a_point_of_the_search() -> None:
    live = _Live()
    for value in (0.5, 0.25):
        live.hear(event("paused", trial={"state": TrialState.PAUSED, "scores": {"cer": value}}))
    assert live._state.values == [0.5, 0.25]


def test_points_reach_programs_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(as_json=True, quiet=False) as hear:
        hear(point(20, 0.5))
        hear(event("started"))
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["event"], first["trial"]["number"]) == ("point", 3)
    assert first["point"] == {"step": 20, "epoch": 2.0, "value": 0.5}
    assert second["point"] is None
