"""What a bundle is built from: the parts that a search hands over, and the recipe that joins them.

Nothing here knows how a part was trained. A part can do two things: answer with its own library, and write itself
into a graph. `Recipe.predict` joins the first kind of answer with numpy; `tidemill.bundle.assemble` joins the second
kind in ONNX; `tidemill.bundle.parity` holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.calibration import Calibration
from tidemill.core.decision import Decision
from tidemill.core.errors import InternalError
from tidemill.core.schema import Columns, Schema
from tidemill.core.task import Task, TaskKind

TIE_MARGIN = 1e-6
"""How far a class must be ahead of the one before it to win; see `Recipe`."""


class EncoderPart(Protocol):
    """Turns raw columns into one float32 matrix, the same in numpy and in the graph."""

    def transform(self, columns: Columns) -> NDArray[np.float32]:
        """Encode columns of n rows as a matrix of shape (n, n_features)."""

    def emit(self, graph: GraphBuilder, inputs: Mapping[str, str]) -> str:
        """Write the encoder into ``graph``; the result names a float32 (N, n_features) value.

        ``inputs`` has the value name of every feature column, shape (N, 1), string or double.
        """


class ModelPart(Protocol):
    """One trained pipeline behind the encoder."""

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raw scores of shape (n, n_outputs) by the library that trained. Called from several threads at once."""

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the model into ``graph``; the result names a float32 (N, n_outputs) value."""


class StackPart(Protocol):
    """A model that sees the scores of all members in place of their weighted mean."""

    def predict(self, scores: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Scores of shape (n, n_outputs) from one matrix for each member, in the recipe's order."""

    def emit(self, graph: GraphBuilder, scores: Sequence[str]) -> str:
        """Write the stack into ``graph``; ``scores`` names one (N, n_outputs) value for each member."""


@dataclass(frozen=True)
class Member:
    """One trial of an ensemble.

    Parameters
    ----------
    weight : float
        Its share, positive; the shares of a recipe sum to 1.
    parts : sequence of ModelPart
        Its models, usually one for each fold; their scores are averaged.
    name : str
        For people, ``"lightgbm-7"``.
    """

    weight: float
    parts: Sequence[ModelPart]
    name: str


@dataclass(frozen=True)
class Answers:
    """What a model says of n rows.

    Parameters
    ----------
    scores : ndarray of float32, shape (n, n_outputs)
        Calibrated probabilities, or the predicted value.
    codes : ndarray of int64, shape (n,), or None
        Decided classes, of several labels a row 0 and 1 of shape (n, K); None for regression.
    """

    scores: NDArray[np.float32]
    codes: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything that the shipped graph computes, from raw columns to a label.

    Parameters
    ----------
    task : Task
        The problem.
    schema : Schema
        Its features are the inputs of the graph.
    encoder : EncoderPart
        The one encoder of all members.
    members : sequence of Member
        At least one.
    stack : StackPart or None
        Replaces the weighted mean of the members.
    calibration : Calibration or None
        Applied to the combined probabilities.
    decision : Decision
        From calibrated probabilities to a class; not used for regression.
    decode : mapping
        Arguments of `tidemill.bundle.runner.beams.read_beams`, ``alphabet``, ``width`` and maybe ``lengths``, where
        texts are searched for behind the graph, and ``nets`` where several find them; empty where the graph says all.
    tie_margin : float
        A class wins over an earlier one only when its utility is larger by this much for each place between them.
        Equal probabilities are common (a vote of ten neighbours), and two computations of the same number may
        differ in the last bit: without a margin such a row would get one label here and another one there.

    Examples
    --------
    See `tidemill.testing.parts` for small parts to try it with.
    """

    task: Task
    schema: Schema
    encoder: EncoderPart
    members: Sequence[Member]
    stack: StackPart | None = None
    calibration: Calibration | None = None
    decision: Decision = field(default_factory=Decision)
    tie_margin: float = TIE_MARGIN
    decode: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.members or any(not m.parts for m in self.members):
            raise InternalError("A recipe needs a member, and every member a part.")
        total = sum(m.weight for m in self.members)
        if any(m.weight <= 0 for m in self.members) or abs(total - 1) > 1e-6:
            raise InternalError(f"Weights of members must be positive and sum to 1, but sum to {total}.")

    @property
    def decoding(self) -> dict[str, Any]:
        """What graph and description say of ``decode``: with the margin, or nothing."""
        return {**self.decode, "margin": self.tie_margin} if self.decode else {}

    def combined(self, columns: Columns) -> NDArray[np.float64]:
        """Scores of the ensemble before calibration, shape (n, n_outputs)."""
        x = self.encoder.transform(columns)
        scores = [self._of_member(m, x) for m in self.members]
        if self.stack is not None:
            return np.asarray(self.stack.predict([s.astype(np.float32) for s in scores]), dtype=np.float64)
        return np.asarray(sum(m.weight * s for m, s in zip(self.members, scores, strict=True)), dtype=np.float64)

    def predict(self, columns: Columns) -> Answers:
        """Answer with the libraries that trained: the reference that the graph is held against."""
        scores = self.combined(columns)
        if not self.task.kind.has_labels:
            return Answers(scores.astype(np.float32))
        if self.calibration is not None:
            scores = self.calibration.apply(scores)
        shown = scores.astype(np.float32)  # decided on what is given out
        return Answers(shown, self.decide(shown))

    def decide(self, scores: NDArray[Any]) -> NDArray[np.int64]:
        """Classes for calibrated probabilities of shape (n, K), of several labels a row 0 and 1 of that shape."""
        if self.task.kind is TaskKind.MULTILABEL:
            return (np.asarray(scores, dtype=np.float32) > self.bars()).astype(np.int64)
        matrix = utility_form(self.decision, self.task.n_classes)
        utilities = np.asarray(scores, dtype=np.float64) @ matrix - self.handicap()
        return np.asarray(utilities.argmax(axis=1), dtype=np.int64)

    def bars(self) -> NDArray[np.float32]:
        """What the probability of each of several labels must be above, shape (K,), in float32 as in the graph."""
        thresholds = self.decision.thresholds or (0.5,) * self.task.n_classes
        return (np.asarray(thresholds, dtype=np.float64) + self.tie_margin).astype(np.float32)

    def handicap(self) -> NDArray[np.float64]:
        """What is taken off the utility of each class, so that ties go to the class that comes first."""
        return self.tie_margin * np.arange(self.task.n_classes, dtype=np.float64)

    def _of_member(self, member: Member, x: NDArray[np.float32]) -> NDArray[np.float64]:
        scores = [np.asarray(part.predict(x), dtype=np.float64) for part in member.parts]
        return np.asarray(sum(scores) / len(scores))


def utility_form(decision: Decision, n_classes: int) -> NDArray[np.float64]:
    """Write a decision as ``argmax(p @ matrix)``: factors on the diagonal, or costs turned around.

    The matrix is scaled so that its largest entry is 1 and a margin means the same for every decision.

    Returns
    -------
    ndarray of shape (K, K)
        Column ``j`` gives the utility of deciding class ``j``.

    Examples
    --------
    >>> utility_form(Decision.by_cost([[0, 1], [5, 0]]), 2)
    array([[-0. , -0.2],
           [-1. , -0. ]])
    """
    if decision.cost is not None:
        matrix = -np.asarray(decision.cost, dtype=np.float64)
    elif decision.offsets is not None:
        matrix = np.diag(np.asarray(decision.offsets, dtype=np.float64))
    else:
        matrix = np.eye(n_classes)
    largest = float(np.abs(matrix).max())
    return matrix / largest if largest > 0 else matrix
