"""Lines of text: images that a table names beside their transcripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.lines.write import write_line_bundle
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.spec import BundleInfo
from tidemill.core.budget import Budget
from tidemill.core.protocols import Executor
from tidemill.core.schema import Schema, take_rows
from tidemill.core.task import TaskKind
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.sdk.data import dataset_name
from tidemill.sdk.image_weights import weights_at_hand
from tidemill.sdk.images import image_table, keep_images, report_schema
from tidemill.sdk.lines import PreparedLines, load_lines, prepare_lines
from tidemill.sdk.modality._base import Asked
from tidemill.sdk.options import FitOptions
from tidemill.search.candidate import Candidate
from tidemill.search.lines.executor import open_executor
from tidemill.search.lines.material import PARTS, LineMaterial
from tidemill.search.modality import LINE
from tidemill.search.settings import SearchSettings
from tidemill.store.workspace import Workspace
from tidemill.train.extra import need_torch

if TYPE_CHECKING:
    from tidemill.sdk.study import Study


@dataclass(frozen=True)
class Lines:
    """The modality of lines of text.

    Parameters
    ----------
    width : int
        Prefixes that a search by beams follows in bundles that are written; 0 decodes by the best path.
    """

    name: ClassVar[str] = LINE
    default_objective: ClassVar[Mapping[TaskKind, str]] = {TaskKind.RECOGNITION: "minimize cer"}
    epochs: ClassVar[int] = 120

    width: int = 0

    def families(self, names: tuple[str, ...] | None) -> tuple[str, ...]:
        """Check names of families; without PyTorch there is none."""
        from tidemill.models.recognition import pool

        need_torch("to learn to read lines")
        return tuple(pool.families(names)) if names else ()

    def executor(self, budget: Budget, settings: SearchSettings, cluster: Cluster | None = None) -> Executor:
        """Start workers."""
        return open_executor(budget, settings, cluster)

    def prepare(self, workspace: Workspace, asked: Asked) -> tuple[PreparedLines, dict[str, Any]]:
        """Read, decode, check, split, and keep a version."""
        data = asked.data
        if asked.named is not None:
            data = image_table(workspace, asked.named.raw, asked.named.version.schema)
        options = replace(asked.options, weights=weights_at_hand(workspace, asked.options.weights))
        prepared = prepare_lines(data, asked.target, options)
        return prepared, keep_images(workspace, dataset_name(asked.data), prepared, asked.named)

    def load(
        self, workspace: Workspace, study: str, options: FitOptions, *, training: bool
    ) -> tuple[PreparedLines, dict[str, Any]]:
        """Prepare a study's lines again."""
        return load_lines(workspace, study, options, training=training)

    def kept(self, options: FitOptions) -> dict[str, Any]:
        """Height and weights belong to the question."""
        return {"image_size": options.image_size, "weights": list(options.weights)}

    def material(self, prepared: PreparedLines) -> LineMaterial:
        """What a search learns from; the lines are encoded already."""
        train, test = prepared.train, prepared.test
        locked = len(test) > 0
        return LineMaterial(
            encoder=prepared.encoder,
            schema=prepared.schema,
            profile=prepared.profile,
            x=prepared.x[train],
            y=prepared.y[train],
            rows=train,
            columns=take_rows(prepared.columns, train),
            groups=None if prepared.groups is None else prepared.groups[train],
            x_test=prepared.x[test] if locked else None,
            y_test=prepared.y[test] if locked else None,
            rows_test=test if locked else None,
            columns_test=take_rows(prepared.columns, test) if locked else None,
        )

    def reserve_s(self, rows: int, budget: Budget) -> float:
        """The exporter is slow to start, and images are decoded again for the proof."""
        if budget.time_s is None:
            return 0.0
        return min(0.35 * budget.time_s, 10.0 + 1e-3 * rows + 0.02 * budget.time_s)

    def proof_rows(self, prepared: PreparedLines) -> int:
        """Those that are held out, and the locked ones."""
        return len(prepared.train) // PARTS + len(prepared.test)

    def export(
        self, study: Study, candidate: Candidate, out: Path, info: BundleInfo, evidence: Sequence[Evidence]
    ) -> Bundle:
        """Prove on what the net was not trained on, and write."""
        need_torch("to export models that read lines")
        prepared: PreparedLines = study.prepared
        tables = {"validation": prepared.pictures.take(prepared.train[study.search.covered_rows])}
        if len(prepared.test):
            tables["test"] = prepared.pictures.take(prepared.test)
        recipe = study.search.recipe(candidate)
        return write_line_bundle(out, recipe, tables=tables, info=info, evidence=evidence, width=self.width)

    def report_schema(self, prepared: PreparedLines) -> Schema:
        """The image and its properties."""
        return report_schema(prepared)

    def predict(self, study: Study, bundle: Bundle | None) -> None:
        """Pixels can't be shuffled or set one by one."""

    def how_trained(self, study: Study) -> str:
        """Once, judged on what was held out."""
        held_out, known = len(study.search.covered_rows), len(study.search.truth.y)
        return (
            f"Every net was trained once, on {known - held_out:,} lines, and judged on the other {held_out:,}, which "
            "it had not seen. Transcripts of several nets can't be averaged: one net is shipped."
        )
