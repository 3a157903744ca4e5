"""One try of a family: built, trained for a step or two, exported, and compared; gives how far the two are apart.

A family that can train in several ways is trained in all of them, and what it keeps is compared each time. The graph is
the same, and takes the longest: it is written after the last.

None stands for a family that could not learn: it begins from weights, and was given none that it can begin from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import TrialError
from tidemill.core.space import Categorical, Space
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config
from tidemill.models.registry import joined_space
from tidemill.search.samplers.baseline import fit_into

TELLING = ("red", "fox", "blue", "whale", "green", "frog", "number")
"""Words of the texts that are tried with."""
_CLASSES = Task(TaskKind.MULTICLASS, "y", ("a", "b", "c"))
_SIDE = 16
_DOUBT = 0.4
"""Share of rows whose class is left to chance."""
_LEAST_SPREAD = 0.01
"""Probabilities of a class that lie nearer together than that are all alike."""


def try_image(name: str, weights: tuple[str, ...] = (), channels: int = 3) -> float | None:
    """Train on small images of three classes, in every way that the family has."""
    from tidemill.models.vision import pool as images

    profile, train, valid = _images(channels, weights)
    family = images.families([name])[name]
    space = _space(family, profile, weights)
    if space is None:
        return None
    return max(_images_apart(family, _ways(space, name), profile, train, valid))


def _images(channels: int, weights: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """Profile, training images with a bright stripe in a place that is the class, and others."""
    from tidemill.models.vision._base import ImageData, ImageProfile

    rng = np.random.default_rng(0)
    meant = np.arange(48) % 3
    x = rng.integers(0, 120, (48, channels, _SIDE, _SIDE)).astype(np.uint8)
    for place, label in enumerate(meant):
        x[place, :, 5 * label : 5 * label + 5] += 100
    profile, y = ImageProfile.of(x, weights=weights), _doubted(meant)
    return profile, ImageData(x, y, np.arange(36)), ImageData(x, y, np.arange(36, 48))


def _doubted(classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Deal a part anew: a model that is sure of everything says 0 and 1, and so does its graph, wrong or right."""
    rng = np.random.default_rng(1)
    return np.where(rng.random(len(classes)) < _DOUBT, rng.integers(0, 3, len(classes)), classes)


def _space(family: Any, profile: Any, weights: tuple[str, ...], task: Task = _CLASSES) -> Space | None:
    """The space of a family alone; None where it can't learn, or begins from none of the weights that it is to."""
    if not family.supports(task, profile):
        return None
    space = joined_space({family.name: family}, task, profile)
    begins = {c for p in space if p.name == f"{family.name}.weights" and isinstance(p, Categorical) for c in p.choices}
    return space if not weights or begins & set(weights) else None


def _ways(space: Space, name: str) -> list[Config]:
    """The default config, cut to an epoch; of a family that can tune or do without, and adapt, one of each."""
    wanted: list[Config] = [{"family": name}]
    known = {param.name for param in space}
    if f"{name}.mode" in known:
        wanted.append({**wanted[0], f"{name}.mode": "tune"})
    if f"{name}.lora" in known:
        wanted.append({**wanted[-1], f"{name}.lora": 8})
    whole = (config for each in wanted if (config := fit_into(space, each)) is not None)
    return [{key: 1 if key.endswith(".epochs") else value for key, value in config.items()} for config in whole]


def _images_apart(family: Any, ways: list[Config], profile: Any, train: Any, valid: Any) -> Iterator[float]:
    from tidemill.bundle.graph import GraphBuilder
    from tidemill.bundle.latency import session

    def asked(net: Any) -> Any:
        graph = GraphBuilder()
        inlet = graph.input("x", np.float32, ["N", *train.x.shape[1:]])
        graph.output(net.emit(graph, inlet), "scores", np.float32, ["N", 3])
        return session(graph.model().SerializeToString()).run(None, {"x": train.x.astype(np.float32)})[0]

    return _all_apart(family, ways, profile, train, valid, asked)


def _all_apart(
    family: Any, ways: list[Config], profile: Any, train: Any, valid: Any, asked: Callable[[Any], Any]
) -> Iterator[float]:
    """What is kept of each way against what was trained, then the graph's answers against the last that was kept."""
    from tidemill.models.training.budget import TrainBudget

    kept = None
    for config in ways:
        model = family.fit(config, _CLASSES, profile, train, valid, TrainBudget(), seed=0)
        kept = family.restore(model.checkpoint(), _CLASSES)
        answers = model.predict(train.x)
        if float(np.ptp(answers, axis=0).max()) < _LEAST_SPREAD:
            raise TrialError(f"Its answers are all alike, so that nothing is proven by comparing them: {config}.")
        yield _apart(kept.predict(train.x), answers)
    assert kept is not None, "every family has a way"
    yield _apart(asked(kept), kept.predict(train.x))


def _apart(one: Any, other: Any) -> float:
    return float(np.abs(one - other).max())


def write_study(folder: Path) -> str:
    """Train a small net of our own, and write it as weights of a study; gives the folder."""
    from tidemill.models.training.budget import TrainBudget
    from tidemill.models.vision import pool as images
    from tidemill.models.vision.weights import write_weights

    profile, train, valid = _images(3, ())
    family = images.families(["quicknet"])["quicknet"]
    config = _ways(joined_space({"quicknet": family}, _CLASSES, profile), "quicknet")[0]
    net = family.fit(config, _CLASSES, profile, train, valid, TrainBudget(), seed=0)
    write_weights(net.checkpoint(), folder)
    return str(folder)


def try_text(name: str, weights: tuple[str, ...] = ()) -> float | None:
    """Train on small texts of three classes."""
    from tidemill.models.text import pool as texts
    from tidemill.models.text._base import TextData, TextProfile
    from tidemill.models.text.folders import is_text_encoder

    if not all(is_text_encoder(place) for place in weights):
        return None
    meant = np.arange(48) % 3
    x = np.array([f"{TELLING[2 * label]} {TELLING[2 * label + 1]} number {i}" for i, label in enumerate(meant)], object)
    y = _doubted(meant)
    profile = TextProfile.of(x, weights=weights)
    family = texts.families([name])[name]
    space = _space(family, profile, weights)
    if space is None:
        return None
    train, valid = TextData(x, y, np.arange(36)), TextData(x, y, np.arange(36, 48))
    return max(_texts_apart(family, _ways(space, name), profile, train, valid))


def _texts_apart(family: Any, ways: list[Config], profile: Any, train: Any, valid: Any) -> Iterator[float]:
    from tidemill.bundle.graph import GraphBuilder
    from tidemill.bundle.latency import session
    from tidemill.bundle.runner.texts.reading import answer_texts

    def asked(model: Any) -> Any:
        graph = GraphBuilder()
        for reader in model.readers:
            reader.declare(graph)
        graph.output(model.emit(graph, ""), "scores", np.float32, ["N", 3])
        run = session(graph.model().SerializeToString())
        return answer_texts(run, [reader.read for reader in model.readers], [str(text) for text in train.x])["scores"]

    return _all_apart(family, ways, profile, train, valid, asked)


def try_line(name: str, weights: tuple[str, ...] = ()) -> float | None:
    """Train for an epoch on small lines of stripes, export, compare."""
    from tidemill.bundle.graph import GraphBuilder
    from tidemill.bundle.latency import session
    from tidemill.core import transcripts
    from tidemill.models.recognition import pool as lines
    from tidemill.models.recognition._base import LineData, LineProfile
    from tidemill.models.recognition.samples import side_by_side
    from tidemill.models.training.budget import TrainBudget

    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, (24, 3))
    x = np.empty(24, dtype=object)
    for place, row in enumerate(codes):
        line = rng.integers(180, 255, (16, 48)).astype(np.uint8)
        for at, code in enumerate(row):
            line[2 + 4 * code : 6 + 4 * code, 16 * at + 4 : 16 * at + 12] = 20
        x[place] = line
    y = transcripts.to_codes(["".join("abc"[c] for c in row) for row in codes])
    task, profile = Task(TaskKind.RECOGNITION, "y"), LineProfile.of(x, y, weights=weights)
    family = lines.families([name])[name]
    space = _space(family, profile, weights, task)
    if space is None:
        return None
    config = _ways(space, name)[0]
    train, valid = LineData(x, y, np.arange(18)), LineData(x, y, np.arange(18, 24))
    net = family.restore(family.fit(config, task, profile, train, valid, TrainBudget(), seed=0).checkpoint(), task)
    graph = GraphBuilder()
    frames = net.emit(graph, graph.input("x", np.float32, ["N", 1, 16, "V"]))
    graph.output(frames, "frames", np.float32, ["N", "T", len(net.alphabet) + 1])
    got = session(graph.model().SerializeToString()).run(None, {"x": side_by_side(list(x))})[0]
    return float(np.abs(np.exp(net.frames(list(x))) - np.exp(got)).max())


def try_table(name: str) -> float:
    """Train the default on a small table, export, compare."""
    from tidemill.bundle.graph import GraphBuilder
    from tidemill.bundle.latency import session
    from tidemill.models import pool as tables
    from tidemill.models.tabular import pipeline
    from tidemill.models.tabular._base import Feature, FeatureKind, FitBudget, TableProfile, TabularData

    rng = np.random.default_rng(0)
    numbers, codes = rng.normal(size=(200, 4)), rng.integers(0, 3, 200)
    x = np.column_stack([numbers, codes]).astype(np.float32)
    y = np.digitize(numbers[:, 0] + 0.5 * (codes == 1), [-0.4, 0.6]).astype(np.int64)
    features = (
        *(Feature(f"x{i}", f"x{i}", FeatureKind.NUMBER) for i in range(4)),
        Feature("c", "c", FeatureKind.CATEGORY, 3),
    )
    task, profile = Task(TaskKind.MULTICLASS, "y", ("a", "b", "c")), TableProfile(200, features)
    config = tables.default_config(name, task, profile)
    rows = np.arange(200)
    fitted = pipeline.fit(config, task, TabularData(x, features, y), rows[:150], rows[150:], FitBudget(), 0)
    graph = GraphBuilder()
    graph.output(fitted.emit(graph, graph.input("x", np.float32, ["N", 5])), "scores", np.float32, ["N", 3])
    got = session(graph.model().SerializeToString()).run(None, {"x": x})[0]
    return float(np.abs(fitted.predict(x) - got).max())
