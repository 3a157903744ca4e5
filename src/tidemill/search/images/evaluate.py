"""One trial on images, as a worker runs it: a net is trained on most, and judged on those that were held out."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.task import Task
from tidemill.core.trial import Config
from tidemill.models.training.budget import TrainBudget
from tidemill.models.vision import pool
from tidemill.models.vision._base import FittedNet, ImageData, ImageProfile
from tidemill.search.evaluate import Race
from tidemill.search.heldout.trial import (
    BATCH,
    HeldOutAssignment,
    Rows,
    deadline_of,
    judged,
    limited,
    measure_graph,
    torch_threads,
)
from tidemill.search.latency import Speed
from tidemill.search.rungs.ladder import Rung

CALL = "tidemill.search.images.evaluate:run_trial"
"""The name under which an executor finds `run_trial`."""


def run_trial(
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
) -> dict[str, Any]:
    """Train a config and say what came of it.

    Parameters
    ----------
    config : Config
        A complete config.
    assignment : HeldOutAssignment
        The images and the question; its profile is `ImageProfile.to_json`.
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
    started = time.monotonic()
    task, profile = Task.from_json(dict(assignment.task)), ImageProfile.from_json(assignment.profile)
    family = pool.families([config["family"]])[config["family"]]
    files, rows = assignment.files, Rows.of(assignment)
    x, y = np.load(files["x"], mmap_mode="r"), np.load(files["y"])
    x_test = np.load(files["x_test"], mmap_mode="r") if "x_test" in files else None
    deadline = deadline_of(started, time_s, probe)
    budget = limited(TrainBudget(deadline=deadline, threads=threads, cache=files.get("cache")), rung)
    with torch_threads(threads):
        train, valid = ImageData(x, y, rows.train), ImageData(x, y, rows.held_out)
        net = family.fit(config, task, profile, train, valid, budget, seed)
        return judged(
            net, assignment, rows, x, x_test, y, family=str(config["family"]), budget=budget, rung=rung,
            started=started, measure=(lambda: measure(net, x[rows.held_out[:BATCH]])) if probe else None,
        )  # fmt: skip


def measure(net: FittedNet, x: NDArray[np.uint8]) -> Speed:
    """Export a net and time it."""
    many = np.ascontiguousarray(x[np.arange(BATCH) % len(x)], dtype=np.float32)

    def write() -> bytes:
        graph = GraphBuilder()
        inlet = graph.input("x", np.float32, ["N", *x.shape[1:]])
        graph.output(net.emit(graph, inlet), "scores", np.float32, ["N", "K"])
        return bytes(graph.model().SerializeToString())

    return measure_graph(write, {"x": many}, lambda: net.predict(many))
