from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tidemill.core.schema import Column, Columns, Schema, SemanticType, take_rows
from tidemill.core.task import Task, TaskKind
from tidemill.models.tabular.encode import Encoder
from tidemill.search.table import SearchTable
from tidemill.store.workspace import Workspace

BINARY = Task(TaskKind.BINARY, "y", ("no", "yes"), positive="yes")
MULTICLASS = Task(TaskKind.MULTICLASS, "y", ("a", "b", "c"))
REGRESSION = Task(TaskKind.REGRESSION, "y", label_type="number")
TASKS = {task.kind: task for task in (BINARY, MULTICLASS, REGRESSION)}

MakeTable = Callable[[TaskKind], tuple[SearchTable, Task]]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "workspace") as opened:
        yield opened


@pytest.fixture
def make_table() -> MakeTable:
    """Give a small table with a number, a category and missing values, and a locked test slice."""

    def make(kind: TaskKind, n: int = 240, n_test: int = 60) -> tuple[SearchTable, Task]:
        rng = np.random.default_rng(7)
        region = rng.choice(np.array(["north", "south", ""], dtype=object), size=n + n_test)
        a, b = rng.normal(size=n + n_test), rng.normal(size=n + n_test)
        signal = a + 0.8 * (region == "north") + 0.4 * rng.normal(size=n + n_test)
        a[rng.random(n + n_test) < 0.05] = np.nan
        y = {
            TaskKind.BINARY: (signal > 0.5).astype(np.int64),
            TaskKind.MULTICLASS: np.digitize(signal, [-0.3, 0.8]).astype(np.int64),
            TaskKind.REGRESSION: signal * 10 + 100,
        }[kind]
        columns: Columns = {"a": a, "b": b, "region": region}
        schema = Schema(
            (
                Column("a", SemanticType.NUMBER),
                Column("b", SemanticType.NUMBER),
                Column("region", SemanticType.CATEGORY),
                Column("y", SemanticType.TARGET),
            )
        )
        train, test = np.arange(n), np.arange(n, n + n_test)
        encoder = Encoder.fit(take_rows(columns, train), schema)
        table = SearchTable(
            encoder=encoder,
            schema=schema,
            x=encoder.transform(take_rows(columns, train)),
            y=y[train],
            rows=train.astype(np.int64),
            columns=take_rows(columns, train),
            x_test=encoder.transform(take_rows(columns, test)),
            y_test=y[test],
            rows_test=test.astype(np.int64),
            columns_test=take_rows(columns, test),
        )
        return table, TASKS[kind]

    return make
