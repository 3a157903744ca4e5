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
from tidemill.core.schema import Schema
from tidemill.core.task import TaskKind
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.models.vision._base import ImageProfile
from tidemill.sdk.data import dataset_name
from tidemill.sdk.image_weights import weights_at_hand
from tidemill.sdk.images import PreparedImages, image_table, keep_images, load_images, prepare_images, report_schema
from tidemill.sdk.modality._base import Asked
from tidemill.sdk.modality.heldout import material_of, proof_of, proof_rows, reserve_s, trained_once
from tidemill.sdk.options import FitOptions
from tidemill.search.candidate import Candidate
from tidemill.search.images.executor import open_executor
from tidemill.search.images.material import ImageMaterial
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
        data, options = asked_images(workspace, asked)
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
        x = prepared.x[prepared.train]
        profile = ImageProfile.of(x, mirrored=prepared.mirrored, weights=prepared.weights)
        return material_of(ImageMaterial, prepared, profile, x, prepared.x[prepared.test], prepared.columns)

    def reserve_s(self, rows: int, budget: Budget) -> float:
        """The exporter is slow to start, and images are decoded again for the proof."""
        return reserve_s(budget, 8.0, 1e-3, rows)

    def proof_rows(self, prepared: PreparedImages) -> int:
        """Those that are held out, and the locked ones."""
        return proof_rows(prepared)

    def export(
        self, study: Study, candidate: Candidate, out: Path, info: BundleInfo, evidence: Sequence[Evidence]
    ) -> Bundle:
        """Prove on what no net was trained on, and write."""
        need_torch("to export models for images")
        return self.write(study, study.search.recipe(candidate), out, info, evidence)

    def write(self, study: Study, recipe: Recipe, out: Path, info: BundleInfo, evidence: Sequence[Evidence]) -> Bundle:
        """Prove a recipe on the images that were held out or locked, and write it."""
        prepared: PreparedImages = study.prepared
        tables = proof_of(study, prepared.pictures.take)
        return write_image_bundle(out, recipe, tables=tables, info=info, evidence=evidence)

    def report_schema(self, prepared: PreparedImages) -> Schema:
        """The image and its properties."""
        return report_schema(prepared)

    def predict(self, study: Study, bundle: Bundle | None) -> None:
        """Pixels can't be shuffled or set one by one."""

    def how_trained(self, study: Study) -> str:
        """Once, judged on what was held out."""
        return trained_once(study, "net", "images")


def asked_images(workspace: Workspace, asked: Asked) -> tuple[Any, FitOptions]:
    """Images that a person named, a dataset version's among them, and the options with the places of weights."""
    data = asked.data
    if asked.named is not None:
        data = image_table(workspace, asked.named.raw, asked.named.version.schema)
    return data, replace(asked.options, weights=weights_at_hand(workspace, asked.options.weights))
