"""The main job of this room: from encoded rows and a question to a study with something to ship."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import rmtree
from typing import Any

from tidemill.core.budget import Budget
from tidemill.core.errors import OptionError, SearchError
from tidemill.core.objective import Objective
from tidemill.core.pack import pack
from tidemill.core.protocols import Executor
from tidemill.core.space import Space
from tidemill.core.task import Task
from tidemill.core.trial import StudyRecord, Trial, TrialState
from tidemill.jobs.executors.pool import ProcessExecutor
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.jobs.executors.ray.executor import RayExecutor
from tidemill.models import pool
from tidemill.models.training.budget import Resources
from tidemill.models.training.checkpoints import EVERY_S
from tidemill.search.evaluate import Assignment
from tidemill.search.events import Event, Listener, ignore
from tidemill.search.ledger import TRUTH
from tidemill.search.lock import only_search
from tidemill.search.material import Material
from tidemill.search.modality import IMAGE, LINE, SETTING, TABLE, TEXT
from tidemill.search.runner import ANSWERS, SHARE, Limits, Runner
from tidemill.search.settings import SearchSettings
from tidemill.search.signals import Switchboard
from tidemill.search.splits import Splits
from tidemill.search.study import ENCODER, HASTE, SCHEMA, Study
from tidemill.store.workspace import Workspace
from tidemill.train.types import Placement

PRELOAD = ("tidemill.search.evaluate",)
"""What the workers' host loads once, beside the families."""
LEAST_PROOF_S = 1.0
"""Where less than this is left for the proof, the limit is missed rather than all but the smallest models dropped."""
CHECKPOINT_S = EVERY_S
"""A kill costs a training that doesn't pause at most about so many seconds."""
_FAMILY_HOME = "tidemill.models.tabular.families"
PAUSING = {
    IMAGE: "tidemill.models.vision.pool",
    TEXT: "tidemill.models.text.pool",
    LINE: "tidemill.models.recognition.pool",
}
"""Modalities whose trials can pause on a rung, and where their families are."""
_RECORDED = (
    "tidemill",
    "numpy",
    "scikit-learn",
    "lightgbm",
    "xgboost-cpu",
    "xgboost",
    "catboost",
    "optuna",
    "onnx",
    "torch",
)


def open_executor(
    budget: Budget, settings: SearchSettings, cluster: Cluster | None = None
) -> ProcessExecutor | RayExecutor:
    """Start the workers; their host loads the families while the caller goes on reading data.

    One core for each worker as long as there are no more workers than the lag allows. On a cluster every node has as
    many workers as it would have alone.
    """
    cores = budget.cores if cluster is None else min(cluster.cores, budget.cpus or cluster.cores)
    workers = max(1, min(cores, settings.lag))
    threads = max(1, cores // workers)
    families = [e.place.partition(":")[0] for e in pool.entries() if e.absent is None]
    wanted = [f for f in families if not settings.families or f.rpartition(".")[2] in settings.families]
    if cluster is not None:
        return RayExecutor(cluster, budget.cpus // threads or None, (*PRELOAD, *wanted), threads=threads)
    return ProcessExecutor(workers, (*PRELOAD, *wanted), budget.memory_bytes, threads=threads)


def default_reserve_s(rows: int, budget: Budget) -> float:
    """Seconds kept for ensemble, export, parity and report, where nobody knows better."""
    if budget.time_s is None:
        return 0.0
    return min(0.35 * budget.time_s, 1.5 + 0.04 * budget.time_s + 4e-5 * rows)


def run_search(
    workspace: Workspace,
    name: str,
    table: Material,
    task: Task,
    objective: Objective,
    budget: Budget,
    settings: SearchSettings | None = None,
    *,
    dataset_version: str = "",
    source: Mapping[str, Any] | None = None,
    began: float | None = None,
    reserve_s: Callable[[int, Budget], float] = default_reserve_s,
    proof_rows: int = 0,
    executor: Executor | None = None,
    on_event: Listener = ignore,
    resume: bool = False,
) -> Study:
    """Search for the best model of some rows, and keep everything in the workspace.

    Parameters
    ----------
    workspace : Workspace
        Where the ledger is.
    name : str
        Name of the study; new, or with ``resume`` the one to go on with.
    table : Material
        What is learned from: a `tidemill.search.table.SearchTable`, or rows of another modality.
    task : Task
        The problem.
    objective : Objective
        What is wanted.
    budget : Budget
        What may be spent. Without limits of time or trials the search ends after the portfolio.
    settings : SearchSettings, optional
        How to search; a resumed study keeps its own.
    dataset_version : str
        Content hash of the rows.
    source : mapping, optional
        Where the rows come from, JSON-able; kept with the settings for those who open the study later.
    began : float, optional
        `time.monotonic` value at which the job began, default now: the time limit counts from there.
    reserve_s : callable
        Seconds to keep for what the caller does after the search, from rows and budget.
    proof_rows : int
        Rows that the caller is going to prove an export on within the time limit; the slower the models that are
        ahead, the more time is kept for it.
    executor : Executor, optional
        Who runs the trials; default processes on this machine, see `open_executor`.
    on_event : Listener
        Is told of everything.
    resume : bool
        Go on with a study: finished trials are kept, unfinished ones run again.

    Returns
    -------
    Study
        With ``best`` to ship. Its state is ``"complete"``, or ``"interrupted"`` after Ctrl-C; nets that were being
        trained where the workspace is seen are then taken as far as they came.

    Raises
    ------
    SearchError
        Where no trial came to an end, or where another process searches this study.
    """
    began = time.monotonic() if began is None else began
    # A study has one place of its own, so that a resumed one finds what a killed one left; any name makes a folder.
    scratch = workspace.path / "scratch" / sha256(name.encode()).hexdigest()[:16]
    limits = _Allowance(budget, began, reserve_s(len(table), budget), proof_rows)
    with only_search(scratch.with_suffix(".lock"), name):
        if resume:
            question = _known(workspace, name, table, task)
        else:
            question = _asked(table, task, objective, settings or SearchSettings())
            record = _record(workspace, name, table, question, dataset_version, source)
        with _used(executor, budget, question.settings) as workers:
            if resume:
                workspace.metadata.update_study(name, state="running")
            else:
                workspace.metadata.create_study(record)
                for left in (_rungs(workspace, scratch), _checkpoints(scratch)):  # of a study of that name that is gone
                    rmtree(left, ignore_errors=True)
            finished = _run(workspace, name, table, question, limits, workers, scratch, on_event)
        if finished:  # now nobody writes there any more
            rmtree(_checkpoints(scratch), ignore_errors=True)
        return _chosen(workspace, name, finished, limits, on_event)


@dataclass(frozen=True)
class _Question:
    """What a study asks; the same whenever it is resumed."""

    task: Task
    objective: Objective
    settings: SearchSettings
    space: Space
    lines: Splits


@dataclass(frozen=True)
class _Allowance:
    """What one run of a study may spend, and what it has to leave."""

    budget: Budget
    began: float
    reserve_s: float
    proof_rows: int

    def most_us(self) -> float:
        """Microseconds that one row of many may take, so that the proof ends in time."""
        if self.budget.time_s is None or not self.proof_rows:
            return float("inf")
        left_s = max(LEAST_PROOF_S, self.began + self.budget.time_s - self.reserve_s - time.monotonic())
        return self.budget.cores * left_s * 1e6 / (ANSWERS * self.proof_rows)


def _asked(table: Material, task: Task, objective: Objective, settings: SearchSettings) -> _Question:
    settings = table.settled(settings)
    space = table.space(task, settings)
    return _Question(task, objective.resolve(task, table.columns), settings, space, table.splits(task, settings))


def _known(workspace: Workspace, name: str, table: Material, task: Task) -> _Question:
    record = workspace.metadata.get_study(name)
    settings = SearchSettings.from_json(record.settings)
    objective = Study(workspace, record).objective
    return _Question(task, objective, settings, Space.from_json(record.space), table.splits(task, settings))


@contextmanager
def _used(executor: Executor | None, budget: Budget, settings: SearchSettings) -> Iterator[Executor]:
    """Give the caller's executor, or one that is closed after the search."""
    if executor is not None:
        yield executor
        return
    with open_executor(budget, settings) as owned:
        yield owned


def _run(
    workspace: Workspace,
    name: str,
    table: Material,
    question: _Question,
    allowance: _Allowance,
    executor: Executor,
    scratch: Path,
    on_event: Listener,
) -> bool:
    """Run trials to the limits; a study whose search breaks off is marked as failed."""
    task, objective, settings, budget = question.task, question.objective, question.settings, allowance.budget
    try:
        limits = Limits.of(budget, allowance.began, allowance.reserve_s, executor.capacity)
        with table.assigned(scratch, task, objective, question.lines) as given:
            assignment = _equipped(given, budget, limits)
            kind, more = _conductor(workspace, table, settings, scratch)
            near = table.modality in PAUSING and _is_seen(executor, scratch, more.get("folder"))
            runner = kind(
                study=name,
                metadata=workspace.metadata,
                artifacts=workspace.artifacts,
                executor=executor,
                sampler=table.sampler(task, objective, settings, budget),
                space=question.space,
                gate=table.gate(task, objective, settings),
                assignment=assignment,
                objective=objective,
                settings=settings,
                limits=limits,
                forecast=table.foresight(question.lines),
                rows=table.rows,
                rows_test=table.rows_test,
                threads=max(1, budget.cores // executor.capacity),
                on_event=on_event,
                call=table.call,
                proof_rows=allowance.proof_rows,
                share=getattr(table, "share", SHARE),
                signals=Switchboard(scratch / "signals") if near else None,
                **more,
            )
            return runner.run()
    except BaseException:
        workspace.metadata.update_study(name, state="failed")
        raise


def _equipped(assignment: Assignment, budget: Budget, limits: Limits) -> Assignment:
    """Tell trials that train nets what each of them may use."""
    from tidemill.search.heldout.trial import HeldOutAssignment  # tables do without what it loads

    if not isinstance(assignment, HeldOutAssignment):
        return assignment
    placement = None if budget.placement is None else Placement(**budget.placement)
    return replace(assignment, resources=Resources(budget.device, limits.memory_bytes, placement, CHECKPOINT_S))


def _is_seen(executor: Executor, scratch: Path, folder: Path | None) -> bool:
    """Whether trainings can say how they go by files: all workers have to see the scratch.

    Raises
    ------
    OptionError
        Where trials go on from a folder that a node of a cluster does not see.
    """
    if not isinstance(executor, RayExecutor):
        return True
    if folder is not None:
        executor.require(folder)
    return not executor.blind(scratch)


def _rungs(workspace: Workspace, scratch: Path) -> Path:
    """Where the trials of a study keep what they go on from; outside of the scratch, for it stays."""
    return workspace.path / "rungs" / scratch.name


def _checkpoints(scratch: Path) -> Path:
    """Where trainings that don't pause leave what they go on from after a kill."""
    return scratch.parent / "checkpoints" / scratch.name


def _conductor(
    workspace: Workspace, table: Material, settings: SearchSettings, scratch: Path
) -> tuple[type[Runner], dict[str, Any]]:
    """Choose who conducts the search, with what it needs beside the rest."""
    if settings.schedule != "rungs":
        return Runner, {"checkpoints": _checkpoints(scratch)}
    if table.modality not in PAUSING:
        raise OptionError(
            "Trainings on these rows can't pause: --schedule rungs is for nets.", hint="Choose full or rows.",
            where="--schedule",
        )  # fmt: skip
    from tidemill.search.rungs.ladder import Ladder
    from tidemill.search.rungs.runner import RungRunner
    from tidemill.search.rungs.schedule import RungSchedule

    schedule = RungSchedule(Ladder.of(settings.epochs), brackets=settings.brackets)
    families = import_module(PAUSING[table.modality]).families(settings.families or None)
    pausing = frozenset(name for name, family in families.items() if getattr(family, "fidelity", "") == "epochs")
    return RungRunner, {"schedule": schedule, "folder": _rungs(workspace, scratch), "pausing": pausing}


def _chosen(workspace: Workspace, name: str, finished: bool, allowance: _Allowance, on_event: Listener) -> Study:
    kept = pack({"batch_us": allowance.most_us()})
    workspace.metadata.update_study(name, artifacts={HASTE: workspace.artifacts.put(kept)})
    study = Study.open(workspace, name)
    _choose(study, allowance.began, on_event)
    workspace.metadata.update_study(name, state="complete" if finished else "interrupted")
    study.record = workspace.metadata.get_study(name)
    return study


def _record(
    workspace: Workspace,
    name: str,
    table: Material,
    question: _Question,
    dataset_version: str,
    source: Mapping[str, Any] | None,
) -> StudyRecord:
    put = workspace.artifacts.put
    modality = {} if table.modality == TABLE else {SETTING: table.modality}
    return StudyRecord(
        name=name,
        task=question.task.to_json(),
        objective=str(question.objective),
        space=question.space.to_json(),
        settings={
            **question.settings.to_json(),
            **modality,
            **({"source": dict(source)} if source is not None else {}),
        },
        dataset_version=dataset_version,
        versions=versions(),
        state="running",
        created_at=time.time(),
        artifacts={
            TRUTH: put(table.truth(question.lines).pack()),
            ENCODER: put(pack(table.encoder_state())),
            SCHEMA: put(pack(table.schema.to_json())),
        },
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that train."""
    found = {"python": platform.python_version()}
    for package in _RECORDED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _choose(study: Study, began: float, on_event: Listener) -> None:
    """Build the ensemble, and say so; a study without a single whole trial has failed."""
    metric = study.objective.metric
    failed = [t for t in study.trials() if t.state is TrialState.FAILED]

    def tell(kind: str, stage: str, message: str = "", best: float | None = None, name: str | None = None) -> None:
        on_event(
            Event(
                kind=kind,
                stage=stage,
                study=study.name,
                metric=metric,
                elapsed_s=time.monotonic() - began,
                message=message,
                finished=len(study.whole),
                failed=len(failed),
                best=best,
                best_trial=name,
            )
        )

    tell("stage", "ensemble")
    if not study.whole:
        study.workspace.metadata.update_study(study.name, state="failed")
        raise _nothing(study, failed)
    best = study.best
    if not best.satisfied:
        broken = "; ".join(str(r) for r in best.constraints if not r.satisfied)
        tell("notice", "ensemble", f"No model keeps every constraint; the nearest one is taken ({broken}).")
    tell("stage", "done", best.name, best.value, best.name)


def _nothing(study: Study, failed: list[Trial]) -> SearchError:
    """Say why there is no candidate."""
    message = f"No trial of the study {study.name!r} came to an end."
    refused = [t for t in study.trials() if t.state is TrialState.REJECTED]
    if failed:
        return SearchError(f"{message} The last one failed: {failed[-1].error}", hint="Give it more time or memory.")
    if refused:
        return SearchError(
            f"{message} All {len(refused)} configs were refused before training. {refused[-1].error}",
            hint="Loosen the constraint.",
        )
    return SearchError(f"{message} There was no time to start one.", hint="Give it more time.")
