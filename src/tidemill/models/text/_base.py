"""The contract of a family that learns from texts, and the texts that it sees. Nothing here loads torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.texts.readers import Reader
from tidemill.core.space import Space
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models.training.budget import TrainBudget

Texts = NDArray[Any]
"""Shape (n,), objects that are str; the empty text where nothing is known."""
_TOKEN_CHARACTERS = 4.0
"""A token of most vocabularies stands for about so many characters of a text."""


@dataclass(frozen=True)
class TextProfile:
    """What a family may know of the texts before it is trained.

    Parameters
    ----------
    rows : int
        Training texts.
    characters : float
        Mean length.
    longest : int
        Length that nineteen of twenty texts don't exceed.
    weights : tuple of str
        Folders with trained encoders that may be used.
    """

    rows: int
    characters: float
    longest: int
    weights: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """About so many tokens has a text: what costs are counted for."""
        return max(4, round(self.characters / _TOKEN_CHARACTERS) + 2)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**asdict(self), "weights": list(self.weights)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TextProfile:
        """Rebuild from `to_json`."""
        return cls(**{**data, "weights": tuple(data["weights"])})

    @classmethod
    def of(cls, texts: Sequence[str] | Texts, *, weights: tuple[str, ...] = ()) -> TextProfile:
        """Look at the training texts.

        Examples
        --------
        >>> TextProfile.of(["good", "not so good"])
        TextProfile(rows=2, characters=7.5, longest=11, weights=())
        """
        lengths = np.array([len(str(text)) for text in texts] or [0])
        longest = int(np.ceil(np.quantile(lengths, 0.95)))
        return cls(len(texts), round(float(lengths.mean()), 2), longest, weights)


@dataclass(frozen=True)
class TextData:
    """Some rows of an array of texts, with the truth about them.

    Parameters
    ----------
    x : ndarray of str objects, shape (n,)
        All texts.
    y : ndarray, shape (n,)
        int64 class codes, or float64 targets.
    rows : ndarray of int64
        Which of them are meant.
    """

    x: Texts
    y: NDArray[Any]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def texts(self) -> list[str]:
        """The texts that are meant."""
        return [str(text) for text in self.x[self.rows]]

    @property
    def truth(self) -> NDArray[Any]:
        """What is known about them."""
        return np.asarray(self.y[self.rows])


class FittedText(Protocol):
    """A trained model that sees texts; `tidemill.bundle.texts.readers.TextPart` with what a search wants to know."""

    @property
    def cost(self) -> Cost:
        """Parameters, counted FLOPs for a text of usual length, and bytes of its weights."""

    @property
    def readers(self) -> Sequence[Reader]:
        """What reads for it."""

    def predict(self, x: Texts) -> NDArray[np.float32]:
        """Raw scores of shape (n, n_outputs) for texts, by the library that trained.

        Probabilities that sum to 1, or the value in target units. Called from several threads at once.
        """

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the model into ``graph``, from the inputs of its readers to the scores of `predict`."""

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values and arrays for `tidemill.core.pack`; no pickle."""


class TextFamily(Protocol):
    """One kind of model for texts."""

    name: ClassVar[str]
    """Short lower-case name, the value of the config's ``family`` and the prefix of its parameters."""

    def supports(self, task: Task, profile: TextProfile) -> bool:
        """True where the family can learn such a task from such texts."""

    def space(self, task: Task, profile: TextProfile) -> Space:
        """The family's own hyper-parameters, names prefixed ``"<family>."``, without a condition on ``family``."""

    def cost(self, config: Config, task: Task, profile: TextProfile) -> Cost:
        """Cost of one model, before training; where the texts decide about it, the most that it can be."""

    def fit(
        self,
        config: Config,
        task: Task,
        profile: TextProfile,
        train: TextData,
        valid: TextData | None,
        budget: TrainBudget,
        seed: int,
    ) -> FittedText:
        """Train; choose the best moment on ``valid`` where given.

        Called from a worker's process. Raise `TrialTimeoutError` where not even a part of an epoch fits, `TrialError`
        for what the texts make impossible.
        """

    def restore(self, state: dict[str, Any], task: Task) -> FittedText:
        """Undo `FittedText.checkpoint`."""
