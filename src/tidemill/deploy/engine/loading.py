"""A model's first minutes: it is loaded, its golden rows must pass, and its batch curve is measured."""

from __future__ import annotations

from tidemill.core.errors import BundleError, TidemillError
from tidemill.deploy.engine import wire
from tidemill.deploy.engine.curves import Curve
from tidemill.deploy.engine.model import Model, State
from tidemill.deploy.engine.refusal import Refusal
from tidemill.deploy.engine.staff import Staff, WorkerDiedError


async def load(staff: Staff, model: Model, attempts: int) -> None:
    """Load a model for the first time: its graph is understood, its golden rows must pass.

    Parameters
    ----------
    staff : Staff
        Whose workers load it.
    model : Model
        Which; it is `State.FAILED` where it can't serve.
    attempts : int
        How often it is tried when workers die of it.

    Raises
    ------
    TidemillError
        Why it can't serve.
    """
    model.state = State.CHECKING
    try:
        for attempt in range(attempts):
            try:
                await _check(staff, model)
                break
            except WorkerDiedError:  # it says nothing about the model yet
                if attempt + 1 == attempts:
                    raise
    except Refusal:  # there is no room just now
        model.state = State.NEW
        raise
    except TidemillError as error:
        model.state, model.problem = State.FAILED, str(error)
        for worker in list(model.workers):
            staff.release(model, worker)
        raise
    model.state = State.READY


async def _check(staff: Staff, model: Model) -> None:
    worker = await staff.start(model)
    if model.facts.golden is None:
        return
    report = await staff.ask(worker, wire.CHECK, {"golden": str(model.facts.golden)})
    model.held_bytes = max(model.held_bytes, int(report["memory"]))
    if report["problems"]:
        raise BundleError(" ".join(report["problems"]), where=str(model.facts.model))


async def measure(staff: Staff, model: Model) -> Curve | None:
    """Measure the batch curve finely, in a worker beside those that serve, and learn the best batch from it.

    Returns
    -------
    Curve or None
        What was measured; None where it could not be.
    """
    request = {"golden": None if model.facts.golden is None else str(model.facts.golden)}
    try:
        worker = await staff.start(model, serving=False)
        try:
            report = await staff.ask(worker, wire.MEASURE, request)
        finally:
            worker.release()
    except TidemillError:  # it serves as it is
        return None
    curve = Curve(tuple((int(b), float(ms)) for b, ms in report["curve"]), int(report["memory"]))
    model.measure_is(curve)
    return curve
