"""Encoders of columns from what Tidemill trained before: the best net of a study of images or texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tidemill.core.errors import DataError
from tidemill.core.pack import unpack
from tidemill.core.trial import Trial
from tidemill.models.fusion.folders import is_encoder
from tidemill.models.fusion.own import NO_ENCODER, write_encoder
from tidemill.models.text.folders import find_encoders
from tidemill.models.vision.weights import FILE
from tidemill.sdk.image_weights import best_trial, study_named
from tidemill.search.modality import IMAGE, TEXT
from tidemill.search.study import Study
from tidemill.store.workspace import Workspace

_FOLDER = "encoders"
"""In the workspace's scratch: what is there can be made again from the study."""
_READING = (IMAGE, TEXT)


def names_encoder(workspace: Workspace, word: str) -> bool:
    """Whether a person named an encoder of columns: a folder that holds one, a name of the hub, or a study with one.

    Raises
    ------
    NotFoundError, DataError
        As `tidemill.sdk.image_weights.study_named`.
    """
    name = study_named(workspace, word)
    if name is None:
        return is_encoder(word)
    return Study.open(workspace, name).modality.name in _READING


def encoders_at_hand(workspace: Workspace, named: Sequence[str]) -> tuple[str, ...]:
    """Places of the encoders that a person named.

    Parameters
    ----------
    workspace : Workspace
        Where studies are.
    named : sequence of str
        Folders, files and names of the Hugging Face hub, which stay as they are; studies, and bundles of studies.

    Returns
    -------
    tuple of str
        For each that is named; the last part of a study's folder is its name.

    Raises
    ------
    NotFoundError, DataError
        As `tidemill.sdk.image_weights.study_named`, and for a study without a net that could read a column.
    """
    return tuple(_place(workspace, word) for word in named)


def text_encoders_at_hand(workspace: Workspace, named: Sequence[str]) -> tuple[str, ...]:
    """Folders of the encoders of texts that a person named, each once.

    Parameters
    ----------
    workspace, named
        As `encoders_at_hand` takes them; what looks like a name of the Hugging Face hub is fetched.

    Raises
    ------
    NotFoundError, DataError
        As `encoders_at_hand` and `tidemill.models.text.folders.find_encoder`, and for a study that is not about texts.
    """
    for word in named:
        name = study_named(workspace, word)
        if name is not None and Study.open(workspace, name).modality.name != TEXT:
            raise DataError(f"The study {name!r} is not about texts, so it has no encoder for them.")
    return find_encoders(encoders_at_hand(workspace, named))


def told_of_studies(workspace: Workspace, places: Sequence[str], rows: str) -> list[str]:
    """Say of encoders that studies of the workspace trained that they know answers.

    Parameters
    ----------
    workspace : Workspace
        Where studies are.
    places : sequence of str
        As `encoders_at_hand` gives them.
    rows : str
        What is learned from: ``"texts"``.
    """
    own = (workspace.path / "scratch" / _FOLDER).resolve()
    return [
        f"The encoder {Path(place).name!r} was trained by a study of this workspace, with answers: where {rows} of "
        "this table were among what it learned from, figures on them are too good."
        for place in places
        if own in Path(place).resolve().parents
    ]


def _place(workspace: Workspace, word: str) -> str:
    name = study_named(workspace, word)
    if name is None:
        return word
    study = Study.open(workspace, name)
    key = _best(study).artifacts["checkpoint"]
    folder = workspace.path / "scratch" / _FOLDER / key[:32] / name
    if not (folder / FILE).is_file():
        write_encoder(unpack(workspace.artifacts.get(key))["models"][0], folder)
    return str(folder)


def _best(study: Study) -> Trial:
    if study.modality.name not in _READING:
        raise DataError(f"The study {study.name!r} is about neither images nor texts: no column can be read by it.")
    best = best_trial(study, NO_ENCODER)
    if best is None:
        raise DataError(
            f"The study {study.name!r} has no net that could read a column.",
            hint="Its models look at drawn patches, or count words; search longer, or name another family.",
        )
    return best
