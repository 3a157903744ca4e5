"""Small bundles and files for the tests of this room."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.spec import BundleInfo
from tidemill.bundle.write import write_bundle
from tidemill.core.schema import Columns
from tidemill.testing.parts import small_columns, small_recipe

KINDS = ("binary", "multiclass", "regression")


def make(out: Path, kind: str = "binary", *, rows: int = 300, **changes: Any) -> Bundle:
    """Write a small bundle."""
    recipe = small_recipe(kind, **changes)
    test = small_columns(rows // 2, seed=1)
    answers = recipe.predict(test)
    y = answers.scores[:, 0] + 0.1 if answers.codes is None else answers.codes
    evidence = Evidence("out_of_fold", y[::-1].copy(), answers.scores)
    return write_bundle(
        out, recipe, columns_train=small_columns(rows), columns_test=test, y_test=y,
        info=BundleInfo(name="small", objective="maximize roc_auc", lineage={"seed": 3}, notes=("made by a test",)),
        evidence=[evidence],
    )  # fmt: skip


def write_csv(path: Path, columns: Columns, **dialect: Any) -> Path:
    """Write physical columns as a CSV file, NaN as an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, **dialect)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow(["" if isinstance(v, float) and np.isnan(v) else v for v in row])
    return path
