"""A trial on lines gives what every trial gives, and its ledger answers another metric."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a trial trains a net")
pytest.importorskip("onnxscript", reason="a measured trial exports it")

from tests.models.recognition.made import READ
from tests.search.lines.test_material import material

from tidemill.bundle.lines.parts import the_part
from tidemill.core import transcripts
from tidemill.core.budget import Budget
from tidemill.core.errors import TrialTimeoutError
from tidemill.core.metrics import get_metric
from tidemill.core.objective import parse_objective
from tidemill.core.pack import unpack
from tidemill.jobs.executors.inprocess import InProcessExecutor
from tidemill.models.recognition import pool
from tidemill.models.recognition.families._trained import TrainedFamily
from tidemill.search.fit import run_search
from tidemill.search.lines.evaluate import run_trial
from tidemill.search.settings import SearchSettings
from tidemill.search.splits import VALID
from tidemill.store.workspace import Workspace

SMALL = {"crnn.width": 8, "crnn.epochs": 6, "crnn.augment": 0.0}


def test_it_judges_what_was_held_out_and_measures_its_graph(tmp_path: Path) -> None:
    rows = material()
    settings = rows.settled(SearchSettings(families=("crnn",)))
    splits = rows.splits(READ, settings)
    objective = parse_objective("minimize cer").resolve(READ)
    config = {**rows.space(READ, settings).default(), **SMALL}
    threads = torch.get_num_threads()
    with rows.assigned(tmp_path / "scratch", READ, objective, splits) as assignment:
        result = run_trial(config=config, assignment=assignment, seed=1, probe=True)
    assert torch.get_num_threads() == threads
    held_out = splits[0] == VALID
    assert np.isnan(result["oof"][~held_out]).all()
    read = result["oof"][held_out]
    assert get_metric("cer")(rows.y[held_out], read, task=READ) == pytest.approx(result["fold_scores"][0])
    assert {"cer", "exact", "cer_nocase", "exact_nocase", "models"} <= set(result["scores"])
    assert result["probe"].row_ms > 0
    assert result["probe_flops"] == result["cost"].flops
    state = unpack(result["checkpoint"])["models"][0]
    assert np.array_equal(pool.restore(state, READ).predict(rows.x[held_out]), read)
    frames = result["frames"]
    assert len(frames) == held_out.sum()
    for said, line in zip(frames.lines(), rows.x[held_out], strict=True):
        assert np.allclose(said, pool.restore(state, READ).frames([line])[0], rtol=1e-3, atol=1e-3)


def test_without_time_it_says_so(tmp_path: Path) -> None:
    rows = material()
    settings = rows.settled(SearchSettings(families=("crnn",)))
    objective = parse_objective("minimize cer").resolve(READ)
    config, splits = rows.space(READ, settings).default(), rows.splits(READ, settings)
    with (
        rows.assigned(tmp_path / "scratch", READ, objective, splits) as assignment,
        pytest.raises(TrialTimeoutError),
    ):
        run_trial(config=config, assignment=assignment, seed=1, time_s=0.001)


@pytest.mark.slow
def test_another_metric_is_answered_from_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("epochs", (5, 5)), ("width", 8)):
        monkeypatch.setattr(TrainedFamily, name, value)
    rows = material()
    with Workspace.open(tmp_path / "w") as workspace:
        study = run_search(
            workspace, "s", rows, READ, parse_objective("minimize cer"), Budget(trials=3), SearchSettings(),
            executor=InProcessExecutor(),
        )  # fmt: skip
        for metric in ("cer", "exact", "exact_nocase"):
            better = "minimize" if metric.startswith("cer") else "maximize"
            chosen = study.reobjective(f"{better} {metric}")
            values = [row[metric] for row in study.leaderboard(f"{better} {metric}")]
            assert values == sorted(values, reverse=better == "maximize")
            if len(chosen.weights) == 1:
                assert chosen.value == values[0]
            else:
                assert chosen.value < values[0] if better == "minimize" else chosen.value > values[0]
        scores = study.best.scores(study.predictions(), study.frames(study.best.weights))
        assert get_metric("cer")(study.judge().y, scores, task=READ) == pytest.approx(study.best.value)
        lines = rows.x[study.covered_rows]
        read = the_part(study.recipe()).predict(lines)
        assert transcripts.to_texts(transcripts.codes_of(read)) == transcripts.to_texts(transcripts.codes_of(scores))
