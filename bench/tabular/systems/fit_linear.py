"""A plain linear model with scikit-learn's defaults."""

from __future__ import annotations

import pickle
import time

import pandas as pd
from _protocol import arguments, folder_bytes, timed, write
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

given = arguments()
begin = time.perf_counter()
train, test = pd.read_csv(given.folder / "train.csv"), pd.read_csv(given.folder / "test.csv")
target = given.meta["target"]
X, y, Xt = train.drop(columns=target), train[target], test.drop(columns=target)
prepare = make_column_transformer(
    (make_pipeline(SimpleImputer(), StandardScaler()), make_column_selector(dtype_include="number")),
    (OneHotEncoder(handle_unknown="ignore", min_frequency=5), make_column_selector(dtype_exclude="number")),
)
regression = given.meta["task"] == "regression"
model = make_pipeline(prepare, Ridge() if regression else LogisticRegression(max_iter=1000)).fit(X, y)
fit_s = time.perf_counter() - begin
(given.out / "model").write_bytes(pickle.dumps(model))
answer = model.predict if regression else model.predict_proba
scores = answer(Xt)
columns = ["prediction"] if regression else [str(c) for c in model.classes_]
pd.DataFrame(scores, columns=columns).to_csv(given.out / "answers.csv", index=False)
one = Xt.iloc[:1]
write(
    given.out,
    fit_s=fit_s,
    size_bytes=folder_bytes(given.out / "model"),
    one_row_ms=timed(lambda: answer(one)) * 1e3,
    rows_per_s=len(Xt) / timed(lambda: answer(Xt)),
    note="",
)
