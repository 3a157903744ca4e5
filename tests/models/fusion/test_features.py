"""Features are asked for once, kept by content, and given up where the time is too short."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.bundle.fusion.made import SAID, TEXT, columns, image_embedding, objects, text_embedding

from tidemill.core.pack import pack, unpack
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.models.fusion.encoder import FusedEncoder, embed_cells
from tidemill.models.fusion.features import TooSlowError, features_of, holds_nothing, project
from tidemill.models.vision.features import FeatureCache


def test_equal_texts_are_asked_about_once_and_never_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = text_embedding()
    asked: list[int] = []
    feed = type(embedding).feed
    monkeypatch.setattr(type(embedding), "feed", lambda self, cells: (asked.append(len(cells)), feed(self, cells))[1])
    cells = objects(SAID * 3)
    first = features_of(embedding, cells, FeatureCache(tmp_path, embedding.key))
    assert sum(asked) == len(SAID) - 1, "an empty text is not asked about"
    assert first.empty.tolist() == [not text for text in SAID * 3]
    assert first.cell_s > 0
    again = features_of(embedding, cells, FeatureCache(tmp_path, embedding.key))
    assert sum(asked) == len(SAID) - 1
    assert again.cell_s == 0
    assert np.array_equal(first.values, again.values)
    assert not first.values[2].any()


def test_what_is_projected_is_what_the_graph_gives() -> None:
    embedding = text_embedding()
    cells = objects(SAID)
    features = features_of(embedding, cells, None)
    assert np.allclose(embedding.project(features.values, features.empty), embed_cells(embedding, cells), atol=1e-5)


def test_where_time_is_short_it_says_so_early(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = text_embedding()
    asked: list[int] = []
    feed = type(embedding).feed
    monkeypatch.setattr(type(embedding), "feed", lambda self, cells: (asked.append(len(cells)), feed(self, cells))[1])
    cells = objects([f"red fox {i}" for i in range(2_000)])
    with pytest.raises(TooSlowError):
        features_of(embedding, cells, None, until=time.monotonic())
    assert sum(asked) < len(cells) / 4


def test_a_cell_that_holds_nothing_is_told() -> None:
    assert [holds_nothing(SemanticType.TEXT, cell) for cell in ("", " \n", "a")] == [True, True, False]
    black = np.zeros((2, 2, 3), np.uint8)
    assert [holds_nothing(SemanticType.IMAGE, cell) for cell in (None, black, black + 1)] == [True, True, False]


@given(st.integers(2, 30), st.integers(1, 8), st.integers(1, 8), st.integers(0, 1000))
def test_a_projection_keeps_the_directions_in_which_rows_differ_most(n: int, width: int, most: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32) * np.arange(1, width + 1)
    found = project(x.astype(np.float32), most)
    if found is None:
        assert width <= min(most, max(1, n - 1))
        return
    mean, axes = found
    assert axes.shape == (width, min(most, max(1, n - 1)))
    assert np.allclose(axes.T @ axes, np.eye(axes.shape[1]), atol=1e-4)
    kept = ((x - mean) @ axes).var(axis=0)
    assert np.all(np.diff(kept) <= 1e-3 * max(1.0, float(kept[0])))
    assert np.all(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] > 0)


def test_an_encoder_is_the_same_when_it_is_restored() -> None:
    schema = Schema((Column("age", SemanticType.NUMBER), Column(TEXT, SemanticType.TEXT)))
    given = columns()
    made = FusedEncoder.fit(given, schema, (text_embedding(),))
    again = FusedEncoder.restore(unpack(pack(made.checkpoint())))
    assert np.array_equal(made.transform(given), again.transform(given), equal_nan=True)
    assert [f.name for f in again.features] == [f.name for f in made.features]
    assert {f.source for f in again.features} == {"age", TEXT}
    assert made.marked(schema)[TEXT].unit == "embedded"


def test_numbers_that_are_known_are_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = text_embedding()
    made = FusedEncoder((embedding,), None)
    cells: Any = objects(SAID)
    numbers = np.arange(len(SAID) * 5, dtype=np.float32).reshape(len(SAID), 5)
    made.remember(TEXT, cells, numbers)
    assert np.array_equal(made.transform({TEXT: cells[::-1]}), numbers[::-1])


def test_images_of_several_sizes_and_none_give_rows() -> None:
    embedding = image_embedding()
    rng = np.random.default_rng(0)
    cells = objects([rng.integers(1, 255, (5, 7, 3)).astype(np.uint8), None, np.full((9, 2, 3), 200, np.uint8)])
    found = embed_cells(embedding, cells)
    assert found.shape == (3, 7)
    assert found[:, -1].tolist() == [0.0, 1.0, 0.0]
    assert not found[1, :-1].any()
    assert found[0, :-1].any()
