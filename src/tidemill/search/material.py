"""What a search learns from, whatever its modality: the one seam between tables, images and what comes after them.

`tidemill.search.fit.run_search` knows trials, limits and the ledger; a `Material` knows its rows, the families that can
learn from them, and what a worker runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.core.budget import Budget
from tidemill.core.objective import Objective
from tidemill.core.schema import Columns, Schema
from tidemill.core.space import Space
from tidemill.core.task import Task
from tidemill.core.trial import Config, Trial
from tidemill.search.evaluate import Assignment
from tidemill.search.ledger import Truth
from tidemill.search.samplers.chain import ChainSampler
from tidemill.search.settings import SearchSettings
from tidemill.search.splits import Splits


class Gatekeeper(Protocol):
    """Refuses configs before they are trained."""

    def pass_or_explain(self, config: Config) -> tuple[Config, str | None]:
        """Return the config, possibly limited, and why it can't pass, or None."""


class Foresight(Protocol):
    """Knows how long a trial will take."""

    def learn(self, trials: Iterable[Trial]) -> None:
        """Take in finished trials."""

    def learn_late(self, family: str, time_s: float) -> None:
        """Take in that a trial didn't fit into so many seconds."""

    def seconds(self, config: Config) -> float:
        """Seconds without which a trial of ``config`` makes no sense."""


class Material(Protocol):
    """Rows of one modality, and everything about them that the search itself doesn't know."""

    modality: ClassVar[str]
    """Name of the modality, kept with the study; see `tidemill.search.modality`."""
    call: ClassVar[str]
    """What a worker runs, with the arguments of `tidemill.search.evaluate.run_trial`."""

    @property
    def schema(self) -> Schema:
        """The columns."""

    @property
    def columns(self) -> Columns:
        """Raw columns of the training rows that a slice may be made of."""

    @property
    def rows(self) -> NDArray[np.int64]:
        """Ids of the training rows."""

    @property
    def rows_test(self) -> NDArray[np.int64] | None:
        """Ids of the locked rows, where there are any."""

    def __len__(self) -> int:
        """Return the number of training rows."""

    def settled(self, settings: SearchSettings) -> SearchSettings:
        """Choose what the settings leave open by the size of the data."""

    def splits(self, task: Task, settings: SearchSettings) -> Splits:
        """Say which rows are trained on and which are judged, in each split."""

    def space(self, task: Task, settings: SearchSettings) -> Space:
        """Space of the families that support the task."""

    def sampler(self, task: Task, objective: Objective, settings: SearchSettings, budget: Budget) -> ChainSampler:
        """Who proposes."""

    def gate(self, task: Task, objective: Objective, settings: SearchSettings) -> Gatekeeper:
        """Who refuses."""

    def foresight(self, splits: Splits) -> Foresight:
        """Who knows how long trials take."""

    def encoder_state(self) -> dict[str, Any]:
        """State of the encoder, for the ledger."""

    def truth(self, splits: Splits) -> Truth:
        """What the ledger keeps to judge stored predictions."""

    def assigned(
        self, folder: Path, task: Task, objective: Objective, splits: Splits
    ) -> AbstractContextManager[Assignment]:
        """Write the arrays into files in ``folder`` for the workers; it is gone afterwards."""
