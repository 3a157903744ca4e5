"""The kind of job ``train``: a plain module, trained where the planner says, gone on with where it was killed.

Whoever queues it names Python that a worker runs. That is for people on the machine, who can run it anyhow; over HTTP
it is refused, see `tidemill.sdk.jobs`.
"""

from __future__ import annotations

import sys
import time as clock
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.jobs.queue.context import JobContext, JobStopped
from tidemill.sdk.job_time import time_s
from tidemill.train.types import Event, Limits, Placement, Recipe, Stop, Trained

if TYPE_CHECKING:
    from torch import nn

_RUN = "training"
"""Folder of the checkpoints in that of the job."""


def review(
    *,
    source: str,
    out: str | None = None,
    plan: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    time: str | float | None = None,
    seed: int = 0,
) -> None:
    """Refuse what can't be trained, while somebody listens.

    Raises
    ------
    OptionError, NotFoundError
        For a recipe that can't be used, or a file that is not there.
    """
    _recipe(Recipe(), recipe)
    place = source.rpartition(":")[0]
    if place.endswith(".py") and not Path(place).expanduser().is_file():
        raise NotFoundError(f"There is no file {place}.", where="source")


def train(
    context: JobContext,
    *,
    source: str,
    out: str | None = None,
    plan: str | None = None,
    recipe: Mapping[str, Any] | None = None,
    time: str | float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Train the model that a Python function defines; another attempt goes on from the newest checkpoint.

    Parameters
    ----------
    context : JobContext
        Of the job; its time and memory are limits. Checkpoints lie in its folder: a machine that has not got them
        begins anew.
    source : str
        As in `tidemill.sdk.plan.plan_training`.
    out : str, optional
        File for the weights (safetensors).
    plan : str, optional
        A plan's JSON whose placement is taken; else the planner chooses one for the worker's machine.
    recipe : mapping, optional
        Entries of `Recipe` that replace the function's.
    time : str or float, optional
        Of all attempts together; the training ends within it, with the weights that it has.
    seed : int
        Of initial weights, order and augmentation.

    Returns
    -------
    dict
        Why it ended, how far it came, its last losses, and where it ran.
    """
    from tidemill.train.extra import need_torch

    need_torch("to train deep models")
    import torch

    from tidemill.sdk.plan import load_definition
    from tidemill.train import runtime

    placement = _placement(context, source, plan, recipe)
    torch.manual_seed(seed)
    module, loss, samples, base, validation = load_definition(source)
    if any(tensor.is_meta for tensor in module.parameters()):
        raise OptionError("The module lies on the meta device and has no weights.", where=source)
    how = _recipe(base, recipe)
    seconds = time_s(context, time)
    deadline = None if seconds is None else clock.monotonic() + seconds
    most = context.device_bytes if context.devices else context.memory_bytes
    limits = Limits(deadline=deadline, memory_bytes=most or None, cancelled=lambda: context.stopping)
    per_epoch = max(1.0, len(samples) / how.batch)

    def hear(event: Event) -> None:
        _say(f"step {event.step}: {event.message}")
        context.progress(event.step / (how.epochs * per_epoch), event.message)

    trained = runtime.train(
        module, loss, samples, how, validation=validation, limits=limits, seed=seed, folder=context.checkpoint / _RUN,
        plan=placement, on_event=hear,
    )  # fmt: skip
    if trained.stop is Stop.CANCELLED and not context.out_of_time:
        raise JobStopped
    if out is not None:
        _save(module, Path(out))
    return _told(trained, out)


def _recipe(base: Recipe, given: Mapping[str, Any] | None) -> Recipe:
    try:
        return Recipe.from_json({**base.to_json(), **(given or {})})
    except TypeError as error:
        raise OptionError(f"The recipe has a value of the wrong type: {error}.", where="recipe") from error


def _placement(context: JobContext, source: str, plan: str | None, recipe: Mapping[str, Any] | None) -> Placement:
    """That of the plan, or the one that the planner chooses here and now."""
    from tidemill.sdk.plan import plan_training

    found = plan_training(source, given=plan, workspace=context.workspace, **dict(recipe or {}))
    _say(f"{found['describe']}: {found['reason']}")
    return Placement(**found["placement"])


def _say(text: str) -> None:
    """Put a line into the job's log."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _save(module: nn.Module, out: Path) -> None:
    """Write the weights whole: to another name first."""
    from safetensors.torch import save_model

    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.part")
    save_model(module, str(aside))
    aside.replace(out)


def _told(trained: Trained, out: str | None) -> dict[str, Any]:
    return {
        "stop": trained.stop.value,
        "step": trained.step,
        "epoch": trained.epoch,
        "seconds": round(trained.seconds, 3),
        "loss": trained.losses[-1] if trained.losses else None,
        "best": None if trained.best is None else asdict(trained.best),
        "placement": asdict(trained.placement),
        "precision": trained.precision,
        "peak_bytes": trained.peak_bytes,
        "out": out,
    }
