"""What a graph may not be, looked at before anything loads it: an ONNX file is not harmless because it holds no pickle.

Tensors may name files elsewhere, operators of strange domains want libraries to be loaded, and a few bytes may ask for
any amount of memory. What a graph does while it runs is bounded by the limits of the worker that runs it.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.core.errors import BundleError

if TYPE_CHECKING:
    import onnx

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Domains whose operators plain onnxruntime brings along."""


@dataclass(frozen=True)
class GraphLimits:
    """How large a graph may be.

    Parameters
    ----------
    file_bytes : int
        Of the ONNX file.
    nodes : int
        Of the graph and all that is nested in it.
    depth : int
        Of nested graphs (``If``, ``Loop``, ``Scan``).
    tensor_values : int
        That any constant may unfold to.
    """

    file_bytes: int = 2 << 30
    nodes: int = 200_000
    depth: int = 8
    tensor_values: int = 1 << 30


DEFAULT_LIMITS = GraphLimits()


def check_graph(path: Path, limits: GraphLimits = DEFAULT_LIMITS) -> list[str]:
    """Look for what a graph may not have.

    Parameters
    ----------
    path : Path
        The ONNX file.
    limits : GraphLimits
        How large it may be.

    Returns
    -------
    list of str
        What is wrong; empty where it may be loaded.

    Raises
    ------
    BundleError
        If it can't be read as ONNX.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no types

    try:
        size = path.stat().st_size
        if size > limits.file_bytes:
            return [f"It has {size:,} bytes; up to {limits.file_bytes:,} are allowed."]
        model = onnx.load_model(str(path), load_external_data=False)
    except (OSError, DecodeError) as error:
        raise BundleError(f"The graph can't be read ({error}).", where=str(path)) from error
    found = list(_walk(model.graph, limits.depth))
    for function in model.functions:
        found += _of_nodes(function.node, limits.depth)
    return sorted({*_domains(model, found), *_shape(found, limits), *_data(found, limits)})


def refuse_unsafe(path: Path, limits: GraphLimits = DEFAULT_LIMITS) -> None:
    """Raise `BundleError` with everything that `check_graph` finds."""
    if wrong := check_graph(path, limits):
        raise BundleError("The graph may not be served: " + " ".join(wrong), where=path.name)


@contextmanager
def looking(paths: Iterable[Path]) -> Iterator[Callable[[], None]]:
    """Look at graphs in a process of its own, while this one does other things and stays small.

    Parameters
    ----------
    paths : iterable of Path
        ONNX files.

    Yields
    ------
    callable
        Waits for the end, and raises `BundleError` for the first that may not be served.
    """
    named = [str(path) for path in paths]
    if not named:
        yield lambda: None
        return
    command = [sys.executable, "-m", "tidemill.deploy.safety", *named]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)

    def finish() -> None:
        told, _ = process.communicate()
        if process.returncode:
            message, where = json.loads(told or '["The graph could not be looked at.", null]')
            raise BundleError(message, where=where)

    try:
        yield finish
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@dataclass(frozen=True)
class _Part:
    """A node or a tensor, with how deep it is nested, and the shape that a sparse one unfolds to."""

    node: onnx.NodeProto | None
    tensor: onnx.TensorProto | None
    depth: int
    unfolded: tuple[int, ...] = ()


def _walk(graph: onnx.GraphProto, left: int, depth: int = 0) -> Iterator[_Part]:
    for tensor in graph.initializer:
        yield _Part(None, tensor, depth)
    for sparse in graph.sparse_initializer:
        yield from _of_sparse(sparse, depth)
    yield from _of_nodes(graph.node, left, depth)


def _of_nodes(nodes: object, left: int, depth: int = 0) -> Iterator[_Part]:
    for node in nodes:  # type: ignore[attr-defined]  # protobuf's repeated field has no type
        yield _Part(node, None, depth)
        for attribute in node.attribute:
            for tensor in (attribute.t, *attribute.tensors):
                yield _Part(None, tensor, depth)
            alone = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in (*alone, *attribute.sparse_tensors):
                yield from _of_sparse(sparse, depth)
            for inner in (attribute.g, *attribute.graphs):
                # One level past the limit is enough to report it.
                if left >= 0 and (inner.node or inner.initializer or inner.sparse_initializer):
                    yield from _walk(inner, left - 1, depth + 1)


def _of_sparse(sparse: onnx.SparseTensorProto, depth: int) -> Iterator[_Part]:
    yield _Part(None, sparse.values, depth, tuple(sparse.dims))
    yield _Part(None, sparse.indices, depth)


def _domains(model: onnx.ModelProto, found: list[_Part]) -> Iterator[str]:
    used = {o.domain for o in model.opset_import} | {p.node.domain for p in found if p.node is not None}
    # A domain whose operators are written out in the file itself needs no library.
    own = {f.domain for f in model.functions}
    for domain in sorted(used - DOMAINS - own):
        yield f"It uses operators of the domain {domain!r}, which would need a library of its own."


def _shape(found: list[_Part], limits: GraphLimits) -> Iterator[str]:
    nodes = sum(p.node is not None for p in found)
    if nodes > limits.nodes:
        yield f"It has {nodes:,} nodes; up to {limits.nodes:,} are allowed."
    if any(p.depth > limits.depth for p in found):
        yield f"Its graphs are nested more than {limits.depth} deep."


def _data(found: list[_Part], limits: GraphLimits) -> Iterator[str]:
    for part in found:
        tensor = part.tensor
        if tensor is None:
            continue
        if tensor.external_data or tensor.data_location == 1:
            yield f"The tensor {tensor.name!r} keeps its data in another file."
        for dims in (list(tensor.dims), list(part.unfolded)):
            if any(d < 0 for d in dims) or math.prod(dims) > limits.tensor_values:
                yield f"The tensor {tensor.name!r} has the shape {dims}, which is too large."


def main(paths: Sequence[str]) -> int:
    """Look at some graphs; gives 1 for the first that may not be served, and says why in one line of JSON."""
    try:
        for path in paths:
            refuse_unsafe(Path(path))
    except BundleError as error:
        sys.stdout.write(json.dumps([error.message, error.where]) + "\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
