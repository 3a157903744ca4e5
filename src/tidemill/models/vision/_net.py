"""A trained net as a part of a bundle, and what every family does to come by one. Loads torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.splice import splice
from tidemill.core.errors import TrialError
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config, Cost
from tidemill.models.export import to_onnx
from tidemill.models.training.budget import TrainBudget
from tidemill.models.training.calibrate import LeastLogLoss, calibrate
from tidemill.models.training.checkpoints import NET
from tidemill.models.training.losses import BinaryCrossEntropy, CrossEntropy, SquaredError
from tidemill.models.training.pace import MEASURED_SHARE, cut, in_quicker_precision, measure_step_s, spread
from tidemill.models.training.placing import settle
from tidemill.models.training.run import limits_of, teller
from tidemill.models.training.run import train as train_within
from tidemill.models.training.trained import Trained, cost_of, in_order, operations
from tidemill.models.vision._base import ImageData, ImageProfile
from tidemill.models.vision.augment import Augment
from tidemill.models.vision.nets.parts import Answer, Classifier, LabelClassifier, Regressor
from tidemill.models.vision.samples import ImageSamples
from tidemill.train import runtime
from tidemill.train.device import find_device
from tidemill.train.types import Recipe

_BATCH = 256
"""Images that are predicted at a time."""
_COARSE_FLOOR, _FINE = 0.3, 0.4
"""After the coarse passes the learning rate is so much of its peak; the fine ones begin with a little more."""
_COARSE = "coarse"
"""Name of the part of a training that sees halved images."""
_GRAPH_BYTES = 4_000
"""What a graph takes beside its numbers."""
_LOOKED_AT = 2000
_MOST_PIXELS = 20_000_000
"""Filters are drawn from so many images, which have at most so many pixels together."""
_MEASURED_S = 1.5
"""Steps are measured for at most so long, less where time is short."""
_EVALUATIONS = 10
"""So many times in a training it is looked how good the net is."""


class TrainedNet(Trained[Classifier, ImageProfile]):
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
        super().__init__(family, config, profile, net, Answer(net), cost)
        self.more = dict(more or {})

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
        return {**self.more, **super().checkpoint()}

    def _outputs(self) -> int:
        answer: Tensor = self._answer(torch.zeros(1, self.profile.channels, self.profile.height, self.profile.width))
        return int(answer.shape[1])


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
    device = next(net.parameters()).device
    image = torch.zeros(1, profile.channels, profile.height, profile.width, device=device)
    return cost_of(net, operations(net, image), _GRAPH_BYTES)


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
    plan = settle(net, loss, samples, recipe, budget, validation=checks is not None)
    early, longest = budget, recipe.epochs
    if budget.of is not None:  # a rung: the same recipe on every leg, so that it goes on as if nothing had been
        recipe = replace(recipe, epochs=budget.of, evaluate_every=1.0)
        coarse = 0.0  # and has one course
    else:
        n_checks = 0 if checks is None else len(checks)
        recipe, share = _planned_once(partial(planned, recipe, net, loss, samples, n_checks, budget, coarse), budget)
        if budget.limited:  # both courses are shortened to their time
            early = replace(budget, deadline=budget.deadline - (1 - share) * budget.left_s(), curve=[])
    done = 0.0
    if coarse:
        first = replace(recipe, epochs=coarse * recipe.epochs, evaluate_every=1e9, floor=_COARSE_FLOOR)
        done = coarse
        if not budget.has_begun(NET):  # else it was through
            seen = runtime.train(
                net, loss, replace(samples, halved=True), first, limits=limits_of(early, coarse * longest), seed=seed,
                diverged=budget.diverged_folder, plan=plan, on_event=teller(replace(budget, signals=None)),
                **budget.kept(_COARSE, follows=True),
            )  # fmt: skip
            done = coarse * seen.through
        recipe = replace(recipe, epochs=(1 - coarse) * recipe.epochs, lr=_FINE * recipe.lr, warmup=0.05)
    score = LeastLogLoss() if isinstance(loss, CrossEntropy) else None
    longest *= 1 - coarse
    train_within(net, loss, samples, recipe, budget, seed, checks=checks, score=score, longest=longest)
    if budget.interrupted is not None:
        budget.interrupted = done + (1 - coarse) * budget.interrupted
    net.eval()
    if score is not None and checks is not None:
        calibrate(net, net.last, checks)
    return net


def loss_of(net: Classifier, smoothing: float) -> CrossEntropy | BinaryCrossEntropy | SquaredError:
    """What a net is trained by."""
    if isinstance(net, Regressor):
        return SquaredError(float(net.scale))
    return BinaryCrossEntropy(smoothing) if isinstance(net, LabelClassifier) else CrossEntropy(smoothing)


def _planned_once(plan: Callable[[], tuple[Recipe, float]], budget: TrainBudget) -> tuple[Recipe, float]:
    """Plan; a training that goes on keeps to what was planned when it began."""

    def decide() -> dict[str, Any]:
        recipe, share = plan()
        return {"recipe": recipe.to_json(), "share": share}

    known = budget.decided(decide, _COARSE, NET)
    return Recipe.from_json(known["recipe"]), float(known["share"])


def planned(
    recipe: Recipe,
    net: nn.Module,
    loss: Any,
    samples: ImageSamples,
    checks: int,
    budget: TrainBudget,
    coarse: float = 0.0,
) -> tuple[Recipe, float]:
    """Choose the precision, and cut the length of a training to the time, so that its learning rate comes to its end.

    Some steps on a copy of the net tell how long a step takes. Evaluations are counted in. Of the time, halved images
    take the share that comes beside the recipe.
    """
    recipe = spread(recipe, _EVALUATIONS)
    if not budget.limited:
        return recipe, coarse
    device = find_device(budget.device)
    most_s = min(_MEASURED_S, MEASURED_SHARE * budget.left_s())
    place = budget.placement
    measure = cache(partial(measure_step_s, net, loss, samples, recipe.batch, device, most_s, placement=place))
    recipe = in_quicker_precision(recipe, budget, measure)
    step_s = measure(recipe.precision)
    half_s, mean_s = 0.0, step_s
    if coarse:
        halved = replace(samples, halved=True)
        half_s = measure_step_s(net, loss, halved, recipe.batch, device, most_s, recipe.precision, place)
        mean_s = coarse * half_s + (1 - coarse) * step_s
    check_s = step_s * checks / recipe.batch / 2  # forward only
    if getattr(net, "mirror", False):
        check_s *= 2
    steps = len(samples) / recipe.batch  # of an epoch
    share = coarse * half_s * steps / (mean_s * steps + check_s / recipe.evaluate_every)
    return cut(recipe, _EVALUATIONS, mean_s * steps, check_s, budget.left_s()), share


def check_finite(scores: NDArray[np.float32], family: str) -> NDArray[np.float32]:
    """Refuse answers that are no numbers."""
    if not np.isfinite(scores).all():
        raise TrialError(f"The {family} gives answers that are no numbers.", hint="A smaller learning rate may help.")
    return scores
