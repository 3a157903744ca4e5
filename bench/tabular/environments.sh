#!/usr/bin/env bash
# Makes an environment for each rival under bench/.environments (once). Tidemill and the plain models use .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
[ -x .environments/autogluon/bin/python ] || {
  "$python" -m venv .environments/autogluon
  .environments/autogluon/bin/pip install -q "torch==2.13.0"
  .environments/autogluon/bin/pip install -q "autogluon.tabular[lightgbm,catboost,xgboost,fastai]==1.6.3"
}
[ -x .environments/flaml/bin/python ] || {
  "$python" -m venv .environments/flaml
  .environments/flaml/bin/pip install -q "flaml[automl]==2.7.0" catboost pandas scikit-learn
}
