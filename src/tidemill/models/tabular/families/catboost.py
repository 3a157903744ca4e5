"""Gradient boosting by CatBoost: oblivious trees, which test the same thing on a whole level.

Categories reach CatBoost as numbers, encoded by our own treatment, since its own encodings can't leave it as ONNX.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import catboost
import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import InternalError, TrialError
from tidemill.core.space import Categorical, Float, Int, Space
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config, Cost
from tidemill.models.tabular._base import FitBudget, Matrix, TableProfile, TabularData
from tidemill.models.tabular.families import _offers, _rounds
from tidemill.models.tabular.families._boosted import FittedBoosting
from tidemill.models.tabular.trees import TreeTable, bound
from tidemill.models.tabular.trees_oblivious import ObliviousTree, from_oblivious

_LOSS = {TaskKind.BINARY: "Logloss", TaskKind.MULTICLASS: "MultiClass", TaskKind.REGRESSION: "RMSE"}
_MISSING = np.finfo(np.float32).min
"""Stands for NaN: below every border, and unlike NaN allowed where training saw none."""

_NEVER = np.float32(-1e4)
"""Raw score of a class that training didn't see; its probability is 0."""


class CatBoost:
    """Oblivious trees: slower to train than the others, and often the best with little tuning."""

    name: ClassVar[str] = "catboost"
    bagged: ClassVar[bool] = True

    def supports(self, task: Task, profile: TableProfile) -> bool:
        """Any table with a column and a few rows; many classes take too long."""
        return profile.rows >= 4 and len(profile.features) > 0 and task.n_outputs <= 100

    def space(self, task: Task, profile: TableProfile) -> Space:
        """Ranges as wide as the best public portfolios reach; depth 8 keeps the graph small."""
        return Space(
            [
                Float("catboost.learning_rate", 5e-3, 0.3, 0.06, log=True),
                Int("catboost.depth", 4, 8, 6),
                Float("catboost.l2_leaf_reg", 1.0, 30.0, 3.0, log=True),
                Float("catboost.random_strength", 0.1, 20.0, 1.0, log=True),
                Float("catboost.bagging_temperature", 0.0, 1.0, 0.5),
                Float("catboost.rsm", 0.4, 1.0, 1.0),
                Categorical("catboost.border_count", (64, 128, 254), 128),
            ]
        )

    def treatment(self, task: Task, profile: TableProfile) -> Mapping[str, tuple[Any, ...]]:
        """Target codes come nearest to CatBoost's own ordered statistics."""
        return _offers.rough(task, profile, category=("target", "both", "code", "mixed"))

    def cost(self, config: Config, task: Task, profile: TableProfile) -> Cost:
        """A bound where the config limits the rounds; else early stopping decides, and nothing is known."""
        rounds = _rounds.known_rounds(self.name, config)
        if rounds is None:
            return Cost()
        depth = int(config["catboost.depth"])
        return bound(rounds, 2**depth, depth, _rounds.trees_per_round(task))

    def fit(
        self,
        config: Config,
        task: Task,
        train: TabularData,
        valid: TabularData | None,
        budget: FitBudget,
        seed: int,
    ) -> FittedCatBoost:
        """Train round by round, keep the best round."""
        own = _rounds.own_params(self.name, config)
        rounds = _rounds.plan(self.name, config, own["learning_rate"], 2 ** own["depth"])
        params = own | {
            "loss_function": _LOSS[task.kind],
            "iterations": rounds.limit if valid else rounds.fixed,
            "bootstrap_type": "Bayesian",
            "boosting_type": "Plain",
            "thread_count": budget.threads,
            "random_seed": seed % 2**31,
            "logging_level": "Silent",
            "allow_writing_files": False,
        }
        if task.kind.is_classification:
            params["class_names"] = list(range(task.n_classes))
        watch = _rounds.Watch(rounds, budget, validated=valid is not None)
        model = catboost.CatBoost(params)
        silence = io.StringIO()
        try:
            model.fit(
                _pool(train),
                eval_set=None if valid is None else _pool(valid),
                use_best_model=False,
                callbacks=[_Callback(watch)],
                log_cout=silence,
                log_cerr=silence,
            )
            model.shrink(watch.keep)
        except catboost.CatBoostError as error:
            raise TrialError(f"CatBoost could not train: {error}.") from error
        return FittedCatBoost(_save(model, "cbm"), task, watch.keep, budget.threads)

    def restore(self, state: dict[str, Any], task: Task) -> FittedCatBoost:
        """Read the model's bytes."""
        return FittedCatBoost(state["model"], task, state["rounds"])


class FittedCatBoost(FittedBoosting):
    """A trained CatBoost model; ``blob`` is its own binary form, ``threads`` are for prediction."""

    def __init__(self, blob: bytes, task: Task, rounds: int, threads: int = 1) -> None:
        super().__init__(blob, task, rounds)
        self._threads = threads
        self._booster = catboost.CatBoost()
        self._booster.load_model(blob=blob)

    def _native(self, x: Matrix) -> NDArray[Any]:
        kind = self._task.kind
        form = "Probability" if kind.is_classification else "RawFormulaVal"
        native = np.asarray(self._booster.predict(_filled(x), prediction_type=form, thread_count=self._threads))
        return native[:, 1] if kind is TaskKind.BINARY else native

    def _read(self) -> TreeTable:
        return read_trees(self._booster, _rounds.trees_per_round(self._task))


class _Callback:
    """Shows CatBoost's rounds to a watch."""

    def __init__(self, watch: _rounds.Watch) -> None:
        self._watch = watch

    def after_iteration(self, info: Any) -> bool:
        """Return True to go on."""
        losses = info.metrics.get("validation")
        loss = next(iter(losses.values()))[-1] if losses else None
        return self._watch.seen(info.iteration - 1, loss)


def _filled(x: Matrix) -> Matrix:
    return np.where(np.isnan(x), _MISSING, x)


def _pool(data: TabularData) -> catboost.Pool:
    return catboost.Pool(_filled(data.x), data.y, weight=data.weight)


def _save(model: catboost.CatBoost, form: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        model.save_model(str(path), format=form)
        return path.read_bytes()


def read_trees(model: catboost.CatBoost, n_outputs: int) -> TreeTable:
    """Read the trees of a CatBoost model from its JSON.

    Parameters
    ----------
    model : catboost.CatBoost
        With numeric features and oblivious trees only.
    n_outputs : int
        1, or the number of classes; CatBoost leaves out those that training didn't see.

    Returns
    -------
    TreeTable
        The raw score before the link.
    """
    content = json.loads(_save(model, "json"))
    scale, bias = content["scale_and_bias"]
    seen = content["model_info"]["class_params"]["class_to_label"] if n_outputs > 1 else [0]
    column = {f["feature_index"]: f["flat_feature_index"] for f in content["features_info"]["float_features"]}
    trees = []
    for tree in content["oblivious_trees"]:
        splits = tree["splits"] or []
        if any(split["split_type"] != "FloatFeature" for split in splits):
            raise InternalError("A CatBoost model with categories can't be exported.")
        leaf = np.zeros((2 ** len(splits), n_outputs), dtype=np.float32)
        leaf[:, seen] = np.reshape(tree["leaf_values"], (len(leaf), -1)) * scale
        trees.append(
            ObliviousTree(
                feature=np.array([column[s["float_feature_index"]] for s in splits], dtype=np.int32),
                threshold=np.array([s["border"] for s in splits], dtype=np.float32),
                leaf=leaf,
            )
        )
    base = np.full(n_outputs, _NEVER, dtype=np.float32)
    base[seen] = bias
    return from_oblivious(trees, base)


FAMILY = CatBoost()
