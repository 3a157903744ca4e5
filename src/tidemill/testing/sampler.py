"""What every `Sampler` keeps. Subclass `SamplerSuite`; its fixture ``make_sampler`` is a function from a seed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tidemill.core.protocols import Sampler
from tidemill.core.space import Categorical, Float, Int, Space, When
from tidemill.core.trial import Config, Trial, TrialState

MakeSampler = Callable[[int], Sampler]


def example_space() -> Space:
    """Give a conditional space with every type of parameter, two levels deep."""
    trees = (When("family", ("trees",)),)
    return Space(
        [
            Categorical("family", ("trees", "linear"), "trees"),
            Int("trees.count", 10, 500, 100, log=True, when=trees),
            Float("trees.share", 0.1, 1.0, 0.9, when=trees),
            Categorical("trees.prune", (True, False), False, when=trees),
            Float("trees.alpha", 1e-6, 1.0, 1e-3, log=True, when=(*trees, When("trees.prune", (True,)))),
            Float("linear.l2", 1e-6, 10.0, 1e-2, log=True, when=(When("family", ("linear",)),)),
            Categorical("linear.spline", (None, 3, 5), None, when=(When("family", ("linear",)),)),
        ]
    )


def example_history(count: int = 12, seed: int = 0) -> list[Trial]:
    """Give trials of the example space: most complete, some failed, rejected or running."""
    rng = np.random.default_rng(seed)
    states = [TrialState.COMPLETE] * 4 + [TrialState.FAILED, TrialState.REJECTED, TrialState.RUNNING]
    out = []
    for number in range(count):
        config = example_space().sample(rng)
        state = states[number % len(states)]
        done = state is TrialState.COMPLETE
        out.append(
            Trial(
                "example", number, config, state, str(config["family"]),
                fold_scores=tuple(rng.normal(size=3).tolist()) if done else (),
                folds=3 if done else 0, artifacts={"checkpoint": "c", "oof": "o"} if done else {},
            )
        )  # fmt: skip
    return out


class SamplerSuite:
    """Laws of a sampler."""

    @pytest.fixture
    def make_sampler(self) -> MakeSampler:
        """Override: build the sampler from a seed."""
        raise AssertionError("Give the fixture `make_sampler`.")

    @staticmethod
    def ask(sampler: Sampler, history: Sequence[Trial], number: int) -> Config:
        """Ask, where an answer must come."""
        asked = sampler.ask(example_space(), history, number)
        assert asked is not None
        return asked[0]

    def test_every_config_fits_the_space(self, make_sampler: MakeSampler) -> None:
        sampler, space = make_sampler(0), example_space()
        for number, history in enumerate([[], example_history(1), example_history(5), example_history(30)]):
            asked = sampler.ask(space, history, number)
            if asked is not None:
                space.check(asked[0])
                assert asked[1]

    def test_the_answer_depends_on_arguments_and_seed_alone(self, make_sampler: MakeSampler) -> None:
        sampler, history = make_sampler(3), example_history(10)
        first = sampler.ask(example_space(), history, 0)
        for number in (5, 1, 7):
            sampler.ask(example_space(), example_history(number, seed=number), number)
        assert sampler.ask(example_space(), history, 0) == first
        assert make_sampler(3).ask(example_space(), history, 0) == first

    def test_arguments_are_left_as_they_are(self, make_sampler: MakeSampler) -> None:
        history = example_history(8)
        before = copy.deepcopy(history)
        asked = make_sampler(0).ask(example_space(), history, 0)
        if asked is not None:
            asked[0]["changed"] = 1
        assert history == before
        again = make_sampler(0).ask(example_space(), history, 0)
        assert again is None or "changed" not in again[0]
