"""FLAML with its defaults."""

from __future__ import annotations

import pickle
import time

import pandas as pd
from _protocol import arguments, folder_bytes, timed, write

given = arguments()
begin = time.perf_counter()
train, test = pd.read_csv(given.folder / "train.csv"), pd.read_csv(given.folder / "test.csv")
target = given.meta["target"]
X, y, Xt = train.drop(columns=target), train[target], test.drop(columns=target)

from flaml import AutoML  # noqa: E402  # its import is part of what it costs, like everyone's

regression = given.meta["task"] == "regression"
metric = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}[given.meta["task"]]
model = AutoML()
model.fit(
    X,
    y,
    task="regression" if regression else "classification",
    metric=metric,
    time_budget=given.time,
    n_jobs=2,
    verbose=0,
    seed=0,
)
fit_s = time.perf_counter() - begin
(given.out / "model").write_bytes(pickle.dumps(model.model))
answer = model.predict if regression else model.predict_proba
columns = ["prediction"] if regression else [str(c) for c in model.classes_]
pd.DataFrame(answer(Xt), columns=columns).to_csv(given.out / "answers.csv", index=False)
one = Xt.iloc[:1]
write(
    given.out,
    fit_s=fit_s,
    size_bytes=folder_bytes(given.out / "model"),
    one_row_ms=timed(lambda: answer(one)) * 1e3,
    rows_per_s=len(Xt) / timed(lambda: answer(Xt)),
    note=f"best={model.best_estimator}",
)
