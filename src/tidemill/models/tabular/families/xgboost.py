"""Gradient boosting by XGBoost: histogram trees, grown level by level or leaf by leaf."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import orjson
import xgboost as xgb
from numpy.typing import NDArray

from tidemill.core.errors import InternalError, TrialError
from tidemill.core.space import Categorical, Float, Int, Space, When
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config, Cost
from tidemill.models.tabular._base import FitBudget, Matrix, TableProfile, TabularData
from tidemill.models.tabular.families import _offers, _rounds
from tidemill.models.tabular.families._boosted import FittedBoosting
from tidemill.models.tabular.trees import TreeTable, before32, bound, from_nodes, most_depth

_OBJECTIVE = {
    TaskKind.BINARY: ("binary:logistic", "logloss"),
    TaskKind.MULTICLASS: ("multi:softprob", "mlogloss"),
    TaskKind.REGRESSION: ("reg:squarederror", "rmse"),
}

_LEAST_PROBABILITY = np.float32(1e-6)
"""XGBoost takes a base score no nearer to 0 and 1 than this."""


class XGBoost:
    """Trees that grow level by level or leaf by leaf, strongly regularised."""

    name: ClassVar[str] = "xgboost"
    bagged: ClassVar[bool] = True

    def supports(self, task: Task, profile: TableProfile) -> bool:
        """Any table with a column and two rows."""
        return profile.rows >= 2 and len(profile.features) > 0

    def space(self, task: Task, profile: TableProfile) -> Space:
        """Ranges as wide as the best public portfolios reach."""
        by_leaf = (When("xgboost.grow_policy", ("lossguide",)),)
        by_level = (When("xgboost.grow_policy", ("depthwise",)),)
        return Space(
            [
                Float("xgboost.learning_rate", 5e-3, 0.3, 0.08, log=True),
                Categorical("xgboost.grow_policy", ("depthwise", "lossguide"), "depthwise"),
                Int("xgboost.max_depth", 3, 10, 6, when=by_level),
                Int("xgboost.max_leaves", 8, 255, 31, log=True, when=by_leaf),
                Float("xgboost.min_child_weight", 0.1, 50.0, 1.0, log=True),
                Float("xgboost.subsample", 0.5, 1.0, 0.9),
                Float("xgboost.colsample_bytree", 0.4, 1.0, 0.9),
                Float("xgboost.colsample_bynode", 0.4, 1.0, 1.0),
                Float("xgboost.reg_lambda", 1e-2, 30.0, 1.0, log=True),
                Float("xgboost.reg_alpha", 1e-6, 10.0, 1e-6, log=True),
                Float("xgboost.gamma", 1e-6, 5.0, 1e-6, log=True),
                Categorical("xgboost.max_bin", (64, 256, 512), 256),
            ]
        )

    def treatment(self, task: Task, profile: TableProfile) -> Mapping[str, tuple[Any, ...]]:
        """Target codes let shallow trees split categories in the order that matters."""
        return _offers.rough(task, profile, category=("target", "code", "mixed", "both"))

    def cost(self, config: Config, task: Task, profile: TableProfile) -> Cost:
        """A bound where the config limits the rounds; else early stopping decides, and nothing is known."""
        rounds = _rounds.known_rounds(self.name, config)
        if rounds is None:
            return Cost()
        leaves = _most_leaves(config, profile.rows)
        return bound(rounds * _rounds.trees_per_round(task), leaves, _most_depth(config))

    def fit(
        self,
        config: Config,
        task: Task,
        train: TabularData,
        valid: TabularData | None,
        budget: FitBudget,
        seed: int,
    ) -> FittedXGBoost:
        """Train round by round, keep the best round."""
        params = _params(config, task, budget.threads, seed)
        leaves = _most_leaves(config, len(train.x))
        rounds = _rounds.plan(self.name, config, params["learning_rate"], leaves * _rounds.trees_per_round(task))
        shared = {"max_bin": params["max_bin"], "nthread": budget.threads}
        try:
            data = xgb.QuantileDMatrix(train.x, train.y, weight=train.weight, **shared)
            seen = [data]
            if valid is not None:
                seen.append(xgb.QuantileDMatrix(valid.x, valid.y, weight=valid.weight, ref=data, **shared))
            booster = xgb.Booster(params, seen)

            def step(number: int) -> bool:
                booster.update(data, number)
                return False

            def validate() -> float:
                return float(booster.eval(seen[1], "valid").rpartition(":")[2])

            watch = _rounds.Watch(rounds, budget, validated=valid is not None)
            _rounds.train(watch, step, None if valid is None else validate)
            raw = bytes(booster[: watch.keep].save_raw("ubj"))
        except xgb.core.XGBoostError as error:
            raise TrialError(f"XGBoost could not train: {error}.") from error
        return FittedXGBoost(raw, task, watch.keep, budget.threads)

    def restore(self, state: dict[str, Any], task: Task) -> FittedXGBoost:
        """Read the model's bytes."""
        return FittedXGBoost(state["model"], task, state["rounds"])


class FittedXGBoost(FittedBoosting):
    """A trained XGBoost model; ``raw`` is its universal binary JSON, ``threads`` are for prediction."""

    def __init__(self, raw: bytes, task: Task, rounds: int, threads: int = 1) -> None:
        super().__init__(raw, task, rounds)
        self._booster = xgb.Booster({"nthread": threads, "verbosity": 0}, model_file=bytearray(raw))

    def _native(self, x: Matrix) -> NDArray[Any]:
        return np.asarray(self._booster.inplace_predict(x, validate_features=False))

    def _read(self) -> TreeTable:
        return read_trees(self._booster, self._task.kind)


def _most_leaves(config: Config, rows: int) -> int:
    by_leaf = config["xgboost.grow_policy"] == "lossguide"
    leaves = int(config["xgboost.max_leaves"]) if by_leaf else 2 ** int(config["xgboost.max_depth"])
    return max(2, min(leaves, rows))


def _most_depth(config: Config) -> int:
    if config["xgboost.grow_policy"] == "lossguide":
        return most_depth(int(config["xgboost.max_leaves"]))
    return int(config["xgboost.max_depth"])


def _params(config: Config, task: Task, threads: int, seed: int) -> dict[str, Any]:
    """Translate a config into XGBoost's words."""
    params = _rounds.own_params("xgboost", config)
    objective, metric = _OBJECTIVE[task.kind]
    params |= {
        "max_depth": _most_depth(config),
        "objective": objective,
        "eval_metric": metric,
        "tree_method": "hist",
        "nthread": threads,
        "seed": seed % 2**31,
        "verbosity": 0,
    }
    if task.kind is TaskKind.MULTICLASS:
        params["num_class"] = task.n_classes
    return params


def read_trees(booster: xgb.Booster, kind: TaskKind) -> TreeTable:
    """Read the trees of an XGBoost model from its JSON.

    Parameters
    ----------
    booster : xgboost.Booster
        With ``gbtree``.
    kind : TaskKind
        The base score of a binary model is a probability.

    Returns
    -------
    TreeTable
        The raw score before the link.
    """
    learner = _document(booster)["learner"]
    model = learner["gradient_booster"]["model"]
    trees = model["trees"]

    def field(name: str, dtype: Any) -> NDArray[Any]:
        return np.fromiter(chain.from_iterable(tree[name] for tree in trees), dtype)

    if field("split_type", np.int8).any():
        raise InternalError("An XGBoost model with splits by category can't be exported.")
    # One number, or since 3.1 a list of one for each output.
    base = np.float32(learner["learner_model_param"]["base_score"].strip("[]").split(","))
    if kind is TaskKind.BINARY:
        base = np.clip(base, _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)
        base = -np.log(np.float32(1) / base - np.float32(1))
    outputs = max(1, int(learner["learner_model_param"]["num_class"]))
    condition = field("split_conditions", np.float32)
    return from_nodes(
        np.array([len(tree["left_children"]) for tree in trees]),
        feature=field("split_indices", np.int32),
        threshold=before32(condition),
        left=field("left_children", np.int32),
        right=field("right_children", np.int32),
        missing_left=field("default_left", np.int8),
        value=condition[:, None],
        target=np.array(model["tree_info"], dtype=np.int32),
        bias=np.broadcast_to(base, (outputs,)).astype(np.float32),
    )


def _document(booster: xgb.Booster) -> dict[str, Any]:
    """A model of some hundred thousand nodes is megabytes of JSON, of which `json` would make seconds."""
    raw = booster.save_raw("json")
    try:
        read: dict[str, Any] = orjson.loads(raw)
    except orjson.JSONDecodeError:  # the gain of a split may be infinite, for which JSON has no word
        read = json.loads(bytes(raw))
    return read


FAMILY = XGBoost()
