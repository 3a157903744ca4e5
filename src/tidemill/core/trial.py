"""A trial: one evaluated config, with everything that later questions need."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Config = dict[str, Any]
"""One point of a `Space`: JSON-able values by parameter name; inactive parameters are absent."""


class TrialState(str, Enum):
    """Where a trial stands; only ``RUNNING`` and ``PAUSED`` may change."""

    RUNNING = "running"
    PAUSED = "paused"
    """Trained up to a rung; it may go on from its checkpoint."""
    COMPLETE = "complete"
    FAILED = "failed"
    REJECTED = "rejected"
    """Broke a constraint that is known before training; it was never trained."""


@dataclass(frozen=True)
class Cost:
    """What a model costs to keep and to run; ``None`` where it isn't known.

    Parameters
    ----------
    params : int or None
        Numbers that training chose: weights, thresholds, leaf values.
    flops : int or None
        Arithmetic for one row; a multiply-add counts 2, a comparison 1.
    size_bytes : int or None
        Bytes of the exported graph (estimated before export, measured after).
    latency_ms : float or None
        One warm row with onnxruntime on this machine, in milliseconds.
    batch_us : float or None
        One row among many with onnxruntime on one thread of this machine, in microseconds.
    """

    params: int | None = None
    flops: int | None = None
    size_bytes: int | None = None
    latency_ms: float | None = None
    batch_us: float | None = None

    def __add__(self, other: Cost) -> Cost:
        def plus(a: Any, b: Any) -> Any:
            return None if a is None or b is None else a + b

        return Cost(
            plus(self.params, other.params),
            plus(self.flops, other.flops),
            plus(self.size_bytes, other.size_bytes),
            plus(self.latency_ms, other.latency_ms),
            plus(self.batch_us, other.batch_us),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "params": self.params,
            "flops": self.flops,
            "size_bytes": self.size_bytes,
            "latency_ms": self.latency_ms,
            "batch_us": self.batch_us,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Cost:
        """Rebuild from `to_json`."""
        return cls(**data)


FREE = Cost(params=0, flops=0, size_bytes=0, latency_ms=0.0, batch_us=0.0)
"""What takes nothing."""


@dataclass(frozen=True)
class Usage:
    """What a trial used while it ran.

    Parameters
    ----------
    wall_s, cpu_s : float
        Wall and CPU seconds.
    peak_memory_bytes : int
        Most memory that it held.
    placement : str or None
        Of nets: where they were trained and how their batch was cut, in a few words.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    placement: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON; ``placement`` where there is one."""
        placed = {} if self.placement is None else {"placement": self.placement}
        return {"wall_s": self.wall_s, "cpu_s": self.cpu_s, "peak_memory_bytes": self.peak_memory_bytes, **placed}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Usage:
        """Rebuild from `to_json`."""
        return cls(**data)


@dataclass(frozen=True)
class Predictions:
    """Raw scores of a trial on known rows.

    Parameters
    ----------
    rows : ndarray of int64, shape (n,)
        Row ids in the dataset version.
    scores : ndarray of float32, shape (n, n_outputs)
        Probabilities in the order of the task's classes, or the predicted value.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True)
class Trial:
    """One evaluated config; the light part of a ledger entry.

    The heavy parts (out-of-fold and test-slice predictions, checkpoints of the fold models) stand in the
    artifact store under the hashes in ``artifacts``: ``"oof"``, ``"test"``, ``"checkpoint"``, and of nets that read
    lines ``"frames"`` and ``"test_frames"``.

    Parameters
    ----------
    study : str
        Name of the study.
    number : int
        0, 1, 2… in the order in which configs were asked for.
    config : dict
        The config.
    state : TrialState
        Where it stands.
    family : str
        Name of the model family.
    origin : str
        Who proposed it: ``"baseline"``, ``"leader"``, ``"portfolio"``, ``"tpe"``, ``"random"``, ``"given"``.
    fold_scores : tuple of float
        The study's metric on each fold (as the metric is printed, whatever its direction).
    scores : dict
        Every cheap metric of the task over all out-of-fold rows, by name.
    cost : Cost
        What the bagged model costs.
    usage : Usage
        What the trial used.
    curve : tuple of tuple
        ``(step, value)`` of the first fold's learning curve, where the family has one.
    seed : int
        Seed of the trial.
    fidelity : float
        Share of the training rows that was used, 0..1.
    folds : int
        Number of folds that were trained.
    artifacts : dict
        Artifact hash by name.
    error : str or None
        For failed and rejected trials: why, in plain words.
    traceback : str or None
        For failed trials: where.
    """

    study: str
    number: int
    config: Config
    state: TrialState
    family: str
    origin: str = "given"
    fold_scores: tuple[float, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    usage: Usage = field(default_factory=Usage)
    curve: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    fidelity: float = 1.0
    folds: int = 0
    artifacts: dict[str, str] = field(default_factory=dict)
    error: str | None = None
    traceback: str | None = None
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def name(self) -> str:
        """Short name for people, ``lightgbm-7``."""
        return f"{self.family}-{self.number}"


@dataclass(frozen=True)
class StudyRecord:
    """The facts of a study that never change while it runs, and its state.

    Parameters
    ----------
    name : str
        Unique in the workspace.
    task, objective, space, settings : dict or str
        JSON forms of the task, the objective (its text), the space, and the settings that make trials
        reproducible (seed, folds, split, test share, lag).
    dataset_version : str
        Content hash of the dataset version.
    versions : dict
        Versions of the libraries that trained.
    state : str
        ``"running"``, ``"complete"``, ``"interrupted"`` or ``"failed"``.
    """

    name: str
    task: dict[str, Any]
    objective: str
    space: list[dict[str, Any]]
    settings: dict[str, Any]
    dataset_version: str
    versions: dict[str, str]
    state: str
    created_at: float
    artifacts: dict[str, str] = field(default_factory=dict)
