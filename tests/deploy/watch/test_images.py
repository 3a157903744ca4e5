"""Images that became darker, or came in another size, are seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tidemill.bundle.images.properties import PROPERTIES, properties_of
from tidemill.bundle.parts import Answers
from tidemill.bundle.reference.build import build
from tidemill.bundle.reference.file import Reference
from tidemill.bundle.spec import BundleSpec
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.core.task import Task, TaskKind
from tidemill.deploy.watch.facts import Facts
from tidemill.deploy.watch.judge import judge
from tidemill.deploy.watch.recent import Batch
from tidemill.deploy.watch.sketch import CHUNK, IMAGES, Sketch, Sketcher

TASK = Task(TaskKind.BINARY, "y", ("no", "yes"))


def images(seed: int, count: int, *, side: int = 6, dark: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    tone = rng.integers(60, 200, (count, 1, 1, 1))
    return np.clip(tone + rng.integers(-50, 50, (count, side, side, 3)) - dark, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def reference() -> Reference:
    shown = images(0, 2000)
    p = np.random.default_rng(0).beta(2, 2, 2000)
    answers = Answers(np.stack([1 - p, p], axis=1).astype(np.float32), (p > 0.5).astype(np.int64))
    schema = Schema(tuple(Column(name, SemanticType.NUMBER) for name in PROPERTIES))
    built = build(schema, TASK, properties_of(shown), answers)
    return replace(built, features=tuple(replace(c, input="") for c in built.features))


def sketch(reference: Reference, sent: np.ndarray, size: int = CHUNK) -> Sketch:
    p = np.random.default_rng(1).beta(2, 2, len(sent))
    probabilities = np.stack([1 - p, p], axis=1)
    labels = np.array(TASK.classes, dtype=object)[(p > 0.5).astype(int)]
    sketcher = Sketcher(reference, TASK.classes)
    for start in range(0, len(sent), size):
        part = slice(start, start + size)
        outputs = {"label": labels[part], "probabilities": probabilities[part]}
        ids = ["r"] * len(sent[part])
        sketcher.add(Batch("a1", {"image": sent[part]}, outputs, ids, 0.0))
    sketcher.flush()
    return sketcher.take()


@pytest.mark.parametrize("size", [CHUNK, 64, 1])
def test_some_images_of_every_chunk_are_counted(reference: Reference, size: int) -> None:
    found = sketch(reference, images(1, 4 * CHUNK), size)
    assert found.rows == 4 * CHUNK
    assert not found.unreadable
    for name in PROPERTIES:
        assert 4 * IMAGES * 0.5 <= found.counts[name].sum() <= 4 * IMAGES * 2


def test_images_like_those_of_training_raise_nothing(reference: Reference) -> None:
    assert [j.name for j in judge(reference, sketch(reference, images(2, 4 * CHUNK))) if j.beyond] == []


def test_darker_and_larger_images_are_seen(reference: Reference) -> None:
    beyond = {j.name for j in judge(reference, sketch(reference, images(3, 4 * CHUNK, dark=60))) if j.beyond}
    assert "brightness" in beyond
    assert "width" not in beyond
    beyond = {j.name for j in judge(reference, sketch(reference, images(4, 4 * CHUNK, side=9))) if j.beyond}
    assert {"width", "height"} <= beyond


def test_a_property_is_no_input(reference: Reference) -> None:
    spec: BundleSpec | None = None
    assert Facts(spec, reference).columns() == {}
