"""Predicts many rows on an executor: some thousand rows a step, answers in order."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO

from numpy.typing import NDArray

from tidemill.bundle.parity import CHUNK, count_rows
from tidemill.bundle.runner.answers import answer_header, write_answers
from tidemill.bundle.runtime import Bundle, whole_file
from tidemill.core.budget import available_cpus
from tidemill.core.errors import BundleError, OptionError, TidemillError, nearest_hint
from tidemill.core.protocols import Executor, Step
from tidemill.core.schema import Columns
from tidemill.jobs.executors.inprocess import InProcessExecutor
from tidemill.jobs.executors.pool import ProcessExecutor
from tidemill.jobs.executors.ray.cluster import connect
from tidemill.jobs.executors.ray.executor import RayExecutor
from tidemill.sdk.options import ENGINES

CALL = "tidemill.sdk.batch:answer_rows"
"""The name under which an executor finds `answer_rows`."""
ROWS = 32 * CHUNK
"""Rows of a step."""
AHEAD = 2
"""Steps for each worker that may be done or under way before their turn to be written comes."""
_PRELOAD = ("tidemill.sdk.batch", "onnxruntime")


def answer_rows(bundle: str, columns: Columns) -> list[dict[str, NDArray[Any]]]:
    """Answer physical columns, as a worker does: outputs by name, some rows at a time."""
    return list(Bundle.open(bundle, threads=1).chunks(columns))


@contextmanager
def open_engine(name: str, ray_address: str | None = None) -> Iterator[Executor]:
    """Open the executor that ``--engine`` names.

    Raises
    ------
    OptionError
        If there is no such engine, or its cluster can't be reached.
    MissingExtraError
        Where Ray is wanted and absent.
    """
    if name not in ENGINES:
        raise OptionError(f"There is no engine {name!r}.", where="--engine", hint=nearest_hint(name, ENGINES))
    if ray_address is not None and name != "ray":
        raise OptionError("An address is for --engine ray.", where="--ray-address")
    if name == "inprocess":
        yield InProcessExecutor()
    elif name == "process":
        with ProcessExecutor(available_cpus(), _PRELOAD) as pool:
            yield pool
    else:
        with connect(ray_address) as cluster, RayExecutor(cluster, preload=_PRELOAD) as workers:
            yield workers


def answers(
    executor: Executor, bundle: Bundle, columns: Columns, *, rows: int = ROWS
) -> Iterator[dict[str, NDArray[Any]]]:
    """Outputs of the graph by name, some rows at a time, in order: the same as ``bundle.chunks`` gives.

    Parameters
    ----------
    executor : Executor
        Who answers; on other machines from a copy of the bundle.
    bundle : Bundle
        Of a table or of texts.
    columns : Columns
        As `Bundle.columns` gives them.
    rows : int
        Rows of a step; a multiple of `CHUNK`, so that chunks are the same.

    Raises
    ------
    TidemillError
        Why a step failed.
    """
    place, total = str(bundle.path.absolute()), count_rows(columns)
    steps: dict[int, int] = {}
    found: dict[int, list[dict[str, NDArray[Any]]]] = {}
    turn = given = 0
    last = max(1, -(-total // rows))
    while turn < last:
        while given < min(last, turn + AHEAD * executor.capacity):
            part = {name: values[given * rows : (given + 1) * rows] for name, values in columns.items()}
            step = Step(CALL, {"bundle": place, "columns": part}, name=f"rows {given * rows}", files=(place,))
            steps[executor.submit(step)] = given
            given += 1
        if turn in found:
            yield from found.pop(turn)
            turn += 1
            continue
        for outcome in executor.wait():
            number = steps.pop(outcome.ticket)
            if isinstance(outcome.error, TidemillError):
                raise outcome.error
            if outcome.error is not None:
                message = f"Rows from {number * rows:,} can't be predicted: {outcome.error!r}."
                raise BundleError(message, where=place) from outcome.error
            found[number] = outcome.value


def to_csv(executor: Executor, bundle: Bundle, data: Any, out: str | Path | TextIO) -> int:
    """Predict a table or texts into a CSV file, byte for byte as `Bundle.to_csv` does; gives the number of rows."""
    columns = bundle.columns(data)
    with whole_file(Path(out)) if isinstance(out, (str, Path)) else nullcontext(out) as file:
        csv.writer(file, lineterminator="\n").writerow(answer_header(bundle.task.classes))
        for chunk in answers(executor, bundle, columns):
            write_answers(file, chunk)
    return count_rows(columns)
