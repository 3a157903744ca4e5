"""Names of the hub become folders: from its cache where that holds all, else fetched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub", reason="fetches encoders")

from tests.models.fusion.made import vit
from tests.models.vision.made import CLASSES, data

from tidemill.core.errors import DataError, MissingExtraError, NotFoundError
from tidemill.models.fusion.folders import find_folder, is_encoder
from tidemill.models.pretrained import folders
from tidemill.models.text.folders import find_encoder
from tidemill.models.vision.weights import find_weights

NAME = "someone/small-backbone"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub, as its library lays it out, and no network; gives the folder of a snapshot."""
    import huggingface_hub

    whole = huggingface_hub.snapshot_download

    def offline(name: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        if not local_files_only:
            raise ConnectionError("no network")
        return str(whole(name, allow_patterns=allow_patterns, local_files_only=True, cache_dir=tmp_path / "hub"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    home = tmp_path / "hub" / "models--someone--small-backbone"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("0123abc")
    snapshot = home / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    return snapshot


def filled(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_text(json.dumps({"model_type": "vit"}) if name == "config.json" else "{}")


def test_a_backbone_in_the_cache_is_found_by_its_name_and_can_be_opened(cache: Path) -> None:
    vit(cache)
    place = find_weights(NAME)
    assert Path(place) == cache
    profile, _, _ = data(60)
    profile = type(profile).from_json({**profile.to_json(), "weights": [place]})
    from tidemill.models.vision import pool

    space = pool.space(CLASSES, profile, ["backbone"])
    assert pool.families(["backbone"])["backbone"].cost(space.default(), CLASSES, profile).params


def test_what_the_cache_holds_a_part_of_is_fetched(cache: Path) -> None:
    filled(cache, "tokenizer.json")
    for find in (find_weights, find_encoder, find_folder):
        with pytest.raises(NotFoundError, match="could not be fetched from the Hugging Face hub: no network"):
            find(NAME)
    filled(cache, "config.json", "model.safetensors")
    assert find_encoder(NAME) == str(cache)
    assert find_folder(NAME) == str(cache)


def test_parts_of_weights_are_all_needed(cache: Path) -> None:
    filled(cache, "config.json", "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (cache / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(NotFoundError, match="no network"):
        find_weights(NAME)
    filled(cache, "model-00002-of-00002.safetensors")
    assert find_weights(NAME) == str(cache)


def test_what_is_fetched_without_safetensors_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[str] = []

    def fetched(name: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        asked.extend(allow_patterns)
        return str(cache)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    filled(cache, "config.json", "pytorch_model.bin")
    with pytest.raises(DataError, match=r"no config\.json with weights in the form of safetensors"):
        find_weights(NAME)
    assert not [pattern for pattern in asked if "bin" in pattern]
    assert "preprocessor_config.json" in asked


def test_a_place_here_is_no_name_and_a_name_may_be_an_encoder_of_columns(tmp_path: Path) -> None:
    assert find_weights(str(tmp_path)) == str(tmp_path)
    assert find_folder(str(tmp_path / "x.safetensors")) == str(tmp_path / "x.safetensors")
    assert is_encoder(NAME)
    assert not is_encoder(str(tmp_path))


def test_without_the_package_that_fetches_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"huggingface_hub.*tidemill\[text\]"):
        find_weights(NAME)
