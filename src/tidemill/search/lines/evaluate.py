"""One trial on lines, as a worker runs it: a net is trained on most, and judged on those that were held out."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.lines.decode import write_greedy
from tidemill.bundle.lines.encoder import Lines
from tidemill.core.task import Task
from tidemill.core.trial import Config
from tidemill.data.images.lines import read_lines
from tidemill.models.recognition import pool
from tidemill.models.recognition._base import FittedLines, LineData, LineProfile
from tidemill.models.recognition.samples import side_by_side
from tidemill.models.training.budget import TrainBudget
from tidemill.search.evaluate import Race
from tidemill.search.heldout.trial import (
    BATCH,
    HeldOutAssignment,
    Rows,
    deadline_of,
    judged,
    measure_graph,
    torch_threads,
)
from tidemill.search.latency import Speed

CALL = "tidemill.search.lines.evaluate:run_trial"
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
) -> dict[str, Any]:
    """Train a config and say what came of it.

    Parameters
    ----------
    config : Config
        A complete config.
    assignment : HeldOutAssignment
        The lines and the question; its profile is `LineProfile.to_json`.
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

    Returns
    -------
    dict
        As `tidemill.search.evaluate.run_trial` gives it; ``oof`` and ``test`` are transcripts, see
        `tidemill.core.transcripts`.

    Raises
    ------
    TrialTimeoutError
        Where the time is too short for any training.
    TrialError
        Where the answers are no numbers, or the net can't be exported.
    """
    started = time.monotonic()
    task, profile = Task.from_json(dict(assignment.task)), LineProfile.from_json(assignment.profile)
    family = pool.families([config["family"]])[config["family"]]
    files, rows = assignment.files, Rows.of(assignment)
    x, y = read_lines(files["x"]), np.load(files["y"])
    x_test = read_lines(files["x_test"]) if "x_test" in files else None
    budget = TrainBudget(deadline=deadline_of(started, time_s, probe), threads=threads)
    with torch_threads(threads):
        train, valid = LineData(x, y, rows.train), LineData(x, y, rows.held_out)
        net = family.fit(config, task, profile, train, valid, budget, seed)
        return judged(
            net, assignment, rows, x, x_test, y, family=str(config["family"]), budget=budget, rung=None,
            started=started, measure=(lambda: measure(net, x[rows.held_out])) if probe else None,
        )  # fmt: skip


def measure(net: FittedLines, x: Lines) -> Speed:
    """Export a net and time it on lines of the middle width, down to their texts."""
    widths = [line.shape[1] for line in x]
    middle = x[int(np.argsort(widths, kind="stable")[len(widths) // 2])]
    lines = np.empty(BATCH, dtype=object)
    for place in range(BATCH):
        lines[place] = middle
    many = side_by_side(list(lines))

    def write() -> bytes:
        graph = GraphBuilder()
        inlet = graph.input("x", np.float32, ["N", 1, many.shape[2], "V"])
        text, confidence = write_greedy(graph, net.emit(graph, inlet), net.alphabet)
        graph.output(text, "text", str, ["N"])
        graph.output(confidence, "confidence", np.float32, ["N"])
        return bytes(graph.model().SerializeToString())

    return measure_graph(write, {"x": many}, lambda: net.predict(lines))
