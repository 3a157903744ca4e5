"""Tables of which some columns are embedded: the search is that of tables, the graph holds the encoders, too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.fusion.parts import Rows
from tidemill.bundle.fusion.write import write_fused_bundle
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.spec import BundleInfo
from tidemill.core.budget import Budget
from tidemill.core.schema import Columns, Schema, SemanticType
from tidemill.report.facts import Predict
from tidemill.sdk.data import dataset_name
from tidemill.sdk.fusion import PreparedFused, keep_fused, load_fused, prepare_fused
from tidemill.sdk.modality._base import Asked
from tidemill.sdk.modality.tables import Tables
from tidemill.sdk.options import FitOptions
from tidemill.sdk.prepare import Prepared
from tidemill.sdk.sources import keep_source
from tidemill.search.candidate import Candidate
from tidemill.search.modality import FUSED
from tidemill.search.table import FusedTable, SearchTable
from tidemill.store.workspace import Workspace

if TYPE_CHECKING:
    from tidemill.sdk.study import Study

PROVEN = 2_000
"""So many training rows, evenly spread, and all locked ones are what the graph is proven on: each is encoded twice."""


class Fused(Tables):
    """The modality of tables with embedded columns; where none can be embedded, the table is a plain one."""

    name: ClassVar[str] = FUSED

    def __init__(self) -> None:
        self._proof_s = 0.0

    def prepare(self, workspace: Workspace, asked: Asked) -> tuple[Any, dict[str, Any]]:
        """Read, infer, check, split, embed, and keep a version."""
        found = prepare_fused(workspace, asked.data, asked.target, asked.options, asked.named)
        name = dataset_name(asked.data)
        if isinstance(found, Prepared):
            return found, keep_source(workspace, name, found, asked.named)
        return found, keep_fused(workspace, name, found, asked.named)

    def load(
        self, workspace: Workspace, study: str, options: FitOptions, *, training: bool
    ) -> tuple[Any, dict[str, Any]]:
        """Prepare a study's rows again."""
        return load_fused(workspace, study, options, training=training)

    def kept(self, options: FitOptions) -> dict[str, Any]:
        """Nothing beside what every study keeps: the encoders are in the ledger."""
        return {}

    def material(self, prepared: Any) -> SearchTable:
        """Encode all rows once; what the encoders said is known already."""
        if isinstance(prepared, Prepared):
            return super().material(prepared)
        train, test = prepared.train, prepared.test
        base: Prepared = prepared.base
        locked = len(test) > 0
        self._proof_s = 2.5 * prepared.cell_s * len(_proven(prepared))
        return FusedTable(
            encoder=prepared.encoder,
            schema=prepared.schema,
            x=prepared.encoded(train),
            y=prepared.y[train],
            rows=train,
            columns=base.columns_train,
            groups=None if base.groups is None else base.groups[train],
            time=None if base.times is None else base.times[train],
            x_test=prepared.encoded(test) if locked else None,
            y_test=prepared.y[test] if locked else None,
            rows_test=test if locked else None,
            columns_test=base.columns_test,
            shared=prepared.encoder.cost,
        )

    def reserve_s(self, rows: int, budget: Budget) -> float:
        """As for tables, and what the encoders need for the proof."""
        if budget.time_s is None:
            return 0.0
        return min(0.5 * budget.time_s, super().reserve_s(rows, budget) + self._proof_s)

    def proof_rows(self, prepared: Any) -> int:
        """Some of the training rows, and all that are locked."""
        return super().proof_rows(prepared) if isinstance(prepared, Prepared) else len(_proven(prepared))

    def export(
        self, study: Study, candidate: Candidate, out: Path, info: BundleInfo, evidence: Sequence[Evidence]
    ) -> Bundle:
        """Prove on rows of both kinds, and write."""
        prepared: PreparedFused = study.prepared
        proven = _proven(prepared)
        known = len(proven) - len(prepared.test)
        rows = Rows(prepared.base.columns, prepared.pictures)
        tables = {"train": rows.take(proven[:known])}
        if len(prepared.test):
            tables["test"] = rows.take(prepared.test)
        return write_fused_bundle(
            out, study.search.recipe(candidate), tables=tables, columns=prepared.base.columns_train, info=info,
            evidence=evidence,
        )  # fmt: skip

    def report_schema(self, prepared: Any) -> Schema:
        """The columns themselves; an image is told by its name."""
        schema: Schema = prepared.schema
        images = {c.name: SemanticType.TEXT for c in schema.embedded if c.type is SemanticType.IMAGE}
        return schema.with_types(images, reason="names images") if images else schema

    def predict(self, study: Study, bundle: Bundle | None) -> Predict:
        """Answers of the models themselves, which ask an encoder about a cell once, however often it is shuffled."""
        recipe = study.search.recipe(study.best.candidate)
        prepared: PreparedFused = study.prepared
        encoder: Any = recipe.encoder
        for column, numbers in prepared.numbers.items():
            encoder.remember(column, prepared.columns[column], numbers)

        def by_models(columns: Columns) -> NDArray[np.float32]:
            return recipe.predict(columns).scores

        return by_models

    def how_trained(self, study: Study) -> str:
        """How often, and judged on what; and what reads which column."""
        encoder: Any = study.search.encoder
        return " ".join([super().how_trained(study), *(each.in_words() for each in encoder.embeddings)])


def _proven(prepared: PreparedFused) -> NDArray[np.int64]:
    """Training rows that the graph is proven on, then the locked ones."""
    train = prepared.train
    some = np.unique(np.linspace(0, len(train) - 1, min(len(train), PROVEN)).astype(np.int64))
    return np.concatenate([train[some], prepared.test])
