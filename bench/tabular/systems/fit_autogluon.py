"""AutoGluon with one of its presets."""

from __future__ import annotations

import time

import pandas as pd
from _protocol import arguments, folder_bytes, timed, write

given = arguments()
begin = time.perf_counter()
from autogluon.tabular import TabularPredictor  # noqa: E402  # its import is part of what it costs, like everyone's

train, test = pd.read_csv(given.folder / "train.csv"), pd.read_csv(given.folder / "test.csv")
target = given.meta["target"]
Xt = test.drop(columns=target)
task = given.meta["task"]
metric = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "root_mean_squared_error"}[task]
predictor = TabularPredictor(
    target, problem_type=task, eval_metric=metric, path=str(given.out / "trained"), verbosity=0
).fit(train, presets=given.variant, time_limit=given.time, num_cpus=2, num_gpus=0)
fit_s = time.perf_counter() - begin
small = predictor.clone_for_deployment(str(given.out / "model"), return_clone=True)
small.persist()
if task == "regression":
    pd.DataFrame({"prediction": small.predict(Xt)}).to_csv(given.out / "answers.csv", index=False)
    answer = small.predict
else:
    small.predict_proba(Xt).rename(columns=str).to_csv(given.out / "answers.csv", index=False)
    answer = small.predict_proba
one = Xt.iloc[:1]
write(
    given.out,
    fit_s=fit_s,
    size_bytes=folder_bytes(given.out / "model"),
    one_row_ms=timed(lambda: answer(one), at_most=30) * 1e3,
    rows_per_s=len(Xt) / timed(lambda: answer(Xt), at_most=3),
    note=f"{len(predictor.model_names())} models, best={predictor.model_best}",
)
