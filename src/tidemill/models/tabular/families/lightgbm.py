"""Gradient boosting by LightGBM: trees that grow leaf by leaf on histograms."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any, ClassVar

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import InternalError, TrialError
from tidemill.core.space import Categorical, Float, Int, Space
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config, Cost
from tidemill.models.tabular._base import FitBudget, Matrix, TableProfile, TabularData
from tidemill.models.tabular.families import _links, _offers, _rounds
from tidemill.models.tabular.families._boosted import FittedBoosting
from tidemill.models.tabular.trees import TreeTable, bound, floor32, most_depth

_OBJECTIVE = {TaskKind.BINARY: "binary", TaskKind.MULTICLASS: "multiclass", TaskKind.REGRESSION: "regression"}
# Bits of `decision_type` in the text of a model.
_BY_CATEGORY, _DEFAULT_LEFT, _MISSING_SHIFT, _MISSING_IS_NAN = 1, 2, 2, 2
_BLOCK_TREES = 50
"""Trees that rows go through at a time in a prediction; with 612 trees of some 75,000 splits it takes half the time."""


class LightGBM:
    """Trees that grow leaf by leaf; the fastest to train, and the first to try on any table."""

    name: ClassVar[str] = "lightgbm"
    bagged: ClassVar[bool] = True

    def supports(self, task: Task, profile: TableProfile) -> bool:
        """Any table with a column and two rows."""
        return profile.rows >= 2 and len(profile.features) > 0

    def space(self, task: Task, profile: TableProfile) -> Space:
        """Ranges as wide as the best public portfolios reach."""
        least = max(1, min(20, profile.rows // 20))
        return Space(
            [
                Float("lightgbm.learning_rate", 5e-3, 0.3, 0.05, log=True),
                Int("lightgbm.num_leaves", 4, 255, 31, log=True),
                Int("lightgbm.min_data_in_leaf", 1, 200, least, log=True),
                Float("lightgbm.feature_fraction", 0.4, 1.0, 0.9),
                Float("lightgbm.bagging_fraction", 0.5, 1.0, 0.9),
                Float("lightgbm.lambda_l1", 1e-6, 10.0, 1e-6, log=True),
                Float("lightgbm.lambda_l2", 1e-6, 30.0, 1e-3, log=True),
                Float("lightgbm.min_gain", 1e-8, 1.0, 1e-8, log=True),
                Float("lightgbm.path_smooth", 1e-3, 30.0, 1e-3, log=True),
                Categorical("lightgbm.extra_trees", (False, True), False),
                Categorical("lightgbm.max_bin", (63, 255, 511), 255),
            ]
        )

    def treatment(self, task: Task, profile: TableProfile) -> Mapping[str, tuple[Any, ...]]:
        """Codes by frequency need few splits and are the cheapest in the graph."""
        return _offers.rough(task, profile, category=("code", "target", "both", "mixed"))

    def cost(self, config: Config, task: Task, profile: TableProfile) -> Cost:
        """A bound where the config limits the rounds; else early stopping decides, and nothing is known."""
        rounds = _rounds.known_rounds(self.name, config)
        if rounds is None:
            return Cost()
        leaves = int(config["lightgbm.num_leaves"])
        return bound(rounds * _rounds.trees_per_round(task), leaves, most_depth(leaves))

    def fit(
        self,
        config: Config,
        task: Task,
        train: TabularData,
        valid: TabularData | None,
        budget: FitBudget,
        seed: int,
    ) -> FittedLightGBM:
        """Train round by round, keep the best round."""
        params = _params(config, task, budget.threads, seed)
        rounds = _rounds.plan(
            self.name, config, params["learning_rate"], params["num_leaves"] * _rounds.trees_per_round(task)
        )
        try:
            data = lgb.Dataset(train.x, train.y, weight=train.weight, params=params)
            booster = lgb.Booster(params, data)
            if valid is not None:
                booster.add_valid(
                    lgb.Dataset(valid.x, valid.y, weight=valid.weight, reference=data, params=params), "valid"
                )
            watch = _rounds.Watch(rounds, budget, validated=valid is not None)
            _rounds.train(
                watch,
                step=lambda _: bool(booster.update()),
                validate=(lambda: float(booster.eval_valid()[0][2])) if valid is not None else None,
            )
            text = booster.model_to_string(num_iteration=watch.keep)
        except lgb.basic.LightGBMError as error:
            raise TrialError(f"LightGBM could not train: {error}.") from error
        return FittedLightGBM(text, task, watch.keep, budget.threads)

    def restore(self, state: dict[str, Any], task: Task) -> FittedLightGBM:
        """Read the model's text."""
        return FittedLightGBM(state["model"], task, state["rounds"])


class FittedLightGBM(FittedBoosting):
    """A trained LightGBM model; ``text`` is its own text form, ``threads`` are for prediction."""

    def __init__(self, text: str, task: Task, rounds: int, threads: int = 1) -> None:
        super().__init__(text, task, rounds)
        self._text = text
        self._threads = threads
        self._booster = lgb.Booster(model_str=text)
        self._one = Lock()  # a booster holds the range of rounds that it answers with: threads would share it

    def _native(self, x: Matrix) -> NDArray[Any]:
        """As `Booster.predict`, but all rows through one block of trees after the other: a block stays in the cache."""
        step = max(1, _BLOCK_TREES // _rounds.trees_per_round(self._task))
        blocks = range(step, self._booster.current_iteration(), step)
        with self._one:
            raw = self._raw(x, 0, step)
            for start in blocks:
                raw += self._raw(x, start, step)
        if self._task.kind is TaskKind.BINARY:
            return _links.sigmoid(raw)
        # LightGBM forgets the classes where there are no rows.
        many = self._task.kind is TaskKind.MULTICLASS
        return _links.softmax(raw.reshape(-1, self._task.n_classes)) if many else raw

    def _raw(self, x: Matrix, start: int, rounds: int) -> NDArray[np.float64]:
        raw = self._booster.predict(
            x, raw_score=True, start_iteration=start, num_iteration=rounds, num_threads=self._threads
        )
        return np.asarray(raw, dtype=np.float64)

    def _read(self) -> TreeTable:
        return read_trees(self._text, _rounds.trees_per_round(self._task))


def _params(config: Config, task: Task, threads: int, seed: int) -> dict[str, Any]:
    """Translate a config into LightGBM's words."""
    params = _rounds.own_params("lightgbm", config)
    params["min_gain_to_split"] = params.pop("min_gain")
    params |= {
        "max_depth": most_depth(params["num_leaves"]),
        "bagging_freq": int(params["bagging_fraction"] < 1),
        "objective": _OBJECTIVE[task.kind],
        "num_threads": threads,
        "seed": seed % 2**31,
        "deterministic": True,
        "force_row_wise": True,
        "feature_pre_filter": False,
        "verbosity": -1,
    }
    # Smoothing needs two rows in a leaf.
    if params["min_data_in_leaf"] < 2:
        params["path_smooth"] = 0.0
    if task.kind is TaskKind.MULTICLASS:
        params["num_class"] = task.n_classes
    return params


def read_trees(text: str, trees_per_round: int) -> TreeTable:
    """Read the trees from the text of a LightGBM model, some ten times as quickly as from its JSON.

    Parameters
    ----------
    text : str
        What ``Booster.model_to_string`` gives.
    trees_per_round : int
        1, or the number of classes.

    Returns
    -------
    TreeTable
        The raw score before the link.
    """
    values: dict[str, list[str]] = {}
    for line in text[: text.index("\nend of trees")].split("\n"):
        key, _, value = line.partition("=")
        values.setdefault(key, []).append(value)

    def field(name: str) -> NDArray[np.float64]:
        return np.array(" ".join(values.get(name, [])).split(), dtype=np.float64)

    leaves = field("num_leaves").astype(np.int64)
    if field("num_cat").any():
        raise InternalError("A LightGBM model with splits by category can't be exported.")
    first_split = np.concatenate([[0], np.cumsum(leaves - 1)])[:-1]
    first_leaf = np.concatenate([[0], np.cumsum(leaves)])[:-1]
    split_of, leaf_of = np.repeat(first_split, leaves - 1), np.repeat(first_leaf, leaves - 1)

    def node(name: str) -> NDArray[np.int32]:
        own = field(name).astype(np.int64)
        moved: NDArray[np.int32] = np.where(own >= 0, own + split_of, own - leaf_of).astype(np.int32)
        return moved

    threshold = field("threshold")
    decision = field("decision_type").astype(np.int64)
    # Without missing values in training LightGBM reads NaN as 0.
    sees_nan = decision >> _MISSING_SHIFT == _MISSING_IS_NAN
    missing_left = np.where(sees_nan, decision & _DEFAULT_LEFT != 0, threshold >= 0)
    return TreeTable(
        feature=field("split_feature").astype(np.int32),
        threshold=floor32(threshold),
        left=node("left_child"),
        right=node("right_child"),
        missing_left=missing_left,
        root=np.where(leaves > 1, first_split, ~first_leaf).astype(np.int32),
        leaf=field("leaf_value").astype(np.float32)[:, None],
        target=(np.arange(len(leaves)) % trees_per_round).astype(np.int32),
        bias=np.zeros(trees_per_round, dtype=np.float32),
    )


FAMILY = LightGBM()
