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
from tidemill.models.recognition.nets.parts import Answer, Recogniser
from tidemill.models.recognition.samples import PADDING, LineSamples, side_by_side
from tidemill.models.vision._base import TrainBudget
from tidemill.models.vision._net import measure_step_s
from tidemill.train import runtime
from tidemill.train.device import find_device
from tidemill.train.types import Limits, Placement, Recipe, Stop

_BATCH = 32
"""Lines of one width that are read at a time."""
_OVERHEAD = 1.15
"""A step of the runtime takes about so much longer than its two passes: the update, the batch, the bookkeeping."""
_KEPT = 0.94
"""Share of the time that the plan of a training fills."""
_LEAST_EPOCHS = 0.2
_EVALUATIONS = 20
"""So many times in a training it is looked how well the held-out lines are read."""
_MEASURED_S, _MEASURED_SHARE = 3.0, 0.02
"""Steps are measured for at most so long, less where time is short."""
_MOST_CHECKED = 400
"""So many of the held-out lines choose the best moment: outputs for each step of all of them stay in memory."""
_GRAPH_BYTES = 12_000
"""What a graph takes beside its numbers."""


class TrainedRecogniser:
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
        self.family, self.config, self.profile, self.cost = family, dict(config), profile, cost
        # The order of pixels in memory is part of the rounding: what is restored shall answer to the last bit.
        self.net = in_order(net, torch.contiguous_format).eval()
        self._answer = Answer(self.net).eval()

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

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values and arrays."""
        state = {name: tensor.detach().cpu().numpy() for name, tensor in self.net.state_dict().items()}
        return {"family": self.family, "config": self.config, "profile": self.profile.to_json(), "state": state}


def in_order(net: Recogniser, order: torch.memory_format) -> Recogniser:
    """Lay the weights of convolutions out in memory in this order; the net is the same."""
    laid: Recogniser = net.to(memory_format=order)  # type: ignore[call-overload]  # its types forget it
    return laid


def fill(net: Recogniser, state: Mapping[str, NDArray[Any]]) -> Recogniser:
    """Put kept arrays into a net of the same build."""
    net.load_state_dict({name: torch.from_numpy(np.asarray(values)) for name, values in state.items()})
    return net.eval()


def count(net: nn.Module, profile: LineProfile) -> Cost:
    """Count parameters and operations for a line of mean width; the net may lie on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    params = sum(p.numel() for p in net.parameters())
    kept = sum(t.numel() * t.element_size() for t in net.state_dict().values())
    net = copy.deepcopy(net).eval()
    device = next(net.parameters()).device
    recurrent = [_without(module) for module in list(net.modules())]
    width = STEP * max(1, round(profile.width / STEP))
    image = torch.zeros(1, 1, profile.height, width, device=device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(image)
    flops = int(counter.get_total_flops()) + sum(recurrent) * (width // STRIDE)
    return Cost(params=params, flops=flops, size_bytes=kept + _GRAPH_BYTES)


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
        before = np.concatenate([np.full((len(ids), 1), BLANK), ids[:, :-1]], axis=1)
        written = np.where(ids == before, BLANK, ids)
        read = [row[row != BLANK].astype(np.int32)[None] for row in written]
        truth = targets[:, 1:]
        return -float(transcripts.edit_distances(truth, transcripts.joined(read)).sum() / (truth != PADDING).sum())


def fit_net(
    net: Recogniser,
    recipe: Recipe,
    distortion: Distortion,
    profile: LineProfile,
    train: LineData,
    valid: LineData | None,
    budget: TrainBudget,
    seed: int,
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
    loss = CtcLoss()
    net = in_order(net, torch.channels_last)
    recipe = replace(recipe, batch=min(recipe.batch, len(train)))
    if budget.of is None:
        recipe = _planned(recipe, net, loss, samples, 0 if checks is None else len(checks), budget)
    else:  # a rung: the same recipe on every leg, so that it goes on as if nothing had been
        recipe = replace(recipe, epochs=budget.of, evaluate_every=1.0)
    limits = Limits(deadline=None if math.isinf(budget.deadline) else budget.deadline, epochs=budget.epochs)
    folder = None if budget.folder is None else Path(budget.folder)
    # Nets of this size need a hundredth of the memory that there is; to measure it would take longer than a training.
    plan = Placement(device=budget.device, micro_batch=recipe.batch)
    trained = runtime.train(
        net, loss, samples, recipe, validation=checks, score=None if checks is None else FewestErrors(), limits=limits,
        seed=seed, folder=folder, plan=plan,
    )  # fmt: skip
    budget.curve += [(p.step, -float(p.score)) for p in trained.curve if p.score is not None]
    if budget.epochs is not None and trained.stop is Stop.TIME:
        raise TrialTimeoutError(
            "Its time was over before its rung.", hint="Give the search more time, or fewer epochs."
        )
    if trained.step == 0:
        raise TrialTimeoutError("There was no time for a single step.", hint="Give the search more time.")
    return net.eval()


def _some(valid: LineData) -> LineData:
    """Lines of about one width are read together."""
    rows = valid.rows[:: max(1, -(-len(valid) // _MOST_CHECKED))]
    order = np.argsort([valid.x[row].shape[1] for row in rows], kind="stable")
    return LineData(valid.x, valid.y, rows[order])


def _planned(
    recipe: Recipe, net: Recogniser, loss: CtcLoss, samples: LineSamples, checks: int, budget: TrainBudget
) -> Recipe:
    """Cut the length of a training to the time that there is, so that its learning rate comes to its end."""
    recipe = replace(recipe, evaluate_every=max(1.0, recipe.epochs / _EVALUATIONS))
    if math.isinf(budget.deadline):
        return recipe
    most_s = min(_MEASURED_S, _MEASURED_SHARE * budget.left_s())
    step_s = measure_step_s(net, loss, samples, recipe.batch, find_device(budget.device), most_s)
    epoch_s = _OVERHEAD * step_s * len(samples) / recipe.batch
    check_s = step_s * checks / recipe.batch / 2  # forward only
    left_s = _KEPT * budget.left_s() - check_s
    epochs = min(recipe.epochs, left_s / (epoch_s + check_s / recipe.evaluate_every))
    if epochs < _LEAST_EPOCHS:
        raise TrialTimeoutError(
            f"An epoch takes {epoch_s:.1f} s, and there were {max(0.0, left_s):.1f} s.",
            hint="Give the search more time.",
        )
    return replace(recipe, epochs=epochs, evaluate_every=max(min(1.0, epochs), epochs / _EVALUATIONS))
