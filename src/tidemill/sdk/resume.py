"""What a resumed fit takes from the study that it goes on with."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.core.trial import StudyRecord, TrialState
from tidemill.sdk.options import FitOptions
from tidemill.sdk.sources import LIMITS, SOURCE
from tidemill.store.workspace import Workspace

JOB = "job"
"""Key of a study's source under which the number of the job stands that began it, where one did."""
FREE = (
    "time",
    "trials",
    "memory",
    "cpus",
    "device",
    "plan",
    "started",
    "in_process",
    "engine",
    "ray_address",
    "decode",
)
"""Options that may differ from the first fit's; all others are part of the question."""


def resumed(workspace: Workspace, study: str, data: Any, target: str | None, options: FitOptions) -> FitOptions:
    """Options of a resumed fit.

    Limits that are given count from now on. Without ``time`` and ``trials`` an unfinished study gets the limits of its
    first fit, and a complete one is not searched any further: it can be exported. With ``trials=0`` no study is.

    Raises
    ------
    NotFoundError
        If there is no study of that name; the nearest are offered.
    OptionError
        If something is given that a resumed study has of its own.
    """
    record = workspace.metadata.get_study(study)
    settings = record.settings
    kept = settings.get(SOURCE, {}).get("options", {})
    question = {
        **kept,
        "name": study,
        "objective": record.objective,
        "families": tuple(settings.get("families", ())),
        "schedule": settings.get("schedule", "full"),
        "weights": tuple(kept.get("weights", ())),
    }
    _refuse_question(data, target, options, {**question, "target": record.task["target"]})
    if options.time is not None or options.trials is not None:
        return options
    limits = kept.get(LIMITS, {})
    memory, cpus = options.memory or limits.get("memory"), options.cpus or limits.get("cpus")
    if record.state == "complete":
        trained = sum(t.state is not TrialState.REJECTED for t in workspace.metadata.trials(study))
        return replace(options, trials=max(1, trained), memory=memory, cpus=cpus)
    return replace(options, time=limits.get("time"), trials=limits.get("trials"), memory=memory, cpus=cpus)


def study_of_job(workspace: Workspace, name: str, job: int) -> StudyRecord | None:
    """Find the study that an earlier attempt at a job began; None where there is none of this name, or not its own.

    The ledger says it from the moment in which the study exists, on whatever machine the next attempt runs.
    """
    try:
        record = workspace.metadata.get_study(name)
    except NotFoundError:
        return None
    return record if record.settings.get(SOURCE, {}).get(JOB) == job else None


def _refuse_question(data: Any, target: str | None, options: FitOptions, question: dict[str, Any]) -> None:
    plain = FitOptions()
    given = [] if data is None else ["data"]
    if target not in (None, question["target"]):
        given.append("target")
    for option in fields(FitOptions):
        value, default = getattr(options, option.name), getattr(plain, option.name)
        if option.name in FREE or value is default:
            continue
        if option.name == "test" or value not in (default, question.get(option.name)):
            given.append(option.name)
    if given:
        raise OptionError(
            f"A resumed study keeps its own data and question, but got: {', '.join(given)}.",
            where="--resume",
            hint="Leave these out. Another objective needs no search: tidemill reobjective.",
        )
