"""The main job: a table and a question in, a study, a bundle and a report out."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tidemill.bundle.runtime import Bundle
from tidemill.core.budget import Budget
from tidemill.core.errors import BundleError, OptionError
from tidemill.core.objective import Objective, parse_objective
from tidemill.core.protocols import Executor
from tidemill.jobs.executors.inprocess import InProcessExecutor
from tidemill.jobs.executors.ray.cluster import connect
from tidemill.jobs.executors.ray.executor import RayExecutor
from tidemill.sdk.data import dataset_name
from tidemill.sdk.decoding import searched_words
from tidemill.sdk.modality._base import Asked, Modality, Prepared
from tidemill.sdk.modality.choose import modality_asked, modality_decoding, modality_kept
from tidemill.sdk.options import FitOptions, parse_types
from tidemill.sdk.placing import placed
from tidemill.sdk.resume import JOB, resumed
from tidemill.sdk.study import Study
from tidemill.search.events import Event, Listener, ignore
from tidemill.search.fit import run_search
from tidemill.search.settings import SearchSettings
from tidemill.search.study import Study as SearchStudy
from tidemill.store.workspace import Workspace

__all__ = ["FitOptions", "FitResult", "fit", "fit_to_bundle", "parse_types"]


@dataclass(frozen=True)
class FitResult:
    """What a fit left behind.

    Parameters
    ----------
    study : Study
        Open; close it when done with it.
    bundle : Path or None
        Folder of the bundle.
    report : Path or None
        File of the report.
    seconds : float
        Wall-clock seconds of the whole.
    first_model_s : float or None
        Seconds from the end of reading to the first usable model.
    searched : str
        How well the bundle reads where it searches for its texts, which the study doesn't; else nothing.
    """

    study: Study
    bundle: Path | None
    report: Path | None
    seconds: float
    first_model_s: float | None
    searched: str = ""

    def in_words(self) -> str:
        """The result in plain words."""
        lines = [self.study.best.in_words(), *([self.searched] if self.searched else [])]
        if self.bundle is not None:
            lines.append(f"Bundle: {self.bundle}")
        if self.report is not None:
            lines.append(f"Report: {self.report}")
        lines.append(f"Study {self.study.name!r} took {self.seconds:.1f} s; another objective needs no training:")
        lines.append(f"  tidemill reobjective {self.study.name} --objective '…'")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "study": self.study.name,
            "best": self.study.best.to_json(),
            "bundle": None if self.bundle is None else str(self.bundle),
            "report": None if self.report is None else str(self.report),
            "seconds": round(self.seconds, 3),
            "first_model_s": None if self.first_model_s is None else round(self.first_model_s, 3),
        }


def fit(
    data: Any,
    target: str | None = None,
    *,
    options: FitOptions | None = None,
    workspace: str | Path | None = None,
    resume: str | None = None,
    on_event: Listener = ignore,
    **words: Any,
) -> Study:
    """Search for the best model of a table or of images.

    Parameters
    ----------
    data : path or table
        CSV, Parquet, Arrow, JSON lines, Excel; pandas, polars, pyarrow, a dict of columns; SQL with ``database=``. A
        folder or zip archive of images in class folders, or a table that names image files.
    target : str
        The column to predict; with class folders there is no need to name one.
    options : FitOptions, optional
        Everything else, as one value.
    workspace : path, optional
        Where the study is kept; default ``TIDEMILL_WORKSPACE``, else ``./.tidemill``.
    resume : str, optional
        Name of a study to go on with; data and question are then its own, and so are the limits where none are given.
        With ``trials=0`` it is opened as it is.
    on_event : callable
        Hears how the search goes.
    **words
        Fields of `FitOptions`, for example ``time="2m"``, ``objective="maximize roc_auc; latency_ms <= 5"``.

    Returns
    -------
    Study
        With ``.leaderboard()``, ``.best.export(path)``, ``.reobjective(text)``, ``.report(path)``.

    Raises
    ------
    InputError
        With what is wrong with the data or the options, and what to do.

    Examples
    --------
    >>> study = fit("adult.csv", target="income", time="2m")  # doctest: +SKIP
    >>> study.best.export("income.tm")  # doctest: +SKIP
    """
    chosen = _options(options, words)
    return _search(data, target, chosen, workspace, resume, on_event, export=False).study


@dataclass(frozen=True)
class _Found:
    study: Study
    budget: Budget
    first_model_s: float | None


def fit_to_bundle(
    data: Any,
    target: str | None,
    *,
    out: Path | None,
    options: FitOptions,
    resume: str | None = None,
    workspace: str | Path | None = None,
    report: bool = True,
    on_event: Listener = ignore,
    job: int | None = None,
) -> FitResult:
    """Search, export the winner, and write its report, all within the time limit.

    Parameters
    ----------
    data, target, options, resume, workspace, on_event
        As in `fit`.
    out : Path or None
        Folder for the bundle; None exports nothing.
    report : bool
        Write ``report.html`` beside the bundle.
    job : int, optional
        The job that asks; kept with a new study from its first moment, see `tidemill.sdk.resume.study_of_job`.
    """
    begin = options.clock()
    if out is not None:
        _check_out(out)
    found = _search(data, target, replace(options, started=begin), workspace, resume, on_event, job=job)
    study = found.study
    tell = _teller(study.name, study.objective.metric, begin, on_event)
    page: Path | None = None
    searched = ""
    if out is not None:
        tell("export")
        bundle = _export(study, out, options.decode)
        searched = searched_words(bundle, study.objective.metric)
        if report:
            tell("report")
            budget = found.budget
            deadline = None if budget.time_s is None else begin + budget.time_s
            page = study.report(_beside(out), deadline=deadline, bundle=bundle)
    return FitResult(study, out, page, time.monotonic() - begin, found.first_model_s, searched)


def _export(study: Study, out: Path, decode: str) -> Bundle:
    try:
        return study.best.export(out, decode=decode)
    except BundleError as error:
        kept = f"The study is kept; try again with: tidemill fit --resume {study.name} --out {out}"
        error.hint = f"{error.hint} {kept}" if error.hint else kept
        raise


def _beside(out: Path) -> Path:
    """Where the report of a bundle goes: the bundle's own files are signed by its manifest, so beside it."""
    return out.with_name(f"{out.name.removesuffix('.tm')}-report.html")


def _check_out(out: Path) -> None:
    from tidemill.bundle.folder import check_replaceable

    check_replaceable(out)
    above = next(p for p in out.absolute().parents if p.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise OptionError("No bundle can be written there.", where=str(out), hint="Choose another folder with --out.")


def _options(options: FitOptions | None, words: dict[str, Any]) -> FitOptions:
    unknown = [w for w in words if w not in FitOptions.__dataclass_fields__]
    if unknown:
        from tidemill.core.errors import nearest_hint

        raise OptionError(
            f"There is no option {unknown[0]!r}.", hint=nearest_hint(unknown[0], FitOptions.__dataclass_fields__)
        )
    return replace(options or FitOptions(), **words)


def _search(
    data: Any,
    target: str | None,
    options: FitOptions,
    workspace: str | Path | None,
    resume: str | None,
    on_event: Listener,
    *,
    export: bool = True,
    job: int | None = None,
) -> _Found:
    """Prepare and search; the workers start while the data are read."""
    begin = options.clock()
    opened = Workspace.open(workspace)
    try:
        if resume is not None:
            options = resumed(opened, resume, data, target, options)
            kept = opened.metadata.get_study(resume).settings
            modality, asked = modality_kept(kept), Asked(data, target, options)
        else:
            modality, asked = modality_asked(opened, data, target, options)
            options = asked.options
        modality = modality_decoding(modality, options.decode)
        if resume is not None and options.trials == 0:
            return _as_it_is(opened, resume, options)
        budget = placed(options.budget(), options, modality.name)
        name = resume or _name(opened, data, options)
        settings = SearchSettings(
            seed=options.seed,
            families=modality.families(options.families),
            test_share=options.test_size or 0.0,
            schedule=options.schedule,
            epochs=options.epochs or modality.epochs,
            brackets=options.brackets or 1,
        )
        with _executor(modality, options, budget, settings) as executor:
            tell = _teller(name, "", begin, on_event)
            tell("prepare", "reading")
            if resume is not None:
                prepared, versions = modality.load(opened, name, options, training=True)
            else:
                prepared, versions = modality.prepare(opened, asked)
            _tell_findings(prepared, tell)
            objective = _objective(modality, options, prepared)
            if isinstance(executor, RayExecutor):  # its cores are those of the cluster
                budget = replace(budget, cpus=executor.capacity * executor.threads)
            table = modality.material(prepared)
            listener, first = _watch_first(on_event)
            search = run_search(
                opened, name, table, prepared.task, objective, budget, settings,
                dataset_version=versions["version"],
                source={
                    **versions, "options": {**_kept(options), **modality.kept(options)},
                    **({} if job is None else {JOB: job}),
                },
                began=begin,
                reserve_s=modality.reserve_s if export else _no_reserve,
                proof_rows=modality.proof_rows(prepared) if export else 0, executor=executor, on_event=listener,
                resume=resume is not None,
            )  # fmt: skip
    except BaseException:
        opened.close()
        raise
    return _Found(Study(opened, search, prepared), budget, first())


def _as_it_is(opened: Workspace, study: str, options: FitOptions) -> _Found:
    """A study without a search: whatever its state, it stays in it."""
    limits = Budget.parse(time=options.time, memory=options.memory, cpus=options.cpus)
    return _Found(Study(opened, SearchStudy.open(opened, study)), limits, None)


@contextmanager
def _executor(modality: Modality, options: FitOptions, budget: Budget, settings: SearchSettings) -> Iterator[Executor]:
    if options.runs_here:
        with warnings.catch_warnings():  # as a trial in a process of its own, this one keeps its warnings to itself
            warnings.simplefilter("ignore")
            yield InProcessExecutor()
        return
    with ExitStack() as held:
        cluster = None
        if options.engine == "ray":
            cluster = held.enter_context(connect(options.ray_address, cores=options.cpus))
        executor = modality.executor(budget, settings, cluster)
        held.callback(executor.close)
        yield executor


def _objective(modality: Modality, options: FitOptions, prepared: Prepared) -> Objective:
    text = options.objective or modality.default_objective[prepared.task.kind]
    return parse_objective(text, base_dir=Path.cwd()).resolve(prepared.task, prepared.columns)


def _no_reserve(rows: int, budget: Budget) -> float:
    return 0.0 if budget.time_s is None else min(0.1 * budget.time_s, 1.0 + 2e-5 * rows)


def _name(workspace: Workspace, data: Any, options: FitOptions) -> str:
    """Return the name that was asked for if it is free, else ``stem-1``, ``stem-2``…: the first that no study has."""
    taken = {record.name for record in workspace.metadata.studies()}
    if options.name in taken:
        raise OptionError(
            f"There is a study {options.name!r} already.",
            where="--name",
            hint=f"Choose another name, or go on with it: tidemill fit --resume {options.name}",
        )
    if options.name is not None:
        return options.name
    stem = dataset_name(data)
    number = 1
    while f"{stem}-{number}" in taken:
        number += 1
    return f"{stem}-{number}"


def _kept(options: FitOptions) -> dict[str, Any]:
    """The options that a resumed study must share."""
    return {
        "kind": options.kind,
        "positive": options.positive,
        "test_size": options.test_size,
        "group": options.group,
        "time_column": options.time_column,
        "types": {name: kind.value for name, kind in options.types.items()},
        "seed": options.seed,
        "keep_all_features": options.keep_all_features,
        "limits": options.limits(),
    }


Teller = Callable[..., None]


def _teller(study: str, metric: str, begin: float, on_event: Listener) -> Teller:
    def tell(stage: str, message: str = "", kind: str = "stage") -> None:
        on_event(
            Event(
                kind=kind, stage=stage, study=study, metric=metric, elapsed_s=time.monotonic() - begin, message=message
            )
        )

    return tell


def _tell_findings(prepared: Prepared, tell: Teller) -> None:
    notices = list(prepared.notices)
    for column in () if prepared.schema.has_images else prepared.schema:
        if not column.type.is_feature and column.reason and column.name != prepared.task.target:
            notices.append(f"Column {column.name!r} is left out: {column.reason}.")
    notices += [f"{f.severity}: {f.message}" for f in prepared.findings if f.severity != "info"]
    for notice in notices:
        tell("prepare", notice, "notice")


def _watch_first(on_event: Listener) -> tuple[Listener, Callable[[], float | None]]:
    """Note when the first trial finished, counted from the first event of the search: the end of reading."""
    seen: dict[str, float] = {}

    def hear(event: Event) -> None:
        seen.setdefault("begin", time.monotonic())
        if event.kind == "finished":
            seen.setdefault("first", time.monotonic())
        on_event(event)

    return hear, lambda: seen["first"] - seen["begin"] if "first" in seen else None
