"""The pool of families for images, described as data.

A family of another package registers under the entry point group ``tidemill.vision_families``::

    [project.entry-points."tidemill.vision_families"]
    mine = "mypackage.family:FAMILY"
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tidemill.core.errors import NotFoundError, OptionError, SpaceError
from tidemill.core.space import Categorical, Param, Space, When
from tidemill.core.task import Task
from tidemill.core.trial import Config
from tidemill.models.vision._base import FittedNet, ImageProfile, VisionFamily
from tidemill.models.vision.weights import misfit

GROUP = "tidemill.vision_families"
"""Entry point group of families outside this package."""
EXTRA = "deep"
"""What brings torch and the exporter."""
_HOME = "tidemill.models.vision.families"


@dataclass(frozen=True)
class Entry:
    """What is known of a family without loading it.

    Parameters
    ----------
    name : str
        The family's name.
    place : str
        ``"module:object"``.
    about : str
        One sentence.
    weights : tuple of str
        Kinds of trained weights that it can begin from; none where it begins from nothing.
    licence : str
        Of its code; weights have their own.
    packages : tuple of str
        What must be installed.
    export : str
        Form in which it leaves the house.
    origin : str
        ``"tidemill"``, or the package that registered the family.
    extra : str
        What brings the packages.
    """

    name: str
    place: str
    about: str = ""
    weights: tuple[str, ...] = ()
    licence: str = "Apache-2.0"
    packages: tuple[str, ...] = ("torch", "onnxscript")
    export: str = "onnx"
    origin: str = "tidemill"
    extra: str = EXTRA

    @property
    def absent(self) -> str | None:
        """Why the family can't be used here; None where it can."""
        gone = [p for p in self.packages if not _is_there(p)]
        if gone:
            noun = "the package" if len(gone) == 1 else "the packages"
            named = ", ".join(repr(p) for p in gone)
            verb = "is" if len(gone) == 1 else "are"
            return f"{noun} {named} {verb} not installed; install: pip install 'tidemill[{self.extra}]'"
        return None

    def load(self) -> VisionFamily:
        """Import the family."""
        module, _, attribute = self.place.partition(":")
        family: VisionFamily = getattr(importlib.import_module(module), attribute)
        return family


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a parent
        return False


_OWN = ("a study's, of the same family",)
# The order is the one in which a search tries them where nothing better is known.
_BUILT_IN = (
    Entry("probe", f"{_HOME}.probe:FAMILY", "linear model on whitened random patches; an answer within seconds"),
    Entry("quicknet", f"{_HOME}.quicknet:FAMILY", "whitened entrance, few and small maps: the most in minutes", _OWN),
    Entry("resnet9", f"{_HOME}.resnet9:FAMILY", "nine layers that learn much in few passes", _OWN),
    Entry(
        "resnet", f"{_HOME}.resnet:FAMILY", "residual net for small images: ResNet-8 to ResNet-20",
        ("safetensors", *_OWN),
    ),
    Entry("mobilenet", f"{_HOME}.mobilenet:FAMILY", "inverted residuals: few parameters and operations", _OWN),
    Entry(
        "backbone", f"{_HOME}.backbone:FAMILY", "a pre-trained backbone of transformers with a head of its own",
        ("folder as `save_pretrained` writes it",), packages=("torch", "onnxscript", "transformers"),
    ),
)  # fmt: skip

QUICK: tuple[Config, ...] = ({"family": "probe"},)
"""What gives a first answer."""
PORTFOLIO: tuple[Config, ...] = (
    {"family": "backbone"},
    {"family": "quicknet"},
    {"family": "quicknet", "quicknet.width": 64, "quicknet.cutout": 0.25},
    {"family": "resnet9", "resnet9.width": 24, "resnet9.smoothing": 0.1},
    {"family": "quicknet", "quicknet.width": 96, "quicknet.mix": "cutmix", "quicknet.epochs": 60},
    {"family": "resnet", "resnet.depth": 1},
    {"family": "quicknet", "quicknet.weights": ""},
    {"family": "resnet9"},
    {"family": "mobilenet"},
    {"family": "resnet9", "resnet9.cutout": 0.25, "resnet9.smoothing": 0.1, "resnet9.width": 32},
    {"family": "resnet", "resnet.depth": 3, "resnet.weights": ""},
)
"""Configs that are worth a try on any images, in this order; what they leave open is the default."""


def entries() -> tuple[Entry, ...]:
    """Return every known family, usable here or not (see `Entry.absent`).

    Examples
    --------
    >>> [entry.name for entry in entries()][:2]
    ['probe', 'quicknet']
    """
    return (*_BUILT_IN, *_outside())


@functools.lru_cache(maxsize=1)
def _outside() -> tuple[Entry, ...]:
    points = sorted(importlib.metadata.entry_points(group=GROUP), key=lambda p: (p.name, p.value))
    return tuple(Entry(p.name, p.value, licence="", packages=(), origin=p.dist.name if p.dist else "?") for p in points)


def families(names: Sequence[str] | None = None) -> dict[str, VisionFamily]:
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
            raise NotFoundError.of("family for images", name, known)
        if known[name].absent:
            raise NotFoundError(f"The family {name!r} can't be used: {known[name].absent}.")
    chosen = names or [name for name, entry in known.items() if entry.absent is None]
    return {name: known[name].load() for name in known if name in chosen}


def space(task: Task, profile: ImageProfile, names: Sequence[str] | None = None) -> Space:
    """Join the spaces of the families that support a task; ``family`` comes first.

    Raises
    ------
    SpaceError
        If no family supports the task.
    OptionError
        Where weights that Tidemill trained don't fit the images or the families.
    """
    able = {name: f for name, f in families(names).items() if f.supports(task, profile)}
    if not able:
        raise SpaceError(
            f"No family can learn {task.kind.value} from {profile.rows} images.",
            hint="Allow other families, or give more images." if names else "Give more images.",
        )
    for place in profile.weights:
        why = misfit(place, profile.channels, tuple(able))
        if why is not None:
            raise OptionError(f"These weights can't be begun from: {place}. {why}", where="--weights")
    params: list[Param] = [Categorical("family", tuple(able), next(iter(able)))]
    for name, family in able.items():
        own = (When("family", (name,)),)
        params += [replace(param, when=own + param.when) for param in family.space(task, profile)]
    return Space(params)


def restore(state: Mapping[str, Any], task: Task) -> FittedNet:
    """Undo `FittedNet.checkpoint`, whatever family it is of."""
    name = str(state["family"])
    return families([name])[name].restore(dict(state), task)
