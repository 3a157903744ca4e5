"""The chosen nets once more, on all images: those that were held out to choose by are learned from, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tidemill.bundle.parts import Member, Recipe
from tidemill.bundle.runtime import Bundle
from tidemill.core.errors import OptionError, TrialTimeoutError
from tidemill.core.pack import unpack
from tidemill.core.trial import Trial
from tidemill.models.training.budget import TrainBudget
from tidemill.models.vision import pool
from tidemill.models.vision._base import ImageData, ImageProfile, VisionFamily
from tidemill.sdk.modality.images import Images
from tidemill.sdk.study import Study
from tidemill.search.modality import IMAGE
from tidemill.search.splits import TRAIN

REFIT = "refit"
"""Key of a bundle's lineage that says what its nets were trained on anew."""


@dataclass(frozen=True)
class Refit:
    """What a candidate becomes when its nets are trained on all images.

    Parameters
    ----------
    recipe : Recipe
        With the nets trained anew; ensemble, calibration and decision are those that were chosen before.
    rows, before : int
        Images that the nets were trained on now, and before.
    epochs : dict of str to float
        Passes over the images by the name of the trial, as many as before; absent for what has none.
    """

    recipe: Recipe
    rows: int
    before: int
    epochs: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON, for a bundle's lineage."""
        return {"rows": self.rows, "rows_before": self.before, "epochs": self.epochs}

    def in_words(self) -> str:
        """One sentence for the bundle's card."""
        return (
            f"The nets were trained anew on all {self.rows:,} images after they had been chosen; the figures are those "
            f"of the same nets trained on {self.before:,} of them, for of the others there is none that they have not "
            "seen."
        )


def export_refitted(
    study: Study, out: str | Path, *, time_s: float | None = None, tell: Callable[[str], None] | None = None
) -> Bundle:
    """Train the nets of a study's choice on all images, and write them as a bundle, proven.

    Parameters
    ----------
    study : Study
        A study of images, under the objective that chooses.
    out : path
        Folder; must not exist, or be an older bundle.
    time_s : float, optional
        Seconds that there are; where the nets are expected to take longer, nothing is trained.
    tell : callable
        Told the name of each trial that is trained anew.

    Returns
    -------
    Bundle
        Whose lineage and notes say that and on what its nets were trained anew.

    Raises
    ------
    OptionError
        For a study of something else.
    TrialTimeoutError
        Where the time is too short.
    """
    choice = study.best
    made = refit(study, time_s=time_s, tell=tell)
    info = choice.info()
    info = replace(info, lineage={**info.lineage, REFIT: made.to_json()}, notes=(*info.notes, made.in_words()))
    return Images().write(study, made.recipe, Path(out), info, choice.evidence())


def refit(study: Study, *, time_s: float | None = None, tell: Callable[[str], None] | None = None) -> Refit:
    """Train the nets of a study's choice on all images; see `export_refitted`."""
    search = study.search
    if search.modality.name != IMAGE:
        raise OptionError(f"Nets for images alone are trained anew, and the study {study.name!r} is not about images.")
    candidate, prepared = study.best.candidate, study.prepared
    x, y = prepared.x[prepared.train], prepared.y[prepared.train]
    before = int((search.truth.splits[0] == TRAIN).sum())
    trials = [search.whole[number] for number in candidate.weights]
    _check_time(trials, len(y) / before, time_s)
    recipe = search.recipe(candidate)
    every = ImageData(x, y, np.arange(len(y)))
    members: list[Member] = []
    epochs: dict[str, float] = {}
    for member, trial in zip(recipe.members, trials, strict=True):
        if tell is not None:
            tell(trial.name)
        state = unpack(search.workspace.artifacts.get(trial.artifacts["checkpoint"]))["models"][0]
        profile = ImageProfile.from_json(state["profile"])
        family = pool.families([trial.family])[trial.family]
        config = dict(trial.config)
        passes = _passes(family, trial, profile, before)
        if passes is not None:
            config[f"{trial.family}.epochs"] = epochs[trial.name] = passes
        net = family.fit(config, search.task, profile, every, None, TrainBudget(), trial.seed)
        members.append(Member(member.weight, [net], member.name))
    return Refit(replace(recipe, members=members), len(y), before, epochs)


def _check_time(trials: list[Trial], more: float, time_s: float | None) -> None:
    """Hold what the trials took, one after the other, against the time that there is."""
    expected_s = more * sum(trial.usage.wall_s for trial in trials)
    if time_s is not None and expected_s > time_s:
        raise TrialTimeoutError(
            f"To train the chosen nets on all images takes about {expected_s:,.0f} s, and there are {time_s:,.0f} s.",
            hint="Give it more time, or export without it.",
        )


def _passes(family: VisionFamily, trial: Trial, profile: ImageProfile, rows: int) -> float | None:
    """How often a trial went through its images; its config says the most, and time may have cut it."""
    recipe = getattr(family, "recipe", None)
    if recipe is None or not trial.curve:
        return None
    coarse = float(trial.config.get(f"{trial.family}.coarse", 0.0)) if trial.fidelity == 1.0 else 0.0
    steps = trial.curve[-1][0] / (1 - coarse)  # the curve is that of the passes over whole images
    batch = min(int(recipe(trial.config, profile).batch), rows)
    return round(steps * batch / rows, 4)
