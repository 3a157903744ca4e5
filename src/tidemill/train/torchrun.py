"""What torchrun, or a launcher like it, tells a program: a process group to join, and SIGTERM as a wish to end.

torchrun starts the same program several times and says by the environment which of them this one is. A training that
did not look there would run alone in each, and all of them would write the same folder.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache, partial
from typing import Any, cast

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from tidemill.core.errors import OptionError
from tidemill.train.types import Limits, Placement

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others in one exchange; a checkpoint to a slow disk is the longest."""
_NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

_groups = itertools.count()
"""Groups of this program are numbered, so that each finds only its own entries where they meet."""
_told_to_end = threading.Event()
"""SIGTERM is for the whole program: a training that begins after it ends after its first step."""


@dataclass(frozen=True)
class Launch:
    """Which process of how many this is, as its launcher says.

    Parameters
    ----------
    rank, local_rank : int
        Number among all processes, and among those of this machine.
    world : int
        How many there are on all machines.
    """

    rank: int
    local_rank: int
    world: int


def launch_of(environment: Mapping[str, str]) -> Launch | None:
    """Read what torchrun has written into the environment; None where it has not started this program.

    Raises
    ------
    OptionError
        For numbers that can't be.

    Examples
    --------
    >>> launch_of({"PATH": "/usr/bin"}) is None
    True
    >>> meet = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29400"}
    >>> launch_of({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", **meet})
    Launch(rank=1, local_rank=1, world=2)
    """
    if any(name not in environment for name in _NAMES):
        return None
    words = {name: environment[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    if not all(word.isdecimal() for word in words.values()) or int(words["RANK"]) >= int(words["WORLD_SIZE"]):
        said = ", ".join(f"{name}={word}" for name, word in words.items())
        raise OptionError(
            f"The environment names processes of a group that can't be: {said}.",
            hint="Start the program with torchrun, or unset these variables.",
        )
    return Launch(*(int(word) for word in words.values()))


def check_world(placement: Placement, world: int) -> None:
    """Refuse a plan for another number of processes than there are.

    Raises
    ------
    OptionError
        With both numbers.
    """
    if placement.world != world:
        raise OptionError(
            f"The plan is for {_counted(placement.world)}, but this group has {world}.",
            hint="Start as many as the plan says, or leave it out: then each process is a replica.",
        )


def _counted(world: int) -> str:
    return f"{world} {'process' if world == 1 else 'processes'}"


def backends_of(device: torch.device) -> str:
    """Name what the processes of a group exchange tensors by: on GPUs numbers of the host travel, too."""
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"


@contextmanager
def joined(launch: Launch, device: torch.device) -> Iterator[None]:
    """Be one of the default process group while this lasts; all processes of the launch do so together.

    After an error the group stays: others that still wait in it would complain of its end before the error is told.

    Parameters
    ----------
    launch : Launch
        As `launch_of` read it.
    device : torch.device
        Of this process.

    Raises
    ------
    OptionError
        Where the others don't come.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        store = cast(Any, dist).PrefixStore(f"tidemill-{next(_groups)}", _store())
        dist.init_process_group(
            backends_of(device), store=store, rank=launch.rank, world_size=launch.world, timeout=PATIENCE
        )
    except (RuntimeError, ValueError) as error:
        line = str(error).strip().splitlines()
        raise OptionError(
            f"Process {launch.rank} of {launch.world} can't join the others at {os.environ['MASTER_ADDR']}: "
            f"{line[0][:200] if line else type(error).__name__}.",
            hint="Look whether all of them run and reach that address.",
        ) from error
    yield
    dist.destroy_process_group()


@cache
def _store() -> Any:
    """Where the processes of this launch meet, for as long as the program runs: some launchers let it be made once."""
    return next(rendezvous("env://", timeout=PATIENCE))[0]


@contextmanager
def ending_on_sigterm(limits: Limits) -> Iterator[Limits]:
    """Give limits by which SIGTERM ends a training after its step, with a checkpoint.

    Schedulers send it some time before they kill. Nothing changes where the program has a handler of its own, or
    outside of its main thread, which alone hears signals. Once it has come, it is heard no more: launchers repeat it.
    """
    free = threading.current_thread() is threading.main_thread()
    if not free or signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, _hear):
        yield limits
        return
    signal.signal(signal.SIGTERM, _hear)
    try:
        yield replace(limits, cancelled=partial(_wished, limits.cancelled))
    finally:
        if not _told_to_end.is_set():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _hear(_number: int, _frame: Any) -> None:
    _told_to_end.set()


def _wished(asked: Callable[[], bool] | None) -> bool:
    return _told_to_end.is_set() or (asked is not None and asked())
