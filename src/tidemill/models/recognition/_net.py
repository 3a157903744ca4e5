"""A trained recogniser as a part of a bundle, and what every family does to come by one. Loads torch."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.lines.decode import BLANK, greedy
from tidemill.bundle.lines.encoder import STEP, Lines
from tidemill.bundle.parts import TIE_MARGIN
from tidemill.core import transcripts
from tidemill.core.errors import TrialTimeoutError
from tidemill.core.trial import Config, Cost
from tidemill.models.recognition._base import STRIDE, LineData, LineProfile
from tidemill.models.recognition.augment import Distortion
from tidemill.models.recognition.emit import emit_net
from tidemill.models.recognition.joins import JoinedSamples, cuts_of
from tidemill.models.recognition.nets.parts import Answer, Recogniser
from tidemill.models.recognition.reading import best_path, error_rate
from tidemill.models.recognition.samples import PADDING, LineSamples, numbers_of, side_by_side
from tidemill.models.recognition.start import begin
from tidemill.models.training.budget import TrainBudget
from tidemill.models.training.pace import MEASURED_SHARE, cut, measure_step_s, spread
from tidemill.models.training.run import train as train_within
from tidemill.models.training.trained import Trained, cost_of, in_order, operations
from tidemill.train.checkpoint import newest
from tidemill.train.device import find_device
from tidemill.train.types import Recipe

_BATCH = 32
"""Lines of one width that are read at a time."""
_EVALUATIONS = 20
"""So many times in a training it is looked how well the held-out lines are read."""
_MEASURED_S = 3.0
"""Steps are measured for at most so long, less where time is short."""
_MOST_CHECKED = 400
"""So many of the held-out lines choose the best moment: outputs for each step of all of them stay in memory."""
_GLANCE = 32
_READS_NOTHING = 0.9
"""Weights that read so many lines with more character errors than this are of no use before a new net's first steps."""
_LEAST_STEPS = 2000
_LEAST_BATCH = 8
"""Where there is time for fewer steps, batches are halved, down to this: it is steps that teach a net to read."""
_BEFORE_JOINS = 0.25
"""Share of a training, and of its time, that goes before lines are joined."""
_GRAPH_BYTES = 12_000
"""What a graph takes beside its numbers."""


class TrainedRecogniser(Trained[Recogniser, LineProfile]):
    """A net with all that it takes to read, to be written into a graph, and to be kept.

    Parameters
    ----------
    family : str
        Name of the family that can build it.
    config : Config
        The family's parameters.
    profile : LineProfile
        The lines that it sees.
    net : Recogniser
        In evaluation mode.
    cost : Cost
        As counted.
    """

    def __init__(self, family: str, config: Config, profile: LineProfile, net: Recogniser, cost: Cost) -> None:
        super().__init__(family, config, profile, net, Answer(net), cost)

    @property
    def alphabet(self) -> str:
        """The characters that it can write."""
        return self.profile.alphabet

    def predict(self, x: Lines, margin: float = TIE_MARGIN) -> NDArray[np.float32]:
        """Read lines by torch; those of one width go together."""
        texts = np.empty(len(x), dtype=object)
        sure = np.empty(len(x), dtype=np.float32)
        widths = np.array([line.shape[1] for line in x], dtype=np.int64)
        for width in np.unique(widths):
            same = np.flatnonzero(widths == width)
            for start in range(0, len(same), _BATCH):
                places = same[start : start + _BATCH]
                found, sure[places] = greedy(self.frames([x[i] for i in places]), self.alphabet, margin)
                for place, text in zip(places, found, strict=True):
                    texts[place] = text
        return transcripts.to_scores(sure, texts)

    def frames(self, lines: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Logarithms of probabilities (n, steps, K + 1) for lines of one width."""
        with torch.inference_mode():
            images = torch.from_numpy(side_by_side(lines)).to(self.net.mean.device)
            found: NDArray[np.float32] = self._answer(images).cpu().numpy()
        return found

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the net into ``graph``."""
        return emit_net(graph, self.net, x)


def count(net: nn.Module, profile: LineProfile) -> Cost:
    """Count parameters and operations for a line of mean width; the net may lie on the meta device."""
    twin = copy.deepcopy(net)
    recurrent = [_without(module) for module in list(twin.modules())]
    width = STEP * max(1, round(profile.width / STEP))
    image = torch.zeros(1, 1, profile.height, width, device=next(net.parameters()).device)
    return cost_of(net, operations(twin, image) + sum(recurrent) * (width // STRIDE), _GRAPH_BYTES)


class _Nothing(nn.Module):
    """Stands for a recurrent net, whose operations the counter sees on some devices and not on others."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """Zeros of the shape that the net would give."""
        return x.new_zeros(x.shape[0], x.shape[1], self.outputs), None


def _without(module: nn.Module) -> int:
    """Take recurrent nets out of a module; gives their operations for one step: two for every weight of a matrix."""
    flops = 0
    for name, child in list(module.named_children()):
        if isinstance(child, nn.LSTM):
            setattr(module, name, _Nothing(child.hidden_size * (1 + child.bidirectional)))
            flops += 2 * sum(p.numel() for p in child.parameters() if p.ndim == 2)
    return flops


def keep_known(net: Recogniser, profile: LineProfile, alphabet: str, head: Mapping[str, NDArray[Any]]) -> None:
    """Give a new head what another one knew of the blank and of the characters that both can write."""
    weight, bias = head.get("linear.weight"), head.get("linear.bias")
    linear: Any = net.body.linear
    if weight is None or bias is None or weight.shape[1] != linear.weight.shape[1] or len(bias) != len(alphabet) + 1:
        return
    before = {character: place for place, character in enumerate(alphabet, start=1)}
    pairs = [(BLANK, BLANK)]
    pairs += [(new, before[c]) for new, c in enumerate(profile.alphabet, start=1) if c in before]
    to, of = (torch.tensor(side) for side in zip(*pairs, strict=True))
    with torch.no_grad():
        linear.weight[to] = torch.from_numpy(np.asarray(weight))[of]
        linear.bias[to] = torch.from_numpy(np.asarray(bias))[of]


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
    new = new or not _reads(net, samples)
    if joined and budget.of is None:
        _train_joined(net, recipe, samples, checks, budget, seed, new=new, joined=joined)
    else:
        _train(net, recipe, samples, checks, budget, seed, new=new)
    return net.eval()


def _train(
    net: Recogniser,
    recipe: Recipe,
    samples: LineSamples,
    checks: LineSamples | None,
    budget: TrainBudget,
    seed: int,
    *,
    new: bool,
) -> None:
    """Train once through a schedule."""
    loss = CtcLoss()
    if new and (budget.folder is None or newest(Path(budget.folder)) is None):
        begin(net, recipe, samples, budget, seed)
    if budget.of is None:
        recipe = _planned(recipe, net, loss, samples, 0 if checks is None else len(checks), budget)
    else:  # a rung: the same recipe on every leg, so that it goes on as if nothing had been
        recipe = replace(recipe, epochs=budget.of, evaluate_every=1.0)
    train_within(
        net, loss, samples, recipe, budget, seed, checks=checks, score=None if checks is None else FewestErrors()
    )


def _train_joined(
    net: Recogniser,
    recipe: Recipe,
    samples: LineSamples,
    checks: LineSamples | None,
    budget: TrainBudget,
    seed: int,
    *,
    new: bool,
    joined: float,
) -> None:
    """Train with the lines as they are, so that the net tells where to cut them, and then with joined ones, too."""
    deadline = budget.deadline - (1 - _BEFORE_JOINS) * budget.left_s() if budget.limited else budget.deadline
    first = replace(budget, deadline=deadline, curve=[])
    _train(net, replace(recipe, epochs=_BEFORE_JOINS * recipe.epochs), samples, checks, first, seed, new=new)
    budget.curve += first.curve
    known = copy.deepcopy(net.state_dict())
    cuts = cuts_of(net, samples)
    if cuts:
        samples = JoinedSamples(samples.data, samples.alphabet, samples.distortion, cuts, joined)
    second = replace(budget, curve=[])
    recipe = replace(recipe, epochs=(1 - _BEFORE_JOINS) * recipe.epochs)
    try:
        _train(net, recipe, samples, checks, second, seed, new=False)
    except TrialTimeoutError:  # the first part took all the time; what it learned stays
        return
    done = first.curve[-1][0] if first.curve else 0
    budget.curve += [(done + step, error) for step, error in second.curve]
    if checks is not None and _least(second) > _least(first):
        net.load_state_dict(known)


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


def _planned(
    recipe: Recipe, net: Recogniser, loss: CtcLoss, samples: LineSamples, checks: int, budget: TrainBudget
) -> Recipe:
    """Cut the length of a training to the time that there is, so that its learning rate comes to its end."""
    recipe = spread(recipe, _EVALUATIONS)
    if not budget.limited:
        return recipe
    most_s = min(_MEASURED_S, MEASURED_SHARE * budget.left_s())
    step_s = measure_step_s(net, loss, samples, recipe.batch, find_device(budget.device), most_s)
    check_s = step_s * checks / recipe.batch / 2  # forward only
    planned = cut(recipe, _EVALUATIONS, step_s * len(samples) / recipe.batch, check_s, budget.left_s())
    if planned.epochs * len(samples) / recipe.batch < _LEAST_STEPS and recipe.batch >= 2 * _LEAST_BATCH:
        smaller = replace(recipe, batch=recipe.batch // 2, lr=recipe.lr / math.sqrt(2))
        return _planned(smaller, net, loss, samples, checks, budget)
    return planned
