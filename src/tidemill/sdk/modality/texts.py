"""Texts: the one column of a table that a model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.spec import BundleInfo
from tidemill.bundle.texts.write import write_text_bundle
from tidemill.core.budget import Budget
from tidemill.core.protocols import Executor
from tidemill.core.schema import Schema
from tidemill.core.task import TaskKind
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.models.text._base import TextProfile
from tidemill.sdk.data import dataset_name
from tidemill.sdk.encoder_weights import text_encoders_at_hand, told_of_studies
from tidemill.sdk.modality._base import Asked
from tidemill.sdk.modality.heldout import material_of, proof_of, proof_rows, reserve_s, trained_once
from tidemill.sdk.options import FitOptions
from tidemill.sdk.sources import keep_source
from tidemill.sdk.texts import PreparedTexts, load_texts, prepare_texts, report_schema
from tidemill.search.candidate import Candidate
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
        Folders or hub names of trained encoders, or studies of texts, that were asked for.
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
        options = replace(asked.options, weights=text_encoders_at_hand(workspace, asked.options.weights))
        prepared = prepare_texts(asked.data, asked.target, options, asked.named)
        told = told_of_studies(workspace, options.weights, "texts")
        prepared = replace(prepared, notices=(*prepared.notices, *told))
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
        texts = prepared.texts
        x, x_test = texts[prepared.train], texts[prepared.test]
        profile = TextProfile.of(x, weights=prepared.weights)
        return material_of(TextMaterial, prepared, profile, x, x_test, prepared.properties)

    def reserve_s(self, rows: int, budget: Budget) -> float:
        """What is exported is measured, and the exporter's time is kept with it; the rest is quick."""
        return reserve_s(budget, 6.0, 1e-4, rows)

    def proof_rows(self, prepared: PreparedTexts) -> int:
        """Those that are held out, and the locked ones."""
        return proof_rows(prepared)

    def export(
        self, study: Study, candidate: Candidate, out: Path, info: BundleInfo, evidence: Sequence[Evidence]
    ) -> Bundle:
        """Prove on what no model was trained on, and write."""
        prepared: PreparedTexts = study.prepared
        tables = proof_of(study, lambda rows: prepared.texts[rows])
        return write_text_bundle(out, study.search.recipe(candidate), tables=tables, info=info, evidence=evidence)

    def report_schema(self, prepared: PreparedTexts) -> Schema:
        """The text and its properties."""
        return report_schema(prepared)

    def predict(self, study: Study, bundle: Bundle | None) -> None:
        """A text is one thing: there is no column to shuffle or to move."""

    def how_trained(self, study: Study) -> str:
        """Once, judged on what was held out."""
        return trained_once(study, "model", "texts")
