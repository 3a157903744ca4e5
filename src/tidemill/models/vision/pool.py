"""The pool of families for images, described as data.

A family of another package registers under the entry point group ``tidemill.vision_families``::

    [project.entry-points."tidemill.vision_families"]
    mine = "mypackage.family:FAMILY"
"""

from __future__ import annotations

from collections.abc import Sequence

from tidemill.core.space import Space
from tidemill.core.task import Task
from tidemill.core.trial import Config
from tidemill.models.pretrained.architectures import IMAGES, OF_TIMM
from tidemill.models.registry import Entry, Registry, joined_space
from tidemill.models.vision._base import FittedNet, ImageProfile, VisionFamily
from tidemill.models.vision.weights import refuse_misfits

GROUP = "tidemill.vision_families"
"""Entry point group of families outside this package."""
_HOME = "tidemill.models.vision.families"
_OWN = ("a study's, of the same family",)
# The order is the one in which a search tries them where nothing better is known.
_BUILT_IN = (
    Entry("probe", f"{_HOME}.probe:FAMILY", "linear model on whitened random patches; an answer within seconds"),
    Entry(
        "discriminant", f"{_HOME}.discriminant:FAMILY",
        "shrunk discriminant on what a study's net sees of each place; seconds, and few images of each class suffice",
        ("a study's, of any net of its own",), tasks=("binary", "multiclass"),
    ),
    Entry("quicknet", f"{_HOME}.quicknet:FAMILY", "whitened entrance, few and small maps: the most in minutes", _OWN),
    Entry("resnet9", f"{_HOME}.resnet9:FAMILY", "nine layers that learn much in few passes", _OWN),
    Entry(
        "resnet", f"{_HOME}.resnet:FAMILY", "residual net for small images: ResNet-8 to ResNet-20",
        ("safetensors", *_OWN),
    ),
    Entry("mobilenet", f"{_HOME}.mobilenet:FAMILY", "inverted residuals: few parameters and operations", _OWN),
    Entry(
        "backbone", f"{_HOME}.backbone:FAMILY", "a pre-trained backbone of transformers or timm with a head of its own",
        ("folder as `save_pretrained` or timm writes it", "name of the Hugging Face hub"),
        packages=("torch", "onnxscript", "transformers"), extra="deep,text", architectures=(*IMAGES, *OF_TIMM),
    ),
)  # fmt: skip
_REGISTRY: Registry[VisionFamily, FittedNet] = Registry("images", GROUP, _BUILT_IN)

QUICK: tuple[Config, ...] = ({"family": "probe"}, {"family": "discriminant"})
"""What gives a first answer."""
PORTFOLIO: tuple[Config, ...] = (
    {"family": "backbone"},
    {"family": "backbone", "backbone.mode": "tune"},
    {"family": "backbone", "backbone.mode": "tune", "backbone.lora": 8},
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


entries = _REGISTRY.entries
"""See `Registry.entries`."""
families = _REGISTRY.families
"""See `Registry.families`."""
restore = _REGISTRY.restore
"""See `Registry.restore`."""


def space(task: Task, profile: ImageProfile, names: Sequence[str] | None = None) -> Space:
    """Join the spaces of the families that support a task; ``family`` comes first.

    Raises
    ------
    SpaceError
        If no family supports the task.
    OptionError
        Where weights that Tidemill trained don't fit the images or the families.
    """
    able = _REGISTRY.able(task, profile, names)
    seen = {name for family in able.values() for name in getattr(family, "sees_through", ())}
    refuse_misfits(profile.weights, profile.channels, {*able, *seen})
    return joined_space(able, task, profile)
