"""How a recogniser learns: its loss, and its way through the time or up to a rung. Loads torch."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tidemill.bundle.lines.decode import BLANK, best_path
from tidemill.core import transcripts
from tidemill.core.errors import TrialTimeoutError
from tidemill.models.recognition._base import LineData, LineProfile
from tidemill.models.recognition.augment import Distortion
from tidemill.models.recognition.joins import JoinedSamples, cuts_of
from tidemill.models.recognition.nets.parts import Recogniser
from tidemill.models.recognition.reading import error_rate
from tidemill.models.recognition.samples import PADDING, LineSamples, numbers_of
from tidemill.models.recognition.start import begin
from tidemill.models.training.budget import TrainBudget
from tidemill.models.training.checkpoints import NET
from tidemill.models.training.pace import MEASURED_SHARE, cut, in_quicker_precision, measure_step_s, spread
from tidemill.models.training.placing import settle
from tidemill.models.training.run import train as train_within
from tidemill.models.training.trained import in_order
from tidemill.train.device import find_device
from tidemill.train.types import Recipe

_EVALUATIONS = 20
"""So many times in a training it is looked how well the held-out lines are read."""
_MEASURED_S = 3.0
"""Steps are measured for at most so long, less where time is short."""
_LOOK_SHARE = 0.05
"""Share of the time in which they are measured again before it is said that there is too little of it."""
_MOST_CHECKED = 400
"""So many of the held-out lines choose the best moment: outputs for each step of all of them stay in memory."""
_GLANCE = 32
_READS_NOTHING = 0.9
"""Weights that read so many lines with more character errors than this are of no use before a new net's first steps."""
_LEAST_STEPS = 2000
_LEAST_BATCH = 8
"""Where there is time for fewer steps, batches are halved, down to this: it is steps that teach a net to read."""
_PLAIN, _JOINED = "plain", "joined"
"""Names of the parts of a training before lines are joined and after that."""
_BEFORE_JOINS = 0.25
"""Share of a training, and of its time, that goes before lines are joined."""


class CtcLoss:
    """Connectionist temporal classification: over all ways to write a text along the line, for each of its characters.

    References
    ----------
    Graves, Fernández, Gomez and Schmidhuber, ICML 2006.
    """

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """From logits (B, T, K + 1) and targets (B, 1 + L) as `LineSamples` gives them to losses (B,)."""
        steps, numbers = targets[:, 0].clamp(max=outputs.shape[1]), targets[:, 1:]
        lengths = (numbers != PADDING).sum(dim=1)
        logs = F.log_softmax(outputs.float(), dim=2).transpose(0, 1)
        # A text that is longer than its line has steps can't be written: it teaches nothing.
        losses = F.ctc_loss(
            logs, numbers.clamp(min=0), steps, lengths, blank=BLANK, reduction="none", zero_infinity=True
        )
        return losses / lengths.clamp(min=1)


@dataclass(frozen=True)
class FewestErrors:
    """The score of validation lines: the character error rate, turned around."""

    def __call__(self, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """From logits (n, T, K + 1), NaN behind the end of shorter lines, and targets."""
        ids = np.nan_to_num(outputs, nan=-np.inf).argmax(axis=2)
        ids[np.arange(ids.shape[1]) >= targets[:, :1]] = BLANK
        truth = targets[:, 1:]
        return -float(transcripts.edit_distances(truth, best_path(ids)).sum() / (truth != PADDING).sum())


def fit_net(
    net: Recogniser,
    recipe: Recipe,
    distortion: Distortion,
    profile: LineProfile,
    train: LineData,
    valid: LineData | None,
    budget: TrainBudget,
    seed: int,
    *,
    new: bool = True,
    joined: float = 0.0,
) -> Recogniser:
    """Train a net on one device within its time, or up to the rung that its budget names.

    Parameters
    ----------
    net : Recogniser
        What is trained.
    recipe, distortion
        How.
    profile, train, valid
        The alphabet, lines to learn from, and lines that choose the best moment.
    budget : TrainBudget
        What may be spent; its curve gets character error rates.
    seed : int
        Of order and distortion.
    new : bool
        False where the net begins from weights. A new one's first steps, and those of one whose weights read nothing of
        these lines, are those of `tidemill.models.recognition.start`.
    joined : float
        Share of lines that are joined (`tidemill.models.recognition.joins`) once the net reads; 0 to 1. A training with
        rungs joins none.

    Returns
    -------
    Recogniser
        The same net, in evaluation mode.

    Raises
    ------
    TrialTimeoutError
        Where not even a fifth of an epoch fits into the time, or the rung is not reached in it.
    TrialError
        Where the loss is no number.
    """
    samples = LineSamples(train, profile.alphabet, distortion)
    checks = None if valid is None or not len(valid) else LineSamples(_some(valid), profile.alphabet, Distortion())
    net = in_order(net, torch.channels_last)
    recipe = replace(recipe, batch=min(recipe.batch, len(train)))
    settle(net, CtcLoss(), samples, recipe, budget, validation=checks is not None)
    course = _Course(net, samples, checks, seed)
    recipe = in_quicker_precision(recipe, budget, lambda precision: course.step_s(recipe.batch, budget, precision))
    new = new or not _reads(net, samples)
    if joined and budget.of is None:
        course.run_joined(recipe, budget, joined, new=new)
    else:
        course.run(recipe, budget, new=new)
    return net.eval()


@dataclass(frozen=True)
class _Course:
    """What a net is trained on."""

    net: Recogniser
    samples: LineSamples
    checks: LineSamples | None
    seed: int

    def run(self, recipe: Recipe, budget: TrainBudget, *, new: bool, part: str = NET, follows: bool = False) -> None:
        """Train once through a schedule; the names are those of `tidemill.models.training.run.train`."""
        if new and not budget.has_begun(part):
            begin(self.net, recipe, self.samples, budget, self.seed)
        longest = recipe.epochs
        if budget.of is None:
            recipe = Recipe.from_json(budget.decided(lambda: self.planned(recipe, budget).to_json(), part))
        else:  # a rung: the same recipe on every leg, so that it goes on as if nothing had been
            recipe = replace(recipe, epochs=budget.of, evaluate_every=1.0)
        score = None if self.checks is None else FewestErrors()
        train_within(
            self.net, CtcLoss(), self.samples, recipe, budget, self.seed, checks=self.checks, score=score, part=part,
            follows=follows, longest=longest,
        )  # fmt: skip

    def run_joined(self, recipe: Recipe, budget: TrainBudget, share: float, *, new: bool) -> None:
        """Train with the lines as they are, so that the net tells where to cut them, and then with joined ones, too."""
        if budget.has_begun(NET):  # there was no time for joins
            self.run(recipe, budget, new=False)
            return
        deadline = budget.deadline - (1 - _BEFORE_JOINS) * budget.left_s() if budget.limited else budget.deadline
        first, second = replace(budget, deadline=deadline, curve=[]), replace(budget, curve=[])
        try:
            # One that goes on after it was through is through at once, and then what comes of it is the same.
            early = replace(recipe, epochs=_BEFORE_JOINS * recipe.epochs)
            self.run(early, first, new=new, part=_PLAIN, follows=True)
        except TrialTimeoutError:  # too short a time to learn where characters stand
            self.run(recipe, budget, new=False)
            return
        budget.curve += first.curve
        if first.interrupted is not None:
            budget.interrupted = _BEFORE_JOINS * first.interrupted
            return
        second.before = done = first.curve[-1][0] if first.curve else 0
        known = copy.deepcopy(self.net.state_dict())
        cuts = cuts_of(self.net, self.samples)
        own = self.samples
        more = (
            replace(self, samples=JoinedSamples(own.data, own.alphabet, own.distortion, cuts, share)) if cuts else self
        )
        try:
            late = replace(recipe, epochs=(1 - _BEFORE_JOINS) * recipe.epochs)
            more.run(late, second, new=False, part=_JOINED)
        except TrialTimeoutError:  # the first part took all the time; what it learned stays
            return
        budget.curve += [(done + step, error) for step, error in second.curve]
        if second.interrupted is not None:
            budget.interrupted = _BEFORE_JOINS + (1 - _BEFORE_JOINS) * second.interrupted
        if self.checks is not None and _least(second) > _least(first):
            self.net.load_state_dict(known)

    def step_s(self, batch: int, budget: TrainBudget, precision: str, most_s: float | None = None) -> float:
        """Seconds of a step, measured on some."""
        if most_s is None:
            most_s = min(_MEASURED_S, MEASURED_SHARE * budget.left_s())
        device = find_device(budget.device)
        return measure_step_s(self.net, CtcLoss(), self.samples, batch, device, most_s, precision, budget.placement)

    def planned(self, recipe: Recipe, budget: TrainBudget) -> Recipe:
        """Cut the length of a training to the time that there is, so that its learning rate comes to its end."""
        recipe = spread(recipe, _EVALUATIONS)
        if not budget.limited:
            return recipe
        rows, checks = len(self.samples), 0 if self.checks is None else len(self.checks)

        def fitted(step_s: float) -> Recipe:
            check_s = step_s * checks / recipe.batch / 2  # forward only
            return cut(recipe, _EVALUATIONS, step_s * rows / recipe.batch, check_s, budget.left_s())

        step_s = self.step_s(recipe.batch, budget, recipe.precision)
        try:
            planned = fitted(step_s)
        except TrialTimeoutError:  # maybe measured beside other work, and without these passes there are no joins
            again_s = self.step_s(recipe.batch, budget, recipe.precision, _LOOK_SHARE * budget.left_s())
            planned = fitted(min(step_s, again_s))
        if planned.epochs * rows / recipe.batch < _LEAST_STEPS and recipe.batch >= 2 * _LEAST_BATCH:
            return self.planned(replace(recipe, batch=recipe.batch // 2, lr=recipe.lr / math.sqrt(2)), budget)
        return planned


def _least(budget: TrainBudget) -> float:
    return min((error for _, error in budget.curve), default=float("inf"))


def _reads(net: Recogniser, samples: LineSamples) -> bool:
    """Whether it gets a part of the characters right before it is trained on these lines."""
    rows = samples.data.rows[:: max(1, len(samples) // _GLANCE)][:_GLANCE]
    numbers = numbers_of(samples.data.y[rows], samples.alphabet)
    lines = [samples.data.x[row] for row in rows]
    return bool((numbers != PADDING).any()) and error_rate(net.eval(), lines, numbers) <= _READS_NOTHING


def _some(valid: LineData) -> LineData:
    """Lines of about one width are read together."""
    rows = valid.rows[:: max(1, -(-len(valid) // _MOST_CHECKED))]
    order = np.argsort([valid.x[row].shape[1] for row in rows], kind="stable")
    return LineData(valid.x, valid.y, rows[order])
