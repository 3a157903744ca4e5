"""Writes recognisers into graphs, layer by layer.

PyTorch's exporter is not asked: with a width that is free it thinks about inequalities for a minute, and with some nets
in vain. These nets have few kinds of layers, and their graphs are proven like all others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.errors import InternalError
from tidemill.models.recognition.nets.crnn import Crnn
from tidemill.models.recognition.nets.parts import Around, Entrance, Recogniser, Unit
from tidemill.models.recognition.nets.svtr import Mixing, Svtr

_GATES = (0, 3, 1, 2)
"""PyTorch keeps the gates of an LSTM as input, forget, cell, output; ONNX as input, output, forget, cell."""


def emit_net(graph: GraphBuilder, net: Recogniser, x: str, rows: Sequence[int] = (0,)) -> str:
    """Write a net: from pixels (N, 1, height, width) to logarithms of probabilities (N, width / 4, K + 1).

    Each line is read once for each of ``rows``, lifted by so many; its views (see
    `tidemill.models.recognition.nets.parts.Answer`) go through the net as one batch.
    """
    views = len(rows)
    if views > 1:
        x = _views(graph, x, rows)
    shift, scale = graph.const(np.float32(float(net.mean))), graph.const(np.float32(float(net.std)))
    x = graph.op("Div", graph.op("Sub", x, shift), scale)
    body = net.body
    if isinstance(body, Crnn):
        logits = _crnn(graph, body, x)
    elif isinstance(body, Svtr):
        logits = _svtr(graph, body, x)
    else:
        raise InternalError(f"Nobody knows how to write a {type(body).__name__} into a graph.")
    said = graph.op("LogSoftmax", logits, axis=2)
    if views == 1:
        return said
    mean = graph.op("Mean", *graph.ops("Split", said, outputs=views, axis=0, num_outputs=views))
    return graph.op("LogSoftmax", mean, axis=2)


def _views(graph: GraphBuilder, x: str, rows: Sequence[int]) -> str:
    """Lift lines by so many rows, those at the edges repeated; all views behind each other."""
    most = max(rows)
    room = graph.op("Pad", x, graph.const([0, 0, most, 0, 0, 0, most, 0], np.int64), mode="edge")
    axis = graph.const([2], np.int64)

    def cut(lift: int) -> str:
        end = lift - most or np.iinfo(np.int64).max
        return graph.op("Slice", room, graph.const([most + lift], np.int64), graph.const([end], np.int64), axis)

    return graph.op("Concat", *(cut(lift) for lift in rows), axis=0)


def _crnn(graph: GraphBuilder, body: Crnn, x: str) -> str:
    x = graph.op("Relu", _entrance(graph, body.entrance, x))
    found = graph.op("Transpose", _lstm(graph, body.along, graph.op("Transpose", x, perm=[1, 0, 2])), perm=[2, 0, 1, 3])
    flat = graph.op("Reshape", found, graph.const([0, 0, 2 * body.along.hidden_size], np.int64))
    return _linear(graph, body.linear, flat)


def _svtr(graph: GraphBuilder, body: Svtr, x: str) -> str:
    x = _entrance(graph, body.entrance, x)
    for mixing in body.mixing:
        assert isinstance(mixing, Mixing)
        x = _mixing(graph, mixing, x)
    return _linear(graph, body.linear, _norm(graph, body.norm, x))


def _entrance(graph: GraphBuilder, entrance: Entrance, x: str) -> str:
    for part in entrance.maps:
        if isinstance(part, Around):
            x = graph.op("Add", x, _unit(graph, part.second, _unit(graph, part.first, x)))
        else:
            assert isinstance(part, Unit)
            x = _unit(graph, part, x)
    columns = graph.op("Reshape", x, graph.const([0, entrance.flat.in_features, -1], np.int64))
    return _linear(graph, entrance.flat, graph.op("Transpose", columns, perm=[0, 2, 1]))


def _unit(graph: GraphBuilder, unit: Unit, x: str) -> str:
    """Write a convolution with the normalisation inside of its weights."""
    norm = unit.norm
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = _wide(norm.weight) / np.sqrt(_wide(norm.running_var) + norm.eps)
    weight = _wide(unit.conv.weight) * scale[:, None, None, None]
    bias = _wide(norm.bias) - _wide(norm.running_mean) * scale
    side, step = int(unit.conv.kernel_size[0]), int(unit.conv.stride[0])
    x = graph.op(
        "Conv", x, graph.const(weight.astype(np.float32)), graph.const(bias.astype(np.float32)),
        kernel_shape=[side, side], strides=[step, step], pads=[side // 2] * 4,
    )  # fmt: skip
    x = graph.op("Relu", x)
    return x if unit.pool == (1, 1) else graph.op("MaxPool", x, kernel_shape=list(unit.pool), strides=list(unit.pool))


def _lstm(graph: GraphBuilder, net: nn.LSTM, x: str) -> str:
    """Write a layer that looks both ways: from (T, N, inputs) to (T, 2, N, hidden)."""
    named = dict(net.named_parameters())

    def both(name: str) -> NDArray[np.float32]:
        ways = (named[f"{name}_l0{way}"] for way in ("", "_reverse"))
        return np.stack([np.concatenate([np.split(_plain(p), 4)[gate] for gate in _GATES]) for p in ways])

    bias = np.concatenate([both("bias_ih"), both("bias_hh")], axis=1)
    return graph.op(
        "LSTM", x, graph.const(both("weight_ih")), graph.const(both("weight_hh")), graph.const(bias),
        hidden_size=net.hidden_size, direction="bidirectional",
    )  # fmt: skip


def _mixing(graph: GraphBuilder, mixing: Mixing, x: str) -> str:
    near, length = mixing.near, mixing.near.out_channels
    side = int(near.kernel_size[0])
    assert near.bias is not None
    columns = graph.op("Transpose", x, perm=[0, 2, 1])
    local = graph.op(
        "Conv", columns, graph.const(_plain(near.weight)), graph.const(_plain(near.bias)),
        kernel_shape=[side], pads=[side // 2, side // 2], group=length,
    )  # fmt: skip
    x = graph.op("Add", x, graph.op("Transpose", local, perm=[0, 2, 1]))
    x = graph.op("Add", x, _attention(graph, mixing, _norm(graph, mixing.before, x)))
    first, last = mixing.inner[0], mixing.inner[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    wide = graph.op("Gelu", _linear(graph, first, _norm(graph, mixing.after, x)))
    return graph.op("Add", x, _linear(graph, last, wide))


def _attention(graph: GraphBuilder, mixing: Mixing, x: str) -> str:
    length = mixing.told.in_features
    each = length // mixing.heads
    query, key, value = graph.ops("Split", _linear(graph, mixing.asked, x), outputs=3, axis=2, num_outputs=3)
    apart = graph.const([0, 0, mixing.heads, each], np.int64)

    def heads(part: str, perm: list[int]) -> str:
        return graph.op("Transpose", graph.op("Reshape", part, apart), perm=perm)

    weights = graph.op("MatMul", heads(query, [0, 2, 1, 3]), heads(key, [0, 2, 3, 1]))
    weights = graph.op("Softmax", graph.op("Mul", weights, graph.const(np.float32(1 / math.sqrt(each)))), axis=3)
    seen = graph.op("Transpose", graph.op("MatMul", weights, heads(value, [0, 2, 1, 3])), perm=[0, 2, 1, 3])
    return _linear(graph, mixing.told, graph.op("Reshape", seen, graph.const([0, 0, length], np.int64)))


def _norm(graph: GraphBuilder, norm: nn.LayerNorm, x: str) -> str:
    weight, bias = graph.const(_plain(norm.weight)), graph.const(_plain(norm.bias))
    return graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=norm.eps)


def _linear(graph: GraphBuilder, linear: nn.Linear, x: str) -> str:
    product = graph.op("MatMul", x, graph.const(np.ascontiguousarray(_plain(linear.weight).T)))
    return graph.op("Add", product, graph.const(_plain(linear.bias)))


def _plain(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().cpu().to(torch.float32).numpy()
    return array


def _wide(tensor: Tensor) -> NDArray[np.float64]:
    return _plain(tensor).astype(np.float64)
