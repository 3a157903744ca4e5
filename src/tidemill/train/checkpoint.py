"""Checkpoints: a folder for each, whole or not there, that any other placement can go on from.

::

    folder/step-000000120/   __0_0.distcp …   tensors, in pieces as they lay (`torch.distributed.checkpoint`)
                             .metadata        which piece is where
                             losses.npy       mean loss of each step
                             training.json    everything else, written last
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

from tidemill.core.errors import DataError, OptionError, TidemillError, WorkspaceError
from tidemill.train.place import Group, local
from tidemill.train.schedule import Bend
from tidemill.train.types import Point

VERSION = 1
_NAME = re.compile(r"step-(\d{9,})", re.ASCII)
_KEPT = 2
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True)
class Progress:
    """How far a training has come: all that is not a tensor.

    Parameters
    ----------
    samples, batch, seed : int
        What the order of samples depends on; a resume must have the same.
    step : int
        Optimiser steps done.
    seconds : float
        Time spent.
    losses : tuple of float
        Of each step.
    curve : tuple of Point
        Evaluations.
    best : Point or None
        The best of them.
    stale : int
        Evaluations since the best.
    scale : float
        Of the loss, in 16-bit floating point.
    micro_batch : int
        Samples of a piece when it was written.
    world : int
        Processes when it was written.
    bend : Bend or None
        How the schedule was bent; a resume goes on with it.
    tensors : mapping
        Shapes of the tensors by name.
    """

    samples: int
    batch: int
    seed: int
    step: int = 0
    seconds: float = 0.0
    losses: tuple[float, ...] = ()
    curve: tuple[Point, ...] = ()
    best: Point | None = None
    stale: int = 0
    scale: float = 1.0
    micro_batch: int = 0
    world: int = 1
    bend: Bend | None = None
    tensors: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Give everything but the losses as plain JSON."""
        values = asdict(replace(self, losses=()))
        return {"version": VERSION, **{k: v for k, v in values.items() if k != "losses"}}


def save(folder: Path, progress: Progress, tensors: Mapping[str, Tensor], group: Group) -> Path:
    """Write a checkpoint; all processes together. Older ones than the last two go.

    Parameters
    ----------
    folder : Path
        Of this training; made where it is not there.
    progress : Progress
        The first process's is written.
    tensors : mapping
        Whole or sharded tensors by name.
    group : Group
        The processes.

    Returns
    -------
    Path
        The checkpoint's folder.

    Raises
    ------
    WorkspaceError
        Where the disk is full or can't be written; the checkpoints before are as they were.
    """
    final = folder / f"step-{progress.step:09d}"
    part = folder / f".part-{progress.step:09d}"
    refusal = group.share(_prepare(folder, part, tensors, group) if group.is_first else None)
    if refusal is not None:
        raise refusal
    trouble: TidemillError | None = None
    try:
        with _explained(folder):
            with _quiet():
                save_tensors(dict(tensors), checkpoint_id=part, no_dist=not group.together)
            if group.is_first:
                shapes = {name: tuple(t.shape) for name, t in tensors.items()}
                _seal(part, final, replace(progress, tensors=shapes))
    except TidemillError as error:
        trouble = error
        if group.is_first:
            shutil.rmtree(part, ignore_errors=True)
    trouble = next((t for t in group.gather(trouble) if t is not None), None)
    if trouble is not None:
        raise trouble
    if group.is_first:
        for old in _checkpoints(folder)[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    return final


def newest(folder: Path) -> tuple[Path, Progress] | None:
    """Find the newest checkpoint that can be read, or None where there is none.

    Raises
    ------
    DataError
        Where there are some, and none can be read.
    """
    found = _checkpoints(folder)
    trouble: DataError | None = None
    for path in reversed(found):
        try:
            return path, _read(path)
        except DataError as error:
            trouble = trouble or error
    if trouble is not None:
        raise trouble
    return None


def load(path: Path, tensors: Mapping[str, Tensor], group: Group) -> None:
    """Read a checkpoint's tensors into these, wherever and however they lie; all processes together.

    Raises
    ------
    DataError
        Where the files are damaged.
    """
    into = dict(tensors)
    try:
        with _quiet():
            load_tensors(into, checkpoint_id=path, no_dist=not group.together)
    except (Exception, CheckpointException) as error:
        raise DataError(
            f"The checkpoint can't be read: {_first_line(list(_causes(error))[-1])}.",
            hint="Delete its folder; the training goes on from the one before.",
            where=str(path),
        ) from error


def check_fits(path: Path, was: Progress, now: Progress, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a checkpoint of another training.

    Raises
    ------
    OptionError
        Naming what differs.
    """
    differs = [
        f"{noun} {a} there, {b} here"
        for noun, a, b in (
            ("samples", was.samples, now.samples),
            ("batch", was.batch, now.batch),
            ("seed", was.seed, now.seed),
        )
        if a != b
    ]
    saved = {n.removeprefix("model."): s for n, s in was.tensors.items() if n.startswith("model.")}
    odd = sorted(set(saved) ^ set(shapes)) + sorted(n for n in set(saved) & set(shapes) if saved[n] != tuple(shapes[n]))
    if odd:
        differs.append(f"tensors {', '.join(odd[:3])}{' …' if len(odd) > 3 else ''}")
    if differs:
        raise OptionError(
            f"The checkpoint is of another training: {'; '.join(differs)}.",
            hint="Take another folder, or delete this one to begin anew.",
            where=str(path),
        )


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if _NAME.fullmatch(p.name))


def _prepare(folder: Path, part: Path, tensors: Mapping[str, Tensor], group: Group) -> TidemillError | None:
    need = sum(t.numel() * t.element_size() for t in tensors.values())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".part-*"):  # of a process that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        part.mkdir()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return _refused(error, folder)
    if free < need:
        part.rmdir()
        return WorkspaceError(
            f"The disk is full: a checkpoint takes {need:,} bytes, {free:,} are free.",
            hint="Free some space and run it again: it goes on from the last checkpoint.",
            where=str(folder),
        )
    return None


def _seal(part: Path, final: Path, progress: Progress) -> None:
    """Write what is not a tensor, then let the whole appear under its name at once."""
    with (part / "losses.npy").open("wb") as file:
        np.save(file, np.asarray(progress.losses, np.float64))
        _sync(file.fileno(), file.flush)
    with (part / "training.json").open("w", encoding="utf-8") as text:
        json.dump(progress.to_json(), text)
        _sync(text.fileno(), text.flush)
    _sync_folder(part)
    before = final.with_name(f".part-before-{final.name}")
    if final.exists():  # the same step again, now with its evaluation
        os.replace(final, before)
    os.replace(part, final)
    _sync_folder(final.parent)
    shutil.rmtree(before, ignore_errors=True)


def _sync(handle: int, flush: Any) -> None:
    flush()
    os.fsync(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(path: Path) -> Progress:
    try:
        values = json.loads((path / "training.json").read_text(encoding="utf-8"))
        losses = np.load(path / "losses.npy", allow_pickle=False)
        if values.pop("version") != VERSION:
            raise DataError(
                "The checkpoint was written by another version of Tidemill.",
                hint="Go on with that version, or delete the folder.",
                where=str(path),
            )
        values["curve"] = tuple(Point(**p) for p in values["curve"])
        values["best"] = Point(**values["best"]) if values["best"] else None
        values["bend"] = Bend(**values["bend"]) if values.get("bend") else None
        values["tensors"] = {n: tuple(s) for n, s in values["tensors"].items()}
        return Progress(losses=tuple(float(v) for v in losses), **values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"The checkpoint can't be read: {_first_line(error)}.", hint="Delete its folder.", where=str(path)
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # A single process is what we mean, and pieces are what DTensors are made of.
        warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)
        warnings.filterwarnings("ignore", message="TypedStorage is deprecated", category=UserWarning)
        yield


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except (Exception, CheckpointException) as error:
        if any(isinstance(e, KeyboardInterrupt) for e in _causes(error)):  # they wrap that, too
            raise KeyboardInterrupt from error
        raise _refused(error, folder) from error


def _refused(error: BaseException, folder: Path) -> WorkspaceError:
    causes = list(_causes(error))
    numbers = {e.errno for e in causes if isinstance(e, OSError)}
    if numbers & _FULL or any("No space left" in str(e) or "File too large" in str(e) for e in causes):
        return WorkspaceError(
            "The disk is full: a checkpoint could not be written.",
            hint="Free some space and run it again: it goes on from the last checkpoint.",
            where=str(folder),
        )
    return WorkspaceError(
        f"A checkpoint could not be written: {_first_line(causes[-1])}.",
        hint="Make the folder writable, or choose another.",
        where=str(folder),
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Walk what an error was raised from, and what a group of processes has collected."""
    yield error
    for inner, _ in getattr(error, "failures", {}).values():
        yield from _causes(inner)
    following = error.__cause__ or error.__context__
    if following is not None:
        yield from _causes(following)


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200].rstrip(".")


def nbytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes that these tensors hold in this process.

    Examples
    --------
    >>> import torch
    >>> nbytes({"w": torch.zeros(3, 4)})
    48
    """
    return sum(local(t).numel() * t.element_size() for t in tensors.values())
