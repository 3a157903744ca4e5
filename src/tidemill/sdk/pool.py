"""The pool of families, of every modality: what there is, what is known of each, and whether it still works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.core.errors import NotFoundError, TidemillError
from tidemill.core.task import Task, TaskKind

_TABLE = "table of 200 rows, 4 numbers and a category"
_SIDE = 32
_IMAGES = f"{_SIDE} × {_SIDE} pixels of 3 channels, 10 classes"
_TEXTS = "1,000 texts of 120 characters, 10 classes"
_LINES = "1,000 lines of 32 × 256 pixels, 26 characters"
_TASKS = ("binary", "multiclass", "regression")
_BARS = {"table": 1e-5, "image": 1e-4, "text": 1e-4, "line": 1e-4}
"""How far graph and model may be apart, as for a bundle."""


@dataclass(frozen=True)
class Entry:
    """One family.

    Parameters
    ----------
    name, modality : str
        Its name, and what it learns from: ``"table"``, ``"image"``, ``"text"`` or ``"line"``.
    about : str
        One sentence.
    tasks : tuple of str
        Kinds of tasks.
    weights : tuple of str
        Forms of trained weights that it can begin from.
    licence : str
        Of its code.
    export : str
        The form in which it leaves the house.
    origin : str
        ``"tidemill"``, or the package that registered it.
    absent : str or None
        Why it can't be used here.
    """

    name: str
    modality: str
    about: str
    tasks: tuple[str, ...]
    weights: tuple[str, ...]
    licence: str
    export: str
    origin: str
    absent: str | None


@dataclass(frozen=True)
class Check:
    """How the check of a family ended.

    Parameters
    ----------
    name, modality : str
        The family.
    ok : bool
        True where it was trained, exported, and its graph answers as it does.
    message : str
        What was wrong; or why it was not tried; else empty.
    max_abs_dp : float or None
        Largest difference between graph and model.
    seconds : float
        How long it took.
    """

    name: str
    modality: str
    ok: bool
    message: str
    max_abs_dp: float | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**vars(self), "seconds": round(self.seconds, 2)}


def entries() -> list[Entry]:
    """Every family that is known, tables first.

    Examples
    --------
    >>> {"table", "image", "text", "line"} <= {entry.modality for entry in entries()}
    True
    """
    from tidemill.models import pool as tables
    from tidemill.models.recognition import pool as lines
    from tidemill.models.text import pool as texts
    from tidemill.models.vision import pool as images

    out = [
        Entry(e.name, "table", _ABOUT.get(e.name, ""), _TASKS, (), "Apache-2.0" if e.origin == "tidemill" else "",
              "onnx", e.origin, e.absent)
        for e in tables.entries()
    ]  # fmt: skip
    out += [
        Entry(e.name, "image", e.about, _TASKS, e.weights, e.licence, e.export, e.origin, e.absent)
        for e in images.entries()
    ]
    out += [
        Entry(e.name, "text", e.about, _TASKS, e.weights, e.licence, e.export, e.origin, e.absent)
        for e in texts.entries()
    ]
    out += [
        Entry(e.name, "line", e.about, ("recognition",), e.weights, e.licence, e.export, e.origin, e.absent)
        for e in lines.entries()
    ]
    return out


_ABOUT = {
    "lightgbm": "gradient boosting, leaf by leaf",
    "xgboost": "gradient boosting, level by level",
    "catboost": "gradient boosting with ordered categories",
    "forest": "random forests and extremely randomised trees",
    "linear": "linear and logistic regression",
    "neighbours": "nearest neighbours",
    "bayes": "naive Bayes",
    "mlp": "a small neural net",
    "tabm": "a neural net of members that share their weights, with embedded numbers (TabM)",
}


def list_pool(modality: str | None = None) -> list[dict[str, Any]]:
    """One row for each family, for people."""
    if modality is not None and modality not in _BARS:
        raise NotFoundError.of("modality", modality, _BARS)
    return [
        {
            "family": e.name,
            "modality": e.modality,
            "about": e.about,
            "weights": ", ".join(e.weights) or None,
            "export": e.export,
            "usable": "yes" if e.absent is None else e.absent,
        }
        for e in entries()
        if modality in (None, e.modality)
    ]


def show_pool(name: str) -> dict[str, Any]:
    """Everything that is known of a family; parameters and FLOPs are counted on a reference input.

    Raises
    ------
    NotFoundError
        If there is no such family.
    """
    entry = _entry(name)
    found: dict[str, Any] = {
        "family": entry.name,
        "modality": entry.modality,
        "about": entry.about,
        "tasks": list(entry.tasks),
        "input": {"table": _TABLE, "image": _IMAGES, "text": _TEXTS, "line": _LINES}[entry.modality],
        "licence": entry.licence,
        "weights": list(entry.weights),
        "export": entry.export,
        "origin": entry.origin,
        "usable": entry.absent is None,
        "reason": entry.absent,
    }
    if entry.absent is None:
        found |= _counted(entry)
    return found


def check_pool(names: tuple[str, ...] = ()) -> Iterator[Check]:
    """Build, train, export and compare every family, or those that are named, one after the other.

    Raises
    ------
    NotFoundError
        For a name that no family has.
    """
    wanted = [_entry(name) for name in names] if names else entries()
    for entry in wanted:
        yield _checked(entry)


def _entry(name: str) -> Entry:
    known = {e.name: e for e in entries()}
    if name not in known:
        raise NotFoundError.of("family", name, known)
    return known[name]


def _counted(entry: Entry) -> dict[str, Any]:
    """Parameters of the space, and what the default costs where that is known before training."""
    task = Task(TaskKind.MULTICLASS, "y", tuple("abcdefghij"))
    if entry.modality == "line":
        from tidemill.models.recognition import pool as lines
        from tidemill.models.recognition._base import LineProfile

        wanted = Task(TaskKind.RECOGNITION, "y")
        seen = LineProfile(1000, _SIDE, 256.0, "abcdefghijklmnopqrstuvwxyz", 128.0, 64.0)
        config = lines.space(wanted, seen, [entry.name]).default()
        cost = lines.families([entry.name])[entry.name].cost(config, wanted, seen)
        return {"space": sorted(set(config) - {"family"}), "params": cost.params, "flops": cost.flops}
    if entry.modality == "text":
        from tidemill.models.text import pool as texts
        from tidemill.models.text._base import TextProfile

        read = TextProfile(1000, 120.0, 200)
        if not texts.families([entry.name])[entry.name].supports(task, read):  # it begins from weights
            return {"space": [], "params": None, "flops": None}
        config = texts.space(task, read, [entry.name]).default()
        cost = texts.families([entry.name])[entry.name].cost(config, task, read)
        return {"space": sorted(set(config) - {"family"}), "params": cost.params, "flops": cost.flops}
    if entry.modality == "image":
        from tidemill.models.vision import pool as images
        from tidemill.models.vision._base import ImageProfile

        profile = ImageProfile(1000, _SIDE, _SIDE, 3, (128.0,) * 3, (64.0,) * 3)
        family = images.families([entry.name])[entry.name]
        if not family.supports(task, profile):
            return {"space": [], "params": None, "flops": None}
        config = images.space(task, profile, [entry.name]).default()
        cost = family.cost(config, task, profile)
        return {"space": sorted(set(config) - {"family"}), "params": cost.params, "flops": cost.flops}
    from tidemill.models import pool as tables
    from tidemill.models.tabular._base import Feature, FeatureKind, TableProfile

    features = tuple(Feature(f"x{i}", f"x{i}", FeatureKind.NUMBER) for i in range(4))
    table = TableProfile(200, (*features, Feature("c", "c", FeatureKind.CATEGORY, 3)))
    known = tables.space(task, table, [entry.name])
    cost = tables.families([entry.name])[entry.name].cost(known.default(), task, table)
    return {"space": sorted({p.name for p in known} - {"family"}), "params": cost.params, "flops": cost.flops}


def _checked(entry: Entry) -> Check:
    if entry.absent is not None:
        return Check(entry.name, entry.modality, True, f"not tried: {entry.absent}", None, 0.0)
    begun = time.monotonic()
    hows: dict[str, Callable[[str], float | None]] = {"table": _try_table, "image": _try_image, "text": _try_text}
    hows["line"] = _try_line
    how = hows[entry.modality]
    try:
        apart = how(entry.name)
    except TidemillError as error:
        return Check(entry.name, entry.modality, False, str(error), None, time.monotonic() - begun)
    seconds = time.monotonic() - begun
    if apart is None:
        return Check(entry.name, entry.modality, True, "not tried: it needs weights, see --weights", None, seconds)
    bar = _BARS[entry.modality]
    message = "" if apart <= bar else f"graph and model differ by {apart:.2g}, more than {bar:g}"
    return Check(entry.name, entry.modality, not message, message, apart, seconds)


def _try_image(name: str) -> float | None:
    """Train for an epoch on small images of three classes, export, compare."""
    from tidemill.bundle.graph import GraphBuilder
    from tidemill.bundle.latency import session
    from tidemill.models.training.budget import TrainBudget
    from tidemill.models.vision import pool as images
    from tidemill.models.vision._base import ImageData, ImageProfile

    rng = np.random.default_rng(0)
    y = np.arange(48) % 3
    x = rng.integers(0, 120, (48, 3, 16, 16)).astype(np.uint8)
    x[np.arange(48), y] += 100
    profile, task = ImageProfile.of(x), Task(TaskKind.MULTICLASS, "y", ("a", "b", "c"))
    family = images.families([name])[name]
    if not family.supports(task, profile):
        return None
    config = images.space(task, profile, [name]).default()
    config = {k: 1 if k.endswith(".epochs") else v for k, v in config.items()}
    rows = np.arange(36)
    net = family.fit(
        config, task, profile, ImageData(x, y, rows), ImageData(x, y, np.arange(36, 48)), TrainBudget(), seed=0
    )
    kept = family.restore(net.checkpoint(), task)
    graph = GraphBuilder()
    graph.output(kept.emit(graph, graph.input("x", np.float32, ["N", *x.shape[1:]])), "scores", np.float32, ["N", 3])
    got = session(graph.model().SerializeToString()).run(None, {"x": x.astype(np.float32)})[0]
    return float(np.abs(net.predict(x) - got).max())


def _try_text(name: str) -> float | None:
    """Train on small texts of three classes, export, compare."""
    from tidemill.bundle.graph import GraphBuilder
    from tidemill.bundle.latency import session
    from tidemill.bundle.runner.texts.reading import answer_texts
    from tidemill.models.text import pool as texts
    from tidemill.models.text._base import TextData, TextProfile
    from tidemill.models.training.budget import TrainBudget

    words = ("red fox", "blue whale", "green frog")
    y = np.arange(48) % 3
    x = np.array([f"{words[label]} number {i}" for i, label in enumerate(y)], dtype=object)
    profile, task = TextProfile.of(x), Task(TaskKind.MULTICLASS, "y", ("a", "b", "c"))
    family = texts.families([name])[name]
    if not family.supports(task, profile):
        return None
    config = texts.space(task, profile, [name]).default()
    train, valid = TextData(x, y, np.arange(36)), TextData(x, y, np.arange(36, 48))
    model = family.fit(config, task, profile, train, valid, TrainBudget(), seed=0)
    kept = family.restore(model.checkpoint(), task)
    graph = GraphBuilder()
    for reader in kept.readers:
        reader.declare(graph)
    graph.output(kept.emit(graph, ""), "scores", np.float32, ["N", 3])
    run = session(graph.model().SerializeToString())
    got = answer_texts(run, [reader.read for reader in kept.readers], [str(text) for text in x])["scores"]
    return float(np.abs(model.predict(x) - got).max())


def _try_line(name: str) -> float:
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
    task, profile = Task(TaskKind.RECOGNITION, "y"), LineProfile.of(x, y)
    family = lines.families([name])[name]
    config = lines.space(task, profile, [name]).default()
    config = {k: 1 if k.endswith(".epochs") else v for k, v in config.items()}
    train, valid = LineData(x, y, np.arange(18)), LineData(x, y, np.arange(18, 24))
    net = family.restore(family.fit(config, task, profile, train, valid, TrainBudget(), seed=0).checkpoint(), task)
    graph = GraphBuilder()
    frames = net.emit(graph, graph.input("x", np.float32, ["N", 1, 16, "V"]))
    graph.output(frames, "frames", np.float32, ["N", "T", len(net.alphabet) + 1])
    got = session(graph.model().SerializeToString()).run(None, {"x": side_by_side(list(x))})[0]
    return float(np.abs(np.exp(net.frames(list(x))) - np.exp(got)).max())


def _try_table(name: str) -> float:
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
