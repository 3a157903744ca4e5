"""LightGBM as it comes, no tuning."""

from __future__ import annotations

import time

import lightgbm as lgb
import pandas as pd
from _protocol import arguments, folder_bytes, timed, write

given = arguments()
begin = time.perf_counter()
train, test = pd.read_csv(given.folder / "train.csv"), pd.read_csv(given.folder / "test.csv")
target = given.meta["target"]
X, y, Xt = train.drop(columns=target), train[target], test.drop(columns=target)
for name in X.select_dtypes(exclude="number"):
    kind = pd.CategoricalDtype(sorted(X[name].dropna().unique()))
    X[name], Xt[name] = X[name].astype(kind), Xt[name].astype(kind)
regression = given.meta["task"] == "regression"
model = (lgb.LGBMRegressor if regression else lgb.LGBMClassifier)(verbose=-1).fit(X, y)
fit_s = time.perf_counter() - begin
model.booster_.save_model(str(given.out / "model"))
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
    note="",
)
