"""What every family for images promises."""

from __future__ import annotations

import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="the families train with torch")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")

from tests.models.vision.made import CLASSES, VALUES, data

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.errors import OptionError, TrialError, TrialTimeoutError, WorkspaceError
from tidemill.core.pack import pack, unpack
from tidemill.core.space import Space
from tidemill.core.trial import Config
from tidemill.models.training.budget import TrainBudget
from tidemill.models.vision import pool
from tidemill.models.vision._base import ImageData, ImageProfile

NAMES = ("probe", "quicknet", "resnet9", "resnet", "mobilenet")
SMALL: dict[str, Config] = {
    "probe": {"probe.filters": 64},
    "quicknet": {"quicknet.width": 16, "quicknet.epochs": 12},
    "resnet9": {"resnet9.width": 8, "resnet9.epochs": 12},
    "resnet": {"resnet.width": 8, "resnet.depth": 1, "resnet.epochs": 40},
    "mobilenet": {"mobilenet.width": 0.35, "mobilenet.epochs": 12},
}


def config_of(name: str, profile: ImageProfile, **more: object) -> Config:
    default = pool.space(CLASSES, profile, [name]).default()
    still = {f"{name}.{k}": v for k, v in (("shift", 0.0), ("flip", False), ("rotate", 0.0), ("zoom", 0.0))}
    return {**default, **{k: v for k, v in still.items() if k in default}, **SMALL[name], **more}


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_is_kept_and_answers_the_same_as_its_graph(name: str) -> None:
    profile, train, valid = data(180)
    budget = TrainBudget()
    family = pool.families([name])[name]
    net = family.fit(config_of(name, profile), CLASSES, profile, train, valid, budget, 0)
    scores = net.predict(valid.x[valid.rows])
    assert scores.dtype == np.float32
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert (scores.argmax(axis=1) == valid.y[valid.rows]).mean() >= 0.8

    kept = pool.restore(unpack(pack(net.checkpoint())), CLASSES)
    assert np.array_equal(kept.predict(valid.x[valid.rows]), scores)

    graph = GraphBuilder()
    inlet = graph.input("x", np.float32, ["N", *valid.x.shape[1:]])
    graph.output(kept.emit(graph, inlet), "scores", np.float32, ["N", 3])
    model = graph.model()
    run = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for rows in (valid.rows, valid.rows[:1]):
        got = run.run(None, {"x": valid.x[rows].astype(np.float32)})[0]
        assert np.abs(got - net.predict(valid.x[rows])).max() <= 1e-5
    assert b"/" + b"site-packages" not in model.SerializeToString(), "no trace of this machine leaves it"

    counted = family.cost(config_of(name, profile), CLASSES, profile)
    assert (counted.params, counted.flops) == (net.cost.params, net.cost.flops)
    assert counted.flops
    assert counted.params


@pytest.mark.parametrize("name", ["probe", "resnet9"])
def test_values_are_learned_in_their_own_units(name: str) -> None:
    profile, train, valid = data(180)
    y = 1000.0 + 50.0 * train.y.astype(np.float64)
    train, valid = ImageData(train.x, y, train.rows), ImageData(valid.x, y, valid.rows)
    family = pool.families([name])[name]
    config = {**pool.space(VALUES, profile, [name]).default(), **SMALL[name]}
    net = family.fit(config, VALUES, profile, train, valid, TrainBudget(), 0)
    got = net.predict(valid.x[valid.rows])
    assert got.shape == (len(valid), 1)
    assert np.abs(got[:, 0] - y[valid.rows]).mean() < 25


@pytest.mark.parametrize("name", ["resnet9", "quicknet", "probe"])
def test_the_same_seed_gives_the_same_net(name: str) -> None:
    profile, train, valid = data()
    config = config_of(name, profile, **({} if name == "probe" else {f"{name}.epochs": 4}))
    nets = [pool.families([name])[name].fit(config, CLASSES, profile, train, valid, TrainBudget(), 7) for _ in range(2)]
    assert np.array_equal(*(net.predict(valid.x) for net in nets))


@pytest.mark.slow
@pytest.mark.parametrize(("side", "channels"), [(1, 1), (3, 3), (8, 1), (70, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_images_of_any_size_fit(name: str, side: int, channels: int) -> None:
    x = np.random.default_rng(0).integers(0, 256, (16, channels, side, side + (side > 1))).astype(np.uint8)
    y = np.arange(16) % 3
    profile = ImageProfile.of(x)
    config = config_of(name, profile, **({} if name == "probe" else {f"{name}.epochs": 4}))
    family = pool.families([name])[name]
    net = family.fit(config, CLASSES, profile, ImageData(x, y, np.arange(16)), None, TrainBudget(), 0)
    assert np.isfinite(net.predict(x)).all()


def test_a_training_is_cut_to_its_time_and_says_where_there_is_none() -> None:
    profile, train, valid = data(180)
    family = pool.families(["resnet9"])["resnet9"]
    config = config_of("resnet9", profile, **{"resnet9.epochs": 5_000, "resnet9.width": 32})
    begun = time.monotonic()
    family.fit(config, CLASSES, profile, train, valid, TrainBudget(deadline=begun + 6.0), 0)
    assert time.monotonic() - begun < 30
    with pytest.raises(TrialTimeoutError, match="An epoch takes"):
        family.fit(config, CLASSES, profile, train, valid, TrainBudget(deadline=time.monotonic()), 0)


def test_only_what_may_be_mirrored_is() -> None:
    x = np.zeros((20, 3, 8, 8), np.uint8)
    mirrored, written = ImageProfile.of(x), ImageProfile.of(x, mirrored=False)

    def names(profile: ImageProfile) -> set[str]:
        space: Space = pool.space(CLASSES, profile)
        return {p.name for p in space}

    assert {"resnet9.flip", "resnet9.mirror"} <= names(mirrored)
    assert not {n for n in names(written) if n.endswith((".flip", ".mirror"))}


def test_a_profile_survives_json() -> None:
    profile = ImageProfile.of(np.ones((4, 3, 2, 2), np.uint8), weights=("a",))
    assert ImageProfile.from_json(profile.to_json()) == profile


def test_what_answers_for_the_mirror_image_too_answers_alike_for_both() -> None:
    profile, train, valid = data(60)
    family = pool.families(["quicknet"])["quicknet"]
    config = config_of("quicknet", profile, **{"quicknet.epochs": 4, "quicknet.mirror": True})
    net = family.fit(config, CLASSES, profile, train, valid, TrainBudget(), 0)
    turned = np.ascontiguousarray(valid.x[..., ::-1])
    assert np.abs(net.predict(valid.x) - net.predict(turned)).max() < 1e-5
    plain = family.cost({**config, "quicknet.mirror": False}, CLASSES, profile)
    twice = family.cost(config, CLASSES, profile)
    assert plain.flops is not None
    assert twice.flops == 2 * plain.flops, "the cost is that of both"
    assert twice.params == plain.params


def test_a_net_takes_what_it_needs_of_the_images_before_it_is_trained() -> None:
    profile, train, _ = data(60)
    family = pool.families(["quicknet"])["quicknet"]
    config = config_of("quicknet", profile)
    body = family.build(config, 3, profile)  # type: ignore[attr-defined]
    family.draw(body, profile, train, 0)  # type: ignore[attr-defined]
    mean, std = (np.float32(v).reshape(1, -1, 1, 1) for v in (profile.mean, profile.std))
    seen = body.entrance(torch.from_numpy((train.x[train.rows] - mean) / std))
    assert seen.shape[1:] == (48, 6, 6)
    signed = (seen[:, :24] - seen[:, 24:]).numpy().transpose(1, 0, 2, 3).reshape(24, -1)
    correlations = np.corrcoef(signed)
    assert np.abs(correlations - np.eye(24)).max() < 0.3, "directions are unlike each other"
    assert not any(p.requires_grad for n, p in body.named_parameters() if n.startswith("entrance."))


def test_a_gpu_that_is_not_there_is_told() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    profile, train, valid = data()
    family = pool.families(["quicknet"])["quicknet"]
    config = config_of("quicknet", profile, **{"quicknet.epochs": 4})
    with pytest.raises(OptionError, match="A GPU was asked for"):
        family.fit(config, CLASSES, profile, train, valid, TrainBudget(device="cuda"), 0)


def test_a_loss_that_is_no_number_names_the_rate_and_keeps_the_batch(tmp_path: Path) -> None:
    profile, train, valid = data()
    family = pool.families(["quicknet"])["quicknet"]
    config = config_of("quicknet", profile, **{"quicknet.epochs": 4, "quicknet.lr": 1e38})
    with pytest.raises(TrialError, match=r"The (loss|gradient's length) is (nan|inf).* with a learning rate of"):
        family.fit(config, CLASSES, profile, train, valid, TrainBudget(folder=str(tmp_path)), 0)
    assert list(tmp_path.glob("diverged-step-*.npz"))
    apart = tmp_path / "apart"
    with pytest.raises(TrialError, match=str(apart)):
        family.fit(config, CLASSES, profile, train, valid, TrainBudget(diverged=str(apart)), 0)
    assert list(apart.glob("diverged-step-*.npz"))


def test_a_disk_that_is_full_at_a_checkpoint_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tidemill.train import checkpoint

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: usage(100, 100, 10))
    profile, train, valid = data()
    config = config_of("quicknet", profile, **{"quicknet.epochs": 4})
    budget = TrainBudget(epochs=1, of=4, folder=str(tmp_path))
    with pytest.raises(WorkspaceError, match="The disk is full: a checkpoint takes"):
        pool.families(["quicknet"])["quicknet"].fit(config, CLASSES, profile, train, valid, budget, 0)


def test_halved_images_get_their_share_of_the_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    from tidemill.train import runtime

    whole, limits = runtime.train, []

    def watched(*given: Any, **more: Any) -> Any:
        limits.append(more["limits"])
        return whole(*given, **more)

    monkeypatch.setattr(runtime, "train", watched)
    profile, train, valid = data(64, side=32)
    family = pool.families(["quicknet"])["quicknet"]
    config = {**pool.space(CLASSES, profile, ["quicknet"]).default(), "quicknet.epochs": 400}
    assert config["quicknet.coarse"] == 0.5
    begun = time.monotonic()
    family.fit(config, CLASSES, profile, train, valid, TrainBudget(deadline=begun + 4.0), 0)
    first, second = limits
    assert first.shorten
    assert second.shorten
    assert second.deadline == begun + 4.0
    assert begun < first.deadline < begun + 3.0, "they are quicker than whole ones, and half of the epochs"
    assert time.monotonic() - begun < 6.0
