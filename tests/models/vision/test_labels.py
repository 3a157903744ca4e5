"""Families for images where several labels may stand: every output speaks for itself, in the net and in the graph."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="nets need the extra `deep`")

import torch

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.latency import session
from tidemill.core.pack import pack, unpack
from tidemill.core.task import Task, TaskKind
from tidemill.models.training.budget import TrainBudget
from tidemill.models.vision import pool
from tidemill.models.vision._base import ImageData, ImageProfile
from tidemill.models.vision.augment import blend

TAGS = Task(TaskKind.MULTILABEL, "y", ("top", "middle", "bottom"))


def data(count: int = 120, side: int = 12) -> tuple[ImageProfile, ImageData, ImageData]:
    """Noise with bright squares in the places of the labels."""
    rng = np.random.default_rng(0)
    y = (rng.random((count, 3)) < 0.45).astype(np.int8)
    x = rng.integers(0, 90, (count, 3, side, side))
    third = side // 3
    for i, labels in enumerate(y):
        for label in np.flatnonzero(labels):
            x[i, :, label * third : (label + 1) * third, third : 2 * third] += 140
    pixels = x.astype(np.uint8)
    cut = count * 3 // 4
    return (
        ImageProfile.of(pixels),
        ImageData(pixels, y, np.arange(cut)),
        ImageData(pixels, y, np.arange(cut, count)),
    )


@pytest.mark.parametrize(
    ("name", "words", "least"),
    [
        ("probe", {}, 0.9),
        pytest.param(
            "quicknet",
            {"quicknet.epochs": 12, "quicknet.mix": "mixup", "quicknet.smoothing": 0.1},
            0.75,
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.timeout(300)
def test_families_learn_labels_and_export_what_they_learned(name: str, words: dict[str, object], least: float) -> None:
    profile, train, valid = data()
    family = pool.families([name])[name]
    config = {**family.space(TAGS, profile).default(), "family": name, **words}
    torch.set_num_threads(1)
    net = family.fit(config, TAGS, profile, train, valid, TrainBudget(threads=1), 0)
    x, y = valid.x[valid.rows], valid.y[valid.rows] > 0
    p = net.predict(x)
    assert p.shape == y.shape
    assert ((p > 0.5) == y).mean() > least
    assert (p.sum(axis=1) > 1.2).any(), "they are no shares of one"
    graph = GraphBuilder()
    inlet = graph.input("x", np.float32, ["N", *x.shape[1:]])
    graph.output(net.emit(graph, inlet), "scores", np.float32, ["N", "K"])
    (got,) = session(graph.model().SerializeToString()).run(None, {"x": x.astype(np.float32)})
    assert np.abs(got - p).max() < 1e-4
    again = pool.restore(unpack(pack(net.checkpoint())), TAGS)
    assert np.allclose(again.predict(x), p, atol=1e-6)


def test_images_are_blended_with_their_labels() -> None:
    images = torch.zeros(4, 1, 6, 6)
    targets = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    _, mixed = blend(images, targets, np.random.default_rng(0), 2, "mixup")
    assert mixed.shape == (4, 2)
    assert mixed.min() >= 0
    assert mixed.max() <= 1
    assert torch.allclose(mixed.sum(dim=0), targets.sum(dim=0))
