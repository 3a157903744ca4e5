"""What is known of a config before it is trained: whether it can keep the bounds on costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidemill.core.objective import Objective, evaluate_costs
from tidemill.core.task import Task
from tidemill.core.trial import FREE, Config, Cost
from tidemill.models.tabular._base import Family, TableProfile

_ROUNDS = (10_000, 5_000, 2_500, 1_500, 1_000, 700, 500, 350, 250, 180, 120, 80, 50, 35, 25, 15, 10)


@dataclass(frozen=True)
class Gate:
    """Lets configs through that can keep the objective's bounds on costs.

    One model of a config is held against the bounds: what is shipped may be a single one of a bag.

    Parameters
    ----------
    objective : Objective
        With its bounds.
    families : mapping
        Families by name.
    task, profile
        As in `Family.cost`.
    shared : Cost
        What every model costs beside its own: encoders of columns.
    """

    objective: Objective
    families: Mapping[str, Family]
    task: Task
    profile: TableProfile
    shared: Cost = FREE

    def pass_or_explain(self, config: Config) -> tuple[Config, str | None]:
        """Return the config, its training limited where that keeps a bound, and why it can't pass, or None.

        A boosting family's cost is open until its rounds are limited; so the largest limit that fits is set.
        """
        if not self.objective.cost_constraints:
            return config, None
        family = self.families[config["family"]]
        cost = family.cost(config, self.task, self.profile)  # it counts what the config's treatment adds
        broken = self._broken(cost)
        if broken:
            return config, broken
        key = f"{family.name}.max_rounds"
        if not self._open(cost) or self._open(family.cost({**config, key: _ROUNDS[-1]}, self.task, self.profile)):
            return config, None  # all is known, or a limit of rounds tells nothing about this family
        for rounds in _ROUNDS:
            limited = {**config, key: rounds}
            broken = self._broken(family.cost(limited, self.task, self.profile))
            if not broken:
                return limited, None
        return config, f"even with {_ROUNDS[-1]} rounds: {broken}"

    def _open(self, cost: Cost) -> bool:
        """True where a bounded cost that can be computed isn't known; latency never is."""
        bounded = (c.subject for c in self.objective.cost_constraints if c.subject != "latency_ms")
        return any(getattr(cost, subject) is None for subject in bounded)

    def _broken(self, cost: Cost) -> str:
        return "; ".join(str(r) for r in evaluate_costs(self.objective, cost + self.shared) if not r.satisfied)
