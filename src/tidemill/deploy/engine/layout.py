"""How the inputs of a graph travel: one matrix of numbers and one of texts, or one tensor for each input.

Rows of several callers are joined by joining bytes, so every wire tensor has the rows as its first axis.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TensorSpec:
    """Name, v2 data type and axes of a graph's input or output; None where an axis may have any size."""

    name: str
    type: str
    dims: tuple[int | None, ...]

    @property
    def shape(self) -> list[int]:
        """As the v2 protocol shows it: -1 where any size goes."""
        return [-1 if d is None else d for d in self.dims]

    def to_json(self) -> list[Any]:
        """Plain list for JSON."""
        return [self.name, self.type, list(self.dims)]


Shapes = tuple[tuple[int, ...], ...]
ENCODED: Shapes = ((),)
"""Axes of a query whose cells the worker encodes: one text of bytes for each row."""


@dataclass(frozen=True)
class Layout:
    """What goes over the wire for one batch.

    Parameters
    ----------
    inputs, outputs : tuple of TensorSpec
        Of the graph, in its order.
    batches : bool
        True where rows of several callers may go in one call.
    columns : bool
        True for the graph of a bundle: an input for each column. Then there are one or two wire tensors, FP64 numbers
        and texts, with one column for each name in ``groups``.
    groups : tuple of tuple of str
        Names of the graph's inputs by wire tensor.
    encoded : str
        Name of the column whose cells (the files of images) the worker turns into the graph's inputs; empty where the
        graph takes rows as they come. Then a query is either such cells, of the shapes `ENCODED`, or tensors.
    texts : bool
        True where those cells are texts, False where they are files.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batches: bool
    columns: bool
    groups: tuple[tuple[str, ...], ...] = ()
    encoded: str = ""
    texts: bool = False

    @property
    def inputs_of_numbers(self) -> bool:
        """True where the first wire tensor of a bundle's graph holds numbers."""
        return self.columns and any(i.name == self.groups[0][0] and i.type == "FP64" for i in self.inputs)

    @property
    def wire_types(self) -> tuple[str, ...]:
        """Data type of each wire tensor."""
        if not self.columns:
            return tuple(i.type for i in self.inputs)
        kinds = {i.name: i.type for i in self.inputs}
        return tuple(kinds[g[0]] for g in self.groups)

    def types_of(self, shapes: Shapes) -> tuple[str, ...]:
        """Data type of each wire tensor of a query with such axes.

        Examples
        --------
        >>> pixels = TensorSpec("image", "UINT8", (None, None, None, 3))
        >>> layout = Layout((pixels,), (), True, False, encoded="image")
        >>> layout.types_of(ENCODED), layout.types_of(((8, 8, 3),))
        (('BYTES',), ('UINT8',))
        """
        return ("BYTES",) if self.encoded and shapes == ENCODED else self.wire_types

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "inputs": [i.to_json() for i in self.inputs],
            "outputs": [o.to_json() for o in self.outputs],
            "batches": self.batches,
            "columns": self.columns,
            "groups": [list(g) for g in self.groups],
            "encoded": self.encoded,
            "texts": self.texts,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layout:
        """Rebuild from `to_json`."""
        return cls(
            tuple(_spec(i) for i in data["inputs"]),
            tuple(_spec(o) for o in data["outputs"]),
            bool(data["batches"]),
            bool(data["columns"]),
            tuple(tuple(g) for g in data["groups"]),
            str(data["encoded"]),
            bool(data["texts"]),
        )


def _spec(data: Sequence[Any]) -> TensorSpec:
    name, kind, dims = data
    return TensorSpec(name, kind, tuple(dims))


def read_layout(
    inputs: list[TensorSpec], outputs: list[TensorSpec], columns: str, grows: Callable[[list[TensorSpec]], bool]
) -> Layout:
    """Find the layout of a graph; ``columns`` is the text that a bundle's graph carries about its inputs."""
    numbers = tuple(i.name for i in inputs if i.type == "FP64" and i.dims[1:] == (1,))
    texts = tuple(i.name for i in inputs if i.type == "BYTES" and i.dims[1:] == (1,))
    stated = [str(c["input"]) for c in json.loads(columns)] if columns else []
    if columns and stated == [i.name for i in inputs] and len(numbers) + len(texts) == len(inputs):
        groups = tuple(g for g in (numbers, texts) if g)
        return Layout(tuple(inputs), tuple(outputs), True, True, groups)
    return Layout(tuple(inputs), tuple(outputs), grows(inputs), False)
