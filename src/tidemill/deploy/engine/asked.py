"""A request for predictions under way: its job, and whom the answer goes to."""

from __future__ import annotations

from tidemill.deploy.engine.exchange import Exchange
from tidemill.deploy.engine.heads import parent_of
from tidemill.deploy.engine.idempotency import Entry
from tidemill.deploy.engine.model import Done, Job, Model
from tidemill.deploy.engine.query import Outputs, Query
from tidemill.deploy.engine.served import Served


class Asked(Job):
    """A request as a whole.

    Parameters
    ----------
    exchange : Exchange
        Whom the answer goes to.
    served, model : Served, Model
        The endpoint, and which of its revisions shall answer.
    request_id : str
        Its name.
    form : str
        How it was written, and so is answered.
    """

    kept: Entry | None = None
    parts: list[Outputs | None] | None = None
    waiting: int = 0
    rows: int = 0
    landed: float = 0.0
    model_ms: float = 0.0

    def __init__(self, exchange: Exchange, served: Served, model: Model, request_id: str, form: str) -> None:
        # Not the parent's: it knows its rows only when they are read.
        self.exchange = exchange
        self.served = served
        self.model = model
        self.request_id = request_id
        self.form = form
        self.arrived = exchange.started

    def read(self, query: Query, deadline: float, done: Done, now: float) -> None:
        """Its rows are there."""
        self.query = query
        self.rows = query.rows
        self.key = query.shapes
        self.deadline = deadline
        self.done = done
        self.queued = now

    @property
    def traceparent(self) -> str:
        """The caller's span."""
        return parent_of(self.exchange.headers)


class Part(Job):
    """One slice of a request that has many rows."""

    def __init__(self, asked: Asked, index: int, first: int, query: Query, done: Done) -> None:
        super().__init__(query, asked.arrived, asked.deadline, done)
        self.asked = asked
        self.index = index
        self.first = first
        self.request_id = asked.request_id
