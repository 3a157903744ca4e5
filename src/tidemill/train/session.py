"""A training in one process of its group, from the resume to the last checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tidemill.core.errors import DataError
from tidemill.train import device as devices
from tidemill.train.blocks import recomputing
from tidemill.train.checkpoint import Progress
from tidemill.train.compilation import Compilation, News
from tidemill.train.course import course_of
from tidemill.train.cursor import cursor_of
from tidemill.train.evaluate import evaluate, put_together
from tidemill.train.feed import Feed
from tidemill.train.keeping import Keeper
from tidemill.train.memory import find_micro_batch, size_of
from tidemill.train.place import Group, place, unchanged_buffers, whole
from tidemill.train.schedule import bent, is_due
from tidemill.train.task import Task
from tidemill.train.tempo import Tempo
from tidemill.train.trouble import FAILURES, explained
from tidemill.train.types import Event, EventKind, OnEvent, Point, Samples, Stop, Trained
from tidemill.train.work import Worker, no_memory


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
        self._samples = len(task.samples)
        if not self._samples:
            raise DataError("There are no samples to train on.")
        checks = 0 if task.validation is None else len(task.validation)
        self._tempo = Tempo(self.recipe, task.limits, self._samples, checks, clock)
        self._course = course_of(self.recipe, task.limits, self._samples)
        self._cursor = cursor_of(task.samples, self.recipe.batch, task.seed)
        self._micro_batch = 0
        self._at = Progress(samples=self._samples, batch=self.recipe.batch, seed=task.seed, world=group.world)
        self._losses: list[float] = []
        self._since_point = 0
        devices.give_back(group.device)
        self._resident = devices.resident_bytes() - size_of(task.module)
        self._flags = (False, False, False)
        self._rate = 0.0
        self._compilation = Compilation(self.recipe.compile, task.module, group, FAILURES)

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
                self._placed = place(self.task.module, self.task.loss, self.task.samples, self.group, self._cursor)
            stack.callback(self._placed.release)
            self._worker = Worker(
                self._placed,
                self.task.loss,
                self.recipe,
                self._cursor,
                feed,
                self.group,
                self._course.steps,
                self.task.diverged,
            )
            self._keeper = Keeper(
                self.task, self._placed, self._worker, self.group, self._tempo.began, self._clock, self._tell
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
                done = self._worker.step(self._at.step, self._micro_batch, self._place_of_step)
                break
            except FAILURES as error:
                if self._may_be_the_compiler(error):
                    self._hear(self._compilation.give_up(error))
                    continue
                trouble = self._explained(error)
                if trouble is not None:
                    raise trouble from error
            self._halve()  # outside of the handler, which holds the failed pass's tensors
        self._tempo.stepped(began)
        self._rate = done.rate
        self._losses.append(done.loss)
        self._at = replace(self._at, step=self._at.step + 1, scale=self._worker.scale)
        if not done.moved:
            self._tell("warning", f"Gradients overflowed; the loss is scaled by {self._worker.scale:g} from now on.")

    def _weigh_compiler(self) -> None:
        """Compile where it may pay, and be eager again where it doesn't."""
        steps = self._course.halt(self._at.bend) - self._at.step
        self._hear(self._compilation.after(self._tempo.step_s, steps, self._tempo.left_s, self._rehearse))

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
            self._tempo.restart()

    def _may_be_the_compiler(self, error: BaseException) -> bool:
        """Whether eager passes may do; of several processes one alone can't make a step anew."""
        alone = self.group.world == 1 and not self.group.is_sharded
        return alone and self._compilation.is_on and not (devices.is_out_of_memory(error) or devices.is_lost(error))

    def _exchange(self) -> None:
        """Let all processes see the same reasons: time, a wish to end, a checkpoint that is due."""
        cancelled, late = self.task.limits.cancelled, self._tempo.is_late
        ended = cancelled is not None and cancelled()
        due = self._keeper.is_due()
        end = 0 if late or not self.group.is_first else self._end_in_time()
        late_all, ended_all, due_all, end_all = self.group.sum([late, ended, due, end])
        self._flags = (late_all > 0, ended_all > 0, due_all > 0)
        if end_all:
            self._end_at(int(end_all))

    # ------------------------------------------------------------------------------------------- another end

    @property
    def _place_of_step(self) -> float:
        """Where on the schedule the next step stands."""
        return self._course.place(self._at.bend, self._at.step)

    def _end_in_time(self) -> int:
        """The step at which the training has to end to be through in time, where it ends at another one now; else 0."""
        if self._course.pauses:
            return 0
        return self._tempo.end_in_time(self._at, self._course.end(self._at.bend), self._course.most)

    def _end_at(self, end: int) -> None:
        steps = self._course.steps
        if self._at.bend is None and end < steps:
            self._tell("warning", f"There is no time for all {steps} steps: the schedule ends after {end}.")
        elif self._at.bend is None:
            self._tell("lengthened", f"There is time for more than {steps} steps: the schedule ends after {end}.")
        self._at = replace(self._at, bend=bent(self._at.bend, self._at.step, steps, end))

    def _reason_to_stop(self) -> Stop | None:
        late, ended, _ = self._flags
        end = self._course.end(self._at.bend)
        through = Stop.SHORTENED if end < self._course.steps else Stop.DONE
        if self._at.step >= end:
            return through
        if self._at.step >= self._course.halt(self._at.bend):
            return Stop.PAUSED
        if self.recipe.patience is not None and self._at.stale >= self.recipe.patience:
            return Stop.PLATEAU
        if ended:
            return Stop.CANCELLED
        if late:  # the end that was planned is a few steps away
            return Stop.TIME if self._at.bend is None else through
        return None

    # ------------------------------------------------------------------------------------------------ evaluation

    def _evaluation_is_due(self) -> bool:
        step = self._at.step
        every = is_due(step, self.recipe.evaluate_every, self._samples, self.recipe.batch)
        return every or step == self._course.halt(self._at.bend)

    def _evaluate(self) -> None:
        began = self._clock()
        point = Point(
            step=self._at.step,
            epoch=self._at.step * self.recipe.batch / self._samples,
            seconds=self._at.seconds + began - self._tempo.began,
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
            self._tempo.evaluation_s = self._clock() - began
        self._tell("point", f"Epoch {point.epoch:.2f}: training loss {point.train_loss:.4g}.", point=point)

    def _measured(self, point: Point, validation: Samples) -> Point:
        """Measure the weights that stand in the module."""
        inner = self._placed.inner
        inner.eval()
        with self._compilation.eager():
            share = evaluate(
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
        loss, score = put_together(*share, self.task.score, self.group)
        return replace(point, loss=loss, score=score)

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
            self._keeper.keep_best()

    # ------------------------------------------------------------------------------------- checkpoint and resume

    def _resume(self) -> None:
        found = self._keeper.resume(self._at)
        if found is None:
            return
        path, was = found
        same = was.world == self.group.world
        self._at = replace(was, world=self.group.world, micro_batch=was.micro_batch if same else 0, tensors={})
        self._losses = list(was.losses)
        self._since_point = was.curve[-1].step if was.curve else 0
        self._tell("checkpoint", f"Going on from step {was.step}.", path=str(path), before_s=was.seconds)

    def _save(self) -> None:
        self._keeper.save(
            replace(self._at, seconds=self._seconds, losses=tuple(self._losses), micro_batch=self._micro_batch)
        )

    @property
    def _seconds(self) -> float:
        """Time spent, over all sessions."""
        return self._at.seconds + self._clock() - self._tempo.began

    # -------------------------------------------------------------------------------------- placement and memory

    def _choose_micro_batch(self) -> None:
        share = -(-self.recipe.batch // self.group.world)
        wanted = self.group.placement.micro_batch or self._at.micro_batch
        if not wanted and self.group.world == 1:
            wanted = find_micro_batch(self._worker, self._placed, self.recipe, self.task.limits, share)
            self._tell("micro_batch", f"Pieces of {wanted} samples.", micro_batch=wanted)
        self._micro_batch = min(wanted or share, share)
        self.group.placement = replace(self.group.placement, micro_batch=self._micro_batch)

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
        except FAILURES as error:
            raise (self._explained(error) or no_memory(self.group, self._micro_batch)) from error

    def _explained(self, error: BaseException) -> Exception | None:
        """Say what an error of a pass means; None where smaller pieces may help."""
        saving, step = self.task.saving, self._at.step + 1
        resumable = self.task.folder is not None and (saving is None or saving.required)
        compiled = self._compilation.is_on
        return explained(error, self.group, step, self._micro_batch, resumable=resumable, compiled=compiled)

    # ---------------------------------------------------------------------------------------------------- the end

    def _end(self, stop: Stop) -> None:
        if stop is Stop.CANCELLED:
            self._save()  # who wants an end may not wait for the evaluation
        evaluated = bool(self._at.curve) and self._at.curve[-1].step == self._at.step
        if not evaluated and self._at.step:
            self._evaluate()
            self._keeper.forget_step()  # its checkpoint lacks its point, and maybe the best weights
        if self._keeper.is_due_at_end():
            self._save()
        self._keeper.use_best(stepped=self._at.step > 0)
        self._worker.optimizer.zero_grad(set_to_none=True)
        self._placed.inner.eval()
        self._tell("ended", f"Ended after {self._at.step} steps: {stop.value}.", stop=stop.value)

    def whole_state(self) -> dict[str, Tensor]:
        """Give the module's tensors as one process would have them, on the CPU; all processes must ask together."""
        return {name: whole(tensor).cpu() for name, tensor in self._placed.tensors.items()}

    def _trained(self, stop: Stop) -> Trained:
        return Trained(
            stop=stop,
            step=self._at.step,
            epoch=self._at.step * self.recipe.batch / self._samples,
            seconds=self._seconds,
            curve=self._at.curve,
            best=self._at.best,
            losses=tuple(self._losses),
            placement=replace(self.group.placement, device=str(self.group.device)),
            precision=self._worker.precision,
            peak_bytes=int(max(self.group.gather(self._peak()))),
            samples_per_s=self._tempo.samples_per_s,
            through=self._course.through(self._at.bend, self._at.step),
        )

    def _peak(self) -> int:
        """Bytes that the training took here: on a CPU without what the process held before, but with the weights."""
        peak = devices.peak_bytes(self.group.device)
        return peak if self.group.device.type == "cuda" else max(0, peak - self._resident)

    def _tell(self, kind: EventKind, message: str, **detail: Any) -> None:
        if self._tell_whom is not None and self.group.is_first:
            self._tell_whom(Event(kind, self._at.step, message, detail))


def _mean(values: list[float]) -> float:
    finite = [v for v in values if math.isfinite(v)]  # steps that overflowed were left out
    return sum(finite) / len(finite) if finite else float("nan")
