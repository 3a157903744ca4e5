"""Choices of treatment that a table makes sense of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidemill.core.task import Task
from tidemill.models.tabular._base import FeatureKind, TableProfile


def smooth(
    task: Task,
    profile: TableProfile,
    *,
    number: tuple[str, ...],
    category: tuple[str, ...],
    cross: tuple[str, ...] = (),
    target: tuple[str, ...] = ("raw", "log"),
) -> Mapping[str, tuple[Any, ...]]:
    """List the choices for a family that wants finite numbers on one scale; the first of each is the default."""
    choices: dict[str, tuple[Any, ...]] = {}
    n_categories = profile.count(FeatureKind.CATEGORY)
    if cross and (n_categories > 1 or profile.count(FeatureKind.NUMBER) > 1):
        choices["treatment.cross"] = cross
    choices["treatment.missing"] = ("impute",)
    if profile.count(FeatureKind.NUMBER):
        choices["treatment.number"] = number
    if profile.count(FeatureKind.COUNT):
        choices["treatment.tokens"] = ("tfidf",)
    if n_categories:
        choices["treatment.category"] = category
    if len(profile.features) > 30:
        choices["treatment.select"] = ("varying", "half")
    if not task.kind.is_classification:
        choices["treatment.target"] = target
    return choices


def rough(task: Task, profile: TableProfile, *, category: tuple[str, ...]) -> Mapping[str, tuple[Any, ...]]:
    """List the choices for trees, which take numbers on any scale and know missing values themselves."""
    choices: dict[str, tuple[Any, ...]] = {}
    n_categories, n_numbers = profile.count(FeatureKind.CATEGORY), profile.count(FeatureKind.NUMBER)
    crosses = ("pairs",) * (n_categories > 1) + ("products",) * (n_numbers > 1)
    if crosses:
        choices["treatment.cross"] = ("none", *crosses, "both") if len(crosses) == 2 else ("none", *crosses)
    if profile.count(FeatureKind.COUNT):
        choices["treatment.tokens"] = ("all", "top")
    if n_categories:
        choices["treatment.category"] = category
    if len(profile.features) > 30:
        choices["treatment.select"] = ("all", "half")
    if not task.kind.is_classification:
        choices["treatment.target"] = ("raw", "log", "sqrt")
    return choices
