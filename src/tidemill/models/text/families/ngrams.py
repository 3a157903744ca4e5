"""Counted pieces of text, weighed by how rare they are, and a linear model on them: an answer within seconds."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.runner.texts.reading import grams_of
from tidemill.bundle.texts.readers import Reader
from tidemill.core.errors import TrialError, TrialTimeoutError
from tidemill.core.space import Categorical, Float, Param, Space
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config, Cost
from tidemill.models.text._base import TextData, TextProfile, Texts
from tidemill.models.training.budget import TrainBudget

_CHUNK = 1_000
"""Texts whose pieces are counted at a time."""
_LEAST = 2
"""A piece that stands in fewer texts says nothing about others."""
_SHORTEST = 3
"""Of the pieces made of characters."""
_TINY = 1e-12
_NEVER = 30.0
"""Logit below the others of a class that was in no text that was trained on."""


@dataclass(frozen=True)
class Block:
    """Pieces of one kind, with what each of them says.

    Parameters
    ----------
    reader : Reader
        Which pieces there are.
    rarity : ndarray of float32, shape (pieces,)
        ``log((1 + texts) / (1 + texts with it)) + 1``.
    weight : ndarray of float32, shape (pieces, outputs)
        Of the linear model.
    """

    reader: Reader
    rarity: NDArray[np.float32]
    weight: NDArray[np.float32]


class NgramModel:
    """TF-IDF of words and of characters, each of length 1, and one linear model on both.

    Parameters
    ----------
    config : Config
        The family's parameters.
    blocks : sequence of Block
        At least one.
    bias : ndarray of float32
        Of the linear model: one for two classes, one for each of more classes, or one for a value.
    shift, scale : float
        Of a regression's values.
    classes : int
        0 for a regression.
    cost : Cost
        As counted.
    several : bool
        Whether a text may have several of the classes: then every output is a logit of its own.
    """

    def __init__(
        self,
        config: Config,
        blocks: Sequence[Block],
        bias: NDArray[np.float32],
        shift: float,
        scale: float,
        classes: int,
        cost: Cost,
        *,
        several: bool = False,
    ) -> None:
        self.config, self.blocks, self.bias, self.cost = dict(config), tuple(blocks), bias, cost
        self.shift, self.scale, self.classes, self.several = shift, scale, classes, several
        self._damped = bool(config["ngrams.damped"])

    @property
    def readers(self) -> tuple[Reader, ...]:
        """One for each kind of pieces."""
        return tuple(block.reader for block in self.blocks)

    def predict(self, x: Texts) -> NDArray[np.float32]:
        """Probabilities (n, K) or values (n, 1)."""
        texts = [str(text) for text in x]
        z = np.tile(self.bias.astype(np.float64), (len(texts), 1))
        for block in self.blocks:
            z += matrix_of(block.reader, block.rarity, texts, self._damped) @ block.weight.astype(np.float64)
        if not self.classes:
            return np.asarray(z * self.scale + self.shift, dtype=np.float32)
        if self.several:
            return np.asarray(1.0 / (1.0 + np.exp(-np.clip(z, -500, 500))), dtype=np.float32)
        if self.classes == 2:
            p = 1.0 / (1.0 + np.exp(-np.clip(z, -500, 500)))
            return np.asarray(np.hstack([1.0 - p, p]), dtype=np.float32)
        e = np.exp(z - z.max(axis=1, keepdims=True, initial=-np.inf))
        return np.asarray(e / e.sum(axis=1, keepdims=True), dtype=np.float32)

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the same into ``graph``, from pieces and how often each stands in a text."""
        parts = [self._emit_block(graph, block) for block in self.blocks]
        z = graph.op("Add", parts[0] if len(parts) == 1 else graph.op("Sum", *parts), graph.const(self.bias))
        if not self.classes:
            scaled = graph.op("Mul", z, graph.const(np.float32(self.scale)))
            return graph.op("Add", scaled, graph.const(np.float32(self.shift)))
        if self.several:
            return graph.op("Sigmoid", z)
        if self.classes == 2:
            p = graph.op("Sigmoid", z)
            return graph.concat(graph.op("Sub", graph.const(np.float32(1)), p), p)
        return graph.op("Softmax", z, axis=1)

    def _emit_block(self, graph: GraphBuilder, block: Block) -> str:
        grams, counts = block.reader.inputs
        zero, one = graph.const(0, np.int64), graph.const(np.float32(1))
        places = graph.op("Max", grams, zero)
        known = graph.cast(graph.op("GreaterOrEqual", grams, zero), np.float32)
        often = graph.op("Add", graph.op("Log", graph.op("Max", counts, one)), one) if self._damped else counts
        values = graph.op("Mul", graph.op("Mul", often, known), graph.op("Gather", graph.const(block.rarity), places))
        axis = graph.const([1], np.int64)
        squares = graph.op("ReduceSum", graph.op("Mul", values, values), axis, keepdims=1)
        length = graph.op("Sqrt", graph.op("Max", squares, graph.const(np.float32(_TINY))))
        row = graph.op("Unsqueeze", graph.op("Div", values, length), axis)
        weights = graph.op("Gather", graph.const(block.weight), places)
        return graph.op("Squeeze", graph.op("MatMul", row, weights), axis)

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values and arrays."""
        blocks = [{"rules": json.loads(b.reader.data), "rarity": b.rarity, "weight": b.weight} for b in self.blocks]
        return {
            "family": NgramFamily.name, "config": self.config, "blocks": blocks, "bias": self.bias,
            "shift": self.shift, "scale": self.scale, "classes": self.classes, "cost": self.cost.to_json(),
            "several": self.several,
        }  # fmt: skip


class NgramFamily:
    """TF-IDF and a linear model, by scikit-learn."""

    name: ClassVar[str] = "ngrams"

    def supports(self, task: Task, profile: TextProfile) -> bool:
        """Any classification or regression, of at least a handful of texts."""
        return profile.rows >= 8

    def space(self, task: Task, profile: TextProfile) -> Space:
        """Which pieces, how many, and how strongly they are held together."""
        params: list[Param] = [
            Categorical("ngrams.words", (1, 2, 3), 2),
            Categorical("ngrams.characters", (0, 4, 5, 6), 5),
            Categorical("ngrams.most", (20_000, 50_000, 100_000), 50_000),
            Categorical("ngrams.damped", (True, False), True),
            Float("ngrams.c", 0.05, 100.0, 3.0, log=True),
        ]
        return Space(params)

    def cost(self, config: Config, task: Task, profile: TextProfile) -> Cost:
        """The most that it can be: texts decide how many pieces there are."""
        kinds = 1 + (int(config["ngrams.characters"]) > 0)
        return _cost([int(config["ngrams.most"])] * kinds, _width(task), profile.characters, config)

    def fit(
        self,
        config: Config,
        task: Task,
        profile: TextProfile,
        train: TextData,
        valid: TextData | None,
        budget: TrainBudget,
        seed: int,
    ) -> NgramModel:
        """Choose the pieces, count them, fit."""
        texts, y = train.texts, train.truth
        rules = [("words", 1, int(config["ngrams.words"]))]
        if int(config["ngrams.characters"]):
            rules.append(("characters", _SHORTEST, int(config["ngrams.characters"])))
        damped, most = bool(config["ngrams.damped"]), int(config["ngrams.most"])
        readers, rarities, parts = [], [], []
        for kind, low, high in rules:
            grams, rarity = choose_grams(texts, kind, low, high, most)
            if grams:
                reader = Reader.of_grams(kind, low, high, grams)
                readers.append(reader)
                rarities.append(rarity)
                parts.append(matrix_of(reader, rarity, texts, damped))
        if not parts:
            raise TrialError(
                "No word and no run of characters stands in two texts.", hint="Are these texts? Name the column."
            )
        x, several = sparse.hstack(parts, format="csr"), task.kind is TaskKind.MULTILABEL
        fitted = _fitted_each(x, y, float(config["ngrams.c"]), budget) if several else None
        coef, bias, shift, scale = fitted or _fitted(task, x, y, float(config["ngrams.c"]))
        ends = np.cumsum([0, *(p.shape[1] for p in parts)])
        blocks = [
            Block(reader, rarity, np.ascontiguousarray(coef[start:stop], dtype=np.float32))
            for reader, rarity, (start, stop) in zip(readers, rarities, itertools.pairwise(ends), strict=True)
        ]
        cost = _cost([p.shape[1] for p in parts], coef.shape[1], profile.characters, config)
        return NgramModel(config, blocks, bias.astype(np.float32), shift, scale, task.n_classes, cost, several=several)

    def restore(self, state: dict[str, Any], task: Task) -> NgramModel:
        """Rebuild from arrays."""
        blocks = [
            Block(Reader.of_grams(**b["rules"]), np.asarray(b["rarity"]), np.asarray(b["weight"]))
            for b in state["blocks"]
        ]
        return NgramModel(
            state["config"], blocks, np.asarray(state["bias"]), float(state["shift"]), float(state["scale"]),
            int(state["classes"]), Cost.from_json(state["cost"]), several=bool(state.get("several", False)),
        )  # fmt: skip


def choose_grams(
    texts: Sequence[str], kind: str, low: int, high: int, most: int
) -> tuple[list[str], NDArray[np.float32]]:
    """Pieces that stand in most texts, at least in two, with their rarity.

    Examples
    --------
    >>> choose_grams(["a b", "a c", "a"], "words", 1, 1, 10)[0]
    ['a']
    """
    seen: Counter[str] = Counter()
    for text in texts:
        seen.update(set(grams_of(text, kind, low, high)))
    found = sorted(((n, gram) for gram, n in seen.items() if n >= _LEAST), key=lambda item: (-item[0], item[1]))[:most]
    count = np.array([n for n, _ in found], dtype=np.float64)
    rarity = np.log((1 + len(texts)) / (1 + count)) + 1 if len(count) else count
    return [gram for _, gram in found], rarity.astype(np.float32)


def matrix_of(reader: Reader, rarity: NDArray[np.float32], texts: Sequence[str], damped: bool) -> Any:
    """TF-IDF of texts as a sparse matrix (n, pieces) with rows of length 1; an unknown text stays 0."""
    parts = []
    for start in range(0, len(texts), _CHUNK):
        grams, counts = reader.read(texts[start : start + _CHUNK]).values()
        known = grams >= 0
        often = counts[known].astype(np.float64)
        values = (1.0 + np.log(often) if damped else often) * rarity[grams[known]]
        ends = np.concatenate([[0], known.sum(axis=1).cumsum()])
        parts.append(sparse.csr_matrix((values, grams[known], ends), shape=(len(grams), len(rarity))))
    if not parts:
        return sparse.csr_matrix((0, len(rarity)))
    whole = sparse.vstack(parts, format="csr")
    length = np.sqrt(np.maximum(np.asarray(whole.multiply(whole).sum(axis=1)).ravel(), _TINY))
    return sparse.diags(1.0 / length) @ whole


def _fitted(
    task: Task, x: Any, y: NDArray[Any], c: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], float, float]:
    """Weights (pieces, outputs), bias, and shift and scale of a regression's values."""
    if not task.kind.is_classification:
        from sklearn.linear_model import Ridge

        shift, scale = float(y.mean()), float(y.std()) or 1.0
        ridge = Ridge(alpha=1.0 / c, solver="sparse_cg", tol=1e-5).fit(x, (y - shift) / scale)
        return ridge.coef_.reshape(-1, 1), np.atleast_1d(ridge.intercept_), shift, scale
    from sklearn.linear_model import LogisticRegression

    present = np.unique(y)
    if len(present) < 2:
        raise TrialError("All texts that are trained on have one class.", hint="Give more texts of the others.")
    model = LogisticRegression(C=c, max_iter=200, tol=1e-4)
    with _unsettled():
        model.fit(x, y)
    if task.n_classes == 2:
        return model.coef_.T, model.intercept_, 0.0, 1.0
    coef, bias = np.zeros((x.shape[1], task.n_classes)), np.full(task.n_classes, -_NEVER)
    if len(present) == 2:  # of more classes, of which only two were dealt to the training
        coef[:, present[1]], bias[present] = model.coef_[0], (0.0, float(model.intercept_[0]))
    else:
        coef[:, present], bias[present] = model.coef_.T, model.intercept_
    return coef, bias, 0.0, 1.0


def _fitted_each(
    x: Any, y: NDArray[Any], c: float, budget: TrainBudget
) -> tuple[NDArray[np.float64], NDArray[np.float64], float, float]:
    """The same for several labels a text: a model of its own for each; one that never or always stands has a constant.

    Raises
    ------
    TrialTimeoutError
        Where there was no time for all of them.
    """
    from sklearn.linear_model import LogisticRegression

    texts, labels = y.shape
    coef, bias = np.zeros((x.shape[1], labels)), np.zeros(labels)
    for label in range(labels):
        if budget.limited and budget.left_s() == 0:
            raise TrialTimeoutError(
                f"There was time for {label:,} of {labels:,} labels.", hint="Give the search more time."
            )
        stands = int(y[:, label].sum())
        if stands in (0, texts):
            bias[label] = math.log((stands + 0.5) / (texts - stands + 0.5))
            continue
        model = LogisticRegression(C=c, max_iter=200, tol=1e-4)
        with _unsettled():
            model.fit(x, y[:, label])
        coef[:, label], bias[label] = model.coef_[0], float(model.intercept_[0])
    return coef, bias, 0.0, 1.0


@contextmanager
def _unsettled() -> Iterator[None]:
    """An optimiser that stops at its last round has still found a good model."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _width(task: Task) -> int:
    return task.n_classes if task.n_classes > 2 or task.kind is TaskKind.MULTILABEL else 1


def _cost(pieces: Sequence[int], width: int, characters: float, config: Config) -> Cost:
    """A number for each piece and output, and its rarity; about six operations for each piece of a text."""
    params = sum(pieces) * (width + 1) + width
    runs = max(0, int(config["ngrams.characters"]) - _SHORTEST + 1)
    found = characters * runs + characters / 5 * int(config["ngrams.words"])
    return Cost(params=params, flops=math.ceil(found * (2 * width + 6)), size_bytes=4 * params)


FAMILY = NgramFamily()
