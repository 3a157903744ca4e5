"""A training in one process of its group, from the resume to the last checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tidemill.core.errors import DataError, TrialError, WorkspaceError
from tidemill.train import checkpoint
from tidemill.train import device as devices
from tidemill.train.blocks import recomputing
from tidemill.train.checkpoint import Progress
from tidemill.train.compilation import Compilation, News
from tidemill.train.cursor import cursor_of, generator
from tidemill.train.evaluate import evaluate, stack
from tidemill.train.feed import Feed
from tidemill.train.micro import NoMemory, largest_fitting
from tidemill.train.optim import state_by_name
from tidemill.train.place import Group, Placed, unchanged_buffers, whole
from tidemill.train.saving import Pace, Saving
from tidemill.train.schedule import bent, is_due, steps_of
from tidemill.train.types import (
    Event,
    EventKind,
    Limits,
    Loss,
    OnEvent,
    Point,
    Recipe,
    Samples,
    Score,
    Stop,
    Trained,
)
from tidemill.train.work import Worker, no_memory

_FAILURES = (
    RuntimeError, MemoryError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError,
    OSError,
)  # fmt: skip
"""What modules, losses and loaders raise when something is wrong with them."""
_MARGIN = 1.2
"""How much longer than the last ones a step and an evaluation may take, when the deadline is foreseen."""
_TOLD = 0.1
"""After this share of the time steps have told how long the others will take."""
_FILLED = 0.96
"""Share of the time that is left which a shortened training plans to fill."""
_SPARE = 0.1
"""Where so much of all its time would be left over, because steps became quicker, it is lengthened again."""


@dataclass(frozen=True)
class Task:
    """All that was asked for; travels to other processes as it is.

    Parameters
    ----------
    module, loss, samples, recipe, validation, score, limits, seed, folder, diverged, saving
        As `tidemill.train.runtime.train` was given them.
    """

    module: nn.Module
    loss: Loss
    samples: Samples
    recipe: Recipe
    validation: Samples | None
    score: Score | None
    limits: Limits
    seed: int
    folder: Path | None
    diverged: Path | None = None
    saving: Saving | None = None


class Session:
    """One process's part in a training.

    Parameters
    ----------
    task : Task
        What is asked for.
    group : Group
        With whom; it knows the placement.
    on_event : callable or None
        Told by the first process.
    clock : callable
        Gives seconds that only grow, the same in all processes (`time.monotonic`).
    """

    def __init__(
        self, task: Task, group: Group, on_event: OnEvent | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.task = task
        self.group = group
        self.recipe = task.recipe
        self._tell_whom = on_event
        self._clock = clock
        self._began = clock()
        self._samples = len(task.samples)
        if not self._samples:
            raise DataError("There are no samples to train on.")
        self._steps = steps_of(self.recipe.epochs, self._samples, self.recipe.batch)
        self._pause = self._pause_at()
        self._cursor = cursor_of(task.samples, self.recipe.batch, task.seed)
        self._micro_batch = 0
        self._best: dict[str, Tensor] = {}
        self._at = Progress(samples=self._samples, batch=self.recipe.batch, seed=task.seed, world=group.world)
        self._losses: list[float] = []
        self._since_point = 0
        self._saved_at = 0
        self._saving = task.saving or Saving(self.recipe.checkpoint_s)
        self._pace = Pace(self._saving, self._began)
        self._unsaved = False
        self._step_s = self._evaluation_s = self._trained_s = 0.0
        self._trained_samples = 0
        self._warm_clock = self._began
        self._warm = False
        devices.give_back(group.device)
        self._resident = devices.resident_bytes() - _size(task.module)
        self._flags = (False, False, False)
        self._rate = 0.0
        self._compilation = Compilation(self.recipe.compile, task.module, group, _FAILURES)

    def run(self) -> Trained:
        """Train to the end, to a pause, or to a limit; the module holds the weights to use afterwards."""
        devices.forget_peak(self.group.device)
        with ExitStack() as stack:
            graphics = [self.group.device] if self.group.device.type == "cuda" else []
            stack.enter_context(torch.random.fork_rng(devices=graphics))  # passes are seeded one by one
            stack.enter_context(recomputing(self.task.module, self.group.placement.recompute))
            feed = Feed(self.task.samples, self.group.device, self.task.seed)
            stack.callback(feed.close)
            stack.callback(self._compilation.close)
            with self._explaining():
                self._placed = self._place()
            self._worker = Worker(
                self._placed,
                self.task.loss,
                self.recipe,
                self._cursor,
                feed,
                self.group,
                self._steps,
                self.task.diverged,
            )
            self._resume()
            with self._explaining():
                self._choose_micro_batch()
            self._tell("started", f"Training on {self.group.device}: {self.group.placement.describe()}.")
            self._hear(self._compilation.begin(self._rehearse))
            stop = self._loop()
            self._end(stop)
        return self._trained(stop)

    # ------------------------------------------------------------------------------------------------- the loop

    def _loop(self) -> Stop:
        while True:
            stop = self._reason_to_stop()
            if stop is not None:
                return stop
            self._step()
            self._weigh_compiler()
            self._exchange()
            if self._evaluation_is_due():
                self._evaluate()
            if self._flags[2]:
                self._save()

    def _step(self) -> None:
        began = self._clock()
        while True:
            try:
                done = self._worker.step(self._at.step, self._micro_batch, self._place_of_step())
                break
            except _FAILURES as error:
                if self._may_be_the_compiler(error):
                    self._hear(self._compilation.give_up(error))
                    continue
                trouble = self._explained(error)
                if trouble is not None:
                    raise trouble from error
            self._halve()  # outside of the handler, which holds the failed pass's tensors
        self._step_s = self._clock() - began
        if self._warm:  # the first step also makes what later ones use again
            self._trained_s += self._step_s
            self._trained_samples += self.recipe.batch
        else:
            self._warm_clock = self._clock()
        self._warm = True
        self._rate = done.rate
        self._losses.append(done.loss)
        self._at = replace(self._at, step=self._at.step + 1, scale=self._worker.scale)
        if not done.moved:
            self._tell("warning", f"Gradients overflowed; the loss is scaled by {self._worker.scale:g} from now on.")

    def _weigh_compiler(self) -> None:
        """Compile where it may pay, and be eager again where it doesn't."""
        steps = min(self._end_step, self._pause) - self._at.step
        deadline = self.task.limits.deadline
        left_s = math.inf if deadline is None else deadline - self._clock()
        self._hear(self._compilation.after(self._step_s, steps, left_s, self._rehearse))

    def _rehearse(self) -> float:
        """Make the passes of a step, in both sizes of its pieces, without moving anything; give the seconds."""
        began = self._clock()
        share = -(-self.recipe.batch // self.group.world)
        inner = self._placed.inner.train()
        with unchanged_buffers(inner), self._placed.accumulating(last=False):
            for size in filter(None, (self._micro_batch, share % self._micro_batch)):
                self._worker.trial(size)
        return self._clock() - began

    def _hear(self, news: News | None) -> None:
        """Tell what became of the compiler; from here on steps take another time."""
        if news is not None:
            self._tell("warning" if news.failed else "compiled", news.message)
            self._trained_s, self._trained_samples, self._warm_clock = 0.0, 0, self._clock()

    def _may_be_the_compiler(self, error: BaseException) -> bool:
        """Whether eager passes may do; of several processes one alone can't make a step anew."""
        alone = self.group.world == 1 and not self.group.is_sharded
        return alone and self._compilation.is_on and not (devices.is_out_of_memory(error) or devices.is_lost(error))

    def _exchange(self) -> None:
        """Let all processes see the same reasons: time, a wish to end, a checkpoint that is due."""
        limits = self.task.limits
        late = limits.deadline is not None and self._foreseen() > limits.deadline
        ended = limits.cancelled is not None and limits.cancelled()
        due = self._checkpoint_is_due()
        end = 0 if late or not self.group.is_first else self._end_in_time()
        late_all, ended_all, due_all, end_all = self.group.sum([late, ended, due, end])
        self._flags = (late_all > 0, ended_all > 0, due_all > 0)
        if end_all:
            self._end_at(int(end_all))

    def _foreseen(self) -> float:
        """When the training could be over, were the next step the last."""
        return self._clock() + _MARGIN * (self._step_s + self._next_evaluation_s())

    def _next_evaluation_s(self) -> float:
        if self._evaluation_s or self.task.validation is None:
            return self._evaluation_s
        return self._step_s * len(self.task.validation) / self.recipe.batch / 2  # forward only

    # ------------------------------------------------------------------------------------------- a nearer end

    @property
    def _end_step(self) -> int:
        """Steps of the training, as far as is known now."""
        return self._steps if self._at.bend is None else self._at.bend.end

    def _place_of_step(self) -> float | None:
        """Where on the schedule the next step stands, where it was bent."""
        bend = self._at.bend
        return None if bend is None else bend.place_of(self._at.step, self._steps)

    def _end_in_time(self) -> int:
        """The step at which the training has to end to be through in time, where it ends at another one now; else 0."""
        limits, warm = self.task.limits, self._trained_samples // self.recipe.batch
        if not limits.shorten or limits.deadline is None or self._pause < self._steps or not warm:
            return 0
        now, evaluation = self._clock(), self._next_evaluation_s()
        if now - self._began < _TOLD * (limits.deadline - self._began):
            return 0
        every = self.recipe.evaluate_every * self._samples / self.recipe.batch
        # Checkpoints are in what all steps together took, and so are evaluations once there were some.
        step_s = max(self._trained_s / warm + evaluation / every, (now - self._warm_clock) / warm)
        left_s, rest = limits.deadline - now, self._end_step - self._at.step
        spare_s = evaluation + (_MARGIN - 1) * (self._step_s + evaluation)
        over_s = left_s - spare_s - rest * step_s
        fitting = max(1, int((_FILLED * left_s - spare_s) / step_s))
        if over_s > _SPARE * (self._at.seconds + limits.deadline - self._began) and self._at.bend is not None:
            end = min(self._steps, self._at.step + fitting)
            return end if end > self._end_step else 0
        return self._at.step + fitting if over_s < 0 and fitting < rest else 0

    def _end_at(self, end: int) -> None:
        if self._at.bend is None:
            self._tell("warning", f"There is no time for all {self._steps} steps: the schedule ends after {end}.")
        self._at = replace(self._at, bend=bent(self._at.bend, self._at.step, self._steps, end))

    def _reason_to_stop(self) -> Stop | None:
        late, ended, _ = self._flags
        if self._at.step >= self._end_step:
            return Stop.DONE if self._at.bend is None else Stop.SHORTENED
        if self._at.step >= self._pause:
            return Stop.PAUSED
        if self.recipe.patience is not None and self._at.stale >= self.recipe.patience:
            return Stop.PLATEAU
        if ended:
            return Stop.CANCELLED
        if late:  # the end that was planned is a few steps away
            return Stop.TIME if self._at.bend is None else Stop.SHORTENED
        return None

    def _pause_at(self) -> int:
        if self.task.limits.epochs is None:
            return self._steps
        return min(self._steps, steps_of(self.task.limits.epochs, self._samples, self.recipe.batch))

    # ------------------------------------------------------------------------------------------------ evaluation

    def _evaluation_is_due(self) -> bool:
        step = self._at.step
        every = is_due(step, self.recipe.evaluate_every, self._samples, self.recipe.batch)
        return every or step in (self._end_step, self._pause)

    def _evaluate(self) -> None:
        began = self._clock()
        point = Point(
            step=self._at.step,
            epoch=self._at.step * self.recipe.batch / self._samples,
            seconds=self._at.seconds + began - self._began,
            lr=self._rate,
            train_loss=_mean(self._losses[self._since_point :]),
        )
        self._since_point = len(self._losses)
        if self.task.validation is None:
            self._at = replace(self._at, curve=(*self._at.curve, point), best=point)
        else:
            average = self._worker.average
            self._placed.agree_on_buffers()
            if average is not None:
                average.swap()
            with self._explaining():
                point = self._measured(point, self.task.validation)
            self._compare(point)
            if average is not None:
                average.swap()
            self._evaluation_s = self._clock() - began
        self._tell("point", f"Epoch {point.epoch:.2f}: training loss {point.train_loss:.4g}.", point=point)

    def _measured(self, point: Point, validation: Samples) -> Point:
        """Measure the weights that stand in the module."""
        inner = self._placed.inner
        inner.eval()
        with self._compilation.eager():
            total, count, given, wanted = evaluate(
                inner,
                validation,
                self.task.loss,
                self.task.score,
                micro_batch=2 * self._micro_batch,
                device=self.group.device,
                precision=self._worker.precision,
                rank=self.group.rank,
                world=self.group.world,
            )
        self._placed.settle()
        inner.train()
        total, count_all = self.group.sum([total, count])
        score = self._scored(given, wanted)
        return replace(point, loss=total / count_all if count_all else float("nan"), score=score)

    def _scored(self, given: list[Any], wanted: list[Any]) -> float | None:
        if self.task.score is None:
            return None
        parts = self.group.gather((given, wanted))
        value = None
        if self.group.is_first:
            outputs = stack([array for some, _ in parts for array in some])
            targets = stack([array for _, some in parts for array in some])
            value = float(self.task.score(outputs, targets))
        return float(self.group.share(value))

    def _compare(self, point: Point) -> None:
        best = self._at.best
        better = best is None or point.merit > best.merit or best.merit != best.merit
        self._at = replace(
            self._at,
            curve=(*self._at.curve, point),
            best=point if better else best,
            stale=0 if better else self._at.stale + 1,
        )
        if better and self.recipe.keep_best:
            self._keep_best()

    @torch.no_grad()
    def _keep_best(self) -> None:
        now = self._placed.tensors
        if not self._best:
            self._best = {name: tensor.clone() for name, tensor in now.items()}
            return
        for name, tensor in now.items():
            self._best[name].copy_(tensor)

    # ------------------------------------------------------------------------------------- checkpoint and resume

    def _tensors(self, *, named: set[str] | None = None) -> dict[str, Tensor]:
        """Give all live tensors of the training by name; ``named`` makes those of a checkpoint that is to be read."""
        worker, found = self._worker, {f"model.{n}": t for n, t in self._placed.tensors.items()}
        wanted = {n.removeprefix("optimizer.") for n in named or () if n.startswith("optimizer.")}
        state = state_by_name(worker.optimizer, worker.named, self.recipe, make=wanted)
        found.update({f"optimizer.{n}": t for n, t in state.items()})
        if worker.average is not None:
            found.update({f"average.{n}": t for n, t in worker.average.tensors.items()})
        if named is not None and any(n.startswith("best.") for n in named):
            self._keep_best()
        found.update({f"best.{n}": t for n, t in self._best.items()})
        return found

    def _resume(self) -> None:
        folder = self.task.folder
        found = checkpoint.newest(folder) if folder is not None else None
        if found is None:
            return
        path, was = found
        shapes = {n: tuple(t.shape) for n, t in self._placed.tensors.items()}
        checkpoint.check_fits(path, was, self._at, shapes)
        tensors = self._tensors(named=set(was.tensors))
        checkpoint.load(path, {n: t for n, t in tensors.items() if n in was.tensors}, self.group)
        if self._worker.average is not None and not any(n.startswith("average.") for n in was.tensors):
            self._worker.average.restart()
        same = was.world == self.group.world
        self._at = replace(was, world=self.group.world, micro_batch=was.micro_batch if same else 0, tensors={})
        self._losses = list(was.losses)
        self._since_point = was.curve[-1].step if was.curve else 0
        self._saved_at = was.step
        self._worker.scale = was.scale if self._worker.precision == "fp16" else 1.0
        self._pace.restart(self._clock())
        self._tell("checkpoint", f"Going on from step {was.step}.", path=str(path), before_s=was.seconds)

    def _checkpoint_is_due(self) -> bool:
        """Whether the first process, whose word counts, wants a checkpoint."""
        if self.task.folder is None or not self.group.is_first or not self._pace.is_due(self._clock()):
            return False
        if not self._pace.is_measured:
            self._pace.expect(checkpoint.nbytes(self._tensors()))
        return self._pace.is_due(self._clock())

    def _save(self) -> None:
        folder = self.task.folder
        if folder is None or self._at.step == self._saved_at:  # before a first step there is nothing to go on from
            return
        self._placed.agree_on_buffers()
        now = replace(
            self._at,
            seconds=self._at.seconds + self._clock() - self._began,
            losses=tuple(self._losses),
            micro_batch=self._micro_batch,
        )
        began = self._clock()
        try:
            path = checkpoint.save(folder, now, self._tensors(), self.group)
        except WorkspaceError as error:
            if self._saving.required:
                raise
            self._go_on_unsaved(error)
            return
        finally:
            self._pace.wrote(self._clock(), self._clock() - began)
        self._saved_at, self._unsaved = self._at.step, False
        self._tell("checkpoint", f"Checkpoint at step {self._at.step}.", path=str(path))

    def _go_on_unsaved(self, error: WorkspaceError) -> None:
        if not self._unsaved:  # of a disk that stays full it is said once
            self._tell("warning", f"{error.message} The training goes on without a checkpoint.", unsaved=error.where)
        self._unsaved = True

    # -------------------------------------------------------------------------------------- placement and memory

    def _place(self) -> Placed:
        """Bring the module to its devices; replicas must know beforehand whether all parameters get gradients."""
        module, group = self.task.module, self.group
        if group.world == 1 or group.is_sharded:
            return Placed(module, group)
        module.to(group.device).train()
        cursor = self._cursor.indices(0)
        with unchanged_buffers(module):
            inputs, targets = self.task.samples.batch(cursor[:2], train=False, rng=generator(0, 0, 0))
            inputs = {n: t.to(group.device) for n, t in inputs.items()}
            self.task.loss(module(**inputs), targets.to(group.device)).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            unused = any(p.requires_grad and p.grad is None for p in module.parameters())
        return Placed(module, group, unused=unused)

    def _choose_micro_batch(self) -> None:
        share = -(-self.recipe.batch // self.group.world)
        wanted = self.group.placement.micro_batch or self._at.micro_batch
        if not wanted and self.group.world == 1:
            wanted = self._found_micro_batch(share)
        self._micro_batch = min(wanted or share, share)
        self.group.placement = replace(self.group.placement, micro_batch=self._micro_batch)

    def _found_micro_batch(self, share: int) -> int:
        device, worker = self.group.device, self._worker
        devices.give_back(device)
        free = devices.free_bytes(device, self.task.limits.memory_bytes)
        free -= _size(self._placed.inner) * (2 if self.recipe.optimizer != "sgd" else 1)  # what the optimiser will take

        devices.forget_peak(device)
        before = devices.peak_bytes(device)

        def trial(size: int) -> int:
            worker.optimizer.zero_grad(set_to_none=True)
            devices.forget_peak(device)
            try:
                worker.trial(size)
            except (RuntimeError, MemoryError) as error:
                if not devices.is_out_of_memory(error):
                    raise
            else:
                return devices.peak_bytes(device) - before
            worker.optimizer.zero_grad(set_to_none=True)
            devices.give_back(device)
            raise NoMemory

        self._placed.inner.train()
        with unchanged_buffers(self._placed.inner):
            found = largest_fitting(trial, share, free)
        self._tell("micro_batch", f"Pieces of {found} samples.", micro_batch=found)
        return found

    def _halve(self) -> None:
        self._worker.optimizer.zero_grad(set_to_none=True)
        devices.give_back(self.group.device)
        self._micro_batch //= 2
        self.group.placement = replace(self.group.placement, micro_batch=self._micro_batch)
        self._tell(
            "micro_batch",
            f"Out of memory; pieces of {self._micro_batch} samples from now on, the batch stays {self.recipe.batch}.",
            micro_batch=self._micro_batch,
        )

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:
            raise (self._explained(error) or no_memory(self.group, self._micro_batch)) from error

    def _explained(self, error: BaseException) -> Exception | None:
        """Say what an error of a pass means; None where smaller pieces may help."""
        group = self.group
        if devices.is_out_of_memory(error):
            return None if group.world == 1 and self._micro_batch > 1 else no_memory(group, self._micro_batch)
        if devices.is_lost(error):
            return devices.lost(error, group.device, self._at.step + 1, resumable=self.task.folder is not None)
        line = str(error).strip().splitlines()
        what = line[0][:300] if line else ""
        if not line or not isinstance(error, (RuntimeError, ValueError)):  # their words alone say little
            what = f"{type(error).__name__}: {what}"
        return TrialError(f"The module failed at step {self._at.step + 1}: {what}.", hint=self._without_compiler())

    def _without_compiler(self) -> str | None:
        return "It was compiled: try compile='never'." if self._compilation.is_on else None

    # ---------------------------------------------------------------------------------------------------- the end

    def _end(self, stop: Stop) -> None:
        if stop is Stop.CANCELLED:
            self._save()  # who wants an end may not wait for the evaluation
        evaluated = bool(self._at.curve) and self._at.curve[-1].step == self._at.step
        if not evaluated and self._at.step:
            self._evaluate()
            self._saved_at = 0  # a checkpoint of this step lacks its point, and maybe the best weights
        if self.group.share(self._pace.is_due_at_end(self._clock())):
            self._save()
        self._use_best()
        self._tell("ended", f"Ended after {self._at.step} steps: {stop.value}.", stop=stop.value)

    @torch.no_grad()
    def _use_best(self) -> None:
        self._placed.agree_on_buffers()
        if self._best:
            now = self._placed.tensors
            for name, tensor in self._best.items():
                now[name].copy_(tensor)
        elif self._worker.average is not None and self._at.step:
            self._worker.average.swap()
        self._worker.optimizer.zero_grad(set_to_none=True)
        self._placed.inner.eval()

    def whole_state(self) -> dict[str, Tensor]:
        """Give the module's tensors as one process would have them, on the CPU; all processes must ask together."""
        return {name: whole(tensor).cpu() for name, tensor in self._placed.tensors.items()}

    def _trained(self, stop: Stop) -> Trained:
        return Trained(
            stop=stop,
            step=self._at.step,
            epoch=self._at.step * self.recipe.batch / self._samples,
            seconds=self._at.seconds + self._clock() - self._began,
            curve=self._at.curve,
            best=self._at.best,
            losses=tuple(self._losses),
            placement=replace(self.group.placement, device=str(self.group.device)),
            precision=self._worker.precision,
            peak_bytes=int(max(self.group.gather(self._peak()))),
            samples_per_s=self._speed(),
        )

    def _peak(self) -> int:
        """Bytes that the training took here: on a CPU without what the process held before, but with the weights."""
        peak = devices.peak_bytes(self.group.device)
        return peak if self.group.device.type == "cuda" else max(0, peak - self._resident)

    def _speed(self) -> float:
        if self._trained_s:
            return self._trained_samples / self._trained_s
        return self.recipe.batch / self._step_s if self._step_s else 0.0

    def _tell(self, kind: EventKind, message: str, **detail: Any) -> None:
        if self._tell_whom is not None and self.group.is_first:
            self._tell_whom(Event(kind, self._at.step, message, detail))


def _size(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _mean(values: list[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]  # steps that overflowed were left out
    return sum(finite) / len(finite) if finite else float("nan")
