"""Rungs with nets that read lines: pauses change nothing, and a study of lines climbs and is gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.recognition.made import READ, data, table, words

import tidemill as tm
from tidemill.core.errors import TrialTimeoutError
from tidemill.core.trial import TrialState

pytest.importorskip("torch", reason="nets are trained")
pytest.importorskip("onnxscript", reason="a measured trial exports its net")

QUICK: dict[str, Any] = {
    "kind": "text-recognition", "schedule": "rungs", "epochs": 4, "cpus": 1, "in_process": True,
}  # fmt: skip


def small(family: str) -> dict[str, Any]:
    """A config of a net that is trained in a second."""
    from tidemill.models.recognition import pool

    profile, _, _ = data(96)
    own = {f"{family}.width": 8, f"{family}.augment": 0.5}
    return dict(pool.space(READ, profile, [family]).complete({"family": family, **own}))


@pytest.mark.parametrize("family", ["crnn", "svtr"])
def test_a_net_that_paused_twice_is_the_one_that_never_did(family: str, tmp_path: Path) -> None:
    from tidemill.models.recognition import pool
    from tidemill.models.training.budget import TrainBudget

    profile, train, valid = data(96)

    def fit(folder: str, *stops: int) -> np.ndarray:
        for epochs in stops:
            budget = TrainBudget(epochs=epochs, of=4, folder=str(tmp_path / folder))
            net = pool.families([family])[family].fit(small(family), READ, profile, train, valid, budget, 3)
        return np.asarray(net.frames([valid.x[valid.rows[0]]]))

    np.testing.assert_allclose(fit("legs", 1, 2, 4), fit("whole", 4), atol=1e-4)


def test_a_rung_that_is_not_reached_in_time_is_told(tmp_path: Path) -> None:
    import time

    from tidemill.models.recognition import pool
    from tidemill.models.training.budget import TrainBudget

    profile, train, valid = data(96)
    budget = TrainBudget(deadline=time.monotonic() + 0.3, epochs=200, of=400, folder=str(tmp_path / "legs"))
    with pytest.raises(TrialTimeoutError, match="before its rung"):
        pool.families(["crnn"])["crnn"].fit(small("crnn"), READ, profile, train, valid, budget, 3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_study_of_lines_climbs_rungs_and_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tidemill.models.recognition.families._trained import TrainedFamily

    monkeypatch.setattr(TrainedFamily, "width", 8)
    path = table(tmp_path / "lines", words(60))
    test = table(tmp_path / "test", words(12, seed=4))
    with tm.fit(path, "text", workspace=tmp_path / "w", name="climb", trials=4, test=test, **QUICK) as study:
        before = {t.number: t for t in study.search.trials()}
    assert {t.state for t in before.values()} <= {TrialState.PAUSED, TrialState.COMPLETE}
    assert any(t.state is TrialState.COMPLETE and "valid@4" in t.scores for t in before.values())
    assert any(t.state is TrialState.PAUSED and "valid@1" in t.scores for t in before.values())
    assert all(len({step for step, _ in t.curve}) == len(t.curve) for t in before.values())
    words_of = {"workspace": tmp_path / "w", "cpus": 1, "in_process": True}
    with tm.fit(None, resume="climb", trials=6, **words_of) as study:
        after = {t.number: t for t in study.search.trials()}
        assert len(after) == 6
        assert sum("valid@4" in t.scores for t in after.values()) < len(after)
        for number, trial in before.items():
            assert after[number].scores.items() >= trial.scores.items() or "valid@4" in after[number].scores
        bundle = study.best.export(tmp_path / "m.tm")
        known = study.search.report_locked_slice()["value"]
    assert bundle.evaluate(test)["cer"] == pytest.approx(known)
