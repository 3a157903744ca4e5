"""Facts of small scikit-learn models on data that ships with scikit-learn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tidemill.core.schema import Column, Columns, Schema, SemanticType
from tidemill.core.task import Task, TaskKind
from tidemill.report.facts import Evidence, ReportFacts


def leaderboard(value: float, greater_is_better: bool) -> list[dict[str, Any]]:
    """Rows such as a search leaves behind."""
    rng = np.random.default_rng(3)
    rows = []
    families = ["lightgbm", "xgboost", "forest", "linear", "mlp", "knn"]
    for i in range(24):
        family = families[i % len(families)]
        lost = abs(value) * 0.0015 * i**1.4
        speed = {"lightgbm": 0.08, "xgboost": 0.1, "forest": 0.9, "linear": 0.02, "mlp": 0.04, "knn": 2.0}[family]
        rows.append({
            "trial": f"{family}-{i}", "family": family, "value": value - lost if greater_is_better else value + lost,
            "latency_ms": speed * float(rng.uniform(0.7, 2)), "size_bytes": int(speed * 1e6 * rng.uniform(0.5, 3)),
            "params": int(speed * 1e5), "folds": 5, "wall_s": float(rng.uniform(0.3, 6)), "state": "complete",
            "weight": {0: 0.55, 2: 0.25, 5: 0.2}.get(i),
        })  # fmt: skip
    failed = dict.fromkeys(["value", "latency_ms", "size_bytes", "params", "wall_s", "weight"])
    return [*rows, {**failed, "trial": "knn-24", "family": "knn", "folds": 0, "state": "failed"}]


def history(board: list[dict[str, Any]]) -> list[tuple[float, float]]:
    done = [r for r in board if r["value"] is not None]
    order = np.random.default_rng(5).permutation(len(done))
    return [(2.0 * n + 1.5, float(done[i]["value"])) for n, i in enumerate(order)]


def matrix(columns: Columns) -> NDArray[np.float64]:
    """Numbers as they are, texts by position in the alphabet."""
    parts = [
        np.unique(v.astype(str), return_inverse=True)[1].astype(float)
        if v.dtype == object
        else np.nan_to_num(v.astype(float))
        for v in columns.values()
    ]
    return np.column_stack(parts)


def facts_of(task: Task, schema: Schema, columns: Columns, y: NDArray[Any], metric: str, **more: Any) -> ReportFacts:
    """Fit a forest, and tell of it what a study would tell."""
    texts = {n: np.unique(v.astype(str)) for n, v in columns.items() if v.dtype == object}

    def encode(given: Columns) -> NDArray[np.float64]:
        return np.column_stack([
            np.searchsorted(texts[n], v.astype(str)).astype(float) if n in texts else np.nan_to_num(v.astype(float))
            for n, v in given.items()
        ])  # fmt: skip

    classify = task.kind.is_classification
    model: Any = (RandomForestClassifier if classify else RandomForestRegressor)(
        25, min_samples_leaf=3, random_state=0, max_depth=12
    )
    x = encode(columns)
    method = "predict_proba" if classify else "predict"
    held_out = cross_val_predict(model, x, y, cv=3, method=method)
    model.fit(x, y)

    def predict(given: Columns) -> NDArray[np.float32]:
        return np.asarray(getattr(model, method)(encode(given)), np.float32).reshape(
            len(next(iter(given.values()))), -1
        )

    scores = np.asarray(held_out, np.float32).reshape(len(y), -1)
    decisions = (scores[:, 1] > 0.4).astype(np.int64) if task.n_classes == 2 else scores.argmax(1) if classify else None
    evidence = Evidence("out of fold", y, scores, decisions, columns)
    slim = rows_of(evidence, np.arange(0, len(y), 4), name="locked test slice")
    greater = metric not in ("log_loss", "rmse", "mae")
    board = leaderboard(more.pop("about", 0.93 if greater else 0.4), greater)
    known: dict[str, Any] = {
        "findings": [
            {"severity": "warning", "column": None, "message": "12 rows stand twice.", "hint": "Remove the copies."},
            {"severity": "info", "column": schema.features[0].name, "message": "3 % missing.", "hint": None},
        ],
        "constraints": [
            {"constraint": "latency_ms <= 3", "value": 0.84, "satisfied": True},
            {"constraint": "params <= 1000", "value": 5200.0, "satisfied": False},
        ],
        "steps": [
            "The table was read, and each column got a meaning.",
            "24 models were trained on five parts of the rows in turn, each measured on the part it had not seen.",
            "The three that do best together were joined, and their probabilities calibrated.",
            "The result was written as one ONNX graph, which gives the same answers as the models it was made from.",
        ],
        "bundle": {"path": "income.tm", "latency_ms": 0.84, "size_bytes": 2_400_000, "parity": "within 3e-7",
                   "opset": 17, "sha256": "9f2b" * 16},
    }  # fmt: skip
    return ReportFacts(
        study="study-1",
        task=task,
        schema=schema,
        objective=more.pop("objective", f"{'maximize' if greater else 'minimize'} {metric}"),
        metric=metric,
        greater_is_better=greater,
        leaderboard=board,
        pareto=[],
        history=history(board),
        evidence=[evidence, slim],
        predict=predict,
        **{**known, **more},
    )


def rows_of(evidence: Evidence, rows: NDArray[Any], name: str | None = None) -> Evidence:
    decisions = None if evidence.decisions is None else evidence.decisions[rows]
    columns = {n: v[rows] for n, v in evidence.columns.items()}
    return Evidence(name or evidence.name, evidence.y[rows], evidence.scores[rows], decisions, columns)


def few_rows(facts: ReportFacts, rows: NDArray[Any]) -> ReportFacts:
    return replace(facts, evidence=[rows_of(facts.evidence[0], rows)])


def schema_of(columns: Columns, target: str, **types: SemanticType) -> Schema:
    made = [
        Column(n, types.get(n, SemanticType.CATEGORY if v.dtype == object else SemanticType.NUMBER))
        for n, v in columns.items()
    ]
    return Schema((*made, Column("row_id", SemanticType.IDENTIFIER, reason="a different value in every row"),
                   Column(target, SemanticType.TARGET)))  # fmt: skip


def cancer() -> ReportFacts:
    """Binary: the breast cancer data, with a text, a date and a boolean beside the numbers."""
    raw = datasets.load_breast_cancer()
    rng = np.random.default_rng(0)
    columns: Columns = {n: raw.data[:, i].astype(float) for i, n in enumerate(raw.feature_names[:8])}
    columns["site"] = rng.choice(np.array(["north", "south", "east", ""], dtype=object), len(raw.target))
    columns["seen on"] = 1.6e9 + np.floor(rng.uniform(0, 900, len(raw.target))) * 86400
    columns["repeat"] = rng.integers(0, 2, len(raw.target)).astype(float)
    columns["mean radius"][::17] = np.nan
    types = {"seen on": SemanticType.DATETIME, "repeat": SemanticType.BOOLEAN}
    task = Task(TaskKind.BINARY, "diagnosis", ("benign", "malignant"))
    return facts_of(task, schema_of(columns, "diagnosis", **types), columns, 1 - raw.target.astype(np.int64), "roc_auc")


def digits() -> ReportFacts:
    """Multiclass with 19 classes: digits, split by their ink."""
    raw = datasets.load_digits()
    ink = raw.data.sum(1)
    codes = raw.target * 2 + (ink > np.median(ink))
    codes = np.where(codes == 19, 18, codes).astype(np.int64)
    columns: Columns = {f"pixel {i}": raw.data[:, i].astype(float) for i in range(18, 46)}
    columns["ink"] = ink
    task = Task(TaskKind.MULTICLASS, "sign", tuple(f"{k // 2}{'ab'[k % 2]}" for k in range(19)))
    return facts_of(task, schema_of(columns, "sign"), columns, codes, "log_loss")


def diabetes() -> ReportFacts:
    """Regression: progression of diabetes."""
    raw = datasets.load_diabetes()
    columns: Columns = {n: raw.data[:, i].astype(float) for i, n in enumerate(raw.feature_names)}
    columns["sex"] = np.where(columns["sex"] > 0, "f", "m").astype(object)
    task = Task(TaskKind.REGRESSION, "progression", label_type="number")
    return facts_of(task, schema_of(columns, "progression"), columns, raw.target.astype(float), "rmse", about=56.0)


def adult_like(rows: int = 36_000) -> ReportFacts:
    """Binary evidence as large as the adult data: 14 columns, a quick linear model."""
    rng = np.random.default_rng(1)
    columns: Columns = {f"number {i}": rng.normal(size=rows).round(2) for i in range(6)}
    for i in range(8):
        columns[f"kind {i}"] = np.array([f"v{k}" for k in range(4 + i)], dtype=object)[rng.integers(0, 4 + i, rows)]
    x = matrix(columns)
    y = (x[:, 0] + 0.5 * x[:, 1] * (x[:, 6] > 1) + 0.3 * x[:, 8] + rng.normal(size=rows) > 1.4).astype(np.int64)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x[:2000], y[:2000])

    def predict(given: Columns) -> NDArray[np.float32]:
        return np.asarray(model.predict_proba(matrix(given)), np.float32)

    scores = predict(columns)
    evidence = Evidence("out of fold", y, scores, scores.argmax(1), columns)
    task = Task(TaskKind.BINARY, "income", ("<=50K", ">50K"))
    board = leaderboard(0.93, True)
    return ReportFacts(
        "adult-1", task, schema_of(columns, "income"), "maximize roc_auc", "roc_auc", True, board, [], history(board),
        [evidence, rows_of(evidence, np.arange(9000), "locked test slice")], predict,
    )  # fmt: skip
