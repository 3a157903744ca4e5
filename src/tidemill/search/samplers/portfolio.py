"""Configs that were good together on other tables, in the order in which they help."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources

from tidemill.core.errors import InternalError
from tidemill.core.space import Space, config_key
from tidemill.core.task import TaskKind
from tidemill.core.trial import Config, Trial
from tidemill.search.samplers.baseline import fit_into


def load(kind: TaskKind, name: str = "tabular") -> list[Config]:
    """Read a shipped portfolio: partial configs for one kind of task, best first.

    An entry may name the kinds that it is meant for; without that it is meant for all.
    """
    text = resources.files("tidemill.search.portfolio").joinpath(f"{name}.json").read_text(encoding="utf-8")
    data = json.loads(text)
    if data.get("format") != 1:
        raise InternalError(f"The portfolio {name!r} has the format {data.get('format')!r}, not 1.")
    return [entry["config"] for entry in data["configs"] if kind.value in entry.get("kinds", [kind.value])]


class PortfolioSampler:
    """Proposes a fixed list of configs in order.

    Parameters
    ----------
    configs : sequence of Config
        Partial configs; each is completed with the space's defaults, unknown families are left out.
    """

    def __init__(self, configs: Sequence[Config]) -> None:
        self._configs = tuple(configs)
        self._known: tuple[Space, list[Config]] | None = None

    def configs(self, space: Space) -> list[Config]:
        """Complete, distinct configs in order, without those that don't fit the space."""
        if self._known is None or self._known[0] is not space:
            unique: dict[str, Config] = {}
            for partial in self._configs:
                config = fit_into(space, partial)
                if config is not None:
                    unique.setdefault(config_key(config), config)
            self._known = (space, list(unique.values()))
        return self._known[1]

    def ask(self, space: Space, history: Sequence[Trial], number: int) -> tuple[Config, str] | None:
        """Return the config at place ``number``, or None after the last."""
        configs = self.configs(space)
        return (configs[number], "portfolio") if number < len(configs) else None
