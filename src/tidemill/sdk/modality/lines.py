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
from tidemill.core.objective import Objective
from tidemill.core.protocols import Executor
from tidemill.core.schema import Schema
from tidemill.core.task import TaskKind
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.sdk.data import dataset_name
from tidemill.sdk.images import keep_images, report_schema
from tidemill.sdk.lines import PreparedLines, known_lengths, load_lines, prepare_lines
from tidemill.sdk.modality._base import Asked
from tidemill.sdk.modality.heldout import material_of, proof_of, reserve_s, trained_once
from tidemill.sdk.modality.images import asked_images
from tidemill.sdk.options import FitOptions
from tidemill.search.candidate import Candidate
from tidemill.search.lines.beams import BeamReader
from tidemill.search.lines.executor import open_executor
from tidemill.search.lines.material import PARTS, WORTH_S, LineMaterial
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
        """Start workers; in little time all cores train one net."""
        little = budget.time_s is not None and budget.time_s < WORTH_S
        return open_executor(budget, settings, cluster, together=self.together and not little)

    def prepare(self, workspace: Workspace, asked: Asked) -> tuple[PreparedLines, dict[str, Any]]:
        """Read, decode, check, split, and keep a version."""
        data, options = asked_images(workspace, asked)
        prepared = prepare_lines(data, asked.target, options)
        return prepared, keep_images(workspace, dataset_name(asked.data), prepared, asked.named)

    def load(
        self, workspace: Workspace, study: str, options: FitOptions, *, training: bool
    ) -> tuple[PreparedLines, dict[str, Any]]:
        """Prepare a study's lines again."""
        return load_lines(workspace, study, options, training=training)

    def kept(self, options: FitOptions) -> dict[str, Any]:
        """Height, weights and whether case counts belong to the question."""
        return {
            "image_size": options.image_size,
            "weights": list(options.weights),
            "ignore_case": options.ignore_case,
        }

    def material(self, prepared: PreparedLines) -> LineMaterial:
        """What a search learns from; the lines are encoded already."""
        x, x_test = prepared.x[prepared.train], prepared.x[prepared.test]
        found = material_of(LineMaterial, prepared, prepared.profile, x, x_test, prepared.columns)
        return replace(found, together=self.together)

    @property
    def together(self) -> bool:
        """Whether several nets are worth as much as one that learned longer: where texts are searched for."""
        return self.width > 0

    def best_of(self, study: Study, objective: Objective) -> Candidate:
        """What serves an objective best where texts are searched for by beams: nets that read together are others."""
        prepared: PreparedLines = study.prepared
        lengths = tuple(known_lengths(prepared.y[prepared.train]))
        return study.search.candidate(objective, BeamReader(self.width, lengths))

    def reserve_s(self, rows: int, budget: Budget) -> float:
        """The exporter is slow to start, and images are decoded again for the proof."""
        return reserve_s(budget, 10.0, 1e-2 if self.width else 1e-3, rows)

    def proof_rows(self, prepared: PreparedLines) -> int:
        """Those that are held out, and the locked ones."""
        return len(prepared.train) // PARTS + len(prepared.test)

    def export(
        self, study: Study, candidate: Candidate, out: Path, info: BundleInfo, evidence: Sequence[Evidence]
    ) -> Bundle:
        """Prove on what the net was not trained on, and write."""
        need_torch("to export models that read lines")
        prepared: PreparedLines = study.prepared
        tables = proof_of(study, prepared.pictures.take)
        recipe = study.search.recipe(candidate)
        lengths = known_lengths(prepared.y[prepared.train])
        return write_line_bundle(
            out, recipe, tables=tables, info=info, evidence=evidence, width=self.width, lengths=lengths
        )

    def report_schema(self, prepared: PreparedLines) -> Schema:
        """The image and its properties."""
        return report_schema(prepared)

    def predict(self, study: Study, bundle: Bundle | None) -> None:
        """Pixels can't be shuffled or set one by one."""

    def how_trained(self, study: Study) -> str:
        """Once, judged on what was held out."""
        return (
            f"{trained_once(study, 'net', 'lines')} Several nets read together, by the mean of what they say of every "
            "step along a line, where that makes fewer errors there; where a bundle searches by beams, by what they "
            "think of whole texts."
        )
