"""What a queue can run: the use cases that take long, as kinds of jobs. Each runs in a process of its own."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import Any

from tidemill.bundle.gaps import Gap
from tidemill.core.errors import OptionError
from tidemill.jobs.queue.context import JobContext
from tidemill.jobs.queue.kinds import Argument, Kind, Kinds
from tidemill.sdk.job_fit import ENGINE, FIT_OPTIONS, WITHIN

ENTRY_POINTS = "tidemill.job_kinds"
"""Packages outside register a `Kind`, or a list of them, under any name in this group."""

_DATA = Argument("data", "A file, or a dataset version of the workspace, name@hash.", required=True)
_BUNDLE = Argument("path", "Folder of a bundle.", required=True)

KINDS = (
    Kind(
        "fit",
        "tidemill.sdk.job_fit:fit",
        "Search for the best model of a table, of images or of texts, and export it.",
        {
            "data": _DATA,
            "target": Argument("string", "Column to predict."),
            "out": Argument("path", "Folder for the bundle; without it only the study is kept."),
            **FIT_OPTIONS,
        },
        cpus=0,  # as `tidemill fit`, which takes all of the machine's
        review="tidemill.sdk.job_fit:review",
    ),
    Kind(
        "train",
        "tidemill.sdk.job_train:train",
        "Train the module that a Python function defines, as `tidemill plan` takes it.",
        {
            "source": Argument("code", "FILE.py:FUNCTION or package.module:FUNCTION.", required=True, local=True),
            "out": Argument("path", "File for the weights, safetensors."),
            "plan": Argument(
                "path", "A plan's JSON, as `tidemill plan --out` writes it; default the planner's choice."
            ),
            "recipe": Argument("object", 'What replaces the function\'s recipe, for example {"epochs": 5}.'),
            "time": Argument("duration", "Time of the training, in which it ends with what it has."),
            "seed": Argument("integer", "Seed."),
        },
        cpus=0,
        review="tidemill.sdk.job_train:review",
    ),
    Kind(
        "predict",
        "tidemill.sdk.job_kinds:predict",
        "Predict a file's rows into a CSV file.",
        {
            "bundle": _BUNDLE,
            "data": _DATA,
            "out": Argument("path", "The CSV file.", required=True),
            "within": WITHIN,
            **ENGINE,
        },
    ),
    Kind(
        "evaluate",
        "tidemill.sdk.job_kinds:evaluate",
        "Compare predictions with the known target of a file.",
        {"bundle": _BUNDLE, "data": _DATA, "within": WITHIN},
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


def predict(
    context: JobContext,
    *,
    bundle: str,
    data: str,
    out: str,
    engine: str = "inprocess",
    ray_address: str | None = None,
    within: str | None = None,
) -> dict[str, Any]:
    """Predict as ``tidemill predict`` does."""
    from tidemill.sdk.bundles import predict_to_csv
    from tidemill.sdk.job_rows import rows_for

    rows = rows_for(context, bundle, data, within)
    return {"rows": predict_to_csv(bundle, rows, out, engine=engine, ray_address=ray_address), "out": out}


def evaluate(context: JobContext, *, bundle: str, data: str, within: str | None = None) -> dict[str, Any]:
    """Evaluate as ``tidemill evaluate`` does."""
    from tidemill.sdk.bundles import evaluate as run
    from tidemill.sdk.job_rows import rows_for

    def tell(gap: Gap) -> None:
        sys.stdout.write(f"{gap}\n")  # into the job's log

    return dict(run(bundle, rows_for(context, bundle, data, within), on_gap=tell))


def drift(context: JobContext, *, a: str, b: str, out: str | None = None) -> dict[str, Any]:
    """Compare as ``tidemill data drift`` does."""
    from tidemill.sdk.data.judge import drift as run

    return run(a, b, out=out, workspace=context.workspace, actor=context.owner or None)


def gc(context: JobContext, *, dataset: str | None = None, dry_run: bool = False) -> dict[str, Any]:
    """Tidy up as ``tidemill data gc`` does, with the roles of the job's owner."""
    from tidemill.sdk.data.govern import gc as run

    return run(dataset, dry_run=dry_run, workspace=context.workspace, actor=context.owner or None)
