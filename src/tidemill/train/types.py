"""What a training is made of: the recipe, the limits, where it runs, what it gives. Plain values; nothing loads torch.

The seams for callers are `Samples` (what is learned from), `Loss` and `Score`; everything that depends on hardware
stands in `Placement` and nowhere else, so that a model definition runs unchanged on one processor or on many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import NotFoundError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

OPTIMIZERS = ("adamw", "adam", "sgd")
SCHEDULES = ("constant", "cosine", "linear", "step")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
RECOMPUTE = ("none", "blocks")
COMPILE = ("auto", "never", "always")


class Samples(Protocol):
    """What is learned from: numbered samples, handed out in batches.

    The same number always means the same sample, and in several processes each holds its own copy: an
    implementation travels to them (by spawn), so it keeps paths or arrays, not open files. One whose samples differ
    in width, and are filled up to the widest of a batch, may have an attribute ``widths``, an array of one number for
    each: batches are then made of samples that are about as wide. Where width tells of the target, as the length of a
    text may, such batches teach less: three epochs of an encoder left 25 points of error in place of 14.
    """

    def __len__(self) -> int:
        """Return the number of samples."""

    def batch(
        self, indices: NDArray[np.int64], *, train: bool, rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Give inputs and targets of these samples, in this order, on the CPU.

        Called from the training thread, many times. Inputs are the keyword arguments of the module's ``forward``; of
        every tensor the first axis counts samples. ``train`` asks for augmentation, whose draws come from ``rng``
        alone (it is made anew for each call, from the seed, the global step and the place in the optimiser's batch);
        without ``train`` the answer must not depend on ``rng``.
        """


class Loss(Protocol):
    """How wrong outputs are."""

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        """Give one loss for each sample, shape ``(samples,)``; never averaged.

        The runtime averages over the optimiser's whole batch, however it is cut into pieces, so a loss here must
        not look at other samples. ``outputs`` is what the module's ``forward`` returned.
        """


class Score(Protocol):
    """How good outputs are on validation samples; larger is better."""

    def __call__(self, outputs: NDArray[Any], targets: NDArray[Any]) -> float:
        """Give the score of all validation samples at once, in their order."""


@dataclass(frozen=True)
class Recipe:
    """How a module is trained, on whatever hardware.

    Parameters
    ----------
    optimizer : {"adamw", "adam", "sgd"}
        Update rule.
    lr : float
        Learning rate at its peak.
    weight_decay : float
        Decay of weights; biases and other vectors (normalisation) are spared unless ``decay_vectors``.
    momentum : float
        Momentum of ``sgd`` (Nesterov), or the first beta of the others.
    beta2 : float
        Second beta of ``adamw`` and ``adam``.
    batch : int
        Samples of one optimiser step, over all processes. It stays as it is wherever the training runs; pieces
        are smaller where memory is short, and their gradients add up.
    epochs : float
        Length of the training and of its schedule, in passes over the samples.
    schedule : {"constant", "cosine", "linear", "step"}
        Course of the learning rate after the warm-up; ``step`` divides by 10 at one half and three quarters.
    warmup : float
        Share of all steps over which the learning rate grows from zero, 0 to 1.
    floor : float
        Learning rate at the end, as a share of the peak (``cosine`` and ``linear``).
    clip_norm : float or None
        Gradients longer than this are shortened to it; None leaves them.
    ema : float or None
        Decay for each step of an average of the weights, which is then what is evaluated and kept; None keeps none.
    precision : {"auto", "fp32", "bf16", "fp16"}
        Of the arithmetic; weights and optimiser state stay in 32 bits. ``auto``: ``bf16`` on a GPU that has it,
        else ``fp32``.
    patience : int or None
        Evaluations without a better score (or validation loss) after which the training ends; None never does.
    evaluate_every : float
        Epochs from one evaluation to the next.
    checkpoint_s : float
        Seconds from one checkpoint to the next, where there is a folder for them.
    lr_scales : mapping
        Factors of the learning rate by the beginning of parameters' names, such as ``{"backbone.": 0.1}``; the longest
        beginning that fits counts.
    decay_vectors : bool
        Also decay biases and other vectors.
    keep_best : bool
        End with the weights of the best evaluation rather than the last ones.
    compile : {"auto", "never", "always"}
        Whether passes are compiled (``torch.compile``). ``auto`` tries it on a GPU where at least five minutes of steps
        are left, and ten to a deadline, after eight eager steps, and keeps it where the steps after that are at least
        5 % quicker (medians of five); what the compiler took is spent by then, and a message says after how many
        steps it is earned back.
        ``always`` compiles before the first step, on processors, too. A compiler that fails leaves the training
        eager, with a warning. Modules whose recomputed blocks keep statistics of batches are not compiled.

    Raises
    ------
    OptionError
        For values out of range; all of them in one message.

    Examples
    --------
    >>> Recipe(lr=0.1, optimizer="sgd", batch=64).batch
    64
    """

    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.01
    momentum: float = 0.9
    beta2: float = 0.999
    batch: int = 128
    epochs: float = 10.0
    schedule: str = "cosine"
    warmup: float = 0.05
    floor: float = 0.0
    clip_norm: float | None = 1.0
    ema: float | None = None
    precision: str = "auto"
    patience: int | None = None
    evaluate_every: float = 1.0
    checkpoint_s: float = 30.0
    lr_scales: Mapping[str, float] = field(default_factory=dict)
    decay_vectors: bool = False
    keep_best: bool = True
    compile: str = "auto"

    def __post_init__(self) -> None:
        choices = (
            ("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS), ("compile", COMPILE)
        )  # fmt: skip
        for name, known in choices:
            if getattr(self, name) not in known:
                raise NotFoundError.of(name, str(getattr(self, name)), known)
        wrong = [text for bad, text in self._laws() if bad]
        if wrong:
            raise OptionError("A recipe can't be used: " + "; ".join(wrong) + ".")

    def _laws(self) -> list[tuple[bool, str]]:
        finite = math.isfinite
        return [
            (not (finite(self.lr) and self.lr > 0), f"lr must be positive and finite, not {self.lr}"),
            (not 0 <= self.weight_decay < math.inf, f"weight_decay must not be negative, not {self.weight_decay}"),
            (not 0 <= self.momentum < 1, f"momentum must be in [0, 1), not {self.momentum}"),
            (not 0 <= self.beta2 < 1, f"beta2 must be in [0, 1), not {self.beta2}"),
            (self.batch < 1, f"batch must be at least 1, not {self.batch}"),
            (not (finite(self.epochs) and self.epochs > 0), f"epochs must be positive, not {self.epochs}"),
            (not 0 <= self.warmup <= 1, f"warmup is a share of the steps, 0 to 1, not {self.warmup}"),
            (not 0 <= self.floor <= 1, f"floor is a share of lr, 0 to 1, not {self.floor}"),
            (
                self.clip_norm is not None and not self.clip_norm > 0,
                f"clip_norm must be positive, not {self.clip_norm}",
            ),
            (self.ema is not None and not 0 < self.ema < 1, f"ema must be between 0 and 1, not {self.ema}"),
            (self.patience is not None and self.patience < 1, f"patience must be at least 1, not {self.patience}"),
            (not self.evaluate_every > 0, f"evaluate_every must be positive, not {self.evaluate_every}"),
            (not self.checkpoint_s > 0, f"checkpoint_s must be positive, not {self.checkpoint_s}"),
            (any(not s >= 0 for s in self.lr_scales.values()), "lr_scales must not be negative"),
        ]

    def to_json(self) -> dict[str, Any]:
        """Give the recipe as plain JSON."""
        return {**asdict(self), "lr_scales": dict(self.lr_scales)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Recipe:
        """Read what `to_json` gave.

        Examples
        --------
        >>> Recipe.from_json(Recipe(lr=0.5).to_json()) == Recipe(lr=0.5)
        True
        """
        known = set(cls.__dataclass_fields__)
        strange = sorted(set(values) - known)
        if strange:
            raise NotFoundError.of("setting of a recipe", strange[0], known)
        return cls(**values)


@dataclass(frozen=True)
class Limits:
    """When a training must end or pause, whatever its recipe says.

    Parameters
    ----------
    deadline : float or None
        Value of `time.monotonic` at which it stops, inside an epoch if need be; one step and the last evaluation
        are foreseen, so that the answer is there by then.
    memory_bytes : int or None
        Memory of the device that one process may take; None means what is free.
    epochs : float or None
        Pause here, in passes over the samples from the beginning (not from the resume); the schedule still spans the
        recipe's ``epochs``, so a later call goes on as if nothing had been.
    cancelled : callable or None
        Asked after each step; true ends the training there, with a checkpoint.
    shorten : bool
        Where the deadline comes before the end of the recipe, go through the rest of its schedule in the steps that
        fit: the training is shorter, and its learning rate comes to its end (`Stop.SHORTENED`). Where steps become
        quicker afterwards it gets longer again, and never longer than the recipe's, or ``longest``. Of no account
        without a deadline, for a training that pauses before its end, and where all steps fit.
    longest : float or None
        Where, with ``shorten``, the end of the recipe would come long before the deadline, go through its schedule in
        the steps that fit, up to so many epochs: for a recipe whose epochs are what seemed to fit before a step was
        made. None, or fewer epochs than the recipe's, makes nothing longer than the recipe.

    Examples
    --------
    >>> import time
    >>> Limits(deadline=time.monotonic() + 60).memory_bytes is None
    True
    """

    deadline: float | None = None
    memory_bytes: int | None = None
    epochs: float | None = None
    cancelled: Callable[[], bool] | None = None
    shorten: bool = False
    longest: float | None = None


@dataclass(frozen=True)
class Placement:
    """Where a training runs and how it is cut: all that depends on hardware.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or ``"auto"`` for a GPU if there is one.
    replicas : int
        Copies of the model that work on different samples (DDP).
    shards : int
        Processes over which each copy's weights, gradients and optimiser state are spread (FSDP2).
    micro_batch : int or None
        Samples that one process takes at a time; None finds the largest that fits.
    recompute : {"none", "blocks"}
        Whether activations inside of repeated blocks are computed again in the backward pass rather than kept.
    offload : bool
        Keep weights, gradients and optimiser state in the host's memory (GPU only).

    Examples
    --------
    >>> Placement(replicas=2, shards=4).world
    8
    """

    device: str = "auto"
    replicas: int = 1
    shards: int = 1
    micro_batch: int | None = None
    recompute: str = "none"
    offload: bool = False

    def __post_init__(self) -> None:
        if self.replicas < 1 or self.shards < 1:
            raise OptionError(f"replicas and shards must be at least 1, not {self.replicas} and {self.shards}.")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise OptionError(f"micro_batch must be at least 1, not {self.micro_batch}.")
        if self.recompute not in RECOMPUTE:
            raise NotFoundError.of("way to recompute", self.recompute, RECOMPUTE)

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.replicas * self.shards

    def describe(self) -> str:
        """Say it in a few words.

        Examples
        --------
        >>> Placement(replicas=2, recompute="blocks").describe()
        '2 replicas (DDP), recomputing blocks'
        >>> Placement().describe(), Placement(replicas=2, shards=4).describe()
        ('one process', '2 replicas of 4 shards (HSDP)')
        """
        if self.world == 1:
            words = "one process"
        elif self.shards == 1:
            words = f"{self.replicas} replicas (DDP)"
        elif self.replicas == 1:
            words = f"{self.shards} shards (FSDP)"
        else:
            words = f"{self.replicas} replicas of {self.shards} shards (HSDP)"
        words += ", recomputing blocks" if self.recompute != "none" else ""
        return words + (", offloaded to the host" if self.offload else "")


class Stop(str, Enum):
    """Why a training ended."""

    DONE = "done"
    """All epochs of the recipe are through, or more of them, where there was time (`Limits.longest`)."""
    PAUSED = "paused"
    """The epochs of the limits are through; it can go on."""
    SHORTENED = "shortened"
    """The schedule is through, in fewer steps than the recipe's, for the deadline was near."""
    TIME = "time"
    """The deadline was near."""
    PLATEAU = "plateau"
    """No better evaluation for ``patience`` evaluations."""
    CANCELLED = "cancelled"
    """Somebody asked it to."""


@dataclass(frozen=True)
class Point:
    """One evaluation on a learning curve.

    Parameters
    ----------
    step : int
        Optimiser steps until here.
    epoch : float
        Passes over the samples until here.
    seconds : float
        Time spent training and evaluating until here, over all sessions.
    lr : float
        Learning rate of the last step.
    train_loss : float
        Mean loss of the samples trained on since the last point, as they were met.
    loss, score : float or None
        On the validation samples; None without them (``score`` also without a `Score`).
    """

    step: int
    epoch: float
    seconds: float
    lr: float
    train_loss: float
    loss: float | None = None
    score: float | None = None

    @property
    def merit(self) -> float:
        """What is compared, larger is better: the score, else the negative validation loss, else the step."""
        if self.score is not None:
            return self.score
        return -self.loss if self.loss is not None else float(self.step)


@dataclass(frozen=True)
class Trained:
    """What a training gave. The module that was handed in holds the weights to use.

    Parameters
    ----------
    stop : Stop
        Why it ended.
    step : int
        Optimiser steps done, over all sessions.
    epoch : float
        Passes over the samples done.
    seconds : float
        Time spent, over all sessions.
    curve : tuple of Point
        Evaluations, over all sessions.
    best : Point or None
        The evaluation whose weights the module holds (with ``keep_best``), else the last; None before the first.
    losses : tuple of float
        Mean training loss of each optimiser step, over all sessions.
    placement : Placement
        Where it ran, with the micro-batch that was found.
    precision : str
        Of the arithmetic: ``fp32``, ``bf16`` or ``fp16``.
    peak_bytes : int
        Most memory that one process took for it, weights included: of the device on a GPU, resident on a CPU.
    samples_per_s : float
        Throughput of this session's training steps, the first one and evaluations left out; where the compiler was
        tried, of those since then.
    through : float
        Share of its schedule that it went through, 0 to 1, over all sessions.
    """

    stop: Stop
    step: int
    epoch: float
    seconds: float
    curve: tuple[Point, ...]
    best: Point | None
    losses: tuple[float, ...]
    placement: Placement
    precision: str
    peak_bytes: int
    samples_per_s: float
    through: float


EventKind = Literal["started", "point", "checkpoint", "micro_batch", "compiled", "lengthened", "warning", "ended"]


@dataclass(frozen=True)
class Event:
    """Something that happened in a training, for progress and logs.

    Parameters
    ----------
    kind : str
        ``started``, ``point`` (an evaluation), ``checkpoint``, ``micro_batch`` (found or halved), ``compiled`` (or
        eager again), ``lengthened`` (its schedule, see `Limits`), ``warning`` or ``ended``.
    step : int
        Optimiser steps until then.
    message : str
        One sentence for people.
    detail : mapping
        The numbers.
    """

    kind: EventKind
    step: int
    message: str
    detail: Mapping[str, Any] = field(default_factory=dict)


OnEvent = Callable[[Event], None]
"""Called from the training thread of the process that called `train`; must return quickly."""
