"""The first steps of a net that reads: as if every character took the same room along its line.

From the beginning, CTC teaches a net to say nothing for some thousand steps before it says the first character. A net
that was shown the characters where they would stand in a line of even letters is past that after some hundred, though
most of them stand a little beside. Recognisers of speech have long been started like this.

References
----------
Young et al., "The HTK Book", 2006: flat start.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tidemill.bundle.lines.decode import BLANK
from tidemill.core import transcripts
from tidemill.models.recognition._base import LineData
from tidemill.models.recognition.nets.parts import Recogniser
from tidemill.models.recognition.samples import PADDING, LineSamples
from tidemill.models.training.budget import TrainBudget
from tidemill.models.training.placing import settle
from tidemill.models.training.run import teller
from tidemill.train import runtime
from tidemill.train.types import Limits, Recipe

STEPS = 300
"""So many steps are enough whatever the lines."""
_SHARE = 0.25
"""Of a short training, and of short time, so much goes into its start."""
_SHORT = 0.25
_LEAST_LINES = 64
"""It learns from the quarter of the lines whose texts are shortest, and from at least so many."""
_SMOOTHED = 0.1
"""Where characters stand is a guess: so much of each step is given to all characters alike."""


class EvenLoss:
    """How far the outputs are from the text as it would stand were all its characters equally wide."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """From logits (B, T, K + 1) and targets (B, 1 + L) as `LineSamples` gives them to losses (B,)."""
        wanted = evenly(targets, outputs.shape[1])
        losses = F.cross_entropy(outputs.float().transpose(1, 2), wanted, reduction="none", label_smoothing=_SMOOTHED)
        return losses.mean(dim=1)


def evenly(targets: Tensor, steps: int) -> Tensor:
    """Spread texts over their lines: the number of a character for each step, the blank's behind the end of a line.

    Parameters
    ----------
    targets : Tensor
        Shape (B, 1 + L): steps of the line, then numbers of characters.
    steps : int
        Steps of the widest line, T.

    Returns
    -------
    Tensor
        Shape (B, T).

    Examples
    --------
    >>> evenly(torch.tensor([[6, 3, 1, 2], [4, 5, -1, -1], [6, -1, -1, -1]]), 6).tolist()
    [[3, 3, 1, 1, 2, 2], [5, 5, 5, 5, 0, 0], [0, 0, 0, 0, 0, 0]]
    """
    widths, numbers = targets[:, :1].clamp(min=1, max=steps), targets[:, 1:]
    lengths = (numbers != PADDING).sum(dim=1, keepdim=True)
    places = torch.arange(steps, device=targets.device)[None] * lengths // widths
    known = torch.cat([numbers, torch.full_like(numbers[:, :1], PADDING)], dim=1)
    return known.gather(1, places.clamp(max=numbers.shape[1])).clamp(min=BLANK)


def begin(net: Recogniser, recipe: Recipe, samples: LineSamples, budget: TrainBudget, seed: int) -> None:
    """Train a new net for its first steps; they come on top of the recipe's.

    Parameters
    ----------
    net : Recogniser
        Changed in place.
    recipe : Recipe
        Of the training that follows.
    samples : LineSamples
        What is learned from.
    budget : TrainBudget
        What the whole training may take.
    seed : int
        Of order and distortion.
    """
    samples = replace(samples, data=_shortest(samples.data))
    deadline = None if math.isinf(budget.deadline) else budget.deadline - (1 - _SHARE) * budget.left_s()
    runtime.train(
        net, EvenLoss(), samples, replace(recipe, epochs=epochs_of(recipe, len(samples))), seed=seed,
        limits=Limits(deadline=deadline, cancelled=budget.asked_to_end), diverged=budget.diverged_folder,
        plan=settle(net, EvenLoss(), samples, recipe, budget, validation=False),
        on_event=teller(replace(budget, signals=None)), **budget.kept("start", follows=True),
    )  # fmt: skip


def _shortest(data: LineData) -> LineData:
    """The lines with the shortest texts: there, letters stand nearest to where they would stand were all even."""
    order = np.argsort(transcripts.lengths(data.y[data.rows]), kind="stable")
    most = max(_LEAST_LINES, round(_SHORT * len(order)))
    return replace(data, rows=np.sort(data.rows[order[:most]]))


def epochs_of(recipe: Recipe, samples: int) -> float:
    """Passes over the lines that a start takes beside a training.

    Examples
    --------
    >>> epochs_of(Recipe(batch=16, epochs=100.0), 1600)
    3.0
    >>> epochs_of(Recipe(batch=16, epochs=10.0), 1600)
    2.5
    """
    return min(_SHARE * recipe.epochs, STEPS * recipe.batch / samples)
