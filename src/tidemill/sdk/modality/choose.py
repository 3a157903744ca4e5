"""Which modality a source is of; what each needs is loaded when it is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tidemill.core.task import TaskKind
from tidemill.core.transcripts import GREEDY
from tidemill.search.modality import FUSED, IMAGE, LINE, TEXT, modality_of

if TYPE_CHECKING:
    from tidemill.sdk.modality._base import Asked, Modality
    from tidemill.sdk.modality.lines import Lines
    from tidemill.sdk.options import FitOptions
    from tidemill.store.workspace import Workspace

_TABLES = {"table-classification": TaskKind.MULTICLASS.value, "table-regression": TaskKind.REGRESSION.value}
"""Values of ``--kind`` that say that it is about the columns of a table; two classes make it a binary task."""


def modality_asked(workspace: Workspace, data: Any, target: str | None, options: FitOptions) -> tuple[Modality, Asked]:
    """Look at what a person named: a dataset version, images, lines of text, texts, or a table.

    A table that names images in every row is learned from as images, where no texts stand beside them and there are no
    weights of an encoder. One whose only feature is a text is learned from as texts. One that names images, or with
    weights of an encoder, is one whose columns may be embedded.

    Raises
    ------
    OptionError
        Where the actor may not read a dataset, or weights don't fit the columns.
    DataError
        Where a dataset version is blocked.
    """
    from tidemill.data.images.source import KINDS, RECOGNITION, is_images
    from tidemill.sdk.modality._base import Asked
    from tidemill.sdk.sources import read_version

    if options.kind in _TABLES:
        options = replace(options, kind=_TABLES[options.kind])
        return _asked_table(workspace, data, target, options)
    if options.database is not None:
        return (_texts(options.weights) if _by_kind(options) else _table(options)), Asked(data, target, options)
    named = read_version(data, workspace, training=True)
    if named is not None:
        told = named.options(options, target or named.target)
        if _of_images(named.version.schema):
            # Types and times of columns are for tables; only what a person says of them is refused.
            told = replace(told, types=options.types, time_column=options.time_column)
            asked = Asked(data, target or named.target, told, named)
            return (_lines() if options.kind == RECOGNITION else _images()), asked
        asked = Asked(data, target or named.target, told, named)
        if not _by_kind(options) and _pictured(named.raw, asked):
            return _fused(), asked
        texts = _of_texts(workspace, named.raw, asked.target, asked.options)
        return (_texts(options.weights) if texts else _table(options)), asked
    if options.kind == RECOGNITION:
        return _lines(), Asked(data, target, options)
    if options.kind in KINDS or (not _by_kind(options) and is_images(data)):
        images = options.kind in KINDS or not _beside_images(workspace, data, target, options)
        return (_images() if images else _fused()), Asked(data, target, options)
    asked = Asked(data, target, options)
    if not _by_kind(options) and _pictured(data, asked):
        return _fused(), asked
    texts = _of_texts(workspace, data, target, options)
    return (_texts(options.weights) if texts else _table(options)), asked


def _asked_table(workspace: Workspace, data: Any, target: str | None, options: FitOptions) -> tuple[Modality, Asked]:
    """A table, whatever stands in its columns, because a person said so."""
    from tidemill.core.errors import OptionError
    from tidemill.sdk.modality._base import Asked
    from tidemill.sdk.sources import read_version

    named = None if options.database is not None else read_version(data, workspace, training=True)
    if named is None:
        asked = Asked(data, target, options)
        seen = options.database is None and _pictured(data, asked)
        return (_fused() if seen else _table(options)), asked
    if _of_images(named.version.schema):
        raise OptionError("The rows of this dataset are images, no table.", where="--kind", hint="Leave it out.")
    told = named.options(options, target or named.target)
    asked = Asked(data, target or named.target, told, named)
    return (_fused() if _pictured(named.raw, asked) else _table(options)), asked


def modality_kept(settings: Mapping[str, Any]) -> Modality:
    """The modality of a study that is kept, by its settings."""
    name = modality_of(settings).name
    if name == TEXT:
        return _texts(tuple(settings.get("source", {}).get("options", {}).get("weights", ())))
    if name == LINE:
        return _lines()
    if name == FUSED:
        return _fused()
    return _images() if name == IMAGE else _tables()


def modality_decoding(modality: Modality, decode: str) -> Modality:
    """The same modality, whose bundles decode texts as was asked for: ``greedy``, ``beam`` or ``beam:WIDTH``.

    Raises
    ------
    OptionError
        For other words, and where nothing is read.
    """
    return modality if decode == GREEDY else lines_decoding(modality, decode)


def lines_decoding(modality: Modality, decode: str) -> Lines:
    """The modality of lines whose bundles search for texts as was asked for: ``beam`` or ``beam:WIDTH``.

    Raises
    ------
    OptionError
        For other words, and where nothing is read.
    """
    from tidemill.core.errors import OptionError

    if modality.name != LINE:
        raise OptionError("Only what reads lines of text is decoded.", where="--decode", hint="Leave it out.")
    from tidemill.bundle.lines.write import beam_width
    from tidemill.sdk.modality.lines import Lines

    return Lines(beam_width(decode))


def _of_images(schema: Any) -> bool:
    from tidemill.sdk.images import holds_images

    return holds_images(schema)


def _by_kind(options: FitOptions) -> bool:
    from tidemill.data.texts.column import KINDS

    return options.kind in KINDS


def _of_texts(workspace: Workspace, source: Any, target: str | None, options: FitOptions) -> bool:
    """Texts are asked for by their kind, or stand alone in a table."""
    if _by_kind(options):
        return True
    if target is None:
        return False
    from tidemill.sdk.modality.alone import text_alone

    return text_alone(source, target, options, encoder=bool(options.weights) and _reads_texts(workspace, options))


def _reads_texts(workspace: Workspace, options: FitOptions) -> bool:
    """Whether a person named an encoder of texts: a folder, a name of the hub, or a study of texts."""
    from tidemill.models.pretrained.folders import is_hub_name
    from tidemill.models.text.folders import is_text_encoder
    from tidemill.sdk.image_weights import study_named
    from tidemill.search.study import Study

    for word in options.weights:
        study = study_named(workspace, word)
        if study is None and (is_text_encoder(word) or is_hub_name(word)):
            return True
        if study is not None and Study.open(workspace, study).modality.name == TEXT:
            return True
    return False


def _pictured(source: Any, asked: Asked) -> bool:
    if asked.target is None:
        return False
    from tidemill.sdk.modality.pictured import names_pictures

    return names_pictures(source, asked.target, asked.options)


def _beside_images(workspace: Workspace, source: Any, target: str | None, options: FitOptions) -> bool:
    """Whether other columns are learned from beside images: texts, or any where there is an encoder."""
    if target is None:
        return False
    from tidemill.sdk.encoder_weights import names_encoder
    from tidemill.sdk.modality.pictured import has_others

    if options.weights:
        return any(names_encoder(workspace, word) for word in options.weights) and has_others(source, target, options)
    return has_others(source, target, options, texts=True)


def _table(options: FitOptions) -> Modality:
    return _fused() if options.weights else _tables()


def _tables() -> Modality:
    from tidemill.sdk.modality.tables import Tables

    return Tables()


def _fused() -> Modality:
    from tidemill.sdk.modality.fused import Fused

    return Fused()


def _images() -> Modality:
    from tidemill.sdk.modality.images import Images

    return Images()


def _lines() -> Modality:
    from tidemill.sdk.modality.lines import Lines

    return Lines()


def _texts(weights: tuple[str, ...]) -> Modality:
    from tidemill.sdk.modality.texts import Texts

    return Texts(tuple(weights))
