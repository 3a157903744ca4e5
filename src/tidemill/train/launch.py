"""Several processes of this machine that train together, started and watched by the one that asked.

Values travel as pickles on private pipes between a program and its own children. A child whose parent is gone ends;
a parent one of whose children fails ends the others.
"""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import tempfile
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from pickle import PicklingError
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from tidemill.core.budget import available_cpus
from tidemill.core.errors import OptionError, TidemillError, TrialError
from tidemill.train.device import find_device
from tidemill.train.place import Group
from tidemill.train.torchrun import PATIENCE, backends_of
from tidemill.train.types import Event, OnEvent, Placement, Trained

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from tidemill.train.task import Task

_LOOK_S = 0.2
_LAST_S = 3.0


@dataclass(frozen=True)
class _Result:
    trained: Trained
    weights: str


@dataclass(frozen=True)
class _Failure:
    error: TidemillError


def train_together(task: Task, placement: Placement, on_event: OnEvent | None) -> Trained:
    """Train in ``placement.world`` processes, and leave the weights in the task's module.

    Raises
    ------
    OptionError
        Where module, loss or samples can't travel to other processes.
    TrialError
        Where a process failed; the others are ended.
    """
    find_device(placement.device, placement.world - 1)  # refuse before anything is started
    with tempfile.TemporaryDirectory(prefix="tidemill-train-") as folder:
        crew = _Crew(task, placement, Path(folder))
        try:
            result = crew.result(on_event, task.limits.cancelled)
        finally:
            crew.close()
        state = torch.load(result.weights, weights_only=True, mmap=True)
        task.module.load_state_dict(state)
    task.module.eval()
    return result.trained


class _Crew:
    """The processes of a training, seen from their parent."""

    def __init__(self, task: Task, placement: Placement, folder: Path) -> None:
        context = processes.get_context("spawn")
        # A question to the caller stays with the caller; the answer travels.
        quiet = replace(task, limits=replace(task.limits, cancelled=None))
        self.members: list[tuple[BaseProcess, Connection]] = []
        for rank in range(placement.world):
            mine, theirs = context.Pipe()
            child = context.Process(
                target=_child, args=(rank, placement, quiet, str(folder), theirs), name=f"train-{rank}", daemon=True
            )
            try:
                child.start()
            except (PicklingError, AttributeError, TypeError, RuntimeError) as error:
                self.close()
                raise OptionError(
                    f"Module, loss or samples can't travel to other processes: {str(error).splitlines()[0]}.",
                    hint="Define their classes and functions at the top of a module, without lambdas.",
                ) from error
            theirs.close()
            self.members.append((child, mine))

    def result(self, on_event: OnEvent | None, cancelled: Callable[[], bool] | None) -> _Result:
        """Pass events on until the first process has the result, or one has failed."""
        asked = False
        open_pipes = {pipe: child for child, pipe in self.members}
        while open_pipes:
            if cancelled is not None and not asked and cancelled():
                asked = True
                self._say_cancelled()
            for ready in wait(list(open_pipes), timeout=_LOOK_S):
                pipe = cast(Connection, ready)
                try:
                    message = pipe.recv()
                except (EOFError, ConnectionResetError):
                    child = open_pipes.pop(pipe)
                    child.join(10)
                    if child.exitcode:
                        raise _died(child) from None
                    continue
                if isinstance(message, _Failure):
                    raise self._cause(message.error)
                if isinstance(message, _Result):
                    return message
                if isinstance(message, Event) and on_event is not None:
                    on_event(message)
        raise TrialError("The processes of a training ended without a result.")

    def close(self) -> None:
        """End all processes: those that still run hear that their pipe is gone, and are killed where they don't."""
        for _, pipe in self.members:
            pipe.close()
        for child, _ in self.members:
            child.join(_LAST_S)
            if child.is_alive():
                child.kill()
                child.join()

    def _cause(self, error: TidemillError) -> TidemillError:
        """Prefer a process that was killed to the complaint of another, which has lost it."""
        return next((_died(child) for child, _ in self.members if child.exitcode), error)

    def _say_cancelled(self) -> None:
        for _, pipe in self.members:
            try:
                pipe.send("cancel")
            except (BrokenPipeError, OSError):  # it is over already
                continue


def _died(child: BaseProcess) -> TrialError:
    code = child.exitcode or 0
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return TrialError(f"The process {child.name} was {how}.", hint="Where a memory limit is in force, plan with less.")


def _child(rank: int, placement: Placement, task: Task, folder: str, pipe: Connection) -> None:
    """What a process of the group does, from its first line to its last."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which asks for an end in good order
    cancelled = threading.Event()
    threading.Thread(target=_listen, args=(pipe, cancelled), daemon=True).start()
    try:
        pipe.send(
            _work(rank, placement, replace(task, limits=replace(task.limits, cancelled=cancelled.is_set)), folder, pipe)
        )
    except TidemillError as error:
        _send(pipe, _Failure(error))
    except Exception as error:  # noqa: BLE001  a worker's edge: the parent gets the story instead of a traceback
        story = "".join(traceback.format_exception(error))[-4000:]
        _send(pipe, _Failure(TrialError(f"Process {rank} of the training failed:\n{story}")))


def _send(pipe: Connection, message: Any) -> None:
    with contextlib.suppress(OSError):  # the parent is gone, and nobody is left to hear it
        pipe.send(message)


def _listen(pipe: Connection, cancelled: threading.Event) -> None:
    """Wait for the parent's word; when it is gone, end."""
    while True:
        try:
            if pipe.recv() == "cancel":
                cancelled.set()
        except (EOFError, OSError):
            os._exit(1)


def _work(rank: int, placement: Placement, task: Task, folder: str, pipe: Connection) -> _Result | None:
    from tidemill.train.session import Session

    device = find_device(placement.device, rank)
    torch.set_num_threads(max(1, available_cpus() // placement.world))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        backends_of(device),
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=placement.world,
        timeout=PATIENCE,
    )
    # What has travelled lies in memory that all processes share: each trains a copy of its own.
    task = replace(task, module=copy.deepcopy(task.module))
    session = Session(task, Group(device, placement), pipe.send if rank == 0 else None)
    trained = session.run()
    state = session.whole_state()
    weights = f"{folder}/weights.pt"
    if rank == 0:
        torch.save(state, weights)
    dist.barrier()
    dist.destroy_process_group()  # not after an error: the others would complain of that before it is told
    return _Result(trained, weights) if rank == 0 else None
