"""The pool of families for texts, described as data.

A family of another package registers under the entry point group ``tidemill.text_families``::

    [project.entry-points."tidemill.text_families"]
    mine = "mypackage.family:FAMILY"
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tidemill.core.errors import NotFoundError, SpaceError
from tidemill.core.space import Categorical, Param, Space, When
from tidemill.core.task import Task
from tidemill.core.trial import Config
from tidemill.models.text._base import FittedText, TextFamily, TextProfile
from tidemill.models.text.extra import PACKAGES
from tidemill.models.vision.pool import Entry

GROUP = "tidemill.text_families"
"""Entry point group of families outside this package."""
_HOME = "tidemill.models.text.families"
_FOLDER = ("folder as `save_pretrained` writes it", "name of the Hugging Face hub")

# The order is the one in which a search tries them where nothing better is known.
_BUILT_IN = (
    Entry(
        "ngrams", f"{_HOME}.ngrams:FAMILY", "TF-IDF of words and characters with a linear model; an answer in seconds",
        packages=("sklearn",),
    ),
    Entry(
        "sentence", f"{_HOME}.sentence:FAMILY", "a trained encoder as it is, and a linear head", _FOLDER,
        packages=PACKAGES, extra="text",
    ),
    Entry(
        "encoder", f"{_HOME}.encoder:FAMILY", "a trained encoder (BERT, MiniLM, DistilBERT…), tuned", _FOLDER,
        packages=PACKAGES, extra="text",
    ),
)  # fmt: skip

QUICK: tuple[Config, ...] = ({"family": "ngrams"},)
"""What gives a first answer."""
PORTFOLIO: tuple[Config, ...] = (
    {"family": "sentence"},
    {"family": "encoder"},
    {"family": "encoder", "encoder.lr": 6e-5, "encoder.decay": 0.8},
    {"family": "ngrams", "ngrams.c": 20.0, "ngrams.words": 3},
    {"family": "encoder", "encoder.lr": 3e-4, "encoder.epochs": 3.0, "encoder.smoothing": 0.1},
    {"family": "ngrams", "ngrams.c": 0.5, "ngrams.characters": 0, "ngrams.words": 1},
)
"""Configs that are worth a try on any texts, in this order; what they leave open is the default."""


def entries() -> tuple[Entry, ...]:
    """Return every known family, usable here or not (see `Entry.absent`).

    Examples
    --------
    >>> [entry.name for entry in entries()][:3]
    ['ngrams', 'sentence', 'encoder']
    """
    return (*_BUILT_IN, *_outside())


@functools.lru_cache(maxsize=1)
def _outside() -> tuple[Entry, ...]:
    points = sorted(importlib.metadata.entry_points(group=GROUP), key=lambda p: (p.name, p.value))
    return tuple(Entry(p.name, p.value, licence="", packages=(), origin=p.dist.name if p.dist else "?") for p in points)


def families(names: Sequence[str] | None = None) -> dict[str, TextFamily]:
    """Load the families that can be used here.

    Parameters
    ----------
    names : sequence of str or None
        Only these; None for all that are installed.

    Raises
    ------
    NotFoundError
        For a name that no family has, or whose packages are not installed.
    """
    known = {entry.name: entry for entry in entries()}
    for name in names or ():
        if name not in known:
            raise NotFoundError.of("family for texts", name, known)
        if known[name].absent:
            raise NotFoundError(f"The family {name!r} can't be used: {known[name].absent}.")
    chosen = names or [name for name, entry in known.items() if entry.absent is None]
    return {name: _load(known[name]) for name in known if name in chosen}


def _load(entry: Entry) -> TextFamily:
    module, _, attribute = entry.place.partition(":")
    family: TextFamily = getattr(importlib.import_module(module), attribute)
    return family


def space(task: Task, profile: TextProfile, names: Sequence[str] | None = None) -> Space:
    """Join the spaces of the families that support a task; ``family`` comes first.

    Raises
    ------
    SpaceError
        If no family supports the task.
    """
    able = {name: f for name, f in families(names).items() if f.supports(task, profile)}
    if not able:
        hint = "Give more texts."
        if names and not profile.weights and not set(names) & {"ngrams"}:
            hint = "Name the folder of a trained encoder with --weights, or allow the family 'ngrams'."
        raise SpaceError(f"No family can learn {task.kind.value} from {profile.rows} texts.", hint=hint)
    params: list[Param] = [Categorical("family", tuple(able), next(iter(able)))]
    for name, family in able.items():
        own = (When("family", (name,)),)
        params += [replace(param, when=own + param.when) for param in family.space(task, profile)]
    return Space(params)


def restore(state: Mapping[str, object], task: Task) -> FittedText:
    """Undo `FittedText.checkpoint`, whatever family it is of."""
    name = str(state["family"])
    return families([name])[name].restore(dict(state), task)
