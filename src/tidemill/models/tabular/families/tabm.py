"""TabM: a perceptron that is an ensemble, its members sharing their weights, with embedded numbers.

Gorishniy et al., "TabM", arXiv 2410.24210, for the members; "On embeddings for numerical features",
arXiv 2203.05556, for the numbers; Holzmüller et al., "Better by default" (RealMLP), arXiv 2407.04491, for scales,
rates and schedule.

The engine is numpy, as for `mlp`. The default install has no torch, and little would be won by it on a processor: the
members' rows stand below each other, so that a layer is one large matrix product for all of them, and next to the
products the rest is cheap. Workers start without loading torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.space import Categorical, Float, Param, Space, When
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models.tabular._base import FitBudget, Matrix, TableProfile, TabularData
from tidemill.models.tabular.families import _links, _offers
from tidemill.models.tabular.families._batch_ensemble import Acting, BatchEnsemble, Numbers, SharedLayer
from tidemill.models.tabular.families._embedding import MOST_NUMBERS, WAVES, WIDTH, Embedding, numbers_in
from tidemill.models.tabular.families._net import Layer, emit_activation, emit_mean_scores, mean_scores
from tidemill.models.tabular.families._training import PATIENCE, Recipe, Training, learnable
from tidemill.models.tabular.pipeline import treated_profile

_SHAPES = {"small": (64, 64), "medium": (128, 128), "deep": (128, 128, 128), "wide": (256, 256)}
_EPOCHS = 200
"""Passes over the rows, divided by the fourth root of their number: 28 of 2,500 rows, 20 of 10,000."""
_LEAST_EPOCHS, _MOST_EPOCHS = 10, 60
_LEAST_BATCH, _MOST_BATCH = 32, 128
"""Small steps pay even on many rows: after as many passes, 128 rows were better than 256 in cross-validation."""
_MANY_ROWS = 4000
"""From here on mean targets instead of rare one-hot columns, as for `mlp`."""
_VERY_MANY_ROWS = 10_000
"""From here on four members are enough by default, and a regression follows its numbers closely: quick waves, nothing
left out, larger steps. Cross-validation liked that on california_housing and bike_hour; abalone was overfitted."""
_CHUNK = 1024
"""Rows that are predicted at a time: what all members make of them fits the second-level cache."""


class TabM:
    """A perceptron with members that share their weights, and waves of its numbers: good on smooth targets."""

    name: ClassVar[str] = "tabm"
    bagged: ClassVar[bool] = True

    def supports(self, task: Task, profile: TableProfile) -> bool:
        """Any table with a column and ten rows."""
        return profile.rows >= 10 and len(profile.features) > 0

    def space(self, task: Task, profile: TableProfile) -> Space:
        """Shape, embedding, pace and regularisation."""
        many = profile.rows >= _VERY_MANY_ROWS
        close = many and not task.kind.is_classification
        periodic = (When("tabm.embedding", ("periodic",)),)
        params: list[Param] = [
            Categorical("tabm.shape", tuple(_SHAPES), "medium"),
            Categorical("tabm.members", (2, 4, 8, 16), 4 if many else 8),
            Categorical("tabm.embedding", ("periodic", "pieces", "none"), "periodic"),
            Float("tabm.frequency", 0.03, 3.0, 1.0 if close else 0.2, log=True, when=periodic),
            Categorical("tabm.activation", ("silu", "relu"), "silu"),
            Float("tabm.learning_rate", 5e-3, 0.2, 0.05 if close else 0.03, log=True),
            Categorical("tabm.schedule", tuple(PATIENCE), "cosine"),
            Categorical("tabm.effort", (1, 2, 4), 1),
            Float("tabm.dropout", 0.0, 0.5, 0.0 if close else 0.1),
            Float("tabm.weight_decay", 1e-4, 0.3, 0.02, log=True),
        ]
        if task.kind.is_classification:
            params.append(Float("tabm.label_smoothing", 0.0, 0.1, 0.0))
        return Space(params)

    def treatment(self, task: Task, profile: TableProfile) -> Mapping[str, tuple[Any, ...]]:
        """Everything to numbers within a few units of 0, which waves need; bending is the embedding's affair."""
        category: tuple[str, ...] = ("onehot", "mixed", "full")
        if profile.rows >= _MANY_ROWS:
            category = ("mixed", "onehot", "full")
        return _offers.smooth(
            task,
            profile,
            number=("quantile", "robust", "quantile and spline"),
            category=category,
            target=("raw", "sqrt", "log"),
        )

    def cost(self, config: Config, task: Task, profile: TableProfile) -> Cost:
        """An upper bound: columns with two values, which training tells from the others, count as numbers, too."""
        width = len(treated_profile(config, task, profile).features)
        numbers = 0
        if config["tabm.embedding"] != "none":
            # Of what stands for a category only its mean target has more than two values.
            plain = {**config, "tabm.treatment.category": "target", "tabm.treatment.select": "varying"}
            numbers = min(width, MOST_NUMBERS, len(treated_profile(plain, task, profile).features))
        hidden, outputs = _SHAPES[config["tabm.shape"]], _links.n_logits(task)
        return _cost(width, numbers, hidden, outputs, int(config["tabm.members"]))

    def fit(
        self,
        config: Config,
        task: Task,
        train: TabularData,
        valid: TabularData | None,
        budget: FitBudget,
        seed: int,
    ) -> FittedTabM:
        """Train by Adam on minibatches, keep the epoch with the best validation loss."""
        train, rng = learnable(train), np.random.default_rng(seed)
        get = {k.removeprefix("tabm."): v for k, v in config.items()}.get
        network = BatchEnsemble(
            train.x,
            _numbers(str(get("embedding", "periodic")), float(get("frequency", 0.2)), train),
            _links.n_logits(task),
            _SHAPES[get("shape", "medium")],
            int(get("members", 8)),
            str(get("activation", "silu")),
            rng,
        )

        def freeze(rounds: int) -> FittedTabM:
            return FittedTabM(network.acting(), task, rounds)

        return Training(network, _recipe(config, len(train.x)), task, train, rng).run(freeze, valid, budget)

    def restore(self, state: dict[str, Any], task: Task) -> FittedTabM:
        """Read the weights."""
        embedding = None if state["embedding"] is None else Embedding(**state["embedding"])
        layers = tuple(SharedLayer(s["r"], s["w"], s["b"]) for s in state["layers"])
        head = Layer(state["head"]["w"], state["head"]["b"])
        return FittedTabM(Acting(embedding, layers, head, state["activation"]), task, state["rounds"])


@dataclass(frozen=True)
class FittedTabM:
    """Weights of all members.

    Parameters
    ----------
    network : Acting
        The weights.
    task : Task
        Says how outputs become scores.
    rounds : int
        Epochs after which the weights were kept.
    """

    network: Acting
    task: Task
    rounds: int

    @property
    def cost(self) -> Cost:
        """All weights, those that members share counted once; a multiply-add counts 2, for each member."""
        embedding, layers, head = self.network.embedding, self.network.layers, self.network.head
        numbers = 0 if embedding is None else len(embedding.columns)
        columns = layers[0].w.shape[0] - numbers * WIDTH
        hidden = tuple(layer.w.shape[1] for layer in layers)
        return _cost(columns, numbers, hidden, head.w.shape[2], head.w.shape[0])

    def predict(self, x: Matrix) -> NDArray[np.float32]:
        """Mean over members, in numpy."""
        parts = [mean_scores(self.network.run(x[i : i + _CHUNK]), self.task) for i in range(0, len(x), _CHUNK)]
        return np.concatenate(parts) if parts else np.empty((0, self.task.n_outputs), dtype=np.float32)

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """One product for all members in each hidden layer; members are averaged at the end."""
        network = self.network
        h = x if network.embedding is None else network.embedding.emit(graph, x)
        for layer in network.layers:
            own = graph.op("Mul", h, graph.const(layer.r))
            z = graph.op("Add", graph.op("MatMul", own, graph.const(layer.w)), graph.const(layer.b))
            h = emit_activation(graph, z, network.activation)
        z = graph.op("Add", graph.op("MatMul", h, graph.const(network.head.w)), graph.const(network.head.b))
        return emit_mean_scores(graph, z, self.task)

    def checkpoint(self) -> dict[str, Any]:
        """The weights."""
        network = self.network
        return {
            "embedding": None if network.embedding is None else network.embedding.state(),
            "layers": [{"r": la.r, "w": la.w, "b": la.b} for la in network.layers],
            "head": {"w": network.head.w, "b": network.head.b},
            "activation": network.activation,
            "rounds": self.rounds,
        }


def _numbers(kind: str, frequency: float, train: TabularData) -> Numbers | None:
    """Say what is embedded; nothing where there is nothing to embed."""
    if kind == "none":
        return None
    columns = numbers_in(train.x, train.features)
    return Numbers(kind, columns, frequency) if len(columns) else None


def _recipe(config: Config, n: int) -> Recipe:
    """Read a config; ``tabm.batch``, ``tabm.epochs`` and ``tabm.rounds`` stand in no space."""
    get = {k.removeprefix("tabm."): v for k, v in config.items()}.get
    batch = int(get("batch", 0)) or int(np.clip(2 ** round(np.log2(max(n, 1) / 40)), _LEAST_BATCH, _MOST_BATCH))
    usual = int(np.clip(_EPOCHS / n**0.25, _LEAST_EPOCHS, _MOST_EPOCHS))
    rounds = get("rounds")
    return Recipe(
        learning_rate=float(get("learning_rate", 0.03)),
        batch=batch,
        epochs=int(get("epochs", 0)) or int(get("effort", 1)) * usual,
        dropout=float(get("dropout", 0.1)),
        weight_decay=float(get("weight_decay", 0.02)),
        label_smoothing=float(get("label_smoothing", 0.0)),
        schedule=str(get("schedule", "cosine")),
        rounds=None if rounds is None else int(rounds),
    )


def _cost(columns: int, numbers: int, hidden: tuple[int, ...], outputs: int, members: int) -> Cost:
    """Count; ``numbers`` of the ``columns`` are embedded."""
    widths = (columns + numbers * WIDTH, *hidden)
    products = sum(a * b for a, b in pairwise(widths))
    own = sum(widths) + sum(hidden) - hidden[-1] + (hidden[-1] + 1) * outputs
    params = numbers * (2 * WAVES + (WAVES + 1) * WIDTH) + products + members * own
    waves = numbers * (3 * WAVES + (2 * WAVES + 1) * WIDTH)
    each = 2 * products + sum(widths[:-1]) + 3 * sum(hidden) + (2 * hidden[-1] + 4) * outputs
    return Cost(params, waves + members * each, 4 * params + 4000)


FAMILY = TabM()
