"""What a search on lines holds out, hands to workers, and keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.models.recognition.made import ENCODER, READ, data

from tidemill.bundle.images.encoder import IMAGE
from tidemill.core.budget import Budget
from tidemill.core.objective import parse_objective
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data.images.lines import read_lines
from tidemill.models.recognition._base import LineProfile
from tidemill.search.heldout.turns import LEADER
from tidemill.search.lines.material import LineMaterial
from tidemill.search.modality import modality_of
from tidemill.search.settings import SearchSettings
from tidemill.search.splits import VALID, covered


def material(count: int = 48) -> LineMaterial:
    profile, lines, _ = data(count)
    schema = Schema((Column(IMAGE, SemanticType.IMAGE), Column("text", SemanticType.TARGET)))
    columns = {"width": np.full(count, 12.0), "file": np.array([f"{i}.png" for i in range(count)], dtype=object)}
    return LineMaterial(ENCODER, schema, profile, lines.x, lines.y, np.arange(count), columns)


def test_an_eighth_is_held_out() -> None:
    rows = material()
    splits = rows.splits(READ, rows.settled(SearchSettings(seed=3)))
    assert splits.shape == (1, 48)
    assert (splits[0] == VALID).sum() == 6


def test_what_the_ledger_keeps_are_the_transcripts() -> None:
    rows = material()
    truth = rows.truth(rows.splits(READ, rows.settled(SearchSettings())))
    again = type(truth).unpack(truth.pack())
    assert np.array_equal(again.y, rows.y)
    assert again.y.dtype == np.int32
    assert covered(again.splits).sum() == 6


def test_workers_find_the_lines_in_files_that_are_gone_afterwards(tmp_path: Path) -> None:
    rows = material()
    splits = rows.splits(READ, rows.settled(SearchSettings()))
    objective = parse_objective("minimize cer").resolve(READ)
    with rows.assigned(tmp_path / "scratch", READ, objective, splits) as assignment:
        found = read_lines(assignment.files["x"])
        assert len(found) == len(rows.x)
        assert all(np.array_equal(a, b) for a, b in zip(found, rows.x, strict=True))
        assert LineProfile.from_json(assignment.profile) == rows.profile
        assert np.array_equal(np.load(assignment.files["y"]), rows.y)
    assert not (tmp_path / "scratch").exists()


def test_a_study_of_lines_is_opened_as_one() -> None:
    assert modality_of({"modality": "line"}).name == "line"


def test_families_have_turns_where_there_is_time_for_them() -> None:
    pytest.importorskip("torch", reason="without it no family is there")
    rows = material()
    objective = parse_objective("minimize cer").resolve(READ)

    def turn(budget: Budget, **words: Any) -> float | None:
        settings = rows.settled(SearchSettings(**words))
        return rows.sampler(READ, objective, settings, budget).turn(rows.space(READ, settings), "baseline", 0)

    assert turn(Budget(time_s=1500.0)) == pytest.approx(0.075)
    assert turn(Budget(time_s=1500.0), families=("svtr",)) is None
    assert turn(Budget(time_s=1500.0), schedule="rungs") is None
    assert turn(Budget(time_s=60.0)) is None
    assert turn(Budget(trials=3)) is None


def test_the_best_family_may_take_the_rest_and_one_alone_all_the_time() -> None:
    pytest.importorskip("torch", reason="without it no family is there")
    rows, objective = material(), parse_objective("minimize cer").resolve(READ)
    for families in ((), ("crnn",)):
        settings = rows.settled(SearchSettings(families=families))
        sampler = rows.sampler(READ, objective, settings, Budget(time_s=1500.0, trials=1))
        assert sampler.turn(rows.space(READ, settings), LEADER, 2) == 1.0


@pytest.mark.parametrize(("time_s", "cores", "share"), [(1500.0, 2, 0.4625), (1500.0, 1, 0.425), (600.0, 2, 1.0)])
def test_nets_that_will_read_together_share_the_rest(time_s: float, cores: int, share: float) -> None:
    pytest.importorskip("torch", reason="without it no family is there")
    rows, objective = replace(material(), together=True), parse_objective("minimize cer").resolve(READ)
    settings = rows.settled(SearchSettings())
    sampler = rows.sampler(READ, objective, settings, Budget(time_s=time_s, cpus=cores))
    assert sampler.turn(rows.space(READ, settings), LEADER, 2) == pytest.approx(share)
