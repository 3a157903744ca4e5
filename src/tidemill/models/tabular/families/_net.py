"""Several small neural networks trained at once, in numpy.

All arrays have a leading axis of members, so that one batched matrix product serves all networks of an ensemble.
Legend: M members, B rows of a batch, F inputs, H units, K outputs.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.task import Task, TaskKind
from tidemill.models.tabular.families import _links

Array = NDArray[np.float32]

_BLOCK = 16_384
"""Weights that Adam updates at a time: what it needs of them fits the first-level cache."""


@dataclass(frozen=True)
class Layer:
    """Weights ``w_MIO`` and biases ``b_M1O`` of one layer of all members."""

    w: Array
    b: Array


class Network(ABC):
    """Networks that learn at once; all that they learn stands in one vector, which `Adam` moves.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Of the arrays that are learned, in the order in which `views` gives them.
    deals : int
        Orders in which the rows of an epoch are dealt: one for each member, or 1 where all see the same rows.

    Attributes
    ----------
    flat, grad : ndarray
        What is learned, and the loss's slope in it.
    rate, decay : ndarray
        How fast each number learns, and how fast it shrinks, as factors; 1 and 0 unless said otherwise.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], deals: int) -> None:
        self._shapes = tuple(shapes)
        self.deals = deals
        self.flat: Array = np.zeros(sum(math.prod(s) for s in self._shapes), dtype=np.float32)
        self.grad: Array = np.zeros_like(self.flat)
        self.rate: Array = np.ones_like(self.flat)
        self.decay: Array = np.zeros_like(self.flat)

    def views(self, flat: Array) -> list[Array]:
        """Give the arrays that stand in one of the vectors; to change one is to change the vector."""
        sizes = [math.prod(s) for s in self._shapes]
        ends = np.cumsum(sizes)
        return [flat[e - n : e].reshape(s) for e, n, s in zip(ends, sizes, self._shapes, strict=True)]

    @abstractmethod
    def start_output(self, bias: Array) -> None:
        """Let the networks begin with the mean answer, (K,)."""

    @abstractmethod
    def forward(self, x: Array, dropout: float, rng: np.random.Generator) -> tuple[Array, list[Any]]:
        """Outputs (M, B, K) and what `backward` needs; ``x`` is (`deals`, B, F)."""

    @abstractmethod
    def backward(self, g: Array, tape: list[Any]) -> None:
        """Fill `grad` from the loss's slope in the outputs, (M, B, K), which may be overwritten."""


class Net(Network):
    """Fully connected networks with a learned factor on each input.

    Weights are stored as if drawn with unit variance and are divided by ``sqrt(fan_in)`` when used (the neural
    tangent parametrisation), so that one learning rate suits layers of any width; biases learn at a tenth of it,
    the factors on the inputs at six times it. Parametrisation and rates are those of RealMLP (Holzmüller et al.,
    arXiv 2407.04491).

    Parameters
    ----------
    n_inputs, n_outputs : int
        F and K.
    hidden : sequence of int
        Units of each hidden layer.
    members : int
        M.
    activation : str
        ``"relu"`` or ``"silu"``.
    rng : Generator
        Draws the first weights.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        hidden: Sequence[int],
        members: int,
        activation: str,
        rng: np.random.Generator,
    ) -> None:
        self.activation = activation
        widths = [n_inputs, *hidden, n_outputs]
        shapes: list[tuple[int, ...]] = [(members, 1, n_inputs)]
        for fan_in, fan_out in pairwise(widths):
            shapes += [(members, fan_in, fan_out), (members, 1, fan_out)]
        super().__init__(shapes, members)
        self._params, self._grads = self.views(self.flat), self.views(self.grad)
        rates, decays = self.views(self.rate), self.views(self.decay)
        self._params[0][...] = 1.0
        rates[0][...] = 6.0
        for i in range(len(widths) - 1):
            w, b = self._params[1 + 2 * i], self._params[2 + 2 * i]
            last = i == len(widths) - 2
            w[...] = rng.standard_normal(w.shape, dtype=np.float32) * np.float32(0.1 if last else 1.0)
            b[...] = 0.0 if last else rng.standard_normal(b.shape, dtype=np.float32)
            rates[2 + 2 * i][...] = 0.1
            decays[1 + 2 * i][...] = 1.0
        self._scales = [np.float32(1 / np.sqrt(w)) for w in widths[:-1]]

    @property
    def n_layers(self) -> int:
        """Hidden layers and the output layer."""
        return len(self._scales)

    def layers(self) -> list[Layer]:
        """The weights as they act: scaled, and with the factors on the inputs multiplied in."""
        return [Layer(self._acting(i), self._params[2 + 2 * i].copy()) for i in range(self.n_layers)]

    def start_output(self, bias: Array) -> None:
        """Let the networks begin with the mean answer."""
        self._params[-1][...] = bias

    def forward(self, x: Array, dropout: float, rng: np.random.Generator) -> tuple[Array, list[Any]]:
        """Outputs (M, B, K) and what `backward` needs; ``x`` is (M, B, F)."""
        tape: list[Any] = []
        h = x
        for i in range(self.n_layers):
            w = self._acting(i)
            z = h @ w
            z += self._params[2 + 2 * i]
            if i == self.n_layers - 1:
                tape.append((h, w, None))
                return z, tape
            a, slope = activate(z, self.activation)
            if dropout > 0:
                mask = dropout_mask(a.shape, dropout, rng)
                a *= mask
                slope *= mask
            tape.append((h, w, slope))
            h = a
        raise AssertionError("a network has an output layer")

    def backward(self, g: Array, tape: list[Any]) -> None:
        """Fill `grad` from the loss's slope in the outputs."""
        for i in range(self.n_layers - 1, -1, -1):
            h, w, slope = tape[i]
            if slope is not None:
                g *= slope
            grad = self._grads[1 + 2 * i]
            np.matmul(h.transpose(0, 2, 1), g, out=grad)
            grad *= self._scales[i]
            np.sum(g, axis=1, keepdims=True, out=self._grads[2 + 2 * i])
            if i:
                g = g @ w.transpose(0, 2, 1)
        # The factors on the inputs: what the first weights would get, had they no factor.
        np.einsum("mfh,mfh->mf", grad, self._params[1], out=self._grads[0][:, 0, :])
        grad *= self._params[0].transpose(0, 2, 1)

    def _acting(self, i: int) -> Array:
        w = self._params[1 + 2 * i] * self._scales[i]
        if i == 0:
            w *= self._params[0].transpose(0, 2, 1)
        return w


class Adam:
    """Adam with decoupled weight decay, written so that it takes no memory while it runs.

    Parameters
    ----------
    net : Network
        Whose weights it changes.
    beta : tuple of float
        How slowly the averages of gradients and of their squares move.
    """

    def __init__(self, net: Network, beta: tuple[float, float] = (0.9, 0.95)) -> None:
        self._net = net
        self._beta = beta
        self._step = 0
        self._mean = np.zeros_like(net.flat)
        self._square = np.zeros_like(net.flat)
        self._work = np.empty(_BLOCK, dtype=np.float32)

    def step(self, rate: float, decay: float) -> None:
        """Move all weights against the gradient."""
        self._step += 1
        b1, b2 = self._beta
        size = np.float32(rate / (1 - b1**self._step))
        correction = np.float32(1 / (1 - b2**self._step))
        net = self._net
        for begin in range(0, len(net.flat), _BLOCK):
            part = slice(begin, begin + _BLOCK)
            p, g, m, v = net.flat[part], net.grad[part], self._mean[part], self._square[part]
            work = self._work[: len(p)]
            np.subtract(g, m, out=work)
            work *= np.float32(1 - b1)
            m += work
            g *= g
            g -= v
            g *= np.float32(1 - b2)
            v += g
            np.multiply(v, correction, out=work)
            np.sqrt(work, out=work)
            work += np.float32(1e-8)
            np.divide(m, work, out=work)
            work *= net.rate[part]
            work *= size
            if decay > 0:
                np.multiply(p, net.decay[part], out=g)
                g *= np.float32(rate * decay)
                work += g
            p -= work


def run_layers(layers: Sequence[Layer], x: Array, activation: str) -> Array:
    """Outputs (M, B, K) of rows (B, F)."""
    h = x
    for i, layer in enumerate(layers):
        h = h @ layer.w
        h += layer.b
        if i < len(layers) - 1:
            h = activate(h, activation)[0]
    return h


def activate(z: Array, kind: str) -> tuple[Array, Array]:
    """Return value and slope."""
    if kind == "relu":
        slope = (z > 0).astype(np.float32)
        return z * slope, slope
    s: Array = (1 / (1 + np.exp(-np.clip(z, -60, 60)))).astype(np.float32, copy=False)
    a: Array = z * s
    return a, (s * (1 + z - a)).astype(np.float32, copy=False)


def emit_activation(graph: GraphBuilder, z: str, kind: str) -> str:
    """Write `activate`'s value into a graph."""
    return graph.op("Relu", z) if kind == "relu" else graph.op("Mul", z, graph.op("Sigmoid", z))


def dropout_mask(shape: tuple[int, ...], dropout: float, rng: np.random.Generator) -> Array:
    """0 for dropped units, else ``1 / (1 - dropout)``; the share is rounded to 1/256."""
    cut = round(dropout * 256)
    size = int(np.prod(shape))
    kept = np.frombuffer(rng.bytes(size), dtype=np.uint8).reshape(shape) >= cut
    return kept * np.float32(256 / (256 - cut))


def mean_scores(z: Array, task: Task) -> Array:
    """Raw scores (B, n_outputs) of the outputs (M, B, K) of all members: the mean of what each says."""
    members = [_links.scores(z[m], task) for m in range(len(z))]
    mean: Array = np.mean(members, axis=0, dtype=np.float32)
    return mean


def emit_mean_scores(graph: GraphBuilder, z: str, task: Task) -> str:
    """Write `mean_scores` into a graph; ``z`` is (M, N, K)."""
    if task.kind is TaskKind.BINARY:
        z = graph.op("Sigmoid", z)
    elif task.kind is TaskKind.MULTICLASS:
        z = graph.op("Softmax", z, axis=-1)
    mean = graph.op("ReduceMean", z, graph.const([0], np.int64), keepdims=0)
    if task.kind is TaskKind.BINARY:
        return graph.concat(graph.op("Sub", graph.const(1.0, np.float32), mean), mean)
    return mean
