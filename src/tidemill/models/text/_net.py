"""A trained net for texts as a part of a bundle, and what the families do to come by one. Loads torch."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.runner.texts.reading import batches
from tidemill.bundle.splice import splice
from tidemill.bundle.texts.readers import Reader
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config, Cost
from tidemill.models.export import to_onnx
from tidemill.models.text._base import TextData, TextProfile, Texts
from tidemill.models.text.folders import content_key
from tidemill.models.text.nets import (
    Answer,
    Body,
    LabelNet,
    TextNet,
    ValueNet,
    layers_of,
    load,
    padding_of,
    positions_of,
    rebuild,
    tokenizer_of,
)
from tidemill.models.text.samples import TokenSamples
from tidemill.models.training.budget import TrainBudget
from tidemill.models.training.checkpoints import NET
from tidemill.models.training.heads import head_in_time, look_at
from tidemill.models.training.losses import BinaryCrossEntropy, CrossEntropy, SquaredError
from tidemill.models.training.pace import epochs_in_time, in_quicker_precision
from tidemill.models.training.placing import settle
from tidemill.models.training.run import train as train_within
from tidemill.models.training.trained import cost_of, fill, operations, state_of
from tidemill.models.vision.features import FeatureCache
from tidemill.train.device import arithmetic, find_device, precision_on
from tidemill.train.evaluate import wide
from tidemill.train.types import Recipe

_BATCH = 64
"""Texts of about one length that are answered at a time."""
_PIECE = 512
"""Texts that are read between two looks at the clock."""
_TRIED = 4
"""Steps that tell how long a step takes; the first one warms up."""
_GRAPH_BYTES = 20_000
"""What a graph takes beside its numbers."""


class TextModel:
    """A net with all that it takes to answer, to be written into a graph, and to be kept.

    Parameters
    ----------
    family : str
        Name of the family that can build it.
    config : Config
        The family's parameters.
    net : TextNet
        In evaluation mode.
    reader : Reader
        What reads for it.
    description : str
        Of the encoder, as JSON.
    cost : Cost
        As counted.
    features : Features or None
        Knows the features of texts already, where the encoder stayed as it was.
    """

    def __init__(
        self,
        family: str,
        config: Config,
        net: TextNet,
        reader: Reader,
        description: str,
        cost: Cost,
        features: Features | None = None,
    ) -> None:
        self.family, self.config, self.reader = family, dict(config), reader
        self.description, self.cost = description, cost
        self.net = net.eval()
        self._features = features
        self._answer = Answer(self.net).eval()

    @property
    def readers(self) -> tuple[Reader, ...]:
        """The one that it has."""
        return (self.reader,)

    def predict(self, x: Texts) -> NDArray[np.float32]:
        """Probabilities (n, K) or values (n, 1) for texts, by torch."""
        texts = [str(text) for text in x]
        out = np.empty((len(texts), self.net.linear.out_features), dtype=np.float32)
        if self._features is not None:
            known = torch.from_numpy(self._features.of(texts))
            with torch.inference_mode():
                linear = self.net.linear(known.to(self.net.linear.weight.device))
                return np.asarray(_answers(self.net, linear).cpu().numpy(), dtype=np.float32)
        with torch.inference_mode():
            for places in batches(texts, _BATCH):
                tokens = _tokens(self.reader, [texts[place] for place in places], self.net)
                out[places] = self._answer(tokens).cpu().numpy()
        return out

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the net into ``graph`` as PyTorch's exporter writes it."""
        (tokens,) = self.reader.inputs
        return splice(graph, self.model(), {"tokens": tokens})[0]

    def model(self) -> onnx.ModelProto:
        """Export the net alone: tokens in, answers out."""
        example = torch.zeros(2, min(8, self.reader.length), dtype=torch.int64)
        example[1, -2:] = -1  # a shorter text
        axes = {"tokens": (0, 1)}
        return to_onnx(self._answer, {"tokens": example}, axes, noun="encoder", extra="text")

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values and arrays."""
        return {
            "family": self.family, "config": self.config, "description": self.description,
            "state": state_of(self.net),
            "tokenizer": self.reader.data.decode("utf-8"), "length": self.reader.length, "pool": self.net.body.pool,
            "cost": self.cost.to_json(),
        }  # fmt: skip


def restore_model(state: Mapping[str, Any], task: Task) -> TextModel:
    """Undo `TextModel.checkpoint`."""
    description = str(state["description"])
    net = fill(wrap(Body(rebuild(description), str(state["pool"]), padding_of(description)), task), state["state"])
    reader = Reader.of_tokens(str(state["tokenizer"]), int(state["length"]))
    cost = Cost.from_json(dict(state["cost"]))
    return TextModel(str(state["family"]), state["config"], net, reader, description, cost)


def wrap(body: Body, task: Task, y: NDArray[Any] | None = None) -> TextNet:
    """Put a head behind an encoder; ``y`` tells where the values of a regression lie."""
    if task.kind is TaskKind.MULTILABEL:
        return LabelNet(body, task.n_classes)
    if task.kind.is_classification:
        return TextNet(body, task.n_classes)
    shift, scale = (0.0, 1.0) if y is None or not len(y) else (float(y.mean()), float(y.std()) or 1.0)
    return ValueNet(body, shift, scale)


def _answers(net: TextNet, linear: Tensor) -> Tensor:
    if isinstance(net, ValueNet):
        return linear * net.scale + net.shift
    if isinstance(net, LabelNet):
        return torch.sigmoid(linear)
    return torch.softmax(linear, dim=1)


def _tokens(reader: Reader, texts: Sequence[str], net: torch.nn.Module) -> Tensor:
    (values,) = reader.read(texts).values()
    return torch.from_numpy(values).to(next(net.parameters()).device)


def opened(
    folder: str, pool: str, most: int, task: Task, y: NDArray[Any] | None, *, weights: bool = True
) -> tuple[TextNet, Reader, str]:
    """Open an encoder with a new head; gives the net, its reader, and the description of the encoder."""
    model, description = load(folder, weights=weights)
    net = wrap(Body(model, pool, padding_of(description)), task, y)
    reader = Reader.of_tokens(tokenizer_of(folder), min(most, positions_of(description)))
    return net.eval(), reader, description


def count(net: TextNet, profile: TextProfile, length: int) -> Cost:
    """Count parameters, and operations for a text of usual length."""
    device = next(net.parameters()).device
    tokens = torch.ones(1, min(profile.tokens, length), dtype=torch.int64, device=device)
    return cost_of(net, operations(net, tokens), _GRAPH_BYTES)


# ------------------------------------------------------------------------------------------ features that stay


class Features:
    """Features of texts by an encoder that stays as it is; what was read once is not read again.

    Parameters
    ----------
    body : Body
        The encoder.
    reader : Reader
        What reads for it.
    cache : FeatureCache or None
        Where features are kept by the content of the text; None keeps nothing.
    """

    def __init__(self, body: Body, reader: Reader, cache: FeatureCache | None) -> None:
        self.body, self.reader = body, reader
        self._cache = cache

    @classmethod
    def kept(cls, net: TextNet, reader: Reader, folder: str, budget: TrainBudget) -> Features:
        """Features by the encoder of a folder, kept where the budget says."""
        if budget.cache is None:
            return cls(net.body, reader, None)
        named = f"{content_key(folder)} {reader.key} {net.body.pool}"
        return cls(net.body, reader, FeatureCache(Path(budget.cache), sha256(named.encode()).hexdigest()[:32]))

    def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Features of shape (n, F)."""
        names = [_content(text) for text in texts]
        found = [None if self._cache is None else self._cache.find(name) for name in names]
        fresh = [place for place, features in enumerate(found) if features is None]
        out = np.empty((len(texts), self.body.width), dtype=np.float32)
        for place, features in enumerate(found):
            if features is not None:
                out[place] = features
        with torch.inference_mode():
            for places in batches([texts[place] for place in fresh], _BATCH):
                some = [fresh[place] for place in places]
                tokens = _tokens(self.reader, [texts[place] for place in some], self.body)
                out[some] = self.body(tokens).float().cpu().numpy()
        if self._cache is not None:
            for place in fresh:
                self._cache.add(names[place], out[place])
        return out

    def save(self) -> None:
        """Let others have what is known now."""
        if self._cache is not None:
            self._cache.save()


def _content(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


def head_on_features(
    net: TextNet, features: Features, train: TextData, valid: TextData | None, task: Task, budget: TrainBudget
) -> None:
    """Fit the head on features of the encoder as it is, and put it in its place.

    A regression's head is fitted in units of its spread. Where the time is too short for all texts, the head is fitted
    on as many as there is time for.

    Raises
    ------
    TrialTimeoutError
        Where there is no time for two texts of each class.
    """
    net.to(find_device(budget.device)).eval()
    head = head_in_time(
        lambda data, until: _seen(net, features, data, until), train, valid, task.n_outputs, budget,
        "to read {:,} texts", features.save,
    )  # fmt: skip
    with torch.no_grad():
        net.linear.weight.copy_(head.weight)
        net.linear.bias.copy_(head.bias)


def _seen(net: TextNet, features: Features, data: TextData, until: float) -> tuple[Tensor, Tensor]:
    """Features and targets of as many texts as there is time for, of all classes alike."""

    def read(rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(features.of([str(text) for text in data.x[rows]]))

    units = (float(net.shift), float(net.scale)) if isinstance(net, ValueNet) else None
    return look_at(data, until, _PIECE, read, units)


# ------------------------------------------------------------------------------------------------- fine-tuning


def layer_scales(net: TextNet, decay: float) -> dict[str, float]:
    """Factors of the learning rate: the nearer to the words, the slower (Howard and Ruder, 2018, section 3.2).

    The head has 1, the last layer ``decay``, each one below ``decay`` times less, embeddings the least.
    """
    name, count = layers_of(net.body.model)
    inside = "body.model."
    scales = {f"{inside}{name}.{i}.": decay ** (count - i) for i in range(count)} if name else {}
    return {inside: decay ** (count + 1), **scales}


def tune(
    net: TextNet,
    recipe: Recipe,
    smoothing: float,
    train: TokenSamples,
    valid: TokenSamples | None,
    budget: TrainBudget,
    seed: int,
) -> None:
    """Train the whole net on one device within its time, or up to the rung that its budget names.

    Raises
    ------
    TrialTimeoutError
        Where not even a fifth of an epoch fits into the time.
    TrialError
        Where the loss is no number.
    """
    loss = loss_of(net, smoothing)
    recipe = replace(recipe, batch=min(recipe.batch, len(train)))
    settle(net, loss, train, recipe, budget, validation=valid is not None)
    longest = recipe.epochs
    if budget.of is None:
        checks = 0 if valid is None else len(valid)
        known = budget.decided(lambda: planned(recipe, net, loss, train, checks, budget).to_json(), NET)
        recipe = Recipe.from_json(known)
    else:  # a rung: the same recipe on every leg, so that it goes on as if nothing had been
        recipe = replace(recipe, epochs=budget.of, evaluate_every=1.0)
    train_within(net, loss, train, recipe, budget, seed, checks=valid, longest=longest)
    net.eval()


def loss_of(net: TextNet, smoothing: float) -> CrossEntropy | BinaryCrossEntropy | SquaredError:
    """What a net is trained by."""
    if isinstance(net, ValueNet):
        return SquaredError(float(net.scale))
    return BinaryCrossEntropy(smoothing) if isinstance(net, LabelNet) else CrossEntropy(smoothing)


def planned(recipe: Recipe, net: TextNet, loss: Any, samples: TokenSamples, checks: int, budget: TrainBudget) -> Recipe:
    """Cut the length of a training to the time that there is, so that its learning rate comes to its end.

    Some steps tell how long a step takes. Evaluations are made once an epoch, the last one at the end, and counted in.
    """
    if budget.limited:
        measure = cache(partial(measure_step_s, net, loss, samples, recipe.batch, budget))
        recipe = in_quicker_precision(recipe, budget, measure)
        step_s = measure(recipe.precision)
        check_s = step_s * checks / recipe.batch / 2  # forward only
        passes_s = step_s * len(samples) / recipe.batch
        recipe = replace(recipe, epochs=epochs_in_time(recipe.epochs, passes_s, check_s, budget.left_s()))
    return replace(recipe, evaluate_every=recipe.epochs / math.ceil(recipe.epochs))


def measure_step_s(
    net: TextNet, loss: Any, samples: TokenSamples, batch: int, budget: TrainBudget, precision: str = "auto"
) -> float:
    """Seconds of one step's forward and backward pass on texts by chance; gradients are gone afterwards."""
    device = find_device(budget.device)
    precision = precision_on(precision, device)
    net.to(device).train()
    rng = np.random.default_rng(0)
    state = torch.random.get_rng_state()
    seconds = []
    world, piece = (1, None) if budget.placement is None else (budget.placement.world, budget.placement.micro_batch)
    count = min(piece or batch, batch)
    for _ in range(_TRIED):
        rows = rng.permutation(len(samples))[:count]
        begun = time.perf_counter()
        inputs, targets = samples.batch(rows, train=True, rng=rng)
        with arithmetic(precision, device):
            out = wide(net(**{name: tensor.to(device) for name, tensor in inputs.items()}))
        loss(out, targets.to(device)).mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - begun)
    net.zero_grad(set_to_none=True)
    torch.random.set_rng_state(state)
    return float(np.mean(seconds[1:])) * batch / count / world
