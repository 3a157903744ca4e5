"""What the watch must know of a revision's bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle import spec
from tidemill.bundle.reference.file import NOT_WATCHED, Reference, read_reference
from tidemill.bundle.spec import BundleSpec
from tidemill.core.errors import TidemillError
from tidemill.core.task import TaskKind

OUTPUTS = ("label", "probabilities", "prediction")


@dataclass(frozen=True)
class Facts:
    """A revision as its bundle describes it; all empty where there is none that can be read.

    Parameters
    ----------
    spec : BundleSpec or None
        Task, columns, decision.
    reference : Reference or None
        How its inputs and answers should look.
    word : str
        Why drift is not watched; empty where it is.
    """

    spec: BundleSpec | None = None
    reference: Reference | None = None
    word: str = "The bundle of this revision is not known here, so drift is not watched."

    @property
    def classes(self) -> tuple[str, ...]:
        """Labels in the order of their probabilities, of which a row has one; else empty."""
        return self.spec.task.classes if self.spec and self.spec.task.kind.is_classification else ()

    @property
    def several(self) -> bool | None:
        """Whether a row may have several labels; None where it is not known."""
        return None if self.spec is None else self.spec.task.kind is TaskKind.MULTILABEL

    @property
    def folded(self) -> bool:
        """Whether upper and lower case count as the same in the texts that it reads."""
        return self.spec is not None and self.spec.task.ignores_case

    def columns(self) -> dict[str, str]:
        """Column by the graph's input that carries it; only those whose names differ."""
        if self.reference is not None:
            return {c.input: c.name for c in self.reference.features if c.input and c.input != c.name}
        if self.spec is None or not {c.name for c in self.spec.schema.features} & {*OUTPUTS, ""}:
            return {}
        from tidemill.bundle.assemble import input_names  # loads onnx: only for older bundles with such a column

        return {carrier: name for name, carrier in input_names(self.spec.schema).items() if carrier != name}

    @property
    def cost(self) -> NDArray[np.float64] | None:
        """Cost matrix of the decision, rows: true class; None where there is none."""
        held = self.spec.decision.cost if self.spec else None
        return None if held is None else np.asarray(held, dtype=np.float64)

    @classmethod
    def load(cls, folder: Path | None) -> Facts:
        """Read a bundle's folder; what is wrong with it becomes the word."""
        if folder is None or not folder.is_dir():
            return cls()
        described: BundleSpec | None = None
        try:
            data: Any = json.loads((folder / spec.NAME).read_bytes())
            described = BundleSpec.from_json(data)
            reference = read_reference(folder)
        except (TidemillError, OSError, ValueError) as error:
            return cls(described, None, f"Drift is not watched: {error}")
        return cls(described, reference, "" if reference is not None else NOT_WATCHED)
