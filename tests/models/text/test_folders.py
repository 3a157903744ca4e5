"""Encoders are found by name, and what is lacking is told."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tidemill.core.errors import DataError, MissingExtraError, NotFoundError
from tidemill.models.pretrained import folders as hub_folders
from tidemill.models.text import extra, folders


def fake(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"0" * 16)
    return folder


def test_a_folder_is_told_by_what_it_holds(tmp_path: Path) -> None:
    folder = fake(tmp_path / "e")
    assert folders.is_text_encoder(folder)
    assert folders.find_encoder(str(folder)) == str(folder)
    (folder / "tokenizer.json").unlink()
    assert not folders.is_text_encoder(folder)
    with pytest.raises(DataError, match="lacks a vocabulary"):
        folders.find_encoder(str(folder))


def test_without_weights_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"There are no weights at.*Give a folder with config\.json"):
        folders.find_encoder(str(tmp_path / "nowhere"))
    folder = fake(tmp_path / "e")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="no weights in the form of safetensors"):
        folders.find_encoder(str(folder))


def test_the_same_encoder_counts_once(tmp_path: Path) -> None:
    folder = fake(tmp_path / "e")
    assert folders.find_encoders((str(folder), f"{folder}/../e")) == (f"{folder}/../e",)


def test_content_decides_about_the_key(tmp_path: Path) -> None:
    one, two = fake(tmp_path / "a"), fake(tmp_path / "b")
    assert folders.content_key(str(one)) == folders.content_key(str(two))
    (two / "model.safetensors").write_bytes(b"1" * 16)
    assert folders.content_key(str(one)) != folders.content_key(str(two))


def test_a_hub_name_is_looked_for_in_the_cache_before_it_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    hub = ModuleType("huggingface_hub")

    def snapshot_download(name: str, *, allow_patterns: list[str], local_files_only: bool = False) -> str:
        asked.append(local_files_only)
        assert not any("bin" in p or "pickle" in p for p in allow_patterns)
        if local_files_only:
            raise FileNotFoundError(name)
        return str(fake(tmp_path / "fetched"))

    hub.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr(hub_folders, "find_spec", lambda name: object())
    assert folders.find_encoder("someone/small-encoder") == str(tmp_path / "fetched")
    assert asked == [True, False]

    def broken(*args: object, **words: object) -> str:
        raise ConnectionError("no network")

    hub.snapshot_download = broken  # type: ignore[attr-defined]
    with pytest.raises(NotFoundError, match="could not be fetched from the Hugging Face hub: no network"):
        folders.find_encoder("someone/other")


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extra, "need_torch", lambda why: None)
    monkeypatch.setattr(extra, "find_spec", lambda name: None if name == "transformers" else object())
    with pytest.raises(MissingExtraError, match=r"'transformers' is needed to begin.*tidemill\[text\]"):
        extra.need_text("to begin from trained encoders")
