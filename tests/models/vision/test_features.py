"""Features of frozen backbones: found again by content, never by accident, and never in the way."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.models.vision import features as module
from tidemill.models.vision.features import FeatureCache, content_of


def image(value: int) -> np.ndarray:
    return np.full((1, 2, 2), value, np.uint8)


def filled(folder: Path, values: range, key: str = "net", **words: int) -> FeatureCache:
    cache = FeatureCache(folder, key, **words)
    for value in values:
        cache.add(content_of(image(value)), np.full(64, value, np.float32))
    cache.save()
    return cache


@settings(max_examples=25)
@given(st.lists(st.lists(st.integers(0, 20), max_size=8), max_size=4))
def test_what_was_kept_is_found_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[int]]
) -> None:
    folder = tmp_path_factory.mktemp("features")
    for values in rounds:
        cache = FeatureCache(folder, "net")
        for value in values:
            cache.add(content_of(image(value)), np.full(3, value, np.float32))
        cache.save()
    again = FeatureCache(folder, "net")
    known = {value for values in rounds for value in values}
    for value in range(21):
        found = again.find(content_of(image(value)))
        assert (found is not None) == (value in known)
        assert found is None or found.tolist() == [value] * 3


def test_another_backbone_knows_nothing_of_it(tmp_path: Path) -> None:
    filled(tmp_path, range(3))
    assert FeatureCache(tmp_path, "other").find(content_of(image(0))) is None


def test_images_of_one_content_and_another_shape_are_told_apart() -> None:
    assert content_of(np.zeros((1, 2, 3), np.uint8)) != content_of(np.zeros((1, 3, 2), np.uint8))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "other"])
def test_a_damaged_file_is_removed_and_its_images_are_seen_again(tmp_path: Path, damage: str) -> None:
    filled(tmp_path, range(3))
    path = next(tmp_path.iterdir())
    data = path.read_bytes()
    flipped = bytes([*data[:20], data[20] ^ 1, *data[21:]])
    path.write_bytes({"cut": data[:-5], "flipped": flipped, "empty": b"", "other": b"TMPK1\nnonsense"}[damage])
    cache = FeatureCache(tmp_path, "net")
    assert cache.find(content_of(image(0))) is None
    assert not path.exists()
    filled(tmp_path, range(3))
    assert FeatureCache(tmp_path, "net").find(content_of(image(2))) is not None


def test_the_folder_stays_within_its_bound_and_the_newest_stays(tmp_path: Path) -> None:
    filled(tmp_path, range(1))
    size = next(tmp_path.iterdir()).stat().st_size
    for n in range(1, 8):
        filled(tmp_path, range(n, n + 1), most_bytes=3 * size + 40)
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= 3 * size + 40
    cache = FeatureCache(tmp_path, "net")
    assert cache.find(content_of(image(7))) is not None
    assert sum(cache.find(content_of(image(n))) is not None for n in range(8)) < 8


def test_a_full_disk_costs_the_cache_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.os, "replace", full)
    cache = filled(tmp_path, range(2))
    assert cache.find(content_of(image(1))) is not None
    assert list(tmp_path.iterdir()) == []


def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    filled(tmp_path / "none", range(0))
    assert not (tmp_path / "none").exists()
