"""One trial on images, as a worker runs it: a net is trained on most, and judged on those that were held out."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.latency import measure_latency_ms, session
from tidemill.core.errors import TrialError
from tidemill.core.pack import pack
from tidemill.core.task import Task
from tidemill.core.trial import Config
from tidemill.models.vision import pool
from tidemill.models.vision._base import FittedNet, ImageData, ImageProfile, TrainBudget
from tidemill.search.board import MODELS
from tidemill.search.evaluate import Assignment, Race, all_scores, scorer
from tidemill.search.latency import Speed
from tidemill.search.rungs.ladder import Rung
from tidemill.search.splits import TRAIN, VALID

CALL = "tidemill.search.images.evaluate:run_trial"
"""The name under which an executor finds `run_trial`."""
BATCH = 32
"""Images of the batch that is timed."""
_TRAINING = 0.92
"""Share of a trial's time in which the training has to be over; the rest is for predictions."""
_PROBE_S = 12.0
"""An export takes some seconds: so many are kept for it where a trial is measured, at most a quarter of its time."""


@dataclass(frozen=True)
class ImageAssignment(Assignment):
    """What a worker needs to know of a study of images.

    Parameters
    ----------
    task, files, features, metric, label, cost_matrix
        As in `Assignment`; ``features`` is empty.
    profile : mapping
        `ImageProfile.to_json`.
    """

    profile: Mapping[str, Any] = field(default_factory=dict)


def run_trial(
    *,
    config: Config,
    assignment: ImageAssignment,
    seed: int,
    threads: int = 1,
    time_s: float | None = None,
    bonus_s: float | None = None,
    race: Race | None = None,
    probe: bool = False,
    rung: Rung | None = None,
) -> dict[str, Any]:
    """Train a config and say what came of it.

    Parameters
    ----------
    config : Config
        A complete config.
    assignment : ImageAssignment
        The images and the question.
    seed : int
        Seed of the trial.
    threads : int
        Threads that it may use.
    time_s : float, optional
        Seconds that it may take; the training is cut to what fits.
    bonus_s, race
        Of no account: there is one split.
    probe : bool
        Export the net and measure its speed and size.
    rung : Rung, optional
        Train up to there and pause; what was trained before goes on in place.

    Returns
    -------
    dict
        As `tidemill.search.evaluate.run_trial` gives it.

    Raises
    ------
    TrialTimeoutError
        Where the time is too short for any training.
    TrialError
        Where the answers are no numbers, or the net can't be exported.
    """
    import torch

    started = time.monotonic()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _run(config, assignment, seed, threads, started, time_s, probe, rung)
    finally:
        torch.set_num_threads(before)


def _run(
    config: Config,
    assignment: ImageAssignment,
    seed: int,
    threads: int,
    started: float,
    time_s: float | None,
    probe: bool,
    rung: Rung | None,
) -> dict[str, Any]:
    task = Task.from_json(dict(assignment.task))
    profile = ImageProfile.from_json(assignment.profile)
    family = pool.families([config["family"]])[config["family"]]
    files = assignment.files
    x, y = np.load(files["x"], mmap_mode="r"), np.load(files["y"])
    split = np.load(files["splits"])[0]
    held_out = np.flatnonzero(split == VALID)
    train = ImageData(x, y, np.flatnonzero(split == TRAIN))
    budget = TrainBudget(deadline=_deadline(started, time_s, probe), threads=threads)
    if rung is not None:
        budget.epochs, budget.of, budget.folder = rung.epochs, rung.of, rung.folder
    net = family.fit(config, task, profile, train, ImageData(x, y, held_out), budget, seed)
    predicted = net.predict(x[held_out])
    if not np.isfinite(predicted).all():
        raise TrialError(
            f"{config['family']} gives answers that are no numbers.", hint="Its learning rate was too large."
        )
    scores = predicted.astype(np.float64)
    oof = np.full((len(y), task.n_outputs), np.nan, dtype=np.float32)
    oof[held_out] = predicted
    test = net.predict(np.load(files["x_test"], mmap_mode="r")) if "x_test" in files else None
    return {
        "oof": oof,
        "test": test,
        "checkpoint": pack({"models": [net.checkpoint()]}),
        "fold_scores": (scorer(task, assignment)(y[held_out], scores),),
        "scores": {**all_scores(task, y[held_out], scores), MODELS: 1.0},
        "cost": net.cost,
        "curve": tuple(budget.curve),
        "folds": 1,
        "fidelity": 1.0 if rung is None else rung.epochs / rung.of,
        "stopped": None,
        "fold_s": (time.monotonic() - started,),
        "probe": measure(net, x[held_out[:BATCH]]) if probe else None,
        "probe_flops": net.cost.flops,
    }


def _deadline(started: float, time_s: float | None, probe: bool) -> float:
    if time_s is None:
        return math.inf
    kept = min(_PROBE_S, 0.25 * time_s) if probe else 0.0
    return started + _TRAINING * (time_s - kept)


def measure(net: FittedNet, x: NDArray[np.uint8]) -> Speed:
    """Export a net and time it with onnxruntime, on one image and on many; some seconds, which PyTorch takes."""
    begun = time.perf_counter()
    graph = GraphBuilder()
    inlet = graph.input("x", np.float32, ["N", *x.shape[1:]])
    graph.output(net.emit(graph, inlet), "scores", np.float32, ["N", "K"])
    data = graph.model().SerializeToString()
    run = session(data)
    build_s = time.perf_counter() - begun
    many = np.ascontiguousarray(x[np.arange(BATCH) % len(x)], dtype=np.float32)
    run.run(None, {"x": many})
    begun = time.thread_time()  # the session stays on this thread, whose own seconds don't count what others take
    run.run(None, {"x": many})
    batch_s = time.thread_time() - begun
    begun = time.perf_counter()
    net.predict(many)
    model_s = time.perf_counter() - begun
    return Speed(
        row_ms=measure_latency_ms(data, {"x": many[:1]}, seconds=0.02),
        batch_us=batch_s / BATCH * 1e6,
        model_us=model_s / BATCH * 1e6,
        build_s=build_s,
        size_bytes=len(data),
    )
