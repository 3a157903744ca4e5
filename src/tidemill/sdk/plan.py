"""Where a deep model would be trained: planned, tried for a few steps, remembered for each device."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from tidemill.core.budget import parse_duration_s
from tidemill.core.errors import DataError, NotFoundError, OptionError, TidemillError, TrialMemoryError, WorkspaceError
from tidemill.store.workspace import Workspace
from tidemill.train.extra import need_torch
from tidemill.train.types import Limits, Loss, Placement, Recipe, Samples

if TYPE_CHECKING:
    from torch import nn

    from tidemill.train.planner.estimate import Correction
    from tidemill.train.planner.plan import Plan

_KIND = "plan_correction"
_FORM = (
    "Write FILE.py:FUNCTION; the function takes nothing and returns a module, a loss, samples, and maybe a recipe and "
    "validation samples."
)
_TRIED = 3
"""So many plans are tried, where they run out of memory."""
_OF_THIS_MACHINE = {"P4": "memory", "P6": "device", "P9": "time", "P10": "loader"}
"""Checks that measure the machine on which they run."""


class Definition(NamedTuple):
    """A model as it is written, apart from any hardware.

    Parameters
    ----------
    module : nn.Module
        What is trained.
    loss : Loss
        Of its outputs.
    samples : Samples
        To learn from.
    recipe : Recipe
        How.
    validation : Samples or None
        What it is measured on.
    """

    module: nn.Module
    loss: Loss
    samples: Samples
    recipe: Recipe
    validation: Samples | None


def plan_training(
    source: str,
    *,
    hardware: str = "here",
    given: str | Path | None = None,
    out: str | Path | None = None,
    probe: bool = False,
    validation: bool = False,
    workspace: str | Path | None = None,
    **recipe: Any,
) -> dict[str, Any]:
    """Plan the training of a model that a Python function defines.

    Parameters
    ----------
    source : str
        ``FILE.py:FUNCTION`` or ``package.module:FUNCTION``. It is called without arguments and returns a module, a
        loss, samples and, where it likes, a `Recipe` and, after that, validation samples. The module may lie on the
        meta device.
    hardware : str
        ``here``, a preset such as ``8xh100`` or ``4x8xh100``, or a YAML file.
    given : path, optional
        A plan's JSON whose placement is taken instead of the best.
    out : path, optional
        Write the plan there.
    probe : bool
        Run three steps as planned, after one to warm up, and remember in the workspace how far the numbers are off on
        this hardware; later plans are corrected by it. A plan that runs out of memory is dropped for the next best
        that takes less, two times at most; one that was given is not.
    validation : bool
        Whether there will be evaluations; where the function gives validation samples, there will be.
    workspace : path, optional
        Where corrections are remembered.
    **recipe
        Entries of `Recipe` that replace the function's; None leaves them.

    Returns
    -------
    dict
        The plan as plain values, with ``probe`` where there was one; ``probe["dropped"]`` holds the plans that ran out
        of memory.

    Raises
    ------
    OptionError, NotFoundError
        For a source or an option that can't be used.
    DataError
        For samples that can't be read, or a module that can't be run.
    TrialMemoryError
        Where nothing fits.
    """
    need_torch("to plan the training of deep models")
    from tidemill.train.planner.choose import decide, learn
    from tidemill.train.planner.hardware import read_hardware
    from tidemill.train.planner.plan import read_placement

    made = _with_recipe(load_definition(source), recipe)
    where = read_hardware(hardware)
    if probe and hardware != "here":
        raise OptionError("A plan for other hardware can't be tried here.", hint="Leave --hardware or --probe out.")
    example = _example(made.samples, source)
    facts = learn(
        made.module, made.loss, example, made.recipe, where, validation=validation or made.validation is not None
    )
    with Workspace.open(workspace) as opened:
        choose = partial(
            decide,
            facts,
            made.recipe.batch,
            where,
            correction=_remembered(opened, where.name),
            placement=None if given is None else read_placement(Path(given)),
        )
        result = _probed(opened, choose, made, again=given is None) if probe else choose().to_json()
    if out is not None:
        _write(Path(out), result)
    return result


def check_training(
    source: str,
    *,
    skip: Sequence[str] = (),
    folder: str | Path | None = None,
    time: str | float | None = None,
    placement: Mapping[str, Any] | None = None,
    hardware: str = "here",
    **recipe: Any,
) -> list[dict[str, Any]]:
    """Look at a training before it begins: checks P1 to P10 of `tidemill.train.checks`.

    Parameters
    ----------
    source : str
        As in `plan_training`.
    skip : sequence of str
        Codes to leave out.
    folder : path, optional
        For checkpoints.
    time : str or float, optional
        How long the training may take: ``2h``, or seconds.
    placement : mapping, optional
        The ``placement`` of what `plan_training` gave; without it one process.
    hardware : str
        What it is for, as in `plan_training`. For other hardware than this machine, checks that measure the machine
        are skipped, and the others run here.
    **recipe
        As in `plan_training`.

    Returns
    -------
    list of dict
        ``code``, ``subject``, ``state``, ``message``, ``seconds``.

    Raises
    ------
    OptionError, NotFoundError
        For a source or an option that can't be used.
    """
    need_torch("to check the training of deep models")
    from tidemill.train.checks import check

    made = _with_recipe(load_definition(source), recipe)
    if any(tensor.is_meta for tensor in made.module.parameters()):
        raise OptionError(
            "The module lies on the meta device: it can be planned, but not checked.",
            hint="Return it with its weights, or leave --check out.",
            where=source,
        )
    plan = Placement(**(placement or {}))
    elsewhere = hardware != "here"
    findings = check(
        made.module,
        made.loss,
        made.samples,
        made.recipe,
        validation=made.validation,
        folder=None if folder is None else Path(folder),
        plan=replace(plan, device="auto", offload=False) if elsewhere else plan,
        limits=Limits(deadline=None if time is None else monotonic() + parse_duration_s(time)),
        skip=[*skip, *(_OF_THIS_MACHINE if elsewhere else ())],
    )
    found = [asdict(finding) for finding in findings]
    if elsewhere:
        found += [_not_here(code, hardware) for code in _OF_THIS_MACHINE if code not in skip]
    return sorted(found, key=lambda finding: int(finding["code"][1:]))


def refuse_training(findings: Sequence[Mapping[str, Any]]) -> None:
    """Raise where `check_training` found an error.

    Raises
    ------
    TrialError
        With all of them.
    """
    from tidemill.train.checks import Finding, refuse

    refuse(tuple(Finding(**finding) for finding in findings))


def _not_here(code: str, hardware: str) -> dict[str, Any]:
    message = f"It measures the machine that it runs on, and the plan is for {hardware}."
    return {
        "code": code, "subject": _OF_THIS_MACHINE[code], "state": "skipped", "message": message, "seconds": 0.0
    }  # fmt: skip


def load_definition(source: str) -> Definition:
    """Call the function that ``source`` names.

    Raises
    ------
    OptionError
        Where it can't be loaded, fails, or returns something else.
    NotFoundError
        Where there is no such file or function.
    """
    place, _, name = source.rpartition(":")
    if not place or not name.isidentifier():
        raise OptionError(f"{source!r} names no function.", hint=_FORM)
    function = _find(place, name)
    try:
        given = function()
    except Exception as error:
        raise OptionError(f"{name} failed: {type(error).__name__}: {error}.", where=source) from error
    if not isinstance(given, tuple) or len(given) not in (3, 4, 5):
        raise OptionError(f"{name} returned {type(given).__name__}.", hint=_FORM, where=source)
    return _definition(given, name, source)


def _definition(given: tuple[Any, ...], name: str, source: str) -> Definition:
    """Refuse what is no definition, and say which of its parts."""
    from torch import nn

    module, loss, samples, *rest = given
    recipe = rest[0] if rest else Recipe()
    validation = rest[1] if len(rest) > 1 else None
    wrong = [
        f"{noun} is {type(value).__name__}, not {law}"
        for fits, noun, value, law in (
            (isinstance(module, nn.Module), "the first", module, "an nn.Module"),
            (callable(loss), "the second", loss, "a loss to call"),
            (_are_samples(samples), "the third", samples, "samples with a length and a batch to call"),
            (isinstance(recipe, Recipe), "the fourth", recipe, "a Recipe"),
            (validation is None or _are_samples(validation), "the fifth", validation, "validation samples"),
        )
        if not fits
    ]
    if wrong:
        raise OptionError(f"{name} returned something else: {'; '.join(wrong)}.", hint=_FORM, where=source)
    return Definition(module, loss, samples, recipe, validation)


def _are_samples(value: Any) -> bool:
    return hasattr(value, "__len__") and callable(getattr(value, "batch", None))


def _with_recipe(made: Definition, changes: Mapping[str, Any]) -> Definition:
    return made._replace(recipe=replace(made.recipe, **{n: v for n, v in changes.items() if v is not None}))


def _find(place: str, name: str) -> Callable[[], Any]:
    path = Path(place).expanduser()
    if place.endswith(".py"):
        if not path.is_file():
            raise NotFoundError(f"There is no file {place}.", hint=_FORM)
        # By its own name and from its folder, so that processes of a training find its classes again.
        sys.path.insert(0, str(path.absolute().parent))
        place = path.stem
    elif "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(place)
    except Exception as error:
        raise OptionError(f"{place} can't be loaded: {type(error).__name__}: {error}.") from error
    if not callable(getattr(module, name, None)):
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise NotFoundError.of("function", name, names)
    found: Callable[[], Any] = getattr(module, name)
    return found


def _probed(opened: Workspace, choose: Callable[..., Plan], made: Definition, *, again: bool) -> dict[str, Any]:
    """Try a plan, and where it runs out of memory the next best that takes less."""
    from tidemill.train.planner.probe import probe

    dropped: list[dict[str, Any]] = []
    while True:
        found = choose(dropped=[Placement(**one["placement"]) for one in dropped])
        try:
            done = probe(found, made.module, made.loss, made.samples, made.recipe)
            break
        except TrialMemoryError as error:
            plain = found.to_json()
            dropped.append(
                {name: plain[name] for name in ("placement", "describe", "estimate")} | {"reason": error.message}
            )
            if not again or len(dropped) == _TRIED:
                raise _out_of_memory(dropped) from error
        _let_go()  # outside of the handler, which holds the failed pass's tensors
    correction = done.correction(found)
    opened.records.put(_KIND, found.hardware.name, asdict(correction))
    return {**found.to_json(), "probe": {**asdict(done), "correction": asdict(correction), "dropped": dropped}}


def _let_go() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _out_of_memory(dropped: Sequence[Mapping[str, Any]]) -> TrialMemoryError:
    tried = "; ".join(f"{one['describe']} with pieces of {one['placement']['micro_batch']}" for one in dropped)
    return TrialMemoryError(
        f"What was tried ran out of memory: {tried}.",
        hint="Free some memory, take smaller batches or a smaller model, or describe the hardware with less memory.",
    )


def _remembered(opened: Workspace, hardware: str) -> Correction:
    from tidemill.train.planner.estimate import Correction

    for record in opened.records.find(_KIND, hardware):
        if record.key == hardware:
            return Correction(**record.body)
    return Correction()


def _example(samples: Samples, source: str) -> tuple[dict[str, Any], Any]:
    """Take two samples, for their shapes."""
    import numpy as np
    import torch

    from tidemill.train.evaluate import fetch

    try:
        if not len(samples):
            raise OptionError("There are no samples to plan with.", where=source)
        first = np.arange(min(2, len(samples)), dtype=np.int64)
        with torch.random.fork_rng(devices=[]):
            return fetch(samples, first, np.random.default_rng(0), train=False)
    except TidemillError:
        raise
    except Exception as error:  # samples are a person's own code, and raise whatever they like
        line = str(error).strip().splitlines()
        raise DataError(
            f"The samples can't be read: {type(error).__name__}: {line[0][:300].rstrip('.') if line else 'no word'}.",
            hint="batch(indices, train=…, rng=…) gives a dict of tensors for the module, and a tensor of targets.",
            where=source,
        ) from error


def _write(path: Path, result: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise WorkspaceError(f"The plan can't be written: {error.strerror or error}.", where=str(path)) from error
