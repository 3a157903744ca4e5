"""A net that Tidemill trained reads a column as it read its own rows, up to its head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.bundle.fusion.made import objects

torch = pytest.importorskip("torch", reason="nets are trained with torch")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")

from tests.models.fusion.made import vit
from tests.models.vision.made import CLASSES, data

from tidemill.core.errors import DataError
from tidemill.core.pack import pack, unpack
from tidemill.core.trial import Cost
from tidemill.models.fusion.encoder import embed_cells
from tidemill.models.fusion.folders import is_image_encoder, is_own_net
from tidemill.models.fusion.images import open_images
from tidemill.models.fusion.own import write_encoder
from tidemill.models.training.budget import TrainBudget
from tidemill.models.vision import pool
from tidemill.models.vision._base import ImageProfile
from tidemill.models.vision.weights import write_safetensors


def photos(*shapes: tuple[int, int]) -> Any:
    rng = np.random.default_rng(0)
    return objects([rng.integers(1, 255, (*shape, 3)).astype(np.uint8) for shape in shapes])


def trained(name: str, channels: int, **config: Any) -> Any:
    """A net after some steps."""
    profile, train, _ = data(60, channels=channels)
    given = {**pool.space(CLASSES, profile, [name]).default(), f"{name}.epochs": 1}
    given.update({f"{name}.{key}": value for key, value in config.items()})
    return pool.families([name])[name].fit(given, CLASSES, profile, train, None, TrainBudget(), 0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "width", "channels"), [("quicknet", 24, 3), ("resnet9", 8, 1)])
def test_features_of_a_column_are_those_before_the_head(name: str, width: int, channels: int, tmp_path: Path) -> None:
    net, place = trained(name, channels, width=width), str(tmp_path / "squares")
    write_encoder(unpack(pack(net.checkpoint())), Path(place))
    assert is_own_net(place)
    assert is_image_encoder(place)
    made = open_images("photo", place)
    assert made.encoder == "squares"
    assert made.pixels is not None
    assert made.pixels.shape == (channels, 12, 12), "as its own images were"
    body = net.net.body
    assert made.params == net.cost.params - sum(p.numel() for p in body.linear.parameters())
    cells = photos((12, 12), (12, 12))
    encoded = torch.from_numpy(made.pixels.transform({"image": np.stack(cells)}))
    with torch.inference_mode():
        wanted = body.features((encoded - net.net.mean) / net.net.std).numpy()
    np.testing.assert_allclose(embed_cells(made, cells), wanted, atol=1e-3 * float(np.abs(wanted).max()))
    assert np.isfinite(embed_cells(made, photos((30, 20), (5, 80)))).all()


@pytest.mark.slow
def test_a_backbone_of_a_study_is_the_backbone_that_it_was(tmp_path: Path) -> None:
    weights = vit(tmp_path / "vit")
    _, train, _ = data(30)
    profile = ImageProfile.of(train.x, weights=(weights,))
    given = pool.space(CLASSES, profile, ["backbone"]).default()
    net = pool.families(["backbone"])["backbone"].fit(given, CLASSES, profile, train, None, TrainBudget(), 0)
    write_encoder(unpack(pack(net.checkpoint())), tmp_path / "kept")
    assert not is_own_net(str(tmp_path / "kept"))
    was, made = (open_images("photo", str(tmp_path / name)) for name in ("vit", "kept"))
    cells = photos((16, 16), (16, 16))
    np.testing.assert_allclose(embed_cells(made, cells), embed_cells(was, cells), atol=1e-4)


@pytest.mark.slow
def test_an_encoder_of_texts_reads_a_column_as_it_was_tuned(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.models.text.made import CLASSES as KINDS
    from tests.models.text.made import encoder

    from tidemill.models.fusion.texts import open_texts
    from tidemill.models.text._net import TextModel, opened
    from tidemill.models.text.folders import find_encoder, pool_of

    began = str(encoder(tmp_path / "began"))
    net, reader, description = opened(began, "first", 64, KINDS, None)
    torch.manual_seed(1)
    with torch.no_grad():
        for each in net.body.parameters():
            each.add_(0.05 * torch.randn_like(each))
    model = TextModel("encoder", {}, net, reader, description, Cost())
    place = tmp_path / "tuned"
    write_encoder(unpack(pack(model.checkpoint())), place)
    assert find_encoder(str(place)) == str(place)
    assert (pool_of(str(place)), pool_of(began)) == ("first", "mean")
    made = open_texts("said", str(place), 64, pool_of(str(place)))
    cells = objects(["red fox", "a blue whale of the sea near the pond"])
    with torch.inference_mode():
        wanted = net.body(torch.from_numpy(made.input_of(cells))).numpy()
    np.testing.assert_allclose(embed_cells(made, cells), wanted, atol=1e-3)
    other = open_texts("said", began, 64, "first")
    assert np.abs(embed_cells(other, cells) - wanted).max() > 0.01


def test_what_has_no_encoder_is_refused(tmp_path: Path) -> None:
    for family in ("probe", "ngrams"):
        with pytest.raises(DataError, match=f"family '{family}' has no encoder that could read a column"):
            write_encoder({"family": family}, tmp_path / "e")


def told(folder: Path, **more: Any) -> str:
    folder.mkdir()
    origin = {"family": "quicknet", "config": {"quicknet.width": 24}, "channels": 3, **more}
    tensors = {"linear.weight": np.zeros((3, 4), np.float32)}
    write_safetensors(tensors, folder / "model.safetensors", {"tidemill": json.dumps(origin)})
    return str(folder)


def test_weights_that_don_t_say_what_they_saw_are_told(tmp_path: Path) -> None:
    place = told(tmp_path / "old")
    assert is_own_net(place)
    with pytest.raises(DataError, match=r"don't say what images they were trained on.*name their study"):
        open_images("photo", place)


def test_a_net_that_reads_lines_is_no_encoder_of_images(tmp_path: Path) -> None:
    assert not is_own_net(told(tmp_path / "lines", alphabet="ab"))
    assert not is_image_encoder(str(tmp_path / "lines"))
