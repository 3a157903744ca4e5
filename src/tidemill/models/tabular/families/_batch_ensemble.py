"""Members that share their weights, trained at once, in numpy.

Each member multiplies what enters a layer by factors of its own (its adapter); the weights are the same for all,
biases and outputs are its own. Legend: M members, B rows of a batch, F columns, D columns with embedded numbers,
I inputs and H units of a layer, K outputs; N, Q and E as in `_embedding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tidemill.models.tabular.families._embedding import (
    WAVES,
    WIDTH,
    Embedding,
    Index,
    bend,
    beside,
    pieces_of,
    spread,
)
from tidemill.models.tabular.families._net import Array, Layer, Network, activate, dropout_mask

_ADAPTER_RATE = 6.0
"""How fast the first adapters learn; the factors on the inputs of RealMLP do so."""
_WAVE_RATE = 0.3
"""How fast frequencies learn."""
_BIAS_RATE = 0.1
"""How fast biases and phases learn."""
_SUM = np.float32(1 / np.sqrt(WAVES))
"""Scale of the sums over waves, which are stored as if drawn with unit variance."""


@dataclass(frozen=True)
class SharedLayer:
    """Adapters ``r_M1I``, weights ``w_IH`` for all members, and biases ``b_M1H``."""

    r: Array
    w: Array
    b: Array


@dataclass(frozen=True)
class Acting:
    """A network as it acts, with everything multiplied in.

    Parameters
    ----------
    embedding : Embedding or None
        What is done to numbers first.
    layers : tuple of SharedLayer
        The hidden layers.
    head : Layer
        The output layer of each member.
    activation : str
        Between them.
    """

    embedding: Embedding | None
    layers: tuple[SharedLayer, ...]
    head: Layer
    activation: str

    def run(self, x: Array) -> Array:
        """Outputs (M, B, K) of rows (B, F)."""
        h = x if self.embedding is None else self.embedding.run(x)
        for layer in self.layers:
            z = through(h * layer.r, layer.w)
            z += layer.b
            h = activate(z, self.activation)[0]
        return h @ self.head.w + self.head.b


@dataclass(frozen=True)
class Numbers:
    """Which numbers are embedded, and how.

    Parameters
    ----------
    kind : str
        ``"periodic"`` or ``"pieces"``.
    columns : ndarray of int64, shape (N,)
        At least one.
    frequency : float
        Of waves: standard deviation of the first frequencies, in waves per unit of a treated number.
    """

    kind: str
    columns: Index
    frequency: float = 0.2


class BatchEnsemble(Network):
    """A perceptron whose members share their weights (BatchEnsemble), started and read out as in TabM.

    The first adapters are drawn at random, one factor for a column and all that it becomes, which is what makes the
    members differ; the others begin at 1. There is no factor on what leaves a layer: for ``relu`` the next layer's
    adapter does the same. Weights are stored as if drawn with unit variance, as in `Net`.

    Parameters
    ----------
    x : ndarray of float32, shape (n, F)
        Training rows; the pieces of numbers are cut so that they hold equally many of them.
    numbers : Numbers or None
        What is embedded; None for nothing.
    n_outputs : int
        K.
    hidden : sequence of int
        Units of each hidden layer.
    members : int
        M.
    activation : str
        ``"relu"`` or ``"silu"``.
    rng : Generator
        Draws the first weights.

    References
    ----------
    Wen et al., "BatchEnsemble", arXiv 2002.06715; Gorishniy et al., "TabM", arXiv 2410.24210.
    """

    def __init__(
        self,
        x: Array,
        numbers: Numbers | None,
        n_outputs: int,
        hidden: Sequence[int],
        members: int,
        activation: str,
        rng: np.random.Generator,
    ) -> None:
        self.activation = activation
        before: list[tuple[int, ...]] = [] if numbers is None else _Waves.shapes(numbers)
        first, n = len(before), x.shape[1]
        widths = [n if numbers is None else n + len(numbers.columns) * WIDTH, *hidden]
        shapes = list(before)
        for i, h in pairwise(widths):
            shapes += [(members, 1, i), (i, h), (members, 1, h)]
        shapes += [(members, widths[-1], n_outputs), (members, 1, n_outputs)]
        super().__init__(shapes, deals=1)
        params, grads = self.views(self.flat), self.views(self.grad)
        rates, decays = self.views(self.rate), self.views(self.decay)
        self._waves: _Waves | None = None
        if numbers is not None:
            self._waves = _Waves(x, numbers, params[:first], grads[:first])
            self._waves.start(rates[:first], decays[:first], rng)
        self._params, self._grads = params[first:], grads[first:]
        self._start(rates[first:], decays[first:], rng)
        if numbers is not None:
            r = self._params[0]
            r[:, :, n:] = np.repeat(r[:, :, numbers.columns], WIDTH, axis=2)
        self._scales = [np.float32(1 / np.sqrt(w)) for w in widths]

    def _start(self, rates: list[Array], decays: list[Array], rng: np.random.Generator) -> None:
        for k, (r, w, b) in enumerate(self._layers()):
            r[...] = 1.0 if k else rng.standard_normal(r.shape, dtype=np.float32)
            w[...] = rng.standard_normal(w.shape, dtype=np.float32)
            b[...] = rng.standard_normal(b.shape, dtype=np.float32)
            rates[3 * k][...] = 1.0 if k else _ADAPTER_RATE
            decays[3 * k + 1][...] = 1.0
            rates[3 * k + 2][...] = _BIAS_RATE
        head = self._params[-2]
        head[...] = rng.standard_normal(head.shape, dtype=np.float32) * np.float32(0.1)
        decays[-2][...] = 1.0
        rates[-1][...] = _BIAS_RATE

    def acting(self) -> Acting:
        """Copy the network as it acts."""
        layers = tuple(
            SharedLayer(r.copy(), w * scale, b.copy())
            for (r, w, b), scale in zip(self._layers(), self._scales[:-1], strict=True)
        )
        head = Layer(self._params[-2] * self._scales[-1], self._params[-1].copy())
        return Acting(None if self._waves is None else self._waves.acting(), layers, head, self.activation)

    def start_output(self, bias: Array) -> None:
        """Let the networks begin with the mean answer."""
        self._params[-1][...] = bias

    def forward(self, x: Array, dropout: float, rng: np.random.Generator) -> tuple[Array, list[Any]]:
        """Outputs (M, B, K) and what `backward` needs; ``x`` is (1, B, F)."""
        tape: list[Any] = [None]
        h = x
        if self._waves is not None:
            beside_x, tape[0] = self._waves.forward(x[0])
            h = beside_x[None]
        for (r, weights, b), scale in zip(self._layers(), self._scales[:-1], strict=True):
            w = weights * scale
            a = h * r
            z = through(a, w)
            z += b
            value, slope = activate(z, self.activation)
            if dropout > 0:
                mask = dropout_mask(value.shape, dropout, rng)
                value *= mask
                slope *= mask
            tape.append((h, a, w, slope))
            h = value
        head = self._params[-2] * self._scales[-1]
        tape.append((h, head))
        z = h @ head
        z += self._params[-1]
        return z, tape

    def backward(self, g: Array, tape: list[Any]) -> None:
        """Fill `grad` from the loss's slope in the outputs."""
        waves, *hidden, (h, head) = tape
        np.matmul(h.transpose(0, 2, 1), g, out=self._grads[-2])
        self._grads[-2] *= self._scales[-1]
        np.sum(g, axis=1, keepdims=True, out=self._grads[-1])
        g = g @ head.transpose(0, 2, 1)
        for i in range(len(hidden) - 1, -1, -1):
            h, a, w, slope = hidden[i]
            r, (grad_r, grad_w, grad_b) = self._params[3 * i], self._grads[3 * i : 3 * i + 3]
            g *= slope
            np.sum(g, axis=1, keepdims=True, out=grad_b)
            np.matmul(a.reshape(-1, a.shape[2]).T, g.reshape(-1, g.shape[2]), out=grad_w)
            grad_w *= self._scales[i]
            g = through(g, w.T)
            np.einsum("mbi,mbi->mi", g, np.broadcast_to(h, g.shape), out=grad_r[:, 0, :])
            if i:
                g *= r
        if self._waves is not None:
            self._waves.backward(np.einsum("mbi,mi->bi", g, self._params[0][:, 0, :]), waves)

    def _layers(self) -> list[tuple[Array, Array, Array]]:
        p = self._params
        return [(p[k], p[k + 1], p[k + 2]) for k in range(0, len(p) - 2, 3)]


class _Waves:
    """The part of a network that embeds numbers.

    Waves learn their frequencies and phases, pieces stay where they were cut.

    Parameters
    ----------
    x : ndarray
        Training rows.
    numbers : Numbers
        What is embedded.
    params, grads : list of ndarray
        Arrays of `shapes` in the network's vectors.
    """

    def __init__(self, x: Array, numbers: Numbers, params: list[Array], grads: list[Array]) -> None:
        self._numbers = numbers
        self._n = x.shape[1]
        self._params, self._grads = params, grads
        self._stretch = np.float32(2 * np.pi * numbers.frequency)
        self._pieces = pieces_of(x, numbers.columns) if numbers.kind == "pieces" else None

    @staticmethod
    def shapes(numbers: Numbers) -> list[tuple[int, ...]]:
        """List the shapes of what is learned: frequencies and phases of waves, then weights and biases of the sums."""
        n = len(numbers.columns)
        lines: list[tuple[int, ...]] = [] if numbers.kind == "pieces" else [(n, 1, WAVES), (n, 1, WAVES)]
        return [*lines, (n, WAVES, WIDTH), (n, 1, WIDTH)]

    def start(self, rates: list[Array], decays: list[Array], rng: np.random.Generator) -> None:
        """Draw the first values."""
        if self._pieces is None:
            frequency, phase = self._params[:2]
            frequency[...] = rng.standard_normal(frequency.shape, dtype=np.float32)
            phase[...] = rng.uniform(-np.pi, np.pi, phase.shape)
            rates[0][...] = _WAVE_RATE
            rates[1][...] = _BIAS_RATE
        w = self._params[-2]
        w[...] = rng.standard_normal(w.shape, dtype=np.float32)
        decays[-2][...] = 1.0
        rates[-1][...] = _BIAS_RATE

    def acting(self) -> Embedding:
        """Copy the embedding as it acts."""
        slope, shift = self._lines()
        w, b = self._params[-2] * _SUM, self._params[-1].copy()
        return Embedding(self._numbers.kind, self._numbers.columns, slope.copy(), shift.copy(), w, b)

    def forward(self, x: Array) -> tuple[Array, tuple[Array, ...]]:
        """Rows (B, F) with what the numbers become, (B, D), and what `backward` needs."""
        slope, shift = self._lines()
        v = spread(x, self._numbers.columns)
        z = v * slope
        z += shift
        bent = bend(z, self._numbers.kind)
        w = self._params[-2] * _SUM
        return beside(x, bent @ w + self._params[-1]), (v, z, bent, w)

    def backward(self, g: Array, tape: tuple[Array, ...]) -> None:
        """Fill the gradient from the loss's slope in what `forward` gave, (B, D)."""
        v, z, bent, w = tape
        n, _, width = w.shape
        g = np.ascontiguousarray(g[:, self._n :].reshape(len(g), n, width).transpose(1, 0, 2))
        np.matmul(bent.transpose(0, 2, 1), g, out=self._grads[-2])
        self._grads[-2] *= _SUM
        np.sum(g, axis=1, keepdims=True, out=self._grads[-1])
        if self._pieces is None:
            g = g @ w.transpose(0, 2, 1)
            g *= -np.sin(z)
            np.sum(g, axis=1, keepdims=True, out=self._grads[1])
            g *= v
            np.sum(g, axis=1, keepdims=True, out=self._grads[0])
            self._grads[0] *= self._stretch

    def _lines(self) -> tuple[Array, Array]:
        return (self._params[0] * self._stretch, self._params[1]) if self._pieces is None else self._pieces


def through(x: Array, w: Array) -> Array:
    """Multiply the rows of all members, (M, B, I), with shared weights (I, H), in one product."""
    m, b, i = x.shape
    return (x.reshape(m * b, i) @ w).reshape(m, b, w.shape[1])
