"""The net for texts: filling says nothing, groups change nothing, layers learn at their own pace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a net is built")
pytest.importorskip("transformers", reason="encoders need the extra `text`")
pytest.importorskip("tokenizers", reason="so does reading tokens")

from tests.models.text.made import CLASSES, data, encoder

from tidemill.models.text._net import layer_scales, opened
from tidemill.models.text.nets import TextNet, positions_of
from tidemill.models.text.samples import TokenSamples


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> TextNet:
    return opened(str(encoder(tmp_path_factory.mktemp("e") / "bert")), "mean", 64, CLASSES, None)[0]


def test_what_is_filled_up_says_nothing(net: TextNet) -> None:
    short = torch.tensor([[2, 5, 6, 3]])
    filled = torch.tensor([[2, 5, 6, 3, -1, -1, -1], [2, 5, 6, 7, 8, 9, 3]])
    with torch.inference_mode():
        assert torch.allclose(net(short)[0], net(filled)[0], atol=1e-6)


def test_groups_by_length_change_nothing(net: TextNet) -> None:
    rng = np.random.default_rng(0)
    tokens = torch.full((21, 30), -1, dtype=torch.int64)
    for row, length in enumerate(rng.integers(1, 31, 21)):
        tokens[row, :length] = torch.from_numpy(rng.integers(4, 30, length))
    with torch.inference_mode():
        together = net.body(tokens)
        assert torch.allclose(net._in_groups(tokens), together, atol=1e-5)


def test_the_nearer_to_the_words_the_slower(net: TextNet) -> None:
    scales = layer_scales(net, 0.5)
    assert scales == {
        "body.model.": 0.125, "body.model.encoder.layer.0.": 0.25, "body.model.encoder.layer.1.": 0.5,
    }  # fmt: skip


def test_the_layer_behind_the_first_token_is_gone(net: TextNet) -> None:
    assert not [name for name, _ in net.named_parameters() if "pooler" in name]


def test_samples_are_the_texts_whatever_their_order(tmp_path: Path) -> None:
    _, reader, _ = opened(str(encoder(tmp_path / "bert")), "mean", 8, CLASSES, None)
    _, train, _ = data(30)
    samples = TokenSamples.of(train, reader)
    rng = np.random.default_rng(0)
    inputs, targets = samples.batch(np.array([3, 0, 7]), train=True, rng=rng)
    assert targets.tolist() == train.truth[[3, 0, 7]].tolist()
    (wanted,) = reader.read([train.texts[i] for i in (3, 0, 7)]).values()
    assert np.array_equal(inputs["tokens"].numpy(), wanted)
    assert inputs["tokens"].shape[1] <= 8, "longer texts are cut"
    ordered = TokenSamples.of(train, reader, by_length=True)
    assert (np.diff(ordered.lengths) >= 0).all()
    assert sorted(ordered.y.tolist()) == sorted(train.truth.tolist())


def test_places_are_counted_as_the_encoder_counts_them() -> None:
    assert positions_of('{"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}') == 512
    assert positions_of('{"model_type": "modernbert", "max_position_embeddings": 8192}') == 512
