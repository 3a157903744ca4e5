"""What a search on texts holds out, writes and keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.models.text.made import CLASSES, texts

from tidemill.bundle.texts.encoder import TextEncoder
from tidemill.core.budget import Budget
from tidemill.core.errors import OptionError
from tidemill.core.objective import parse_objective
from tidemill.core.schema import TOKENS, Column, Schema, SemanticType
from tidemill.data.texts.packed import read_texts
from tidemill.models.text._base import TextProfile
from tidemill.search.modality import modality_of
from tidemill.search.settings import SearchSettings
from tidemill.search.splits import VALID
from tidemill.search.texts.material import TextMaterial


def material(count: int = 90, weights: tuple[str, ...] = ()) -> TextMaterial:
    x, y = texts(count)
    schema = Schema((Column("said", SemanticType.TEXT, unit=TOKENS), Column("y", SemanticType.TARGET)))
    columns = {"characters": np.array([float(len(text)) for text in x])}
    profile = TextProfile.of(x, weights=weights)
    return TextMaterial(TextEncoder("said"), schema, profile, x, y, np.arange(count), columns)


def test_one_part_is_held_out_in_the_shares_of_the_classes() -> None:
    rows = material()
    settings = rows.settled(SearchSettings(seed=3))
    splits = rows.splits(CLASSES, settings)
    assert splits.shape == (1, 90)
    assert np.bincount(rows.y[splits[0] == VALID]).tolist() == [6, 6, 6]


def test_workers_find_the_texts_in_files_that_are_gone_afterwards(tmp_path: Path) -> None:
    rows = material()
    objective = parse_objective("maximize accuracy").resolve(CLASSES)
    splits = rows.splits(CLASSES, rows.settled(SearchSettings()))
    with rows.assigned(tmp_path / "scratch", CLASSES, objective, splits) as assignment:
        assert read_texts(assignment.files["x"]).tolist() == rows.x.tolist()
        assert TextProfile.from_json(assignment.profile) == rows.profile
        assert "x_test" not in assignment.files
    assert not (tmp_path / "scratch").exists()


def test_its_encoder_comes_back_by_the_name_of_the_modality() -> None:
    rows = material()
    assert modality_of({"modality": rows.modality}).restore_encoder(rows.encoder_state()) == rows.encoder


def test_the_first_answer_is_that_of_counted_pieces() -> None:
    rows = material()
    settings = rows.settled(SearchSettings())
    objective = parse_objective("maximize accuracy").resolve(CLASSES)
    sampler = rows.sampler(CLASSES, objective, settings, Budget(trials=3))
    asked = sampler.ask(rows.space(CLASSES, settings), [], 0)
    assert asked is not None
    assert asked[0]["family"] == "ngrams"
    assert asked[1] == "baseline"


def test_a_model_that_is_too_large_is_refused_before_it_is_trained() -> None:
    rows = material()
    objective = parse_objective("maximize accuracy; params <= 200000").resolve(CLASSES)
    gate = rows.gate(CLASSES, objective, SearchSettings())
    default = rows.space(CLASSES, SearchSettings()).default()
    assert gate.pass_or_explain({**default, "ngrams.characters": 0, "ngrams.most": 20_000})[1] is None
    why = gate.pass_or_explain({**default, "ngrams.most": 100_000})[1]
    assert why is not None
    assert "params" in why


def test_weights_that_no_chosen_family_uses_are_told() -> None:
    with pytest.raises(OptionError, match="No family can begin from these weights"):
        material(weights=("somewhere",)).space(CLASSES, SearchSettings(families=("ngrams",)))


def test_some_encoders_may_stand_in_one_bundle(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(50_000_000)
    settings = material(weights=(str(tmp_path),)).settled(SearchSettings())
    assert settings.ensemble_size_bytes == 150_000_000
    assert material().settled(SearchSettings()).ensemble_size_bytes == SearchSettings().ensemble_size_bytes
