"""From a table of texts to what a search takes: the first part of a fit on texts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.runner.texts.reading import MOST_CHARACTERS
from tidemill.bundle.texts.encoder import TextEncoder
from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.schema import TOKENS, Column, Columns, Schema, SemanticType
from tidemill.core.task import TaskKind
from tidemill.data.checks import Finding
from tidemill.data.ingest import RawTable, read
from tidemill.data.multilabel import with_labels
from tidemill.data.texts.column import KINDS, text_column, text_schema
from tidemill.models.text.folders import find_encoders
from tidemill.sdk.encoder_weights import text_encoders_at_hand
from tidemill.sdk.options import FitOptions
from tidemill.sdk.prepare import OnTable, Prepared, prepare_raw
from tidemill.sdk.sources import Kept, Named
from tidemill.store.workspace import Workspace

PROPERTIES = {"characters": "characters", "words": "words"}
"""What is known of each text, by which slices can be cut, with its unit."""
_LEAST = 10
"""A class with fewer texts is named."""
_NAMED = 5


@dataclass(frozen=True)
class PreparedTexts(OnTable):
    """Texts made ready for a search; an implementation of `tidemill.sdk.modality._base.Prepared`.

    Parameters
    ----------
    base : Prepared
        As in `OnTable`.
    column : str
        The column with the texts.
    schema : Schema
        The columns; the text is marked as one that readers turn into numbers.
    columns : Columns
        The texts and their properties, those of a test file behind the others.
    findings, notices : tuple
        What the checks found, and how the texts were read.
    weights : tuple of str
        Folders of trained encoders that may be used.
    """

    column: str
    schema: Schema
    columns: Columns
    findings: tuple[Finding, ...]
    notices: tuple[str, ...]
    weights: tuple[str, ...] = ()

    @property
    def groups(self) -> NDArray[np.int64] | None:
        """Group codes, where a column groups the rows."""
        return self.base.groups

    @property
    def texts(self) -> NDArray[Any]:
        """All texts, objects of shape (n,)."""
        return self.columns[self.column]

    @property
    def properties(self) -> Columns:
        """The columns without the texts themselves."""
        return {name: values for name, values in self.columns.items() if name != self.column}

    @property
    def encoder(self) -> TextEncoder:
        """Picks the texts out of a table."""
        return TextEncoder(self.column)


def prepare_texts(source: Any, target: str | None, options: FitOptions, named: Named | None = None) -> PreparedTexts:
    """Read, find the text, check and split.

    Parameters
    ----------
    source : path, table or SQL
        The data; SQL where ``options.database`` is given.
    target : str or None
        The column to predict; needed.
    options : FitOptions
        What a person said.
    named : Named, optional
        The dataset version that the source names.

    Raises
    ------
    InputError
        With what is wrong with the data, the options or the weights.
    """
    if target is None:
        raise OptionError("Which column is to be predicted?", hint="Name it with --target.", where="--target")
    _refuse(options)
    weights = find_encoders(options.weights)
    raw = _read(source, options) if named is None else named.raw
    test = None if options.test is None else read(options.test)
    if _kind(options.kind) == TaskKind.MULTILABEL.value:
        columns = set(raw.table.column_names)
        raw, test = _with_labels(raw, test, target, options)
        gone = columns - set(raw.table.column_names)  # of several columns that became one, a version may know the types
        options = replace(options, types={n: kind for n, kind in options.types.items() if n not in gone})
    if target not in raw.table.column_names:
        raise NotFoundError.of("target column", target, raw.table.column_names)
    schema = text_schema(raw, target, types=options.types, group=options.group)
    if test is not None and target not in test.table.column_names:
        raise DataError(f"The test rows have no column {target!r}.", where=test.source)
    return _prepared(raw, test, schema, options, weights)


def load_texts(
    workspace: Workspace, study: str, options: FitOptions, *, training: bool = False
) -> tuple[PreparedTexts, dict[str, Any]]:
    """Prepare the texts of a study again, exactly as they were; encoders are looked for where it is trained on.

    Raises
    ------
    WorkspaceError
        If the study was not made by a fit.
    DataError
        Where the version is blocked.
    """
    kept = Kept.of(workspace, study, "texts", training=training)
    words = kept.options(options, weights=options.weights, kind=kept.kind)
    (raw, schema), locked = kept.rows(), kept.test_rows()
    test = locked and locked[0]
    if words.kind == TaskKind.MULTILABEL.value:
        raw, test = _with_labels(raw, test, kept.target, words)
    weights = text_encoders_at_hand(workspace, kept.weights) if training else ()
    return _prepared(raw, test, schema, words, weights), kept.versions


def report_schema(prepared: PreparedTexts) -> Schema:
    """The text, and its properties as columns by which slices can be cut."""
    columns = [c for c in prepared.schema if c.type is not SemanticType.IGNORED]
    for name, values in prepared.properties.items():
        low, high = float(values.min()), float(values.max())
        columns.append(Column(name, SemanticType.NUMBER, unit=PROPERTIES[name], low=low, high=high))
    return Schema(tuple(columns))


# ---------------------------------------------------------------------------------------------------------- inside


def _refuse(options: FitOptions) -> None:
    wrong = []
    if options.time_column is not None:
        wrong.append("--time-column")
    if options.schedule == "rows":
        wrong.append("--schedule rows")
    if options.image_size is not None:
        wrong.append("--image-size")
    if options.images is not None:
        wrong.append("--images")
    if options.separator is not None and _kind(options.kind) != TaskKind.MULTILABEL.value:
        wrong.append("--separator, without --kind text-multilabel")
    if wrong:
        raise OptionError(f"These options are not for texts: {', '.join(wrong)}.")
    if options.schedule == "rungs" and not options.weights:
        raise OptionError(
            "Of models for texts encoders alone can pause, and there is none.",
            where="--schedule",
            hint="Name one with --weights, or leave --schedule out.",
        )


def _with_labels(
    raw: RawTable, test: RawTable | None, target: str, options: FitOptions
) -> tuple[RawTable, RawTable | None]:
    """Take the cells of the target apart, those of the test rows as those of the others."""
    raw, separator = with_labels(raw, target, separator=options.separator)
    if test is not None:
        test, _ = with_labels(test, target, separator=separator)
    return raw, test


def _read(source: Any, options: FitOptions) -> RawTable:
    if options.database is not None:
        return read(options.database, query=str(source))
    if source is None:
        raise OptionError("There is no data to learn from.", hint="Name a file: tidemill fit DATA --target COLUMN")
    return source if isinstance(source, RawTable) else read(source, sheet=options.sheet)


def _prepared(
    raw: RawTable, test: RawTable | None, schema: Schema, options: FitOptions, weights: tuple[str, ...]
) -> PreparedTexts:
    column = text_column(schema)
    base = prepare_raw(raw, test, schema, replace(options, kind=_kind(options.kind)))
    texts = base.columns[column]
    if all(text == "" for text in texts):
        raise DataError(f"Every text of the column {column!r} is empty.", where=raw.source)
    known = {
        "characters": np.array([len(text) for text in texts], dtype=np.float64),
        "words": np.array([len(text.split()) for text in texts], dtype=np.float64),
    }
    columns: Columns = {column: texts, **{name: values for name, values in known.items() if name != column}}
    marked = Schema(tuple(replace(c, unit=TOKENS) if c.name == column else c for c in base.schema))
    return PreparedTexts(
        base, column, marked, columns, (*base.findings, *_findings(base, texts, column)),
        (*base.notices, *_notices(texts, known["characters"])), weights,
    )  # fmt: skip


def _kind(kind: str | None) -> str | None:
    """What a person said, as a kind of task; two classes make it a binary one."""
    if kind == KINDS[0]:
        return TaskKind.MULTICLASS.value
    if kind == KINDS[2]:
        return TaskKind.MULTILABEL.value
    return TaskKind.REGRESSION.value if kind == KINDS[1] else kind


def _notices(texts: NDArray[Any], characters: NDArray[np.float64]) -> list[str]:
    out = []
    empty, long = int((characters == 0).sum()), int((characters > MOST_CHARACTERS).sum())
    if empty:
        out.append(f"{empty:,} of {len(texts):,} texts are empty or missing; nothing can be told from them.")
    if long:
        out.append(
            f"{long:,} of {len(texts):,} texts have more than {MOST_CHARACTERS:,} characters; what stands behind these "
            "is not read."
        )
    return out


def _findings(base: Prepared, texts: NDArray[Any], column: str) -> list[Finding]:
    """Texts that stand in training and test, or have two labels, and classes that are rare."""
    found = []
    train = {texts[i] for i in base.train.tolist() if texts[i]}
    shared = sum(texts[i] in train for i in base.test.tolist())
    if shared:
        found.append(Finding(
            "warning", "text_in_train_and_test", column,
            f"{shared:,} of {len(base.test):,} locked texts stand among the training texts, too.",
            "Figures on the locked texts are too good; remove the copies.",
        ))  # fmt: skip
    if base.task.kind.has_labels:
        several = base.task.kind is TaskKind.MULTILABEL
        labels: dict[str, set[Any]] = {}
        for text, label in zip(texts, base.y.tolist(), strict=True):
            labels.setdefault(text, set()).add(tuple(label) if several else label)
        twice = sum(len(codes) > 1 for text, codes in labels.items() if text)
        if twice:
            found.append(Finding(
                "warning", "text_with_two_labels", base.task.target,
                f"{twice:,} texts stand there with different labels.", "Look at their labels.",
            ))  # fmt: skip
        learned = base.y[base.train]
        counts = learned.sum(axis=0) if several else np.bincount(learned, minlength=base.task.n_classes)
        noun = "labels" if several else "classes"
        rare = [f"{c!r} ({counts[i]})" for i, c in enumerate(base.task.classes) if counts[i] < _LEAST]
        if rare:
            more = ", …" if len(rare) > _NAMED else ""
            found.append(Finding(
                "warning", "few_texts_of_a_class", base.task.target,
                f"{len(rare):,} {noun} have fewer than {_LEAST} texts: {', '.join(rare[:_NAMED])}{more}.",
                "Add texts.",
            ))  # fmt: skip
    return found
