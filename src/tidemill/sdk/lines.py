"""From images of lines and their transcripts to what a search takes: the first part of a fit that learns to read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.images.encoder import IMAGE
from tidemill.bundle.images.properties import PROPERTIES
from tidemill.bundle.lines.encoder import STEP, LineEncoder, Lines
from tidemill.core import transcripts
from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.schema import Columns, Schema
from tidemill.core.task import FOLDED, Task, TaskKind
from tidemill.data.checks import Finding
from tidemill.data.coerce import group_codes
from tidemill.data.images.pictures import JoinedPictures, Pictures, Unreadable, look
from tidemill.data.images.source import FILE, ImageTable, read_images
from tidemill.data.images.transcripts import transcripts_of
from tidemill.models.recognition._base import STRIDE, LineProfile, steps_needed
from tidemill.sdk.image_weights import weights_at_hand
from tidemill.sdk.images import image_schema, kept_images, locked_images, refuse_tables_options, told_left_out
from tidemill.sdk.looking import NAMED, decoded, in_both, marks_of
from tidemill.sdk.options import FitOptions
from tidemill.sdk.prepare import lock
from tidemill.sdk.sources import Kept
from tidemill.store.workspace import Workspace

HEIGHTS = (32, 48)
"""Lines are resized to one of these heights, whichever is nearer to their own, where nobody says otherwise."""
_LEAST_HEIGHT = 16
_MOST_WIDTH = 2048
"""A longer line is squeezed into so many pixels."""
_SAMPLE = 200
"""Lines that tell the size of all."""
_SHOWN = 40
"""So many characters are shown in a message."""
_LEAST_SURE = 100
_MOST_LENGTHS = 2
_LEAST_SHARE = 0.02
"""So many transcripts of no more lengths, each of such a share of them, tell that there are no other lengths."""
_RARE = 3


@dataclass(frozen=True)
class PreparedLines:
    """Lines made ready for a search; an implementation of `tidemill.sdk.modality._base.Prepared`.

    Parameters
    ----------
    table : ImageTable
        Lines that can be read and have a transcript, in order.
    test_table : ImageTable or None
        The same of the locked ones, where they were given.
    schema, task : Schema, Task
        The columns, and the question.
    columns : Columns
        Names and properties of all images, those of ``test_table`` behind the others.
    y : ndarray of int32, shape (n, length of the longest)
        Code points of their transcripts.
    x : Lines
        What models see of them.
    encoder : LineEncoder
        That made ``x``.
    train, test : ndarray of int64
        Numbers of lines; ``test`` is empty where no slice is locked.
    groups : ndarray or None
        Group codes of the lines of ``table``.
    findings, notices : tuple
        What the checks found, and how the lines were read.
    weights : tuple of str
        Places of trained weights that may be used.
    """

    table: ImageTable
    test_table: ImageTable | None
    schema: Schema
    task: Task
    columns: Columns
    y: transcripts.Codes
    x: Lines
    encoder: LineEncoder
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    groups: NDArray[np.int64] | None
    findings: tuple[Finding, ...]
    notices: tuple[str, ...]
    weights: tuple[str, ...] = ()

    @property
    def pictures(self) -> JoinedPictures:
        """All images, to be read again from their files."""
        more = () if self.test_table is None else (self.test_table.pictures,)
        return JoinedPictures.of(self.table.pictures, *more)

    @cached_property
    def profile(self) -> LineProfile:
        """What families may know of the training lines."""
        return LineProfile.of(self.x[self.train], self.y[self.train], weights=self.weights)


def prepare_lines(
    source: Any, target: str | None, options: FitOptions, *, test: Any = None, encoder: LineEncoder | None = None
) -> PreparedLines:
    """Read, decode, check and split.

    Images that can't be read, and lines without a transcript, are left out, counted and named.

    Parameters
    ----------
    source : path or ImageTable
        A table that names image files, as `tidemill.data.images.source.read_images` takes it.
    target : str
        The column with the transcripts.
    options : FitOptions
        What a person said.
    test : path or ImageTable, optional
        Locked lines; default those of the options.
    encoder : LineEncoder, optional
        Of the study that goes on; else one is chosen by the lines.

    Raises
    ------
    InputError
        With what is wrong with the lines or the options.
    """
    refuse_tables_options(options)
    if target is None:
        raise OptionError(
            "Which column holds what stands in the lines?", hint="Name it with --target.", where="--target"
        )
    table = _transcribed(read_images(source, target, images=options.images, within=options.within), target)
    test = options.test if test is None else test
    test_table = None if test is None else _transcribed(locked_images(test, target, options), target)
    encoder = encoder or choose_encoder(table.pictures, options.image_size)
    notices: list[str] = []
    task = Task(TaskKind.RECOGNITION, target, label_type=FOLDED if options.ignore_case else "string")
    seen = _known(_encode(encoder, table, notices), task, notices)
    schema = image_schema(seen.table, target, options)
    groups = group_codes(seen.table.raw, schema)
    if test_table is None:
        train, locked = lock(task, seen.y, options, groups, None)
        whole = seen
    else:
        more = _known(_encode(encoder, test_table, notices), task, notices)
        train, locked = np.arange(len(seen.y)), np.arange(len(seen.y), len(seen.y) + len(more.y))
        whole, test_table = seen.joined(more), more.table
    notices += _said(whole, train, locked) + _lengths_said(whole.y[train]) + told_left_out(schema, options)
    notices = list(dict.fromkeys([*table.notices, *(test_table.notices if test_table else ()), *notices]))
    return PreparedLines(
        table=seen.table, test_table=test_table, schema=schema, task=task, columns=whole.columns, y=whole.y, x=whole.x,
        encoder=encoder, train=train, test=locked, groups=groups,
        findings=tuple(_findings(whole, target, train, locked)), notices=tuple(notices), weights=options.weights,
    )  # fmt: skip


def known_lengths(y: transcripts.Codes) -> tuple[int, ...]:
    """Tell which lengths transcripts have, where they are few and sure: such as numbers on plates; else empty.

    Examples
    --------
    >>> known_lengths(transcripts.to_codes(["A17", "B22"] * 60))
    (3,)
    >>> known_lengths(transcripts.to_codes(["some", "words of", "a text"] * 60))
    ()
    """
    lengths, counts = np.unique(transcripts.lengths(y), return_counts=True)
    sure = len(y) >= _LEAST_SURE and len(lengths) <= _MOST_LENGTHS and counts.min() >= _LEAST_SHARE * len(y)
    return tuple(int(length) for length in lengths) if sure else ()


def _lengths_said(y: transcripts.Codes) -> list[str]:
    lengths = known_lengths(y)
    if not lengths:
        return []
    told = " or ".join(f"{length:,}" for length in lengths)
    return [f"All transcripts have {told} characters: a search by beams (--decode beam) reads no others."]


def choose_encoder(pictures: Pictures, height: int | None = None) -> LineEncoder:
    """Choose the height that models see from the lines' own, and the most width that any of them needs.

    Examples
    --------
    >>> from tidemill.data.images.pictures import ArrayPictures
    >>> choose_encoder(ArrayPictures(np.zeros((3, 60, 175))))
    LineEncoder(height=48, most_width=2048)
    """
    if height is not None:
        if height < _LEAST_HEIGHT:
            raise OptionError(f"Lines need a height of at least {_LEAST_HEIGHT} pixels, but got {height}.",
                              where="--image-size")  # fmt: skip
        return LineEncoder(height, _MOST_WIDTH)
    places = np.unique(np.linspace(0, len(pictures) - 1, min(len(pictures), _SAMPLE)).astype(np.int64))
    heights = [p.shape[0] for p in look(pictures.take(places)) if not isinstance(p, Unreadable)]
    if not heights:
        raise DataError("None of the images can be read.", hint="Are these images in a form that Pillow knows?")
    middle = float(np.median(heights))
    return LineEncoder(min(HEIGHTS, key=lambda h: (abs(h - middle), h)), _MOST_WIDTH)


def load_lines(
    workspace: Workspace, study: str, options: FitOptions, *, training: bool = False
) -> tuple[PreparedLines, dict[str, Any]]:
    """Prepare the lines of a study again, exactly as they were.

    Raises
    ------
    WorkspaceError
        If the study was not made by a fit.
    DataError
        Where the version is blocked.
    """
    kept = Kept.of(workspace, study, "lines", training=training)
    weights = weights_at_hand(workspace, kept.weights) if training else ()
    words = kept.options(options, weights=weights, kind=options.kind, images=None)
    encoder = LineEncoder.restore(kept.encoder_state())
    table, test = kept_images(kept)
    return prepare_lines(table, kept.target, words, test=test, encoder=encoder), kept.versions


# ---------------------------------------------------------------------------------------------------------- inside


@dataclass(frozen=True)
class _Seen:
    """Lines that can be read, as models see them."""

    table: ImageTable
    x: Lines
    columns: Columns
    y: transcripts.Codes

    def joined(self, more: _Seen) -> _Seen:
        columns = {n: np.concatenate([v, more.columns[n]]) for n, v in self.columns.items()}
        y = transcripts.joined([self.y, more.y])
        return _Seen(self.table, np.concatenate([self.x, more.x]), columns, y)


def _transcribed(table: ImageTable, target: str) -> ImageTable:
    if target in (IMAGE, FILE, table.column):
        raise DataError(f"The column {target!r} names the images; it is no transcript.", where=table.source)
    if target not in table.table.column_names:
        raise NotFoundError.of("column", target, table.table.column_names)
    if table.by_folder:
        raise DataError(
            "These are images in class folders, which have labels and no transcripts.",
            where=table.source,
            hint="Give a table with a column of file names and one of transcripts.",
        )
    return table


def _encode(encoder: LineEncoder, table: ImageTable, notices: list[str]) -> _Seen:
    """Decode and resize all lines, some at a time; only what models see stays in memory."""
    n = len(table.pictures)
    x = np.empty(n, dtype=object)
    columns: Columns = {name: np.full(n, np.nan) for name in PROPERTIES}
    columns[FILE] = np.array([*map(str, table.pictures.names), ""], dtype=object)[:-1]

    def take(places: list[int], stack: Any) -> None:
        for place, line in zip(places, encoder.encode(stack), strict=True):
            x[place] = line
            columns["brightness"][place], columns["contrast"][place] = line.mean() / 255, line.std() / 255

    good = decoded(table, columns, notices, take)
    read = table if len(good) == n else table.take(good)
    empty = np.empty((len(good), 0), dtype=np.int32)
    return _Seen(read, x[good], {name: values[good] for name, values in columns.items()}, empty)


def _known(seen: _Seen, task: Task, notices: list[str]) -> _Seen:
    """Leave out lines without a transcript; where case counts nothing, all letters are small ones."""
    target = task.target
    texts = transcripts_of(seen.table.table[target])
    known = np.flatnonzero(texts != "")
    if not len(known):
        raise DataError(f"No line has a transcript in the column {target!r}.", where=seen.table.source)
    if len(known) < len(texts):
        gone = [str(seen.table.pictures.names[i]) for i in np.flatnonzero(texts == "").tolist()]
        notices.append(
            f"{len(gone):,} of {len(texts):,} lines have no transcript, and are left out: "
            f"{', '.join(map(repr, gone[:NAMED]))}{', …' if len(gone) > NAMED else ''}."
        )
    columns = {name: values[known] for name, values in seen.columns.items()}
    table = seen.table if len(known) == len(texts) else seen.table.take(known)
    codes = transcripts.to_codes(texts[known])
    return _Seen(table, seen.x[known], columns, transcripts.folded(codes) if task.ignores_case else codes)


def _said(seen: _Seen, train: NDArray[np.int64], test: NDArray[np.int64]) -> list[str]:
    """What a person should know about lengths and characters."""
    out = []
    widths = np.array([line.shape[1] for line in seen.x], dtype=np.int64)
    long = int((steps_needed(seen.y) > widths // STRIDE).sum())
    if long:
        out.append(
            f"{long:,} of {len(widths):,} lines have more characters than can be read along their width, which is one "
            f"for {STRIDE} pixels: they teach nothing and count as errors. A larger --image-size helps where images "
            "are large."
        )
    squeezed = int((widths >= _MOST_WIDTH - STEP).sum())
    if squeezed:
        out.append(f"{squeezed:,} of {len(widths):,} lines are squeezed into {_MOST_WIDTH:,} pixels of width.")
    known = set(np.unique(seen.y[train]).tolist())
    new = {c for c in np.unique(seen.y[test]).tolist() if c >= 0} - known
    if new:
        rows = int(np.isin(seen.y[test], list(new)).any(axis=1).sum())
        shown = "".join(map(chr, sorted(new)))[:_SHOWN]
        out.append(
            f"{len(new):,} characters stand in {rows:,} of {len(test):,} locked lines and in no training line, so that "
            f"they can't be read: {shown!r}."
        )
    return out


def _findings(seen: _Seen, target: str, train: NDArray[np.int64], test: NDArray[np.int64]) -> list[Finding]:
    """Lines that stand twice, and characters that are rare."""
    found = in_both(marks_of(seen.x), train, test, "lines")
    counts = Counter(seen.y[train][seen.y[train] >= 0].tolist())
    rare = "".join(chr(c) for c, n in sorted(counts.items()) if n < _RARE)
    if rare:
        found.append(Finding(
            "warning", "rare_character", target,
            f"{len(rare):,} of {len(counts):,} characters stand fewer than {_RARE} times in the training lines: "
            f"{rare[:_SHOWN]!r}.", "Add lines with them; they will hardly be learned.",
        ))  # fmt: skip
    return found
