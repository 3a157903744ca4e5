"""From a recipe for lines to one ONNX model: an image in, its text and how sure it is out."""

from __future__ import annotations

import json

import numpy as np
import onnx

from tidemill.bundle.assemble import CONFIDENCE, PREDICTION, about
from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.images.encoder import IMAGE
from tidemill.bundle.lines.decode import write_greedy
from tidemill.bundle.lines.parts import the_part, the_parts
from tidemill.bundle.parts import Recipe
from tidemill.bundle.runner.beams import DECODE, FRAMES


def assemble_lines(recipe: Recipe) -> onnx.ModelProto:
    """Write the whole recipe as one graph.

    The input is ``image``, uint8 (N, H, W, 3), RGB, of any size, all of one. Outputs are ``prediction``, string (N),
    and ``confidence``, float32 (N): the probability of the best path. Where texts are searched for behind the graph, it
    also gives `FRAMES`, of all nets, and says in its metadata how.
    """
    part = the_part(recipe)
    graph = GraphBuilder()
    image = graph.input(IMAGE, np.uint8, ["N", "H", "W", 3])
    lines = recipe.encoder.emit(graph, {IMAGE: image})
    frames = part.emit(graph, lines)
    text, confidence = write_greedy(graph, frames, part.alphabet, recipe.tie_margin)
    graph.output(text, PREDICTION, str, ["N"])
    graph.output(confidence, CONFIDENCE, np.float32, ["N"])
    more = {}
    if recipe.decode:
        others = [other.emit(graph, lines) for other in the_parts(recipe)[1:]]
        shape: list[str | int] = ["N", "T", len(part.alphabet) + 1]
        if others:
            axis = graph.const([1], np.int64)
            frames = graph.op("Concat", *(graph.op("Unsqueeze", said, axis) for said in (frames, *others)), axis=1)
            shape.insert(1, 1 + len(others))
        graph.output(frames, FRAMES, np.float32, shape)
        more[DECODE] = json.dumps(recipe.decoding)
    model = graph.model()
    onnx.helper.set_model_props(model, {**about(recipe.task, recipe.schema), **more})
    return model
