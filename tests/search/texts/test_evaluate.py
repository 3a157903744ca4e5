"""A trial on texts gives what every trial gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.models.text.made import CLASSES, encoder
from tests.search.texts.test_material import material

from tidemill.core.errors import TrialTimeoutError
from tidemill.core.objective import parse_objective
from tidemill.core.pack import unpack
from tidemill.models.text import pool
from tidemill.search.settings import SearchSettings
from tidemill.search.splits import VALID
from tidemill.search.texts.evaluate import run_trial


@pytest.mark.parametrize("name", ["ngrams", "sentence"])
def test_it_judges_what_was_held_out_and_measures_its_graph(name: str, tmp_path: Path) -> None:
    weights: tuple[str, ...] = ()
    if name != "ngrams":
        for package in ("torch", "transformers", "tokenizers", "onnxscript"):
            pytest.importorskip(package, reason="encoders need the extra `text`")
        weights = (str(encoder(tmp_path / "bert")),)
    rows = material(weights=weights)
    settings = rows.settled(SearchSettings(families=(name,)))
    splits = rows.splits(CLASSES, settings)
    objective = parse_objective("minimize log_loss").resolve(CLASSES)
    config = pool.space(CLASSES, rows.profile, [name]).default()
    with rows.assigned(tmp_path / "scratch", CLASSES, objective, splits) as assignment:
        result = run_trial(config=config, assignment=assignment, seed=1, probe=True)
    held_out = splits[0] == VALID
    assert np.isnan(result["oof"][~held_out]).all()
    assert np.allclose(result["oof"][held_out].sum(axis=1), 1, atol=1e-5)
    assert result["scores"]["log_loss"] == pytest.approx(result["fold_scores"][0], rel=1e-5)
    assert result["scores"]["models"] == 1
    assert result["test"] is None
    assert result["probe"].row_ms > 0
    assert result["probe"].size_bytes > 0
    assert result["probe_flops"] == result["cost"].flops
    state = unpack(result["checkpoint"])["models"][0]
    again = pool.restore(state, CLASSES).predict(rows.x[held_out])
    assert np.allclose(again, result["oof"][held_out], atol=1e-6)


def test_without_time_it_says_so(tmp_path: Path) -> None:
    for package in ("torch", "transformers", "tokenizers", "onnxscript"):
        pytest.importorskip(package, reason="encoders need the extra `text`")
    rows = material(weights=(str(encoder(tmp_path / "bert")),))
    settings = rows.settled(SearchSettings(families=("encoder",)))
    objective = parse_objective("minimize log_loss").resolve(CLASSES)
    config = rows.space(CLASSES, settings).default()
    splits = rows.splits(CLASSES, settings)
    with (
        rows.assigned(tmp_path / "scratch", CLASSES, objective, splits) as assignment,
        pytest.raises(TrialTimeoutError),
    ):
        run_trial(config=config, assignment=assignment, seed=1, time_s=0.001)
