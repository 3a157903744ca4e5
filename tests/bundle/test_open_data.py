"""The shipped program reads open data as Tidemill reads it for training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tidemill.bundle.assemble import about
from tidemill.bundle.runner import run
from tidemill.core.task import Task, TaskKind
from tidemill.data.coerce import to_columns
from tidemill.data.infer import infer_schema
from tidemill.data.ingest import read

SETS = (
    "abalone", "adult", "bank_churn", "bike_hour", "california_housing", "german_credit", "horse_colic", "mammography",
    "soybean", "titanic", "wine_quality",
)  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_the_program_sees_the_columns_that_training_saw(open_data: Callable[[str], Any], name: str) -> None:
    import json

    data = open_data(name)
    schema = infer_schema(read(data.train), data.target)
    expected = to_columns(read(data.test), schema)
    inputs = json.loads(about(Task(TaskKind.REGRESSION, data.target), schema)["tidemill.inputs"])
    assert [each["column"] for each in inputs] == list(expected)
    done = 0
    for rows, places in run.chunks(str(data.test), None, inputs):
        for each, place in zip(inputs, places, strict=True):
            seen = run.column(rows, place, each, done)[:, 0]
            wanted = expected[each["column"]][done : done + len(rows)]
            if wanted.dtype == object:
                assert (seen == wanted).all(), each
            else:
                np.testing.assert_array_equal(seen, wanted, err_msg=str(each))
        done += len(rows)
    assert done == data.meta["rows_test"]
