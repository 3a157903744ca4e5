"""Where a deep model would be trained: planned, tried for a few steps, remembered for each device."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import NotFoundError, OptionError, WorkspaceError
from tidemill.store.workspace import Workspace
from tidemill.train.extra import need_torch
from tidemill.train.types import Limits, Loss, Recipe, Samples

if TYPE_CHECKING:
    from torch import nn

    from tidemill.train.checks import Finding
    from tidemill.train.planner.estimate import Correction
    from tidemill.train.planner.plan import Plan

_KIND = "plan_correction"
_FORM = "Write FILE.py:FUNCTION; the function takes nothing and returns a module, a loss and samples."

Definition = tuple["nn.Module", Loss, Samples, Recipe]
"""A model as it is written, apart from any hardware."""


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
        loss, samples and, where it likes, a `Recipe`. The module may lie on the meta device.
    hardware : str
        ``here``, a preset such as ``8xh100`` or ``4x8xh100``, or a YAML file.
    given : path, optional
        A plan's JSON whose placement is taken instead of the best.
    out : path, optional
        Write the plan there.
    probe : bool
        Run three steps as planned, after one to warm up, and remember in the workspace how far the numbers are off on
        this hardware; later plans are corrected by it.
    validation : bool
        Whether there will be evaluations.
    workspace : path, optional
        Where corrections are remembered.
    **recipe
        Entries of `Recipe` that replace the function's; None leaves them.

    Returns
    -------
    dict
        The plan as plain values, with ``probe`` where there was one.

    Raises
    ------
    OptionError, NotFoundError
        For a source or an option that can't be used.
    TrialMemoryError
        Where nothing fits.
    """
    need_torch("to plan the training of deep models")
    import torch

    from tidemill.train.planner.choose import plan
    from tidemill.train.planner.hardware import read_hardware
    from tidemill.train.planner.plan import read_placement

    module, loss, samples, base = load_definition(source)
    how = replace(base, **{name: value for name, value in recipe.items() if value is not None})
    where = read_hardware(hardware)
    with torch.random.fork_rng(devices=[]):
        example = samples.batch(_first(len(samples)), train=False, rng=_rng())
    with Workspace.open(workspace) as opened:
        found = plan(
            module,
            loss,
            example,
            how,
            where,
            validation=validation,
            correction=_remembered(opened, where.name),
            placement=None if given is None else read_placement(Path(given)),
        )
        result = found.to_json()
        if probe:
            result["probe"] = _probed(opened, found, module, loss, samples, how, here=hardware == "here")
    if out is not None:
        _write(Path(out), result)
    return result


def check_training(
    source: str,
    *,
    skip: Sequence[str] = (),
    folder: str | Path | None = None,
    time_s: float | None = None,
    given: str | Path | None = None,
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
    time_s : float, optional
        How long the training may take.
    given : path, optional
        A plan's JSON.
    **recipe
        As in `plan_training`.

    Returns
    -------
    list of dict
        ``code``, ``subject``, ``state``, ``message``, ``seconds``.
    """
    need_torch("to check the training of deep models")
    import time

    from tidemill.train.checks import check
    from tidemill.train.planner.plan import read_placement

    module, loss, samples, base = load_definition(source)
    findings: tuple[Finding, ...] = check(
        module,
        loss,
        samples,
        replace(base, **{name: value for name, value in recipe.items() if value is not None}),
        folder=None if folder is None else Path(folder),
        plan=None if given is None else read_placement(Path(given)),
        limits=Limits(deadline=None if time_s is None else time.monotonic() + time_s),
        skip=skip,
    )
    return [asdict(finding) for finding in findings]


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
    if not isinstance(given, tuple) or len(given) not in (3, 4):
        raise OptionError(f"{name} returned {type(given).__name__}.", hint=_FORM, where=source)
    module, loss, samples, *rest = given
    recipe = rest[0] if rest else Recipe()
    if not callable(loss) or not hasattr(samples, "batch") or not isinstance(recipe, Recipe):
        raise OptionError(f"{name} returned something else than a module, a loss, samples and a recipe.", where=source)
    return module, loss, samples, recipe


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


def _probed(
    opened: Workspace, found: Plan, module: nn.Module, loss: Loss, samples: Samples, recipe: Recipe, *, here: bool
) -> dict[str, Any]:
    from tidemill.train.planner.probe import probe

    if not here:
        raise OptionError("A plan for other hardware can't be tried here.", hint="Leave --hardware or --probe out.")
    done = probe(found, module, loss, samples, recipe)
    correction = done.correction(found)
    opened.records.put(_KIND, found.hardware.name, asdict(correction))
    return {**asdict(done), "correction": asdict(correction)}


def _remembered(opened: Workspace, hardware: str) -> Correction:
    from tidemill.train.planner.estimate import Correction

    for record in opened.records.find(_KIND, hardware):
        if record.key == hardware:
            return Correction(**record.body)
    return Correction()


def _first(samples: int) -> Any:
    import numpy as np

    if not samples:
        raise OptionError("There are no samples to plan with.")
    return np.arange(min(2, samples), dtype=np.int64)


def _rng() -> Any:
    import numpy as np

    return np.random.default_rng(0)


def _write(path: Path, result: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise WorkspaceError(f"The plan can't be written: {error.strerror or error}.", where=str(path)) from error
