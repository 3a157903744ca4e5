"""The pool of families for lines of text, described as data.

A family of another package registers under the entry point group ``tidemill.recognition_families``::

    [project.entry-points."tidemill.recognition_families"]
    mine = "mypackage.family:FAMILY"
"""

from __future__ import annotations

from collections.abc import Sequence

from tidemill.core.space import Space
from tidemill.core.task import Task
from tidemill.core.trial import Config
from tidemill.models.recognition._base import FittedLines, LineFamily, LineProfile
from tidemill.models.registry import Entry, Registry, joined_space
from tidemill.models.vision.weights import refuse_misfits

GROUP = "tidemill.recognition_families"
"""Entry point group of families outside this package."""
_HOME = "tidemill.models.recognition.families"

_OWN = ("a study's, of the same family",)
# The order is the one in which a search tries them where nothing better is known.
_BUILT_IN = (
    Entry("crnn", f"{_HOME}.crnn:FAMILY", "convolutions, then a recurrent net along the line (CTC)", _OWN),
    Entry("svtr", f"{_HOME}.svtr:FAMILY", "convolutions, then attention along the line (CTC)", _OWN),
)
_REGISTRY: Registry[LineFamily, FittedLines] = Registry("lines", GROUP, _BUILT_IN)

QUICK: tuple[Config, ...] = ({"family": "crnn"},)
"""What gives a first answer: a net that reads takes its time, so it is the best guess at once."""
PORTFOLIO: tuple[Config, ...] = (
    {"family": "svtr"},
    {"family": "crnn", "crnn.width": 32, "crnn.augment": 1.5},
    {"family": "crnn", "crnn.lr": 6e-3, "crnn.depth": 0},
    {"family": "crnn", "crnn.weights": "", "crnn.augment": 1.0},
    {"family": "svtr", "svtr.depth": 4, "svtr.augment": 1.5},
)
"""Configs that are worth a try on any lines, in this order; what they leave open is the default."""


entries = _REGISTRY.entries
"""See `Registry.entries`."""
families = _REGISTRY.families
"""See `Registry.families`."""
restore = _REGISTRY.restore
"""See `Registry.restore`."""


def space(task: Task, profile: LineProfile, names: Sequence[str] | None = None) -> Space:
    """Join the spaces of the families that support a task; ``family`` comes first.

    Raises
    ------
    SpaceError
        If no family supports the task.
    OptionError
        Where weights that Tidemill trained don't fit the lines or the families.
    """
    able = _REGISTRY.able(task, profile, names)
    refuse_misfits(profile.weights, profile.channels, able)
    return joined_space(able, task, profile)
