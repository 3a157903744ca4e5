"""A batch that a worker has, and what an observer is told of it when it is back."""

from __future__ import annotations

from dataclasses import dataclass

from tidemill.deploy.engine.model import Job, Model
from tidemill.deploy.engine.observing import Columns
from tidemill.deploy.engine.query import Outputs
from tidemill.deploy.types import NO_PARENTS, BatchEvent


@dataclass(slots=True, eq=False)
class Flight:
    """A batch that a worker has.

    Parameters
    ----------
    ticket : int
        Its number between front and worker.
    model, jobs, rows
        Whose it is, and what is in it.
    sent, begun : float
        When it went to the worker, and when the worker was free for it.
    alone : bool
        True where nothing may share its worker.
    area : int
        Shared memory that it lies in, 1 or 2.
    """

    ticket: int
    model: Model
    jobs: list[Job]
    rows: int
    sent: float
    begun: float
    alone: bool
    area: int


def event_of(model: Model, flight: Flight, outputs: Outputs, landed: float, *, traced: bool) -> BatchEvent:
    """Tell of a batch; what was refused, divided or copied has told of itself."""
    layout = model.layout
    assert layout is not None
    jobs = flight.jobs
    parts: dict[int, int] = {}
    if flight.rows == len(jobs):
        ids = [job.request_id for job in jobs]
        told = [(k, job) for k, job in enumerate(jobs) if job.ended]
        if len(told) < len(jobs):
            parts = {k: job.first for k, job in enumerate(jobs) if job.first >= 0}
    else:
        ids, told = [], []
        for job in jobs:
            if job.ended:
                told.append((len(ids), job))
            elif job.first >= 0:
                parts[len(ids)] = job.first
            ids.extend([job.request_id] * job.rows)
    parents = {k: job.traceparent for k, job in told if job.traceparent} if traced else NO_PARENTS
    return BatchEvent(
        model.endpoint, model.revision, Columns(layout, flight.rows, [j.query.pieces for j in jobs], jobs[0].key),
        outputs.by_name(), ids, [k for k, _ in told], [j.rows for _, j in told], [j.arrived for _, j in told],
        [j.queued for _, j in told], [j.ended for _, j in told], flight.sent, landed, outputs.model_ms,
        [j.retries for _, j in told], parts, parents,
    )  # fmt: skip
