"""The contract of a family that reads lines of text, and the lines that it sees.

All lines of a study have one height by then (`tidemill.bundle.lines.encoder`), and widths of their own; they are grey,
whole numbers 0 to 255. Nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.lines.encoder import Lines
from tidemill.bundle.parts import TIE_MARGIN
from tidemill.core import transcripts
from tidemill.core.space import Space
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models.recognition.neighbours import independent
from tidemill.models.training.budget import TrainBudget

STRIDE = 4
"""A net says once for so many pixels of a line which character stands there."""


@dataclass(frozen=True)
class LineProfile:
    """What a family may know of the lines before it is trained.

    Parameters
    ----------
    rows : int
        Training lines.
    height : int
        Of all lines, in pixels.
    width : float
        Mean width, in pixels.
    alphabet : str
        Every character of the training transcripts once, in the order of their code points.
    mean, std : float
        Of the training pixels, in units of 0 to 255; ``std`` is positive.
    weights : tuple of str
        Folders and files with trained weights that may be used.
    independent : bool
        Whether a character of a transcript says next to nothing of the next one.
    """

    rows: int
    height: int
    width: float
    alphabet: str
    mean: float
    std: float
    weights: tuple[str, ...] = ()
    independent: bool = False

    @property
    def channels(self) -> int:
        """Lines are grey."""
        return 1

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**asdict(self), "weights": list(self.weights), "channels": self.channels}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LineProfile:
        """Rebuild from `to_json`."""
        known = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        return cls(**{**known, "weights": tuple(data["weights"])})

    @classmethod
    def of(cls, x: Lines, y: transcripts.Codes, *, weights: tuple[str, ...] = ()) -> LineProfile:
        """Look at the training lines; some hundred of them tell mean and spread.

        Examples
        --------
        >>> lines = np.empty(1, dtype=object)
        >>> lines[0] = np.full((16, 32), 51, np.uint8)
        >>> LineProfile.of(lines, transcripts.to_codes(["cab"])).alphabet
        'abc'
        """
        some = np.concatenate([line.ravel() for line in x[:: max(1, len(x) // 500)]]).astype(np.float64)
        width = float(np.mean([line.shape[1] for line in x]))
        alphabet = "".join(chr(c) for c in np.unique(y[y >= 0]).tolist())
        spread = max(float(some.std()), 1.0)
        mean = round(float(some.mean()), 4)
        return cls(
            len(x), int(x[0].shape[0]), round(width, 2), alphabet, mean, round(spread, 4), weights, independent(y)
        )


@dataclass(frozen=True)
class LineData:
    """Some rows of an array of lines, with their transcripts.

    Parameters
    ----------
    x : ndarray of objects, shape (n,)
        All lines, each uint8 of shape (height, width).
    y : ndarray of int32, shape (n, length of the longest)
        Code points; see `tidemill.core.transcripts`.
    rows : ndarray of int64
        Which of them are meant.
    """

    x: Lines
    y: transcripts.Codes
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


def steps_needed(y: NDArray[Any]) -> NDArray[np.int64]:
    """Steps along a line that a transcript needs: one for each character, one between equal neighbours.

    Examples
    --------
    >>> steps_needed(transcripts.to_codes(["abba", "x", ""])).tolist()
    [5, 1, 0]
    """
    twins = (y[:, 1:] == y[:, :-1]) & (y[:, 1:] != transcripts.END)
    return np.asarray(transcripts.lengths(y) + twins.sum(axis=1), dtype=np.int64)


class FittedLines(Protocol):
    """A trained recogniser; `tidemill.bundle.lines.parts.LinePart` with what a search wants to know."""

    @property
    def cost(self) -> Cost:
        """Parameters, counted FLOPs for a line of mean width, and bytes of its weights."""

    @property
    def alphabet(self) -> str:
        """The characters that it can write."""

    def predict(self, x: Lines, margin: float = TIE_MARGIN) -> NDArray[np.float32]:
        """Read lines by torch: confidences and code points, as `tidemill.core.transcripts.to_scores` gives them.

        Called from several threads at once.
        """

    def frames(self, lines: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Logarithms of probabilities (n, steps, K + 1) for lines of one width."""

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the net into ``graph``: from (N, 1, height, width) to logarithms of probabilities (N, steps, K + 1)."""

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values and arrays for `tidemill.core.pack`; no pickle."""


class LineFamily(Protocol):
    """One kind of recogniser."""

    name: ClassVar[str]
    """Short lower-case name, the value of the config's ``family`` and the prefix of its parameters."""

    def supports(self, task: Task, profile: LineProfile) -> bool:
        """True where the family can learn from such lines."""

    def space(self, task: Task, profile: LineProfile) -> Space:
        """The family's own hyper-parameters, names prefixed ``"<family>."``, without a condition on ``family``."""

    def cost(self, config: Config, task: Task, profile: LineProfile) -> Cost:
        """Cost of one model, before training, counted on a module without memory, for a line of mean width."""

    def fit(
        self,
        config: Config,
        task: Task,
        profile: LineProfile,
        train: LineData,
        valid: LineData | None,
        budget: TrainBudget,
        seed: int,
    ) -> FittedLines:
        """Train; choose the best moment by the character error rate on ``valid`` where given.

        Called from a worker's process. Raise `TrialTimeoutError` where not even a part of an epoch fits, `TrialError`
        for what the lines make impossible.
        """

    def restore(self, state: dict[str, Any], task: Task) -> FittedLines:
        """Undo `FittedLines.checkpoint`."""
