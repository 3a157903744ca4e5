"""The kind of job ``fit``: a search that ends when it is told to, and goes on where it was killed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidemill.core.budget import parse_size_bytes
from tidemill.core.trial import StudyRecord
from tidemill.jobs.queue.context import JobContext, JobStopped
from tidemill.jobs.queue.kinds import Argument
from tidemill.sdk.job_time import time_s
from tidemill.sdk.options import DEFAULT_TIME, FitOptions, parse_types
from tidemill.search.events import Event
from tidemill.store.workspace import Workspace

_SEARCHING = frozenset({"prepare", "baselines", "portfolio", "search"})
"""Stages of a fit that a stop breaks off; those after them end by themselves, and soon."""

ENGINE = {
    # Over HTTP nobody starts a Ray on the worker's machine, or has the worker call an address: Ray asks nobody for a
    # password.
    "engine": Argument("string", "process, inprocess or ray.", local=True),
    "ray_address": Argument("string", "With ray: host:port of the cluster's head, or auto.", local=True),
}
"""Arguments of kinds that run on an executor."""
WITHIN = Argument("path", "Folder that names of images in a table must not lead out of.")
"""Argument ``within`` of kinds that read tables; for callers from afar it is set for them."""

FIT_OPTIONS = {
    "name": Argument("string", "Name of the study; default job-N."),
    "kind": Argument("string", "binary, multiclass, regression, or as `tidemill fit --kind` takes it."),
    "positive": Argument("string", "The positive class of a binary task."),
    "separator": Argument("string", "Between labels of a cell, where a row has several."),
    "objective": Argument("objective", "Text of the objective."),
    "time": Argument("duration", "Time of the whole, for example 2m."),
    "trials": Argument("integer", "Number of trials."),
    "memory": Argument("size", "Memory of all trials together, for example 4GB; never more than the job's."),
    "device": Argument("string", "What nets are trained on: auto, cpu, cuda or cuda:N."),
    "plan": Argument("path", "A plan's JSON for every training of a net; default the planner's choice."),
    "test": Argument("path", "File with locked test rows."),
    "test_size": Argument("number", "Share of rows to lock away as the test slice."),
    "group": Argument("string", "Column whose groups stay in one fold."),
    "time_column": Argument("string", "Column whose order folds and test slice follow."),
    "types": Argument("object", "Semantic types by column.", items="string"),
    "families": Argument("array", "Only these families.", items="string"),
    "schedule": Argument("string", "full, rows or rungs."),
    "epochs": Argument("integer", "With rungs: epochs of a whole training."),
    "brackets": Argument("integer", "With rungs: on how many of them trials begin."),
    "sheet": Argument("string", "Sheet of an Excel file."),
    "images": Argument("path", "Folder or zip archive with the image files that a table names."),
    "image_size": Argument("integer", "Images are resized to so many pixels a side."),
    "ignore_case": Argument("boolean", "Read lines of text in lower case."),
    "weights": Argument("array", "Trained weights to begin from, or to read columns by.", items="weights"),
    "decode": Argument("string", "greedy, beam or beam:WIDTH."),
    "within": WITHIN,
    "seed": Argument("integer", "Seed."),
    **ENGINE,
}
"""Fields of `FitOptions` that a job may set.

The others are the job's own (``cpus``, ``started``), are for callers in the same process (``keep_all_features``,
``in_process``), or would show a password to who looks at the job (``database``).
"""


def review(*, data: str, target: str | None = None, out: str | None = None, **words: Any) -> None:
    """Refuse values that no fit takes, while somebody listens; raises `OptionError`."""
    _options(words).budget()


def fit(
    context: JobContext, *, data: str, target: str | None = None, out: str | None = None, **words: Any
) -> dict[str, Any]:
    """Search and export as `tidemill.fit` does; another attempt goes on with the study of the first.

    Parameters
    ----------
    context : JobContext
        Of the job; its cores, memory and time are limits of the fit.
    data, target, out : str
        As in `tidemill.sdk.fit.fit_to_bundle`.
    **words
        `FIT_OPTIONS`.
    """
    from tidemill.sdk.fit import fit_to_bundle

    words = {**words, "name": words.get("name") or f"job-{context.job}"}
    begun = _begun(context, words["name"])
    place = None if out is None else Path(out)
    told = Listening(context)
    try:
        if begun is None:
            options = _options({**words, **_limits(context, words)})
            result = fit_to_bundle(
                data, target, out=place, options=options, workspace=context.workspace, on_event=told.hear,
                job=context.job,
            )  # fmt: skip
        else:
            options = _options(_anew({**words, **_limits(context, words)}, begun))
            result = fit_to_bundle(
                None, None, out=place, options=options, workspace=context.workspace, on_event=told.hear,
                resume=begun.name,
            )  # fmt: skip
    except KeyboardInterrupt as error:
        raise JobStopped from error
    with result.study as study:
        if told.stopped and study.search.record.state != "complete":
            raise JobStopped
        return result.to_json()


def _options(words: Mapping[str, Any]) -> FitOptions:
    """Options of a fit from plain JSON."""
    own: dict[str, Any] = {name: tuple(words[name]) for name in ("families", "weights") if name in words}
    if "types" in words:
        own["types"] = parse_types(f"{column}={kind}" for column, kind in words["types"].items())
    return FitOptions(**{**words, **own})


class Listening:
    """Hears how a fit goes, tells it to the queue, and ends the fit where the job is to stop.

    Parameters
    ----------
    context : JobContext
        The job.
    """

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._asked = False

    @property
    def stopped(self) -> bool:
        """Whether nobody wants the result. Where only the time is over, what can be finished in seconds is wanted."""
        return self._context.stopping and not self._context.out_of_time

    def hear(self, event: Event) -> None:
        """Raises `KeyboardInterrupt` where the search is to end: it then ends tidily, as it does for a person."""
        if event.kind in ("finished", "stage"):
            best = "" if event.best is None else f", best {event.metric} {event.best:.4g} ({event.best_trial})"
            self._context.progress(message=f"{event.stage}: {event.finished} trials{best}")
        if self._context.stopping and not self._asked and event.stage in _SEARCHING:
            self._asked = True
            raise KeyboardInterrupt
        if self.stopped and event.stage == "export":  # before it; a bundle that is written counts
            raise KeyboardInterrupt


def _begun(context: JobContext, name: str) -> StudyRecord | None:
    """The study that an earlier attempt left behind."""
    from tidemill.sdk.resume import study_of_job

    with Workspace.open(context.workspace) as workspace:
        return study_of_job(workspace, name, context.job)


def _anew(words: Mapping[str, Any], begun: StudyRecord) -> dict[str, Any]:
    """What is said anew to a study that goes on; one that is complete needs nothing but its export."""
    from tidemill.sdk.resume import FREE

    said = {name: value for name, value in words.items() if name in FREE}
    return {**said, "trials": 0} if begun.state == "complete" else said


def _limits(context: JobContext, words: Mapping[str, Any]) -> dict[str, Any]:
    """Limits of a fit that the job sets: its cores, its memory and its time."""
    if words.get("engine") == "inprocess":  # nothing could end a trial; the job itself can be ended
        return {"cpus": context.cpus}
    asked = None if words.get("memory") is None else parse_size_bytes(words["memory"])
    sizes = [size for size in (asked, context.memory_bytes) if size]
    time_s = _time_s(context, words.get("time"), words.get("trials"))
    return {"cpus": context.cpus, "time": time_s, "memory": min(sizes, default=None)}


def _time_s(context: JobContext, asked: str | float | None, trials: int | None) -> float | None:
    """Seconds of a fit. Where nobody limits anything it is as with every fit: without trials it ends after a while."""
    unlimited = asked is None and trials is None and context.left_s() == float("inf")
    return time_s(context, DEFAULT_TIME if unlimited else asked)
