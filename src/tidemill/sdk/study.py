"""A study as people hold it: ranked, re-ranked, exported, reported."""

from __future__ import annotations

import datetime as dt
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tidemill.bundle.runtime import Bundle
from tidemill.core.errors import NotFoundError
from tidemill.core.objective import parse_objective
from tidemill.core.task import Task, TaskKind
from tidemill.core.transcripts import GREEDY
from tidemill.sdk.choice import Choice
from tidemill.sdk.modality.choose import modality_kept
from tidemill.sdk.options import FitOptions
from tidemill.search.study import Study as SearchStudy
from tidemill.store.workspace import Workspace

if TYPE_CHECKING:
    from tidemill.sdk.modality._base import Modality


class Study:
    """One search with everything that it found; see `tidemill.fit`.

    Parameters
    ----------
    workspace : Workspace
        Where it is kept; closed with the study.
    search : tidemill.search.study.Study
        The ledger's view.
    prepared : tidemill.sdk.modality._base.Prepared, optional
        Its data where they are at hand; else read again when an export needs them.
    objective : str, optional
        Another objective than the study's own.
    """

    def __init__(
        self, workspace: Workspace, search: SearchStudy, prepared: Any = None, objective: str | None = None
    ) -> None:
        self.workspace = workspace
        self.search = search
        self._prepared = prepared
        self._objective = None if objective is None else parse_objective(objective, base_dir=Path.cwd())

    def __enter__(self) -> Study:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Study({self.name!r}: {self.task.target} by {self.objective}, {len(self.search.whole)} trials)"

    def close(self) -> None:
        """Let the workspace go."""
        self.workspace.close()

    @property
    def name(self) -> str:
        """Unique in the workspace."""
        return self.search.name

    @property
    def task(self) -> Task:
        """The problem."""
        return self.search.task

    @property
    def objective(self) -> Any:
        """What is wanted: the study's own objective, or the one it was asked for last."""
        return self.search.objective if self._objective is None else self._objective

    @cached_property
    def modality(self) -> Modality:
        """What its rows are: of a table, or images."""
        return modality_kept(self.search.record.settings)

    @cached_property
    def prepared(self) -> Any:
        """The data, ready as they were for the search: a `Prepared` of the modality."""
        if self._prepared is not None:
            return self._prepared
        return self.modality.load(self.workspace, self.name, FitOptions(), training=False)[0]

    @property
    def best(self) -> Choice:
        """What would be shipped under the objective."""
        if self._objective is None:
            return Choice(self, self.search.best)
        return Choice(self, self.search.candidate(self._objective))

    def reobjective(self, objective: str) -> Study:
        """Look at the same study under another objective; nothing is trained.

        Parameters
        ----------
        objective : str
            For example ``"minimize cost(matrix.csv); params <= 1e5"``.

        Returns
        -------
        Study
            Whose ``best`` serves the new objective.
        """
        other = Study(self.workspace, self.search, self._prepared, objective)
        self.search.reobjective(other.objective)
        return other

    def leaderboard(self, objective: str | None = None) -> list[dict[str, Any]]:
        """Trials, best first; those that keep the objective's constraints before the others."""
        wanted = self._objective if objective is None else parse_objective(objective, base_dir=Path.cwd())
        return self.search.leaderboard(wanted)

    def pareto(self, cost: str = "latency_ms") -> list[dict[str, Any]]:
        """Trials that no other trial beats in both quality and one cost.

        Parameters
        ----------
        cost : str
            ``latency_ms``, ``size_bytes``, ``params`` or ``flops``.
        """
        rows = self.leaderboard()
        if rows and cost not in rows[0]:
            raise NotFoundError.of("cost", cost, ["latency_ms", "size_bytes", "params", "flops"])
        front: list[dict[str, Any]] = []
        cheapest = float("inf")
        for row in rows:  # best quality first, so a row is on the front when it is cheaper than all before it
            if row[cost] is not None and row[cost] < cheapest:
                front.append(row)
                cheapest = row[cost]
        return front

    def report(
        self,
        path: str | Path,
        *,
        objective: str | None = None,
        deadline: float | None = None,
        bundle: Bundle | None = None,
    ) -> Path:
        """Write the report as one self-contained HTML file.

        Parameters
        ----------
        path : path
            File to write.
        objective : str, optional
            Another objective.
        deadline : float, optional
            `time.monotonic` value at which it should be done.
        bundle : Bundle, optional
            The exported candidate, so that the shipped graph is what the report looks into.
        """
        from tidemill.sdk.reporting import report

        view = self if objective is None else self.reobjective(objective)
        return report(view, Path(path), deadline, bundle)

    def describe(self) -> dict[str, Any]:
        """What is kept of the study, in short."""
        record = self.search.record
        states = [t.state.value for t in self.search.trials()]
        return {
            "name": self.name,
            "state": record.state,
            "objective": str(self.objective),
            "target": self.task.target,
            "kind": self.task.kind.value,
            "classes": list(self.task.classes),
            **self._decoding(),
            "created": dt.datetime.fromtimestamp(record.created_at, dt.timezone.utc).isoformat(" ", "seconds"),
            "dataset_version": record.dataset_version,
            "trials": {state: states.count(state) for state in sorted(set(states))},
            "settings": {k: v for k, v in record.settings.items() if not isinstance(v, dict)},
            "versions": record.versions,
        }

    def describe_trial(self, number: int) -> dict[str, Any]:
        """Everything that is kept of a trial.

        Raises
        ------
        NotFoundError
            If there is no such trial.
        """
        trials = {t.number: t for t in self.search.trials()}
        if number not in trials:
            raise NotFoundError.of("trial", str(number), map(str, trials))
        trial = trials[number]
        return {
            "trial": trial.name,
            "state": trial.state.value,
            "origin": trial.origin,
            "config": trial.config,
            **self._decoding(),
            "fold_scores": list(trial.fold_scores),
            "scores": trial.scores,
            "folds": trial.folds,
            "fidelity": trial.fidelity,
            "curve": [list(point) for point in trial.curve],
            "seed": trial.seed,
            "cost": (trial.cost + self.search.shared).to_json(),
            "usage": trial.usage.to_json(),
            "error": trial.error,
            "traceback": trial.traceback,
            "artifacts": trial.artifacts,
        }

    def _decoding(self) -> dict[str, str]:
        """Which texts scores belong to, where the study reads lines."""
        return {"decoding": GREEDY} if self.task.kind is TaskKind.RECOGNITION else {}
