"""A net that Tidemill trained is a beginning for another one, where it fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="nets are trained with torch")

from tests.models.vision.made import CLASSES, data

from tidemill.core.errors import DataError, OptionError
from tidemill.core.pack import pack, unpack
from tidemill.core.task import Task, TaskKind
from tidemill.models.training.budget import TrainBudget
from tidemill.models.vision import pool
from tidemill.models.vision._base import ImageData, ImageProfile
from tidemill.models.vision.weights import origin_of, read_safetensors, write_safetensors, write_weights

NAMES = ("quicknet", "resnet9", "resnet", "mobilenet")
OTHER = Task(TaskKind.MULTICLASS, "z", ("u", "v"))
WIDTHS = {"quicknet": 24, "resnet9": 8, "resnet": 8, "mobilenet": 0.35}


def trained(name: str, folder: Path, channels: int = 3) -> str:
    """Train a little, and write the weights."""
    profile, train, _ = data(60, channels=channels)
    config = pool.space(CLASSES, profile, [name]).default()
    config = {**config, f"{name}.width": WIDTHS[name], f"{name}.epochs": 4}
    net = pool.families([name])[name].fit(config, CLASSES, profile, train, None, TrainBudget(), 0)
    write_weights(unpack(pack(net.checkpoint())), folder)
    return str(folder)


def profile_with(*places: str, channels: int = 3) -> tuple[ImageProfile, ImageData, ImageData]:
    _, train, valid = data(60, channels=channels, seed=5)
    y = (train.y == 1).astype(np.int64)
    x = train.x
    return ImageProfile.of(x, weights=places), ImageData(x, y, train.rows), ImageData(x, y, valid.rows)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_a_fit_are_where_another_one_begins(name: str, tmp_path: Path) -> None:
    place = trained(name, tmp_path / "w")
    profile, train, valid = profile_with(place)
    family = pool.families([name])[name]
    config = pool.space(OTHER, profile, [name]).default()
    assert config[f"{name}.weights"] == place, "weights that are at hand are the default"
    counted = family.cost(config, OTHER, profile)
    net = family.fit(
        {**config, f"{name}.epochs": 4, f"{name}.lr": 0.01}, OTHER, profile, train, valid, TrainBudget(), 0
    )
    assert (net.cost.params, net.cost.flops) == (counted.params, counted.flops)
    state = net.checkpoint()
    given = read_safetensors(Path(place) / "model.safetensors")
    filters = {n: v for n, v in given.items() if v.ndim == 4}
    assert filters
    moved = {n: float(np.abs(state["state"][f"body.{n}"] - v).max()) for n, v in filters.items()}
    assert all(moved[n] < 0.5 * np.abs(v).max() for n, v in filters.items()), "they were refined, not forgotten"
    (Path(place) / "model.safetensors").unlink()
    kept = pool.restore(unpack(pack(state)), OTHER)
    assert np.array_equal(kept.predict(valid.x), net.predict(valid.x)), "the file is needed no more"


def test_the_head_knows_the_new_classes_before_the_body_is_trained(tmp_path: Path) -> None:
    place = trained("quicknet", tmp_path / "w")
    profile, train, valid = profile_with(place)
    config = pool.space(OTHER, profile, ["quicknet"]).default()
    config = {**config, "quicknet.epochs": 4, "quicknet.lr": 0.01, "quicknet.shift": 0.0, "quicknet.flip": False}
    net = pool.families(["quicknet"])["quicknet"].fit(config, OTHER, profile, train, valid, TrainBudget(), 0)
    rows = valid.rows
    assert (net.predict(valid.x[rows]).argmax(axis=1) == valid.y[rows]).mean() >= 0.8


@pytest.mark.parametrize("name", NAMES)
def test_only_a_net_without_weights_begins_on_halved_images(name: str, tmp_path: Path) -> None:
    place = trained(name, tmp_path / "w")
    _, train, _ = data(60, side=24)
    space = pool.space(OTHER, ImageProfile.of(train.x, weights=(place,)), [name])
    begun, new = space.default(), space.complete({"family": name, f"{name}.weights": ""})
    assert f"{name}.coarse" not in begun
    assert new[f"{name}.coarse"] == 0.5
    assert pool.space(OTHER, ImageProfile.of(train.x), [name]).default()[f"{name}.coarse"] == 0.5


def test_weights_of_other_colours_or_families_are_refused_by_name(tmp_path: Path) -> None:
    place = trained("quicknet", tmp_path / "w")
    grey, _, _ = profile_with(place, channels=1)
    with pytest.raises(OptionError, match=r"trained on images of 3 channels, and these are of one channel \(grey\)"):
        pool.space(OTHER, grey, ["quicknet"])
    colour, _, _ = profile_with(place)
    with pytest.raises(OptionError, match="those of the family 'quicknet', which is not searched here"):
        pool.space(OTHER, colour, ["resnet9"])


def test_a_tensor_of_another_shape_is_named(tmp_path: Path) -> None:
    place = Path(trained("quicknet", tmp_path / "w")) / "model.safetensors"
    tensors, origin = read_safetensors(place), origin_of(place)
    assert origin is not None
    assert (origin.family, origin.channels, origin.config["quicknet.width"]) == ("quicknet", 3, 24)
    tensors["pairs.1.conv1.weight"] = np.zeros((7, 24, 3, 3), np.float32)
    told = '{"family": "quicknet", "config": {"quicknet.width": 24}, "channels": 3}'
    write_safetensors(tensors, place, {"tidemill": told})
    profile, train, valid = profile_with(str(place))
    config = pool.space(OTHER, profile, ["quicknet"]).default()
    with pytest.raises(DataError, match=r"'pairs\.1\.conv1\.weight' is \(7, 24, 3, 3\), not \(48, 24, 3, 3\)"):
        pool.families(["quicknet"])["quicknet"].fit(config, OTHER, profile, train, valid, TrainBudget(), 0)


def test_a_head_on_drawn_patches_is_no_beginning(tmp_path: Path) -> None:
    profile, train, valid = data(60)
    config = {**pool.space(CLASSES, profile, ["probe"]).default(), "probe.filters": 64}
    net = pool.families(["probe"])["probe"].fit(config, CLASSES, profile, train, valid, TrainBudget(), 0)
    with pytest.raises(DataError, match="'probe' has no weights that another fit could begin from"):
        write_weights(net.checkpoint(), tmp_path)


def test_an_origin_that_says_nonsense_is_told(tmp_path: Path) -> None:
    write_safetensors({"a": np.zeros(2, np.float32)}, tmp_path / "model.safetensors", {"tidemill": "{}"})
    with pytest.raises(DataError, match="don't say where they come from"):
        origin_of(tmp_path)
    told = '{"family": "quicknet", "config": {}, "channels": 3}'
    write_safetensors({"a": np.zeros(2, np.float32)}, tmp_path / "model.safetensors", {"tidemill": told})
    family = pool.families(["quicknet"])["quicknet"]
    with pytest.raises(DataError, match=r"don't say their 'quicknet\.width'"):
        family.laid({"quicknet.weights": str(tmp_path)})  # type: ignore[attr-defined]
