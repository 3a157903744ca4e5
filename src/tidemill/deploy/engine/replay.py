"""What becomes of requests whose worker died, or whose batch raised an error: tried again, or refused by themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tidemill.deploy.engine.fleet import Worker
from tidemill.deploy.engine.flight import Flight
from tidemill.deploy.engine.model import Job, Model, State
from tidemill.deploy.engine.refusal import Refusal


def left_behind(
    model: Model, worker: Worker, attempts: int, *, ends: bool, lost: Callable[[Flight], None]
) -> Iterator[tuple[list[Job], bool]]:
    """Give the requests that a dead worker held, batch by batch, and whether they must run alone from now on.

    What it *ran* when it died is tried alone; what was behind that was no cause of its death. A request that kills or
    hangs its workers is refused here after some attempts.

    Parameters
    ----------
    model, worker : Model, Worker
        Whose they are.
    attempts : int
        How often a request may run when a worker dies.
    ends : bool
        True where the engine ends: nothing is tried again.
    lost : callable
        Hears of each batch.
    """
    first = True
    while worker.flights:
        flight = worker.flights.popleft()
        lost(flight)
        again: list[Job] = []
        for job in flight.jobs:
            job.retries += 1
            job.attempts += first
            if job.attempts >= attempts:
                why = "Its workers died of it" if worker.killed_for == "" else "Its workers hang on it"
                text = f"{why}, {job.attempts} times; it will not be tried again."
                job.done(job, None, 0, Refusal(500, "model_failed", text))
            elif model.state is State.GONE or ends:
                job.done(job, None, 0, Refusal(503, "unavailable", "The server ends.", retry_after_s=1))
            else:
                again.append(job)
        yield again, first
        first = False


def refuse_alone(jobs: Sequence[Job], told: dict[str, Any]) -> bool:
    """Answer the one request of a batch that raised an error; False where there are several, which run again alone."""
    if len(jobs) > 1:
        return False
    (job,) = jobs
    if told.get("kind") != "input":
        why = Refusal(500, "model_failed", f"The model failed: {told['error']}")
    elif "row" in told:
        why = Refusal(400, "invalid_input", job.query.misfit(int(told["row"]), str(told["error"])))
    else:
        why = Refusal(400, "invalid_input", f"The model refused it: {told['error']}")
    job.done(job, None, 0, why)
    return True
