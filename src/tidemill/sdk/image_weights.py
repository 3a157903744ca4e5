"""Weights from what Tidemill trained before: a study of images gives its best net to the next fit."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from tidemill.bundle import spec
from tidemill.core.errors import DataError, NotFoundError
from tidemill.core.metrics import get_metric
from tidemill.core.pack import unpack
from tidemill.core.trial import Trial
from tidemill.models.fusion.own import write_encoder
from tidemill.models.vision.weights import FILE, NOT_BEGUN_FROM, find_weights, write_weights
from tidemill.search.board import loss_of
from tidemill.search.modality import IMAGE, LINE
from tidemill.search.study import Study
from tidemill.store.workspace import Workspace

_FOLDER = "weights"
"""In the workspace's scratch: what is there can be made again from the study."""


def weights_at_hand(workspace: Workspace, named: Sequence[str]) -> tuple[str, ...]:
    """Places of the weights that a person named.

    Parameters
    ----------
    workspace : Workspace
        Where studies are.
    named : sequence of str
        Files and folders, which stay as they are; names of studies of images; bundles of such studies; names of
        backbones on the Hugging Face hub.

    Returns
    -------
    tuple of str
        Files and folders.

    Raises
    ------
    NotFoundError
        For a bundle whose study is not in the workspace: a bundle holds a graph to run, not weights to train. For a
        name of the hub that can't be fetched.
    DataError
        For a study that has no net that another fit could begin from.
    """
    return tuple(_place(workspace, each) for each in named)


def save_weights(study: Study, folder: Path) -> Path:
    """Write the best net of a study as weights that another fit can begin from, here or elsewhere.

    Parameters
    ----------
    study : Study
        A study of images.
    folder : Path
        For ``model.safetensors``, and, where a backbone was best, its description; to be named with ``--weights``.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DataError
        Where the study has no such net, or the folder can't be written.
    """
    trial = _best(study)
    state = unpack(study.workspace.artifacts.get(trial.artifacts["checkpoint"]))["models"][0]
    if "description" in state:  # a backbone, which goes on as what `save_pretrained` writes
        write_encoder(state, folder)
        return folder / FILE
    return write_weights(state, folder)


def study_named(workspace: Workspace, word: str) -> str | None:
    """Name of the study that a person named, by itself or by its bundle; None for files, folders, and what is unknown.

    Raises
    ------
    NotFoundError
        For a bundle whose study is not in the workspace.
    DataError
        For a bundle that can't be read.
    """
    path = Path(word).expanduser()
    bundle = (path / spec.NAME).is_file()
    if path.exists() and not bundle:
        return None
    name = _study_of(path) if bundle else word
    if name in {record.name for record in workspace.metadata.studies()}:
        return name
    if bundle:
        raise NotFoundError(
            f"The bundle was made by the study {name!r}, which is not in this workspace.",
            where=word,
            hint="A bundle holds a graph to run, not weights to train: name a folder with model.safetensors.",
        )
    return None  # whoever opens it says what to do


def best_trial(study: Study, without: Collection[str]) -> Trial | None:
    """The trial with the least loss, of families but some; of equal ones the first. None where there is no such."""
    metric = get_metric(study.objective.metric)
    whole = [t for t in study.whole.values() if t.family not in without]
    known = [(loss, t.number, t) for t in whole if (loss := loss_of(t, metric)) is not None]
    return min(known, key=lambda each: each[:2], default=(0.0, 0, None))[2]


def _place(workspace: Workspace, word: str) -> str:
    name = study_named(workspace, word)
    if name is None:
        return find_weights(word)
    study = Study.open(workspace, name)
    folder = workspace.path / "scratch" / _FOLDER / _best(study).artifacts["checkpoint"][:32]
    if not (folder / FILE).is_file():
        save_weights(study, folder)
    return str(folder)


def _study_of(bundle: Path) -> str:
    try:
        described = spec.BundleSpec.from_json(json.loads((bundle / spec.NAME).read_bytes()))
    except (OSError, ValueError) as error:
        raise DataError(f"The bundle can't be read ({error}).", where=str(bundle)) from error
    return str(described.info.lineage.get("study", ""))


def _best(study: Study) -> Trial:
    if study.modality.name not in (IMAGE, LINE):
        raise DataError(f"The study {study.name!r} is not about images, so it has no weights for them.")
    best = best_trial(study, NOT_BEGUN_FROM)
    if best is None:
        raise DataError(
            f"The study {study.name!r} has no net that another fit could begin from.",
            hint="Its families learn a head only; search longer, or with --family quicknet.",
        )
    return best
