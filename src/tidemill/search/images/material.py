"""Images as what a search learns from. Nothing here loads torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.images.encoder import ImageEncoder
from tidemill.core.budget import Budget
from tidemill.core.errors import OptionError
from tidemill.core.metrics import get_metric
from tidemill.core.objective import Objective, evaluate_costs
from tidemill.core.schema import Columns, Schema
from tidemill.core.space import Categorical, Space
from tidemill.core.task import Task
from tidemill.core.trial import Config, Trial, TrialState
from tidemill.data.splits import make_folds
from tidemill.models.vision import pool
from tidemill.models.vision._base import ImageProfile, VisionFamily
from tidemill.search import board
from tidemill.search.images.evaluate import CALL, ImageAssignment
from tidemill.search.ledger import Truth
from tidemill.search.modality import IMAGE
from tidemill.search.samplers.baseline import BaselineSampler
from tidemill.search.samplers.chain import ChainSampler
from tidemill.search.samplers.portfolio import PortfolioSampler
from tidemill.search.samplers.tpe import TPESampler
from tidemill.search.settings import SearchSettings
from tidemill.search.splits import Splits, from_pairs

FEW = 5_000
"""Below so many images a fifth of them is held out, from here on an eighth."""
_LEAST_S = 2.0
"""Nobody knows a family's speed before its first trial; with less than this nothing is begun."""


@dataclass(frozen=True)
class ImageMaterial:
    """Encoded training images, the truth about them, and the locked test slice where there is one.

    A net is trained once, not on every fold: one part of the images, drawn in the shares of their classes, is held out,
    and what each net says of it goes to the ledger as its out-of-fold predictions.

    Parameters
    ----------
    encoder : ImageEncoder
        That made ``x``.
    schema : Schema
        Columns: the file, the image, the target.
    profile : ImageProfile
        What families may know.
    x : ndarray of uint8, shape (n, channels, height, width)
        Encoded training images.
    y, rows : ndarray
        Class codes or targets (n,), and row ids (n,).
    columns : Columns
        Properties of the images, for slices: width, height, brightness, contrast.
    groups : ndarray or None
        Group of each image; a group is held out as a whole or not at all.
    x_test, y_test, rows_test, columns_test
        The same of the locked test slice. Nets predict it, nothing looks at its truth before a report.
    """

    modality: ClassVar[str] = IMAGE
    call: ClassVar[str] = CALL

    encoder: ImageEncoder
    schema: Schema
    profile: ImageProfile
    x: NDArray[np.uint8]
    y: NDArray[Any]
    rows: NDArray[np.int64]
    columns: Columns
    groups: NDArray[Any] | None = None
    x_test: NDArray[np.uint8] | None = None
    y_test: NDArray[Any] | None = None
    rows_test: NDArray[np.int64] | None = None
    columns_test: Columns | None = None

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
        found = pool.space(task, self.profile, settings.families or None)
        used = {c for p in found if isinstance(p, Categorical) and p.name.endswith(".weights") for c in p.choices}
        lost = [w for w in self.profile.weights if w not in used]
        if lost:
            raise OptionError(
                f"No family can begin from these weights: {lost[0]}.",
                where="--weights",
                hint="Known are the kinds that `tidemill pool list` shows; the images must have as many channels.",
            )
        return found

    def sampler(self, task: Task, objective: Objective, settings: SearchSettings, budget: Budget) -> ChainSampler:
        """A quick first answer, then configs that are worth a try on any images, then a model of what is known."""
        metric = get_metric(objective.metric)
        unlimited = budget.time_s is None and budget.trials is None
        then = None if unlimited else TPESampler(settings.seed, lambda trials: board.losses(trials, metric))
        return ChainSampler([BaselineSampler(pool.QUICK), PortfolioSampler(pool.PORTFOLIO)], then)

    def gate(self, task: Task, objective: Objective, settings: SearchSettings) -> ImageGate:
        """Hold configs against the bounds on costs."""
        return ImageGate(objective, pool.families(settings.families or None), task, self.profile)

    def foresight(self, splits: Splits) -> Adaptive:
        """Trainings fit themselves into the time that there is."""
        return Adaptive()

    def encoder_state(self) -> dict[str, Any]:
        """State of the encoder."""
        return self.encoder.checkpoint()

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
    def assigned(self, folder: Path, task: Task, objective: Objective, splits: Splits) -> Iterator[ImageAssignment]:
        """Write the arrays into files in ``folder`` for the workers; it is gone afterwards.

        What a search that was killed left there is removed first.
        """
        rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            arrays: dict[str, NDArray[Any]] = {"x": self.x, "y": self.y, "splits": splits}
            if self.x_test is not None:
                arrays["x_test"] = self.x_test
            files = {}
            for name, array in arrays.items():
                files[name] = str(folder / f"{name}.npy")
                np.save(files[name], array)
            matrix = objective.cost_matrix
            yield ImageAssignment(
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


@dataclass(frozen=True)
class ImageGate:
    """Lets configs through whose net can keep the objective's bounds on costs; they are counted, not estimated.

    Parameters
    ----------
    objective : Objective
        With its bounds.
    families : mapping
        Families by name.
    task, profile
        As in `VisionFamily.cost`.
    """

    objective: Objective
    families: Mapping[str, VisionFamily]
    task: Task
    profile: ImageProfile

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
