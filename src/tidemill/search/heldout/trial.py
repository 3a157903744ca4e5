"""One trial that trains once, as a worker runs it: on most rows, judged on those that were held out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.latency import measure_latency_ms, session
from tidemill.core.errors import DataError, OptionError, TrialError
from tidemill.core.frames import Frames
from tidemill.core.pack import pack
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models.training.budget import Resources, TrainBudget
from tidemill.models.training.checkpoints import TrialCheckpoints
from tidemill.models.training.signals import Signals
from tidemill.search.board import ASKED, MODELS
from tidemill.search.evaluate import Assignment, Race, all_scores, scorer
from tidemill.search.latency import Speed
from tidemill.search.rungs.ladder import Rung
from tidemill.search.splits import TRAIN, VALID

DIVERGED = "diverged"
"""Folder beside those of the searches, and name of a study's own in it: batches whose loss was no number stay there."""
CHECKPOINTS = "checkpoints"
"""The same of what trainings that are under way leave, for a study that is killed and resumed."""
_KEPT = ("cache", DIVERGED, CHECKPOINTS)
"""Folders that stay, of those that trials are told of."""
BATCH = 32
"""Rows of the batch that is timed."""
_ANSWERING = 0.08
"""Share of a trial's time that is kept for its predictions, where `_BEFORE_S` and `_ROW_S` for a row are not less."""
_BEFORE_S, _ROW_S = 5.0, 0.05
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
    resources : Resources
        What a training may use.
    """

    profile: Mapping[str, Any] = field(default_factory=dict)
    resources: Resources = field(default_factory=Resources)

    @property
    def places(self) -> tuple[str, ...]:
        """Files and folders of this machine that a trial reads, trained weights included."""
        weights = (str(w) for w in self.profile.get("weights", ()))
        read = (place for name, place in self.files.items() if name not in _KEPT)
        return (*read, *(w for w in weights if Path(w).exists()))

    @property
    def scratch(self) -> tuple[str, ...]:
        """Where trials leave things: features of frozen backbones, batches whose loss is no number, checkpoints."""
        return tuple(self.files[name] for name in _KEPT if name in self.files)


class Families(Protocol):
    """A module of `tidemill.models` that loads families."""

    def families(self, names: Sequence[str] | None = None) -> Mapping[str, Any]:
        """Load the families that can be used here, or those that are named."""


class Fitted(Protocol):
    """A trained model, whatever it sees."""

    @property
    def cost(self) -> Cost:
        """As counted."""

    def predict(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Raw scores of shape (n, n_outputs), or transcripts."""

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values and arrays."""


M = TypeVar("M", bound=Fitted)
Answers = tuple[NDArray[np.float32], Frames | None]
"""Raw scores of rows, or transcripts, and what stands behind transcripts where that is kept."""


def answered(model: Fitted, x: NDArray[Any]) -> Answers:
    """Ask a model about rows; there is nothing behind its scores."""
    return model.predict(x), None


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


@dataclass(frozen=True)
class HeldOutTrial:
    """A trial of one kind of rows, to be called; a modality keeps one in a module, where executors find it by name.

    Parameters
    ----------
    pool : Families
        The families that may be named by a config.
    profile : callable
        Rebuilds what families may know of the rows from plain values.
    read : callable
        Opens rows from the file or folder into which they were written for workers.
    data : callable
        Names some rows with the truth about them, as families take them: from all rows, the truth, and numbers.
    measure : callable
        Exports a model and times it; it gets all rows, and the numbers of those that were held out.
    light : frozenset of str
        Families that do without PyTorch, which takes seconds to load.
    answer : callable
        Asks a trained model about rows.
    """

    pool: Families
    profile: Callable[[Mapping[str, Any]], Any]
    read: Callable[[str], NDArray[Any]]
    data: Callable[[NDArray[Any], NDArray[Any], NDArray[np.int64]], Any]
    measure: Callable[[Any, NDArray[Any], NDArray[np.int64]], Speed]
    light: frozenset[str] = frozenset()
    answer: Callable[[Any, NDArray[Any]], Answers] = answered

    def __call__(
        self,
        *,
        config: Config,
        assignment: HeldOutAssignment,
        seed: int,
        threads: int = 1,
        time_s: float | None = None,
        bonus_s: float | None = None,
        race: Race | None = None,
        probe: bool = False,
        rung: Rung | None = None,
        signals: Signals | None = None,
    ) -> dict[str, Any]:
        """Train a config and say what came of it.

        Parameters
        ----------
        config : Config
            A complete config.
        assignment : HeldOutAssignment
            The rows and the question.
        seed : int
            Seed of the trial.
        threads : int
            Threads that it may use.
        time_s : float, optional
            Seconds that it may take; a training that comes to its end is cut to what fits.
        bonus_s, race
            Of no account: there is one split.
        probe : bool
            Export the model and measure its speed and size.
        rung : Rung, optional
            Train up to there and pause; what was trained before goes on in place. Of no account for families whose
            trainings can't pause: these come to their end.
        signals : Signals, optional
            Where the training says how it goes, and hears that it should end. Then it is judged as it is, and not
            measured: somebody waits.

        Returns
        -------
        dict
            As `tidemill.search.evaluate.run_trial` gives it.

        Raises
        ------
        TrialTimeoutError
            Where the time is too short for any training, or for a rung that is not the last.
        TrialError
            Where the answers are no numbers, or the model can't be exported.
        """
        started = time.monotonic()
        task, profile = Task.from_json(dict(assignment.task)), self.profile(assignment.profile)
        named = str(config["family"])
        family = self.pool.families([named])[named]
        files, rows = assignment.files, Rows.of(assignment)
        x, y = self.read(files["x"]), np.load(files["y"])
        x_test = self.read(files["x_test"]) if "x_test" in files else None
        answers = len(rows.held_out) + (0 if x_test is None else len(x_test))
        deadline = deadline_of(started, time_s, answers, probe=probe)
        mine, cache = assignment.resources, files.get("cache")
        lost = files.get(DIVERGED)
        budget = TrainBudget(
            deadline,
            threads,
            mine.device,
            mine.memory_bytes,
            mine.placement,
            cache=cache,
            signals=signals,
            diverged=None if lost is None else f"{lost}/{named}-{seed}",
        )
        budget = limited(budget, rung)
        if rung is None and signals is not None and CHECKPOINTS in files:
            budget.checkpoints = TrialCheckpoints(
                Path(files[CHECKPOINTS], str(signals.trial)), signals.say, mine.checkpoint_s
            )
        with nullcontext() if named in self.light else torch_threads(threads):
            train, valid = self.data(x, y, rows.train), self.data(x, y, rows.held_out)
            model, budget = trained(lambda given: family.fit(config, task, profile, train, valid, given, seed), budget)
            probe = probe and budget.interrupted is None
            return judged(
                model, assignment, rows, x, x_test, y, family=named, budget=budget, rung=rung, started=started,
                measure=(lambda: self.measure(model, x, rows.held_out)) if probe else None, answer=self.answer,
            )  # fmt: skip


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


def deadline_of(started: float, time_s: float | None, rows: int, *, probe: bool) -> float:
    """`time.monotonic` value at which a training has to be over that will be asked about so many rows.

    Examples
    --------
    >>> deadline_of(0.0, 100.0, 10_000, probe=False), deadline_of(0.0, 1_000.0, 500, probe=False)
    (92.0, 970.0)
    >>> deadline_of(0.0, None, 500, probe=True)
    inf
    """
    if time_s is None:
        return math.inf
    kept = min(_PROBE_S, 0.25 * time_s) if probe else 0.0
    left_s = time_s - kept
    return started + left_s - min(_ANSWERING * left_s, _BEFORE_S + _ROW_S * rows)


def trained(fit: Callable[[TrainBudget], M], budget: TrainBudget) -> tuple[M, TrainBudget]:
    """Train, from the begin where the training can't go on from the checkpoint that it left; give its budget, too."""
    kept, fresh = budget.checkpoints, replace(budget, curve=[])
    try:
        return fit(budget), budget
    except (DataError, OptionError) as error:
        if kept is None or not kept.refused(error):
            raise
        kept.begin_anew(error)
    return fit(fresh), fresh


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
    answer: Callable[[Any, NDArray[Any]], Answers] = answered,
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
        With the learning curve, and how far a training came that had to be shortened.
    rung : Rung or None
        Where the training paused.
    started : float
        `time.monotonic` value at which the trial began.
    measure : callable or None
        Exports the model and measures it.
    answer : callable
        Asks the model about rows.

    Returns
    -------
    dict
        As `tidemill.search.evaluate.run_trial` gives it, and ``frames`` and ``test_frames`` where there are some.

    Raises
    ------
    TrialError
        Where the answers are no numbers.
    """
    task = Task.from_json(dict(assignment.task))
    predicted, frames = answer(model, x[rows.held_out])
    test, test_frames = (None, None) if x_test is None else answer(model, x_test)
    if not np.isfinite(predicted).all():
        raise TrialError(f"{family} gives answers that are no numbers.", hint="Its learning rate was too large.")
    scores = predicted.astype(np.float64)
    truth = y[rows.held_out]
    oof = np.full((len(y), *predicted.shape[1:]), np.nan, dtype=np.float32)
    oof[rows.held_out] = predicted
    return {
        "oof": oof,
        "test": test,
        "frames": frames,
        "test_frames": test_frames,
        "checkpoint": pack({"models": [model.checkpoint()]}),
        "fold_scores": (scorer(task, assignment)(truth, scores),),
        "scores": {**all_scores(task, truth, scores), MODELS: 1.0},
        "cost": model.cost,
        "curve": tuple(budget.curve),
        "placement": budget.placed,
        "folds": 1,
        "fidelity": _fidelity(budget, rung),
        "stopped": None if budget.interrupted is None else ASKED,
        "before_s": 0.0 if budget.checkpoints is None else budget.checkpoints.before_s,
        "fold_s": (time.monotonic() - started,),
        "probe": None if measure is None else measure(),
        "probe_flops": model.cost.flops,
    }


def _fidelity(budget: TrainBudget, rung: Rung | None) -> float:
    """Share of a whole training that was gone through."""
    if budget.interrupted is not None:
        return budget.interrupted
    return 1.0 if rung is None else (budget.reached or rung.epochs) / rung.of


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
