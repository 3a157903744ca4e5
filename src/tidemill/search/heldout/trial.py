"""One trial that trains once, as a worker runs it: on most rows, judged on those that were held out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.latency import measure_latency_ms, session
from tidemill.core.errors import TrialError
from tidemill.core.pack import pack
from tidemill.core.task import Task
from tidemill.core.trial import Cost
from tidemill.models.training.budget import TrainBudget
from tidemill.search.board import MODELS
from tidemill.search.evaluate import Assignment, all_scores, scorer
from tidemill.search.latency import Speed
from tidemill.search.rungs.ladder import Rung
from tidemill.search.splits import TRAIN, VALID

BATCH = 32
"""Rows of the batch that is timed."""
_TRAINING = 0.92
"""Share of a trial's time in which the training has to be over; the rest is for predictions."""
_PROBE_S = 12.0
"""An export takes some seconds: so many are kept for it where a trial is measured, at most a quarter of its time."""


@dataclass(frozen=True)
class HeldOutAssignment(Assignment):
    """What a worker needs to know of a study whose models are trained once.

    Parameters
    ----------
    task, files, features, metric, label, cost_matrix
        As in `Assignment`; ``features`` is empty.
    profile : mapping
        What families may know of the rows, as plain values.
    """

    profile: Mapping[str, Any] = field(default_factory=dict)

    @property
    def places(self) -> tuple[str, ...]:
        """Files and folders of this machine that a trial reads, trained weights included."""
        weights = (str(w) for w in self.profile.get("weights", ()))
        read = (place for name, place in self.files.items() if name != "cache")
        return (*read, *(w for w in weights if Path(w).exists()))

    @property
    def scratch(self) -> tuple[str, ...]:
        """Where features of backbones that stay as they are are kept."""
        return (self.files["cache"],) if "cache" in self.files else ()


class Fitted(Protocol):
    """A trained model, whatever it sees."""

    @property
    def cost(self) -> Cost:
        """As counted."""

    def predict(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Raw scores of shape (n, n_outputs), or transcripts."""

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values and arrays."""


@dataclass(frozen=True)
class Rows:
    """Numbers of the rows of a study: trained on, and held out."""

    train: NDArray[np.int64]
    held_out: NDArray[np.int64]

    @classmethod
    def of(cls, assignment: Assignment) -> Rows:
        """Read the one split of a study."""
        split = np.load(assignment.files["splits"])[0]
        return cls(np.flatnonzero(split == TRAIN), np.flatnonzero(split == VALID))


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let PyTorch use so many threads, while this lasts."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def deadline_of(started: float, time_s: float | None, probe: bool) -> float:
    """`time.monotonic` value at which a training has to be over; ``inf`` where nobody limits it."""
    if time_s is None:
        return math.inf
    kept = min(_PROBE_S, 0.25 * time_s) if probe else 0.0
    return started + _TRAINING * (time_s - kept)


def limited(budget: TrainBudget, rung: Rung | None) -> TrainBudget:
    """Let a training pause on its rung, where there is one."""
    if rung is not None:
        budget.epochs, budget.of, budget.folder = rung.epochs, rung.of, rung.folder
    return budget


def judged(
    model: Fitted,
    assignment: HeldOutAssignment,
    rows: Rows,
    x: NDArray[Any],
    x_test: NDArray[Any] | None,
    y: NDArray[Any],
    *,
    family: str,
    budget: TrainBudget,
    rung: Rung | None,
    started: float,
    measure: Callable[[], Speed] | None,
) -> dict[str, Any]:
    """Say what came of a training.

    Parameters
    ----------
    model : Fitted
        What was trained.
    assignment : HeldOutAssignment
        The question.
    rows : Rows
        Which rows were held out.
    x, x_test, y
        All rows, the locked ones where there are any, and the truth about the first.
    family : str
        For messages.
    budget : TrainBudget
        With the learning curve.
    rung : Rung or None
        Where the training paused.
    started : float
        `time.monotonic` value at which the trial began.
    measure : callable or None
        Exports the model and measures it.

    Returns
    -------
    dict
        As `tidemill.search.evaluate.run_trial` gives it.

    Raises
    ------
    TrialError
        Where the answers are no numbers.
    """
    task = Task.from_json(dict(assignment.task))
    predicted = model.predict(x[rows.held_out])
    if not np.isfinite(predicted).all():
        raise TrialError(f"{family} gives answers that are no numbers.", hint="Its learning rate was too large.")
    scores = predicted.astype(np.float64)
    truth = y[rows.held_out]
    oof = np.full((len(y), *predicted.shape[1:]), np.nan, dtype=np.float32)
    oof[rows.held_out] = predicted
    return {
        "oof": oof,
        "test": None if x_test is None else model.predict(x_test),
        "checkpoint": pack({"models": [model.checkpoint()]}),
        "fold_scores": (scorer(task, assignment)(truth, scores),),
        "scores": {**all_scores(task, truth, scores), MODELS: 1.0},
        "cost": model.cost,
        "curve": tuple(budget.curve),
        "folds": 1,
        "fidelity": 1.0 if rung is None else rung.epochs / rung.of,
        "stopped": None,
        "fold_s": (time.monotonic() - started,),
        "probe": None if measure is None else measure(),
        "probe_flops": model.cost.flops,
    }


def measure_graph(write: Callable[[], bytes], feed: Mapping[str, NDArray[Any]], predict: Callable[[], Any]) -> Speed:
    """Export a model and time it with onnxruntime, on one row and on many; some seconds, which PyTorch takes.

    Parameters
    ----------
    write : callable
        Gives the serialised graph.
    feed : mapping
        Its inputs for a batch.
    predict : callable
        Answers the same batch in the library that trained.
    """
    begun = time.perf_counter()
    data = write()
    run = session(data)
    build_s = time.perf_counter() - begun
    many = dict(feed)
    rows = len(next(iter(many.values())))
    run.run(None, many)
    begun = time.thread_time()  # the session stays on this thread, whose own seconds don't count what others take
    run.run(None, many)
    batch_s = time.thread_time() - begun
    begun = time.perf_counter()
    predict()
    model_s = time.perf_counter() - begun
    return Speed(
        row_ms=measure_latency_ms(data, {name: values[:1] for name, values in many.items()}, seconds=0.02),
        batch_us=batch_s / rows * 1e6,
        model_us=model_s / rows * 1e6,
        build_s=build_s,
        size_bytes=len(data),
    )
