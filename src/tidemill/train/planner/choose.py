"""The planner: a pure function from a model and hardware to a plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from tidemill.core.errors import OptionError, TrialMemoryError
from tidemill.train.planner.estimate import Correction, Estimate, estimate
from tidemill.train.planner.hardware import Hardware
from tidemill.train.planner.ledger import Ledger, count
from tidemill.train.planner.options import complexity, every_placement, kind_of
from tidemill.train.planner.plan import Plan, Rejected
from tidemill.train.planner.trace import Example, Pass, trace
from tidemill.train.types import Loss, Placement, Recipe

_SHARE = 0.9
"""Of a device's memory that is planned with; fragments take the rest."""
_TIE = 0.05
_SHOWN = 8
_MISFIT = 0.15


@dataclass(frozen=True)
class Facts:
    """What the planner knows of a model, apart from any hardware.

    Parameters
    ----------
    ledger : Ledger
        What stays.
    passes : dict of str to Pass
        What a pass takes, by policy of recomputation.
    precision : str
        That it was traced in.
    """

    ledger: Ledger
    passes: dict[str, Pass]
    precision: str


@dataclass(frozen=True)
class _Option:
    placement: Placement
    estimate: Estimate


def plan(
    module: nn.Module,
    loss: Loss,
    example: Example,
    recipe: Recipe,
    hardware: Hardware,
    *,
    validation: bool = False,
    correction: Correction | None = None,
    placement: Placement | None = None,
) -> Plan:
    """Choose where to train a module.

    Nothing is computed with data, and the module is left as it is; it may lie on the meta device.

    Parameters
    ----------
    module : nn.Module
        The model.
    loss : Loss
        Of its outputs.
    example : tuple
        Inputs and targets of some samples, for their shapes.
    recipe : Recipe
        Batch, optimiser, precision, averages.
    hardware : Hardware
        What there is.
    validation : bool
        Whether there will be evaluations, whose best weights are kept.
    correction : Correction, optional
        What short runs on this device have shown.
    placement : Placement, optional
        Take this one instead of the best, and say what it takes.

    Returns
    -------
    Plan
        The quickest that fits; of those within 5 % of it, the simplest.

    Raises
    ------
    TrialMemoryError
        Where nothing fits, with what the leanest placement needs.
    OptionError
        Where a given ``placement`` wants more devices than there are.
    DataError
        Where the module can't be run without data.

    Examples
    --------
    >>> import torch
    >>> from tidemill.train.planner.hardware import preset
    >>> square = lambda outputs, targets: (outputs[:, 0] - targets) ** 2
    >>> found = plan(nn.Linear(8, 1), square, ({"input": torch.ones(1, 8)}, torch.ones(1)), Recipe(), preset("8xh100"))
    >>> found.placement.describe()
    'one process'
    """
    return decide(
        learn(module, loss, example, recipe, hardware, validation=validation),
        recipe.batch,
        hardware,
        correction=correction or Correction(),
        placement=placement,
    )


def learn(
    module: nn.Module, loss: Loss, example: Example, recipe: Recipe, hardware: Hardware, *, validation: bool = False
) -> Facts:
    """Count and trace a module, for devices such as those of ``hardware``; arguments as in `plan`."""
    precision, kind = hardware.precision(recipe.precision), hardware.kind
    ledger = count(module, recipe, validation=validation)
    policies = ("none", "blocks") if ledger.blocks else ("none",)
    return Facts(
        ledger,
        {p: trace(module, loss, example, precision=precision, recompute=p, kind=kind) for p in policies},
        precision,
    )


def decide(
    facts: Facts,
    batch: int,
    hardware: Hardware,
    *,
    correction: Correction | None = None,
    placement: Placement | None = None,
    dropped: Sequence[Placement] = (),
) -> Plan:
    """Choose by what is known; arguments as in `plan`.

    Placements that were tried and ran out of memory are ``dropped``: these, and all that would take as much of a
    device as the leanest of them, are chosen no more.
    """
    fix = correction or Correction()

    def valued(options: Iterable[Placement]) -> list[_Option]:
        run, ledger = facts.passes, facts.ledger
        return [
            _Option(p, estimate(p, batch, ledger, run[p.recompute], hardware, facts.precision, fix)) for p in options
        ]

    options = valued(every_placement(batch, facts.ledger, hardware))
    capacity = _SHARE * (hardware.memory_bytes - hardware.context_bytes)
    capacity = min([capacity, *(o.estimate.memory_bytes - 1 for o in valued(dropped))])
    fitting = [o for o in options if _fits(o.estimate, capacity, hardware)]
    if placement is not None:
        best = valued([_filled(placement, batch, facts, hardware)])[0]
        held = _fits(best.estimate, capacity, hardware)
        reason = "as given; " + ("it fits" if held else f"it does NOT fit: {_lack(best.estimate, capacity, hardware)}")
    else:
        if not fitting:
            raise _nothing(options, capacity, batch, facts.ledger, hardware)
        fastest = min(o.estimate.step_s for o in fitting)
        best = min(
            (o for o in fitting if o.estimate.step_s <= (1 + _TIE) * fastest),
            key=lambda o: (complexity(o.placement), o.estimate.step_s),
        )
        reason = _why(best, fitting, fastest)
    return Plan(
        placement=best.placement,
        estimate=best.estimate,
        reason=reason,
        rejected=_rejected(best, options, fitting, capacity, hardware),
        hardware=hardware,
        batch=batch,
        precision=facts.precision,
        parameters=facts.ledger.parameters,
        notes=_notes(facts, fix),
        correction=fix,
    )


def _fits(what: Estimate, capacity: float, hardware: Hardware) -> bool:
    return what.memory_bytes <= capacity and what.host_bytes <= _SHARE * hardware.host_memory_bytes


def _lack(what: Estimate, capacity: float, hardware: Hardware) -> str:
    if what.memory_bytes > capacity:
        return f"needs {_gb(what.memory_bytes)} on each device, {_gb(capacity)} may be used"
    return f"needs {_gb(what.host_bytes)} of each machine, {_gb(_SHARE * hardware.host_memory_bytes)} may be used"


def _why(best: _Option, fitting: list[_Option], fastest: float) -> str:
    held = f"{_gb(best.estimate.memory_bytes)} on each device, {_ms(best.estimate.step_s)} for a step"
    if len({kind_of(o.placement) for o in fitting}) == 1:
        return f"the only kind that fits: {held}"
    if best.estimate.step_s > fastest:
        return f"the simplest within {_TIE:.0%} of the quickest: {held}"
    return f"the quickest that fits: {held}"


def _rejected(
    best: _Option, options: list[_Option], fitting: list[_Option], capacity: float, hardware: Hardware
) -> tuple[Rejected, ...]:
    """Give the best of each other kind: the quickest that fits, else the leanest."""
    kinds: dict[str, Rejected] = {}
    chosen = kind_of(best.placement)
    for option in sorted(fitting, key=lambda o: o.estimate.step_s):
        kind = kind_of(option.placement)
        if kind != chosen and kind not in kinds:
            kinds[kind] = Rejected(option.placement, option.estimate, _slower(option, best))
    for option in sorted(options, key=lambda o: o.estimate.memory_bytes):
        kind = kind_of(option.placement)
        if kind != chosen and kind not in kinds:
            kinds[kind] = Rejected(option.placement, option.estimate, _lack(option.estimate, capacity, hardware))
    simplest = sorted(kinds, key=lambda kind: complexity(kinds[kind].placement))[:_SHOWN]
    return tuple(what for kind, what in kinds.items() if kind in simplest)


def _slower(option: _Option, best: _Option) -> str:
    times = option.estimate.step_s / best.estimate.step_s
    if times > 1:
        return (
            f"{times:.2f} times as long for a step: {_ms(option.estimate.step_s)} against {_ms(best.estimate.step_s)}"
        )
    return f"quicker by only {1 - times:.1%} ({_ms(option.estimate.step_s)}), and less simple"


def _filled(placement: Placement, batch: int, facts: Facts, hardware: Hardware) -> Placement:
    """Check a given placement against the hardware, and give it a piece size where it has none."""
    if placement.world > hardware.world:
        raise OptionError(
            f"The plan wants {placement.world} devices, but {hardware.name} has {hardware.world}.",
            hint="Change replicas and shards in the file, or plan anew.",
        )
    if placement.recompute not in facts.passes:
        raise OptionError("The plan recomputes blocks, but this module repeats none.", hint="Set recompute to none.")
    share = -(-batch // placement.world)
    return replace(placement, micro_batch=min(placement.micro_batch or share, share))


def _nothing(
    options: list[_Option], capacity: float, batch: int, ledger: Ledger, hardware: Hardware
) -> TrialMemoryError | OptionError:
    if not options:
        return OptionError(f"A batch of {batch} is too small for a pass: it takes {ledger.least} samples.")
    leanest = min(options, key=lambda o: o.estimate.memory_bytes)
    return TrialMemoryError(
        f"No placement on {hardware.name} fits: the leanest, {leanest.placement.describe()} with pieces of "
        f"{leanest.placement.micro_batch}, {_lack(leanest.estimate, capacity, hardware)}.",
        hint="Take a smaller model or more devices.",
    )


def _notes(facts: Facts, fix: Correction) -> tuple[str, ...]:
    found = []
    plain = facts.passes["none"]
    if not facts.ledger.blocks:
        found.append("The module repeats no blocks, so nothing can be recomputed by blocks.")
    if not plain.with_loss:
        found.append("The loss can't be run without data; the numbers are without it.")
    if plain.misfit > _MISFIT:
        found.append(f"Memory does not grow in line with samples (off by {plain.misfit:.0%} at two samples).")
    if fix.runs:
        found.append(f"Corrected by {fix.runs} runs: memory by {fix.memory:.2f}, time by {fix.time:.2f}.")
    else:
        found.append("Times are estimates that no run on this device has corrected yet.")
    return tuple(found)


def _gb(value: float) -> str:
    return f"{value / 1e9:.2f} GB" if value >= 1e7 else f"{value / 1e6:.2f} MB"


def _ms(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.2f} ms"
