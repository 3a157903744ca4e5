"""Where the nets of a fit are trained, as a person said it: a device, a plan."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from tidemill.core.budget import Budget
from tidemill.core.errors import OptionError
from tidemill.sdk.options import FitOptions
from tidemill.search.modality import TABLE
from tidemill.train.extra import need_torch


def placed(budget: Budget, options: FitOptions, modality: str) -> Budget:
    """Add the device and the plan that were asked for to a budget; looked at before data are read.

    Raises
    ------
    OptionError
        For a device that is not there, a plan that is not for it, or rows that no net of the runtime learns from.
    DataError
        For a plan that can't be read.
    """
    if options.device == "auto" and options.plan is None:
        return budget
    said = "--device" if options.plan is None else "--plan"
    if modality == TABLE:
        raise OptionError(
            "Models of tables are trained on processors.",
            where=said,
            hint=f"{said} is for images, texts and lines of text.",
        )
    need_torch("to place the training of nets")
    from tidemill.train.device import find_device

    find_device(options.device)
    budget = replace(budget, device=options.device)
    return budget if options.plan is None else _as_planned(budget, options)


def _as_planned(budget: Budget, options: FitOptions) -> Budget:
    from tidemill.train.device import find_device
    from tidemill.train.planner.plan import read_placement

    if options.engine == "ray":
        raise OptionError(
            "A plan says where on one machine a net is trained.", where="--plan", hint="Leave out --engine ray."
        )
    placement = read_placement(Path(options.plan))
    find_device(placement.device)
    if "auto" not in (options.device, placement.device) and options.device != placement.device:
        raise OptionError(
            f"The plan is for {placement.device}, but {options.device} was asked for.", where="--device, --plan"
        )
    return replace(budget, device=placement.device, placement=asdict(placement))
