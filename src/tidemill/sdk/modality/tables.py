"""Tables: the columns of a file, typed and encoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.spec import BundleInfo
from tidemill.bundle.write import write_bundle
from tidemill.core.budget import Budget, available_cpus
from tidemill.core.protocols import Executor
from tidemill.core.schema import Columns, Schema
from tidemill.core.task import TaskKind
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.models.tabular.encode import Encoder
from tidemill.report.facts import Predict
from tidemill.sdk.data import dataset_name
from tidemill.sdk.modality._base import Asked
from tidemill.sdk.options import FitOptions
from tidemill.sdk.prepare import Prepared, prepare
from tidemill.sdk.sources import keep_source, load_source
from tidemill.search.candidate import Candidate
from tidemill.search.fit import open_executor
from tidemill.search.modality import TABLE
from tidemill.search.settings import SearchSettings
from tidemill.search.table import SearchTable
from tidemill.store.workspace import Workspace

if TYPE_CHECKING:
    from tidemill.sdk.study import Study


class Tables:
    """The modality of tables."""

    name: ClassVar[str] = TABLE
    default_objective: ClassVar[Mapping[TaskKind, str]] = {
        TaskKind.BINARY: "maximize roc_auc",
        TaskKind.MULTICLASS: "minimize log_loss",
        TaskKind.REGRESSION: "minimize rmse",
    }
    epochs: ClassVar[int] = 27

    def families(self, names: tuple[str, ...] | None) -> tuple[str, ...]:
        """Check names of families."""
        from tidemill.models import pool

        return tuple(pool.families(names)) if names else ()

    def executor(self, budget: Budget, settings: SearchSettings, cluster: Cluster | None = None) -> Executor:
        """Start workers."""
        return open_executor(budget, settings, cluster)

    def prepare(self, workspace: Workspace, asked: Asked) -> tuple[Prepared, dict[str, Any]]:
        """Read, infer, check, split, and keep a version."""
        prepared = prepare(asked.data if asked.named is None else asked.named.raw, asked.target, asked.options)
        return prepared, keep_source(workspace, dataset_name(asked.data), prepared, asked.named)

    def load(
        self, workspace: Workspace, study: str, options: FitOptions, *, training: bool
    ) -> tuple[Prepared, dict[str, Any]]:
        """Prepare a study's rows again."""
        return load_source(workspace, study, options, training=training)

    def kept(self, options: FitOptions) -> dict[str, Any]:
        """Nothing beside what every study keeps."""
        return {}

    def material(self, prepared: Prepared) -> SearchTable:
        """Encode all rows once."""
        train, test = prepared.train, prepared.test
        columns, columns_test = prepared.columns_train, prepared.columns_test
        encoder = Encoder.fit(columns, prepared.schema)
        return SearchTable(
            encoder=encoder,
            schema=prepared.schema,
            x=encoder.transform(columns),
            y=prepared.y[train],
            rows=train,
            columns=columns,
            groups=None if prepared.groups is None else prepared.groups[train],
            time=None if prepared.times is None else prepared.times[train],
            x_test=None if columns_test is None else encoder.transform(columns_test),
            y_test=None if columns_test is None else prepared.y[test],
            rows_test=None if columns_test is None else test,
            columns_test=columns_test,
        )

    def reserve_s(self, rows: int, budget: Budget) -> float:
        """Five seconds on quiet cores, six on busy ones, more with rows."""
        if budget.time_s is None:
            return 0.0
        return min(0.4 * budget.time_s, 6.0 + 2e-5 * rows + 0.02 * budget.time_s)

    def proof_rows(self, prepared: Prepared) -> int:
        """All of them."""
        return len(prepared.y)

    def export(
        self, study: Study, candidate: Candidate, out: Path, info: BundleInfo, evidence: Sequence[Evidence]
    ) -> Bundle:
        """Prove on all rows, and write."""
        prepared: Prepared = study.prepared
        return write_bundle(
            out,
            study.search.recipe(candidate),
            columns_train=prepared.columns_train,
            columns_test=prepared.columns_test,
            info=info,
            evidence=evidence,
            threads=available_cpus(),
        )

    def report_schema(self, prepared: Prepared) -> Schema:
        """The columns themselves."""
        return prepared.schema

    def predict(self, study: Study, bundle: Bundle | None) -> Predict:
        """Answers of the bundle, or of the models themselves."""
        if bundle is not None:
            name = "probabilities" if study.task.kind.is_classification else "prediction"
            return lambda columns: bundle.answer(columns)[name].reshape(-1, study.task.n_outputs)
        recipe = study.search.recipe(study.best.candidate)

        def by_models(columns: Columns) -> NDArray[np.float32]:
            return recipe.predict(columns).scores

        return by_models

    def how_trained(self, study: Study) -> str:
        """How often, and judged on what."""
        settings = study.search.record.settings
        return (
            f"Every model was trained {settings.get('folds')} times on different parts of the rest"
            + (f", {settings['repeats']} times over" if settings.get("repeats", 1) > 1 else "")
            + ", and judged on the rows that it had not seen."
        )
