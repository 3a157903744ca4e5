"""Rows of which one part is held out, as what a search learns from. Nothing here loads torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.core.budget import Budget
from tidemill.core.errors import OptionError
from tidemill.core.metrics import get_metric
from tidemill.core.objective import Objective, evaluate_costs
from tidemill.core.schema import Columns, Schema
from tidemill.core.space import Categorical, Space
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost, Trial, TrialState
from tidemill.data.splits import make_folds
from tidemill.search import board
from tidemill.search.heldout.trial import CHECKPOINTS, DIVERGED, HeldOutAssignment
from tidemill.search.ledger import Truth
from tidemill.search.samplers.baseline import BaselineSampler
from tidemill.search.samplers.chain import ChainSampler
from tidemill.search.samplers.portfolio import PortfolioSampler
from tidemill.search.samplers.tpe import TPESampler
from tidemill.search.settings import SearchSettings
from tidemill.search.splits import Splits, from_pairs

FEW = 5_000
"""Below so many rows a fifth of them is held out, from here on an eighth."""
FEATURES = "features"
"""Folder beside those of the searches: what frozen encoders said of rows stays there for the next search."""
_LEAST_S = 2.0
"""Nobody knows a family's speed before its first trial; with less than this nothing is begun."""


class Pool(Protocol):
    """The families of a modality; a module of `tidemill.models`."""

    @property
    def QUICK(self) -> Sequence[Config]:
        """What gives a first answer."""

    @property
    def PORTFOLIO(self) -> Sequence[Config]:
        """Configs that are worth a try on any rows."""

    def families(self, names: Sequence[str] | None = None) -> Mapping[str, Any]:
        """Load the families that can be used here."""

    def space(self, task: Task, profile: Any, names: Sequence[str] | None = None) -> Space:
        """Join the spaces of the families that support a task."""


@dataclass(frozen=True)
class HeldOutMaterial:
    """Training rows, the truth about them, and the locked test slice where there is one.

    A model is trained once, not on every fold: one part of the rows, drawn in the shares of their classes, is held out,
    and what each model says of it goes to the ledger as its out-of-fold predictions. A subclass says what its rows are.

    Parameters
    ----------
    encoder : EncoderPart
        That made ``x``; its ``checkpoint`` goes to the ledger.
    schema : Schema
        The columns.
    profile : ImageProfile or TextProfile
        What families may know.
    x : ndarray, shape (n, …)
        Encoded training rows.
    y, rows : ndarray
        Class codes or targets (n,), and row ids (n,).
    columns : Columns
        Properties of the rows, for slices.
    groups : ndarray or None
        Group of each row; a group is held out as a whole or not at all.
    x_test, y_test, rows_test, columns_test
        The same of the locked test slice. Models predict it, nothing looks at its truth before a report.
    """

    modality: ClassVar[str]
    call: ClassVar[str]
    kinds: ClassVar[str]
    """What weights have to be like, for a message."""

    encoder: Any
    schema: Schema
    profile: Any
    x: NDArray[Any]
    y: NDArray[Any]
    rows: NDArray[np.int64]
    columns: Columns
    groups: NDArray[Any] | None = None
    x_test: NDArray[Any] | None = None
    y_test: NDArray[Any] | None = None
    rows_test: NDArray[np.int64] | None = None
    columns_test: Columns | None = None

    @property
    def pool(self) -> Pool:
        """The families that may learn from the rows."""
        raise NotImplementedError

    def files(self, folder: Path) -> dict[str, str]:
        """Write ``x`` and ``x_test`` into files in ``folder`` for the workers; gives their places by name."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.x)

    def settled(self, settings: SearchSettings) -> SearchSettings:
        """Choose how many parts there are, of which the first is held out."""
        folds = settings.folds or (5 if len(self.x) < FEW else 8)
        return replace(settings, folds=max(2, min(folds, len(self.x) // 2)), repeats=1)

    def splits(self, task: Task, settings: SearchSettings) -> Splits:
        """Hold one part out."""
        folds = make_folds(task, self.y, k=settings.folds, seed=settings.seed, groups=self.groups)
        return from_pairs(folds[:1], len(self.y))

    def space(self, task: Task, settings: SearchSettings) -> Space:
        """Join the spaces of the families that support the task."""
        found = self.pool.space(task, self.profile, settings.families or None)
        used = {c for p in found if isinstance(p, Categorical) and p.name.endswith(".weights") for c in p.choices}
        lost = [w for w in self.profile.weights if w not in used]
        if lost:
            raise OptionError(f"No family can begin from these weights: {lost[0]}.", where="--weights", hint=self.kinds)
        return found

    def sampler(self, task: Task, objective: Objective, settings: SearchSettings, budget: Budget) -> ChainSampler:
        """A quick first answer, then configs that are worth a try on any rows, then a model of what is known."""
        metric = get_metric(objective.metric)
        unlimited = budget.time_s is None and budget.trials is None
        then = None if unlimited else TPESampler(settings.seed, lambda trials: board.losses(trials, metric))
        return ChainSampler([BaselineSampler(self.pool.QUICK), PortfolioSampler(self.pool.PORTFOLIO)], then)

    def gate(self, task: Task, objective: Objective, settings: SearchSettings) -> CostGate:
        """Hold configs against the bounds on costs."""
        return CostGate(objective, self.pool.families(settings.families or None), task, self.profile)

    def foresight(self, splits: Splits) -> Adaptive:
        """Trainings fit themselves into the time that there is."""
        return Adaptive()

    def encoder_state(self) -> dict[str, Any]:
        """State of the encoder."""
        state: dict[str, Any] = self.encoder.checkpoint()
        return state

    def truth(self, splits: Splits) -> Truth:
        """What the ledger keeps of it."""
        return Truth(
            y=self.y,
            rows=self.rows,
            splits=splits,
            columns=self.columns,
            y_test=self.y_test,
            rows_test=self.rows_test,
            columns_test=self.columns_test,
        )

    @contextmanager
    def assigned(self, folder: Path, task: Task, objective: Objective, splits: Splits) -> Iterator[HeldOutAssignment]:
        """Write the arrays into files in ``folder`` for the workers; it is gone afterwards.

        What a search that was killed left there is removed first.
        """
        rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            kept = {name: str(folder.parent / name / folder.name) for name in (DIVERGED, CHECKPOINTS)}
            kept["cache"] = str(folder.parent / FEATURES)
            files = {**self.files(folder), **kept}
            for name, array in {"y": self.y, "splits": splits}.items():
                files[name] = str(folder / f"{name}.npy")
                np.save(files[name], array)
            matrix = objective.cost_matrix
            yield HeldOutAssignment(
                task=task.to_json(),
                files=files,
                features=(),
                metric=objective.metric,
                label=objective.label,
                cost_matrix=None if matrix is None else matrix.values,
                profile=self.profile.to_json(),
            )
        finally:
            rmtree(folder, ignore_errors=True)


class Counting(Protocol):
    """A family that counts what a model costs before it is trained."""

    def cost(self, config: Config, task: Task, profile: Any) -> Cost:
        """Cost of one model."""


@dataclass(frozen=True)
class CostGate:
    """Lets configs through whose model can keep the objective's bounds on costs; they are counted, not estimated.

    Parameters
    ----------
    objective : Objective
        With its bounds.
    families : mapping
        Families by name.
    task, profile
        As the families take them.
    """

    objective: Objective
    families: Mapping[str, Counting]
    task: Task
    profile: Any

    def pass_or_explain(self, config: Config) -> tuple[Config, str | None]:
        """Return the config, and why it can't pass, or None."""
        if not self.objective.cost_constraints:
            return config, None
        cost = self.families[config["family"]].cost(config, self.task, self.profile)
        broken = "; ".join(str(r) for r in evaluate_costs(self.objective, cost) if not r.satisfied)
        return config, broken or None


class Adaptive:
    """Foresight for trainings that cut themselves to the time they get: the least time that makes sense."""

    def __init__(self) -> None:
        self._least: dict[str, float] = {}

    def learn(self, trials: Iterable[Trial]) -> None:
        """Take in finished trials: a third of the quickest of a family still gives an answer."""
        for trial in trials:
            if trial.state is TrialState.COMPLETE and trial.usage.wall_s > 0:
                known = self._least.get(trial.family, np.inf)
                self._least[trial.family] = float(min(known, trial.usage.wall_s / 3))

    def learn_late(self, family: str, time_s: float) -> None:
        """Take in that a trial didn't fit into so many seconds."""
        self._least[family] = max(self._least.get(family, 0.0), 1.5 * time_s)

    def seconds(self, config: Config) -> float:
        """Seconds without which a trial of ``config`` makes no sense."""
        return max(_LEAST_S, self._least.get(str(config.get("family")), 0.0))
