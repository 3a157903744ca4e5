"""Encoders are opened from folders, exported, and answer as PyTorch does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.bundle.fusion.made import objects
from tests.models.fusion.made import vit
from tests.models.text.made import encoder
from tests.models.text.test_folders import fake

from tidemill.bundle.fusion.embedding import cost_of
from tidemill.bundle.graph import GraphBuilder
from tidemill.core.errors import TrialError
from tidemill.core.schema import SemanticType
from tidemill.models.fusion.encoder import embed_cells
from tidemill.models.fusion.folders import is_encoder, is_image_encoder


def test_a_folder_is_told_by_what_it_holds(tmp_path: Path) -> None:
    folder = fake(tmp_path / "e")
    assert is_encoder(str(folder))
    assert not is_image_encoder(str(folder))
    (folder / "tokenizer.json").unlink()
    assert is_image_encoder(str(folder))
    (folder / "model.safetensors").unlink()
    assert not is_encoder(str(folder))


@pytest.mark.slow
def test_an_encoder_of_texts_gives_a_text_the_same_numbers_whatever_stands_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    from tidemill.models.fusion import texts

    folder = str(encoder(tmp_path / "minibert"))
    made = texts.open_texts("said", folder, 200)
    assert (made.encoder, made.width, made.kind) == ("minibert", 32, SemanticType.TEXT)
    assert made.reader is not None
    assert made.reader.length == 64, "more than the encoder takes is cut"
    layers = 2 * (4 * (32 * 32 + 32) + 2 * 32 * 64 + 64 + 32 + 4 * 32)
    assert made.params == layers + (32 + 64 + 2 + 2) * 32, "and embeddings of tokens, places, kinds and their norm"
    for length in (10, 64):
        products = 2 * (4 * 32 * 32 + 2 * 32 * 64) * length + 2 * 2 * 32 * length**2
        assert replace(made, tokens=length).flops == pytest.approx(2 * products)
    graph = GraphBuilder()
    graph.output(made.emit(graph, graph.input("cells", np.int64, ["N", "L"])), "out", np.float32, ["N", 32])
    assert cost_of([made]).size_bytes == pytest.approx(graph.model().ByteSize(), abs=2_000)
    assert b"site-packages" not in made.model, "nothing of the machine that wrote it"
    cells = objects(["red fox", "a blue whale of the sea near the pond", ""])
    together = embed_cells(made, cells)
    alone = np.concatenate([embed_cells(made, cells[i : i + 1]) for i in range(3)])
    assert np.abs(together - alone).max() < 1e-5
    assert not together[2].any()
    monkeypatch.setattr(texts, "_NEAR", -1.0)
    with pytest.raises(TrialError, match="gives other features than PyTorch"):
        texts.open_texts("said", folder, 64)


@pytest.mark.slow
def test_a_backbone_sees_images_of_any_size(tmp_path: Path) -> None:
    folder = vit(tmp_path / "vit")
    from tidemill.models.fusion.images import open_images

    made = open_images("photo", folder)
    assert (made.encoder, made.width, made.kind) == ("vit", 32, SemanticType.IMAGE)
    assert made.params is not None
    assert made.params > 16 * 3 * 8 * 8
    assert made.flops is not None
    assert made.flops > 2 * 4 * 16 * 3 * 8 * 8, "four patches"
    rng = np.random.default_rng(0)
    found = embed_cells(made, objects([rng.integers(0, 255, (30, 20, 3)).astype(np.uint8), None]))
    assert found.shape == (2, 32)
    assert np.isfinite(found).all()
    assert found[0].any()
    assert not found[1].any()


def test_patches_of_the_images_themselves_are_an_encoder_too() -> None:
    for package in ("torch", "onnxscript"):
        pytest.importorskip(package, reason="patches are drawn and exported by PyTorch")
    from tidemill.bundle.images.encoder import ImageEncoder
    from tidemill.models.fusion.images import draw_images

    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, 3, 12, 12)).astype(np.uint8)
    made = draw_images("photo", x, ImageEncoder(12, 12, 3))
    assert (made.encoder, made.width, made.kind) == ("patches", 2 * 128 * 9, SemanticType.IMAGE)
    assert made.flops == 2 * 128 * 3 * 6 * 6 * 7 * 7, "every patch is held against every place"
    assert draw_images("photo", x, ImageEncoder(12, 12, 3)).key == made.key, "the same images give the same encoder"
    seen = embed_cells(
        made, objects([x[0].transpose(1, 2, 0), rng.integers(0, 255, (30, 20, 3)).astype(np.uint8), None])
    )
    assert np.isfinite(seen).all()
    assert seen[0].any()
    assert not seen[2].any()
