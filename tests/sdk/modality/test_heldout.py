"""What images, lines and texts share on the way from their rows to a search."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tidemill.core.budget import Budget
from tidemill.core.schema import Schema
from tidemill.sdk.modality.heldout import material_of, proof_of, proof_rows, reserve_s
from tidemill.search.heldout.material import FEW
from tidemill.search.texts.material import TextMaterial


def prepared(rows: int = 20, locked: int = 0, groups: bool = False) -> Any:
    return SimpleNamespace(
        encoder="encoder", schema=Schema(()), y=np.arange(rows) * 10, train=np.arange(locked, rows),
        test=np.arange(locked), groups=np.arange(rows) // 2 if groups else None,
    )  # fmt: skip


@pytest.mark.parametrize("locked", [0, 4])
def test_every_row_goes_with_its_truth_its_group_and_its_properties(locked: int) -> None:
    found = prepared(locked=locked, groups=True)
    x = np.arange(20) + 0.5
    made = material_of(TextMaterial, found, "profile", x[found.train], x[found.test], {"length": np.arange(20) + 1})
    assert np.array_equal(made.y, made.rows * 10)
    assert np.array_equal(made.x, made.rows + 0.5)
    assert np.array_equal(made.columns["length"], made.rows + 1)
    assert made.groups is not None
    assert np.array_equal(made.groups, made.rows // 2)
    if locked:
        assert made.rows_test is not None
        assert made.columns_test is not None
        assert made.x_test is not None
        assert made.y_test is not None
        assert np.array_equal(made.y_test, made.rows_test * 10)
        assert np.array_equal(made.x_test, made.rows_test + 0.5)
        assert np.array_equal(made.columns_test["length"], made.rows_test + 1)
    else:
        assert [made.x_test, made.y_test, made.rows_test, made.columns_test] == [None] * 4


def test_no_more_than_a_part_of_the_time_is_kept_back() -> None:
    assert reserve_s(Budget(trials=3), 8.0, 1e-3, 10**6) == 0.0
    assert reserve_s(Budget(time_s=10.0), 8.0, 1e-3, 10**6) == 3.5
    assert reserve_s(Budget(time_s=1000.0), 8.0, 1e-3, 2000) == 30.0


def test_what_proves_is_what_was_held_out_or_locked() -> None:
    assert proof_rows(prepared(20, locked=5)) == 15 // 5 + 5
    assert proof_rows(prepared(FEW)) == FEW // 8
    found = prepared(20, locked=5)
    study: Any = SimpleNamespace(prepared=found, search=SimpleNamespace(covered_rows=np.array([0, 2])))
    parts = proof_of(study, lambda rows: rows.tolist())
    assert parts == {"validation": [5, 7], "test": [0, 1, 2, 3, 4]}
