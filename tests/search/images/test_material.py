"""What a search on images holds out, refuses and keeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.models.vision.made import CLASSES, images

from tidemill.bundle.images.encoder import IMAGE, ImageEncoder
from tidemill.core.errors import OptionError
from tidemill.core.objective import parse_objective
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.core.trial import Trial, TrialState, Usage
from tidemill.models.vision._base import ImageProfile
from tidemill.search.images.material import Adaptive, ImageMaterial
from tidemill.search.modality import modality_of
from tidemill.search.settings import SearchSettings
from tidemill.search.splits import TRAIN, VALID, covered


def material(count: int = 90, **words: object) -> ImageMaterial:
    x, y = images(count)
    schema = Schema((Column(IMAGE, SemanticType.IMAGE), Column("y", SemanticType.TARGET)))
    profile = ImageProfile.of(x, **words)  # type: ignore[arg-type]
    columns = {"width": np.full(count, 12.0)}
    return ImageMaterial(ImageEncoder(12, 12), schema, profile, x, y, np.arange(count), columns)


def test_one_part_is_held_out_in_the_shares_of_the_classes() -> None:
    rows = material()
    settings = rows.settled(SearchSettings(seed=3))
    splits = rows.splits(CLASSES, settings)
    assert splits.shape == (1, 90)
    assert np.bincount(rows.y[splits[0] == VALID]).tolist() == [6, 6, 6]
    assert (splits[0] == TRAIN).sum() == 72
    assert np.array_equal(splits, rows.splits(CLASSES, settings))


def test_what_the_ledger_keeps_judges_what_was_held_out() -> None:
    rows = material()
    splits = rows.splits(CLASSES, rows.settled(SearchSettings()))
    truth = rows.truth(splits)
    again = type(truth).unpack(truth.pack())
    assert covered(again.splits).sum() == 18
    assert np.array_equal(again.y, rows.y)
    assert "width" in again.columns


def test_workers_find_the_images_in_files_that_are_gone_afterwards(tmp_path: Path) -> None:
    rows = material()
    objective = parse_objective("maximize accuracy").resolve(CLASSES)
    splits = rows.splits(CLASSES, rows.settled(SearchSettings()))
    with rows.assigned(tmp_path / "scratch", CLASSES, objective, splits) as assignment:
        assert np.array_equal(np.load(assignment.files["x"]), rows.x)
        assert ImageProfile.from_json(assignment.profile) == rows.profile
    assert not (tmp_path / "scratch").exists()


def test_its_encoder_comes_back_by_the_name_of_the_modality() -> None:
    rows = material()
    assert modality_of({"modality": rows.modality}).restore_encoder(rows.encoder_state()) == rows.encoder


def test_a_net_that_is_too_large_is_refused_before_it_is_trained() -> None:
    pytest.importorskip("torch", reason="costs are counted on modules")
    rows = material()
    settings = SearchSettings(families=("resnet9",))
    objective = parse_objective("maximize accuracy; params <= 150000").resolve(CLASSES)
    gate = rows.gate(CLASSES, objective, settings)
    default = rows.space(CLASSES, settings).default()
    assert gate.pass_or_explain({**default, "resnet9.width": 8})[1] is None
    why = gate.pass_or_explain({**default, "resnet9.width": 48})[1]
    assert why is not None
    assert "params" in why


def test_weights_that_nobody_can_use_are_told(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="without it no family is there")
    from tidemill.models.vision.weights import write_safetensors

    write_safetensors({"x": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(OptionError, match="No family can begin from these weights"):
        material(weights=(str(tmp_path),)).space(CLASSES, SearchSettings())


def test_time_that_makes_sense_is_learned_from_what_trials_took() -> None:
    knows = Adaptive()
    before = knows.seconds({"family": "a"})
    done = Trial("s", 0, {"family": "a"}, TrialState.COMPLETE, "a", usage=Usage(wall_s=60.0))
    knows.learn([done])
    assert before < knows.seconds({"family": "a"}) == pytest.approx(20.0)
    knows.learn_late("a", 40.0)
    assert knows.seconds({"family": "a"}) == pytest.approx(60.0)
    assert knows.seconds({"family": "b"}) == before
