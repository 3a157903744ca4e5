"""The first answers: quick configs that nearly always work."""

from __future__ import annotations

from collections.abc import Sequence

from tidemill.core.space import Categorical, Space
from tidemill.core.trial import Config, Trial

QUICK: tuple[Config, ...] = (
    {"family": "lightgbm", "lightgbm.max_rounds": 40, "lightgbm.learning_rate": 0.25, "lightgbm.num_leaves": 15},
    {"family": "linear"},
    {"family": "lightgbm", "lightgbm.max_rounds": 150, "lightgbm.learning_rate": 0.1},
)
"""A usable model at once, one that is strong on few rows, and one that is hard to beat in a few seconds."""


def families_of(space: Space) -> tuple[str, ...]:
    """Names of the families in a space, in its order."""
    for param in space:
        if param.name == "family" and isinstance(param, Categorical):
            return tuple(str(c) for c in param.choices)
    return ()


def fit_into(space: Space, partial: Config) -> Config | None:
    """Complete a partial config for a space; None where its family is absent or a value lies outside.

    Numbers outside a range are moved to its edge, parameters that the space doesn't know are dropped, so that a
    portfolio survives small changes of a space.

    Examples
    --------
    >>> from tidemill.core.space import Int
    >>> space = Space([Categorical("family", ("a",), "a"), Int("a.depth", 1, 6, 3)])
    >>> fit_into(space, {"family": "a", "a.depth": 9, "a.gone": 1})
    {'family': 'a', 'a.depth': 6}
    >>> fit_into(space, {"family": "b"}) is None
    True
    """
    values: Config = {}
    for param in space:
        if param.name not in partial:
            continue
        value = partial[param.name]
        if isinstance(param, Categorical):
            if not param.contains(value):
                if param.name == "family":
                    return None
                continue
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            value = min(max(value, param.low), param.high)
        else:
            continue
        values[param.name] = value
    if "family" in partial and "family" not in values:
        return None
    config = space.complete(values)
    # A limit of rounds stands in no space; see `tidemill.models`.
    limit = f"{config.get('family')}.max_rounds"
    return {**config, limit: partial[limit]} if limit in partial else config


class BaselineSampler:
    """Proposes `QUICK`, as far as the space knows the families.

    Parameters
    ----------
    configs : sequence of Config
        Partial configs in the order in which they are proposed.
    """

    def __init__(self, configs: Sequence[Config] = QUICK) -> None:
        self._configs = tuple(configs)

    def configs(self, space: Space) -> list[Config]:
        """Complete configs in order, without those that don't fit."""
        found = (fit_into(space, partial) for partial in self._configs)
        return [config for config in found if config is not None]

    def ask(self, space: Space, history: Sequence[Trial], number: int) -> tuple[Config, str] | None:
        """Return the config at place ``number``, or None after the last."""
        configs = self.configs(space)
        return (configs[number], "baseline") if number < len(configs) else None
