"""What could be shipped: trials with weights, and how their scores become an answer."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.parts import EncoderPart, Member, Recipe
from tidemill.core.budget import available_cpus
from tidemill.core.calibration import Calibration
from tidemill.core.decision import Decision
from tidemill.core.frames import Frames
from tidemill.core.objective import ConstraintResult, Objective
from tidemill.core.pack import unpack
from tidemill.core.protocols import ArtifactStore
from tidemill.core.schema import Schema
from tidemill.core.task import Task, TaskKind
from tidemill.core.transcripts import GREEDY
from tidemill.core.trial import Cost, Trial
from tidemill.search.ensembles.stack import LinearStack
from tidemill.search.judge import Verdict
from tidemill.search.lines.together import read_by
from tidemill.search.modality import Modality, modality_of


@dataclass(frozen=True)
class Candidate:
    """A trained trial, or an ensemble of them, chosen for an objective.

    Parameters
    ----------
    task, objective
        What it was chosen for.
    weights : mapping of int to float
        Weight of each trial by number; they sum to 1.
    models : mapping of int to int
        How many models of each trial's bag it uses.
    calibration : Calibration
        Applied to combined probabilities.
    verdict : Verdict
        How it does on the out-of-fold predictions. It was chosen by them, so expect a little less on new rows.
    cost : Cost
        Estimated, before export.
    names : mapping of int to str
        Names of the trials.
    stack : LinearStack or None
        Joins the trials' scores in place of the weighted mean; its weights stand in the order of the trials.
    """

    task: Task
    objective: Objective
    weights: Mapping[int, float]
    models: Mapping[int, int]
    calibration: Calibration
    verdict: Verdict
    cost: Cost
    names: Mapping[int, str] = field(default_factory=dict)
    stack: LinearStack | None = None

    @property
    def name(self) -> str:
        """Name for people: the trial's own, or ``"ensemble of 4"``."""
        if len(self.weights) == 1:
            number = next(iter(self.weights))
            return self.names.get(number, f"trial-{number}")
        return f"ensemble of {len(self.weights)}"

    @property
    def value(self) -> float:
        """The objective's metric on the out-of-fold predictions."""
        return self.verdict.value

    @property
    def loss(self) -> float:
        """The same, smaller is better."""
        return self.verdict.loss

    @property
    def constraints(self) -> tuple[ConstraintResult, ...]:
        """How the constraints come out."""
        return self.verdict.constraints

    @property
    def decision(self) -> Decision:
        """How labels are decided."""
        return self.verdict.decision

    @property
    def satisfied(self) -> bool:
        """True where every constraint is kept."""
        return self.verdict.gap == 0

    def scores(
        self, predictions: Mapping[int, NDArray[np.float32]], frames: Mapping[int, Frames] | None = None
    ) -> NDArray[np.float64]:
        """Combine and calibrate stored predictions of its trials; of transcripts, what stands behind them."""
        if self.task.kind is TaskKind.RECOGNITION and len(self.weights) > 1:
            return read_by(self.weights, frames or {}).astype(np.float64)
        joined = join(self.weights, predictions, self.stack, self.task.kind)
        return self.calibration.apply(joined) if self.task.kind.is_classification else joined

    def recipe(
        self,
        trials: Mapping[int, Trial],
        artifacts: ArtifactStore,
        encoder: EncoderPart,
        schema: Schema,
        modality: Modality | None = None,
    ) -> Recipe:
        """Restore its models and join them with the encoder into what a bundle is built from.

        Parameters
        ----------
        trials : mapping
            The study's trials by number.
        artifacts : ArtifactStore
            Where their checkpoints are.
        encoder : EncoderPart
            The study's encoder.
        schema : Schema
            The study's schema.
        modality : Modality, optional
            The study's modality, which knows how to restore a model; default tables.
        """
        modality = modality or modality_of({})

        def member(number: int) -> Member:
            trial = trials[number]
            states = unpack(artifacts.get(trial.artifacts["checkpoint"]))["models"]
            parts = [modality.restore_part(state, self.task) for state in states[: self.models[number]]]
            return Member(weight=float(self.weights[number]), parts=parts, name=trial.name)

        # Libraries let go of the interpreter's lock while they read their models, which may be tens of megabytes.
        with ThreadPoolExecutor(min(available_cpus(), len(self.weights))) as pool:
            members = list(pool.map(member, self.weights))
        return Recipe(
            task=self.task,
            schema=schema,
            encoder=encoder,
            members=members,
            stack=self.stack,
            calibration=None if self.calibration.is_identity else self.calibration,
            decision=self.decision,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON: what it is and how it does."""
        return {
            "name": self.name,
            "objective": str(self.objective),
            "metric": self.objective.metric,
            "value": self.value,
            **({"decoding": GREEDY} if self.task.kind is TaskKind.RECOGNITION else {}),
            "satisfied": self.satisfied,
            "constraints": [
                {"constraint": str(r.constraint), "value": r.value, "satisfied": r.satisfied} for r in self.constraints
            ],
            "members": [
                {"trial": self.names.get(n, f"trial-{n}"), "number": n, "weight": w, "models": self.models[n]}
                for n, w in self.weights.items()
            ],
            "stack": None if self.stack is None else {"weights": list(self.stack.weights), "bias": self.stack.bias},
            "calibration": self.calibration.to_json(),
            "decision": self.decision.to_json(),
            "cost": self.cost.to_json(),
        }


def join(
    weights: Mapping[int, float],
    predictions: Mapping[int, NDArray[np.float32]],
    stack: LinearStack | None = None,
    kind: TaskKind | None = None,
) -> NDArray[np.float64]:
    """Join scores of trials: the weighted mean, or what the stack makes of them.

    Probabilities of one class among several sum to 1. Transcripts are those of one trial; what several read together is
    found by `tidemill.search.lines.together`.
    """
    if kind is TaskKind.RECOGNITION:
        (number,) = weights
        return predictions[number].astype(np.float64)
    if stack is not None:
        return stack.predict([predictions[n] for n in weights]).astype(np.float64)
    out = np.asarray(np.sum([w * predictions[n].astype(np.float64) for n, w in weights.items()], axis=0))
    return out if out.shape[1] == 1 or kind is TaskKind.MULTILABEL else np.asarray(out / out.sum(axis=1, keepdims=True))
