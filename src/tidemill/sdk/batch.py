"""Predicts many rows or images on an executor: some hundred or thousand a step, answers in order."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tidemill.bundle.batch import Batch, Piece
from tidemill.bundle.runtime import Bundle, whole_file
from tidemill.core.budget import available_cpus
from tidemill.core.errors import BundleError, OptionError, TidemillError, nearest_hint
from tidemill.core.protocols import Executor, Step
from tidemill.jobs.executors.inprocess import InProcessExecutor
from tidemill.jobs.executors.pool import ProcessExecutor
from tidemill.jobs.executors.ray.cluster import connect
from tidemill.jobs.executors.ray.executor import RayExecutor
from tidemill.sdk.options import ENGINES

CALL = "tidemill.sdk.batch:answer_pieces"
"""The name under which an executor finds `answer_pieces`."""
STEP_BYTES = 2**25
"""A step whose images have so many bytes is not made larger; it holds one piece of a bundle at least."""
AHEAD = 2
"""Steps for each worker that may be done or under way before their turn to be written comes."""
AHEAD_BYTES = 2**30
"""Nothing is read ahead while images of so many bytes wait for their answers."""
_PRELOAD = ("tidemill.sdk.batch", "onnxruntime")


@dataclass(frozen=True)
class Answers:
    """What a step gives: its rows as lines of CSV, and which images can't be read."""

    rows: int
    lines: str
    unread: tuple[str, ...] = ()


def answer_pieces(bundle: str, pieces: Sequence[Piece], tells: bool) -> Answers:
    """Answer pieces of a batch, as a worker does.

    Parameters
    ----------
    bundle : str
        Its folder.
    pieces : sequence of Piece
        In order.
    tells : bool
        Whether somebody wants to know of images that can't be read; where nobody does, some bundles refuse them.
    """
    opened = Bundle.open(bundle, threads=1)
    lines, unread = io.StringIO(newline=""), list[str]()
    for piece in pieces:
        opened.write_piece(piece.content, lines, unread.append if tells else None)
    return Answers(sum(piece.rows for piece in pieces), lines.getvalue(), tuple(unread))


@contextmanager
def open_engine(name: str, ray_address: str | None = None, preload: Sequence[str] = ()) -> Iterator[Executor]:
    """Open the executor that ``--engine`` names; its workers load the modules of ``preload`` once.

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
        with ProcessExecutor(available_cpus(), (*_PRELOAD, *preload)) as pool:
            yield pool
    else:
        with connect(ray_address) as cluster, RayExecutor(cluster, preload=(*_PRELOAD, *preload)) as workers:
            yield workers


def answers(
    executor: Executor, bundle: Bundle, batch: Batch, *, step: int | None = None, tells: bool = True
) -> Iterator[Answers]:
    """Answer a batch, some rows or images at a time, in order.

    Parameters
    ----------
    executor : Executor
        Who answers; on other machines from a copy of the bundle.
    bundle : Bundle
        Of any kind.
    batch : Batch
        As `Bundle.batch` gives it.
    step : int, optional
        Rows of a step, in whole pieces; default what the batch says.
    tells : bool
        As `answer_pieces` takes it.

    Raises
    ------
    TidemillError
        Why a step failed.
    """
    asker = _Asker(executor, str(bundle.path.absolute()), steps_of(batch, step or batch.step), tells)
    turn = 0
    while True:
        asker.ask(turn + AHEAD * executor.capacity)
        if turn in asker.found:
            yield asker.found.pop(turn)
            turn += 1
        elif asker.asked:
            asker.take()
        else:
            return


def steps_of(batch: Batch, rows: int) -> Iterator[list[Piece]]:
    """Gather pieces to steps of so many rows, or fewer where their images are large.

    Examples
    --------
    >>> batch = Batch(7, 2, 4, lambda start, stop: Piece(stop - start, None))
    >>> [[piece.rows for piece in step] for step in steps_of(batch, 4)]
    [[2, 2], [2, 1]]
    """
    step: list[Piece] = []
    for piece in batch.pieces():
        step.append(piece)
        if sum(p.rows for p in step) >= rows or sum(p.size_bytes for p in step) >= STEP_BYTES:
            yield step
            step = []
    if step:
        yield step


@dataclass(frozen=True)
class _Asked:
    """A step that has not ended."""

    number: int
    first_row: int
    size_bytes: int


@dataclass
class _Asker:
    """Hands steps to an executor, and takes what they answer, in any order."""

    executor: Executor
    place: str
    steps: Iterator[list[Piece]]
    tells: bool
    asked: dict[int, _Asked] = field(default_factory=dict)
    found: dict[int, Answers] = field(default_factory=dict)
    given: int = 0
    given_rows: int = 0

    def ask(self, until: int) -> None:
        """Hand in the next steps up to a number, unless too much is under way; files are read here."""
        while self.given < until and sum(each.size_bytes for each in self.asked.values()) < AHEAD_BYTES:
            pieces = next(self.steps, None)
            if pieces is None:
                return
            arguments = {"bundle": self.place, "pieces": pieces, "tells": self.tells}
            step = Step(CALL, arguments, name=f"rows {self.given_rows}", files=(self.place,))
            size_bytes = sum(piece.size_bytes for piece in pieces)
            self.asked[self.executor.submit(step)] = _Asked(self.given, self.given_rows, size_bytes)
            self.given += 1
            self.given_rows += sum(piece.rows for piece in pieces)

    def take(self) -> None:
        """Wait for answers. Raises `TidemillError` where a step failed."""
        for outcome in self.executor.wait():
            of = self.asked.pop(outcome.ticket)
            if isinstance(outcome.error, TidemillError):
                raise outcome.error
            if outcome.error is not None:
                message = f"Rows from {of.first_row:,} can't be predicted: {outcome.error!r}."
                raise BundleError(message, where=self.place) from outcome.error
            self.found[of.number] = outcome.value


def to_csv(
    executor: Executor,
    bundle: Bundle,
    batch: Batch,
    out: str | Path | TextIO,
    on_unreadable: Callable[[str], None] | None = None,
) -> int:
    """Predict a batch into a CSV file, byte for byte as the bundle's own `to_csv` does.

    Parameters
    ----------
    executor, bundle, batch
        As in `answers`.
    out : path or text stream
        Where to write; a file is there as a whole or not at all.
    on_unreadable : callable, optional
        As the bundle's `to_csv` takes it.

    Returns
    -------
    int
        Number of rows.
    """
    with whole_file(Path(out)) if isinstance(out, (str, Path)) else nullcontext(out) as file:
        csv.writer(file, lineterminator="\n").writerow(bundle.csv_header())
        for each in answers(executor, bundle, batch, tells=on_unreadable is not None):
            file.write(each.lines)
            if on_unreadable is not None:
                for unread in each.unread:
                    on_unreadable(unread)
    return batch.rows
