"""Checks before a training, P1 to P10: seconds now against hours later. Each can be skipped.

==== ============ =================================================================================================
P1   data         samples can be read, numbers are finite, classes fit the outputs, validation is not in training
P2   pass         one batch forward and backward on the real device: finite loss, a gradient for every parameter
P3   overfit      the loss of a few samples falls when only they are trained on
P4   memory       what the plan takes against what is free
P5   disk         room for checkpoints, and how quick the disk is
P6   device       what others hold of it
P7   repeat       the same seed gives the same loss
P8   batch        how the batch divides over processes
P9   time         how long it will take, against the deadline
P10  loader       samples per second of the loader alone, against those of the module alone
==== ============ =================================================================================================
"""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from tidemill.core.errors import NotFoundError, TidemillError, TrialError
from tidemill.train import device as devices
from tidemill.train.evaluate import fetch, to_device, wide
from tidemill.train.planner.ledger import count
from tidemill.train.schedule import steps_of
from tidemill.train.types import Limits, Loss, Placement, Recipe, Samples

_LOOKED_AT = 256
_OVERFIT_STEPS = 20
_MEASURED_S = 0.5
_WRITTEN_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Parameters
    ----------
    code, subject : str
        ``P1`` … ``P10``, and its name.
    state : {"ok", "warning", "error", "skipped"}
        An error means that the training can't succeed as it is asked for.
    message : str
        With numbers, and what to do where something is wrong.
    seconds : float
        What the check took.
    """

    code: str
    subject: str
    state: str
    message: str
    seconds: float


def check(
    module: nn.Module,
    loss: Loss,
    samples: Samples,
    recipe: Recipe,
    *,
    validation: Samples | None = None,
    folder: Path | None = None,
    plan: Placement | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    skip: Collection[str] = (),
) -> tuple[Finding, ...]:
    """Look at a training before it begins; arguments as in `tidemill.train.runtime.train`.

    Works on a copy of the module, in this process, on the plan's device.

    Parameters
    ----------
    module, loss, samples, recipe, validation, folder, plan, limits, seed
        Of the training.
    skip : collection of str
        Codes to leave out.

    Returns
    -------
    tuple of Finding
        One for each check that was not skipped, in order.

    Raises
    ------
    NotFoundError
        For a code in ``skip`` that is not known.
    OptionError
        For a device that is not there.
    """
    for code in skip:
        if code not in CHECKS:
            raise NotFoundError.of("check", code, CHECKS)
    case = _Case(module, loss, samples, recipe, validation, folder, plan or Placement(), limits or Limits(), seed)
    found = []
    for code, (subject, look) in CHECKS.items():
        if code in skip:
            continue
        began = time.perf_counter()
        state, message = _looked(look, case)
        found.append(Finding(code, subject, state, message, time.perf_counter() - began))
    return tuple(found)


def refuse(findings: tuple[Finding, ...]) -> None:
    """Raise where a check found an error.

    Raises
    ------
    TrialError
        With all of them.
    """
    wrong = [f"{f.code} ({f.subject}): {f.message}" for f in findings if f.state == "error"]
    if wrong:
        raise TrialError("The training can't begin. " + " ".join(wrong), hint="Or skip the check.")


_Answer = tuple[str, str]


@dataclass
class _Case:
    module: nn.Module
    loss: Loss
    samples: Samples
    recipe: Recipe
    validation: Samples | None
    folder: Path | None
    placement: Placement
    limits: Limits
    seed: int

    def __post_init__(self) -> None:
        self.device = devices.find_device(self.placement.device)
        self.precision = devices.precision_on(self.recipe.precision, self.device)

    @cached_property
    def copy(self) -> nn.Module:
        """The module that checks may wear out."""
        return copy.deepcopy(self.module).to(self.device)

    def taken(self, size: int, *, of: Samples | None = None, train: bool = False) -> tuple[dict[str, Tensor], Tensor]:
        """Take samples from all over the set."""
        source = self.samples if of is None else of
        indices = np.unique(np.linspace(0, len(source) - 1, min(size, len(source))).astype(np.int64))
        return fetch(source, indices, np.random.default_rng(self.seed), train=train)

    def passed(self, module: nn.Module, size: int) -> Tensor:
        """Run forward and give the losses."""
        inputs, targets = self.taken(size)
        torch.manual_seed(self.seed)
        with devices.arithmetic(self.precision, self.device):
            outputs = wide(module(**to_device(inputs, self.device)))
            return self.loss(outputs, targets.to(self.device))

    @cached_property
    def model_rate(self) -> float:
        """Samples that the module alone trains on in a second."""
        module, size = self.copy.train(), min(self.placement.micro_batch or 32, len(self.samples), self.recipe.batch)
        inputs, targets = self.taken(size)
        given, wanted = to_device(inputs, self.device), targets.to(self.device)

        def run() -> int:
            with devices.arithmetic(self.precision, self.device):
                total = self.loss(wide(module(**given)), wanted).sum()
            float(total.detach())
            total.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            return len(wanted)

        return _rate(run)

    @cached_property
    def loader_rate(self) -> float:
        """Samples that the loader alone gives in a second."""
        size = min(32, len(self.samples))
        rng = np.random.default_rng(self.seed)

        def run() -> int:
            indices = rng.integers(len(self.samples), size=size)
            return len(self.samples.batch(indices, train=True, rng=rng)[1])

        return _rate(run)


def _looked(look: Callable[[_Case], _Answer], case: _Case) -> _Answer:
    try:
        return look(case)
    except TidemillError as error:
        return "error", str(error)
    except Exception as error:  # noqa: BLE001  whatever a module or a loader raises is what the check is for
        line = str(error).strip().splitlines()
        return "error", f"{type(error).__name__}: {line[0][:300] if line else ''}"


def _data(case: _Case) -> _Answer:
    if not len(case.samples):
        return "error", "There are no samples."
    inputs, targets = case.taken(_LOOKED_AT)
    for name, tensor in (*inputs.items(), ("targets", targets)):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return "error", f"{name!r} has numbers that are not finite, among {len(targets)} samples looked at."
    known = {_print(inputs, row) for row in range(len(targets))}
    words = f"{len(case.samples):,} samples, {len(targets)} looked at"
    if not targets.is_floating_point() and targets.ndim == 1:
        classes, counts = torch.unique(targets, return_counts=True)
        words += f", {len(classes)} classes of {int(counts.min())} to {int(counts.max())}"
    if len(known) < len(targets):
        words += f", {len(targets) - len(known)} of them twice"
    if case.validation is None:
        return "ok", words + "."
    held, there = case.taken(_LOOKED_AT, of=case.validation)
    both = sum(_print(held, row) in known for row in range(len(there)))
    if both:
        return "warning", f"{words}. {both} of {len(there)} validation samples looked at are in training, too."
    return "ok", words + "; none of the validation's among them."


def _print(inputs: dict[str, Tensor], row: int) -> bytes:
    """Give a fingerprint of a sample."""
    parts = [tensor[row].contiguous().numpy().tobytes() for tensor in inputs.values()]
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


def _pass(case: _Case) -> _Answer:
    module = case.copy.train()
    module.zero_grad(set_to_none=True)
    losses = case.passed(module, 8)
    if losses.ndim != 1:
        return "error", f"The loss gives the shape {tuple(losses.shape)}; it must give one number for each sample."
    losses.sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    value = float(losses.detach().mean())
    if not np.isfinite(value):
        return "error", f"The loss of the first batch is {value}."
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    if not trained:
        return "error", "No parameter wants a gradient."
    without = [n for n, p in trained.items() if p.grad is None]
    odd = [n for n, p in trained.items() if p.grad is not None and not bool(torch.isfinite(p.grad).all())]
    if odd:
        return "error", f"Gradients are not finite: {', '.join(odd[:3])}."
    if without:
        return "warning", f"{len(without)} of {len(trained)} parameters get no gradient: {', '.join(without[:3])}."
    return "ok", f"Loss {value:.4g} on {case.device} in {case.precision}; all {len(trained)} parameters get a gradient."


def _overfit(case: _Case) -> _Answer:
    module = copy.deepcopy(case.copy).eval()  # without dropout and batch statistics, which would hide what is learned
    trained = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=min(case.recipe.lr, 3e-3) if case.recipe.optimizer != "sgd" else 1e-3)
    curve = []
    for _ in range(_OVERFIT_STEPS):
        optimizer.zero_grad()
        mean = case.passed(module, 16).mean()
        curve.append(float(mean.detach()))
        mean.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
    words = f"Loss of 16 samples after {_OVERFIT_STEPS} steps on them alone: {curve[0]:.4g} to {min(curve):.4g}"
    if min(curve[1:]) < curve[0]:
        return "ok", words + "."
    return "warning", words + ". It does not fall: are inputs scaled, and do outputs and loss belong together?"


def _memory(case: _Case) -> _Answer:
    from tidemill.train.planner.estimate import Correction, estimate
    from tidemill.train.planner.hardware import PRESETS
    from tidemill.train.planner.trace import trace

    placement, module = case.placement, case.module
    ledger = count(module, case.recipe, validation=case.validation is not None)
    try:
        run = trace(
            module, case.loss, case.taken(2), precision=case.precision, recompute=placement.recompute,
            kind=case.device.type,
        )  # fmt: skip
    except TidemillError as error:
        return "skipped", str(error)
    # Memory does not depend on its speed; the processes are those of this machine.
    hardware = replace(PRESETS["h100" if case.device.type == "cuda" else "cpu"], devices=placement.world)
    size = placement.micro_batch or ledger.least
    filled = replace(placement, device=case.device.type, micro_batch=size)
    found = estimate(filled, case.recipe.batch, ledger, run, hardware, case.precision, Correction())
    need, free = found.memory_bytes, devices.free_bytes(case.device, case.limits.memory_bytes)
    words, lacks = f"{need / 1e9:.2f} GB needed with pieces of {size}, {free / 1e9:.2f} GB free", need > free
    # Processes on processors share the machine's memory, and so does what is offloaded to it.
    shared = found.host_bytes + (placement.world * need if case.device.type == "cpu" and placement.world > 1 else 0)
    if shared:
        here = devices.free_bytes(torch.device("cpu"), None)
        words += f"; {shared / 1e9:.2f} GB of this machine for {placement.describe()}, {here / 1e9:.2f} GB free"
        lacks = lacks or shared > here
    if lacks:
        return "error", f"{words}. Plan with more shards or recomputation: tidemill plan."
    return "ok", words + "."


def _disk(case: _Case) -> _Answer:
    if case.folder is None:
        return "skipped", "There is no folder for checkpoints."
    ledger = count(case.module, case.recipe, validation=case.validation is not None)
    need = 3 * (ledger.weights + ledger.state + ledger.average + ledger.best + ledger.buffers)  # two kept, one written
    case.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(case.folder).free
    rate = _write_rate(case.folder)
    words = (
        f"Checkpoints take up to {need / 1e9:.2f} GB, {free / 1e9:.2f} GB are free, {rate / 1e6:.0f} MB/s are written"
    )
    if need > free:
        return "error", words + ". Free some space, or choose another folder."
    if need / 3 / rate > case.recipe.checkpoint_s / 2:
        return "warning", words + f". Writing one takes {need / 3 / rate:.0f} s; set checkpoint_s higher."
    return "ok", words + "."


def _write_rate(folder: Path) -> float:
    path = folder / ".speed"
    began = time.perf_counter()
    try:
        with path.open("wb") as file:
            file.write(os.urandom(_WRITTEN_BYTES))
            file.flush()
            os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)
    return _WRITTEN_BYTES / (time.perf_counter() - began)


def _others(case: _Case) -> _Answer:
    if case.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(case.device)
        held = total - free - torch.cuda.memory_reserved(case.device)
        words = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free on {torch.cuda.get_device_name(case.device)}"
        if held > 0.1 * total:
            return "warning", f"{words}; others hold {held / 1e9:.1f} GB."
        return "ok", words + "."
    cores, load = psutil.cpu_count() or 1, psutil.getloadavg()[0]
    words = f"{cores} cores with a load of {load:.1f}, {psutil.virtual_memory().available / 1e9:.1f} GB free"
    return ("warning", words + "; others compute here, too.") if load > 0.5 * cores + 1 else ("ok", words + ".")


def _repeat(case: _Case) -> _Answer:
    module = copy.deepcopy(case.copy).train()
    with torch.no_grad():
        first = case.passed(module, 8)
        second = case.passed(copy.deepcopy(case.copy).train(), 8)
    if torch.equal(first, second):
        return "ok", "The same seed gives the same loss."
    return "warning", f"The same seed gives losses that differ by up to {float((first - second).abs().max()):.2g}."


def _batch(case: _Case) -> _Answer:
    batch, world = case.recipe.batch, case.placement.world
    if batch < world:
        return "error", f"A batch of {batch} is smaller than {world} processes."
    if batch > len(case.samples):
        return "warning", f"A batch of {batch} is more than all {len(case.samples)} samples: some are in it twice."
    if batch % world:
        return "warning", f"A batch of {batch} over {world} processes: some work on {batch // world}, some on one more."
    return "ok", f"{batch // world} samples for each of {world} processes."


def _time(case: _Case) -> _Answer:
    steps = steps_of(case.recipe.epochs, len(case.samples), case.recipe.batch)
    rate = min(case.model_rate, case.loader_rate) * case.placement.world
    need = steps * case.recipe.batch / rate
    words = f"{steps:,} steps take about {need:.0f} s"
    if case.limits.deadline is None:
        return "ok", words + "."
    left = case.limits.deadline - time.monotonic()
    if need > left:
        share = max(0.0, left / need) * case.recipe.epochs
        return "warning", f"{words}, but {left:.0f} s are left: about {share:.1f} of {case.recipe.epochs:g} epochs."
    return "ok", f"{words}; {left:.0f} s are left."


def _loader(case: _Case) -> _Answer:
    words = f"The loader gives {case.loader_rate:,.0f} samples a second, the module takes {case.model_rate:,.0f}"
    if case.loader_rate < case.model_rate:
        return "warning", words + ". It will wait for them: prepare samples beforehand, or make them smaller."
    return "ok", words + "."


def _rate(run: Callable[[], int]) -> float:
    run()
    done, began = 0, time.perf_counter()
    while True:
        done += run()
        took = time.perf_counter() - began
        if took >= _MEASURED_S:
            return done / took


CHECKS: dict[str, tuple[str, Callable[[_Case], _Answer]]] = {
    "P1": ("data", _data),
    "P2": ("pass", _pass),
    "P3": ("overfit", _overfit),
    "P4": ("memory", _memory),
    "P5": ("disk", _disk),
    "P6": ("device", _others),
    "P7": ("repeat", _repeat),
    "P8": ("batch", _batch),
    "P9": ("time", _time),
    "P10": ("loader", _loader),
}
"""Name and function of each check, in the order in which they run."""
