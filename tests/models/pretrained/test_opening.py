"""Nets of others are opened in fp32, as they were saved, or refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a net is built")
transformers = pytest.importorskip("transformers", reason="encoders need the extra `text`")
pytest.importorskip("tokenizers", reason="so does reading tokens")

from tests.models.fusion.made import vit
from tests.models.text.made import CLASSES as TEXT_CLASSES
from tests.models.text.made import data as texts
from tests.models.text.made import encoder
from tests.models.vision.made import CLASSES, data

from tidemill.core.errors import DataError, OptionError
from tidemill.core.pack import pack, unpack
from tidemill.models.pretrained.opening import PIXELS, TOKENS, open_folder, rebuild
from tidemill.models.training.budget import TrainBudget


def halved(folder: str) -> str:
    """The same weights as many publish them."""
    model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float16)
    model.save_pretrained(folder)
    assert json.loads((Path(folder) / "config.json").read_text())["dtype"] == "float16"
    return folder


def described(folder: str, **more: object) -> str:
    """A folder whose description says something else than its weights."""
    path = Path(folder) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    return folder


@pytest.mark.parametrize("family", ["sentence", pytest.param("encoder", marks=pytest.mark.slow)])
def test_a_text_encoder_that_was_saved_in_half_precision_is_trained_and_restored(family: str, tmp_path: Path) -> None:
    from tidemill.models.text import pool

    folder = halved(str(encoder(tmp_path / "bert")))
    profile, train, valid = texts(60, (folder,))
    config = pool.space(TEXT_CLASSES, profile, [family]).default()
    config = {**config, **({"encoder.epochs": 1.0} if family == "encoder" else {})}
    model = pool.families([family])[family].fit(config, TEXT_CLASSES, profile, train, valid, TrainBudget(), 0)
    kept = pool.restore(unpack(pack(model.checkpoint())), TEXT_CLASSES)
    assert {p.dtype for p in kept.net.parameters()} == {torch.float32}  # type: ignore[attr-defined]
    assert np.allclose(kept.predict(valid.x), model.predict(valid.x), atol=1e-6)


def test_a_backbone_that_was_saved_in_half_precision_is_trained_and_restored(tmp_path: Path) -> None:
    from tidemill.models.vision import pool

    profile, train, valid = data(60)
    profile = type(profile).from_json({**profile.to_json(), "weights": [halved(vit(tmp_path / "vit"))]})
    config = pool.space(CLASSES, profile, ["backbone"]).default()
    family = pool.families(["backbone"])["backbone"]
    net = family.fit(config, CLASSES, profile, train, valid, TrainBudget(), 0)
    kept = pool.restore(unpack(pack(net.checkpoint())), CLASSES)
    assert {p.dtype for p in kept.net.parameters()} == {torch.float32}  # type: ignore[attr-defined]
    assert np.array_equal(kept.predict(valid.x), net.predict(valid.x))
    assert family.cost(config, CLASSES, profile) == net.cost


def test_a_description_says_no_precision_and_one_that_does_is_rebuilt_in_fp32(tmp_path: Path) -> None:
    _, description = open_folder(halved(vit(tmp_path / "vit")), PIXELS, weights=False)
    values = json.loads(description)
    assert not {"dtype", "torch_dtype"} & set(values)
    older = json.dumps({**values, "dtype": "float16"})
    assert {p.dtype for p in rebuild(older).parameters()} == {torch.float32}


def test_tensors_of_another_shape_are_named(tmp_path: Path) -> None:
    folder = described(vit(tmp_path / "vit"), num_labels=3, hidden_size=32)
    with pytest.raises(DataError, match=r"embeddings\.cls_token' is \(1, 1, 16\), not \(1, 1, 32\).* and \d+ more"):
        open_folder(folder, PIXELS, weights=True)


def test_weights_of_another_net_are_refused_and_what_is_missing_named(tmp_path: Path) -> None:
    one, other = Path(vit(tmp_path / "vit")), encoder(tmp_path / "bert")
    shutil.copy(other / "model.safetensors", one / "model.safetensors")
    with pytest.raises(DataError, match=r"The weights don't fit the net of config\.json: .*is missing"):
        open_folder(str(one), PIXELS, weights=True)
    folder = described(vit(tmp_path / "deeper"), num_hidden_layers=2)
    with pytest.raises(DataError, match=r"'layers\.1\.attention\.\w+\.bias' is missing.* and \d+ more"):
        open_folder(folder, PIXELS, weights=True)


def test_what_stands_behind_the_last_layer_may_be_missing(tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=8
    )
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    net, _ = open_folder(str(tmp_path), PIXELS, weights=True)
    assert not net.training


def test_a_net_that_takes_something_else_is_refused_in_words(tmp_path: Path) -> None:
    reader, seer = str(encoder(tmp_path / "bert")), vit(tmp_path / "vit")
    with pytest.raises(DataError, match="of the kind 'bert', which takes texts, not images"):
        open_folder(reader, PIXELS, weights=False)
    with pytest.raises(DataError, match="of the kind 'vit', which takes images, not texts"):
        open_folder(seer, TOKENS, weights=False)


def test_a_folder_that_reads_texts_is_no_backbone(tmp_path: Path) -> None:
    from tidemill.models.vision import pool

    reader = str(encoder(tmp_path / "bert"))
    profile, _, _ = data(60)
    profile = type(profile).from_json({**profile.to_json(), "weights": [reader]})
    assert not pool.families(["backbone"])["backbone"].supports(CLASSES, profile)
    with pytest.raises(OptionError, match="holds a vocabulary: its net reads texts"):
        pool.space(CLASSES, profile)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "config.json").write_text("{}"), "The weights can't be opened"),
        (lambda f: (f / "config.json").write_text('{"model_type": "no-such-net"}'), "The weights can't be opened"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x05" * 40), "The weights can't be opened"),
        (lambda f: (f / "model.safetensors").unlink(), "The weights can't be opened"),
        (lambda f: described(str(f), hidden_size="wide"), "The weights can't be opened"),
    ],
)
def test_damage_is_told_and_what_to_do(spoil: object, told: str, tmp_path: Path) -> None:
    folder = Path(vit(tmp_path / "vit"))
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(DataError, match=told + r".*save_pretrained"):
        open_folder(str(folder), PIXELS, weights=True)


def test_costs_of_weights_that_can_t_be_opened_are_told_in_words(tmp_path: Path) -> None:
    from tidemill.models.vision import pool

    folder = described(vit(tmp_path / "vit"), hidden_size=0)
    profile, _, _ = data(60)
    profile = type(profile).from_json({**profile.to_json(), "weights": [folder]})
    config = pool.space(CLASSES, profile, ["backbone"]).default()
    with pytest.raises(DataError, match=r"can't be opened|gives no features of an image"):
        pool.families(["backbone"])["backbone"].cost(config, CLASSES, profile)


def test_a_tuned_backbone_remembers_more_than_its_last_batch(tmp_path: Path) -> None:
    """MobileNets of transformers would replace nearly all that they know of what they see with each batch."""
    from tidemill.models.pretrained.architectures import IMAGES, architecture
    from tidemill.models.pretrained.nets import write_tiny

    folder = write_tiny(architecture("MobileNet V2", IMAGES), tmp_path / "w")
    opened, description = open_folder(str(folder), PIXELS, weights=True)
    for net in (opened, rebuild(description)):
        shares = [part.momentum for part in net.modules() if isinstance(part, torch.nn.BatchNorm2d)]
        assert shares
        assert max(shares) <= 0.1
