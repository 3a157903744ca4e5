"""Linear models: logistic, ridge, elastic net, Huber."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.errors import TrialError
from tidemill.core.space import Categorical, Float, Param, Space
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config, Cost
from tidemill.models.tabular._base import FitBudget, Matrix, TableProfile, TabularData
from tidemill.models.tabular.families import _links, _offers
from tidemill.models.tabular.pipeline import treated_profile

STRENGTHS = (0.003, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""The path of C, from strong to weak regularisation. Each fit starts from the one before."""
_PATIENCE = 2
_STEPS = 40
_HUBER = 1.345
_DIRECT_COLUMNS = 2000
_SINGLE_CELLS = 8_000_000


class Linear:
    """A weighted sum of treated columns: small, quick, and calibrated; strong where data are few.

    How strongly the weights are drawn to 0 isn't searched for but found in the fit: weights are computed along a
    path of strengths, each from the one before, and those with the best validation loss are kept.
    """

    name: ClassVar[str] = "linear"
    bagged: ClassVar[bool] = True

    def supports(self, task: Task, profile: TableProfile) -> bool:
        """Any table with a column and two rows."""
        return profile.rows >= 2 and len(profile.features) > 0

    def space(self, task: Task, profile: TableProfile) -> Space:
        """Shape of the penalty, and of the loss for regression."""
        params: list[Param] = [Float("linear.l1_ratio", 0.0, 1.0, 0.0)]
        if not task.kind.is_classification:
            params.append(Categorical("linear.loss", ("squared", "huber"), "squared"))
        return Space(params)

    def treatment(self, task: Task, profile: TableProfile) -> Mapping[str, tuple[Any, ...]]:
        """Everything to numbers on one scale."""
        return _offers.smooth(
            task,
            profile,
            number=("spline", "standard", "fine spline"),
            category=("mixed", "onehot", "full"),
            cross=("none", "pairs", "products"),
        )

    def cost(self, config: Config, task: Task, profile: TableProfile) -> Cost:
        """A weight per column and output; exact but for columns that the treatment may leave out."""
        return _cost(len(treated_profile(config, task, profile).features), _links.n_logits(task))

    def fit(
        self,
        config: Config,
        task: Task,
        train: TabularData,
        valid: TabularData | None,
        budget: FitBudget,
        seed: int,
    ) -> FittedLinear:
        """Walk the path; nothing is random."""
        problem = _Problem(
            task,
            train,
            l1_ratio=float(config.get("linear.l1_ratio", 0.0)),
            huber=config.get("linear.loss") == "huber",
        )
        path = STRENGTHS if valid is not None else (float(config.get("linear.c", 1.0)),)
        weights = problem.start()
        best, best_loss, worse, longest_s = weights, float("inf"), 0, 0.0
        for number, strength in enumerate(path):
            begin_s = time.perf_counter()
            weights = problem.solve(weights, strength, budget)
            if not np.isfinite(weights).all():
                raise TrialError("The weights of the linear model have grown without bound.")
            if valid is None:
                best = weights
                break
            model = problem.model(weights)
            loss = _links.validation_loss(model.predict(valid.x), _known(valid), valid.weight, task)
            budget.curve.append((number + 1, loss))
            if loss < best_loss:
                best, best_loss, worse = weights, loss, 0
            else:
                worse += 1
            longest_s = max(longest_s, time.perf_counter() - begin_s)
            if worse >= _PATIENCE or budget.left_s() < 1.5 * longest_s:
                break
        return problem.model(best)

    def restore(self, state: dict[str, Any], task: Task) -> FittedLinear:
        """Read the weights."""
        return FittedLinear(state["weights"], state["bias"], task)


@dataclass(frozen=True)
class FittedLinear:
    """Weights.

    Parameters
    ----------
    weights : ndarray of float32, shape (n_features, n_logits)
        One column for regression and for two classes.
    bias : ndarray of float32, shape (n_logits,)
        Added to the sums.
    task : Task
        Says how sums become scores.
    """

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    task: Task

    @property
    def cost(self) -> Cost:
        """A weight per column and output."""
        return _cost(*self.weights.shape)

    def predict(self, x: Matrix) -> NDArray[np.float32]:
        """Sums in numpy."""
        return _links.scores(x @ self.weights + self.bias, self.task)

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """One Gemm."""
        z = graph.op("Gemm", x, graph.const(self.weights, np.float32), graph.const(self.bias, np.float32))
        return _links.emit_scores(graph, z, self.task)

    def checkpoint(self) -> dict[str, Any]:
        """The weights."""
        return {"weights": self.weights, "bias": self.bias}


class _Problem:
    """Mean loss plus ``(l1 |w| + (1 - l1)/2 w²) / (C n)`` as a function of the weights."""

    def __init__(self, task: Task, train: TabularData, *, l1_ratio: float, huber: bool) -> None:
        n, p = train.x.shape
        dtype = np.float64 if n * p <= _SINGLE_CELLS else np.float32
        self.task, self.l1_ratio, self.huber = task, l1_ratio, huber
        self.k = _links.n_logits(task)
        # Centred columns make the intercept independent of the weights, and the first steps good ones.
        self.centre = train.x.mean(axis=0, dtype=np.float64)
        if not np.isfinite(self.centre).all():
            raise TrialError("A linear model needs finite columns.", hint="Choose the treatment 'missing' = 'impute'.")
        self.x = train.x.astype(dtype) - self.centre.astype(dtype)
        self.y = _known(train)
        self.weight = np.ones(n) if train.weight is None else train.weight / train.weight.mean()
        if task.kind is TaskKind.MULTICLASS:
            self.hot = np.zeros((n, self.k))
            self.hot[np.arange(n), self.y] = 1.0

    def start(self) -> NDArray[np.float64]:
        """No weights, and the bias that fits the mean."""
        w = np.zeros((self.x.shape[1] + 1, self.k))
        if self.task.kind is TaskKind.REGRESSION:
            w[-1] = np.average(self.y, weights=self.weight)
        else:
            counts = np.bincount(self.y, weights=self.weight, minlength=self.task.n_classes) + 0.5
            log_share = np.log(counts / counts.sum())
            w[-1] = log_share - log_share.mean() if self.k > 1 else log_share[1] - log_share[0]
        return w

    def solve(self, w: NDArray[np.float64], strength: float, budget: FitBudget) -> NDArray[np.float64]:
        """Minimise from ``w`` on; stops at the deadline with what it has."""
        penalty = 1.0 / (strength * len(self.x))
        plain = self.l1_ratio == 0.0
        if plain and not self.huber and self.task.kind is TaskKind.REGRESSION and len(w) <= _DIRECT_COLUMNS:
            return self._ridge(penalty)
        if plain:
            return self._descend(w, lambda v: self._value(v, penalty), None, budget)
        # |w| has no slope at 0: w is split into two parts that mustn't be negative, whose sum is |w|.
        positive, negative = np.maximum(w, 0.0), np.maximum(-w, 0.0)

        def value(both: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            a, b = both[: len(w)], both[len(w) :]
            loss, slope = self._value(a - b, penalty * (1 - self.l1_ratio))
            rate = penalty * self.l1_ratio
            push = np.full_like(a, rate)
            push[-1] = 0.0
            return loss + rate * float(a[:-1].sum() + b[:-1].sum()), np.concatenate([slope + push, push - slope])

        both = self._descend(np.concatenate([positive, negative]), value, 0.0, budget)
        return both[: len(w)] - both[len(w) :]

    def model(self, w: NDArray[np.float64]) -> FittedLinear:
        """Undo the centring."""
        bias = w[-1] - self.centre @ w[:-1]
        return FittedLinear(w[:-1].astype(np.float32), bias.astype(np.float32), self.task)

    def _ridge(self, penalty: float) -> NDArray[np.float64]:
        n = len(self.x)
        weighted = self.x * self.weight[:, None].astype(self.x.dtype)
        total = self.weight.sum()
        shift = weighted.sum(axis=0, dtype=np.float64) / total
        mean = float(np.average(self.y, weights=self.weight))
        gram = (weighted.T @ self.x).astype(np.float64) - total * np.outer(shift, shift)
        right = weighted.T.astype(np.float64) @ self.y - total * shift * mean
        gram[np.diag_indices_from(gram)] += penalty * n + 1e-9 * max(float(np.trace(gram)) / len(gram), 1e-12)
        w = np.linalg.solve(gram, right)
        return np.append(w, mean - shift @ w)[:, None]

    def _descend(
        self,
        w: NDArray[np.float64],
        value: Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]],
        low: float | None,
        budget: FitBudget,
    ) -> NDArray[np.float64]:
        shape = w.shape

        def flat(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            loss, slope = value(v.reshape(shape))
            return loss, slope.ravel()

        def check(intermediate_result: scipy.optimize.OptimizeResult) -> None:
            if budget.left_s() <= 0.0:
                raise StopIteration

        bounds = None if low is None else scipy.optimize.Bounds(np.full(w.size, low), np.full(w.size, np.inf))
        result = scipy.optimize.minimize(
            flat, w.ravel(), jac=True, method="L-BFGS-B", bounds=bounds, callback=check,
            options={"maxiter": _STEPS, "maxcor": 10, "ftol": 1e-7, "gtol": 1e-6},
        )  # fmt: skip
        return np.asarray(result.x, dtype=np.float64).reshape(shape)

    def _value(self, w: NDArray[np.float64], penalty: float) -> tuple[float, NDArray[np.float64]]:
        z = (self.x @ w[:-1].astype(self.x.dtype)).astype(np.float64) + w[-1]
        loss, slope = self._loss(z)
        slope *= (self.weight / len(z))[:, None]
        grad = np.empty_like(w)
        grad[:-1] = self.x.T @ slope.astype(self.x.dtype) + penalty * w[:-1]
        grad[-1] = slope.sum(axis=0)
        return float(loss @ self.weight) / len(z) + 0.5 * penalty * float((w[:-1] ** 2).sum()), grad

    def _loss(self, z: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Loss of each row, and its slope in each linear score."""
        if self.task.kind is TaskKind.MULTICLASS:
            top = z.max(axis=1, keepdims=True)
            e = np.exp(z - top)
            total = e.sum(axis=1, keepdims=True)
            own = np.take_along_axis(z, self.y[:, None], axis=1)
            return (np.log(total) + top - own)[:, 0], e / total - self.hot
        if self.task.kind is TaskKind.BINARY:
            return np.logaddexp(0.0, z[:, 0]) - self.y * z[:, 0], _links.sigmoid(z) - self.y[:, None]
        error = z - self.y[:, None]
        if not self.huber:
            return 0.5 * error[:, 0] ** 2, error
        near = np.clip(error, -_HUBER * 0.5, _HUBER * 0.5)
        return (near * (error - 0.5 * near))[:, 0], near


def _known(data: TabularData) -> NDArray[Any]:
    if data.y is None:
        raise TrialError("Rows to learn from need targets.")
    return data.y


def _cost(columns: int, outputs: int) -> Cost:
    params = (columns + 1) * outputs
    return Cost(params, 2 * columns * outputs + 4 * outputs, 4 * params + 500)


FAMILY = Linear()
