"""One trial on texts, as a worker runs it: a model is trained on most, and judged on those that were held out."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

import numpy as np

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.texts.readers import read_all
from tidemill.core.task import Task
from tidemill.core.trial import Config
from tidemill.data.texts.packed import read_texts
from tidemill.models.text import pool
from tidemill.models.text._base import FittedText, TextData, TextProfile, Texts
from tidemill.models.training.budget import TrainBudget
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

CALL = "tidemill.search.texts.evaluate:run_trial"
"""The name under which an executor finds `run_trial`."""
LIGHT = frozenset({"ngrams"})
"""Families that do without PyTorch, which takes seconds to load."""


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
        The texts and the question; its profile is `TextProfile.to_json`.
    seed : int
        Seed of the trial.
    threads : int
        Threads that it may use.
    time_s : float, optional
        Seconds that it may take; the training is cut to what fits.
    bonus_s, race
        Of no account: there is one split.
    probe : bool
        Export the model and measure its speed and size.
    rung : Rung, optional
        Train up to there and pause; what was trained before goes on in place. Of no account for `LIGHT` families.

    Returns
    -------
    dict
        As `tidemill.search.evaluate.run_trial` gives it.

    Raises
    ------
    TrialTimeoutError
        Where the time is too short for any training.
    TrialError
        Where the answers are no numbers, or the model can't be exported.
    """
    started = time.monotonic()
    task, profile = Task.from_json(dict(assignment.task)), TextProfile.from_json(assignment.profile)
    family = pool.families([config["family"]])[config["family"]]
    files, rows = assignment.files, Rows.of(assignment)
    x, y = read_texts(files["x"]), np.load(files["y"])
    x_test = read_texts(files["x_test"]) if "x_test" in files else None
    deadline = deadline_of(started, time_s, probe)
    budget = limited(TrainBudget(deadline=deadline, threads=threads, cache=files.get("cache")), rung)
    with nullcontext() if config["family"] in LIGHT else torch_threads(threads):
        train, valid = TextData(x, y, rows.train), TextData(x, y, rows.held_out)
        model = family.fit(config, task, profile, train, valid, budget, seed)
        return judged(
            model, assignment, rows, x, x_test, y, family=str(config["family"]), budget=budget, rung=rung,
            started=started, measure=(lambda: measure(model, x[rows.held_out])) if probe else None,
        )  # fmt: skip


def measure(model: FittedText, x: Texts) -> Speed:
    """Export a model and time it on texts of about the middle length."""
    order = np.argsort([len(str(text)) for text in x], kind="stable")
    middle = order[max(0, (len(order) - BATCH) // 2) :][:BATCH]
    some = x[middle[np.arange(BATCH) % len(middle)]]

    def write() -> bytes:
        graph = GraphBuilder()
        for reader in model.readers:
            reader.declare(graph)
        graph.output(model.emit(graph, ""), "scores", np.float32, ["N", "K"])
        return bytes(graph.model().SerializeToString())

    feed = read_all(model.readers, [str(text) for text in some])
    return measure_graph(write, feed, lambda: model.predict(some))
