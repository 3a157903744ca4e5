"""What a queue can run: the use cases that take long, as kinds of jobs. Each runs in a process of its own."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from tidemill.core.budget import parse_duration_s
from tidemill.core.errors import OptionError
from tidemill.jobs.queue.context import JobContext, JobStopped
from tidemill.jobs.queue.kinds import Argument, Kind, Kinds

ENTRY_POINTS = "tidemill.job_kinds"
"""Packages outside register a `Kind`, or a list of them, under any name in this group."""

_DATA = Argument("data", "A file, or a dataset version of the workspace, name@hash.", required=True)
_BUNDLE = Argument("path", "Folder of a bundle.", required=True)

KINDS = (
    Kind(
        "fit",
        "tidemill.sdk.job_kinds:fit",
        "Search for the best model of a table, and export it.",
        {
            "data": _DATA,
            "target": Argument("string", "Column to predict."),
            "out": Argument("path", "Folder for the bundle; without it only the study is kept."),
            "name": Argument("string", "Name of the study; default job-N."),
            "objective": Argument("string", "Text of the objective."),
            "time": Argument("string", "Time of the whole, for example 2m."),
            "trials": Argument("integer", "Number of trials."),
            "memory": Argument("string", "Memory of all trials together, for example 4GB."),
            "kind": Argument("string", "binary, multiclass, regression, or as `tidemill fit --kind` takes it."),
            "separator": Argument("string", "Between labels of a cell, where a row has several."),
            "families": Argument("array", "Only these families."),
            "schedule": Argument("string", "full, rows or rungs."),
            "epochs": Argument("integer", "With rungs: epochs of a whole training."),
            "brackets": Argument("integer", "With rungs: on how many of them trials begin."),
            "seed": Argument("integer", "Seed."),
        },
    ),
    Kind(
        "predict",
        "tidemill.sdk.job_kinds:predict",
        "Predict a file's rows into a CSV file.",
        {"bundle": _BUNDLE, "data": _DATA, "out": Argument("path", "The CSV file.", required=True)},
    ),
    Kind(
        "evaluate",
        "tidemill.sdk.job_kinds:evaluate",
        "Compare predictions with the known target of a file.",
        {"bundle": _BUNDLE, "data": _DATA},
    ),
    Kind(
        "drift",
        "tidemill.sdk.job_kinds:drift",
        "Compare the distributions of two dataset versions.",
        {
            "a": Argument("string", "Version before.", required=True),
            "b": Argument("string", "Version after.", required=True),
            "out": Argument("path", "File of a report."),
        },
    ),
    Kind(
        "gc",
        "tidemill.sdk.job_kinds:gc",
        "Remove the files of dropped dataset versions, and what crashed writers left.",
        {
            "dataset": Argument("string", "Only of this dataset."),
            "dry_run": Argument("boolean", "Only say what would be done."),
        },
    ),
)


def known_kinds() -> Kinds:
    """All kinds: ours, and those of installed packages.

    Raises
    ------
    OptionError
        Where a package registers something else, or a name that is taken.
    """
    found = {kind.name: kind for kind in KINDS}
    for point in entry_points(group=ENTRY_POINTS):
        loaded = point.load()
        for kind in [loaded] if isinstance(loaded, Kind) else list(loaded):
            if not isinstance(kind, Kind) or kind.name in found:
                raise OptionError(f"The kind of job {point.name!r} can't be registered.", where=point.value)
            found[kind.name] = kind
    return Kinds(found.values())


def fit(
    context: JobContext,
    *,
    data: str,
    target: str | None = None,
    out: str | None = None,
    name: str | None = None,
    time: str | None = None,
    families: list[str] | None = None,
    **words: Any,
) -> dict[str, Any]:
    """Search and export as `tidemill.fit` does; another attempt goes on with the study of the first."""
    from tidemill.sdk.fit import FitOptions, fit_to_bundle
    from tidemill.search.events import Event

    marker = context.checkpoint / "study"
    limits: dict[str, Any] = {"time": _time_s(context, time), "cpus": context.cpus}
    free = {k: v for k, v in words.items() if k in ("trials", "memory")}
    asked = False

    def hear(event: Event) -> None:
        nonlocal asked
        if event.kind == "started" and not marker.exists():
            marker.write_text(event.study, encoding="utf-8")
        if event.kind in ("finished", "stage"):
            best = "" if event.best is None else f", best {event.metric} {event.best:.4g} ({event.best_trial})"
            context.progress(message=f"{event.stage}: {event.finished} trials{best}")
        if context.stopping and not asked:
            asked = True  # once: what follows ends the search tidily, and is told by the same way
            raise KeyboardInterrupt

    place = None if out is None else Path(out)
    try:
        if marker.exists():
            study = marker.read_text(encoding="utf-8")
            result = fit_to_bundle(
                None, None, out=place, options=FitOptions(**limits, **free), resume=study,
                workspace=context.workspace, on_event=hear,
            )  # fmt: skip
        else:
            more: dict[str, Any] = {"families": tuple(families)} if families else {}
            options = FitOptions(**limits, **words, **more, name=name or f"job-{context.job}")
            result = fit_to_bundle(data, target, out=place, options=options, workspace=context.workspace, on_event=hear)
    except KeyboardInterrupt as error:
        raise JobStopped from error
    told = result.to_json()
    result.study.close()
    context.stop_here()
    return told


def predict(context: JobContext, *, bundle: str, data: str, out: str) -> dict[str, Any]:
    """Predict as ``tidemill predict`` does."""
    from tidemill.sdk.bundles import predict_to_csv

    return {"rows": predict_to_csv(bundle, _rows(context, data), out), "out": out}


def evaluate(context: JobContext, *, bundle: str, data: str) -> dict[str, Any]:
    """Evaluate as ``tidemill evaluate`` does."""
    from tidemill.sdk.bundles import evaluate as run

    return dict(run(bundle, _rows(context, data)))


def drift(context: JobContext, *, a: str, b: str, out: str | None = None) -> dict[str, Any]:
    """Compare as ``tidemill data drift`` does."""
    from tidemill.sdk.data.judge import drift as run

    return run(a, b, out=out, workspace=context.workspace, actor=context.owner or None)


def gc(context: JobContext, *, dataset: str | None = None, dry_run: bool = False) -> dict[str, Any]:
    """Tidy up as ``tidemill data gc`` does, with the roles of the job's owner."""
    from tidemill.sdk.data.govern import gc as run

    return run(dataset, dry_run=dry_run, workspace=context.workspace, actor=context.owner or None)


def _rows(context: JobContext, data: str) -> Any:
    """The rows of a dataset version where one is named, else the file."""
    from tidemill.sdk.sources import read_version

    named = read_version(data, context.workspace, actor=context.owner or None)
    return data if named is None else named.raw.table


def _time_s(context: JobContext, asked: str | None) -> float | None:
    """The time of a fit: what was asked for, and no more than the job has left."""
    left = context.left_s()
    if asked is None:
        return None if left == float("inf") else max(1.0, left)
    return min(parse_duration_s(asked), max(1.0, left))
