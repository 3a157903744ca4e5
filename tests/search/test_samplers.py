from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core.metrics import get_metric
from tidemill.core.space import Categorical, Float, Space, config_key
from tidemill.core.task import TaskKind
from tidemill.core.trial import Config, Trial, TrialState
from tidemill.search import board
from tidemill.search.samplers.baseline import BaselineSampler, fit_into
from tidemill.search.samplers.chain import ChainSampler
from tidemill.search.samplers.portfolio import PortfolioSampler, load
from tidemill.search.samplers.random_ import RandomSampler
from tidemill.search.samplers.tpe import TPESampler
from tidemill.testing.sampler import MakeSampler, SamplerSuite, example_history, example_space

CONFIGS: tuple[Config, ...] = (
    {"family": "linear"},
    {"family": "gone"},
    {"family": "trees", "trees.count": 10_000},
    {"family": "linear", "linear.spline": 3},
    {"family": "linear", "unknown": 3},
)


def losses(trials: Sequence[Trial]) -> dict[int, float]:
    return board.losses(trials, get_metric("rmse"))


class TestRandom(SamplerSuite):
    @pytest.fixture
    def make_sampler(self) -> MakeSampler:
        return RandomSampler


class TestTPE(SamplerSuite):
    @pytest.fixture
    def make_sampler(self) -> MakeSampler:
        return lambda seed: TPESampler(seed, losses)

    def test_finds_the_bottom_of_a_bowl_faster_than_chance(self) -> None:
        space = Space([Float("a", 0.0, 1.0, 0.5), Float("b", 0.0, 1.0, 0.5), Float("c", 0.0, 1.0, 0.5)])

        def best(sampler: TPESampler | RandomSampler) -> float:
            history: list[Trial] = []
            for number in range(40):
                asked = sampler.ask(space, history, number)
                assert asked is not None
                value = sum((v - 0.3) ** 2 for v in asked[0].values())
                history.append(
                    Trial(
                        "s",
                        number,
                        asked[0],
                        TrialState.COMPLETE,
                        "",
                        fold_scores=(value,),
                        artifacts={"checkpoint": ""},
                    )
                )
            return min(t.fold_scores[0] for t in history)

        wins = sum(best(TPESampler(seed, losses)) < best(RandomSampler(seed)) for seed in range(5))
        assert wins >= 4

    def test_never_proposes_what_is_known(self) -> None:
        space = Space([Categorical("family", ("x",), "x"), Categorical("x.c", tuple(range(40)), 0)])
        history: list[Trial] = []
        for number in range(12):
            asked = TPESampler(0, losses).ask(space, history, number)
            assert asked is not None
            history.append(Trial("s", number, asked[0], TrialState.RUNNING, "x"))
        keys = {config_key(t.config) for t in history}
        assert len(keys) >= 11  # the last resort is chance

    def test_the_better_family_is_asked_more_often(self) -> None:
        history = [
            Trial("s", n, example_space().default(family=f), TrialState.COMPLETE, f, fold_scores=(v,),
                  artifacts={"checkpoint": ""})
            for n, (f, v) in enumerate([("trees", 1.0), ("linear", 2.0)])
        ]  # fmt: skip
        asked = [TPESampler(0, losses).ask(example_space(), history, n) for n in range(2, 42)]
        families = [a[0]["family"] for a in asked if a is not None]
        assert 20 < families.count("trees") < 40


class TestPortfolio(SamplerSuite):
    @pytest.fixture
    def make_sampler(self) -> MakeSampler:
        return lambda seed: PortfolioSampler(CONFIGS)

    def test_unknown_families_are_skipped_and_equal_configs_asked_once(self) -> None:
        configs = PortfolioSampler(CONFIGS).configs(example_space())
        assert [c["family"] for c in configs] == ["linear", "trees", "linear"]
        assert configs[1]["trees.count"] == 500

    @pytest.mark.parametrize("kind", [k for k in TaskKind if k is not TaskKind.RECOGNITION])
    def test_the_shipped_portfolio_has_configs_for_every_kind(self, kind: TaskKind) -> None:
        assert len(load(kind)) >= 10
        assert all(isinstance(c.get("family"), str) for c in load(kind))


class TestBaseline(SamplerSuite):
    @pytest.fixture
    def make_sampler(self) -> MakeSampler:
        return lambda seed: BaselineSampler(CONFIGS)


class TestChain(SamplerSuite):
    @pytest.fixture
    def make_sampler(self) -> MakeSampler:
        return lambda seed: ChainSampler([BaselineSampler(CONFIGS)], RandomSampler(seed))

    def test_lists_come_first_each_config_once(self) -> None:
        chain = ChainSampler([BaselineSampler(CONFIGS[:1]), PortfolioSampler(CONFIGS)], RandomSampler(0))
        origins = []
        for number in range(5):
            asked = chain.ask(example_space(), [], number)
            assert asked is not None
            origins.append(asked[1])
        assert origins == ["baseline", "portfolio", "portfolio", "random", "random"]

    def test_a_chain_without_an_end_sampler_ends(self) -> None:
        assert ChainSampler([BaselineSampler(CONFIGS[:1])], None).ask(example_space(), [], 1) is None


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000))
def test_any_config_of_the_space_fits_into_it_unchanged(seed: int) -> None:
    config = example_space().sample(np.random.default_rng(seed))
    assert fit_into(example_space(), config) == config


def test_a_trial_that_lost_the_race_gets_a_loss_on_the_scale_of_the_others() -> None:
    metric = get_metric("rmse")
    whole = [
        Trial("s", n, {}, TrialState.COMPLETE, "", fold_scores=(1.0 + n, 3.0 + n), artifacts={"checkpoint": ""})
        for n in range(3)
    ]
    lost = Trial("s", 9, {}, TrialState.COMPLETE, "", fold_scores=(2.0,))
    assert board.losses([*whole, lost], metric)[9] == pytest.approx(3.0)
    assert 4 not in board.losses(example_history(5), metric)
