"""A trial on images gives what every trial gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a trial trains a net")
pytest.importorskip("onnxscript", reason="a measured trial exports it")

from tests.models.vision.made import CLASSES
from tests.search.images.test_material import material

from tidemill.core.errors import TrialError, TrialTimeoutError
from tidemill.core.objective import parse_objective
from tidemill.core.pack import unpack
from tidemill.models.vision import pool
from tidemill.search.images.evaluate import run_trial
from tidemill.search.settings import SearchSettings
from tidemill.search.splits import VALID


def test_it_judges_what_was_held_out_and_measures_its_graph(tmp_path: Path) -> None:
    rows = material()
    settings = rows.settled(SearchSettings(families=("probe",)))
    splits = rows.splits(CLASSES, settings)
    objective = parse_objective("minimize log_loss").resolve(CLASSES)
    config = rows.space(CLASSES, settings).default()
    threads = torch.get_num_threads()
    with rows.assigned(tmp_path / "scratch", CLASSES, objective, splits) as assignment:
        result = run_trial(config=config, assignment=assignment, seed=1, probe=True)
    assert torch.get_num_threads() == threads
    held_out = splits[0] == VALID
    assert np.isnan(result["oof"][~held_out]).all()
    assert np.allclose(result["oof"][held_out].sum(axis=1), 1, atol=1e-5)
    assert result["scores"]["log_loss"] == pytest.approx(result["fold_scores"][0], rel=1e-5)
    assert result["scores"]["models"] == 1
    assert result["folds"] == 1
    assert result["test"] is None
    assert result["probe"].row_ms > 0
    assert result["probe_flops"] == result["cost"].flops
    state = unpack(result["checkpoint"])["models"][0]
    again = pool.restore(state, CLASSES).predict(rows.x[held_out])
    assert np.array_equal(again, result["oof"][held_out])


def test_without_time_it_says_so(tmp_path: Path) -> None:
    rows = material()
    settings = rows.settled(SearchSettings(families=("resnet9",)))
    objective = parse_objective("minimize log_loss").resolve(CLASSES)
    config = rows.space(CLASSES, settings).default()
    splits = rows.splits(CLASSES, settings)
    with (
        rows.assigned(tmp_path / "scratch", CLASSES, objective, splits) as assignment,
        pytest.raises(TrialTimeoutError),
    ):
        run_trial(config=config, assignment=assignment, seed=1, time_s=0.001)


def test_a_batch_whose_loss_is_no_number_outlives_the_search(tmp_path: Path) -> None:
    rows = material()
    settings = rows.settled(SearchSettings(families=("quicknet",)))
    objective = parse_objective("minimize log_loss").resolve(CLASSES)
    config = {**rows.space(CLASSES, settings).default(), "quicknet.lr": 1e38}
    splits = rows.splits(CLASSES, settings)
    with (
        rows.assigned(tmp_path / "scratch", CLASSES, objective, splits) as assignment,
        pytest.raises(TrialError, match=r"with a learning rate of .*The batch is kept in .*diverged-step-"),
    ):
        run_trial(config=config, assignment=assignment, seed=1)
    assert not (tmp_path / "scratch").exists()
    (kept,) = (tmp_path / "diverged" / "scratch" / "quicknet-1").iterdir()
    with np.load(kept, allow_pickle=False) as batch:
        assert len(batch["indices"]) == len(batch["targets"]) > 0
