"""What a modality has to say for itself, so that a fit knows nothing of tables or images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from tidemill.bundle.evidence import Evidence
    from tidemill.bundle.runtime import Bundle
    from tidemill.bundle.spec import BundleInfo
    from tidemill.core.budget import Budget
    from tidemill.core.protocols import Executor
    from tidemill.core.schema import Columns, Schema
    from tidemill.core.task import Task, TaskKind
    from tidemill.data.checks import Finding
    from tidemill.jobs.executors.ray.cluster import Cluster
    from tidemill.report.facts import Predict
    from tidemill.sdk.options import FitOptions
    from tidemill.sdk.sources import Named
    from tidemill.sdk.study import Study
    from tidemill.search.candidate import Candidate
    from tidemill.search.material import Material
    from tidemill.search.settings import SearchSettings
    from tidemill.store.workspace import Workspace


class Prepared(Protocol):
    """Rows made ready for a search, whatever they are."""

    @property
    def schema(self) -> Schema:
        """What the columns mean."""

    @property
    def task(self) -> Task:
        """The question."""

    @property
    def columns(self) -> Columns:
        """Physical columns of all rows, by which they can be told apart in slices."""

    @property
    def y(self) -> NDArray[Any]:
        """Encoded target of the same rows."""

    @property
    def train(self) -> NDArray[np.int64]:
        """Numbers of the training rows."""

    @property
    def test(self) -> NDArray[np.int64]:
        """Numbers of the locked rows; empty where no slice is locked."""

    @property
    def findings(self) -> Sequence[Finding]:
        """What the checks found."""

    @property
    def notices(self) -> Sequence[str]:
        """What a person should know about how they were read."""


@dataclass(frozen=True)
class Asked:
    """What a person asked for.

    Parameters
    ----------
    data : path, table or arrays
        The source.
    target : str or None
        The column to predict.
    options : FitOptions
        Everything else.
    named : Named or None
        The dataset version that the source names, where it does.
    """

    data: Any
    target: str | None
    options: FitOptions
    named: Named | None = None


class Modality(Protocol):
    """One kind of rows."""

    name: ClassVar[str]
    """As in `tidemill.search.modality`."""
    default_objective: ClassVar[Mapping[TaskKind, str]]
    """What is wanted where nobody says it."""
    epochs: ClassVar[int]
    """Length of a whole training on rungs where nobody says it."""

    def families(self, names: tuple[str, ...] | None) -> tuple[str, ...]:
        """Check names of families; raises `NotFoundError`."""

    def executor(self, budget: Budget, settings: SearchSettings, cluster: Cluster | None = None) -> Executor:
        """Start workers, on a cluster where one is given; the caller closes them. Raises `OptionError`."""

    def prepare(self, workspace: Workspace, asked: Asked) -> tuple[Any, dict[str, Any]]:
        """Read, check, split and keep the rows; gives a `Prepared` and the names of the kept versions."""

    def load(
        self, workspace: Workspace, study: str, options: FitOptions, *, training: bool
    ) -> tuple[Any, dict[str, Any]]:
        """Prepare the rows of a study again, exactly as they were."""

    def kept(self, options: FitOptions) -> dict[str, Any]:
        """Options of its own that a resumed study must share."""

    def material(self, prepared: Any) -> Material:
        """Make what a search learns from."""

    def reserve_s(self, rows: int, budget: Budget) -> float:
        """Seconds for ensemble, export and report, without the proof."""

    def proof_rows(self, prepared: Any) -> int:
        """Rows that an export will be proven on."""

    def export(
        self, study: Study, candidate: Candidate, out: Path, info: BundleInfo, evidence: Sequence[Evidence]
    ) -> Bundle:
        """Write a candidate as a bundle, proven."""

    def report_schema(self, prepared: Any) -> Schema:
        """Columns that a report may speak of."""

    def predict(self, study: Study, bundle: Bundle | None) -> Predict | None:
        """Answers to other columns, for importance and dependence; None where these make no sense."""

    def how_trained(self, study: Study) -> str:
        """One sentence for the report."""
