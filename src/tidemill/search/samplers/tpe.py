"""Model-based search: a tree-structured Parzen estimator for every family, and a bandit over the families."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from tidemill.core.space import Categorical, Int, Param, Space, config_key
from tidemill.core.trial import Config, Trial
from tidemill.core.trial import TrialState as State
from tidemill.search.samplers.baseline import families_of

_STATES = {
    State.COMPLETE: TrialState.COMPLETE,
    State.RUNNING: TrialState.RUNNING,
    State.PAUSED: TrialState.COMPLETE,
    State.FAILED: TrialState.FAIL,
    State.REJECTED: TrialState.FAIL,
}


class TPESampler:
    """Asks Optuna, whose study is rebuilt from the history every time: the ledger is the only memory.

    One sub-study per family keeps the estimators dense, and lets a family join the space later without a new study.
    The family is drawn with a chance that falls with the rank of its best trial, so that the search goes where it is
    good and still keeps the others in view: an ensemble lives on their difference.

    Parameters
    ----------
    seed : int
        Together with the trial's number it seeds everything.
    losses : callable
        Losses of a history by number; trials that have none yet are absent.
    focus : float
        How fast a family's chance falls with its rank; 0 treats all alike.

    References
    ----------
    Bergstra et al., "Algorithms for hyper-parameter optimization", NeurIPS 2011; Falkner et al., "BOHB", ICML 2018,
    for the multivariate kernel.
    """

    def __init__(
        self, seed: int, losses: Callable[[Sequence[Trial]], Mapping[int, float]], *, focus: float = 1.5
    ) -> None:
        self._seed = seed
        self._losses = losses
        self._focus = focus

    def ask(self, space: Space, history: Sequence[Trial], number: int) -> tuple[Config, str] | None:
        """Propose a config that isn't in the history; where the model only repeats itself, one by chance."""
        rng = np.random.default_rng([self._seed, number])
        losses = self._losses(history)
        family = self._draw_family(space, history, losses, rng)
        mine = [t for t in history if t.config.get("family") == family]
        known = {config_key(t.config) for t in history}
        study = _study(space, mine, losses, int(rng.integers(2**31)))
        for _ in range(4):
            config = _walk(space, family, study.ask())
            if config_key(config) not in known:
                return config, "tpe"
        return _sample_family(space, family, rng), "random"

    def _draw_family(
        self, space: Space, history: Sequence[Trial], losses: Mapping[int, float], rng: np.random.Generator
    ) -> str | None:
        families = families_of(space)
        if not families:
            return None
        best: dict[str, float] = {}
        for trial in history:
            if trial.number in losses and trial.family in families:
                best[trial.family] = min(losses[trial.number], best.get(trial.family, np.inf))
        ranked = sorted(best, key=lambda f: best[f])
        # A family that nobody has tried yet stands where the middle of the ranking is.
        middle = (len(ranked) + 1) / 2
        place = {f: ranked.index(f) + 1.0 if f in best else max(middle, 1.0) for f in families}
        chance = np.array([place[f] ** -self._focus for f in families])
        return str(rng.choice(np.array(families), p=chance / chance.sum()))


def _study(space: Space, trials: Sequence[Trial], losses: Mapping[int, float], seed: int) -> optuna.Study:
    logging.getLogger("optuna").setLevel(logging.WARNING)
    # Every option that Optuna 5 doesn't call deprecated or experimental is given, so that a change of its defaults
    # changes nothing here.
    sampler = optuna.samplers.TPESampler(
        n_startup_trials=4,
        n_ei_candidates=48,
        seed=seed,
        multivariate=True,
        group=False,
        constant_liar=True,
    )
    study = optuna.create_study(direction="minimize", sampler=sampler, pruner=optuna.pruners.NopPruner())
    study.add_trials([_frozen(space, t, losses.get(t.number)) for t in trials])
    return study


def _frozen(space: Space, trial: Trial, loss: float | None) -> FrozenTrial:
    state = _STATES[trial.state]
    if state is TrialState.COMPLETE and loss is None:
        state = TrialState.FAIL
    given = [p for p in space if p.name != "family" and p.name in trial.config]
    known = [p for p in given if p.contains(trial.config[p.name])]
    return create_trial(
        state=state,
        value=loss if state is TrialState.COMPLETE else None,
        params={p.name: trial.config[p.name] for p in known},
        distributions={p.name: distribution(p) for p in known},
    )


def distribution(param: Param) -> BaseDistribution:
    """Translate a parameter for Optuna."""
    if isinstance(param, Categorical):
        return CategoricalDistribution(param.choices)
    if isinstance(param, Int):
        return IntDistribution(param.low, param.high, log=param.log)
    return FloatDistribution(param.low, param.high, log=param.log)


def _walk(space: Space, family: str | None, trial: optuna.Trial) -> Config:
    config: Config = {}
    for param in space:
        if not space.active(param, config):
            continue
        if param.name == "family":
            config["family"] = family
        elif isinstance(param, Categorical):
            config[param.name] = trial.suggest_categorical(param.name, param.choices)
        elif isinstance(param, Int):
            config[param.name] = trial.suggest_int(param.name, param.low, param.high, log=param.log)
        else:
            config[param.name] = trial.suggest_float(param.name, param.low, param.high, log=param.log)
    return config


def _sample_family(space: Space, family: str | None, rng: np.random.Generator) -> Config:
    config: Config = {}
    for param in space:
        if space.active(param, config):
            config[param.name] = family if param.name == "family" else param.sample(rng)
    return config
