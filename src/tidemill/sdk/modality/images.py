"""Images: files in class folders, or named by a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.images.write import write_image_bundle
from tidemill.bundle.parts import Recipe
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.spec import BundleInfo
from tidemill.core.budget import Budget
from tidemill.core.protocols import Executor
from tidemill.core.schema import Schema, take_rows
from tidemill.core.task import TaskKind
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.models.vision._base import ImageProfile
from tidemill.sdk.data import dataset_name
from tidemill.sdk.image_weights import weights_at_hand
from tidemill.sdk.images import PreparedImages, image_table, keep_images, load_images, prepare_images, report_schema
from tidemill.sdk.modality._base import Asked
from tidemill.sdk.options import FitOptions
from tidemill.search.candidate import Candidate
from tidemill.search.images.executor import open_executor
from tidemill.search.images.material import FEW, ImageMaterial
from tidemill.search.modality import IMAGE
from tidemill.search.settings import SearchSettings
from tidemill.store.workspace import Workspace
from tidemill.train.extra import need_torch

if TYPE_CHECKING:
    from tidemill.sdk.study import Study


class Images:
    """The modality of images."""

    name: ClassVar[str] = IMAGE
    default_objective: ClassVar[Mapping[TaskKind, str]] = {
        TaskKind.BINARY: "maximize roc_auc",
        TaskKind.MULTICLASS: "minimize log_loss",
        TaskKind.REGRESSION: "minimize rmse",
        TaskKind.MULTILABEL: "minimize log_loss",
    }
    epochs: ClassVar[int] = 27

    def families(self, names: tuple[str, ...] | None) -> tuple[str, ...]:
        """Check names of families; without PyTorch there is none."""
        from tidemill.models.vision import pool

        need_torch("to learn from images")
        return tuple(pool.families(names)) if names else ()

    def executor(self, budget: Budget, settings: SearchSettings, cluster: Cluster | None = None) -> Executor:
        """Start workers."""
        return open_executor(budget, settings, cluster)

    def prepare(self, workspace: Workspace, asked: Asked) -> tuple[PreparedImages, dict[str, Any]]:
        """Read, decode, check, split, and keep a version."""
        data = asked.data
        if asked.named is not None:
            data = image_table(workspace, asked.named.raw, asked.named.version.schema)
        options = replace(asked.options, weights=weights_at_hand(workspace, asked.options.weights))
        prepared = prepare_images(data, asked.target, options)
        return prepared, keep_images(workspace, dataset_name(asked.data), prepared, asked.named)

    def load(
        self, workspace: Workspace, study: str, options: FitOptions, *, training: bool
    ) -> tuple[PreparedImages, dict[str, Any]]:
        """Prepare a study's images again."""
        return load_images(workspace, study, options, training=training)

    def kept(self, options: FitOptions) -> dict[str, Any]:
        """Size and weights belong to the question, and what stands between labels."""
        return {"image_size": options.image_size, "weights": list(options.weights), **options.apart()}

    def material(self, prepared: PreparedImages) -> ImageMaterial:
        """What a search learns from; the images are encoded already."""
        train, test = prepared.train, prepared.test
        x = prepared.x[train]
        locked = len(test) > 0
        return ImageMaterial(
            encoder=prepared.encoder,
            schema=prepared.schema,
            profile=ImageProfile.of(x, mirrored=prepared.mirrored, weights=prepared.weights),
            x=x,
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
        return min(0.35 * budget.time_s, 8.0 + 1e-3 * rows + 0.02 * budget.time_s)

    def proof_rows(self, prepared: PreparedImages) -> int:
        """Those that are held out, and the locked ones."""
        held_out = len(prepared.train) // (5 if len(prepared.train) < FEW else 8)
        return held_out + len(prepared.test)

    def export(
        self, study: Study, candidate: Candidate, out: Path, info: BundleInfo, evidence: Sequence[Evidence]
    ) -> Bundle:
        """Prove on what no net was trained on, and write."""
        need_torch("to export models for images")
        return self.write(study, study.search.recipe(candidate), out, info, evidence)

    def write(self, study: Study, recipe: Recipe, out: Path, info: BundleInfo, evidence: Sequence[Evidence]) -> Bundle:
        """Prove a recipe on the images that were held out or locked, and write it."""
        prepared: PreparedImages = study.prepared
        tables = {"validation": prepared.pictures.take(prepared.train[study.search.covered_rows])}
        if len(prepared.test):
            tables["test"] = prepared.pictures.take(prepared.test)
        return write_image_bundle(out, recipe, tables=tables, info=info, evidence=evidence)

    def report_schema(self, prepared: PreparedImages) -> Schema:
        """The image and its properties."""
        return report_schema(prepared)

    def predict(self, study: Study, bundle: Bundle | None) -> None:
        """Pixels can't be shuffled or set one by one."""

    def how_trained(self, study: Study) -> str:
        """Once, judged on what was held out."""
        held_out, known = len(study.search.covered_rows), len(study.search.truth.y)
        return (
            f"Every net was trained once, on {known - held_out:,} images, and judged on the other {held_out:,}, which "
            "it had not seen."
        )
