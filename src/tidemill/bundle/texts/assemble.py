"""From a recipe for texts to one ONNX model: what the readers gave in, labels and probabilities out."""

from __future__ import annotations

import json

import onnx

from tidemill.bundle.assemble import finish
from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.parts import Recipe
from tidemill.bundle.texts.readers import READERS, readers_of


def assemble_texts(recipe: Recipe) -> onnx.ModelProto:
    """Write the whole recipe as one graph.

    Inputs are those of the readers of all parts, each of shape (N, any): ``tokens_…`` (int64, -1 behind the end of a
    text), or ``grams_…`` (int64, -1 likewise) with ``counts_…`` (float32). Outputs are those of
    `tidemill.bundle.assemble.assemble`. The metadata name each reader's file.
    """
    graph = GraphBuilder()
    readers = readers_of(recipe.members)
    for reader in readers:
        reader.declare(graph)
    stated = {READERS: json.dumps([reader.entry for reader in readers])}
    return finish(graph, recipe, recipe.encoder.emit(graph, {}), stated)
