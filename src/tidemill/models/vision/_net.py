"""A trained net as a part of a bundle, and what every family does to come by one. Loads torch."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.splice import splice
from tidemill.core.errors import TrialError, TrialTimeoutError
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config, Cost
from tidemill.models.export import to_onnx
from tidemill.models.vision._base import ImageData, ImageProfile, TrainBudget
from tidemill.models.vision.augment import Augment
from tidemill.models.vision.nets.parts import Answer, Classifier, LabelClassifier, Regressor
from tidemill.models.vision.samples import ImageSamples
from tidemill.train import runtime
from tidemill.train.device import find_device
from tidemill.train.types import Limits, Placement, Recipe, Samples, Stop

_BATCH = 256
"""Images that are predicted at a time."""
_OVERHEAD = 1.15
"""A step of the runtime takes about so much longer than its two passes: the update, the batch, the bookkeeping."""
_KEPT = 0.94
"""Share of the time that the plan of a training fills."""
_LEAST_EPOCHS = 0.2
_COARSE_FLOOR, _FINE = 0.3, 0.4
"""After the coarse passes the learning rate is so much of its peak; the fine ones begin with a little more."""
_GRAPH_BYTES = 4_000
"""What a graph takes beside its numbers."""
_LOOKED_AT = 2000
_MOST_PIXELS = 20_000_000
"""Filters are drawn from so many images, which have at most so many pixels together."""
_MEASURED, _MEASURED_S, _MEASURED_SHARE = 6, 1.5, 0.02
"""At most so many steps are measured, few where time is short; the quickest counts, for others may be at work."""


class TrainedNet:
    """A net with all that it takes to answer, to be written into a graph, and to be kept.

    Parameters
    ----------
    family : str
        Name of the family that can build it.
    config : Config
        The family's parameters.
    profile : ImageProfile
        The images that it sees.
    net : Classifier
        In evaluation mode.
    cost : Cost
        As counted.
    more : mapping, optional
        What the family needs beside that to build it again; kept with the state.
    """

    def __init__(
        self,
        family: str,
        config: Config,
        profile: ImageProfile,
        net: Classifier,
        cost: Cost,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self.family, self.config, self.profile, self.cost = family, dict(config), profile, cost
        self.more = dict(more or {})
        # The order of pixels in memory is part of the rounding: what is restored shall answer to the last bit.
        self.net = in_order(net, torch.contiguous_format).eval()
        self._answer = Answer(self.net).eval()

    def predict(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Probabilities (n, K) or values (n, 1) for encoded images (n, channels, height, width), by torch."""
        device = self.net.mean.device
        parts = []
        with torch.inference_mode():
            for start in range(0, len(x), _BATCH):
                images = torch.from_numpy(np.array(x[start : start + _BATCH], dtype=np.float32)).to(device)
                parts.append(self._answer(images).cpu().numpy())
        return np.concatenate(parts) if parts else np.empty((0, self._outputs()), dtype=np.float32)

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the net into ``graph`` as PyTorch's exporter writes it."""
        return splice(graph, self.model(), {"images": x})[0]

    def model(self) -> onnx.ModelProto:
        """Export the net alone: pixels 0 to 255 in, answers out."""
        shape = (self.profile.channels, self.profile.height, self.profile.width)
        example = torch.zeros(2, *shape)  # of one row the exporter would think that there is never another
        return to_onnx(self._answer, {"images": example}, {"images": (0,)})

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values and arrays."""
        state = {name: tensor.detach().cpu().numpy() for name, tensor in self.net.state_dict().items()}
        kept = {"family": self.family, "config": self.config, "profile": self.profile.to_json(), "state": state}
        return {**self.more, **kept}

    def _outputs(self) -> int:
        answer: Tensor = self._answer(torch.zeros(1, self.profile.channels, self.profile.height, self.profile.width))
        return int(answer.shape[1])


def in_order(net: Classifier, order: torch.memory_format) -> Classifier:
    """Lay the weights of convolutions out in memory in this order; the net is the same."""
    laid: Classifier = net.to(memory_format=order)  # type: ignore[call-overload]  # its types forget it
    return laid


def fill(net: Classifier, state: Mapping[str, NDArray[Any]]) -> Classifier:
    """Put kept arrays into a net of the same build."""
    net.load_state_dict({name: torch.from_numpy(np.asarray(values)) for name, values in state.items()})
    return net.eval()


def wrap(
    body: nn.Module, task: Task, profile: ImageProfile, y: NDArray[Any] | None = None, *, mirror: bool = False
) -> Classifier:
    """Put a body between pixels and answers; ``y`` tells where the values of a regression lie."""
    if task.kind.has_labels:
        kind = LabelClassifier if task.kind is TaskKind.MULTILABEL else Classifier
        return kind(body, profile.mean, profile.std, mirror=mirror)
    shift, scale = (0.0, 1.0) if y is None or not len(y) else (float(y.mean()), float(y.std()) or 1.0)
    return Regressor(body, profile.mean, profile.std, shift, scale, mirror=mirror)


def some_images(data: ImageData, profile: ImageProfile, rng: np.random.Generator) -> NDArray[np.float32]:
    """Some training images, normalised, from which filters can be drawn; shape (n, channels, height, width)."""
    most = max(1, min(_LOOKED_AT, _MOST_PIXELS // (profile.height * profile.width)))
    rows = np.sort(rng.permutation(data.rows)[:most])
    mean = np.array(profile.mean, dtype=np.float32).reshape(1, -1, 1, 1)
    std = np.array(profile.std, dtype=np.float32).reshape(1, -1, 1, 1)
    found: NDArray[np.float32] = (np.asarray(data.x[rows], dtype=np.float32) - mean) / std
    return found


def count(net: nn.Module, profile: ImageProfile) -> Cost:
    """Count parameters and operations for one image; the net may lie on the meta device, where nothing is computed."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(net.parameters()).device
    image = torch.zeros(1, profile.channels, profile.height, profile.width, device=device)
    training = net.training
    net.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(image)
    net.train(training)
    params = sum(p.numel() for p in net.parameters())
    kept = sum(t.numel() * t.element_size() for t in net.state_dict().values())
    return Cost(params=params, flops=int(counter.get_total_flops()), size_bytes=kept + _GRAPH_BYTES)


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of classes or shares of classes, one number for each image.

    Parameters
    ----------
    smoothing : float
        Share of the truth that is spread over all classes.
    """

    smoothing: float = 0.0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """From logits (B, K) and codes (B,) or shares (B, K) to losses (B,)."""
        return F.cross_entropy(outputs.float(), targets, reduction="none", label_smoothing=self.smoothing)


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Cross-entropy of labels of which several may stand, one number for each image.

    The sum over K labels is divided by the root of K: so its gradient is about as large as that of `CrossEntropy`, for
    which learning rates are meant.

    Parameters
    ----------
    smoothing : float
        Share of every truth that is moved to one half.
    """

    smoothing: float = 0.0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """From logits (B, K) and 0 to 1 (B, K) to losses (B,)."""
        wanted = targets * (1 - self.smoothing) + self.smoothing / 2
        each = F.binary_cross_entropy_with_logits(outputs.float(), wanted, reduction="none")
        return each.sum(dim=1) / math.sqrt(each.shape[1])


@dataclass(frozen=True)
class SquaredError:
    """Squared error in units of the target's spread, one number for each image."""

    scale: float

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """From values (B, 1) and targets (B,) to losses (B,)."""
        return ((outputs[:, 0].float() - targets) / self.scale) ** 2


def fit_net(
    net: Classifier,
    recipe: Recipe,
    augment: Augment,
    smoothing: float,
    task: Task,
    train: ImageData,
    valid: ImageData | None,
    budget: TrainBudget,
    seed: int,
    coarse: float = 0.0,
) -> Classifier:
    """Train a net on one device within its time.

    Parameters
    ----------
    net : Classifier
        What is trained.
    recipe, augment, smoothing
        How.
    task, train, valid
        The question, images to learn from, and images that choose the best moment.
    budget : TrainBudget
        What may be spent.
    seed : int
        Of order and augmentation.
    coarse : float
        Share of the passes that sees images of half the side, at a quarter of the work; the others refine what was
        learned (Howard, 2018; Tan and Le, "EfficientNetV2", 2021, section 4).

    Returns
    -------
    Classifier
        The same net, in evaluation mode.

    Raises
    ------
    TrialTimeoutError
        Where not even a fifth of an epoch fits into the time.
    TrialError
        Where the loss is no number.
    """
    n_classes = task.n_classes if task.kind.has_labels else 0
    samples = ImageSamples(train, augment, n_classes)
    checks = None if valid is None or not len(valid) else ImageSamples(valid, Augment(), n_classes)
    loss = loss_of(net, smoothing)
    net = in_order(net, torch.channels_last)
    recipe = replace(recipe, batch=min(recipe.batch, len(train)))
    if budget.of is not None:  # a rung: the same recipe on every leg, so that it goes on as if nothing had been
        recipe = replace(recipe, epochs=budget.of, evaluate_every=1.0)
        coarse = 0.0  # and has one course
    else:
        recipe = planned(recipe, net, loss, samples, 0 if checks is None else len(checks), budget, coarse)
    limits = Limits(deadline=None if math.isinf(budget.deadline) else budget.deadline, epochs=budget.epochs)
    folder = None if budget.folder is None else Path(budget.folder)
    # Nets of this size need a hundredth of the memory that there is; to measure it would take longer than a training.
    plan = Placement(device=budget.device, micro_batch=recipe.batch)
    if coarse:
        first = replace(recipe, epochs=coarse * recipe.epochs, evaluate_every=1e9, floor=_COARSE_FLOOR)
        runtime.train(net, loss, replace(samples, halved=True), first, limits=limits, seed=seed, plan=plan)
        recipe = replace(recipe, epochs=(1 - coarse) * recipe.epochs, lr=_FINE * recipe.lr, warmup=0.05)
    trained = runtime.train(
        net, loss, samples, recipe, validation=checks, limits=limits, seed=seed, folder=folder, plan=plan
    )
    budget.curve += [(p.step, float(p.loss)) for p in trained.curve if p.loss is not None and math.isfinite(p.loss)]
    if budget.epochs is not None and trained.stop is Stop.TIME:
        raise TrialTimeoutError(
            "Its time was over before its rung.", hint="Give the search more time, or fewer epochs."
        )
    if trained.step == 0:
        raise TrialTimeoutError("There was no time for a single step.", hint="Give the search more time.")
    return net.eval()


def loss_of(net: Classifier, smoothing: float) -> CrossEntropy | BinaryCrossEntropy | SquaredError:
    """What a net is trained by."""
    if isinstance(net, Regressor):
        return SquaredError(float(net.scale))
    return BinaryCrossEntropy(smoothing) if isinstance(net, LabelClassifier) else CrossEntropy(smoothing)


def planned(
    recipe: Recipe,
    net: nn.Module,
    loss: Any,
    samples: ImageSamples,
    checks: int,
    budget: TrainBudget,
    coarse: float = 0.0,
) -> Recipe:
    """Cut the length of a training to the time that there is, so that its learning rate comes to its end.

    Some steps on a copy of the net tell how long a step takes. Evaluations are made about ten times, and counted in.
    """
    recipe = replace(recipe, evaluate_every=max(1.0, recipe.epochs / 10))
    if math.isinf(budget.deadline):
        return recipe
    device = find_device(budget.device)
    most_s = min(_MEASURED_S, _MEASURED_SHARE * budget.left_s())
    step_s = measure_step_s(net, loss, samples, recipe.batch, device, most_s)
    mean_s = step_s
    if coarse:
        half_s = measure_step_s(net, loss, replace(samples, halved=True), recipe.batch, device, most_s)
        mean_s = coarse * half_s + (1 - coarse) * step_s
    epoch_s = _OVERHEAD * mean_s * len(samples) / recipe.batch
    check_s = step_s * checks / recipe.batch / 2  # forward only
    if getattr(net, "mirror", False):
        check_s *= 2
    left_s = _KEPT * budget.left_s() - check_s
    epochs = min(recipe.epochs, left_s / (epoch_s + check_s / recipe.evaluate_every))
    if epochs < _LEAST_EPOCHS:
        raise TrialTimeoutError(
            f"An epoch takes {epoch_s:.1f} s, and there were {max(0.0, left_s):.1f} s.",
            hint="Give the search more time.",
        )
    return replace(recipe, epochs=epochs, evaluate_every=max(min(1.0, epochs), epochs / 10))


def measure_step_s(
    net: nn.Module, loss: Any, samples: Samples, batch: int, device: torch.device, most_s: float = 0.0
) -> float:
    """Seconds of one step's two passes on a copy; the first one warms up, of the others the quickest counts."""
    twin = copy.deepcopy(net).to(device).train()
    rows = np.arange(min(batch, len(samples)))
    seconds: list[float] = []
    for number in range(1 + _MEASURED):
        if number > 2 and sum(seconds) > most_s:
            break
        begun = time.perf_counter()
        inputs, targets = samples.batch(rows, train=True, rng=np.random.default_rng(number))
        out = twin(**{name: tensor.to(device) for name, tensor in inputs.items()})
        loss(out, targets.to(device)).mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begun)
    return min(seconds[1:]) * batch / len(rows)


def check_finite(scores: NDArray[np.float32], family: str) -> NDArray[np.float32]:
    """Refuse answers that are no numbers."""
    if not np.isfinite(scores).all():
        raise TrialError(f"The {family} gives answers that are no numbers.", hint="A smaller learning rate may help.")
    return scores


def rounded_batch(rows: int, choices: Sequence[int] = (16, 32, 64, 128)) -> int:
    """The largest batch with which an epoch has at least 40 steps, so that few images are learned from often.

    Examples
    --------
    >>> rounded_batch(500), rounded_batch(8000)
    (16, 128)
    """
    fitting = [b for b in choices if rows / b >= 40]
    return max(fitting, default=min(choices))
