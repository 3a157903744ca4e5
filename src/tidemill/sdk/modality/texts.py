"""Texts: the one column of a table that a model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.spec import BundleInfo
from tidemill.bundle.texts.write import write_text_bundle
from tidemill.core.budget import Budget
from tidemill.core.protocols import Executor
from tidemill.core.schema import Schema, take_rows
from tidemill.core.task import TaskKind
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.models.text._base import TextProfile
from tidemill.sdk.data import dataset_name
from tidemill.sdk.modality._base import Asked
from tidemill.sdk.options import FitOptions
from tidemill.sdk.sources import keep_source
from tidemill.sdk.texts import PreparedTexts, load_texts, prepare_texts, report_schema
from tidemill.search.candidate import Candidate
from tidemill.search.heldout.material import FEW
from tidemill.search.modality import TEXT
from tidemill.search.settings import SearchSettings
from tidemill.search.texts.executor import open_executor
from tidemill.search.texts.material import TextMaterial
from tidemill.store.workspace import Workspace

if TYPE_CHECKING:
    from tidemill.sdk.study import Study


@dataclass(frozen=True)
class Texts:
    """The modality of texts.

    Parameters
    ----------
    weights : tuple of str
        Folders or hub names of trained encoders that were asked for.
    """

    name: ClassVar[str] = TEXT
    default_objective: ClassVar[Mapping[TaskKind, str]] = {
        TaskKind.BINARY: "maximize roc_auc",
        TaskKind.MULTICLASS: "minimize log_loss",
        TaskKind.REGRESSION: "minimize rmse",
        TaskKind.MULTILABEL: "minimize log_loss",
    }
    epochs: ClassVar[int] = 6

    weights: tuple[str, ...] = ()

    def families(self, names: tuple[str, ...] | None) -> tuple[str, ...]:
        """Check names of families; encoders need an extra, counted pieces of text don't."""
        from tidemill.models.text import pool
        from tidemill.models.text.extra import need_text

        if self.weights:
            need_text("to begin from trained encoders")
        return tuple(pool.families(names)) if names else ()

    def executor(self, budget: Budget, settings: SearchSettings, cluster: Cluster | None = None) -> Executor:
        """Start workers; those of one machine share what encoders said of the texts."""
        return open_executor(budget, settings, self.weights, cluster)

    def prepare(self, workspace: Workspace, asked: Asked) -> tuple[PreparedTexts, dict[str, Any]]:
        """Read, check, split, and keep a version."""
        prepared = prepare_texts(asked.data, asked.target, asked.options, asked.named)
        return prepared, keep_source(workspace, dataset_name(asked.data), prepared.base, asked.named)

    def load(
        self, workspace: Workspace, study: str, options: FitOptions, *, training: bool
    ) -> tuple[PreparedTexts, dict[str, Any]]:
        """Prepare a study's texts again."""
        return load_texts(workspace, study, options, training=training)

    def kept(self, options: FitOptions) -> dict[str, Any]:
        """Weights belong to the question, and what stands between labels."""
        return {"weights": list(options.weights), **options.apart()}

    def material(self, prepared: PreparedTexts) -> TextMaterial:
        """What a search learns from."""
        train, test = prepared.train, prepared.test
        texts, properties = prepared.texts, prepared.properties
        locked = len(test) > 0
        return TextMaterial(
            encoder=prepared.encoder,
            schema=prepared.schema,
            profile=TextProfile.of(texts[train], weights=prepared.weights),
            x=texts[train],
            y=prepared.y[train],
            rows=train,
            columns=take_rows(properties, train),
            groups=None if prepared.groups is None else prepared.groups[train],
            x_test=texts[test] if locked else None,
            y_test=prepared.y[test] if locked else None,
            rows_test=test if locked else None,
            columns_test=take_rows(properties, test) if locked else None,
        )

    def reserve_s(self, rows: int, budget: Budget) -> float:
        """What is exported is measured, and the exporter's time is kept with it; the rest is quick."""
        if budget.time_s is None:
            return 0.0
        return min(0.35 * budget.time_s, 6.0 + 1e-4 * rows + 0.02 * budget.time_s)

    def proof_rows(self, prepared: PreparedTexts) -> int:
        """Those that are held out, and the locked ones."""
        held_out = len(prepared.train) // (5 if len(prepared.train) < FEW else 8)
        return held_out + len(prepared.test)

    def export(
        self, study: Study, candidate: Candidate, out: Path, info: BundleInfo, evidence: Sequence[Evidence]
    ) -> Bundle:
        """Prove on what no model was trained on, and write."""
        prepared: PreparedTexts = study.prepared
        tables = {"validation": prepared.texts[prepared.train[study.search.covered_rows]]}
        if len(prepared.test):
            tables["test"] = prepared.texts[prepared.test]
        return write_text_bundle(out, study.search.recipe(candidate), tables=tables, info=info, evidence=evidence)

    def report_schema(self, prepared: PreparedTexts) -> Schema:
        """The text and its properties."""
        return report_schema(prepared)

    def predict(self, study: Study, bundle: Bundle | None) -> None:
        """A text is one thing: there is no column to shuffle or to move."""

    def how_trained(self, study: Study) -> str:
        """Once, judged on what was held out."""
        held_out, known = len(study.search.covered_rows), len(study.search.truth.y)
        return (
            f"Every model was trained once, on {known - held_out:,} texts, and judged on the other {held_out:,}, which "
            "it had not seen."
        )
