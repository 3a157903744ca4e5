"""The pool of families for texts, described as data.

A family of another package registers under the entry point group ``tidemill.text_families``::

    [project.entry-points."tidemill.text_families"]
    mine = "mypackage.family:FAMILY"
"""

from __future__ import annotations

from collections.abc import Sequence

from tidemill.core.space import Space
from tidemill.core.task import Task
from tidemill.core.trial import Config
from tidemill.models.pretrained.architectures import TEXTS
from tidemill.models.registry import Entry, Registry, joined_space
from tidemill.models.text._base import FittedText, TextFamily, TextProfile
from tidemill.models.text.extra import PACKAGES

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
        packages=PACKAGES, extra="text", architectures=TEXTS,
    ),
    Entry(
        "encoder", f"{_HOME}.encoder:FAMILY", "a trained encoder (BERT, MiniLM, DistilBERT…), tuned", _FOLDER,
        packages=PACKAGES, extra="text", architectures=TEXTS,
    ),
)  # fmt: skip
_REGISTRY: Registry[TextFamily, FittedText] = Registry("texts", GROUP, _BUILT_IN)

QUICK: tuple[Config, ...] = ({"family": "ngrams"},)
"""What gives a first answer."""
PORTFOLIO: tuple[Config, ...] = (
    {"family": "sentence"},
    {"family": "encoder"},
    {"family": "encoder", "encoder.lora": 8},
    {"family": "encoder", "encoder.lr": 6e-5, "encoder.decay": 0.8},
    {"family": "ngrams", "ngrams.c": 20.0, "ngrams.words": 3},
    {"family": "encoder", "encoder.lr": 3e-4, "encoder.epochs": 3.0, "encoder.smoothing": 0.1},
    {"family": "ngrams", "ngrams.c": 0.5, "ngrams.characters": 0, "ngrams.words": 1},
)
"""Configs that are worth a try on any texts, in this order; what they leave open is the default."""


entries = _REGISTRY.entries
"""See `Registry.entries`."""
families = _REGISTRY.families
"""See `Registry.families`."""
restore = _REGISTRY.restore
"""See `Registry.restore`."""


def space(task: Task, profile: TextProfile, names: Sequence[str] | None = None) -> Space:
    """Join the spaces of the families that support a task; ``family`` comes first.

    Raises
    ------
    SpaceError
        If no family supports the task.
    """
    hint = "Give more texts."
    if names and not profile.weights and not set(names) & {"ngrams"}:
        hint = "Name the folder of a trained encoder with --weights, or allow the family 'ngrams'."
    return joined_space(_REGISTRY.able(task, profile, names, hint), task, profile)
